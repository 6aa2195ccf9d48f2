"""Exact ways to run a layer: each is a module that holds the layer and gives what the layer gives, in another order.

A form takes inputs in any layout, is quickest on channels last, and leaves to the layer what it is not made for: other
dtypes or devices, pictures without a batch, batches without a picture, traces. `Prepacked`, `Separable` and `Flattened`
have no gradients: where those are recorded, the layer runs.
"""

from collections.abc import Sequence
from typing import Any, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from convscope.layers.fast.compiled import Window
from convscope.layers.fast.operators import LAST, conv2d, flattened2d, is_traced, max_pool2d, plain_bias, separable2d
from convscope.layers.fast.packing import Derived, Unfit, ours

_ONEDNN = torch.ops.mkldnn


def pair(value: int | Sequence[int]) -> list[int]:
    """One number for each of the two axes."""
    return [value, value] if isinstance(value, int) else list(value)


def window_of(layer: Any) -> Window:
    """The window of a convolution or pooling of two axes."""
    size, stride, padding = (pair(v) for v in (layer.kernel_size, layer.stride, layer.padding))
    return Window(*size, *stride, *padding, *pair(getattr(layer, "dilation", 1)))


class Form(nn.Module):
    """A way to run `plain`; a subclass says how, for float32 on the CPU."""

    plain: Any

    def __init__(self, plain: nn.Module) -> None:
        super().__init__()
        self.plain = plain.to(memory_format=LAST)
        self._held = (self.plain,)  # the same, come by without a module's search for it
        self._serves = self._is_served()
        convs = [part for part in plain.modules() if isinstance(part, nn.modules.conv._ConvNd)]
        self._channels = convs[0].in_channels if convs else None

    def _is_served(self) -> bool:
        return all(w.dtype == torch.float32 and w.is_cpu for w in self.plain.parameters())

    def _apply(self, *args: Any, **kwargs: Any) -> "Form":
        super()._apply(*args, **kwargs)
        self._serves = self._is_served()
        return self

    def forward(self, x: Tensor) -> Tensor:
        shape = x.shape
        fits = len(shape) == 4 and 0 not in shape and self._channels in (None, shape[1])
        if (
            not (fits and self._serves and x.dtype is torch.float32 and x.is_cpu)
            or torch.is_autocast_enabled("cpu")
            or is_traced()
        ):
            return self.plain(x)
        try:
            return self.run(x.contiguous(memory_format=LAST))
        except Unfit:
            return self.plain(x)

    def run(self, x: Tensor) -> Tensor:
        """The layer's output by this form's own way, for float32 pictures in channels_last; each form has its own.

        Raises: Unfit if its tensors are no longer what it was made for: then the layer runs.
        """
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
        self._held = (self.plain,)  # the same, come by without a module's search for it

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, torch.bfloat16):
            return self.plain(x.contiguous(memory_format=LAST).bfloat16()).to(x.dtype)


@final
class Prepacked(Form):
    """oneDNN's convolution with its weights in its own order, made for one size of input; no gradients."""

    def __init__(self, plain: nn.Conv2d, example: Tensor) -> None:
        super().__init__(plain)
        self._shape, self._packed = list(example.shape), Derived(self._pack)
        self._packed.of(plain.weight)

    def _pack(self, weight: Tensor) -> Tensor:
        return _ONEDNN._reorder_convolution_weight(weight, *self._window(), self.plain.groups, self._shape)

    def _window(self) -> tuple[list[int], list[int], list[int]]:
        return pair(self.plain.padding), pair(self.plain.stride), pair(self.plain.dilation)

    def run(self, x: Tensor) -> Tensor:
        if torch.is_grad_enabled():
            return self.plain(x)
        padding, stride, dilation = self._window()
        window = (padding, stride, dilation, self.plain.groups)
        weight, bias = _tensors(self.plain)
        given = (self._packed.of(weight), plain_bias(bias, weight))
        return _ONEDNN._convolution_pointwise(x, *given, *window, "none", [], "")


@final
class Product(Form):
    """A 1x1 convolution as the product of matrices that it is, in channels_last: its gradients are products as well."""

    def run(self, x: Tensor) -> Tensor:
        weight, bias = self.plain.weight, self.plain.bias
        return F.linear(x.permute(0, 2, 3, 1), weight.flatten(1), bias).permute(0, 3, 1, 2)


@final
class Compiled(Form):
    """A convolution by our own kernel: "grouped" for few channels a group, "winograd" for 3 taps and stride 1, "tiles"
    for 1x1 with products of bfloat16.
    """

    def __init__(self, plain: nn.Conv2d, way: str) -> None:
        super().__init__(plain)
        self.way, self._window = way, window_of(plain)

    def run(self, x: Tensor) -> Tensor:
        (plain,) = self._held
        return conv2d(x, *_tensors(plain), self._window, plain.groups, self.way)


@final
class Separable(Form):
    """Depthwise and 1x1 in one pass: what lies between them never leaves the cache; no gradients. The 1x1 goes the way
    "pointwise" or "tiles".
    """

    def __init__(self, plain: nn.Sequential, way: str) -> None:
        super().__init__(plain)
        self.way, self._window = way, window_of(plain[0])

    def run(self, x: Tensor) -> Tensor:
        if torch.is_grad_enabled():
            return self.plain(x)
        depth, point = self._held[0]._modules.values()
        return separable2d(x, _tensors(depth)[0], *_tensors(point), self._window, self.way)


class _Merged(Form):
    """A stack that ends in two depthwise convolutions along different axes: column times row is one."""

    def __init__(self, plain: nn.Sequential) -> None:
        super().__init__(plain)
        self._merged, self._window = Derived(self._product), self.window()

    def weight(self) -> Tensor:
        """The weight of the one depthwise convolution."""
        weights = [_tensors(part)[0] for part in list(self._held[0]._modules.values())[-2:]]
        return self._product(*weights) if torch.is_grad_enabled() else self._merged.of(*weights)

    def _product(self, *weights: Tensor) -> Tensor:
        if any(w.shape[2:] != part.kernel_size for w, part in zip(weights, list(self.plain)[-2:], strict=True)):
            raise Unfit
        return ours(weights[0] * weights[1])

    def window(self) -> Window:
        """Its window: along each axis, that of the one which is not idle there."""
        first, second = (window_of(part) for part in list(self.plain)[-2:])
        down, along = (second if first.kh == 1 else first), (second if first.kw == 1 else first)
        return Window(down.kh, along.kw, down.sh, along.sw, down.ph, along.pw, down.dh, along.dw)


@final
class MergedDepthwise(_Merged):
    """Two depthwise convolutions along different axes as the one that they are, by our own kernel or by oneDNN."""

    def __init__(self, plain: nn.Sequential, way: str) -> None:
        super().__init__(plain)
        self.way = way

    def run(self, x: Tensor) -> Tensor:
        weight, bias = self.weight(), self.plain[-1].bias
        if self.way == "grouped":
            return conv2d(x, weight, bias, self._window, len(weight), self.way)
        return F.conv2d(x, weight, bias, *self._window.steps(), len(weight))


@final
class Flattened(_Merged):
    """1x1 and the two depthwise convolutions behind it in one pass, the two as one; no gradients. The 1x1 goes the way
    "pointwise" or "tiles".
    """

    def __init__(self, plain: nn.Sequential, way: str) -> None:
        super().__init__(plain)
        self.way = way

    def run(self, x: Tensor) -> Tensor:
        if torch.is_grad_enabled():
            return self.plain(x)
        across, _, last = self._held[0]._modules.values()
        return flattened2d(x, _tensors(across)[0], self.weight(), _tensors(last)[1], self._window, self.way)


@final
class MaxPool(Form):
    """A max pooling by our own kernel."""

    def __init__(self, plain: nn.MaxPool2d) -> None:
        super().__init__(plain)
        self._window = window_of(plain)

    def run(self, x: Tensor) -> Tensor:
        return max_pool2d(x, self._window)


@final
class AveragePool(Form):
    """An average pooling as the depthwise convolution that it is, by our own kernel or by oneDNN."""

    def __init__(self, plain: nn.AvgPool2d, channels: int, way: str) -> None:
        super().__init__(plain)
        self.way, self._window, self._channels = way, window_of(plain), channels  # of no others
        down, along = self._window.kh, self._window.kw
        value = 1 / (plain.divisor_override or down * along)
        self.weight = ours(torch.full((channels, 1, down, along), value))  # no buffer: those are slow to come by

    def run(self, x: Tensor) -> Tensor:
        if self.way == "grouped":
            return conv2d(x, self.weight, None, self._window, self._channels, self.way)
        return F.conv2d(x, self.weight, None, *self._window.steps(), self._channels)


def _tensors(conv: Any) -> tuple[Tensor, Tensor | None]:
    """Weight and bias, come by without a module's search for them, unless they are made of something else."""
    found = conv._parameters
    return (found["weight"], found["bias"]) if "weight" in found else (conv.weight, conv.bias)
