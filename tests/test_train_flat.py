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


def test_gradients_in_another_order_than_their_weights_are_stepped_too() -> None:
    kind, options = KINDS["adamw"]
    weights = [nn.Parameter(torch.arange(n * 6.0).view(n, 6)) for n in (3, 1, 5)]
    plain = copy.deepcopy(weights)
    one = kind(plain, **{**options, "fused": False})  # the other takes gradients to lie as their weights
    other = FlatOptimizer(kind, [{"params": weights}], **options)
    for seed in range(4):
        grads = torch.randn(5, 6, generator=torch.Generator().manual_seed(seed))
        for both in (weights, plain):
            both[0].grad, both[1].grad, both[2].grad = grads[:3].clone(), grads[3:4].clone(), grads.T.contiguous().T
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


class _Branches(nn.Module):
    """Its parts take turns: a batch reaches those that its number names, and one part never runs."""

    def __init__(self) -> None:
        super().__init__()
        self.parts = nn.ModuleList(nn.Linear(8, 8) for _ in range(4))

    def forward(self, x: Tensor, number: int) -> Tensor:
        for at in ((0, 1, 2), (0, 2), (1,), (0, 1, 2))[number % 4] if number > 1 else (0, 1, 2)[: 3 - number]:
            x = self.parts[at](x)
        return x


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("never", [True, False])
def test_a_weight_that_a_step_does_not_reach_is_left_alone(kind: str, never: bool) -> None:
    """As PyTorch leaves it: no decay, no momentum, no step counted; also from a state that was kept in between."""
    torch.manual_seed(0)
    plain = _Branches()
    if not never:
        del plain.parts[3]
    flat = copy.deepcopy(plain)
    made, options = KINDS[kind]
    one = made(plain.parameters(), **options)
    before = [p.detach().clone() for p in plain.parts[-1].parameters()]

    def steps(model: _Branches, optimizer: Any, numbers: range) -> None:
        for number in numbers:
            optimizer.zero_grad()
            x = torch.rand(4, 8, generator=torch.Generator().manual_seed(number))
            model(x, number).square().mean().backward()
            optimizer.step()

    other = FlatOptimizer(made, [{"params": list(flat.parameters())}], **options)
    steps(plain, one, range(9))
    steps(flat, other, range(5))
    resumed = copy.deepcopy(flat)
    again = FlatOptimizer(made, [{"params": list(resumed.parameters())}], **options)
    again.load_state_dict(copy.deepcopy(other.state_dict()))
    for model, optimizer in ((flat, other), (resumed, again)):
        steps(model, optimizer, range(5, 9))
        _same(plain, model)
        assert all(torch.equal(p, q) for p, q in zip(flat.parameters(), model.parameters(), strict=True))
    assert other.state_dict()["state"].keys() == one.state_dict()["state"].keys()
    if never:
        assert all(torch.equal(a, b) for a, b in zip(before, flat.parts[-1].parameters(), strict=True))


@pytest.mark.parametrize("kind", KINDS)
def test_weights_that_are_not_reached_do_not_count_for_the_length_of_the_gradient(kind: str) -> None:
    torch.manual_seed(0)
    plain = _Branches()
    flat = copy.deepcopy(plain)
    made, options = KINDS[kind]
    one, other = made(plain.parameters(), **options), FlatOptimizer(made, [{"params": [*flat.parameters()]}], **options)
    for number in range(4):
        for model, optimizer in ((plain, one), (flat, other)):
            optimizer.zero_grad()
            model(torch.ones(1, 8), number).square().mean().backward()
        torch.nn.utils.clip_grad_norm_(plain.parameters(), 0.01)
        other.clip(0.01)
        one.step()
        other.step()
    _same(plain, flat)
