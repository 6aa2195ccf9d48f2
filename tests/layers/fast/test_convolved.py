"""Convolutions in tiles for training: against PyTorch's in float64, there and back, and where they do not serve."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from convscope.layers.fast import convolved as module
from convscope.layers.fast.convolved import convolved

LAST, HALF = torch.channels_last, torch.bfloat16


@pytest.fixture(autouse=True)
def there() -> None:
    if not module._there():
        pytest.skip("there is no compiler, or the processor does not multiply tiles")


def _conv(channels: int, outputs: int, size: int = 3, stride: int = 1, **options: Any) -> nn.Conv2d:
    return nn.Conv2d(channels, outputs, size, stride, size // 2, **{"bias": False, **options}).to(memory_format=LAST)  # pyright: ignore


def _map(*shape: int, seed: int = 0) -> Tensor:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    return x.to(HALF).contiguous(memory_format=LAST).requires_grad_()


def _serves(conv: nn.Conv2d, x: Tensor) -> bool:
    return type(convolved(conv, x).grad_fn).__name__ == "_ConvolvedBackward"


def _found(conv: nn.Conv2d, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """What comes of x, and what goes back to x and to the weights."""
    with torch.autocast("cpu", HALF):
        y = convolved(conv, x)
        assert _serves(conv, x)
    grad = _map(*y.shape, seed=1).detach()
    to_x, to_weight = torch.autograd.grad(y, [x, conv.weight], grad)
    return y, to_x, to_weight


def _check(conv: nn.Conv2d, x: Tensor) -> None:
    found = _found(conv, x)
    exact, weight = x.detach().double().requires_grad_(), conv.weight.detach().to(HALF).double().requires_grad_()
    y = F.conv2d(exact, weight, stride=conv.stride, padding=conv.padding)
    grad = _map(*y.shape, seed=1).detach().double()
    wanted = (y, *torch.autograd.grad(y, [exact, weight], grad))
    for own, right, tolerance in zip(found, wanted, (5e-3, 5e-3, 3e-6), strict=True):  # bfloat16 twice, then float32
        assert own.shape == right.shape
        assert (own.double() - right).abs().max() <= tolerance * right.abs().max()


@given(
    pictures=st.integers(1, 3),
    sides=st.tuples(st.integers(1, 19), st.integers(1, 19)),
    tiles=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    size=st.sampled_from([1, 3, 5, 7]),
    stride=st.sampled_from([1, 2]),
    threads=st.integers(1, 5),
)
@settings(max_examples=60, deadline=None)
def test_a_convolution_and_its_gradients_are_those_of_float64(
    pictures: int, sides: tuple[int, int], tiles: tuple[int, int], size: int, stride: int, threads: int
) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        _check(_conv(16 * tiles[0], 16 * tiles[1], size, stride), _map(pictures, 16 * tiles[0], *sides))
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("outputs", "shape", "stride"),
    [(16, (4, 16, 64, 64), 1), (160, (4, 160, 4, 4), 1), (32, (4, 16, 64, 64), 2), (512, (1, 512, 3, 2), 1)],
)
def test_large_maps_and_heavy_weights(outputs: int, shape: tuple[int, ...], stride: int) -> None:
    _check(_conv(shape[1], outputs, stride=stride), _map(*shape))


def test_the_same_again_is_the_same_to_the_bit() -> None:
    conv, x = _conv(64, 64), _map(4, 64, 16, 16)
    assert all(torch.equal(a, b) for a, b in zip(_found(conv, x), _found(conv, x), strict=True))


def test_gradients_lie_as_weights_do_and_are_float32() -> None:
    conv, x = _conv(16, 32), _map(2, 16, 5, 5)
    y, to_x, to_weight = _found(conv, x)
    assert (y.dtype, to_x.dtype, to_weight.dtype) == (HALF, HALF, torch.float32)
    assert to_weight.stride() == conv.weight.stride()


def test_weights_that_lie_otherwise_are_computed_with_too() -> None:
    conv = _conv(16, 32)
    conv.weight.data = conv.weight.data.contiguous()
    _check(conv, _map(2, 16, 5, 5))


def test_what_is_frozen_gets_no_gradient() -> None:
    conv, x = _conv(16, 16), _map(2, 16, 5, 5)
    _, to_x, to_weight = _found(conv, x)
    conv.weight.requires_grad_(False)
    with torch.autocast("cpu", HALF):
        y = convolved(conv, x)
    assert torch.equal(torch.autograd.grad(y, x, _map(*y.shape, seed=1).detach())[0], to_x)
    conv.weight.requires_grad_()
    with torch.autocast("cpu", HALF):
        y = convolved(conv, x.detach())
    assert torch.equal(torch.autograd.grad(y, conv.weight, _map(*y.shape, seed=1).detach())[0], to_weight)


def test_pictures_in_float32_are_taken_as_bfloat16() -> None:
    conv, x = _conv(16, 16), _map(2, 16, 5, 5).detach()
    with torch.autocast("cpu", HALF):
        assert _serves(conv, x.float())
        assert torch.equal(convolved(conv, x.float()), convolved(conv, x))


@pytest.mark.parametrize(
    ("conv", "shape"),
    [
        (_conv(16, 16, bias=True), (1, 16, 5, 5)),
        (_conv(16, 24), (1, 16, 5, 5)),
        (_conv(8, 16), (1, 8, 5, 5)),
        (_conv(32, 32, groups=2), (1, 32, 5, 5)),
        (_conv(16, 16, padding_mode="reflect"), (1, 16, 5, 5)),
        (nn.Conv2d(16, 16, 2, 2, bias=False), (1, 16, 6, 6)),
        (nn.Conv2d(16, 16, 3, bias=False), (1, 16, 6, 6)),
        (nn.Conv2d(16, 16, 3, 3, 1, bias=False), (1, 16, 6, 6)),
        (nn.Conv2d(16, 16, (3, 1), padding=(1, 0), bias=False), (1, 16, 6, 6)),
        (nn.Conv2d(16, 16, 3, padding="same", bias=False), (1, 16, 6, 6)),
        (nn.Conv2d(16, 16, 3, padding=1, dilation=2, bias=False), (1, 16, 6, 6)),
        (_conv(16, 16).to(HALF), (1, 16, 5, 5)),
        (_conv(16, 16), (16, 5, 5)),
        (_conv(16, 16), (0, 16, 5, 5)),
        (_conv(16, 16), (1, 16, 300, 300)),
    ],
    ids=str,
)
def test_what_does_not_serve_is_left_to_pytorch(conv: nn.Conv2d, shape: tuple[int, ...]) -> None:
    x = torch.rand(shape).to(HALF)
    with torch.autocast("cpu", HALF):
        assert not _serves(conv, x)
        assert torch.equal(convolved(conv, x), conv(x))


def test_only_where_autocast_has_bfloat16_and_gradients_are_wanted() -> None:
    conv, x = _conv(16, 16), torch.rand(1, 16, 5, 5)
    assert not _serves(conv, x)
    assert torch.equal(convolved(conv, x), conv(x))
    with torch.autocast("cpu", torch.float16):
        assert not _serves(conv, x)
    with torch.autocast("cpu", HALF), torch.no_grad():
        assert not _serves(conv, x)


def test_who_listens_to_the_module_hears_it() -> None:
    conv, x, heard = _conv(16, 16), _map(1, 16, 5, 5), list[int]()
    hook = conv.register_forward_hook(lambda *_: heard.append(1))
    with torch.autocast("cpu", HALF):
        convolved(conv, x)
        hook.remove()
        convolved(conv, x)
    assert heard == [1]
