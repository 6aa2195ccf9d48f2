"""One small convolution: its numbers, its settings, and what PyTorch makes of them.

Shapes: C input channels, O output channels, I = C / groups; D stands for the spatial axes (W, HxW or DxHxW), K for a
kernel's extent along them. Kernels are OxIxK..., or Cx(O / groups)xK... if transposed, as PyTorch has them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F

from convscope.errors import InputError
from convscope.geometry import Window, formula, out_size, transposed_out_size

MAX_VALUES = 4096  # of an input, a kernel or an output: what is shown number by number must stay small
MAX_SETTING = 64  # of a stride, padding or dilation

Axes = int | tuple[int, ...]  # one number for every spatial axis, or one for each
Setting = Literal["stride", "padding", "dilation", "output_padding"]

USUAL: Mapping[Setting, int] = {"stride": 1, "padding": 0, "dilation": 1, "output_padding": 0}
# of the spatial axes, by their number
AXIS_NAMES: Mapping[int, tuple[str, ...]] = {1: ("place",), 2: ("row", "column"), 3: ("slice", "row", "column")}
LETTERS: Mapping[int, str] = {1: "W", 2: "HxW", 3: "DxHxW"}

_SPAN = "dilation * (kernel - 1) + 1"


@dataclass(frozen=True, slots=True, eq=False)
class Case:
    """A convolution (cross-correlation, as deep learning has it) or a transposed one, small enough to be read.

    Over one, two or three spatial axes, as `x` has them. `stride`, `padding`, `dilation` and `output_padding` are an
    int, or one for each axis, as which they are kept.
    Shapes: x CxD...; w OxIxK..., or Cx(O / groups)xK... if `transposed`; b, the bias, O or None. Kept as float64.
    Raises: InputError if a setting is out of range, the channels or groups do not fit, no window does, a number
    is not finite, or there are more than 4,096 values in the input, the kernels or the output.
    Source: Dumoulin & Visin 2016 (arXiv:1603.07285).

    >>> case = Case(np.ones((1, 5, 5)), np.ones((1, 1, 3, 3)), padding=1)
    >>> case.out_shape, case.macs, case.title
    ((1, 5, 5), 225, 'convolution 5x5, kernel 3x3, padding 1: 5x5')
    >>> Case(np.ones((2, 7)), np.ones((1, 2, 3)), b=np.ones(1)).title
    '1D convolution 2x7, kernel 3, bias: 5'
    """

    x: np.ndarray
    w: np.ndarray
    b: np.ndarray | None = None
    stride: Axes = 1
    padding: Axes = 0
    dilation: Axes = 1
    groups: int = 1
    transposed: bool = False
    output_padding: Axes = 0

    def __post_init__(self) -> None:
        ndim = min(max(np.ndim(self.x) - 1, 1), 3)
        for name, letters in (("x", f"Cx{LETTERS[ndim]}"), ("w", f"OxIx{LETTERS[ndim]}"), ("b", "O")):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, _numbers(getattr(self, name), name, letters))
        for name, least in (("stride", 1), ("padding", 0), ("dilation", 1), ("output_padding", 0)):
            object.__setattr__(self, name, _per_axis(getattr(self, name), name, least, ndim))
        _check_channels(self)
        if not self.transposed and any(self.per_axis("output_padding")):
            raise InputError("conv: output_padding belongs to a transposed convolution; leave it out")
        for n, w, extra in self.axes:
            _check_fits(n, w, extra, transposed=self.transposed)
        _check_small("output", self.out_shape)

    @property
    def ndim(self) -> int:
        """Spatial axes: 1, 2 or 3."""
        return self.x.ndim - 1

    @property
    def axis_names(self) -> tuple[str, ...]:
        """What a place along each spatial axis is called."""
        return AXIS_NAMES[self.ndim]

    def stacked(self, *names: str) -> tuple[str, ...]:
        """Names of the axes before the rows and columns of an array: these, and the slices of a volume."""
        return (*names, "slice") if self.ndim == 3 else names

    def per_axis(self, name: Setting) -> tuple[int, ...]:
        """A setting, a number for each spatial axis."""
        return getattr(self, name)

    @property
    def windows(self) -> tuple[Window, ...]:
        """The kernel as it slides along each spatial axis."""
        rows = zip(self.w.shape[2:], *(self.per_axis(n) for n in ("stride", "padding", "dilation")), strict=True)
        return tuple(Window(*row) for row in rows)

    @property
    def axes(self) -> list[tuple[int, Window, int]]:
        """Of each spatial axis: the input's size, the window, the output padding."""
        return list(zip(self.x.shape[1:], self.windows, self.per_axis("output_padding"), strict=True))

    @property
    def out_shape(self) -> tuple[int, ...]:
        """Shape of the output, OxD... ."""
        if self.transposed:
            sizes = (transposed_out_size(n, w, output_padding=e) for n, w, e in self.axes)
            return self.w.shape[1] * self.groups, *sizes
        return self.w.shape[0], *(out_size(n, w) for n, w, _ in self.axes)

    @property
    def macs(self) -> int:
        """Multiplications of the definition: a kernel value with an input value, padding counted."""
        if self.transposed:
            return self.x.size * self.w[0].size
        return int(np.prod(self.out_shape)) * self.w[0].size

    @property
    def settings(self) -> tuple[str, ...]:
        """The kernel's size, and the settings that are not the usual ones."""
        changed = [(name, self.per_axis(name)) for name, value in USUAL.items() if set(self.per_axis(name)) != {value}]
        groups = (f"groups {self.groups}",) if self.groups > 1 else ()
        bias = () if self.b is None else ("bias",)
        named = (f"{name.replace('_', ' ')} {either(values)}" for name, values in changed)
        return (f"kernel {by(self.w.shape[2:])}", *named, *groups, *bias)

    @property
    def kind(self) -> str:
        """Which convolution this is; one over rows and columns is not told from others by its axes."""
        kind = "transposed convolution" if self.transposed else "convolution"
        return kind if self.ndim == 2 else f"{self.ndim}D {kind}"

    @property
    def title(self) -> str:
        """What this is, in a line."""
        return f"{self.kind} {sized(self.x.shape)}, {', '.join(self.settings)}: {sized(self.out_shape)}"

    @property
    def formulas(self) -> tuple[str, ...]:
        """The formula of the output's size with its numbers; one for each axis where they differ."""
        found = [_transposed_formula(*a) if self.transposed else formula(*a[:2]) for a in self.axes]
        return tuple(dict.fromkeys(found))

    @property
    def padded(self) -> np.ndarray:
        """The input in its padding, CxD...: what the kernel of a convolution slides over."""
        return np.pad(self.x, [(0, 0), *((w.padding, w.padding) for w in self.windows)])

    def torch_output(self) -> np.ndarray:
        """What PyTorch computes, in float64: OxD... ."""
        x, w = torch.from_numpy(self.x)[None], torch.from_numpy(self.w)
        b = None if self.b is None else torch.from_numpy(self.b)
        at: dict[str, Any] = {n: self.per_axis(n) for n in ("stride", "padding", "dilation")}
        if self.transposed:
            at["output_padding"] = self.per_axis("output_padding")
        return getattr(F, self.function)(x, w, b, groups=self.groups, **at)[0].numpy()

    @property
    def function(self) -> str:
        """The name of PyTorch's function for this, in torch.nn.functional."""
        return f"conv_transpose{self.ndim}d" if self.transposed else f"conv{self.ndim}d"

    def bias_of(self, output_channel: int) -> float | None:
        """What is added to every value of an output channel."""
        return None if self.b is None else float(self.b[output_channel])

    def biased(self, output: np.ndarray) -> np.ndarray:
        """An output to which the bias has been added, if there is one: OxD... ."""
        return output if self.b is None else output + self.b.reshape(-1, *[1] * self.ndim)

    def group_of(self, output_channel: int) -> tuple[range, int]:
        """The input channels that an output channel is made from, and its number among the outputs of its group."""
        inputs, outputs = self.x.shape[0] // self.groups, self.out_shape[0] // self.groups
        group, number = divmod(output_channel, outputs)
        return range(group * inputs, (group + 1) * inputs), number

    def kernels_of(self, output_channel: int) -> np.ndarray:
        """The kernel between each input channel of its group and an output channel: IxK... ."""
        channels, number = self.group_of(output_channel)
        return self.w[list(channels), number] if self.transposed else self.w[output_channel]

    def data(self) -> dict[str, Any]:
        """Plain data for JSON."""
        names = ("stride", "padding", "dilation", "groups", "transposed", "output_padding")
        return {
            "title": self.title, "formula": list(self.formulas), "input": self.x.tolist(), "kernel": self.w.tolist(),
            "bias": None if self.b is None else self.b.tolist(), **{n: getattr(self, n) for n in names},
            "output_shape": self.out_shape, "macs": self.macs,
        }  # fmt: skip


def by(sizes: Sequence[int]) -> str:
    """Sizes as they are written.

    >>> by((5, 3))
    '5x3'
    """
    return "x".join(str(n) for n in sizes)


def sized(shape: Sequence[int]) -> str:
    """A shape without its channels where there is one.

    >>> sized((1, 5, 5)), sized((3, 5, 5))
    ('5x5', '3x5x5')
    """
    return by(shape[1:] if shape[0] == 1 else shape)


def either(values: tuple[int, ...]) -> str:
    """One number where all are the same.

    >>> either((2, 2)), either((2, 1))
    ('2', '2x1')
    """
    return str(values[0]) if len(set(values)) == 1 else by(values)


def check_shapes(x: Sequence[int], w: Sequence[int]) -> None:
    """Refuse an input or kernels that are too large to be shown, before any is made.

    Raises: InputError if one holds no value, or more than 4,096.
    """
    _check_small("input", x)
    _check_small("kernels", w)


def _per_axis(value: Any, name: str, least: int, ndim: int) -> tuple[int, ...]:
    values = tuple(value) if isinstance(value, tuple | list) else (value,) * ndim
    if len(values) != ndim or not all(isinstance(v, int) and least <= v <= MAX_SETTING for v in values):
        told = f"; the output has (n - span + 2*padding) / stride + 1 places, span = {_SPAN}" if least else ""
        each = f", or {ndim} of them with 'x' between" if ndim > 1 else ""
        raise InputError(f"conv: {name} is {value}; use {least} to {MAX_SETTING}{each}{told}")
    return values


def _numbers(values: Any, name: str, letters: str) -> np.ndarray:
    what = {"x": "the input", "w": "the kernel", "b": "the bias"}[name]
    array = np.array(values, dtype=np.float64)
    if array.ndim != letters.count("x") + 1 or not array.size:
        raise InputError(f"conv: {what} has the shape {array.shape}; give {letters} with no empty axis")
    if not np.isfinite(array).all():
        raise InputError(f"conv: {what} holds a value that is not finite; give numbers")
    _check_small({"x": "input", "w": "kernels", "b": "bias"}[name], array.shape)
    return array


def check_groups(channels: int, outputs: int, groups: int) -> None:
    """Refuse groups that do not divide the channels.

    Raises: InputError that lists the groups which would.

    >>> check_groups(4, 6, 4)
    Traceback (most recent call last):
    convscope.errors.InputError: conv: 4 input and 6 output channels do not divide into 4 groups; use groups 1 or 2
    """
    if outputs < 1:
        raise InputError(f"conv: {outputs} output channels are asked for; use 1 or more")
    if groups < 1 or channels % groups or outputs % groups:
        both = [str(g) for g in range(1, channels + 1) if channels % g == 0 and outputs % g == 0]
        listed = " or ".join([", ".join(both[:-1]), both[-1]] if len(both) > 1 else both)
        raise InputError(
            f"conv: {channels} input and {outputs} output channels do not divide into {groups} groups; "
            f"use groups {listed}"
        )


def _check_channels(case: Case) -> None:
    channels, kernels, groups = case.x.shape[0], case.w.shape[0], case.groups
    outputs = case.w.shape[1] * groups if case.transposed else kernels
    check_groups(channels, outputs, groups)
    if case.transposed and kernels != channels:
        raise InputError(f"conv: the kernel's shape {by(case.w.shape)} does not fit {channels} input channels; "
                         f"give {channels}x(outputs / groups)x{by(case.w.shape[2:])}")  # fmt: skip
    if not case.transposed and case.w.shape[1] * groups != channels:
        raise InputError(f"conv: a kernel has {case.w.shape[1]} channels but each group of the input has "
                         f"{channels // groups} (channels / groups); give kernels of as many")  # fmt: skip
    if case.b is not None and len(case.b) != outputs:
        raise InputError(f"conv: the bias has {len(case.b)} numbers but there are {outputs} output channels; "
                         "give one number for each")  # fmt: skip


def _check_fits(n: int, w: Window, extra: int, *, transposed: bool) -> None:
    if not transposed:
        room = n + 2 * w.padding
        if room >= w.span:
            return
        need, fits = -(-(w.span - n) // 2), (room - 1) // w.dilation + 1
        spans = f" with dilation {w.dilation} spans {w.span}, which" if w.dilation > 1 else ""
        raise InputError(
            f"conv: the kernel of {w.size}{spans} is larger than the padded input {room}: "
            f"({n} - {w.span} + 2*{w.padding}) / {w.stride} + 1 is less than 1; "
            f"use padding {need} or more, or a kernel of {fits} or less"
        )
    most = max(w.stride, w.dilation) - 1
    if extra > most:
        raise InputError(
            f"conv-transpose: output_padding is {extra}; use 0 to {most}, less than stride {w.stride} or dilation "
            f"{w.dilation}: it chooses among the {most + 1} sizes that a convolution would bring to {n}"
        )
    size = (n - 1) * w.stride - 2 * w.padding + w.span + extra
    if size < 1:
        raise InputError(
            f"conv-transpose: padding {w.padding} leaves nothing: ({n} - 1) * {w.stride} - 2*{w.padding} + {w.span} "
            f"+ {extra} = {size}; use padding {(size + 2 * w.padding - 1) // 2} or less"
        )


def _check_small(what: str, shape: Sequence[int]) -> None:
    values = int(np.prod([int(n) for n in shape], dtype=object))
    if not 0 < values <= MAX_VALUES:
        raise InputError(f"conv: {what} of {by(shape)} would be {values:,} values; use 1 to {MAX_VALUES:,}, since "
                         "every number is shown")  # fmt: skip


def _transposed_formula(n: int, w: Window, extra: int) -> str:
    size = transposed_out_size(n, w, output_padding=extra)
    return f"({n} - 1) * {w.stride} - 2*{w.padding} + {w.span} + {extra} = {size}"
