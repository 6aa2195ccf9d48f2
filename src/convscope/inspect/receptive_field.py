"""Receptive fields: which part of the network's input an output can depend on, on any graph.

`receptive_field` walks backwards from one unit: its interval is exact where no padding is read, and a bound
elsewhere. `fields` answers for every operator in one forward sweep: the box of the middle unit, and how it moves
when the unit moves.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from math import ceil, floor

from convscope.geometry import Interval
from convscope.graph import RULES, Box, Op, OpRule, Recording, Value, reads, rule_of
from convscope.graph.rules import hull, same_place, whole

Slopes = tuple[tuple[tuple[int, Fraction | int], ...], ...]  # for each input axis: (output axis, step), zeros left out


@dataclass(frozen=True, slots=True)
class Field:
    """The receptive field of one value on the network's first input.

    `box` is that of the unit `anchor`, not clipped to the input; `slopes[a]` says by how much it moves along
    input axis a for a step along each output axis. Where that is no constant (`affine` is False), all that
    is said of other units is `everything`, the box of all of them. After up-sampling the pattern repeats with a
    period; then what is said of units other than the anchor is a bound, at most `slack` wider at each end.
    """

    anchor: tuple[int, ...]
    box: Box
    slopes: Slopes
    slack: tuple[int, ...]
    affine: bool
    everything: Box

    def at(self, units: Box) -> Box:
        """The input box that a box of units depends on."""
        if units == _unit(self.anchor):
            return self.box
        if not self.affine:
            return self.everything
        return tuple((floor(lo) - s, ceil(hi) + s) for (lo, hi), s in zip(self.line(units), self.slack, strict=True))

    def line(self, units: Box) -> tuple[tuple[Fraction | int, Fraction | int], ...]:
        """Where the slopes alone put the box."""
        return tuple(
            _moved(interval, row, units, self.anchor) if row else interval
            for interval, row in zip(self.box, self.slopes, strict=True)
        )

    @property
    def size(self) -> tuple[int, ...]:
        """Elements along each axis of the input."""
        return tuple(hi - lo + 1 for lo, hi in self.box)

    @property
    def stride(self) -> tuple[Fraction | int, ...]:
        """Steps of the field along each input axis as the unit moves by one (the jump); 0: it stands still."""
        return tuple(sum(step for _, step in row) for row in self.slopes)

    @property
    def padding(self) -> tuple[Fraction | int, ...]:
        """How far the field of unit 0 reaches before the input begins, along each axis."""
        return tuple(
            sum(step * self.anchor[k] for k, step in row) - lo
            for (lo, _), row in zip(self.box, self.slopes, strict=True)
        )


def receptive_field(
    recording: Recording, op: Op, *, unit: tuple[int, ...], rules: Mapping[str, OpRule] = RULES
) -> Box | None:
    """The box of the first input that one unit of an operator's output depends on; None if on no element.

    unit: an index for every axis of the output. The box may reach outside the input, into padding.
    """
    boxes: dict[int, Box] = {op.outputs[0].id: tuple((i, i) for i in unit)}
    for earlier in reversed(recording.ops[: op.index + 1]):
        wanted = [(k, boxes[v.id]) for k, v in enumerate(_distinct(earlier, rules)) if v.id in boxes]
        for value in earlier.inputs if wanted else ():
            found = [reads(earlier, box, value, k=k, rules=rules) for k, box in wanted]
            joined = hull([box for box in (*found, boxes.get(value.id)) if box is not None])
            if joined is not None:
                boxes[value.id] = joined
    return boxes.get(recording.inputs[0].id)


def fields(recording: Recording, *, rules: Mapping[str, OpRule] = RULES) -> dict[int, Field]:
    """The field of every value that depends on the first input, by the value's id; cost linear in operators."""
    source = recording.inputs[0]
    found = {source.id: _identity(source)}
    for op in recording.ops:
        inputs = [v for v in op.inputs if v.id in found]
        for k, out in enumerate(_distinct(op, rules) if inputs else ()):
            field = None if 0 in out.shape else _field(op, inputs, found, k=k, rules=rules)
            if field is not None:
                found[out.id] = field
    return found


def _distinct(op: Op, rules: Mapping[str, OpRule]) -> tuple[Value, ...]:
    """The outputs that are asked about: the first alone (others are its by-products), unless each reads its own."""
    rule = rule_of(op, rules=rules)
    return op.outputs if rule is None or rule.each else op.outputs[:1]


def _field(
    op: Op, inputs: list[Value], found: Mapping[int, Field], *, k: int, rules: Mapping[str, OpRule]
) -> Field | None:
    rule, out = rule_of(op, rules=rules), op.outputs[k]
    if rule and rule.reads is same_place and len(inputs) == 1 and inputs[0].shape == out.shape:
        return found[inputs[0].id]

    def at(units: Box) -> Box | None:
        return hull([found[v.id].at(box) for v in inputs if (box := reads(op, units, v, k=k, rules=rules)) is not None])

    def begins(units: Box) -> tuple[Fraction | int, ...] | None:
        lines = [found[v.id].line(box) for v in inputs if (box := reads(op, units, v, k=k, rules=rules)) is not None]
        return tuple(min(lo for lo, _ in axis) for axis in zip(*lines, strict=True)) if lines else None

    anchor = tuple(n // 2 for n in out.shape)
    everything = at(whole(out))
    if everything is None:  # no element of the input matters
        return None
    periods = [_period(op, out, axis) for axis in range(len(anchor))]
    box, start = at(_unit(anchor)), begins(_unit(anchor))
    moved = [begins(_unit(anchor, axis, period)) for axis, period in enumerate(periods)]
    still: Slopes = tuple(() for _ in everything)
    slack = _slack(inputs, found, periods)
    unclear = Field(anchor, box or everything, still, slack, False, everything)
    if start is None or any(m is None for m in moved):  # a hole between the elements that an up-sampling spreads
        return unclear
    steps = [
        tuple(_ratio(q - p, n) for p, q in zip(start, m or (), strict=True))
        for m, n in zip(moved, periods, strict=True)
    ]
    slopes = tuple(tuple((k, step[a]) for k, step in enumerate(steps) if step[a]) for a in range(len(everything)))
    field = Field(anchor, box or everything, slopes, slack, all(found[v.id].affine for v in inputs), everything)
    sure = rule is not None and rule.uniform and len(inputs) == 1 and max(periods, default=1) == 1
    return field if sure or _holds(field, out.shape, periods, at) else unclear


def _holds(field: Field, shape: tuple[int, ...], periods: list[int], at: Callable[[Box], Box | None]) -> bool:
    """Whether the first and last unit of each axis, and one period about the anchor, lie where the slopes say."""
    for axis, (n, period) in enumerate(zip(shape, periods, strict=True)):
        middle = field.anchor[axis]
        for place in {0, n - 1, *range(middle + 1, middle + period)} - {middle}:
            units = _unit(field.anchor, axis, place - middle)
            true = at(units)
            if true and any(
                not p - 2 * s <= lo <= p + 2 * s or not q - 2 * s <= hi <= q + 2 * s
                for (lo, hi), (p, q), s in zip(true, field.line(units), field.slack, strict=True)
            ):
                return False
    return True


def _slack(inputs: list[Value], found: Mapping[int, Field], periods: list[int]) -> tuple[int, ...]:
    """Along each input axis: what the inputs have, and one of their steps more where the operator up-samples."""
    fields_in = [found[v.id] for v in inputs]
    up = max(periods, default=1) > 1
    return tuple(
        max(f.slack[a] + (ceil(max((abs(step) for _, step in f.slopes[a]), default=0)) if up else 0) for f in fields_in)
        for a in range(len(fields_in[0].box))
    )


def _moved(
    interval: Interval, row: tuple[tuple[int, Fraction | int], ...], units: Box, anchor: tuple[int, ...]
) -> tuple[Fraction | int, Fraction | int]:
    lo: Fraction | int
    hi: Fraction | int
    lo, hi = interval
    for k, step in row:
        (first, last), at = units[k], anchor[k]
        near, far = (first, last) if step > 0 else (last, first)
        lo, hi = lo + step * (near - at), hi + step * (far - at)
    return lo, hi


def _identity(source: Value) -> Field:
    anchor = tuple(n // 2 for n in source.shape)
    return Field(
        anchor, _unit(anchor), tuple(((a, 1),) for a in range(len(anchor))), (0,) * len(anchor), True, whole(source)
    )


def _ratio(distance: Fraction | int, units: int) -> Fraction | int:
    step = Fraction(distance, units)
    return step.numerator if step.denominator == 1 else step


def _period(op: Op, out: Value, axis: int) -> int:
    """Units after which an up-sampling operator repeats its pattern along an axis; 1 for all others."""
    if axis < 2:
        return 1
    if op.args.get("transposed"):
        stride = op.args["stride"]
        return stride[axis - 2] if len(stride) > 1 else stride[0]
    n = out.shape[axis] // max(1, op.inputs[0].shape[axis]) if axis < len(op.inputs[0].shape) else 1
    return max(1, n)


def _unit(place: tuple[int, ...], axis: int = 0, step: int = 0) -> Box:
    return tuple((i + step, i + step) if k == axis else (i, i) for k, i in enumerate(place))
