"""What the members of the family are compared on, and how each is made for it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

from torch import nn

from convscope.errors import InputError
from convscope.geometry import Window, out_size, transposed_out_size
from convscope.layers import DepthwiseSeparableConv, FlattenedConv, ShuffledGroupConv, SpatiallySeparableConv
from convscope.layers.family import Size, divisors, per_axis

MOST_VALUES = 2**48  # of one tensor: it has a shape alone
MAPS = {1: (128, 3136), 2: (128, 56, 56), 3: (32, 16, 28, 28)}  # by the number of axes: channels and size


@dataclass(frozen=True, slots=True)
class Setting:
    """What all members are given: a batch of maps, and the window that goes over them.

    `size` is that of a map, one number for each of its one to three axes; `kernel_size`, `stride`, `padding` and
    `dilation` count for all axes, or there is one an axis. `dilation` is that of the dilated member; the others have
    1. `padding` None is half of what the kernel spans, which keeps the size at stride 1. `groups` None is the largest
    number up to 4 that divides the channels. `scale` is the stride of the transposed member, whose `output_padding`
    None makes its output `scale` times as large where there is one that does.
    Raises: InputError that names the parameter, its value and what would fit.

    >>> Setting(in_channels=6, out_channels=9, size=(8, 8)).groups
    3
    """

    in_channels: int = 128
    out_channels: int = 128
    size: tuple[int, ...] = (56, 56)
    batch: int = 8
    kernel_size: Size = 3
    stride: Size = 1
    padding: Size | None = None
    dilation: Size = 2
    groups: int | None = None
    scale: int = 2
    output_padding: int | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.ndim <= 3:
            raise InputError(f"family: size is {self.size}; give one, two or three axes")
        for name in ("in_channels", "out_channels", "batch", "scale"):
            if not 1 <= getattr(self, name) <= MOST_VALUES:
                raise InputError(f"family: {name} is {getattr(self, name)}; use 1 to {MOST_VALUES:,}")
        for name, least in (("size", 1), ("kernel_size", 1), ("stride", 1), ("padding", 0), ("dilation", 1)):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, self._each(name, least))
        self._check_sizes()
        self._settle_groups()
        for dilated in (False, True):
            for n, window in zip(self.size, self.windows(dilated=dilated), strict=True):
                out_size(n, window)
        self._settle_output_padding()

    @property
    def ndim(self) -> int:
        """Spatial axes of a map."""
        return len(self.size)

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the batch: NxCxD... ."""
        return (self.batch, self.in_channels, *self.size)

    def windows(self, *, dilated: bool = False) -> tuple[Window, ...]:
        """The window along each axis; `dilated`, that of the dilated member."""
        gaps = self._each("dilation", 1) if dilated else (1,) * self.ndim
        sizes = self._each("kernel_size", 1)
        half = tuple(d * (k - 1) // 2 for k, d in zip(sizes, gaps, strict=True))
        padding = half if self.padding is None else self._each("padding", 0)
        return tuple(Window(*w) for w in zip(sizes, self._each("stride", 1), padding, gaps, strict=True))

    def transposed(self) -> tuple[Window, ...]:
        """The window of the transposed member along each axis: the stride is `scale`."""
        return tuple(Window(w.size, self.scale, w.padding) for w in self.windows())

    def _each(self, name: str, least: int) -> tuple[int, ...]:
        values = per_axis(f"family: {name}", getattr(self, name), ndim=self.ndim)
        if min(values) < least:
            raise InputError(f"family: {name} is {getattr(self, name)}; use {least} or more")
        return values

    def _check_sizes(self) -> None:
        places = self.batch * prod(self.size) * self.scale**self.ndim
        channels = max(self.in_channels, self.out_channels)
        kernels = channels * self.out_channels * prod(w.size for w in self.windows())  # one has two, one after another
        largest = max(places * channels, kernels)
        if largest > MOST_VALUES:
            raise InputError(
                f"family: a map or the kernels would hold {largest:,} values, {MOST_VALUES:,} at most; "
                "use fewer channels, a smaller input, batch, kernel_size or scale"
            )

    def _settle_groups(self) -> None:
        channels = (self.in_channels, self.out_channels)
        groups = self.groups
        if groups is None:
            groups = next(g for g in (4, 3, 2, 1) if not any(c % g for c in channels))
            object.__setattr__(self, "groups", groups)
        for c in channels:
            if groups < 1 or c % groups:
                raise InputError(f"family: groups is {groups}; {c} channels divide into {divisors(c)}")

    def _settle_output_padding(self) -> None:
        given = self.output_padding
        if given is None:
            wished = max(self.scale + 2 * w.padding - w.size for w in self.transposed())
            given = min(max(wished, 0), self.scale - 1)
            object.__setattr__(self, "output_padding", given)
        for n, window in zip(self.size, self.transposed(), strict=True):
            transposed_out_size(n, window, output_padding=given)


def _conv(s: Setting, out_channels: int, *, groups: int = 1, dilated: bool = False) -> nn.Module:
    w = s.windows(dilated=dilated)
    window = ([getattr(v, name) for v in w] for name in ("size", "stride", "padding", "dilation"))
    return _torch("Conv", s)(s.in_channels, out_channels, *window, groups=groups, bias=False)


def _pointwise(s: Setting) -> nn.Module:
    stride = [w.stride for w in s.windows()]
    return _torch("Conv", s)(s.in_channels, s.out_channels, 1, stride, bias=False)


def _transposed(s: Setting) -> nn.Module:
    size, stride, padding = ([getattr(w, name) for w in s.transposed()] for name in ("size", "stride", "padding"))
    made = (s.in_channels, s.out_channels, size, stride, padding, s.output_padding)
    return _torch("ConvTranspose", s)(*made, bias=False)


def _pool(s: Setting, name: str) -> nn.Module:
    for w in s.windows():
        if w.padding > w.size // 2:
            raise InputError(
                f"family: padding is {w.padding}; pooling takes {w.size // 2} or less, half of kernel_size {w.size}"
            )
    return _torch(name, s)(*([getattr(w, key) for w in s.windows()] for key in ("size", "stride", "padding")))


def _torch(name: str, s: Setting) -> Callable[..., nn.Module]:
    """torch's class of that name for the setting's axes."""
    return getattr(nn, f"{name}{s.ndim}d")


def _options(s: Setting) -> dict[str, Any]:
    w = s.windows()
    window = {"kernel_size": [v.size for v in w], "stride": [v.stride for v in w], "padding": [v.padding for v in w]}
    return {"in_channels": s.in_channels, "out_channels": s.out_channels, "bias": False, "ndim": s.ndim, **window}


MEMBERS: Mapping[str, Callable[[Setting], nn.Module]] = {
    "dense": lambda s: _conv(s, s.out_channels),
    "spatially separable": lambda s: SpatiallySeparableConv(**_options(s)),
    "depthwise separable": lambda s: DepthwiseSeparableConv(**_options(s)),
    "depthwise": lambda s: _conv(s, s.in_channels, groups=s.in_channels),
    "pointwise": _pointwise,
    "flattened": lambda s: FlattenedConv(**_options(s)),
    "grouped": lambda s: _conv(s, s.out_channels, groups=s.groups or 1),
    "shuffled grouped": lambda s: ShuffledGroupConv(**_options(s), groups=s.groups or 1),
    "dilated": lambda s: _conv(s, s.out_channels, dilated=True),
    "transposed": _transposed,
    "max pooling": lambda s: _pool(s, "MaxPool"),
    "average pooling": lambda s: _pool(s, "AvgPool"),
}
