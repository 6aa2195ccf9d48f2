"""Normalisation in training with what stands behind it, in kernels that go through the values twice there and back.

`batch_normed` is batch normalisation, another map added, ReLU; `field_normed` is group normalisation of several maps
that lie in one, each by itself, and ReLU. Both compute what PyTorch's modules do, in float32 inside whatever the
precision, and leave the work to those where the kernels do not serve: without GCC, on other devices, for evaluation,
with channels that are no multiple of 16, or where somebody records, traces, compiles or transforms.
"""

import ctypes
from typing import Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from convscope.layers.fast.fields import Field
from convscope.layers.fast.operators import unheard
from convscope.layers.fast.training import AT, NUMBER, YES, at, function, hooked, library, plain

LANES = 16
LAST = torch.channels_last


class _Norm(ctypes.Structure):
    _fields_ = [
        *((name, AT) for name in ("x", "other", "gamma", "beta", "running_mean", "running_var", "mean", "rstd", "y")),
        *(("rows", ctypes.c_long), ("channels", NUMBER), ("relu", NUMBER)),
        *(("eps", ctypes.c_float), ("momentum", ctypes.c_float)),
    ]


class _Back(ctypes.Structure):
    _fields_ = [
        *((name, AT) for name in ("grad", "y", "x", "gamma", "mean", "rstd", "to_x", "to_other", "to_gamma")),
        *(("to_beta", AT), ("rows", ctypes.c_long), ("channels", NUMBER), ("relu", NUMBER)),
    ]


class _Fields(ctypes.Structure):
    _fields_ = [
        ("at", AT),
        *((name, NUMBER) for name in ("count", "pictures", "height", "width", "channels", "groups")),
        ("eps", ctypes.c_float),
    ]


def batch_normed(norm: nn.Module, x: Tensor, *, other: Tensor | None = None, relu: bool = True) -> Tensor:
    """`relu(norm(x) + other)`, for a module of batch normalisation.

    >>> norm, x = nn.BatchNorm2d(16), torch.rand(2, 16, 3, 3)
    >>> torch.allclose(batch_normed(norm, x), torch.relu(norm(x)), atol=1e-6)
    True
    """
    bare, alike = cast("nn.BatchNorm2d", norm), other is None or (other.shape == x.shape and other.is_cpu)
    if not (alike and _serves(norm, x) and served(x)):
        y = norm(x) if other is None else norm(x) + other
        return torch.relu(y) if relu else y
    if bare.num_batches_tracked is not None:
        bare.num_batches_tracked.add_(1)
    other = other if other is None else other.to(x.dtype)
    kept = _Kept(bare.running_mean, bare.running_var, cast("float", bare.momentum), bare.eps)
    return cast("Tensor", _BatchNormed.apply(x, bare.weight, bare.bias, other, kept, relu))


def batch_norm(  # noqa: PLR0913 - PyTorch's arguments
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """`F.batch_norm`.

    >>> x, ones = torch.rand(2, 16, 3, 3).bfloat16(), torch.ones(16)
    >>> y = batch_norm(x, 0 * ones, 1 * ones, ones, ones, training=True)
    >>> torch.allclose(y, F.batch_norm(x, None, None, ones, ones, training=True), atol=0.02)
    True
    """
    half = input.dtype == torch.bfloat16  # alone, and in float32, PyTorch's takes as long
    if training and half and _taken(input, weight, bias, running_mean, running_var) and served(input):
        kept = _Kept(running_mean, running_var, momentum, eps)
        return cast("Tensor", _BatchNormed.apply(input, weight, bias, None, kept, False))
    return F.batch_norm(input, running_mean, running_var, weight, bias, training, momentum, eps)


def normed(norm: nn.Module, x: Tensor, act: nn.Module | None, *, other: Tensor | None = None) -> Tensor:
    """`act(norm(x) + other)`, in one where the activation is none or ReLU.

    >>> norm, x = nn.BatchNorm2d(16), torch.rand(2, 16, 3, 3)
    >>> torch.equal(normed(norm, x, nn.SiLU()), nn.functional.silu(norm(x)))
    True
    """
    if act is None or (type(act) is nn.ReLU and not hooked(act)):
        return batch_normed(norm, x, other=other, relu=act is not None)
    return act(norm(x) if other is None else norm(x) + other)


def field_normed(
    x: Tensor, weight: Tensor, bias: Tensor, fields: tuple[Field, ...], *, groups: int, eps: float
) -> Tensor:
    """ReLU of each field's group normalisation; what lies between them becomes 0.

    >>> x, one = torch.rand(2, 16, 3, 5), torch.ones(16)
    >>> y = field_normed(x, one, 0 * one, (Field(0, 0, 3, 4),), groups=8, eps=1e-5)
    >>> torch.allclose(y[..., :4], F.group_norm(x[..., :4], 8).relu(), atol=1e-5), y[..., 4].any().item()
    (True, False)
    """
    inside = all(f.top + f.rows <= x.shape[2] and f.left + f.columns <= x.shape[3] for f in fields)
    if served(x) and inside and x.shape[1] % groups == 0 and plain(x.shape[1], weight, bias):
        return cast("Tensor", _FieldNormed.apply(x, weight, bias, fields, groups, eps))
    y = torch.zeros_like(x)
    for top, left, rows, columns in fields:
        place = (..., slice(top, top + rows), slice(left, left + columns))
        normed = F.group_norm(x[place].float(), groups, weight, bias, eps)  # on a CPU twice as fast as in bfloat16
        y[place] = torch.relu(normed.to(x.dtype))
    return y


def served(x: Tensor) -> bool:
    """Whether the kernels are there, and serve such a map."""
    return fits(x) and library() is not None


def _serves(norm: nn.Module, x: Tensor) -> bool:
    if type(norm) is not nn.BatchNorm2d or not norm.training or norm.momentum is None or hooked(norm):
        return False
    return _taken(x, norm.weight, norm.bias, norm.running_mean, norm.running_var)


def _taken(x: Tensor, *arrays: Tensor | None) -> bool:
    several = x.dim() == 4 and x.numel() > x.shape[1]
    return several and plain(x.shape[1], *arrays)


def fits(x: Tensor) -> bool:
    """Whether the kernels, if they are there, serve such a map."""
    known = x.dtype in (torch.float32, torch.bfloat16) and x.device.type == "cpu"
    return known and torch.is_grad_enabled() and x.dim() == 4 and x.shape[1] % LANES == 0 and unheard(x)


class _Kept(NamedTuple):
    running_mean: Tensor | None
    running_var: Tensor | None
    momentum: float
    eps: float


class _BatchNormed(torch.autograd.Function):
    @staticmethod
    def forward(  # noqa: PLR0913 - what `apply` was given comes one by one
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, other: Tensor | None, kept: _Kept, relu: bool
    ) -> Tensor:
        x, channels = x.contiguous(memory_format=LAST), x.shape[1]
        other = other if other is None else other.contiguous(memory_format=LAST)
        y, found = torch.empty_like(x), torch.empty(2, channels)
        mean, rows = found.data_ptr(), x.numel() // channels
        arrays = (x.data_ptr(), at(other), weight.data_ptr(), bias.data_ptr(), at(kept.running_mean))
        arrays += (at(kept.running_var), mean, mean + 4 * channels, y.data_ptr())
        settings = (rows, channels, relu, kept.eps, kept.momentum)
        function("norm_forward", _Norm, YES)(_Norm(*arrays, *settings), x.dtype == torch.bfloat16)
        ctx.save_for_backward(x, weight, y if relu else None, found)
        ctx.added = other is not None
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Any) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        x, weight, y, found = ctx.saved_tensors
        channels, grad = x.shape[1], grads[0].to(x.dtype).contiguous(memory_format=LAST)
        to_x, told = torch.empty_like(x), torch.empty(2, channels)
        apart = ctx.added and y is not None  # without ReLU what came is what goes on
        to_other = torch.empty_like(x) if apart else None
        mean, gamma = found.data_ptr(), told.data_ptr()
        arrays = (grad.data_ptr(), at(y), x.data_ptr(), weight.data_ptr(), mean, mean + 4 * channels)
        arrays += (to_x.data_ptr(), at(to_other), gamma, gamma + 4 * channels)
        settings = (x.numel() // channels, channels, y is not None)
        function("norm_backward", _Back, YES)(_Back(*arrays, *settings), x.dtype == torch.bfloat16)
        return to_x, told[0], told[1], to_other if apart else grad if ctx.added else None, None, None


class _FieldNormed(torch.autograd.Function):
    @staticmethod
    def forward(  # noqa: PLR0913 - what `apply` was given comes one by one
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, fields: tuple[Field, ...], groups: int, eps: float
    ) -> Tensor:
        x = x.contiguous(memory_format=LAST)
        pictures, channels, height, width = x.shape
        ctx.places = (NUMBER * (4 * len(fields)))(*(number for field in fields for number in field))
        where = ctypes.addressof(ctx.places)
        ctx.fields = _Fields(where, len(fields), pictures, height, width, channels, groups, eps)
        y, found = torch.empty_like(x), torch.empty(2, pictures, len(fields), groups)
        arrays = [t.data_ptr() for t in (x, weight, bias, y, found[0], found[1])]
        function("fields_forward", _Fields, *[AT] * 6, YES)(ctx.fields, *arrays, x.dtype == torch.bfloat16)
        ctx.save_for_backward(x, weight, y, found)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Any) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        x, weight, y, found = ctx.saved_tensors
        grad, to_x = grads[0].to(x.dtype).contiguous(memory_format=LAST), torch.empty_like(x)
        told = torch.empty(2, len(x), x.shape[1])
        arrays = [t.data_ptr() for t in (grad, y, x, weight, found[0], found[1], to_x, told[0], told[1])]
        function("fields_backward", _Fields, *[AT] * 9, YES)(ctx.fields, *arrays, x.dtype == torch.bfloat16)
        to_weight, to_bias = told.sum(1)
        return to_x, to_weight, to_bias, None, None, None
