"""What an operator moves through memory: the tensors that it reads and the tensors that it writes."""

from functools import cache
from math import prod

from convscope.graph.recording import Op, Value, function_of


def moved_bytes(op: Op) -> int:
    """Bytes of the operator's inputs, each once, and of its outputs; a view moves nothing.

    This is the least that must be moved, whatever the algorithm: what does not stay in a cache is moved more often.
    """
    if is_view(op):
        return 0
    return sum(_bytes(v) for v in dict.fromkeys(op.inputs)) + sum(_bytes(v) for v in op.outputs)


def is_view(op: Op) -> bool:
    """Whether the operator only gives its input another shape, by the schema that PyTorch declares."""
    return _views(op.target)


def is_in_place(op: Op) -> bool:
    """Whether the operator changes one of its inputs."""
    return function_of(op.target)._schema.is_mutable


@cache
def _views(target: str) -> bool:
    returned = [r.alias_info for r in function_of(target)._schema.returns]
    return bool(returned) and all(a is not None and not a.is_write for a in returned)


def _bytes(value: Value) -> int:
    return prod(value.shape) * value.dtype.itemsize
