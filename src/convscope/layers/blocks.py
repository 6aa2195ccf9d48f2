"""What networks are built of: small stacks of convolution, normalisation and activation, for `ndim` spatial axes.

Shape suffixes: N pictures, C input channels, O output channels, D the spatial axes.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import final

import torch
from torch import Tensor, nn

from convscope.errors import InputError
from convscope.layers.family import ShuffledGroupConv, Size, divisors, maker, per_axis
from convscope.layers.fast.convolved import convolved
from convscope.layers.fast.normed import normed

_NORMS: Mapping[int, Callable[[int], nn.Module]] = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
_UPS: Mapping[int, Callable[..., nn.Module]] = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
_AVERAGES: Mapping[int, Callable[..., nn.Module]] = {1: nn.AvgPool1d, 2: nn.AvgPool2d, 3: nn.AvgPool3d}

_POOLS: Mapping[int, Callable[..., nn.Module]] = {1: nn.MaxPool1d, 2: nn.MaxPool2d, 3: nn.MaxPool3d}
_UNPOOLS: Mapping[int, Callable[..., nn.Module]] = {1: nn.MaxUnpool1d, 2: nn.MaxUnpool2d, 3: nn.MaxUnpool3d}


@final
class ConvNormAct(nn.Sequential):
    """A convolution without bias (`conv`), batch normalisation (`norm`), activation (`act`); `act=None` leaves it out.

    Padded by dilation*(K - 1)/2, so that stride 1 keeps the size.
    Shapes: x NxCxD... -> NxOxD'..., D' = D / stride, rounded up.
    Raises: InputError if a kernel size is even, or the channels do not divide into the groups.
    Source: Ioffe & Szegedy 2015 (arXiv:1502.03167).

    >>> ConvNormAct(3, 8, 3, stride=2)(torch.zeros(2, 3, 9, 9)).shape
    torch.Size([2, 8, 5, 5])
    """

    def __init__(  # noqa: PLR0913 - the arguments of torch's convolution
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size,
        *,
        stride: Size = 1,
        dilation: Size = 1,
        groups: int = 1,
        act: Callable[[], nn.Module] | None = nn.ReLU,
        ndim: int = 2,
    ) -> None:
        super().__init__()
        _check(type(self).__name__, ndim, in_channels=in_channels, out_channels=out_channels)
        for channels in (in_channels, out_channels):
            if groups < 1 or channels % groups:
                raise InputError(
                    f"ConvNormAct: groups is {groups}; {channels} channels divide into {divisors(channels)}"
                )
        given = {"kernel_size": kernel_size, "stride": stride, "dilation": dilation}
        size, steps, gaps = (_least(f"ConvNormAct: {name}", value, ndim) for name, value in given.items())
        if any(k % 2 == 0 for k in size):
            raise InputError(f"ConvNormAct: kernel_size is {kernel_size}; use odd sizes, which have a middle")
        padding = tuple(d * (k - 1) // 2 for k, d in zip(size, gaps, strict=True))
        conv = maker(ndim)(in_channels, out_channels, size, steps, padding, gaps, groups, bias=False)
        self.add_module("conv", conv)
        self.add_module("norm", _NORMS[ndim](out_channels))
        if act is not None:
            self.add_module("act", act())

    def forward(self, input: Tensor) -> Tensor:
        if not 2 <= len(self) <= 3:  # somebody took a part away, or put one behind
            return super().forward(input)
        conv, norm, *act = self
        return normed(norm, convolved(conv, input), act[0] if act else None)


@final
class InvertedResidual(nn.Module):
    """Widen by 1x1, look at each channel apart, narrow by 1x1 without activation; add the input where shapes agree.

    Shapes: x NxCxD... -> NxOxD'..., D' = D / stride, rounded up. `expansion` times C channels lie between.
    Raises: InputError that names the parameter, its value and what would fit.
    Source: Sandler et al. 2018, MobileNetV2 (arXiv:1801.04381).

    >>> block = InvertedResidual(8, 8)
    >>> block(torch.zeros(1, 8, 5, 5)).shape, block.residual
    (torch.Size([1, 8, 5, 5]), True)
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        kernel_size: Size = 3,
        stride: Size = 1,
        expansion: int = 6,
        ndim: int = 2,
    ) -> None:
        super().__init__()
        _check(type(self).__name__, ndim, in_channels=in_channels, out_channels=out_channels, expansion=expansion)
        wide = in_channels * expansion
        self.residual = in_channels == out_channels and set(per_axis("stride", stride, ndim=ndim)) == {1}
        self.conv = nn.Sequential()
        if expansion > 1:
            self.conv.add_module("widen", ConvNormAct(in_channels, wide, 1, act=nn.ReLU6, ndim=ndim))
        depthwise = ConvNormAct(wide, wide, kernel_size, stride=stride, groups=wide, act=nn.ReLU6, ndim=ndim)
        self.conv.add_module("depthwise", depthwise)
        self.conv.add_module("narrow", ConvNormAct(wide, out_channels, 1, act=None, ndim=ndim))

    def forward(self, x_NCD: Tensor) -> Tensor:
        y = self.conv(x_NCD)
        return x_NCD + y if self.residual else y


@final
class ShuffleUnit(nn.Module):
    """Grouped 1x1 and shuffle, depthwise 3x3, grouped 1x1, and a way around them that is added.

    With `stride` 2 the way around is an average pooling, and both are joined along the channels.
    Shapes: x NxCxD... -> NxCxD... with stride 1, else NxOxD'..., D' = D / stride, rounded up.
    Raises: InputError that names the parameter, its value and what would fit.
    Source: Zhang et al. 2017, ShuffleNet (arXiv:1707.01083), fig. 2.

    >>> ShuffleUnit(24, 48, groups=3, stride=2)(torch.zeros(1, 24, 8, 8)).shape
    torch.Size([1, 48, 4, 4])
    """

    def __init__(self, in_channels: int, out_channels: int, *, groups: int, stride: int = 1, ndim: int = 2) -> None:
        super().__init__()
        who = type(self).__name__
        _check(who, ndim, in_channels=in_channels, out_channels=out_channels, stride=stride)
        made = out_channels if stride == 1 else out_channels - in_channels
        if (stride == 1 and in_channels != out_channels) or made < 1:
            fits = f"{in_channels}" if stride == 1 else f"more than {in_channels}"
            raise InputError(f"{who}: out_channels is {out_channels} with stride {stride}; use {fits}")
        if out_channels % 4:
            raise InputError(f"{who}: out_channels is {out_channels}; use a multiple of 4, a quarter lies between")
        between = out_channels // 4
        self.enter = ShuffledGroupConv(in_channels, between, 1, groups=groups, bias=False, ndim=ndim)
        self.enter_norm = _NORMS[ndim](between)
        self.depthwise = ConvNormAct(between, between, 3, stride=stride, groups=between, act=None, ndim=ndim)
        self.leave = ConvNormAct(between, made, 1, groups=groups, act=None, ndim=ndim)
        self.around = nn.Identity() if stride == 1 else _AVERAGES[ndim](3, stride=stride, padding=1)
        self.joined = stride > 1

    def forward(self, x_NCD: Tensor) -> Tensor:
        y = self.leave(self.depthwise(torch.relu(self.enter_norm(self.enter(x_NCD)))))
        around = self.around(x_NCD)
        return torch.relu(torch.cat([around, y], 1) if self.joined else around + y)


@final
class DilatedPyramid(nn.Module):
    """The same map seen at several dilations, by 1x1, and as its mean, joined and mixed by 1x1 (ASPP).

    Shapes: x NxCxD... -> NxOxD... . In training, the mean's normalisation needs two pictures or more.
    Raises: InputError that names the parameter, its value and what would fit.
    Source: Chen et al. 2017, DeepLabv3 (arXiv:1706.05587).

    >>> DilatedPyramid(16, 8, dilations=(2, 4)).eval()(torch.zeros(1, 16, 9, 9)).shape
    torch.Size([1, 8, 9, 9])
    """

    def __init__(
        self, in_channels: int, out_channels: int, *, dilations: Sequence[int] = (6, 12, 18), ndim: int = 2
    ) -> None:
        super().__init__()
        _check(type(self).__name__, ndim, in_channels=in_channels, out_channels=out_channels)
        point = ConvNormAct(in_channels, out_channels, 1, ndim=ndim)
        wide = [ConvNormAct(in_channels, out_channels, 3, dilation=d, ndim=ndim) for d in dilations]
        self.branches = nn.ModuleList([point, *wide])
        self.mean = ConvNormAct(in_channels, out_channels, 1, ndim=ndim)
        self.mix = ConvNormAct(out_channels * (len(wide) + 2), out_channels, 1, ndim=ndim)

    def forward(self, x_NCD: Tensor) -> Tensor:
        axes = list(range(2, x_NCD.dim()))
        seen = [branch(x_NCD) for branch in self.branches]
        mean = self.mean(x_NCD.mean(axes, keepdim=True)).expand_as(seen[0])
        return self.mix(torch.cat([*seen, mean], 1))


@final
class UpBlock(nn.Sequential):
    """A map made `scale` times as large by a transposed convolution (`up`), then `norm` and `act`.

    The kernel is a multiple of the stride (twice, if that is even, else three times), so that every output place is
    reached by as many taps, and no checkerboard comes of it.
    Shapes: x NxCxD... -> NxOx(scale*D)... .
    Raises: InputError that names the parameter, its value and what would fit.
    Source: Odena et al. 2016, Deconvolution and checkerboard artifacts (doi:10.23915/distill.00003).

    >>> UpBlock(16, 8, scale=2)(torch.zeros(2, 16, 5, 7)).shape
    torch.Size([2, 8, 10, 14])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        scale: int = 2,
        act: Callable[[], nn.Module] | None = nn.ReLU,
        ndim: int = 2,
    ) -> None:
        super().__init__()
        _check(type(self).__name__, ndim, in_channels=in_channels, out_channels=out_channels, scale=scale)
        times = 3 if scale % 2 else 2
        padding = (times - 1) * scale // 2
        up = _UPS[ndim](in_channels, out_channels, times * scale, stride=scale, padding=padding, bias=False)
        self.add_module("up", up)
        self.add_module("norm", _NORMS[ndim](out_channels))
        if act is not None:
            self.add_module("act", act())


@final
class PoolAndBack(nn.Module):
    """Max pooling, the layers `inner` on the small map, then every value back to the place its maximum came from.

    What was no maximum becomes zero, so the size is restored and the places of edges are kept, not the values. Windows
    lie side by side: where they overlap, two values would go back to one place.
    Shapes: x NxCxD... -> NxCxD...; `inner` (nothing, if not given) keeps the shape that it gets.
    Raises: InputError that names the parameter, its value and what would fit; and if `inner` changes the shape.
    Source: Zeiler et al. 2011, Adaptive deconvolutional networks; Badrinarayanan et al. 2015 (arXiv:1511.00561).

    >>> PoolAndBack(kernel_size=2)(torch.tensor([[[[1.0, 2.0, 7.0], [4.0, 3.0, 5.0]]]]))
    tensor([[[[0., 0., 0.],
              [4., 0., 0.]]]])
    """

    def __init__(self, inner: nn.Module | None = None, *, kernel_size: Size = 2, ndim: int = 2) -> None:
        super().__init__()
        who = type(self).__name__
        _check(who, ndim)
        size = _least(f"{who}: kernel_size", kernel_size, ndim)
        self.pool = _POOLS[ndim](size, return_indices=True)
        self.inner = nn.Identity() if inner is None else inner
        self.unpool = _UNPOOLS[ndim](size)

    def forward(self, x_NCD: Tensor) -> Tensor:
        small, places = self.pool(x_NCD)
        y = self.inner(small)
        if y.shape != small.shape:
            raise InputError(
                f"PoolAndBack: inner makes {tuple(y.shape)} of {tuple(small.shape)}; use one that keeps the shape"
            )
        return self.unpool(y, places, output_size=x_NCD.shape)


def _check(who: str, ndim: int, **numbers: int) -> None:
    if ndim not in _NORMS:
        raise InputError(f"{who}: ndim is {ndim}; use 1, 2 or 3")
    for name, value in numbers.items():
        if value < 1:
            raise InputError(f"{who}: {name} is {value}; use 1 or more")


def _least(where: str, value: Size, ndim: int) -> tuple[int, ...]:
    values = per_axis(where, value, ndim=ndim)
    if min(values) < 1:
        raise InputError(f"{where} is {value}; use 1 or more")
    return values
