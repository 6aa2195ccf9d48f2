"""Convolutions of small maps for training in bfloat16, as autocast has them, where the processor multiplies in tiles.

PyTorch takes longer to prepare such a convolution than to compute it: weights are cast, laid out and cast back, and for
each of the three products a way is looked for anew. Here weights go from float32 into tiles, and their gradient is
float32 at once.
"""

import ctypes
import math
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from convscope.layers.fast import depthwise
from convscope.layers.fast.operators import unheard
from convscope.layers.fast.training import AT, NUMBER, YES, at, function, hooked, library, usual

LAST, HALF = torch.channels_last, torch.bfloat16
TILE = 16  # channels are a multiple of it
FEW = (3 << 19, 5 << 19)  # numbers in maps that always pay: of one tap, of several; for one thread a quarter of it
Pair = int | tuple[int, ...]
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
    if type(conv) is not nn.Conv2d or conv.padding_mode != "zeros" or hooked(conv):
        return conv(x)
    return conv2d(x, conv.weight, conv.bias, conv.stride, conv.padding, conv.dilation, conv.groups)


def conv2d(  # noqa: PLR0913 - PyTorch's arguments
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Pair = 1,
    padding: Pair | str = 0,
    dilation: Pair = 1,
    groups: int = 1,
) -> Tensor:
    """`F.conv2d`.

    >>> conv2d(torch.ones(1, 1, 2, 2), torch.ones(1, 1, 2, 2))
    tensor([[[[4.]]]])
    """
    if bias is None and _one(dilation) == 1:
        window = {"stride": _one(stride), "padding": _one(padding)}
        if groups == 1 and serves(input, weight, **window):
            return cast("Tensor", _Convolved.apply(input.to(HALF), weight, window["stride"]))
        if groups == len(weight) > 1 and depthwise.serves(input, weight, **window):
            return depthwise.depthwise(input, weight, **window)
    return F.conv2d(input, weight, bias, stride, padding, dilation, groups)


def serves(x: Tensor, weight: Tensor, *, stride: int, padding: int) -> bool:
    """Whether the kernels are there, and gain: odd square windows with half of them as padding."""
    if not (torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu") == HALF and torch.is_grad_enabled()):
        return False
    if x.dim() != 4 or weight.dim() != 4 or x.shape[1] != weight.shape[1] or stride not in (1, 2):
        return False
    size = weight.shape[2]
    window = size % 2 == 1 and weight.shape[3] == size and padding == size // 2
    here = x.is_cpu and x.dtype in (HALF, torch.float32) and usual(weight)
    return window and here and _gains(x, weight, stride) and unheard(x) and _there()


def _one(value: Pair | str) -> int:
    """What holds for both axes; -1 if nothing does."""
    if isinstance(value, int):
        return value
    return value[0] if len(value) in (1, 2) and value[0] == value[-1] and isinstance(value[0], int) else -1


def _gains(x: Tensor, weight: Tensor, stride: int) -> bool:
    """Whether preparing weights, which is saved, is more than laying out maps, which is done for every product."""
    outputs, channels, size, _ = weight.shape
    pixels = len(x) * math.prod(-(-side // stride) for side in x.shape[2:])
    moved = pixels * outputs + (x.numel() if size > 1 else pixels * channels)
    tiles = channels % TILE == outputs % TILE == 0
    few = FEW[size > 1] if torch.get_num_threads() > 1 else FEW[size > 1] // 4
    return tiles and 0 < moved <= few + 2 * weight.numel()


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
