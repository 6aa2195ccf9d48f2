"""Steps of AdamW over flat weights, whose gradients are read where autograd left them."""

import ctypes
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from convscope.layers.fast.training import AT, NUMBER, at, function, library

_LONG, _FLOAT = ctypes.c_long, ctypes.c_float
SETTINGS = ("amsgrad", "maximize", "capturable", "differentiable")  # that the kernel does not know


class _Gradient(ctypes.Structure):
    _fields_ = [("values", AT), ("start", _LONG), ("size", _LONG)]


class _Step(ctypes.Structure):
    _fields_ = [
        *((name, AT) for name in ("weights", "first", "second")),
        *((n, _FLOAT) for n in ("kept", "rate", "part_first", "by_second", "part_second", "root", "eps")),
    ]


class Gradients:
    """The gradients of weights that lie in one array, from these places on; `parts` are of a like array, for those
    whose elements lie in another order than their weights'."""

    def __init__(self, weights: Sequence[Tensor], starts: Sequence[int]) -> None:
        held = [w.grad if w.grad is None or _alike(w.grad, w) else _in_order(w.grad, w) for w in weights]
        self.held, self.count = held, len(weights)  # as long as they are read
        known = zip(held, starts, weights, strict=False)
        self.told = (_Gradient * self.count)(*((at(grad), start, w.numel()) for grad, start, w in known))

    def squares(self) -> float:
        """The sum of their squares."""
        return function("gradient_squares", AT, NUMBER, result=ctypes.c_double)(ctypes.addressof(self.told), self.count)

    def adamw(self, values: Tensor, group: Mapping[str, Any], state: dict[str, Any], by: float) -> None:
        """One step, as `torch.optim.AdamW` takes it with the gradients `by` times as large."""
        if not state:
            state |= {"step": torch.zeros(()), "exp_avg": torch.zeros_like(values, requires_grad=False)}
            state["exp_avg_sq"] = torch.zeros_like(state["exp_avg"])
        state["step"] += 1
        done, (first, second) = state["step"].item(), group["betas"]
        lr, root = group["lr"], math.sqrt(1 - second**done)
        rates = (1 - lr * group["weight_decay"], lr / (1 - first**done), 1 - first, second, 1 - second, root)
        step = _Step(at(values), at(state["exp_avg"]), at(state["exp_avg_sq"]), *rates, group["eps"])
        run = function("adamw_step", AT, NUMBER, _Step, _FLOAT)
        run(ctypes.addressof(self.told), self.count, step, by)


def serves(kind: type[torch.optim.Optimizer], values: Tensor, group: Mapping[str, Any]) -> bool:
    """Whether the kernels are there, and take such steps."""
    plain = kind is torch.optim.AdamW and not any(group.get(name) for name in SETTINGS)
    known = values.device.type == "cpu" and values.dtype == torch.float32
    return plain and known and library() is not None


def _alike(grad: Tensor, weight: Tensor) -> bool:
    return grad.stride() == weight.stride() and grad.dtype == torch.float32


def _in_order(grad: Tensor, weight: Tensor) -> Tensor:
    return torch.empty_strided(weight.shape, weight.stride()).copy_(grad)
