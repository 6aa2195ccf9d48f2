"""The mean cross-entropy of pixels, whose gradient is made with it."""

import ctypes
from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from convscope.layers.fast.operators import unheard
from convscope.layers.fast.training import AT, NUMBER, YES, at, function, library

LANES = 16


class _Entropy(ctypes.Structure):
    _fields_ = [
        *((name, AT) for name in ("logits", "targets", "grad", "loss")),
        *((name, ctypes.c_long) for name in ("pictures", "pixels")),
        *((name, NUMBER) for name in ("classes", "ignored")),
    ]


def mean_entropy(logits_NCHW: Tensor, targets_NHW: Tensor, *, ignored: int) -> Tensor | None:
    """The mean over pixels that are not `ignored`; None where the kernel does not serve.

    >>> x, y = torch.rand(1, 3, 4, 4), torch.full((1, 4, 4), 2)
    >>> found, plain = mean_entropy(x, y, ignored=255), torch.nn.functional.cross_entropy(x, y)
    >>> found is None or torch.allclose(found, plain)
    True
    """
    x, pixels = logits_NCHW, targets_NHW.numel()
    known = x.dtype == torch.float32 and x.device.type == targets_NHW.device.type == "cpu" and unheard(x)
    sizes = known and x.dim() == 4 and x.numel() > 0 and pixels > 0 and (len(x), *x.shape[2:]) == targets_NHW.shape
    if not sizes or pixels // len(x) % LANES or targets_NHW.dtype != torch.int64 or library() is None:
        return None
    loss, grad = x.new_empty(()), torch.empty(x.shape)
    plain, targets = x.detach().contiguous(), targets_NHW.contiguous()
    numbers = (len(x), pixels // len(x), x.shape[1], ignored)
    told = _Entropy(at(plain), at(targets), at(grad), at(loss), *numbers)
    if not function("entropy", _Entropy, result=YES)(told):
        return None
    return cast("Tensor", _Known.apply(x, loss, grad))


class _Known(torch.autograd.Function):
    """A value whose gradient is known."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, value: Tensor, grad: Tensor) -> Tensor:
        ctx.save_for_backward(grad)
        return value.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *above: Any) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        (grad,), by = ctx.saved_tensors, above[0].item()
        return grad if by == 1 else grad * by, None, None
