"""flow(): what a network's modules hand to one another, as boxes and arrows without a cycle."""

from dataclasses import dataclass
from itertools import groupby

from convscope.graph import Op, Recording, moved_bytes
from convscope.inspect.modules import cut
from convscope.inspect.summary import Summary

MOST_ALONE = 4  # operators one after the other outside of the modules that are drawn; more share a box
KINDS = {"convolution": "convolution", "addmm": "product", "mm": "product", "bmm": "product"}


@dataclass(frozen=True, slots=True)
class Box:
    """One run of a module's operators, or one operator outside of the modules of this depth.

    `op` names the operator if it is the only one that computes; `kind` chooses the colour.
    """

    name: str
    op: str
    kind: str
    shape: tuple[int, ...]
    params: int
    macs: int


@dataclass(frozen=True, slots=True)
class Flow:
    """Boxes in the order in which they ran, and arrows as pairs of their indices, always forwards."""

    boxes: tuple[Box, ...]
    arrows: tuple[tuple[int, int], ...]


def flow(recording: Recording, summary: Summary, *, depth: int | None = None, most: int = 48) -> Flow:
    """The network's boxes with module paths cut to `depth` names; if None, the deepest with at most `most` boxes.

    A module that is called twice is two boxes. What only prepares weights, and views, are in no box of their own.
    """
    if depth is not None:
        return _flow(recording, summary, depth)
    deepest = max((op.module.count(".") + 1 for op in recording.ops), default=1)
    drawn = _flow(recording, summary, 1)
    for deeper in range(2, deepest + 1):
        following = _flow(recording, summary, deeper)
        if len(following.boxes) > most:
            break
        drawn = following
    return drawn


def _flow(recording: Recording, summary: Summary, depth: int) -> Flow:
    keys = _keys(recording, depth)
    boxes: list[Box] = [Box(v.name, "", "input", v.shape, 0, 0) for v in recording.inputs]
    members: list[list[Op]] = [[] for _ in boxes]
    home = {v.id: i for i, v in enumerate(recording.inputs)}
    arrows: dict[tuple[int, int], None] = {}
    last = ""
    for op in recording.ops:
        sources = [home[v.id] for v in op.inputs if v.id in home]
        if op.index not in keys:  # it depends on no input, or is a view: that belongs to what it looks at
            home |= {v.id: source for v in op.outputs for source in sources[:1]}
            continue
        if keys[op.index] != last:
            members.append([])
            last = keys[op.index]
        members[-1].append(op)
        here = len(members) - 1
        arrows |= {(source, here): None for source in sources if source != here}
        home |= {v.id: here for v in op.outputs}
    boxes += [_box(group, summary, depth) for group in members[len(boxes) :]]
    return Flow(tuple(boxes), tuple(arrows))


def _keys(recording: Recording, depth: int) -> dict[int, str]:
    """For each operator that works on what depends on an input, a name that its box shares with its neighbours'.

    An operator outside of the modules of this depth stands alone, unless many such follow one another.
    """
    inner = {op.module.rsplit(".", k)[0] for op in recording.ops for k in range(1, op.module.count(".") + 1)} | {""}
    seen = {v.id for v in recording.inputs}
    found: list[tuple[Op, bool]] = []
    for op in recording.ops:
        if any(v.id in seen for v in op.inputs):
            seen |= {v.id for v in op.outputs}
            alone = op.module in inner and len(op.module.split(".")) < depth + (not op.module)
            if not alone or moved_bytes(recording, op):
                found.append((op, alone))
    keys: dict[int, str] = {}
    for (alone, module), run in groupby(found, key=lambda pair: (pair[1], pair[0].module)):
        ops = [op for op, _ in run]
        apart = alone and len(ops) <= MOST_ALONE
        many = f"{module} from {ops[0].index}" if alone else cut(module, depth)
        keys |= {op.index: f"{module} {op.index}" if apart else many for op in ops}
    return keys


def _box(group: list[Op], summary: Summary, depth: int) -> Box:
    rows = [summary.operators[op.index] for op in group]
    kinds = {KINDS.get(op.name) or ("pooling" if "pool" in op.name else "") for op in group} - {""}
    path = cut(group[0].module, depth)
    working = [op.name for op in group if summary.operators[op.index].bytes_moved]
    if len(working) > MOST_ALONE and not path:
        path = f"{len(working)} operators"
    kind = "block" if len({op.module for op in group}) > 1 else next(iter(sorted(kinds)), "other")
    return Box(
        name=path,
        op=working[0].removeprefix("native_").removesuffix("_with_indices") if len(working) == 1 else "",
        kind=kind,
        shape=next((op.outputs[0].shape for op in reversed(group) if op.outputs), ()),
        params=sum(r.params for r in rows),
        macs=sum(r.macs or 0 for r in rows),
    )
