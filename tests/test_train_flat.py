"""Weights in one array: the same steps, the same state, as PyTorch's optimisers of weights one by one."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from convscope import models
from convscope.train.flat import Flat, FlatOptimizer
from convscope.train.parts import Average

KINDS: dict[str, tuple[Any, dict[str, Any]]] = {
    "adamw": (torch.optim.AdamW, {"lr": 0.01, "weight_decay": 0.1, "fused": True}),
    "sgd": (torch.optim.SGD, {"lr": 0.01, "momentum": 0.9, "nesterov": True, "weight_decay": 0.1, "fused": True}),
}


def _two(kind: str) -> tuple[nn.Module, Any, nn.Module, FlatOptimizer]:
    torch.manual_seed(0)
    plain = models.build("LeNet5").to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    flat = copy.deepcopy(plain)
    made, options = KINDS[kind]

    def groups(model: nn.Module) -> list[dict[str, Any]]:
        weights = list(model.parameters())
        return [{"params": weights[:3], "share": 0.5}, {"params": weights[3:], "share": 1.0}]

    return plain, made(groups(plain), **options), flat, FlatOptimizer(made, groups(flat), **options)


def _learn(model: nn.Module, seed: int) -> None:
    x = torch.rand(4, 1, 32, 32, generator=torch.Generator().manual_seed(seed))
    model(x).square().mean().backward()


def _steps(model: nn.Module, optimizer: Any, seeds: range) -> None:
    for seed in seeds:
        optimizer.zero_grad()
        _learn(model, seed)
        if isinstance(optimizer, FlatOptimizer):
            optimizer.clip(0.01)
        else:
            torch.nn.utils.clip_grad_norm_(model.parameters(), 0.01)
        optimizer.step()


def _same(one: nn.Module, other: nn.Module) -> None:
    for a, b in zip(one.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-5)
        assert a.stride() == b.stride()


@pytest.mark.parametrize("kind", KINDS)
def test_steps_and_state_are_those_of_weights_one_by_one(kind: str) -> None:
    plain, one, flat, other = _two(kind)
    _steps(plain, one, range(3))
    _steps(flat, other, range(3))
    _same(plain, flat)
    told, own = one.state_dict(), other.state_dict()
    assert [{**g, "params": len(g["params"])} for g in told["param_groups"]] == [
        {**g, "params": len(g["params"])} for g in own["param_groups"]
    ]
    for number, state in told["state"].items():
        for name, value in state.items():
            mine = own["state"][number][name]
            same = value == mine if value is None else torch.allclose(value, mine, atol=1e-7, rtol=1e-4)
            assert same, (number, name)


@pytest.mark.parametrize("kind", KINDS)
def test_a_state_of_weights_one_by_one_goes_on(kind: str) -> None:
    plain, one, flat, other = _two(kind)
    _steps(plain, one, range(2))
    flat.load_state_dict(plain.state_dict())
    other.load_state_dict(copy.deepcopy(one.state_dict()))
    _steps(plain, one, range(2, 4))
    _steps(flat, other, range(2, 4))
    _same(plain, flat)


def test_weights_and_gradients_stay_parts_of_their_arrays() -> None:
    _, _, flat, optimizer = _two("sgd")
    _steps(flat, optimizer, range(1))
    for group in optimizer.flats:
        low, high = group.values.data_ptr(), group.values.data_ptr() + group.values.nbytes
        assert all(low <= w.data_ptr() < high for w in group.weights)
        values = group.values.grad
        assert values is not None
        assert all(torch.equal(w.grad, part) for w, part in zip(group.weights, group.parts(values), strict=True))  # pyright: ignore


def test_without_the_kernels_pytorchs_optimiser_takes_the_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    _, _, own, ours = _two("adamw")
    monkeypatch.setattr("convscope.layers.fast.stepping.library", lambda: None)
    _, _, other, plain = _two("adamw")
    assert not plain.own
    _steps(own, ours, range(3))
    _steps(other, plain, range(3))
    _same(own, other)


def test_weights_without_gradients_and_gradients_in_another_order_are_stepped_too() -> None:
    kind, options = KINDS["adamw"]
    weights = [nn.Parameter(torch.arange(n * 6.0).view(n, 6)) for n in (3, 1, 5)]
    plain = copy.deepcopy(weights)
    one = kind(plain, **{**options, "fused": False})  # the other takes gradients to lie as their weights
    other = FlatOptimizer(kind, [{"params": weights}], **options)
    for seed in range(4):
        grads = torch.randn(5, 6, generator=torch.Generator().manual_seed(seed))
        for both in (weights, plain):
            both[0].grad, both[2].grad = grads[:3].clone(), grads.T.contiguous().T
        plain[1].grad = torch.zeros(1, 6)  # none is none
        other.clip(0.5)
        torch.nn.utils.clip_grad_norm_(plain, 0.5)
        one.step()
        other.step()
    for a, b in zip(plain, weights, strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-5)


def test_a_gradient_that_is_no_number_makes_all_weights_none() -> None:
    _, _, model, optimizer = _two("adamw")
    _learn(model, 0)
    grad = next(model.parameters()).grad
    assert grad is not None
    grad.view(-1)[0] = torch.nan
    optimizer.clip(1.0)
    optimizer.step()
    assert all(w.isnan().all() for w in model.parameters())


def test_weights_that_share_memory_with_others_get_their_own() -> None:
    whole = torch.arange(12.0).view(3, 4)
    weight = nn.Parameter(whole[:, :2])
    flat = Flat([weight])
    assert weight.tolist() == [[0, 1], [4, 5], [8, 9]]
    flat.values.data.zero_()
    assert whole[1, 1] == 5
    assert weight.abs().sum() == 0


def test_the_average_in_one_array_is_that_of_weights_one_by_one() -> None:
    _, _, flat, optimizer = _two("adamw")
    together = Average(flat, decay=0.7, flats=optimizer.flats)
    apart = Average(flat, decay=0.7)
    for step in range(1, 4):
        _steps(flat, optimizer, range(step, step + 1))
        together.follow(step)
        apart.follow(step)
    found, wanted = together.inner.state_dict(), apart.inner.state_dict()
    for key, value in wanted.items():
        torch.testing.assert_close(found[key], value, atol=1e-7, rtol=1e-6)
    assert not _equal(found, flat.state_dict())


def _equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return all(torch.equal(one[key], other[key]) for key in one)
