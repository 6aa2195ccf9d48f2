"""Convolutions of small maps for training in bfloat16, as autocast has them, where the processor multiplies in tiles.

PyTorch takes longer to prepare such a convolution than to compute it: weights are cast, laid out and cast back, and for
each of the three products a way is looked for anew. Here weights go from float32 into tiles, and their gradient is
float32 at once.
"""

import ctypes
import math
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from convscope.layers.fast.operators import unheard
from convscope.layers.fast.training import AT, NUMBER, YES, at, function, library

LAST, HALF = torch.channels_last, torch.bfloat16
TILE = 16  # channels are a multiple of it
SMALL = 1 << 20  # numbers in a map: of larger ones the products themselves take the time
_SIZES = ("pictures", "height", "width", "channels", "outputs", "size", "stride")


class _Conv(ctypes.Structure):
    _fields_ = [("x", AT), ("weight", AT), *((name, NUMBER) for name in _SIZES)]


class _Back(ctypes.Structure):
    _fields_ = [(name, AT) for name in ("grad", "to_x", "to_weight")]


def convolved(conv: nn.Module, x: Tensor) -> Tensor:
    """`conv(x)`.

    >>> conv, x = nn.Conv2d(16, 16, 3, padding=1, bias=False), torch.rand(2, 16, 5, 5)
    >>> with torch.autocast("cpu", torch.bfloat16):
    ...     torch.allclose(convolved(conv, x), conv(x), atol=0.02)
    True
    """
    if not serves(conv, x):
        return conv(x)
    bare = cast("nn.Conv2d", conv)
    return cast("Tensor", _Convolved.apply(x.to(HALF), bare.weight, bare.stride[0]))


def serves(conv: nn.Module, x: Tensor) -> bool:
    """Whether the kernels are there, and do what this module does with x."""
    if not (torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu") == HALF and torch.is_grad_enabled()):
        return False
    if type(conv) is not nn.Conv2d or not _plain(conv) or x.dim() != 4 or x.shape[1] != conv.in_channels:
        return False
    here = x.is_cpu and conv.weight.is_cpu and conv.weight.dtype == torch.float32 and x.dtype in (HALF, torch.float32)
    return here and _small(conv, x) and unheard(x) and _there()


def _plain(conv: nn.Conv2d) -> bool:
    """An odd square window with half of it as padding, stride 1 or 2, and nobody who listens."""
    size, stride = conv.kernel_size[0], conv.stride[0]
    window = (conv.kernel_size, conv.stride, conv.padding, conv.dilation, conv.groups)
    square = size % 2 == 1 and window == ((size, size), (stride, stride), (size // 2, size // 2), (1, 1), 1)
    heard = conv._forward_hooks or conv._forward_pre_hooks or conv._backward_hooks or conv._backward_pre_hooks
    return square and stride <= 2 and conv.bias is None and conv.padding_mode == "zeros" and not heard


def _small(conv: nn.Conv2d, x: Tensor) -> bool:
    pixels = len(x) * math.prod(-(-side // conv.stride[0]) for side in x.shape[2:])
    tiles = conv.in_channels % TILE == conv.out_channels % TILE == 0
    return tiles and 0 < x.numel() <= SMALL and pixels * conv.out_channels <= SMALL


def _there() -> bool:
    return library() is not None and function("convolved_serves", result=YES)()


class _Convolved(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, stride: int) -> Tensor:
        x, weight = x.contiguous(memory_format=LAST), weight.contiguous(memory_format=LAST)
        (pictures, channels, *sides), (outputs, _, size, _) = x.shape, weight.shape
        shape = (pictures, outputs, *(-(-side // stride) for side in sides))
        y = torch.empty(shape, dtype=HALF, memory_format=LAST)
        ctx.told = _Conv(at(x), at(weight), pictures, *sides, channels, outputs, size, stride)
        function("convolved", _Conv, AT)(ctx.told, at(y))
        ctx.save_for_backward(x, weight)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Any) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        (x, weight), wanted = ctx.saved_tensors, ctx.needs_input_grad
        grad = grads[0].contiguous(memory_format=LAST)
        to_x, to_weight = (torch.empty_like(t) if w else None for t, w in zip((x, weight), wanted, strict=False))
        function("convolved_back", _Conv, _Back)(ctx.told, _Back(at(grad), at(to_x), at(to_weight)))
        return to_x, to_weight, None
