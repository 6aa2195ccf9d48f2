"""Depthwise convolutions for training: PyTorch's way back from large windows, or in bfloat16 from steps of
two, takes many times as long as its way there."""

import ctypes
from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from convscope.layers.fast.normed import LAST, fits
from convscope.layers.fast.training import AT, NUMBER, YES, at, function, library, usual

LARGE = 3 << 20  # numbers in a map: small windows in steps of one PyTorch does sooner
_SIZES = ("pictures", "height", "width", "channels", "size", "stride", "padding", "rows", "columns")


class _Depthwise(ctypes.Structure):
    _fields_ = [("x", AT), ("weight", AT), *((name, NUMBER) for name in _SIZES)]


class _Back(ctypes.Structure):
    _fields_ = [(name, AT) for name in ("grad", "to_x", "to_weight")]


def depthwise(x: Tensor, weight: Tensor, *, stride: int, padding: int) -> Tensor:
    """Each channel with its own window, of what `serves` says yes to."""
    half = torch.is_autocast_enabled("cpu")
    return cast("Tensor", _Windows.apply(x.to(torch.bfloat16) if half else x, weight, stride, padding))


def serves(x: Tensor, weight: Tensor, *, stride: int, padding: int) -> bool:
    """Whether the kernels are there, and gain, for x and as many windows as it has channels.

    >>> serves(torch.ones(1, 16, 4, 4), torch.ones(16, 1, 3, 3), stride=1, padding=1)  # float32
    False
    """
    half = torch.is_autocast_enabled("cpu")
    if torch.get_autocast_dtype("cpu") != torch.bfloat16 if half else x.dtype != torch.float32:
        return False
    (outputs, channels, *sides), size = weight.shape, weight.shape[-1]
    window = sides == [size, size] and size in (3, 5, 7) and stride > 0 <= padding
    gains = size > 3 or (half and (stride > 1 or x.numel() <= LARGE))
    if not (window and gains and usual(weight) and fits(x) and (outputs, channels) == (x.shape[1], 1)):
        return False
    return x.numel() > 0 and min(x.shape[2:]) + 2 * padding >= size and library() is not None


class _Windows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, stride: int, padding: int) -> Tensor:
        x, size = x.contiguous(memory_format=LAST), weight.shape[2]
        pictures, channels, *sides = x.shape
        made = [(side + 2 * padding - size) // stride + 1 for side in sides]
        windows = weight.reshape(channels, size * size).t().contiguous()
        y = torch.empty((pictures, channels, *made), dtype=x.dtype, memory_format=LAST)
        ctx.told = _Depthwise(at(x), at(windows), pictures, *sides, channels, size, stride, padding, *made)
        function("depthwise", _Depthwise, AT, YES)(ctx.told, at(y), x.dtype == torch.bfloat16)
        ctx.save_for_backward(x, windows)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Any) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        (x, windows), wanted = ctx.saved_tensors, ctx.needs_input_grad
        grad = grads[0].contiguous(memory_format=LAST)
        to_x, to_windows = (torch.empty_like(t) if w else None for t, w in zip((x, windows), wanted, strict=False))
        back = _Back(at(grad), at(to_x), at(to_windows))
        function("depthwise_back", _Depthwise, _Back, YES)(ctx.told, back, x.dtype == torch.bfloat16)
        to_weight = None if to_windows is None else to_windows.t().unflatten(1, (1, ctx.told.size, ctx.told.size))
        return to_x, to_weight, None, None
