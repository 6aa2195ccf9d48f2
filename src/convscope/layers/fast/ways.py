"""Which forms a layer has, by its kind: each has words, and is made when it is needed.

A stack is what its members are, each in a way of its own, or one form of several of them.
"""

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from convscope.errors import InputError
from convscope.layers.expand import expand
from convscope.layers.family import FlattenedConv, ShuffledGroupConv
from convscope.layers.fast import forms
from convscope.layers.fast.compiled import kernels
from convscope.layers.fast.operators import can
from convscope.layers.fast.paired import Paired, pairable
from convscope.layers.fast.phases import Phases, phased


@dataclass(frozen=True, slots=True)
class Way:
    """A way to run a layer: its words, what makes its module, and its MACs where they are more than the layer's own."""

    words: str
    make: Callable[[], nn.Module]
    macs: int = 0


def ways(layer: nn.Module, example: Tensor, *, training: bool) -> Iterator[Way]:
    """The exact ways, beside PyTorch's own, to run the layer on float32 pictures on the CPU; its tensors are copied."""
    if isinstance(layer, nn.Conv2d):
        yield from _of_conv(layer, example, training)
    elif isinstance(layer, nn.ConvTranspose2d):
        if not training and phased(layer):
            yield Way("own kernel, phases in tiles", lambda: Phases(copy.deepcopy(layer)))
    elif isinstance(layer, nn.MaxPool2d):
        plain = not (layer.return_indices or layer.ceil_mode)
        if plain and kernels() and example.shape[1] % 4 == 0:
            yield Way("own kernel", lambda: forms.MaxPool(copy.deepcopy(layer)))
    elif isinstance(layer, nn.AvgPool2d):
        yield from _of_average(layer, example.shape[1])
    elif isinstance(layer, nn.Sequential):
        yield from _of_stack(layer, example, training)


def stack(layer: nn.Module) -> list[nn.Module]:
    """The parts of a layer that may each be run in a way of their own; none where it is one part."""
    if isinstance(layer, FlattenedConv) and len(layer) == 3:
        across, down, along = layer
        return [across, nn.Sequential(down, along)]
    if isinstance(layer, ShuffledGroupConv):
        return [layer.conv, nn.ChannelShuffle(layer.groups)]
    return list(layer) if isinstance(layer, nn.Sequential) and len(layer) > 1 else []


def _of_conv(layer: nn.Conv2d, example: Tensor, training: bool) -> Iterator[Way]:
    if layer.padding_mode != "zeros" or isinstance(layer.padding, str):
        return
    for way, words in (
        ("grouped", "own kernel"),
        ("winograd", "own kernel, Winograd"),
        ("tiles", "own kernel, in tiles"),
    ):
        if can(way, layer.weight, stride=layer.stride, groups=layer.groups):
            yield Way(words, lambda way=way: forms.Compiled(copy.deepcopy(layer), way))
    if not training and pairable(layer):
        yield Way("own kernel, pairs of groups in tiles", lambda: Paired(copy.deepcopy(layer)))
    if layer.kernel_size == layer.stride == (1, 1) and layer.padding == (0, 0) and layer.groups == 1:
        yield Way("as a product of matrices", lambda: forms.Product(copy.deepcopy(layer)))
    if not training and torch.backends.mkldnn.is_available():
        yield Way("oneDNN, prepacked", lambda: forms.Prepacked(copy.deepcopy(layer), example))


def _of_average(layer: nn.AvgPool2d, channels: int) -> Iterator[Way]:
    if layer.ceil_mode or not (
        layer.count_include_pad or layer.divisor_override or forms.pair(layer.padding) == [0, 0]
    ):
        return
    if kernels() and channels % 4 == 0:
        yield Way("own kernel", lambda: forms.AveragePool(copy.deepcopy(layer), channels, "grouped"))
    yield Way("as a depthwise convolution", lambda: forms.AveragePool(copy.deepcopy(layer), channels, "oneDNN"))


def _of_stack(layer: nn.Sequential, example: Tensor, training: bool) -> Iterator[Way]:
    first, second = (layer[0], layer[-1]) if len(layer) == 2 else (None, None)
    convs = [part for part in layer if isinstance(part, nn.Conv2d)]
    if not training and len(layer) == len(convs) == 3 and _is_flattened(*convs):
        for words, way in _mixing("own kernel, all in one pass", convs[0]):
            yield Way(words, lambda way=way: forms.Flattened(copy.deepcopy(layer), way))
    if isinstance(first, nn.Conv2d) and isinstance(second, nn.Conv2d):
        if not training and _is_depthwise_then_pointwise(first, second):
            for words, way in _mixing("own kernel, both in one pass", second):
                yield Way(words, lambda way=way: forms.Separable(copy.deepcopy(layer), way))
        if _are_depthwise_along_two_axes(first, second):
            if can("grouped", first.weight, stride=first.stride, groups=first.groups):
                yield Way("own kernel, as one", lambda: forms.MergedDepthwise(copy.deepcopy(layer), "grouped"))
            yield Way("as one depthwise convolution", lambda: forms.MergedDepthwise(copy.deepcopy(layer), "oneDNN"))
    if not training:
        dense = _dense(layer)
        if dense is not None:
            places = example.shape[2] * example.shape[3] // (dense.stride[0] * dense.stride[1])
            macs = len(example) * places * dense.weight.numel()
            yield Way("as one dense convolution", lambda: forms.Prepacked(dense, example), macs)


def _mixing(words: str, pointwise: nn.Conv2d) -> Iterator[tuple[str, str]]:
    """The ways in which our kernels go through a 1x1 convolution, in words and by name."""
    yield words, "pointwise"
    if can("tiles", pointwise.weight, stride=(1, 1), groups=1):
        yield f"{words}, in tiles", "tiles"


def _is_depthwise_then_pointwise(first: nn.Conv2d, second: nn.Conv2d) -> bool:
    found = kernels()
    pointwise = second.kernel_size == (1, 1) and second.stride == (1, 1) and second.groups == 1
    unpadded = second.padding in ((0, 0), "valid") and not isinstance(first.padding, str)
    depthwise = first.groups == first.in_channels == first.out_channels and first.bias is None
    ours = first.padding_mode == "zeros" and can("grouped", first.weight, stride=first.stride, groups=first.groups)
    return (
        found is not None and pointwise and unpadded and depthwise and ours and second.out_channels % found.panel == 0
    )


def _is_flattened(across: nn.Conv2d, down: nn.Conv2d, along: nn.Conv2d) -> bool:
    found = kernels()
    pointwise = across.kernel_size == (1, 1) and across.stride == (1, 1) and across.groups == 1
    unpadded = across.padding in ((0, 0), "valid") and across.bias is None
    fits = found is not None and across.out_channels % found.panel == 0
    return fits and pointwise and unpadded and _are_depthwise_along_two_axes(down, along)


def _are_depthwise_along_two_axes(first: nn.Conv2d, second: nn.Conv2d) -> bool:
    channels = {first.groups, first.in_channels, first.out_channels, second.groups, second.out_channels}
    named = isinstance(first.padding, str) or isinstance(second.padding, str)
    modes = {first.padding_mode, second.padding_mode}
    if len(channels) > 1 or first.bias is not None or named or modes != {"zeros"}:
        return False
    windows = [list(zip(c.kernel_size, c.stride, c.padding, strict=True)) for c in (first, second)]
    return all((1, 1, 0) in axis for axis in zip(*windows, strict=True))


def _dense(layer: nn.Sequential) -> nn.Conv2d | None:
    try:
        dense = expand(layer, ndim=2)
    except InputError:
        return None
    return dense if isinstance(dense, nn.Conv2d) else None
