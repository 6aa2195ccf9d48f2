"""Layers with what stands around them inside: an activation, or another array added and an activation after that."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from convscope.layers.fast.compiled import ACTIVATIONS, After, Window
from convscope.layers.fast.operators import can, pack, there

LAST = torch.channels_last
_ONEDNN = torch.ops.mkldnn


class Activation(NamedTuple):
    """An activation as oneDNN knows it: its name there, its numbers and its algorithm."""

    name: str = "none"
    numbers: tuple[float, ...] = ()
    algorithm: str = ""

    def own(self) -> tuple[float, float, int] | None:
        """As our own kernels know it: the bounds of its values, and which activation; None if they do not."""
        bounds = {"none": (-math.inf, math.inf), "relu": (0.0, math.inf), "hardtanh": self.numbers}.get(self.name)
        if bounds is not None:
            return bounds[0], bounds[1], 0
        name = "silu" if self.name == "swish" else self.name + self.algorithm.removeprefix("none")
        return (-math.inf, math.inf, ACTIVATIONS.index(name)) if name in ACTIVATIONS else None


NONE, RELU = Activation(), Activation("relu")
KNOWN: Mapping[str, Callable[..., Activation]] = {
    "relu": lambda: RELU,
    "hardtanh": lambda low=-1.0, high=1.0: Activation("hardtanh", (low, high)),
    "relu6": lambda: Activation("hardtanh", (0.0, 6.0)),
    "leaky_relu": lambda slope=0.01: Activation("leaky_relu", (slope,)),
    "silu": lambda: Activation("swish"),
    "hardswish": lambda: Activation("hardswish"),
    "hardsigmoid": lambda: Activation("hardsigmoid"),
    "gelu": lambda approximate="none": Activation("gelu", algorithm=approximate),
    "sigmoid": lambda: Activation("sigmoid"),
    "tanh": lambda: Activation("tanh"),
}


@dataclass(frozen=True, slots=True)
class Conv:
    """A 2D convolution: its tensors, its window, the size of its input and the activation behind it."""

    weight: Tensor
    bias: Tensor | None
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int
    shape: tuple[int, ...]
    activation: Activation

    def window(self) -> Window:
        """The window as our own kernels take it."""
        return Window(*self.weight.shape[2:], *self.stride, *self.padding, *self.dilation)

    def key(self) -> list[Any]:
        """What a measurement of it holds for."""
        facts = (self.shape, self.weight.shape, self.stride, self.padding, self.dilation, self.activation)
        return [*map(list, facts), self.groups, str(self.weight.dtype)]


Run = Callable[..., Tensor]  # of the input, and of what is added where something is


def by_onednn(c: Conv, *, added: bool) -> Run:
    """The convolution by oneDNN, its weights laid out for this size of input."""
    window = (list(c.padding), list(c.stride), list(c.dilation), c.groups)
    packed = _ONEDNN._reorder_convolution_weight(c.weight, *window, list(c.shape))
    given, a = (packed, c.bias, *window), c.activation
    if added:
        binary, after = _ONEDNN._convolution_pointwise.binary, None if a == NONE else a.name
        return lambda x, other: binary(x, other, *given, "add", 1.0, after, list(a.numbers), a.algorithm)
    unary, numbers = _ONEDNN._convolution_pointwise.default, list(a.numbers)
    return lambda x: unary(x, *given, a.name, numbers, a.algorithm)


def by_own(c: Conv, way: str) -> Run:
    """The convolution by one of our own kernels."""
    packed, window, channels = pack(way, c.weight, groups=c.groups), c.window(), len(c.weight)
    low, high, activation = c.activation.own() or (-math.inf, math.inf, 0)
    kernels, plain = there(), After(c.bias, None, low, high, activation)

    def run(x: Tensor, other: Tensor | None = None) -> Tensor:
        x = x.contiguous(memory_format=LAST)
        after = plain if other is None else plain._replace(other=other.contiguous(memory_format=LAST))
        if way == "pointwise":
            return kernels.pointwise(x, packed, after, channels)
        if way == "grouped":
            return kernels.grouped(x, packed, after.bias, window, after)
        if way == "dense":
            return kernels.dense(x, packed, after, channels, window)
        if way == "tiles":
            return kernels.tiled(x, packed, after, window, c.groups)
        return kernels.winograd(x, packed, after, window, c.groups)

    return run


def takes(way: str, c: Conv, *, added: bool) -> bool:
    """Whether our own kernel does this convolution with what stands around it."""
    if c.activation.own() is None or not can(way, c.weight, stride=c.stride, groups=c.groups):
        return False
    if way == "pointwise":
        return set(c.padding) == {0}
    if way == "grouped":
        return not added
    return way in ("dense", "tiles") or tuple(c.weight.shape[2:]) == (3, 3)


def linear(weight: Tensor, bias: Tensor | None, rows: int, activation: Activation, *, added: bool) -> Run:
    """A linear layer by oneDNN, its weights laid out for so many rows."""
    packed = _ONEDNN._reorder_linear_weight(weight, rows)
    a = activation
    if added:
        return lambda x, other: _ONEDNN._linear_pointwise.binary(x, other, packed, bias, "add")
    return lambda x: _ONEDNN._linear_pointwise.default(x, packed, bias, a.name, list(a.numbers), a.algorithm)
