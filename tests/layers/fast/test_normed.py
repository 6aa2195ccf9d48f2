"""Normalisation in own kernels: against PyTorch's in float64, there and back."""

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from convscope.graph import record
from convscope.layers.fast import normed
from convscope.layers.fast.fields import Field, laid_out, together
from convscope.layers.fast.normed import batch_normed, field_normed

LAST = torch.channels_last
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 6e-3}
FIELDS = (Field(0, 0, 8, 8), Field(0, 9, 4, 4), Field(5, 9, 2, 2))


@pytest.fixture(autouse=True)
def there() -> None:
    if not normed.served(torch.zeros(1, 16, 1, 1)):
        pytest.skip("there is no compiler")


def _map(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    x = 2 * torch.randn(shape, generator=torch.Generator().manual_seed(seed)) + 1
    return x.to(dtype).to(memory_format=LAST)


def _norm(channels: int) -> nn.BatchNorm2d:
    norm = nn.BatchNorm2d(channels)
    with torch.no_grad():
        norm.weight.copy_(torch.linspace(-1, 2, channels))
        norm.bias.copy_(torch.linspace(1, -1, channels))
    return norm


def _near(found: Tensor, wanted: Tensor, tolerance: float) -> None:
    assert (found.double() - wanted).abs().max() <= tolerance * wanted.abs().max()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("relu", [True, False])
@pytest.mark.parametrize("added", [True, False])
@pytest.mark.parametrize(("channels", "side"), [(16, 9), (48, 1), (32, 33)])
def test_batch_normalisation_and_its_gradients_are_those_of_float64(
    dtype: torch.dtype, relu: bool, added: bool, channels: int, side: int
) -> None:
    norm, tolerance = _norm(channels), TOLERANCE[dtype]
    x, other, grad = (_map(3, channels, side, side, dtype=dtype, seed=s) for s in range(3))
    inputs = [x.requires_grad_(), *([other.requires_grad_()] if added else [])]
    y = batch_normed(norm, x, other=other if added else None, relu=relu)
    found = torch.autograd.grad(y, [*inputs, norm.weight, norm.bias], grad)
    exact = [t.detach().double().requires_grad_() for t in (x, other, norm.weight, norm.bias)]
    mean, var = torch.zeros(channels).double(), torch.ones(channels).double()
    wanted = F.batch_norm(exact[0], mean, var, exact[2], exact[3], True, 0.1, 1e-5) + (exact[1] if added else 0)
    if relu:  # where the rounded output is 0, so is the gradient
        wanted = wanted * (y > 0)
    _near(y, wanted, tolerance)
    of = [e for e, there in zip(exact, (True, added, True, True), strict=True) if there]
    for own, other_one in zip(found, torch.autograd.grad(wanted, of, grad.double()), strict=True):
        _near(own, other_one, tolerance)
    _near(norm.running_mean, mean, 1e-5)
    _near(norm.running_var, var, 1e-5)
    assert (y.dtype, found[0].dtype, int(norm.num_batches_tracked)) == (dtype, dtype, 1)


def test_a_far_mean_costs_no_digits_of_the_variance() -> None:
    norm, x = nn.BatchNorm2d(16), _map(4, 16, 32, 32) + 3000
    y = batch_normed(norm, x, relu=False)
    assert (y.var((0, 2, 3), unbiased=False) - 1).abs().max() < 1e-3
    _near(norm.running_var, 0.9 + 0.1 * x.double().var((0, 2, 3)), 1e-4)


def test_nan_goes_through() -> None:
    x = _map(2, 16, 4, 4)
    x[0, 3, 1, 1] = torch.nan
    y = batch_normed(nn.BatchNorm2d(16), x)
    assert y[:, 3].isnan().all()
    assert not y[:, :3].isnan().any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_fields_are_normalised_each_by_itself(dtype: torch.dtype) -> None:
    x, grad = _map(3, 32, 8, 13, dtype=dtype).requires_grad_(), _map(3, 32, 8, 13, dtype=dtype, seed=1)
    weight, bias = torch.linspace(-1, 2, 32).requires_grad_(), torch.linspace(1, -1, 32).requires_grad_()
    y = field_normed(x, weight, bias, FIELDS, groups=4, eps=1e-5)
    found = torch.autograd.grad(y, (x, weight, bias), grad)
    exact = [t.detach().double().requires_grad_() for t in (x, weight, bias)]
    wanted = torch.zeros(x.shape, dtype=torch.float64)
    for top, left, rows, columns in FIELDS:
        place = (..., slice(top, top + rows), slice(left, left + columns))
        wanted[place] = F.group_norm(exact[0][place], 4, exact[1], exact[2], 1e-5) * (y[place] > 0)
    _near(y, wanted, TOLERANCE[dtype])
    for own, other in zip(found, torch.autograd.grad(wanted, exact, grad.double()), strict=True):
        _near(own, other, TOLERANCE[dtype])


def test_without_the_kernels_it_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    x, other, one = _map(2, 16, 8, 13), _map(2, 16, 8, 13, seed=1), torch.ones(16)

    def values() -> list[Tensor]:
        return [batch_normed(_norm(16), x, other=other), field_normed(x, one, 0 * one, FIELDS, groups=8, eps=1e-5)]

    ours = values()
    monkeypatch.setattr(normed, "library", lambda: None)
    for own, plain in zip(ours, values(), strict=True):
        torch.testing.assert_close(own, plain, atol=1e-5, rtol=1e-5)


def test_who_records_or_listens_meets_pytorchs_own() -> None:
    net = nn.Sequential(nn.Conv2d(3, 16, 1), nn.BatchNorm2d(16))

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = net

        def forward(self, x: Tensor) -> Tensor:
            return batch_normed(self.net[1], self.net[0](x))

    names = [o.target for o in record(Net().train(), torch.zeros(2, 3, 4, 4)).ops]
    assert any("batch_norm" in name for name in names)
    seen: list[Any] = []
    net[1].register_forward_hook(lambda *_: seen.append(1))
    batch_normed(net[1], _map(2, 16, 4, 4))
    assert seen == [1]


def test_maps_laid_together_give_their_gradients_back() -> None:
    maps = [_map(2, 3, n, n).double().requires_grad_() for n in (4, 2, 1)]
    laid = laid_out(((4, 4), (2, 2), (1, 1)))
    assert torch.autograd.gradcheck(lambda *m: together(m, laid), maps)
    whole = together(maps, laid)
    parts = whole.flatten(2)[..., laid.places].split([16, 4, 1], -1)
    for own, part in zip(maps, parts, strict=True):
        assert torch.equal(own.flatten(2), part)
    assert int((whole != 0).sum()) == sum(m.numel() for m in maps)


def test_weights_of_bfloat16_are_left_to_pytorch():
    """The kernels read weights as float32: those of half the size would be read beyond their end."""
    torch.manual_seed(0)
    x = torch.randn(2, 16, 5, 5, dtype=torch.bfloat16).contiguous(memory_format=torch.channels_last)
    norm, other = (nn.BatchNorm2d(16).bfloat16().train() for _ in range(2))
    assert torch.equal(normed.batch_normed(norm, x), torch.relu(other(x)))
    assert torch.equal(norm.running_var, other.running_var)


def _plain(norm: nn.BatchNorm2d, x: Tensor, other: Tensor | None = None) -> Tensor:
    return torch.relu(copy.deepcopy(norm)(x) + (0 if other is None else other))


def test_another_map_of_another_size_is_added_as_pytorch_adds_it() -> None:
    norm, x = _norm(16), _map(4, 16, 6, 6)
    for size in ((1, 16, 1, 1), (6, 6), (4, 16, 1, 6)):
        other = torch.randn(size)
        torch.testing.assert_close(batch_normed(copy.deepcopy(norm), x, other=other), _plain(norm, x, other))


def test_weights_that_lie_otherwise_are_read_as_they_lie() -> None:
    norm, x = _norm(16), _map(4, 16, 6, 6)
    norm.weight = nn.Parameter(torch.rand(32)[::2])
    norm.register_buffer("running_mean", torch.zeros(16, 3)[:, 1])
    wanted = _plain(norm, x)
    torch.testing.assert_close(batch_normed(norm, x), wanted)
    assert norm.running_mean is not None
    assert norm.running_mean.abs().min() > 0


@pytest.mark.parametrize("wrong", [{"groups": 3}, {"fields": (Field(0, 0, 8, 20),)}, {"channels": 8}])
def test_what_does_not_fit_is_refused_by_pytorch(wrong: dict[str, Any]) -> None:
    x, one = _map(2, 16, 8, 13), torch.ones(wrong.get("channels", 16))
    if "fields" in wrong:  # a slice beyond the map ends with it
        y = field_normed(x, one, 0 * one, wrong["fields"], groups=4, eps=1e-5)
        torch.testing.assert_close(y, F.group_norm(x, 4).relu())
        return
    with pytest.raises(RuntimeError):
        field_normed(x, one, 0 * one, FIELDS, groups=wrong.get("groups", 4), eps=1e-5)
    if "channels" in wrong:
        with pytest.raises((RuntimeError, ValueError)):
            batch_normed(nn.BatchNorm2d(8), x)


@pytest.mark.filterwarnings("ignore:.*torch.jit.trace", "ignore::torch.jit.TracerWarning")
def test_a_trace_holds_pytorchs_operators() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = _norm(16)

        def forward(self, x: Tensor) -> Tensor:
            return field_normed(
                batch_normed(self.norm, x), self.norm.weight, self.norm.bias, FIELDS, groups=4, eps=1e-5
            )

    net, x = Net(), _map(2, 16, 8, 13)
    traced = torch.jit.trace(net, torch.zeros_like(x), check_trace=False)
    torch.testing.assert_close(traced(x), net(x), atol=1e-4, rtol=1e-4)
