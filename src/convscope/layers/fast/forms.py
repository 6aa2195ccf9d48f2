"""Exact ways to run a layer: each is a module that holds the layer and gives what the layer gives, in another order.

A form takes inputs in any layout, is quickest on channels last, and leaves to the layer what it is not made for (other
dtypes or devices, pictures without a batch). `Prepacked`, `Separable` and `Flattened` have no gradients: where those
are recorded, the layer runs.
"""

from collections.abc import Sequence
from typing import Any, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from convscope.layers.fast.operators import LAST, conv2d, flattened2d, max_pool2d, separable2d

_ONEDNN = torch.ops.mkldnn


def pair(value: int | Sequence[int]) -> list[int]:
    """One number for each of the two axes."""
    return [value, value] if isinstance(value, int) else list(value)


class Form(nn.Module):
    """A way to run `plain`; a subclass says how, for float32 on the CPU."""

    plain: Any

    def __init__(self, plain: nn.Module) -> None:
        super().__init__()
        self.plain = plain.to(memory_format=LAST)

    def forward(self, x: Tensor) -> Tensor:
        ours = x.dtype == torch.float32 and x.device.type == "cpu" and x.dim() == 4
        if not ours or torch.is_autocast_enabled("cpu"):
            return self.plain(x)
        return self.run(x.contiguous(memory_format=LAST))

    def run(self, x: Tensor) -> Tensor:
        """The layer's output by this form's own way, for float32 pictures in channels_last; each form has its own."""
        raise NotImplementedError


@final
class ChannelsLast(Form):
    """PyTorch's own operator, on channels last."""

    def forward(self, x: Tensor) -> Tensor:
        return self.plain(x.contiguous(memory_format=LAST) if x.dim() == 4 else x)


@final
class Bfloat16(nn.Module):
    """PyTorch's own operators in bfloat16 (autocast), on channels last; the output is in the dtype of the input."""

    def __init__(self, plain: nn.Module) -> None:
        super().__init__()
        self.plain = plain.to(memory_format=LAST)

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, torch.bfloat16):
            return self.plain(x.contiguous(memory_format=LAST).bfloat16()).to(x.dtype)


@final
class Prepacked(Form):
    """oneDNN's convolution with its weights in its own order, made for one size of input; no gradients."""

    def __init__(self, plain: nn.Conv2d, example: Tensor) -> None:
        super().__init__(plain)
        self._made_of: tuple[Any, ...] = ()
        self._shape = tuple(example.shape)
        self._packed = self._pack()

    def _pack(self) -> Tensor:
        self._made_of = (self.plain.weight, _version(self.plain.weight))
        weight = self.plain.weight.detach()
        return _ONEDNN._reorder_convolution_weight(weight, *self._window(), self.plain.groups, list(self._shape))

    def _window(self) -> tuple[list[int], list[int], list[int]]:
        return pair(self.plain.padding), pair(self.plain.stride), pair(self.plain.dilation)

    def run(self, x: Tensor) -> Tensor:
        if torch.is_grad_enabled():
            return self.plain(x)
        if (self.plain.weight, _version(self.plain.weight)) != self._made_of:
            self._packed = self._pack()
        padding, stride, dilation = self._window()
        window = (padding, stride, dilation, self.plain.groups)
        return _ONEDNN._convolution_pointwise(x, self._packed, self.plain.bias, *window, "none", [], "")


@final
class Compiled(Form):
    """A convolution by our own kernel: "grouped" for few channels a group, "winograd" for 3 taps and stride 1."""

    def __init__(self, plain: nn.Conv2d, way: str) -> None:
        super().__init__(plain)
        self.way = way

    def run(self, x: Tensor) -> Tensor:
        p = self.plain
        window = (p.stride, p.padding, p.dilation, p.groups, self.way)
        return conv2d(x, p.weight, p.bias, *window)


@final
class Separable(Form):
    """Depthwise and 1x1 in one pass: what lies between them never leaves the cache; no gradients."""

    def run(self, x: Tensor) -> Tensor:
        if torch.is_grad_enabled():
            return self.plain(x)
        depth, point = self.plain
        window = (depth.stride, depth.padding, depth.dilation)
        return separable2d(x, depth.weight, point.weight, point.bias, *window)


class _Merged(Form):
    """A stack that ends in two depthwise convolutions along different axes: column times row is one."""

    def __init__(self, plain: nn.Sequential) -> None:
        super().__init__(plain)
        self._made_of: tuple[int, ...] = ()
        self._merged = torch.empty(0)

    def weight(self) -> Tensor:
        """The weight of the one depthwise convolution."""
        weights = [part.weight for part in list(self.plain)[-2:]]
        if torch.is_grad_enabled() or any(w.is_inference() for w in weights):
            return weights[0] * weights[1]
        made_of = tuple(w._version for w in weights)
        if made_of != self._made_of:
            with torch.inference_mode(False), torch.no_grad():
                self._merged, self._made_of = weights[0] * weights[1], made_of
        return self._merged

    def window(self) -> tuple[list[int], list[int], list[int]]:
        """Its stride, padding and dilation."""
        first, second = list(self.plain)[-2:]
        stride = [a * b for a, b in zip(first.stride, second.stride, strict=True)]
        padding = [a + b for a, b in zip(first.padding, second.padding, strict=True)]
        return stride, padding, [(first if k > 1 else second).dilation[i] for i, k in enumerate(first.kernel_size)]


@final
class MergedDepthwise(_Merged):
    """Two depthwise convolutions along different axes as the one that they are, by our own kernel or by oneDNN."""

    def __init__(self, plain: nn.Sequential, way: str) -> None:
        super().__init__(plain)
        self.way = way

    def run(self, x: Tensor) -> Tensor:
        weight, bias = self.weight(), self.plain[-1].bias
        if self.way == "grouped":
            return conv2d(x, weight, bias, *self.window(), len(weight), self.way)
        return F.conv2d(x, weight, bias, *self.window(), len(weight))


@final
class Flattened(_Merged):
    """1x1 and the two depthwise convolutions behind it in one pass, the two as one; no gradients."""

    def run(self, x: Tensor) -> Tensor:
        if torch.is_grad_enabled():
            return self.plain(x)
        return flattened2d(x, self.plain[0].weight, self.weight(), self.plain[-1].bias, *self.window())


@final
class MaxPool(Form):
    """A max pooling by our own kernel."""

    def __init__(self, plain: nn.MaxPool2d) -> None:
        super().__init__(plain)
        self._window = [pair(v) for v in (plain.kernel_size, plain.stride, plain.padding, plain.dilation)]

    def run(self, x: Tensor) -> Tensor:
        return max_pool2d(x, *self._window)


@final
class AveragePool(Form):
    """An average pooling as the depthwise convolution that it is, by our own kernel or by oneDNN."""

    weight: Tensor

    def __init__(self, plain: nn.AvgPool2d, channels: int, way: str) -> None:
        super().__init__(plain)
        size = pair(plain.kernel_size)
        self.way = way
        value = 1 / (plain.divisor_override or size[0] * size[1])
        self.register_buffer("weight", torch.full((channels, 1, *size), value), persistent=False)

    def run(self, x: Tensor) -> Tensor:
        stride, padding = pair(self.plain.stride), pair(self.plain.padding)
        if self.way == "grouped":
            return conv2d(x, self.weight, None, stride, padding, [1, 1], x.shape[1], self.way)
        return F.conv2d(x, self.weight, None, stride, padding, 1, x.shape[1])


def _version(tensor: Tensor) -> int:
    return 0 if tensor.is_inference() else tensor._version
