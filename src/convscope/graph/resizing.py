"""Which elements of an input a box of the output reads, for the operators that give maps another size.

Functions as in `reading`.
"""

from collections.abc import Iterator
from fractions import Fraction
from math import ceil, floor

from convscope.geometry import Interval
from convscope.graph.reading import Box
from convscope.graph.values import Op, Value


def adaptive_reads(op: Op, box: Box, value: Value, k: int = 0) -> Box:
    """Adaptive pooling divides the axis: output i of m reads floor(i n / m) to ceil((i + 1) n / m) - 1."""
    ndim = len(op.args["output_size"])
    sizes = zip(box[-ndim:], value.shape[-ndim:], op.outputs[k].shape[-ndim:], strict=True)
    return (*box[:-ndim], *((lo * n // m, -(-(hi + 1) * n // m) - 1) for (lo, hi), n, m in sizes))


def nearest_reads(op: Op, box: Box, value: Value, k: int = 0) -> Box:
    """Output i of m shows input floor(i n / m)."""
    axes = []
    for (lo, hi), n, step in _scaled_axes(op, box, value, k):
        axes.append((min(max(floor(lo * step), 0), n - 1), min(max(floor(hi * step), 0), n - 1)))
    return (*box[:2], *axes)


def exact_nearest_reads(op: Op, box: Box, value: Value, k: int = 0) -> Box:
    """Output i of m shows the input under its centre, floor((i + 1/2) n / m)."""
    axes = []
    for interval, n, step in _scaled_axes(op, box, value, k):
        lo, hi = (floor((2 * i + 1) * step / 2) for i in interval)
        axes.append((min(max(lo, 0), n - 1), min(max(hi, 0), n - 1)))
    return (*box[:2], *axes)


def linear_reads(op: Op, box: Box, value: Value, k: int = 0) -> Box:
    """Each output mixes the two inputs about its place, or shows one where it lies on it."""
    corners = op.args["align_corners"]
    axes = []
    for (lo, hi), n, step in _scaled_axes(op, box, value, k, corners=corners):
        first, last = (max(_centre(i, step, corners=corners), Fraction(0)) for i in (lo, hi))
        axes.append((min(max(floor(first), 0), n - 1), min(max(ceil(last), 0), n - 1)))
    return (*box[:2], *axes)


def cubic_reads(op: Op, box: Box, value: Value, k: int = 0) -> Box:
    """Each output mixes the four inputs about its place, or shows one where it lies on it; the border is repeated."""
    corners = op.args["align_corners"]
    axes = []
    for (lo, hi), n, step in _scaled_axes(op, box, value, k, corners=corners):
        first, last = (_centre(i, step, corners=corners) for i in (lo, hi))
        left = floor(first) - (first.denominator > 1)
        right = ceil(last) + (last.denominator > 1)
        axes.append((min(max(left, 0), n - 1), min(max(right, 0), n - 1)))
    return (*box[:2], *axes)


def shuffled_reads(op: Op, box: Box, value: Value, k: int = 0) -> Box:
    """Channel c of the output weaves r x r channels of the input into its rows and columns."""
    r = op.args["upscale_factor"]
    *outer, (first, last), rows, columns = box
    low, high = 0, r * r - 1
    if rows[0] == rows[1] and columns[0] == columns[1]:
        low = high = rows[0] % r * r + columns[0] % r
    return (*outer, (first * r * r + low, last * r * r + high), *((lo // r, hi // r) for lo, hi in (rows, columns)))


def unshuffled_reads(op: Op, box: Box, value: Value, k: int = 0) -> Box:
    """Channel c of the output takes every r-th row and column of channel c / r^2."""
    r = op.args["downscale_factor"]
    *outer, (first, last), rows, columns = box
    starts, ends = ((0, 0), (r - 1, r - 1)) if first != last else ((divmod(first % (r * r), r),) * 2)
    moved = ((lo * r + a, hi * r + b) for (lo, hi), a, b in zip((rows, columns), starts, ends, strict=True))
    return (*outer, (first // (r * r), last // (r * r)), *moved)


def channel_shuffled_reads(op: Op, box: Box, value: Value, k: int = 0) -> Box:
    """Channel c of the output is channel c / g of group c mod g; several may lie anywhere."""
    groups, channels = op.args["groups"], value.shape[1]
    first, last = box[1]
    place = first % groups * (channels // groups) + first // groups
    return (box[0], (place, place) if first == last else (0, channels - 1), *box[2:])


def _centre(i: int, step: Fraction, *, corners: bool) -> Fraction:
    """Where output i lies on the input's axis."""
    return i * step if corners else step * (2 * i + 1) / 2 - Fraction(1, 2)


def _scaled_axes(
    op: Op, box: Box, value: Value, k: int, *, corners: bool = False
) -> Iterator[tuple[Interval, int, Fraction]]:
    """For each spatial axis: the interval, the input's length, and the step of the input for a step of the output."""
    scales = [scale for name, scale in op.args.items() if name.startswith("scales")]
    for interval, n, m, scale in zip(box[2:], value.shape[2:], op.outputs[k].shape[2:], scales, strict=True):
        if corners:
            yield interval, n, Fraction(n - 1, m - 1) if m > 1 else Fraction(0)
        else:
            yield interval, n, 1 / Fraction(scale) if scale else Fraction(n, m)
