"""Depthwise convolutions for training: against PyTorch's in float64, there and back, and where they do not serve."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from convscope.layers.fast.convolved import conv2d, convolved
from convscope.layers.fast.normed import served

LAST, HALF = torch.channels_last, torch.bfloat16


@pytest.fixture(autouse=True)
def there() -> None:
    if not served(torch.zeros(1, 16, 1, 1)):
        pytest.skip("there is no compiler")


def _map(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).contiguous(memory_format=LAST)


def _served(y: Tensor) -> bool:
    return type(y.grad_fn).__name__ == "_WindowsBackward"


@given(
    pictures=st.integers(1, 3),
    sides=st.tuples(st.integers(1, 17), st.integers(1, 17)),
    blocks=st.integers(1, 3),
    size=st.sampled_from([3, 5, 7]),
    stride=st.integers(1, 9),
    padding=st.integers(0, 8),
    threads=st.integers(1, 5),
    half=st.booleans(),
)
@settings(max_examples=80, deadline=None)
def test_a_convolution_and_its_gradients_are_those_of_float64(
    pictures: int,
    sides: tuple[int, int],
    blocks: int,
    size: int,
    stride: int,
    padding: int,
    threads: int,
    half: bool,
) -> None:
    channels, before = 16 * blocks, torch.get_num_threads()
    assume(min(sides) + 2 * padding >= size and (half or size > 3))
    x, weight = _map(pictures, channels, *sides), _map(channels, 1, size, size, seed=1).requires_grad_()
    x = (x.to(HALF) if half else x).requires_grad_()
    torch.set_num_threads(threads)
    try:
        with torch.autocast("cpu", HALF, enabled=half):
            y = conv2d(x, weight, None, stride, padding, 1, channels)
        grad = _map(*y.shape, seed=2).to(y.dtype)
        found = (y, *torch.autograd.grad(y, [x, weight], grad))
    finally:
        torch.set_num_threads(before)
    assert _served(y)
    assert [t.dtype for t in found] == [x.dtype, x.dtype, torch.float32]
    one, other = (t.detach().double().requires_grad_() for t in (x, weight))
    wanted = F.conv2d(one, other, None, stride, padding, 1, channels)
    for own, right in zip(found, (wanted, *torch.autograd.grad(wanted, [one, other], grad.double())), strict=True):
        tolerance = 4e-3 if own.dtype == HALF else 3e-6
        assert own.shape == right.shape
        assert (own.double() - right).abs().max() <= tolerance * right.abs().max() + 1e-30


def test_what_is_frozen_gets_no_gradient() -> None:
    x, weight = _map(2, 16, 9, 9).requires_grad_(), _map(16, 1, 5, 5).requires_grad_()
    to_x, to_weight = torch.autograd.grad(conv2d(x, weight, None, 1, 2, 1, 16).sum(), [x, weight])
    assert torch.equal(torch.autograd.grad(conv2d(x, weight.detach(), None, 1, 2, 1, 16).sum(), x)[0], to_x)
    assert torch.equal(torch.autograd.grad(conv2d(x.detach(), weight, None, 1, 2, 1, 16).sum(), weight)[0], to_weight)


@pytest.mark.parametrize(
    ("options", "shape", "half"),
    [
        ({"bias": True}, (1, 16, 9, 9), True),
        ({"kernel_size": (5, 3), "padding": (2, 1)}, (1, 16, 9, 9), True),
        ({"kernel_size": 9}, (1, 16, 9, 9), True),
        ({"dilation": 2}, (1, 16, 19, 19), True),
        ({"groups": 8}, (1, 16, 9, 9), True),
        ({"out_channels": 32}, (1, 16, 9, 9), True),
        ({"stride": (1, 2)}, (1, 16, 9, 9), True),
        ({"padding": "same"}, (1, 16, 9, 9), True),
        ({"in_channels": 8, "out_channels": 8, "groups": 8}, (1, 8, 9, 9), True),
        ({}, (16, 9, 9), True),
        ({}, (0, 16, 9, 9), True),
        ({"kernel_size": 3}, (1, 16, 9, 9), False),
    ],
    ids=str,
)
def test_what_does_not_serve_is_left_to_pytorch(options: dict[str, Any], shape: tuple[int, ...], half: bool) -> None:
    usual = {"in_channels": 16, "out_channels": 16, "groups": 16, "kernel_size": 5, "padding": 2, "bias": False}
    conv, x = nn.Conv2d(**(usual | options)), torch.rand(shape)
    with torch.autocast("cpu", HALF, enabled=half):
        y = convolved(conv, x)
        assert not _served(y)
        assert torch.equal(y, conv(x))


def test_other_precisions_and_no_gradients_are_left_to_pytorch() -> None:
    conv, x = nn.Conv2d(16, 16, 5, 1, 2, groups=16, bias=False), torch.rand(1, 16, 9, 9)
    assert _served(convolved(conv, x))
    with torch.autocast("cpu", torch.float16):
        assert not _served(convolved(conv, x))
    with torch.no_grad():
        assert convolved(conv, x).grad_fn is None
    assert not _served(convolved(conv.double(), x.double()))
    with pytest.raises(RuntimeError, match="Kernel size"):
        convolved(nn.Conv2d(16, 16, 7, groups=16, bias=False), x[..., :5, :5])
