"""The same convolution several ways: each with the matrices that arise on the way, each set beside PyTorch.

Shapes: C input channels, O output channels, I = C / groups; the spatial axes (one, two or three) come last.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from convscope.errors import InputError, nearest
from convscope.layers.matrix import convolution_matrix, im2col
from convscope.steps.case import Case
from convscope.steps.storyboard import Storyboard, frames
from convscope.steps.way import TITLES, Stage, Way, heading
from convscope.steps.winograd import by_winograd
from convscope.table import Column, Table

MAX_MATRIX = 2**20  # elements of a matrix that is written out


def compute(case: Case, way: str) -> Way:
    """A convolution in the way of that name in `WAYS`.

    Raises: InputError with the nearest name if there is none, or if the way does not serve the case, and why.

    >>> case = Case(np.arange(25.0).reshape(1, 5, 5), np.ones((1, 1, 3, 3)), padding=1)
    >>> [(name, compute(case, name).agreement) for name in ways_of(case)][1]
    ('im2col', 'equal to F.conv2d')
    """
    if way not in WAYS:
        raise InputError(f"conv: there is no way {way!r}; {nearest(way, ways_of(case))}")
    if way not in ways_of(case):
        kind = "a transposed convolution" if case.transposed else "a convolution"
        raise InputError(f"conv: {way!r} is no way of {kind}; use {', '.join(ways_of(case))}")
    return WAYS[way](case)


def ways_of(case: Case) -> tuple[str, ...]:
    """The names of the ways that a convolution, or a transposed one, can be computed in."""
    return ("scatter", "insert", "matrix") if case.transposed else ("window", "im2col", "matrix", "winograd", "fft")


def by_window(case: Case) -> Way:
    """The definition: every window of the padded input, times the kernel, added.

    Raises: InputError if there are more than 400 windows.
    Source: Dumoulin & Visin 2016 (arXiv:1603.07285).
    """
    board = frames(case)
    return Way("window", case, (_field(board), _kernel(case)), board.output, case.macs,
               "outputs x kernel values, padding counted", board)  # fmt: skip


def by_scatter(case: Case) -> Way:
    """A transposed convolution's definition: every input value stamps the kernel, times itself, on the output.

    Raises: InputError if there are more than 400 stamps.
    Source: Dumoulin & Visin 2016 (arXiv:1603.07285), section 4.
    """
    board = frames(case, view="scatter")
    return Way("scatter", case, (_field(board), _kernel(case)), board.output, case.macs,
               "input values x kernel values", board)  # fmt: skip


def by_insertion(case: Case) -> Way:
    """A transposed convolution as an ordinary one: zeros inserted, the border padded, the kernel flipped.

    Raises: InputError if there are more than 400 windows.
    Source: Dumoulin & Visin 2016 (arXiv:1603.07285), section 4.
    """
    board = frames(case, view="insert")
    turned = np.flip(case.w, axis=tuple(range(2, case.w.ndim)))
    flipped = Stage("flipped kernel", "the kernel, its first place last along each axis", turned,
                    case.stacked("input", "output"))  # fmt: skip
    macs = board.output.size * case.kernels_of(0).size
    return Way("insert", case, (_field(board), flipped), board.output, macs,
               "outputs x kernel values, inserted zeros counted", board)  # fmt: skip


def by_im2col(case: Case) -> Way:
    """Every window as a column, every kernel as a row: convolution is one product of matrices for each group.

    Source: Chellapilla et al. 2006, High performance convolutional neural networks for document processing.
    """
    at: dict[str, Any] = {n: case.per_axis(n) for n in ("stride", "padding", "dilation")}
    columns = im2col(case.x[None], case.w.shape[2:], **at)[0].reshape(case.groups, -1, int(np.prod(case.out_shape[1:])))
    inside = im2col(np.ones((1, *case.x.shape)), case.w.shape[2:], **at)[0].reshape(columns.shape)
    rows = case.w.reshape(case.groups, len(case.w) // case.groups, -1)
    product = rows @ columns
    stages = (
        Stage("rows", "each kernel as a row, channel by channel", rows, ("group",)),
        Stage("columns", "each window as a column, in the order of the outputs (. = padding)", columns, ("group",),
              inside.astype(bool)),
        Stage("rows x columns", "their product: an output channel is a row", product, ("group",)),
    )  # fmt: skip
    return Way("im2col", case, stages, case.biased(product.reshape(case.out_shape)), case.macs,
               "rows x columns x their length, padding counted")  # fmt: skip


def by_matrix(case: Case) -> Way:
    """The convolution as one sparse matrix on the map laid out as a vector; its transpose is the transposed one.

    Raises: InputError if the matrix would have more than a million elements.
    Source: Dumoulin & Visin 2016 (arXiv:1603.07285), sections 4.1 and 4.2.
    """
    big, small = (case.out_shape, case.x.shape) if case.transposed else (case.x.shape, case.out_shape)
    elements = int(np.prod(big)) * int(np.prod(small))
    if elements > MAX_MATRIX:
        raise InputError(f"conv: the matrix of {case.title} would have {elements:,} elements; at most {MAX_MATRIX:,} "
                         "are written out, so use a smaller input or another --way")  # fmt: skip
    matrix, used = (_sparse(case, w, big, small) for w in (case.w, np.ones_like(case.w)))
    count, shape = int(used.sum()), "x".join(map(str, matrix.shape))
    filled = f"{count:,} of {matrix.size:,} elements are kernel values (. = nothing)"
    if case.transposed:
        product = (matrix.T @ case.x.reshape(-1)).reshape(case.out_shape)
        forward = "A, the matrix of the convolution that goes the other way"
        stages = (Stage("A", f"{forward}, {shape}: {filled}", matrix, (), used.astype(bool)),
                  Stage("A^T", "its transpose", matrix.T, (), used.T.astype(bool)),
                  Stage("x", "the input as one vector", case.x.reshape(1, -1)),
                  Stage("A^T x", "the product", product.reshape(1, -1)))  # fmt: skip
    else:
        product = (matrix @ case.x.reshape(-1)).reshape(case.out_shape)
        back = (matrix.T @ product.reshape(-1)).reshape(case.x.shape)
        stages = (Stage("A", f"the convolution as a matrix, {shape}: {filled}", matrix, (), used.astype(bool)),
                  Stage("x", "the input as one vector", case.x.reshape(1, -1)),
                  Stage("A x", "the product", product.reshape(1, -1)),
                  Stage("A^T (A x)", "the transposed convolution of the output has the input's size, not its values",
                        back, case.stacked("channel")))  # fmt: skip
    return Way(
        "matrix", case, stages, case.biased(product), count, "kernel values in the matrix: padding costs nothing"
    )


def by_fft(case: Case) -> Way:
    """Transform, multiply, transform back: a convolution is a product of spectra.

    The kernel is not flipped, so its spectrum is conjugated. Windows that would wrap around are cut off, and a
    stride keeps only some of all places.
    Source: Mathieu et al. 2013, Fast training of convolutional networks through FFTs (arXiv:1312.5851).
    """
    field = case.padded
    size, axes = field.shape[1:], tuple(range(-case.ndim, 0))
    kernels = np.zeros((*case.w.shape[:2], *size))
    kernels[:, :, *(slice(0, w.span, w.dilation) for w in case.windows)] = case.w
    x_hat, w_hat = np.fft.rfftn(field, axes=axes), np.fft.rfftn(kernels, axes=axes)
    product = np.stack([(x_hat[list(case.group_of(o)[0])] * w_hat[o].conj()).sum(axis=0) for o in range(len(case.w))])
    whole = np.fft.irfftn(product, s=size, axes=axes)
    places = tuple(slice(0, n - w.span + 1, w.stride) for n, w in zip(size, case.windows, strict=True))
    kept = np.zeros(size, dtype=bool)
    kept[places] = True
    every = "" if set(case.per_axis("stride")) == {1} else ", and every place that the stride does not reach"
    pairs, outputs = case.stacked("output", "input"), case.stacked("output")
    stages = (
        Stage("padded input", "the input in its padding", field, case.stacked("channel")),
        Stage("padded kernel", "the kernel in zeros, as large as that", kernels, pairs, kernels != 0),
        Stage("X", "the spectrum of the input (columns left out mirror these)", x_hat, case.stacked("channel")),
        Stage("W", "the spectrum of the kernel", w_hat, pairs),
        Stage("X conj(W)", "their product, added over the input channels", product, outputs),
        Stage("inverse", f"transformed back; cut off (.) is what wraps around the edge{every}", whole, outputs, kept),
    )
    return Way("fft", case, stages, case.biased(whole[:, *places]), 4 * w_hat.size,
               "4 for each product of two complex numbers; the transforms come on top")  # fmt: skip


def _sparse(case: Case, w: np.ndarray, big: tuple[int, ...], small: tuple[int, ...]) -> np.ndarray:
    """A of `small` = A x `big`; rows beyond `small`, which a large output_padding leaves room for, are left out."""
    at: dict[str, Any] = {n: case.per_axis(n) for n in ("stride", "padding", "dilation")}
    matrix = convolution_matrix(w, big, groups=case.groups, **at)
    found = [(n + 2 * v.padding - v.span) // v.stride + 1 for n, v in zip(big[1:], case.windows, strict=True)]
    whole = matrix.reshape(small[0], *found, -1)[:, *(slice(n) for n in small[1:])]
    return whole.reshape(-1, matrix.shape[1])


def _field(board: Storyboard) -> Stage:
    says = {
        "window": "the kernel slides over it (. = padding)",
        "insert": "zeros between its values and around them (.)",
        "scatter": "each value will stamp the kernel",
    }[board.view]
    return Stage("input", says, board.field, board.case.stacked("channel"), board.real)


def _kernel(case: Case) -> Stage:
    axes = case.stacked("input", "output") if case.transposed else case.stacked("output", "input")
    return Stage("kernel", "what each value is multiplied with", case.w, axes)


@dataclass(frozen=True, slots=True, eq=False)
class Comparison:
    """One convolution in every way that serves it, and a sentence for each that does not."""

    case: Case
    ways: tuple[Way, ...]
    left_out: tuple[str, ...]

    def table(self) -> Table:
        """A row for each way: its multiplications, and how near it is to PyTorch."""
        rows = tuple({"way": w.name, "what": TITLES[w.name], "multiplications": w.multiplications,
                      "agreement": w.agreement} for w in self.ways)  # fmt: skip
        columns = (Column("way", "way"), Column("what", "what"), Column("multiplications", "multiplications"),
                   Column("agreement", "PyTorch"))  # fmt: skip
        notes = tuple(f"{w.name}: {w.counted}" for w in self.ways)
        return Table(columns, rows, title=self.case.title, notes=(*notes, *self.left_out))

    def text(self) -> str:
        """Every way in full, then the table."""
        parts = ["\n".join(heading(self.case)), *(w.body() for w in self.ways), self.table().text()]
        return "\n\n\n".join(parts)

    def data(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {"case": self.case.data(), "ways": [w.data() for w in self.ways], "left_out": self.left_out}

    def __str__(self) -> str:
        return self.text()


def compare(case: Case) -> Comparison:
    """The convolution in every way that serves it.

    Raises: InputError if none does.

    >>> case = Case(np.ones((1, 4, 4)), np.ones((1, 1, 3, 3)))
    >>> [(w.name, w.multiplications) for w in compare(case).ways]
    [('window', 36), ('im2col', 36), ('matrix', 36), ('winograd', 16), ('fft', 48)]
    """
    done, left_out = [], []
    for name in ways_of(case):
        try:
            done.append(compute(case, name))
        except InputError as error:
            left_out.append(str(error))
    if not done:
        raise InputError(left_out[0])
    return Comparison(case, tuple(done), tuple(left_out))


WAYS: Mapping[str, Callable[[Case], Way]] = {
    "window": by_window,
    "im2col": by_im2col,
    "matrix": by_matrix,
    "winograd": by_winograd,
    "fft": by_fft,
    "scatter": by_scatter,
    "insert": by_insertion,
}
