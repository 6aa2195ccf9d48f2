"""One way to compute a convolution, as data: the matrices that arise, and the output beside PyTorch's."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from convscope.steps.case import AXIS_NAMES, Case
from convscope.steps.storyboard import Frame, Storyboard
from convscope.steps.text import added, beside, block, figure
from convscope.table import Column, Table, number

TITLES: Mapping[str, str] = {
    "window": "the kernel slides over the input",
    "scatter": "each input value stamps the kernel on the output",
    "insert": "zeros are inserted, then an ordinary convolution",
    "im2col": "windows as columns, one product of matrices",
    "matrix": "one sparse matrix for the whole map",
    "winograd": "tiles and kernel transformed, then multiplied value by value",
    "fft": "a product of spectra",
}
SHOWN = 6  # matrices of one stage in the text
LINES = 48  # windows whose sums are written out in the text
WIDTH = 118  # characters of a line, when matrices are put side by side


@dataclass(frozen=True, slots=True, eq=False)
class Stage:
    """One step of a way: a matrix, or several of one kind along the leading axes.

    `axes` names the leading axes. `real` is False where a zero of `values` is no number of the case but was put
    there: padding, or the empty part of a sparse matrix. `says` is a sentence.
    """

    name: str
    says: str
    values: np.ndarray
    axes: tuple[str, ...] = ()
    real: np.ndarray | None = None

    def text(self) -> str:
        """What it is, and the first matrices side by side."""
        matrices = self.values.reshape(-1, *self.values.shape[len(self.axes) :])
        real = None if self.real is None else np.broadcast_to(self.real, self.values.shape).reshape(matrices.shape)
        places = list(np.ndindex(*self.values.shape[: len(self.axes)]))
        parts = [
            block(_place(self.axes, at, self.values.shape), matrices[n], None if real is None else real[n])
            for n, at in enumerate(places[:SHOWN])
        ]
        left = len(places) - len(parts)
        return "\n".join([f"{self.name}: {self.says}", *_in_rows(parts), *([f"... and {left} more"] if left else [])])

    def data(self) -> dict[str, Any]:
        """Plain data for JSON; of complex numbers the real and imaginary parts."""
        values = self.values
        split = {"real": np.real(values).tolist(), "imaginary": np.imag(values).tolist()}
        shown = split if np.iscomplexobj(values) else values.tolist()
        return {"name": self.name, "says": self.says, "axes": self.axes, "values": shown}


@dataclass(frozen=True, slots=True, eq=False)
class Way:
    """A convolution computed in one way: its stages in their order, and the output beside PyTorch's.

    `multiplications` are those of this way; `counted` says what they count.
    """

    name: str
    case: Case
    stages: tuple[Stage, ...]
    output: np.ndarray
    multiplications: int
    counted: str
    storyboard: Storyboard | None = None

    @property
    def difference(self) -> float:
        """The largest distance between an output value and PyTorch's."""
        return float(np.abs(self.output - self.case.torch_output()).max())

    @property
    def agreement(self) -> str:
        """How near this is to PyTorch, as a sentence part."""
        function = f"F.{self.case.function}"
        if self.difference == 0:
            return f"equal to {function}"
        return f"within {number(self.difference)} of {function}"

    def table(self) -> Table:
        """A row for each stage."""
        rows = tuple({"name": s.name, "shape": s.values.shape, "says": s.says} for s in self.stages)
        columns = (Column("name", "matrix"), Column("shape", "shape"), Column("says", "what"))
        return Table(columns, rows, title=f"{self.name}: {self.case.title}", notes=(self.agreement, self._closing()))

    def text(self) -> str:
        """The case, every stage with its numbers, the output, and whether PyTorch agrees."""
        return "\n".join([*heading(self.case), "", self.body()])

    def body(self) -> str:
        """The text without the case."""
        head = f"{self.name}: {TITLES[self.name]}"
        parts = [f"{head}\n{'=' * len(head)}", *(s.text() for s in self.stages)]
        if self.storyboard is not None:
            parts.append(_steps_text(self.storyboard))
        if self.case.b is not None:
            parts.append(Stage("bias", "added to every value of its output channel", self.case.b).text())
        outputs = Stage("output", self.agreement, self.output, self.case.stacked("channel"))
        return "\n\n".join([*parts, outputs.text(), self._closing()])

    def _closing(self) -> str:
        return f"{self.multiplications:,} multiplications: {self.counted}"

    def data(self) -> dict[str, Any]:
        """Plain data for JSON: every stage, the output, and the distance from PyTorch's."""
        return {
            "way": self.name, "case": self.case.data(), "stages": [s.data() for s in self.stages],
            "output": self.output.tolist(), "multiplications": self.multiplications, "counted": self.counted,
            "difference": self.difference,
            "storyboard": None if self.storyboard is None else self.storyboard.data(),
        }  # fmt: skip

    def __str__(self) -> str:
        return self.text()


def _steps_text(board: Storyboard) -> str:
    """The first frame in full, then a line for each."""
    # the one with the most products that are not zero tells most: it lies away from the padding
    whole = max(board.frames, key=lambda f: np.count_nonzero(f.products))
    parts, axes = [], board.case.stacked("channel")
    for at in np.ndindex(whole.patch.shape[: len(axes)]):
        number = (whole.channels[at[0]], *at[1:])
        name = _place(axes, number, (len(board.case.x), *whole.patch.shape[1:])) or "under the kernel"
        parts += [*beside(block(name, whole.patch[at]), block("x kernel", whole.kernel[at]),
                          block("= products", whole.products[at])), ""]  # fmt: skip
    lines = [_line(f) for f in board.frames[:LINES]]
    left = len(board.frames) - len(lines)
    lines += [f"... and {left} more (--json has all)"] if left > 0 else []
    what = "stamp" if board.view == "scatter" else "window"
    return "\n".join([f"one {what}, {_at(whole)}:", "", *parts, f"every {what}:", "", *lines])


def _at(frame: Frame) -> str:
    name, channel = ("x", frame.channels[0]) if frame.sum is None else ("y", frame.output_channel)
    return f"{name}[{', '.join(map(str, (channel, *frame.place)))}]"


def _line(frame: Frame) -> str:
    if frame.sum is None:
        value, output = figure(float(frame.patch.flat[0])), frame.output_channel
        names = AXIS_NAMES[len(frame.taps)]
        where = [f"{n}s {figure(t[0])} to {figure(t[-1])}" for n, t in zip(names, frame.taps, strict=True)]
        return f"{_at(frame)} = {value} x kernel, added to y[{output}] at {', '.join(where)}"
    return f"{_at(frame)} = {arithmetic(frame)}"


def arithmetic(frame: Frame) -> str:
    """The sum of one frame in numbers: its products, or of many the sum of each channel; the bias; the total.

    >>> from convscope.steps import Case, frames
    >>> arithmetic(frames(Case(np.array([[1, -2]]), np.array([[[3, 4]]]), b=np.array([0.5]))).frames[0])
    '3 − 8 + bias 0.5 = −4.5'
    """
    many = frame.products.size > 12
    parts = frame.products.reshape(len(frame.products), -1).sum(axis=1) if many else frame.products.reshape(-1)
    bias = "" if frame.bias is None else f" + bias {figure(frame.bias)}"
    alone = many and len(parts) == 1 and not bias
    return figure(frame.sum or 0.0) if alone else f"{added(parts.tolist())}{bias} = {figure(frame.sum or 0.0)}"


def _in_rows(parts: Sequence[list[str]]) -> list[str]:
    """Blocks side by side, as many as fit in a line."""
    rows: list[list[list[str]]] = []
    room = 0
    for part in parts:
        wide = len(part[0]) + 3
        if not rows or wide > room:
            rows.append([])
            room = WIDTH
        rows[-1].append(part)
        room -= wide
    lines = [[*beside(*row), ""] for row in rows]
    return [line for row in lines for line in row][:-1]


def heading(case: Case) -> list[str]:
    """The case in two lines: what it is, and why the output has its size."""
    return [case.title, "size: " + " and ".join(case.formulas)]


def _place(axes: Sequence[str], at: Sequence[int], shape: Sequence[int]) -> str:
    """Which of several matrices this is; empty if there is one."""
    return ", ".join(f"{axis} {i}" for axis, i, n in zip(axes, at, shape, strict=False) if n > 1)
