"""What an operator moves through memory: the tensors that it reads and the tensors that it writes."""

from functools import cache
from math import prod

from convscope.graph.replaying import function_of
from convscope.graph.values import Op, Recording, Value

_WRITES_NOTHING = {"empty", "new_empty", "empty_like"}


def moved_bytes(recording: Recording, op: Op) -> int:
    """Bytes of the operator's inputs, each once, and of its outputs; a view moves nothing.

    This is the least that must be moved, whatever the algorithm: what does not stay in a cache is moved more often.
    """
    if is_view(op) or op.name in _WRITES_NOTHING:
        return 0
    return sum(value_bytes(recording, v) for v in (*dict.fromkeys(op.inputs), *op.outputs))


def value_bytes(recording: Recording, value: Value) -> int:
    """The memory that a value's elements take; an expanded one has no more than its storage."""
    count = prod(value.shape) * value.dtype.itemsize
    return min(count, recording.storages.get(value.storage, count))


def is_view(op: Op) -> bool:
    """Whether the operator only gives its input another shape, by the schema that PyTorch declares."""
    return op.is_own or _views(op.target)


def is_in_place(op: Op) -> bool:
    """Whether the operator changes one of its inputs."""
    return not op.is_own and function_of(op.target)._schema.is_mutable


@cache
def _views(target: str) -> bool:
    returned = [r.alias_info for r in function_of(target)._schema.returns]
    return bool(returned) and all(a is not None and not a.is_write for a in returned)
