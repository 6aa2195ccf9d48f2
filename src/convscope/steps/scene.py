"""A storyboard laid out on a page: boxes and words with their places, and the frames in which each is there.

A volume is drawn as its slices, one below another; one or two spatial axes are a volume of one slice.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from itertools import groupby
from math import prod
from typing import Any

import numpy as np

from convscope.errors import InputError
from convscope.steps.case import AXIS_NAMES, USUAL, Case, either, sized
from convscope.steps.page import LEVELS, Box, Scene, Words, font_size, text_width, widest
from convscope.steps.storyboard import Frame, Storyboard, frames
from convscope.steps.text import figure
from convscope.steps.way import arithmetic
from convscope.table import MINUS

MAX_CHANNELS = 4  # that are drawn, of the input and of the output
MAX_PAGE = 2400  # px, either way

_MARGIN, _TOP, _GAP, _SLICE = 36, 116, 34, 12
_SIGN = 52  # px between two blocks, for the sign that joins them


def lay_out(board: Storyboard) -> Scene:
    """The page of a storyboard: the field, the kernel, the products, and the output that fills.

    Raises: InputError if there are more than 4 channels, or the page would be larger than 2,400 px.

    >>> from convscope.steps import Case, frames
    >>> lay_out(frames(Case(np.ones((1, 4, 4)), np.ones((1, 1, 3, 3))))).count
    4
    """
    case = board.case
    for channels, what in ((len(case.x), "input"), (case.out_shape[0], "output")):
        if channels > MAX_CHANNELS:
            raise InputError(f"conv: a picture shows {MAX_CHANNELS} channels at most, but the {what} has {channels}; "
                             "use fewer, or leave --out away for the numbers")  # fmt: skip
    page = _Page(board)
    if max(page.size) > MAX_PAGE:
        raise InputError(f"conv: the picture would be {page.size[0]}x{page.size[1]} px; at most {MAX_PAGE} each way "
                         "are drawn, so use a smaller input or shorter numbers")  # fmt: skip
    return Scene(page.size, page.count, case.title, tuple(page.items()))


class _Page:
    """Where everything stands: four blocks from left to right, a row for each channel."""

    def __init__(self, board: Storyboard) -> None:
        self.told, self.board = board, _as_volume(board)
        self.case = board.case
        self.count, self.life = len(board.frames), (0, len(board.frames) - 1)
        self.limits = _limits(board)
        self.cell = _cell_size(self.board)
        self.field, self.taps, self.output = self.board.field.shape[1:], self.board.case.w.shape[2:], self._whole()
        self.row = max(self.height(self.field), self.height(self.taps)) + _GAP
        self.kernel_x = _MARGIN + self.field[2] * self.cell + _SIGN
        self.products_x = self.kernel_x + self.taps[2] * self.cell + _SIGN
        self.output_x = self.products_x + self.taps[2] * self.cell + _SIGN
        self.out_row = self.height(self.output) + _GAP
        self.body = max(len(self.case.x) * self.row, self.case.out_shape[0] * self.out_row) - _GAP
        end = self.output_x + self.output[2] * self.cell + _MARGIN
        words = max(text_width(line, 18) for line in (self._settings(), *map(_sum, board.frames)))
        words = max(words, text_width(self._heading(), 25) + text_width(f"{self.count} of {self.count}", 13))
        self.size = (int(max(end, words + 2 * _MARGIN)), int(_TOP + self.body + 92))
        self.left = (self.size[0] - end) / 2  # what is narrower than its title stands in the middle

    def _whole(self) -> tuple[int, ...]:
        """The output's slices, rows and columns, with the border that is dropped."""
        return tuple(n + 2 * b for n, b in zip(self.board.case.out_shape[1:], self.board.border, strict=True))

    def height(self, volume: Sequence[int]) -> int:
        """Px from the top of the first slice to the end of the last."""
        return volume[0] * (volume[1] * self.cell + _SLICE) - _SLICE

    def below(self, number: int, volume: Sequence[int]) -> int:
        """Px from the first slice down to this one."""
        return number * (volume[1] * self.cell + _SLICE)

    def items(self) -> Iterable[Box | Words]:
        yield from self._frame()
        yield from self._field()
        yield from self._taps()
        yield from self._output()
        yield from self._moving()

    def field_at(self, channel: int) -> tuple[float, float]:
        """Top left corner of an input channel's first slice, in the middle of its row."""
        return self._in_row(channel, _MARGIN, self.field)

    def taps_at(self, channel: int, x: float) -> tuple[float, float]:
        """Top left corner of the kernel, or the products, of an input channel."""
        return self._in_row(channel, x, self.taps)

    def _in_row(self, channel: int, x: float, volume: Sequence[int]) -> tuple[float, float]:
        spare = (self.body + _GAP - len(self.case.x) * self.row) / 2
        inner = (self.row - _GAP - self.height(volume)) / 2
        return self.left + x, _TOP + spare + channel * self.row + inner

    def output_at(self, channel: int) -> tuple[float, float]:
        """Top left corner of an output channel's first slice, its dropped border outside of it."""
        front, down, right = self.board.border
        spare = (self.body + _GAP - self.case.out_shape[0] * self.out_row) / 2
        top = _TOP + spare + channel * self.out_row + self.below(front, self.output) + down * self.cell
        return self.left + self.output_x + right * self.cell, top

    def _frame(self) -> Iterable[Box | Words]:
        """The title, the formula, the names of the blocks, and how far the animation is."""
        left, cell, case = self.left + _MARGIN, self.cell, self.case
        right = self.size[0] - self.left - _MARGIN
        yield Words((left, 46), self._heading(), 21, "strong", "start", self.life)
        yield Words((left, 72), self._settings(), 14, "faint", "start", self.life)
        padding = case.per_axis("padding")
        names = {
            "window": _times(f"input, padding {either(padding)}") if any(padding) else "input",
            "insert": "input, zeros inserted",
            "scatter": "input",
        }
        blocks = [(left, self.field[2] * cell, names[self.board.view]),
                  (self.left + self.kernel_x, self.taps[2] * cell,
                   "kernel, flipped" if self.board.view == "insert" else "kernel"),
                  (self.left + self.products_x, self.taps[2] * cell, "products"),
                  (self.output_at(0)[0], case.out_shape[-1] * cell, "output")]  # fmt: skip
        for x, width, name in blocks:
            yield Words((x + width / 2, _TOP - 12), name, 13, "faint", "middle", self.life)
        middle = _TOP + self.body / 2 + 9
        arrow = "+" if self.board.view == "scatter" else "Σ"
        for x, sign in ((self.kernel_x, "×"), (self.products_x, "="), (self.output_x, arrow)):
            yield Words((self.left + x - _SIGN / 2, middle), sign, 26, "faint", "middle", self.life)
        bottom = self.size[1] - 22
        yield Box((left, bottom), (right - left, 3), None, "track", self.life)
        for n, frame in enumerate(self.told.frames):
            yield Box((left, bottom), ((right - left) * (n + 1) / self.count, 3), None, "bar", (n, n))
            yield Words((right, 48), f"{n + 1} of {self.count}", 13, "faint", "end", (n, n))
            yield Words((self.size[0] / 2, _TOP + self.body + 44), _sum(frame), 17, "ink", "middle", (n, n))

    def _heading(self) -> str:
        case = self.case
        kind = case.kind[0].upper() + case.kind[1:]
        return f"{kind}  {_times(sized(case.x.shape))} → {_times(sized(case.out_shape))}"

    def _settings(self) -> str:
        """The settings that are not the usual ones, and the formula of the size."""
        parts = [_times(part) for part in self.case.settings]
        return " · ".join([*parts, *(f"size {_typeset(f)}" for f in self.case.formulas)])

    def _field(self) -> Iterable[Box | Words]:
        for c, volume in enumerate(self.board.field):
            x, y = self.field_at(c)
            for z, values in enumerate(volume):
                at = (x, y + self.below(z, self.field))
                yield from self._grid(self._always(values), at, limit=self.limits[0], real=self.board.real[z])

    def _taps(self) -> Iterable[Box | Words]:
        """The kernel and the products of every frame, in the rows of the channels that it reads."""
        frames = self.board.frames
        for c in range(len(self.case.x)):
            read = [f.channels.index(c) if c in f.channels else None for f in frames]
            for left, name, limit in ((self.kernel_x, "kernel", 1), (self.products_x, "products", 2)):
                values = np.stack([np.full(self.taps, np.nan) if i is None else getattr(f, name)[i]
                                   for f, i in zip(frames, read, strict=True)])  # fmt: skip
                x, y = self.taps_at(c, left)
                for z in range(self.taps[0]):
                    yield from self._grid(values[:, z], (x, y + self.below(z, self.taps)), limit=self.limits[limit])

    def _output(self) -> Iterable[Box | Words]:
        """Empty cells, the border that is dropped, and each value as long as it stands."""
        cell, border = self.cell, self.board.border
        outputs, *sizes = self.board.case.out_shape
        history = np.stack([f.output for f in self.board.frames])
        for o in range(outputs):
            x, y = self.output_at(o)
            for place in np.ndindex(*self.output):
                z, i, j = (p - b for p, b in zip(place, border, strict=True))
                inside = all(0 <= p < n for p, n in zip((z, i, j), sizes, strict=True))
                at = (x + j * cell, y + self.below(z, self.output) + i * cell)
                yield Box(at, (cell, cell), None, "line" if inside else "dashed", self.life)
            for z in range(sizes[0]):
                yield from self._grid(history[:, o, z], (x, y + self.below(z, self.output)), limit=self.limits[3])

    def _moving(self) -> Iterable[Box]:
        """The window over the field, and the value that it makes; or the value that is spread, and where."""
        scatter, frames = self.board.view == "scatter", self.board.frames
        front, deep = self.board.border[0], self.output[0]
        for c, z in np.ndindex(len(self.case.x), self.field[0]):
            x, y = self.field_at(c)
            at = (x, y + self.below(z, self.field))
            for run in _runs(frames, lambda f, c=c, z=z: c in f.channels and z in _slices(f, spread=scatter)):
                yield from self._one(run, at) if scatter else self._window(run, at)
        for o, place in np.ndindex(self.case.out_shape[0], deep):
            (x, y), z = self.output_at(o), place - front
            at = (x, y + self.below(z, self.output))
            for run in _runs(frames, lambda f, o=o, z=z: f.output_channel == o and z in _slices(f, spread=not scatter)):
                yield from self._window(run, at) if scatter else self._one(run, at)

    def _window(self, run: Sequence[Frame], at: tuple[float, float]) -> Iterable[Box]:
        """The box around the kernel; of a dilated one, a box around each element as well."""
        _, _, _, _, height, width = run[0].box
        yield self._travel(run, at, [f.box[1:3] for f in run], (height, width))
        if (height, width) != run[0].patch.shape[2:]:
            for i, j in np.ndindex(*run[0].patch.shape[2:]):
                yield self._travel(run, at, [(f.taps[1][i], f.taps[2][j]) for f in run], (1, 1), edge="tap")

    def _one(self, run: Sequence[Frame], at: tuple[float, float]) -> Iterable[Box]:
        yield self._travel(run, at, [f.place[1:] for f in run], (1, 1))

    def _travel(
        self,
        run: Sequence[Frame],
        at: tuple[float, float],
        places: Sequence[tuple[int, ...]],
        extent: tuple[int, int],
        edge: str = "strong",
    ) -> Box:
        path = tuple((at[0] + column * self.cell, at[1] + row * self.cell) for row, column in places)
        size = (extent[1] * self.cell, extent[0] * self.cell)
        return Box(path[0], size, None, edge, (run[0].number, run[-1].number), path)

    def _always(self, values: np.ndarray) -> np.ndarray:
        return np.broadcast_to(values, (self.count, *values.shape))

    def _grid(
        self, values_NHW: np.ndarray, at: tuple[float, float], *, limit: float, real: np.ndarray | None = None
    ) -> Iterable[Box | Words]:
        """The cells of a matrix: each value as a coloured box with its number, as long as it stands."""
        cell, size = self.cell, font_size(values_NHW, self.cell)
        for i, j in np.ndindex(*values_NHW.shape[1:]):
            x, y = at[0] + j * cell, at[1] + i * cell
            there = real is None or bool(real[i, j])
            for first, last in _lives(values_NHW[:, i, j]):
                value = float(values_NHW[first, i, j])
                level = round(LEVELS * value / limit)
                yield Box((x, y), (cell, cell), level if there else None, "line" if there else "dashed", (first, last))
                tone = level if there else "faint"
                yield Words((x + cell / 2, y + cell / 2 + 0.36 * size), figure(value), size, tone, "middle",
                            (first, last))  # fmt: skip


def _as_volume(board: Storyboard) -> Storyboard:
    """The same storyboard over three axes, the missing ones with one place each."""
    case, missing = board.case, 3 - board.case.ndim
    settings: dict[str, Any] = {n: (usual,) * missing + case.per_axis(n) for n, usual in USUAL.items()}
    x, w = (a.reshape(*a.shape[:k], *[1] * missing, *a.shape[k:]) for a, k in ((case.x, 1), (case.w, 2)))
    volume = Case(x, w, b=case.b, groups=case.groups, transposed=case.transposed, **settings)
    return frames(volume, view=board.view)


def _slices(frame: Frame, *, spread: bool) -> tuple[int, ...]:
    """The slices in which a frame's kernel lies, or that of the one place that it is about."""
    return (frame.place[0],) if spread else frame.taps[0]


def _limits(board: Storyboard) -> tuple[float, ...]:
    """Where the colour scale ends for the field, the kernel, the products and the output: each has its own.

    It ends beyond the largest value, so that the darkest colours, in which numbers are hard to read, stay unused.
    """
    parts = (board.field, board.case.w, np.stack([f.products for f in board.frames]),
             np.stack([f.output for f in board.frames]))  # fmt: skip
    return tuple(1.5 * float(np.nan_to_num(np.abs(p)).max()) or 1.0 for p in parts)


def _cell_size(board: Storyboard) -> int:
    """Px of a cell: less in a large grid, more where a number is long."""
    (*stacked, columns), (*filled, width) = board.field.shape, board.case.out_shape
    longest = max(prod(stacked), columns, prod(filled), width)
    wish = 46 if longest <= 9 else 38 if longest <= 18 else 32
    values = [board.field, board.case.w, *(f.products for f in board.frames), *(f.output for f in board.frames)]
    return max(wish, int(max(widest(v, 11) for v in values)) + 8)


def _lives(series: np.ndarray) -> Iterable[tuple[int, int]]:
    """First and last frame of every value that stands for a while; NaN is none."""
    ends = [*np.flatnonzero(series[1:] != series[:-1]), len(series) - 1]
    first = 0
    for last in map(int, ends):
        if not np.isnan(series[first]):
            yield first, last
        first = last + 1


def _runs(frames: Sequence[Frame], belongs: Callable[[Frame], bool]) -> Iterable[list[Frame]]:
    """The frames that belong, in runs without a gap."""
    for yes, run in groupby(frames, belongs):
        if yes:
            yield list(run)


def _sum(frame: Frame) -> str:
    """The arithmetic of one frame, as a line."""
    if frame.sum is None:
        return f"{figure(float(frame.patch.flat[0]))} × kernel, added to the output"
    place = ", ".join(f"{name} {at}" for name, at in zip(AXIS_NAMES[len(frame.place)], frame.place, strict=True))
    line = arithmetic(frame)
    if "=" not in line:
        line = f"{frame.products.size} products add up to {line}"
    elif frame.products.size > 12 and len(frame.products) > 1:
        line += ", channel by channel"
    return f"{place}:   {line}"


def _times(size: str) -> str:
    """A size with the sign of print.

    >>> _times("kernel 3x3")
    'kernel 3×3'
    """
    return re.sub(r"(?<=\d)x(?=\d)", "×", size)


def _typeset(formula: str) -> str:
    """The formula with the signs of print.

    >>> _typeset("(5 - 3 + 2*1) / 2 + 1 -> rounded down: 3")
    '(5 − 3 + 2·1) / 2 + 1 → rounded down: 3'
    """
    return formula.replace("->", "→").replace(" - ", f" {MINUS} ").replace("*", "·").replace(" · ", "·")
