"""The kinds of convolution that `torch.nn` has no class for, each made of `torch.nn`'s convolutions.

One class serves one, two and three dimensions (`ndim`). Constructors speak as `torch.nn.Conv2d` does. Only the last
convolution of a stack has the bias, so that each stack is one linear map, which `expand` gives as one dense kernel.
Shape suffixes: N pictures, C input channels, O output channels, D the spatial axes.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypedDict, Unpack, final

import torch
from torch import Tensor, nn

from convscope.errors import InputError

Size = int | Sequence[int]
Conv = nn.Conv1d | nn.Conv2d | nn.Conv3d
CONVS: Mapping[int, type[Conv]] = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}


class Options(TypedDict, total=False):
    """What every constructor of the family takes by name; each value counts for all axes, or there is one an axis.

    `padding` is zeros at both ends, or "same" or "valid"; `ndim` is 1, 2 (if not given) or 3.
    """

    stride: Size
    padding: Size | str
    dilation: Size
    bias: bool
    ndim: int
    device: torch.device | str | None
    dtype: torch.dtype | None


def channel_shuffle(x_NCD: Tensor, *, groups: int) -> Tensor:
    """Channels interleaved: those of a `groups` x C/groups table, read column by column, in the layout of the input.

    Shapes: x NxCxD... -> NxCxD..., any number of spatial axes.
    Raises: InputError if C is no multiple of groups, or there is no axis of channels.
    Source: Zhang et al. 2017, ShuffleNet (arXiv:1707.01083), fig. 1.

    >>> channel_shuffle(torch.arange(6).reshape(1, 6), groups=2)
    tensor([[0, 3, 1, 4, 2, 5]])
    """
    if x_NCD.dim() < 2:
        raise InputError(f"channel_shuffle: x has shape {tuple(x_NCD.shape)}; give NxCxD..., with an axis of channels")
    channels = x_NCD.shape[1]
    if groups < 1 or channels % groups:
        raise InputError(f"channel_shuffle: groups is {groups}; {channels} channels divide into {divisors(channels)}")
    axis = 1 if x_NCD.is_contiguous() else -1
    table = x_NCD.movedim(1, axis).unflatten(axis, (groups, channels // groups))
    first = 1 if axis == 1 else -2
    return table.transpose(first, first + 1).flatten(first, first + 1).movedim(axis, 1)


@final
class SpatiallySeparableConv(nn.Sequential):
    """One 1-D kernel per axis, in sequence: 3x1 and 1x3 in place of 3x3.

    The stack goes from `in_channels` to `hidden_channels` (`out_channels` if not given) along the first axis, and
    to `out_channels` along the last.
    Shapes: x NxCxD... -> NxOxD'..., D' as of the dense convolution.
    Raises: InputError that names the parameter, its value and what would fit.
    Source: Jaderberg et al. 2014 (arXiv:1405.3866), scheme 2.

    >>> sum(w.numel() for w in SpatiallySeparableConv(1, 1, 3, bias=False).parameters())
    6
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size,
        *,
        hidden_channels: int | None = None,
        groups: int = 1,
        **options: Unpack[Options],
    ) -> None:
        super().__init__()
        a = _Axes.of(type(self).__name__, kernel_size, options)
        hidden = out_channels if hidden_channels is None else hidden_channels
        a.check_channels(in_channels=in_channels, hidden_channels=hidden, out_channels=out_channels)
        widths = [in_channels, *[hidden] * (a.ndim - 1), out_channels]
        for width in widths:
            a.check_groups(groups, width)
        for axis in range(a.ndim):
            conv = a.along(axis, widths[axis], widths[axis + 1], groups=groups)
            self.add_module(f"axis{axis}", conv)
        _keep_variance(self)


@final
class DepthwiseSeparableConv(nn.Sequential):
    """A kernel for each channel apart (`depthwise`), then a 1x1 convolution that mixes them (`pointwise`).

    `depth_multiplier` kernels look at each input channel.
    Shapes: x NxCxD... -> NxOxD'..., D' as of the dense convolution.
    Raises: InputError that names the parameter, its value and what would fit.
    Source: Sifre 2014, Rigid-motion scattering, ch. 6; Howard et al. 2017, MobileNets (arXiv:1704.04861).

    >>> sum(w.numel() for w in DepthwiseSeparableConv(8, 8, 3, bias=False).parameters())
    136
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size,
        *,
        depth_multiplier: int = 1,
        **options: Unpack[Options],
    ) -> None:
        super().__init__()
        a = _Axes.of(type(self).__name__, kernel_size, options)
        a.check_channels(in_channels=in_channels, out_channels=out_channels, depth_multiplier=depth_multiplier)
        wide = in_channels * depth_multiplier
        self.add_module("depthwise", a.conv(in_channels, wide, groups=in_channels, bias=False))
        self.add_module("pointwise", a.pointwise(wide, out_channels, bias=a.bias))
        _keep_variance(self)


@final
class FlattenedConv(nn.Sequential):
    """Three 1-D kernels for each filter: across the channels, then down, then along (in 3-D, then through).

    A filter of X x Y x C weights becomes X + Y + C of them.
    Shapes: x NxCxD... -> NxOxD'..., D' as of the dense convolution.
    Raises: InputError that names the parameter, its value and what would fit.
    Source: Jin et al. 2014, Flattened convolutional neural networks (arXiv:1412.5474).

    >>> sum(w.numel() for w in FlattenedConv(16, 1, (3, 5), bias=False).parameters()), 16 + 3 + 5
    (24, 24)
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: Size, **options: Unpack[Options]) -> None:
        super().__init__()
        a = _Axes.of(type(self).__name__, kernel_size, options)
        a.check_channels(in_channels=in_channels, out_channels=out_channels)
        self.add_module("across", a.pointwise(in_channels, out_channels, bias=False))
        for axis, name in zip(range(a.ndim), ("down", "along", "through"), strict=False):
            self.add_module(name, a.along(axis, out_channels, out_channels, groups=out_channels))
        _keep_variance(self)


@final
class ShuffledGroupConv(nn.Module):
    """A convolution in `groups`, then a shuffle, so that the next grouped convolution meets channels of all groups.

    Shapes: x NxCxD... -> NxOxD'..., D' as of the dense convolution.
    Raises: InputError that names the parameter, its value and what would fit.
    Source: Zhang et al. 2017, ShuffleNet (arXiv:1707.01083).

    >>> sum(w.numel() for w in ShuffledGroupConv(8, 8, 1, groups=4, bias=False).parameters())
    16
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: Size, *, groups: int, **options: Unpack[Options]
    ) -> None:
        super().__init__()
        a = _Axes.of(type(self).__name__, kernel_size, options)
        a.check_channels(in_channels=in_channels, out_channels=out_channels)
        a.check_groups(groups, in_channels)
        a.check_groups(groups, out_channels)
        self.groups = groups
        self.conv = a.conv(in_channels, out_channels, groups=groups, bias=a.bias)

    def forward(self, x_NCD: Tensor) -> Tensor:
        y = self.conv(x_NCD)
        if y.dim() == self.conv.weight.dim():
            return channel_shuffle(y, groups=self.groups)
        return channel_shuffle(y.unsqueeze(0), groups=self.groups).squeeze(0)  # one picture, without N

    def extra_repr(self) -> str:
        return f"groups={self.groups}"


def maker(ndim: int) -> Callable[..., Conv]:
    """torch's convolution of that many axes, to be called with one number an axis."""
    return CONVS[ndim]


def divisors(n: int) -> str:
    """The numbers that divide n, as words: "1, 2, 4"."""
    return ", ".join(str(d) for d in range(1, n + 1) if n % d == 0)


def per_axis(where: str, value: Size, *, ndim: int) -> tuple[int, ...]:
    """One number an axis; a single one counts for all.

    Raises: InputError, begun with `where`, if there are more or fewer than the axes, or they are no whole numbers.

    >>> per_axis("Conv: stride", 2, ndim=3)
    (2, 2, 2)
    """
    values: tuple[Any, ...] = (
        tuple(value) if isinstance(value, Sequence) and not isinstance(value, str) else (value,) * ndim
    )
    if not all(isinstance(v, int) for v in values):
        raise InputError(f"{where} is {value!r}; use whole numbers")
    if len(values) != ndim:
        axes = "the one spatial axis" if ndim == 1 else f"each of the {ndim} spatial axes"
        raise InputError(f"{where} is {values}; give one number, or one for {axes}")
    return values


@dataclass(frozen=True, slots=True)
class _Axes:
    """A checked window along every axis, and the convolutions that are made with it."""

    who: str
    size: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    bias: bool
    factory: dict[str, Any]

    @classmethod
    def of(cls, who: str, kernel_size: Size, options: Options) -> "_Axes":
        unknown = sorted(options.keys() - Options.__annotations__.keys())
        if unknown:
            raise TypeError(f"{who}() got an unexpected keyword argument {unknown[0]!r}")
        ndim = options.get("ndim", 2)
        if ndim not in CONVS:
            raise InputError(f"{who}: ndim is {ndim}; use 1, 2 or 3")
        given = {"kernel_size": kernel_size, "stride": options.get("stride", 1), "dilation": options.get("dilation", 1)}
        size, stride, dilation = (_numbers(who, name, value, ndim, 1) for name, value in given.items())
        padding = options.get("padding", 0)
        if isinstance(padding, str):
            padding = _named_padding(who, padding, size, stride, dilation)
        pads = _numbers(who, "padding", padding, ndim, 0)
        factory = {"device": options.get("device"), "dtype": options.get("dtype")}
        return cls(who, size, stride, pads, dilation, options.get("bias", True), factory)

    @property
    def ndim(self) -> int:
        return len(self.size)

    def conv(self, in_channels: int, out_channels: int, *, groups: int, bias: bool) -> Conv:
        window = (self.size, self.stride, self.padding, self.dilation)
        return maker(self.ndim)(in_channels, out_channels, *window, groups, bias, **self.factory)

    def along(self, axis: int, in_channels: int, out_channels: int, *, groups: int) -> Conv:
        """The window of one axis alone; the last one of the stack takes the bias."""
        rest = ((self.size, 1), (self.stride, 1), (self.padding, 0), (self.dilation, 1))
        window = [tuple(v if a == axis else other for a, v in enumerate(values)) for values, other in rest]
        bias = self.bias and axis == self.ndim - 1
        return maker(self.ndim)(in_channels, out_channels, *window, groups, bias, **self.factory)

    def pointwise(self, in_channels: int, out_channels: int, *, bias: bool) -> Conv:
        return maker(self.ndim)(in_channels, out_channels, 1, bias=bias, **self.factory)

    def check_channels(self, **channels: int) -> None:
        for name, value in channels.items():
            if value < 1:
                raise InputError(f"{self.who}: {name} is {value}; use 1 or more")

    def check_groups(self, groups: int, channels: int) -> None:
        if groups < 1 or channels % groups:
            raise InputError(f"{self.who}: groups is {groups}; {channels} channels divide into {divisors(channels)}")


def _numbers(who: str, name: str, value: Size, ndim: int, least: int) -> tuple[int, ...]:
    values = per_axis(f"{who}: {name}", value, ndim=ndim)
    if min(values) < least:
        raise InputError(f"{who}: {name} is {value}; use {least} or more")
    return values


def _named_padding(
    who: str, name: str, size: tuple[int, ...], stride: tuple[int, ...], dilation: tuple[int, ...]
) -> tuple[int, ...]:
    if name == "valid":
        return (0,) * len(size)
    if name != "same":
        raise InputError(f"{who}: padding is {name!r}; use a number, 'same' or 'valid'")
    if max(stride) > 1:
        raise InputError(f"{who}: padding is 'same' but stride is {stride}; use stride 1, or padding in numbers")
    both = [d * (k - 1) for k, d in zip(size, dilation, strict=True)]
    if any(b % 2 for b in both):
        raise InputError(
            f"{who}: padding is 'same' but kernel_size is {size}, which would need unequal ends; "
            f"use odd sizes, or padding in numbers"
        )
    return tuple(b // 2 for b in both)


def _keep_variance(stack: nn.Sequential) -> None:
    """All but the last convolution hand on the variance they get, so that the stack begins as one layer would."""
    for conv in list(stack)[:-1]:
        nn.init.kaiming_uniform_(conv.get_parameter("weight"), nonlinearity="linear")
