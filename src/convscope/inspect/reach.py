"""The exact set of input elements that one unit depends on, holes included.

The walk is that of `receptive_field`, with sets in place of boxes. A set is a union of products: in each product one
boolean vector an axis. Windows, views and elementwise operators turn products into products, so that nothing is lost;
where branches meet, products that hold others swallow them.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import reduce
from itertools import product as combinations
from math import prod

import numpy as np

from convscope.errors import InputError
from convscope.geometry import Interval, Window
from convscope.graph import RULES, Box, Op, Recording, Value, gathering, reading, reads, resizing, rule_of
from convscope.graph.rules import Rules, conv_windows, outputs_apart, pool_windows
from convscope.inspect.lines import matched
from convscope.inspect.receptive_field import Unit

Product = tuple[np.ndarray, ...]  # one boolean vector an axis
MOST_PRODUCTS = 12  # beyond it, a union is cut anew into products that do not overlap

# A run of outputs reads a run of inputs, without holes: to ask for whole runs is as exact as to ask for each unit.
SOLID = frozenset({
    reading.everything, resizing.adaptive_reads, reading.reduced_reads, reading.along_dim_reads,
    reading.permuted_reads, reading.cat_reads, reading.matmul_reads, reading.trailing_reads, reading.group_reads,
    reading.split_reads, reading.select_reads, reading.pad_reads, reading.attention_reads, reading.batch_norm_reads,
    reading.changed_reads, gathering.prefix_reads, gathering.transformed_reads, gathering.gathered_reads,
    gathering.scattered_reads, gathering.embedded_reads, gathering.vector_reads,
})  # fmt: skip
# Channels move with rows and columns: what several outputs read together is no product of axes.
WOVEN = frozenset({resizing.shuffled_reads, resizing.unshuffled_reads})


@dataclass(frozen=True, slots=True, eq=False)
class Reach:
    """The elements of an input that a unit depends on: the union of `products`, each one boolean vector an axis.

    `bounded_by` names operators of which no exact rule is known (they may read all that they are given): if there are
    any, the set is a bound.
    """

    shape: tuple[int, ...]
    products: tuple[Product, ...]
    bounded_by: tuple[str, ...] = ()

    def mask(self, *axes: int) -> np.ndarray:
        """The set as a boolean array along the given axes (all if none is given): true where any of its elements lies.

        >>> Reach((1, 4), ((np.array([True]), np.array([True, False, True, False])),)).mask(1).tolist()
        [True, False, True, False]
        """
        chosen = axes or tuple(range(len(self.shape)))
        full = np.zeros([self.shape[a] for a in chosen], dtype=bool)
        for each in self.products:
            full |= _outer([each[a] for a in chosen])
        return full

    @property
    def box(self) -> Box | None:
        """The smallest box that holds the set; None if it is empty."""
        return reading.hull(tuple(_ends(axis) for axis in each) for each in self.products)


def reach(recording: Recording, op: Op, *, unit: Unit, source: int = 0, rules: Rules = RULES) -> Reach:
    """The very elements of an input that one unit of an operator's first output depends on.

    unit: an index for every axis of the output; None takes all along an axis. source: which input of the network, by
    its number. What lies in padding is no element of the input and is left out, in maps in between as well.
    Raises: InputError if the unit does not exist.

    >>> import torch
    >>> from convscope import record
    >>> net = torch.nn.Conv1d(1, 1, 3, dilation=2)
    >>> recording = record(net, torch.zeros(1, 1, 7))
    >>> reach(recording, recording.ops[-1], unit=(0, 0, 1)).mask(2).astype(int).tolist()
    [0, 1, 0, 1, 0, 1, 0]
    """
    shape = op.outputs[0].shape
    check_unit(op, unit)
    wanted = {
        op.outputs[0].id: [
            tuple(
                np.arange(n) == i if i is not None else np.ones(n, dtype=bool) for i, n in zip(unit, shape, strict=True)
            )
        ]
    }
    dependent = _dependent(recording, source)
    bounds: list[str] = []
    for earlier in reversed(recording.ops[: op.index + 1]):
        for k, out in enumerate(outputs_apart(earlier, rules=rules)):
            for each in union(wanted.pop(out.id, ())):
                for value in dict.fromkeys(v for v in earlier.inputs if v.id in dependent):
                    found = [s for alone in _roles(earlier, value) for s in _read(alone, each, value, k, rules, bounds)]
                    wanted.setdefault(value.id, []).extend(found)
    asked = recording.inputs[source]
    return Reach(asked.shape, tuple(union(wanted.get(asked.id, ()))), tuple(dict.fromkeys(bounds)))


def check_unit(op: Op, unit: Unit) -> None:
    """Raises: InputError if the operator's first output has no such unit."""
    shape = op.outputs[0].shape
    if len(unit) != len(shape) or not all(i is None or 0 <= i < n for i, n in zip(unit, shape, strict=False)):
        asked = ",".join("all" if i is None else str(i) for i in unit)
        ranges = ", ".join(f"0..{n - 1}" for n in shape)
        raise InputError(f"{op.module or op.name}: there is no unit {asked}; use {ranges}")


def union(products: Iterable[Product]) -> list[Product]:
    """The same set in fewer products: what another holds is dropped, what differs along one axis alone is joined."""
    kept: list[Product] = []
    for each in products:
        todo: Product | None = each if all(axis.any() for axis in each) else None
        while todo is not None:
            kept, todo = _add(kept, todo)
    return kept if len(kept) <= MOST_PRODUCTS else _cut(kept)


def _add(kept: list[Product], new: Product) -> tuple[list[Product], Product | None]:
    """The list with a product added; or without those that it joined, and the joined one to be added again."""
    rest = []
    for i, old in enumerate(kept):
        apart = [a for a, (p, q) in enumerate(zip(new, old, strict=True)) if p is not q and not np.array_equal(p, q)]
        if all(not (new[a] & ~old[a]).any() for a in apart):
            return kept, None
        if len(apart) == 1:
            joined = tuple(p | q if a == apart[0] else p for a, (p, q) in enumerate(zip(new, old, strict=True)))
            return [*rest, *kept[i + 1 :]], joined
        if any((old[a] & ~new[a]).any() for a in apart):
            rest.append(old)
    return [*rest, new], None


def _cut(products: list[Product]) -> list[Product]:
    """The union as products that do not overlap, at most one for each distinct row of its mask."""
    ndim = len(products[0])
    apart = [a for a in range(ndim) if any(not np.array_equal(p[a], products[0][a]) for p in products)]
    full = np.logical_or.reduce([_outer([p[a] for a in apart]) for p in products])
    return [tuple(slab[apart.index(a)] if a in apart else products[0][a] for a in range(ndim)) for slab in _slabs(full)]


def _slabs(mask: np.ndarray) -> Iterator[Product]:
    """A mask as products that do not overlap: equal rows together, each row cut in its turn."""
    if mask.ndim < 2:
        yield (mask,) * mask.ndim
        return
    rows: dict[bytes, list[int]] = {}
    for i, row in enumerate(mask):
        if row.any():
            rows.setdefault(row.tobytes(), []).append(i)
    for same in rows.values():
        chosen = np.isin(np.arange(len(mask)), same)
        yield from ((chosen, *rest) for rest in _slabs(mask[same[0]]))


def _outer(axes: list[np.ndarray]) -> np.ndarray:
    return reduce(np.logical_and.outer, axes)


def _dependent(recording: Recording, source: int) -> set[int]:
    """The values that an input flows into."""
    found = {recording.inputs[source].id}
    for op in recording.ops:
        if any(v.id in found for v in op.inputs):
            found |= {v.id for v in op.outputs}
    return found


def _roles(op: Op, value: Value) -> Iterator[Op]:
    """The operator once for each argument that is the value, with other values in its other arguments."""
    count = op.inputs.count(value)
    other = replace(value, id=-1)
    for role in range(count):
        places = iter(range(count))

        def alone(arg: object, role: int = role, places: Iterator[int] = places) -> object:
            if isinstance(arg, tuple):
                return tuple(alone(a) for a in arg)
            return other if arg == value and next(places) != role else arg

        yield op if count == 1 else replace(op, args={k: alone(v) for k, v in op.args.items()})


def _read(op: Op, each: Product, value: Value, k: int, rules: Rules, bounds: list[str]) -> Iterator[Product]:
    """What a product of the operator's k-th output reads of an input."""
    rule = rule_of(op, rules=rules)
    computed_weight = rule is not None and rule.reads is reading.conv_reads and value != op.args["input"]
    woven = rule is not None and rule.reads in WOVEN and any(axis.sum() > 1 for axis in each)
    if rule is None or rule.reads is reading.everything or computed_weight or woven:
        bounds.append(op.name)
    if rule is None:
        yield _whole(value)
    elif rule.reads is reading.same_place:
        yield _same_place(op, each, value, k)
    elif rule.reads is reading.conv_reads and not computed_weight:
        yield _convolved(op, each, value)
    elif rule.reads is reading.pool_reads:
        windows = pool_windows(op)
        kept, n = each[: -len(windows)], value.shape[-len(windows) :]
        yield (*kept, *map(window_set, each[-len(windows) :], windows, n))
    elif rule.reads is reading.reshape_reads and prod(value.shape) == prod(op.outputs[k].shape):
        yield from _reshaped(each, op.outputs[k].shape, value.shape)
    else:
        yield from _asked(op, each, value, k, rules, bounds)


def _whole(value: Value) -> Product:
    return tuple(np.ones(n, dtype=bool) for n in value.shape)


def _same_place(op: Op, each: Product, value: Value, k: int) -> Product:
    extra = len(each) - len(value.shape)
    pairs = zip(each[extra:], value.shape, op.outputs[k].shape[extra:], strict=True)
    return tuple(np.ones(1, dtype=bool) if n == 1 and out != 1 else axis for axis, n, out in pairs)


def _convolved(op: Op, each: Product, value: Value) -> Product:
    groups = op.args["groups"]
    channels = each[1].reshape(groups, -1).any(axis=1).repeat(value.shape[1] // groups)
    step = transposed_window_set if op.args["transposed"] else window_set
    return (each[0], channels, *map(step, each[2:], conv_windows(op), value.shape[2:]))


def window_set(outputs: np.ndarray, w: Window, n: int) -> np.ndarray:
    """Which of n inputs a set of a window's positions reads.

    >>> window_set(np.array([False, True]), Window(2, stride=3, dilation=2), 8).nonzero()[0].tolist()
    [3, 5]
    """
    steps = (len(outputs) - 1) * w.stride + 1
    padded = np.zeros(max(n + w.padding, steps + w.span - 1), dtype=bool)
    for start in range(0, w.span, w.dilation):
        padded[start : start + steps : w.stride] |= outputs
    return padded[w.padding : w.padding + n]


def transposed_window_set(outputs: np.ndarray, w: Window, n: int) -> np.ndarray:
    """Which of n inputs a set of the outputs of a transposed convolution reads.

    >>> transposed_window_set(np.array([False, True]), Window(1, stride=2), 1).any()
    np.False_
    """
    steps = (n - 1) * w.stride + 1
    padded = np.zeros(max(steps + w.span - 1, w.padding + len(outputs)), dtype=bool)
    padded[w.padding : w.padding + len(outputs)] = outputs
    taps = [padded[start : start + steps : w.stride] for start in range(0, w.span, w.dilation)]
    return np.logical_or.reduce(taps)


def _reshaped(each: Product, out: tuple[int, ...], into: tuple[int, ...]) -> Iterator[Product]:
    """Axes that a view joins or cuts: their flat set, cut into products along the other side's axes."""
    parts: list[list[Product]] = []
    for there, here in matched(out, into):
        flat = _outer([np.ones(1, dtype=bool), *(each[a] for a in there)])
        parts.append(list(_slabs(flat.reshape([into[a] for a in here]))))
    for chosen in combinations(*parts):
        yield tuple(axis for part in chosen for axis in part)


def _asked(op: Op, each: Product, value: Value, k: int, rules: Rules, bounds: list[str]) -> Iterator[Product]:
    """Through the rule's boxes: each run or unit along one axis, with all of the others; inputs' axes follow one."""
    rule = rule_of(op, rules=rules)
    around = tuple(_ends(axis) for axis in each)
    outer = reads(op, around, value, k=k, rules=rules)
    if outer is None:
        return
    sets: dict[int, np.ndarray] = {}
    for a, axis in enumerate(each):
        runs = _runs(axis) if rule and rule.reads in SOLID else [(int(i), int(i)) for i in axis.nonzero()[0]]
        if len(runs) == 1:
            continue
        found = [reads(op, (*around[:a], run, *around[a + 1 :]), value, k=k, rules=rules) for run in runs]
        boxes = [box for box in found if box is not None]
        for m, n in enumerate(value.shape):
            if any(box[m] != outer[m] for box in boxes):
                if m in sets:  # it follows two axes at once: the box is all that can be said
                    bounds.append(op.name)
                    yield _inside(outer, value)
                    return
                sets[m] = np.logical_or.reduce([_interval(box[m], n) for box in boxes])
    yield tuple(sets.get(m, axis) for m, axis in enumerate(_inside(outer, value)))


def _inside(box: Box, value: Value) -> Product:
    return tuple(_interval(interval, n) for interval, n in zip(box, value.shape, strict=True))


def _interval(interval: Interval, n: int) -> np.ndarray:
    places = np.arange(n)
    return (places >= interval[0]) & (places <= interval[1])


def _ends(axis: np.ndarray) -> Interval:
    places = axis.nonzero()[0]
    return int(places[0]), int(places[-1])


def _runs(axis: np.ndarray) -> list[Interval]:
    """The runs of neighbours, first and last."""
    edges = np.diff(np.concatenate(([0], axis.astype(np.int8), [0]))).nonzero()[0]
    return [(int(a), int(b) - 1) for a, b in edges.reshape(-1, 2)]
