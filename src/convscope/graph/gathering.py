"""Which elements of an input a box of the output reads, for the operators that pick, place and sum along an axis.

Functions as in `reading`.
"""

from convscope.graph.reading import Box, as_tuple, whole
from convscope.graph.values import Op, Value


def prefix_reads(op: Op, box: Box, value: Value, k: int = 0) -> Box:
    """A running sum reads its axis up to its own place."""
    dim = op.args["dim"] % len(box)
    return tuple((0, hi) if axis == dim else (lo, hi) for axis, (lo, hi) in enumerate(box))


def transformed_reads(op: Op, box: Box, value: Value, k: int = 0) -> Box:
    """A Fourier transform reads its axes whole, in its own place along the others."""
    dims = {d % len(box) for d in as_tuple(op.args["dim"])}
    return tuple((0, n - 1) if axis in dims else box[axis] for axis, n in enumerate(value.shape))


def gathered_reads(op: Op, box: Box, value: Value, k: int = 0) -> Box:
    """The index in its own place; of what it picks from, the axis whole."""
    if value == op.args["index"] and op.name == "gather":
        return box
    if value == op.args["index"]:
        return whole(value)
    dim = op.args["dim"] % len(box)
    return tuple((0, n - 1) if axis == dim else box[axis] for axis, n in enumerate(value.shape))


def embedded_reads(op: Op, box: Box, value: Value, k: int = 0) -> Box:
    """The index in its own place; of the table its own column, whole."""
    return box[:-1] if value == op.args["indices"] else (whole(value)[0], box[-1])


def scattered_reads(op: Op, box: Box, value: Value, k: int = 0) -> Box:
    """Its own place of what is written into, and all of what is written and of where."""
    return box if value == op.args["self"] else whole(value)


def vector_reads(op: Op, box: Box, value: Value, k: int = 0) -> Box:
    """A row of the matrix and the vector whole."""
    return (*box, (0, value.shape[-1] - 1)) if value == op.args["self"] else whole(value)


def real_parts_reads(op: Op, box: Box, value: Value, k: int = 0) -> Box:
    """Complex numbers, of which the two parts lie along a new last axis."""
    return box[:-1]


def complex_reads(op: Op, box: Box, value: Value, k: int = 0) -> Box:
    """Both parts of a complex number, which lie along the last axis."""
    return (*box, (0, 1))
