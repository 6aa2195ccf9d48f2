"""One small convolution: its numbers, its settings, and what PyTorch makes of them.

Shape suffixes: C input channels, O output channels, I = C / groups, HW rows and columns. A kernel is OxIxHxW, or
Cx(O / groups)xHxW for a transposed convolution, as PyTorch has them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F

from convscope.errors import InputError
from convscope.geometry import Window, formula, out_size, transposed_out_size

MAX_VALUES = 4096  # of an input, a kernel or an output: what is shown number by number must stay small
MAX_SETTING = 64  # of a stride, padding or dilation

Pair = int | tuple[int, int]

_SPAN = "dilation * (kernel - 1) + 1"


@dataclass(frozen=True, slots=True, eq=False)
class Case:
    """A convolution (cross-correlation, as deep learning has it) or a transposed one, small enough to be read.

    `stride`, `padding`, `dilation` and `output_padding` are an int or (rows, columns); they are kept as pairs.
    Shapes: x CxHxW; w OxIxHxW, or Cx(O / groups)xHxW if `transposed`. Both are kept as float64.
    Raises: InputError if a setting is out of range, the channels or groups do not fit, no window does, a number
    is not finite, or there are more than 4,096 values in the input, the kernels or the output.
    Source: Dumoulin & Visin 2016 (arXiv:1603.07285).

    >>> case = Case(np.ones((1, 5, 5)), np.ones((1, 1, 3, 3)), padding=1)
    >>> case.out_shape, case.macs, case.title
    ((1, 5, 5), 225, 'convolution 5x5, kernel 3x3, padding 1: 5x5')
    """

    x: np.ndarray
    w: np.ndarray
    stride: Pair = 1
    padding: Pair = 0
    dilation: Pair = 1
    groups: int = 1
    transposed: bool = False
    output_padding: Pair = 0

    def __post_init__(self) -> None:
        for name, least in (("stride", 1), ("padding", 0), ("dilation", 1), ("output_padding", 0)):
            object.__setattr__(self, name, _pair(getattr(self, name), name, least))
        for name, ndim in (("x", 3), ("w", 4)):
            object.__setattr__(self, name, _numbers(getattr(self, name), name, ndim))
        _check_channels(self)
        if not self.transposed and any(self.pair("output_padding")):
            raise InputError("conv: output_padding belongs to a transposed convolution; leave it out")
        for n, w, extra in self.axes:
            _check_fits(n, w, extra, transposed=self.transposed)
        _check_small("output", self.out_shape)

    def pair(self, name: Literal["stride", "padding", "dilation", "output_padding"]) -> tuple[int, int]:
        """A setting as (rows, columns)."""
        return getattr(self, name)

    @property
    def windows(self) -> tuple[Window, Window]:
        """The kernel as it slides down, and as it slides to the right."""
        rows = zip(self.w.shape[2:], *(self.pair(n) for n in ("stride", "padding", "dilation")), strict=True)
        down, right = (Window(*row) for row in rows)
        return down, right

    @property
    def axes(self) -> list[tuple[int, Window, int]]:
        """Of rows and columns: the input's size, the window, the output padding."""
        return list(zip(self.x.shape[1:], self.windows, self.pair("output_padding"), strict=True))

    @property
    def out_shape(self) -> tuple[int, int, int]:
        """Shape of the output, OxHxW."""
        if self.transposed:
            height, width = (transposed_out_size(n, w, output_padding=e) for n, w, e in self.axes)
            return self.w.shape[1] * self.groups, height, width
        height, width = (out_size(n, w) for n, w, _ in self.axes)
        return self.w.shape[0], height, width

    @property
    def macs(self) -> int:
        """Multiplications of the definition: a kernel value with an input value, padding counted."""
        if self.transposed:
            return self.x.size * self.w[0].size
        return int(np.prod(self.out_shape)) * self.w[0].size

    @property
    def settings(self) -> tuple[str, ...]:
        """The kernel's size, and the settings that are not the usual ones."""
        usual = {"stride": (1, 1), "padding": (0, 0), "dilation": (1, 1), "output_padding": (0, 0)}
        changed = [(name, getattr(self, name)) for name, value in usual.items() if getattr(self, name) != value]
        groups = (f"groups {self.groups}",) if self.groups > 1 else ()
        return (f"kernel {by(self.w.shape[2:])}", *(f"{n.replace('_', ' ')} {either(v)}" for n, v in changed), *groups)

    @property
    def title(self) -> str:
        """What this is, in a line."""
        kind = "transposed convolution" if self.transposed else "convolution"
        return f"{kind} {sized(self.x.shape)}, {', '.join(self.settings)}: {sized(self.out_shape)}"

    @property
    def formulas(self) -> tuple[str, ...]:
        """The formula of the output's size with its numbers; that of the width too where it differs."""
        found = [_transposed_formula(*a) if self.transposed else formula(*a[:2]) for a in self.axes]
        return tuple(dict.fromkeys(found))

    @property
    def padded(self) -> np.ndarray:
        """The input in its padding, CxHxW: what the kernel of a convolution slides over."""
        return np.pad(self.x, [(0, 0), *((w.padding, w.padding) for w in self.windows)])

    def torch_output(self) -> np.ndarray:
        """What PyTorch computes, in float64: OxHxW."""
        x, w = torch.from_numpy(self.x)[None], torch.from_numpy(self.w)
        stride, padding, dilation = (self.pair(n) for n in ("stride", "padding", "dilation"))
        if self.transposed:
            extra = self.pair("output_padding")
            return F.conv_transpose2d(x, w, None, stride, padding, extra, self.groups, dilation)[0].numpy()
        return F.conv2d(x, w, None, stride, padding, dilation, self.groups)[0].numpy()

    def group_of(self, output_channel: int) -> tuple[range, int]:
        """The input channels that an output channel is made from, and its number among the outputs of its group."""
        inputs, outputs = self.x.shape[0] // self.groups, self.out_shape[0] // self.groups
        group, number = divmod(output_channel, outputs)
        return range(group * inputs, (group + 1) * inputs), number

    def kernels_of(self, output_channel: int) -> np.ndarray:
        """The kernel between each input channel of its group and an output channel: IxHxW."""
        channels, number = self.group_of(output_channel)
        return self.w[list(channels), number] if self.transposed else self.w[output_channel]

    def data(self) -> dict[str, Any]:
        """Plain data for JSON."""
        names = ("stride", "padding", "dilation", "groups", "transposed", "output_padding")
        return {
            "title": self.title, "formula": list(self.formulas), "input": self.x.tolist(), "kernel": self.w.tolist(),
            **{n: getattr(self, n) for n in names}, "output_shape": self.out_shape, "macs": self.macs,
        }  # fmt: skip


def by(sizes: Sequence[int]) -> str:
    """Sizes as they are written.

    >>> by((5, 3))
    '5x3'
    """
    return "x".join(str(n) for n in sizes)


def sized(shape_CHW: Sequence[int]) -> str:
    """A shape without its channels where there is one.

    >>> sized((1, 5, 5)), sized((3, 5, 5))
    ('5x5', '3x5x5')
    """
    return by(shape_CHW[1:] if shape_CHW[0] == 1 else shape_CHW)


def either(pair: tuple[int, int]) -> str:
    """One number where both are the same.

    >>> either((2, 2)), either((2, 1))
    ('2', '2x1')
    """
    return str(pair[0]) if pair[0] == pair[1] else by(pair)


def check_shapes(x: Sequence[int], w: Sequence[int]) -> None:
    """Refuse an input or kernels that are too large to be shown, before any is made.

    Raises: InputError if one holds no value, or more than 4,096.
    """
    _check_small("input", x)
    _check_small("kernels", w)


def _pair(value: Any, name: str, least: int) -> tuple[int, int]:
    pair = tuple(value) if isinstance(value, tuple | list) else (value, value)
    if len(pair) != 2 or not all(isinstance(v, int) and least <= v <= MAX_SETTING for v in pair):
        told = f"; the output has (n - span + 2*padding) / stride + 1 places, span = {_SPAN}" if least else ""
        raise InputError(
            f"conv: {name} is {value}; use {least} to {MAX_SETTING}, or as much for rows and columns{told}"
        )
    return pair[0], pair[1]


def _numbers(values: Any, name: str, ndim: int) -> np.ndarray:
    what = "the input" if name == "x" else "the kernel"
    array = np.array(values, dtype=np.float64)
    if array.ndim != ndim or not array.size:
        letters = "CxHxW" if ndim == 3 else "OxIxHxW"
        raise InputError(f"conv: {what} has the shape {array.shape}; give {letters} with no empty axis")
    if not np.isfinite(array).all():
        raise InputError(f"conv: {what} holds a value that is not finite; give numbers")
    _check_small("input" if name == "x" else "kernels", array.shape)
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
    check_groups(channels, case.w.shape[1] * groups if case.transposed else kernels, groups)
    if case.transposed and kernels != channels:
        raise InputError(f"conv: the kernel's shape {by(case.w.shape)} does not fit {channels} input channels; "
                         f"give {channels}x(outputs / groups)x{by(case.w.shape[2:])}")  # fmt: skip
    if not case.transposed and case.w.shape[1] * groups != channels:
        raise InputError(f"conv: a kernel has {case.w.shape[1]} channels but each group of the input has "
                         f"{channels // groups} (channels / groups); give kernels of as many")  # fmt: skip


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
