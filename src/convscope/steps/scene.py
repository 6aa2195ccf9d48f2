"""A storyboard laid out on a page: boxes and words with their places, and the frames in which each is there.

Places and sizes are px of the page, from its top left corner.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import groupby
from pathlib import Path

import numpy as np
from matplotlib import get_data_path
from PIL import ImageFont

from convscope.errors import InputError
from convscope.steps.case import either, sized
from convscope.steps.storyboard import Frame, Storyboard
from convscope.steps.text import added, figure
from convscope.table import MINUS

MAX_CHANNELS = 4  # that are drawn, of the input and of the output
MAX_PAGE = 2400  # px, either way

_MARGIN, _TOP, _GAP = 36, 116, 34
_SIGN = 52  # px between two blocks, for the sign that joins them
LEVELS = 16  # steps of colour from 0 to the largest value


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle. `level` is its colour: -16 to 16 on the diverging scale, None if it is not filled.

    `edge` says how it is drawn: with a thin "line", "dashed", with a "strong" line, that of a "tap", or as a part of
    the bar that shows how far the animation is, "bar" or "track". It is there in the frames `life`, first to last.
    A box that moves has `path`: its top left corner in every frame.
    """

    at: tuple[float, float]
    size: tuple[float, float]
    level: int | None = None
    edge: str = "line"
    life: tuple[int, int] = (0, 0)
    path: tuple[tuple[float, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Words:
    """A line of text: its baseline's place, size in px, and which end or middle (`anchor`) stands there.

    `tone` is "ink", "faint" or "strong", or the level of the box below, whose colour decides black or white.
    """

    at: tuple[float, float]
    text: str
    size: float
    tone: str | int = "ink"
    anchor: str = "middle"
    life: tuple[int, int] = (0, 0)


@dataclass(frozen=True, slots=True, eq=False)
class Scene:
    """A page of `size` px, what is on it in the order of painting, and how many frames it has."""

    size: tuple[int, int]
    count: int
    title: str
    items: tuple[Box | Words, ...]

    def seconds(self) -> tuple[float, float]:
        """How long a frame stands, and the last one.

        >>> Scene((1, 1), 9, "", ()).seconds()
        (1.2, 3.2)
        """
        each = min(1.2, max(0.25, round(36 / self.count, 2)))
        return each, each + 2


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


def text_width(text: str, size: float) -> float:
    """Width of a text in px, in the typeface that pictures are drawn with.

    >>> text_width("00", 10) == 2 * text_width("0", 10)
    True
    """
    return font(100).getlength(text) * size / 100


@cache
def font(size: int, *, bold: bool = False) -> ImageFont.FreeTypeFont:
    """DejaVu Sans: it has the true minus sign, and matplotlib brings it."""
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(Path(get_data_path()) / "fonts/ttf" / name, size)


class _Page:
    """Where everything stands: four blocks from left to right, a row for each channel."""

    def __init__(self, board: Storyboard) -> None:
        self.board, self.case = board, board.case
        self.count, self.life = len(board.frames), (0, len(board.frames) - 1)
        self.limits = _limits(board)
        self.cell = _cell_size(board)
        rows, columns = board.field.shape[1:]
        taps, wide = self.case.w.shape[2:]
        (down, right), (outputs, height, width) = board.border, self.case.out_shape
        cell = self.cell
        self.row = max(rows, taps) * cell + _GAP
        self.kernel_x = _MARGIN + columns * cell + _SIGN
        self.products_x = self.kernel_x + wide * cell + _SIGN
        self.output_x = self.products_x + wide * cell + _SIGN
        self.out_row = (height + 2 * down) * cell + _GAP
        self.body = max(len(self.case.x) * self.row, outputs * self.out_row) - _GAP
        end = self.output_x + (width + 2 * right) * cell + _MARGIN
        words = max(text_width(line, 18) for line in (self._settings(), *map(_sum, board.frames)))
        self.size = (int(max(end, words + 2 * _MARGIN)), int(_TOP + self.body + 92))
        self.left = (self.size[0] - end) / 2  # what is narrower than its title stands in the middle

    def items(self) -> Iterable[Box | Words]:
        yield from self._frame()
        yield from self._field()
        yield from self._taps()
        yield from self._output()
        yield from self._moving()

    def field_at(self, channel: int) -> tuple[float, float]:
        """Top left corner of an input channel's grid, in the middle of its row."""
        spare = (self.body + _GAP - len(self.case.x) * self.row) / 2
        inner = (self.row - _GAP - self.board.field.shape[1] * self.cell) / 2
        return self.left + _MARGIN, _TOP + spare + channel * self.row + inner

    def taps_at(self, channel: int, x: float) -> tuple[float, float]:
        """Top left corner of the kernel, or the products, of an input channel."""
        spare = (self.body + _GAP - len(self.case.x) * self.row) / 2
        inner = (self.row - _GAP - self.case.w.shape[2] * self.cell) / 2
        return self.left + x, _TOP + spare + channel * self.row + inner

    def output_at(self, channel: int) -> tuple[float, float]:
        """Top left corner of an output channel's grid, its dropped border outside of it."""
        (down, right), outputs = self.board.border, self.case.out_shape[0]
        spare = (self.body + _GAP - outputs * self.out_row) / 2
        return self.left + self.output_x + right * self.cell, _TOP + spare + channel * self.out_row + down * self.cell

    def _frame(self) -> Iterable[Box | Words]:
        """The title, the formula, the names of the blocks, and how far the animation is."""
        left, cell, case = self.left + _MARGIN, self.cell, self.case
        right = self.size[0] - self.left - _MARGIN
        kind = "Transposed convolution" if case.transposed else "Convolution"
        heading = f"{kind}  {_times(sized(case.x.shape))} → {_times(sized(case.out_shape))}"
        yield Words((left, 46), heading, 21, "strong", "start", self.life)
        yield Words((left, 72), self._settings(), 14, "faint", "start", self.life)
        names = {
            "window": ("input" if case.pair("padding") == (0, 0) else f"input, padding {either(case.pair('padding'))}"),
            "insert": "input, zeros inserted",
            "scatter": "input",
        }
        blocks = [(left, self.board.field.shape[2] * cell, names[self.board.view]),
                  (self.left + self.kernel_x, case.w.shape[3] * cell,
                   "kernel, flipped" if self.board.view == "insert" else "kernel"),
                  (self.left + self.products_x, case.w.shape[3] * cell, "products"),
                  (self.output_at(0)[0], case.out_shape[2] * cell, "output")]  # fmt: skip
        for x, width, name in blocks:
            yield Words((x + width / 2, _TOP - 12), name, 13, "faint", "middle", self.life)
        middle = _TOP + self.body / 2 + 9
        arrow = "+" if self.board.view == "scatter" else "Σ"
        for x, sign in ((self.kernel_x, "×"), (self.products_x, "="), (self.output_x, arrow)):
            yield Words((self.left + x - _SIGN / 2, middle), sign, 26, "faint", "middle", self.life)
        bottom = self.size[1] - 22
        yield Box((left, bottom), (right - left, 3), None, "track", self.life)
        for n, frame in enumerate(self.board.frames):
            yield Box((left, bottom), ((right - left) * (n + 1) / self.count, 3), None, "bar", (n, n))
            yield Words((right, 48), f"{n + 1} of {self.count}", 13, "faint", "end", (n, n))
            yield Words((self.size[0] / 2, _TOP + self.body + 44), _sum(frame), 17, "ink", "middle", (n, n))

    def _settings(self) -> str:
        """The settings that are not the usual ones, and the formula of the size."""
        parts = [_times(part) for part in self.case.settings]
        return " · ".join([*parts, *(f"size {_typeset(f)}" for f in self.case.formulas)])

    def _field(self) -> Iterable[Box | Words]:
        for c, values in enumerate(self.board.field):
            yield from self._grid(self._always(values), self.field_at(c), limit=self.limits[0], real=self.board.real)

    def _taps(self) -> Iterable[Box | Words]:
        """The kernel and the products of every frame, in the rows of the channels that it reads."""
        frames, shape = self.board.frames, self.case.w.shape[2:]
        for c in range(len(self.case.x)):
            read = [f.channels.index(c) if c in f.channels else None for f in frames]
            for x, name, limit in ((self.kernel_x, "kernel", 1), (self.products_x, "products", 2)):
                values = [np.full(shape, np.nan) if i is None else getattr(f, name)[i]
                          for f, i in zip(frames, read, strict=True)]  # fmt: skip
                yield from self._grid(np.stack(values), self.taps_at(c, x), limit=self.limits[limit])

    def _output(self) -> Iterable[Box | Words]:
        """Empty cells, the border that is dropped, and each value as long as it stands."""
        cell, (down, right) = self.cell, self.board.border
        outputs, height, width = self.case.out_shape
        history = np.stack([f.output for f in self.board.frames])
        for o in range(outputs):
            x, y = self.output_at(o)
            for i, j in np.ndindex(height + 2 * down, width + 2 * right):
                inside = down <= i < height + down and right <= j < width + right
                at = (x + (j - right) * cell, y + (i - down) * cell)
                yield Box(at, (cell, cell), None, "line" if inside else "dashed", self.life)
            yield from self._grid(history[:, o], (x, y), limit=self.limits[3])

    def _moving(self) -> Iterable[Box]:
        """The window over the field, and the value that it makes; or the value that is spread, and where."""
        scatter, frames = self.board.view == "scatter", self.board.frames
        for c in range(len(self.case.x)):
            for run in _runs(frames, lambda f, c=c: c in f.channels):
                yield from self._one(run, self.field_at(c)) if scatter else self._window(run, self.field_at(c))
        for o in range(self.case.out_shape[0]):
            for run in _runs(frames, lambda f, o=o: f.output_channel == o):
                yield from self._window(run, self.output_at(o)) if scatter else self._one(run, self.output_at(o))

    def _window(self, run: Sequence[Frame], at: tuple[float, float]) -> Iterable[Box]:
        """The box around the kernel; of a dilated one, a box around each element as well."""
        _, _, height, width = run[0].box
        yield self._travel(run, at, [f.box[:2] for f in run], (height, width))
        if (height, width) != run[0].patch.shape[1:]:
            for i, j in np.ndindex(*run[0].patch.shape[1:]):
                yield self._travel(run, at, [(f.rows[i], f.columns[j]) for f in run], (1, 1), edge="tap")

    def _one(self, run: Sequence[Frame], at: tuple[float, float]) -> Iterable[Box]:
        yield self._travel(run, at, [f.place for f in run], (1, 1))

    def _travel(
        self,
        run: Sequence[Frame],
        at: tuple[float, float],
        places: Sequence[tuple[int, int]],
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
        cell, size = self.cell, _font_size(values_NHW, self.cell)
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


def _limits(board: Storyboard) -> tuple[float, ...]:
    """Where the colour scale ends for the field, the kernel, the products and the output: each has its own.

    It ends beyond the largest value, so that the darkest colours, in which numbers are hard to read, stay unused.
    """
    parts = (board.field, board.case.w, np.stack([f.products for f in board.frames]),
             np.stack([f.output for f in board.frames]))  # fmt: skip
    return tuple(1.5 * float(np.nan_to_num(np.abs(p)).max()) or 1.0 for p in parts)


def _cell_size(board: Storyboard) -> int:
    """Px of a cell: less in a large grid, more where a number is long."""
    (channels, rows, columns), (outputs, height, width) = board.field.shape, board.case.out_shape
    longest = max(channels * rows, columns, outputs * height, width)
    wish = 46 if longest <= 9 else 38 if longest <= 18 else 32
    values = [board.field, board.case.w, *(f.products for f in board.frames), *(f.output for f in board.frames)]
    return max(wish, int(max(_widest(v, 11) for v in values)) + 8)


def _font_size(values: np.ndarray, cell: int) -> float:
    """Px at which the longest number fits into its cell."""
    return round(min(0.36 * cell, 11 * (cell - 7) / (_widest(values, 11) or 1)), 1)


def _widest(values: np.ndarray, size: float) -> float:
    found = np.unique(values[np.isfinite(values)])
    return max((text_width(figure(float(v)), size) for v in found), default=0.0)


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
    row, column = frame.place
    if frame.sum is None:
        return f"{figure(float(frame.patch.flat[0]))} × kernel, added to the output"
    total, sums = figure(frame.sum), frame.products.reshape(len(frame.products), -1).sum(axis=1)
    if frame.products.size <= 12:
        line = f"{added(frame.products.reshape(-1).tolist())} = {total}"
    elif len(sums) > 1:
        line = f"{added(sums.tolist())} = {total}, channel by channel"
    else:
        line = f"{frame.products.size} products add up to {total}"
    return f"row {row}, column {column}:   {line}"


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
