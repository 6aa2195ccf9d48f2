"""A convolution frame by frame, as data: what a picture of it, a text or a web page shows.

Shapes: C input channels, O output channels, I input channels that one frame reads; D stands for the spatial axes (one,
two or three), K for a kernel's extent along them.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from convscope.errors import InputError, nearest
from convscope.steps.case import Case

MAX_FRAMES = 400

View = Literal["window", "insert", "scatter"]
VIEWS = ("window", "insert", "scatter")


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """One step: the kernel lies somewhere, and its products are made.

    `place` is what this step is about, a number for each spatial axis: the output value that it makes, or in a
    "scatter" the input value that it spreads. `taps` are, for each axis, the places under the kernel (a dilated one
    leaves gaps): in the storyboard's `field`, or in a "scatter" on its output, where the dropped border has numbers
    below 0 or beyond the end. `channels` are the input channels that are read, one in a "scatter".
    `patch` x `kernel` = `products`, each IxK..., value by value; `sum` is the output value, None in a "scatter", with
    the `bias`, None if there is none. `output` is the output so far, OxD...: NaN where nothing has been written.
    """

    number: int
    output_channel: int
    channels: tuple[int, ...]
    place: tuple[int, ...]
    taps: tuple[tuple[int, ...], ...]
    patch: np.ndarray
    kernel: np.ndarray
    products: np.ndarray
    bias: float | None
    sum: float | None
    output: np.ndarray

    @property
    def box(self) -> tuple[int, ...]:
        """The frame around the kernel: its first place along each axis, then its extent (top, left, height, width)."""
        return *(t[0] for t in self.taps), *(t[-1] - t[0] + 1 for t in self.taps)

    def data(self) -> dict[str, Any]:
        """Plain data for JSON; what has not been written yet is null."""
        names = ("number", "output_channel", "channels", "place", "taps", "box", "bias", "sum")
        arrays = ("patch", "kernel", "products", "output")
        return {n: getattr(self, n) for n in names} | {n: getattr(self, n).tolist() for n in arrays}


@dataclass(frozen=True, slots=True, eq=False)
class Storyboard:
    """A small convolution as its frames, in the order in which the kernel moves: the last axis first, channels last.

    `view` says what is shown. "window": the kernel slides over the padded input. "insert": a transposed convolution
    as an ordinary one of stride 1; its input has zeros between the values and around them, its kernel is flipped.
    "scatter": a transposed convolution by its definition; each input value stamps the kernel on the output.
    `field` is what is read, CxD...: the padded input, the one with zeros inserted, or the input itself. `real` is
    False where a zero of it was put there, D... . `border` is how much around the output, along each axis, is written
    and then dropped (the padding of a transposed convolution; only in "scatter").
    """

    view: View
    case: Case
    field: np.ndarray
    real: np.ndarray
    border: tuple[int, ...]
    frames: tuple[Frame, ...]

    @property
    def output(self) -> np.ndarray:
        """The output after the last frame, OxD... ."""
        return np.nan_to_num(self.frames[-1].output, nan=0.0)

    def data(self) -> dict[str, Any]:
        """Plain data for JSON: the case, the field, and every frame."""
        return {
            "view": self.view, "case": self.case.data(), "field": self.field.tolist(), "real": self.real.tolist(),
            "border": self.border, "output": self.output.tolist(), "frames": [f.data() for f in self.frames],
        }  # fmt: skip


def frames(case: Case, *, view: View | None = None) -> Storyboard:
    """The storyboard of a convolution, or of a transposed one in either view ("scatter" if none is said).

    Raises: InputError if the view does not belong to the case, or there would be more than 400 frames.
    Source: Dumoulin & Visin 2016 (arXiv:1603.07285), section 4: zeros inserted between the values.

    >>> board = frames(Case(np.arange(9.0).reshape(1, 3, 3), np.ones((1, 1, 2, 2))))
    >>> [f.sum for f in board.frames], board.frames[3].box
    ([8.0, 12.0, 20.0, 24.0], (1, 1, 2, 2))
    """
    view = view or ("scatter" if case.transposed else "window")
    if view not in VIEWS:
        raise InputError(f"frames: there is no view {view!r}; {nearest(view, VIEWS)}")
    if (view == "window") == case.transposed:
        fitting = "'scatter' or 'insert'" if case.transposed else "'window'"
        raise InputError(f"frames: the view {view!r} does not show this kind of convolution; use {fitting}")
    count = case.x.size * case.w.shape[1] if view == "scatter" else int(np.prod(case.out_shape))
    if count > MAX_FRAMES:
        raise InputError(f"frames: {case.title} has {count:,} steps; at most {MAX_FRAMES} are shown, so use a smaller "
                         "input, fewer channels or a larger stride")  # fmt: skip
    if view == "scatter":
        real = np.ones(case.x.shape[1:], dtype=bool)
        return Storyboard(view, case, case.x, real, case.per_axis("padding"), tuple(_stamps(case)))
    field, real = _padded(case) if view == "window" else zeros_inserted(case)
    return Storyboard(view, case, field, real, (0,) * case.ndim, tuple(_windows(case, field)))


def zeros_inserted(case: Case) -> tuple[np.ndarray, np.ndarray]:
    """A transposed convolution's input with stride - 1 zeros between its values, and the border that it needs.

    An ordinary convolution of stride 1 over this, with the kernel flipped, gives the transposed one. The border is
    span - 1 - padding wide, and output_padding wider at the end; one below 0 cuts the input.
    Shapes: CxD... -> CxD'..., and D'... of what is a value of the input.
    Source: Dumoulin & Visin 2016 (arXiv:1603.07285), section 4.

    >>> field, real = zeros_inserted(Case(np.ones((1, 2, 2)), np.ones((1, 1, 3, 3)), transposed=True))
    >>> field.shape, int(real.sum())
    ((1, 6, 6), 4)
    """
    sizes = [(n - 1) * w.stride + 1 for n, w, _ in case.axes]
    kept = tuple(slice(None, None, w.stride) for w in case.windows)
    spread, real = np.zeros((len(case.x), *sizes)), np.zeros(sizes, dtype=bool)
    spread[:, *kept], real[kept] = case.x, True
    around = [(w.span - 1 - w.padding, w.span - 1 - w.padding + extra) for _, w, extra in case.axes]
    cut = tuple(slice(max(0, -a), n + min(0, b)) for (a, b), n in zip(around, sizes, strict=True))
    pads = [(max(0, a), max(0, b)) for a, b in around]
    return np.pad(spread[:, *cut], [(0, 0), *pads]), np.pad(real[cut], pads)


def _padded(case: Case) -> tuple[np.ndarray, np.ndarray]:
    pads = [(w.padding, w.padding) for w in case.windows]
    return case.padded, np.pad(np.ones(case.x.shape[1:], dtype=bool), pads)


def _windows(case: Case, field: np.ndarray) -> Iterator[Frame]:
    """Each output value: the patch under the kernel, the products, their sum with the bias."""
    so_far = np.full(case.out_shape, np.nan)
    strides = [1 if case.transposed else w.stride for w in case.windows]
    for number, (o, *place) in enumerate(np.ndindex(*case.out_shape)):
        channels, kernel = tuple(case.group_of(o)[0]), case.kernels_of(o)
        if case.transposed:
            kernel = np.flip(kernel, axis=tuple(range(1, kernel.ndim)))
        starts = [at * stride for at, stride in zip(place, strides, strict=True)]
        taps = _taps(case, starts)
        patch = field[np.ix_(channels, *taps)]
        products, bias = patch * kernel, case.bias_of(o)
        so_far[o, *place] = total = float(products.sum()) + (bias or 0.0)
        yield Frame(number, o, channels, tuple(place), taps, patch, kernel, products, bias, total, so_far.copy())


def _stamps(case: Case) -> Iterator[Frame]:
    """Each input value of each output channel: the kernel times the value, added to the output where it lies."""
    so_far = np.full(case.out_shape, np.nan) if case.b is None else case.biased(np.zeros(case.out_shape))
    steps = ((o, c, at) for o in range(case.out_shape[0]) for c in case.group_of(o)[0]
             for at in np.ndindex(*case.x.shape[1:]))  # fmt: skip
    for number, (o, c, place) in enumerate(steps):
        kernel = case.w[c, case.group_of(o)[1]][None]
        taps = _taps(case, [at * w.stride - w.padding for at, w in zip(place, case.windows, strict=True)])
        patch = np.full(kernel.shape, case.x[c, *place])
        products = patch * kernel
        for tap, value in np.ndenumerate(products[0]):
            at = tuple(axis[i] for axis, i in zip(taps, tap, strict=True))
            if all(0 <= i < n for i, n in zip(at, case.out_shape[1:], strict=True)):
                so_far[o, *at] = np.nan_to_num(so_far[o, *at]) + value
        yield Frame(number, o, (c,), place, taps, patch, kernel, products, case.bias_of(o), None, so_far.copy())


def _taps(case: Case, starts: Sequence[int]) -> tuple[tuple[int, ...], ...]:
    """The places under a kernel that begins at `starts`, along each axis."""
    return tuple(tuple(at + w.dilation * k for k in range(w.size)) for at, w in zip(starts, case.windows, strict=True))
