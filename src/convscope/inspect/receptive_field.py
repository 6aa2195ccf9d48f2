"""Receptive fields: which part of the network's input an output can depend on, on any graph.

`receptive_field` walks backwards from one unit: its box holds all that the unit can see, and the padding in between.
`fields` answers for every operator in one forward sweep: the local field of all units of a map, and apart from it the
modules through which a unit sees everything.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction

from convscope.geometry import Interval
from convscope.graph import RULES, Box, Op, Recording, Value, reading, reads, resizing, rule_of
from convscope.graph.rules import Rules, conv_windows, hull, outputs_apart, pool_windows, whole
from convscope.inspect.lines import (
    LONGEST,
    NOTHING,
    Line,
    behind,
    each,
    join,
    joined,
    reshaped_line,
    split_line,
    transposed_line,
    window_line,
)

Unit = tuple[int | None, ...]  # an index for every axis; None: all along it together
Lines = tuple[Line, ...]
MOST_PARTS = 4
MOST_CUTS = 2  # of what a unit sees, one within the other


@dataclass(frozen=True, slots=True)
class Field:
    """What the units of one map see of the network's first input: a local field, and perhaps everything besides.

    `axes` are the input's axes of space, `lengths` how long they are. The local field is the union of `parts`, each a
    line an axis: there are several where what moves with one axis is mixed with what moves with another (as queries
    and keys are), and none behind a global pooling. `global_through` names the modules, or operators, at which every
    unit came to see an axis from end to end.
    """

    axes: tuple[int, ...]
    lengths: tuple[int, ...]
    parts: tuple[Lines, ...]
    global_through: tuple[str, ...] = ()

    @property
    def is_local(self) -> bool:
        """Whether anything is seen apart from everything."""
        return bool(self.parts)

    @property
    def lines(self) -> Lines:
        """The local field as one line an axis; where the parts do not move together, a bound."""
        if not self.parts:
            return tuple(Line(None, ((0, n - 1),)) for n in self.lengths)
        if len(self.parts) == 1:
            return self.parts[0]
        return tuple(_bound(list(each), n) for each, n in zip(zip(*self.parts, strict=True), self.lengths, strict=True))

    @property
    def is_bound(self) -> bool:
        """Whether some units see less than is said: an operator moves them in a way not followed, or cuts maps up."""
        return any(line.bound or line.within for line in self.lines)

    @property
    def has_phases(self) -> bool:
        """Whether units differ in size, as they do behind an up-sampling."""
        return any(len(set(line.sizes)) > 1 for line in self.lines)

    @property
    def size(self) -> tuple[int, ...]:
        """Input elements from the first to the last that a unit sees, along each axis: the largest over the phases."""
        pairs = zip(self.lines, self.lengths, strict=True)
        return tuple(n if line.covers(n) else max(line.sizes) for line, n in pairs)

    @property
    def stride(self) -> tuple[Fraction | int, ...] | None:
        """Steps of the field as the unit moves by one (the jump), along each axis; None where that is no one number."""
        if not self.parts:
            return None
        followed = [line.axis for line in self.lines if line.axis is not None]
        if any(line.bound for line in self.lines) or len(set(followed)) < len(followed):
            return None
        return tuple(_plain(Fraction(line.step, line.period)) for line in self.lines)

    @property
    def padding(self) -> tuple[int, ...] | None:
        """How far the field of unit 0 reaches before the input begins, along each axis; of the phases, the farthest.

        Source: Araujo, Norris & Sim 2019 (doi:10.23915/distill.00021), `P_0`.
        """
        if self.stride is None:
            return None
        return tuple(max(-line.at(u)[0] for u in _seeing(line)) for line in self.lines)

    @property
    def moves_with(self) -> tuple[int, ...]:
        """The axes of the map along which its units see different places."""
        return tuple(sorted({line.axis for part in self.parts for line in part if line.axis is not None}))

    def at(self, unit: Unit) -> Box | None:
        """The local field of one unit, an interval for each axis of `axes`; None if it sees nothing."""
        box = tuple(line.seen[0] if line.axis is None else line.at(unit[line.axis] or 0) for line in self.lines)
        return None if NOTHING in box or any(lo > hi for lo, hi in box) else box


def receptive_field(recording: Recording, op: Op, *, unit: tuple[int, ...], rules: Rules = RULES) -> Box | None:
    """The box of the first input that one unit of an operator's output depends on; None if on no element.

    unit: an index for every axis of the output. The box may reach outside the input, into padding; it holds holes and
    what is seen through global pooling. `reach` gives the exact elements, `fields` the local part.
    """
    boxes: dict[int, Box] = {op.outputs[0].id: tuple((i, i) for i in unit)}
    for earlier in reversed(recording.ops[: op.index + 1]):
        wanted = [(k, boxes[v.id]) for k, v in enumerate(outputs_apart(earlier, rules=rules)) if v.id in boxes]
        for value in earlier.inputs if wanted else ():
            found = [reads(earlier, box, value, k=k, rules=rules) for k, box in wanted]
            seen = hull([box for box in (*found, boxes.get(value.id)) if box is not None])
            if seen is not None:
                boxes[value.id] = seen
    return boxes.get(recording.inputs[0].id)


def fields(recording: Recording, *, rules: Rules = RULES) -> dict[int, Field]:
    """The field of every value that depends on the first input, by the value's id; cost linear in operators."""
    found = {recording.inputs[0].id: _identity(recording)}
    found |= {out.id: field for out, field, _, _ in fields_through(recording, rules=rules)}
    return found


def fields_through(
    recording: Recording, *, rules: Rules = RULES
) -> Iterator[tuple[Value, Field, Op, list[tuple[Value, Field]]]]:
    """Each value with its field, the operator that made it, and what it sees through each of the operator's inputs."""
    found = {recording.inputs[0].id: _identity(recording)}
    for op in recording.ops:
        inputs = [v for v in dict.fromkeys(op.inputs) if v.id in found]
        for k, out in enumerate(outputs_apart(op, rules=rules) if inputs else ()):
            links = [_Links(op, v, k, rules, alone=len(inputs) == 1) for v in inputs]
            parts = [(x.value, f) for x in links if (f := _through(op, found[x.value.id], x)) is not None]
            if parts and 0 not in out.shape:
                found[out.id] = _joined([f for _, f in parts])
                yield out, found[out.id], op, parts


def _identity(recording: Recording) -> Field:
    axes, shape = space(recording), recording.inputs[0].shape
    return Field(axes, tuple(shape[a] for a in axes), (tuple(map(each, axes)),))


def space(recording: Recording) -> tuple[int, ...]:
    """The axes of space of the first input: as many last ones as the first convolution has, else all after channels."""
    ndim = len(recording.inputs[0].shape)
    kernels = (len(op.args["weight"].shape) - 2 for op in recording.ops if op.target == "aten.convolution.default")
    return tuple(range(ndim))[-min(next(kernels, ndim - 2 if ndim > 2 else ndim - 1) or 1, ndim) :]


def _through(op: Op, field: Field, links: "_Links") -> Field | None:
    """The field that an operator's output has through one of its inputs; None if it reads nothing of it."""
    rule = links.rule
    if rule and rule.reads is reading.nothing:
        return None
    if rule and rule.reads is reading.same_place and links.value.shape == links.out.shape:
        return field
    parts, names = [], list(field.global_through)
    for old in field.parts:
        new = tuple(_moved(line, links, n) for line, n in zip(old, field.lengths, strict=True))
        seen = [line.covers(n) for line, n in zip(new, field.lengths, strict=True)]
        if any(now and not was.covers(n) for now, was, n in zip(seen, old, field.lengths, strict=True)):
            names.append(op.module or op.name)
        empty = any(line.misses(n) for line, n in zip(new, field.lengths, strict=True))
        parts += [] if all(seen) or empty else [new]
    return Field(field.axes, field.lengths, tuple(parts), tuple(dict.fromkeys(names)))


def _moved(line: Line, links: "_Links", n: int) -> Line:
    """One line of an input, seen from the operator's output."""
    if line.within:
        parts = [(_moved(part, links, count), count) for part, count in line.within]
        line = replace(line, within=())
        left = tuple(part for part in parts if not part[0].covers(part[1]))
        if any(part.bound or part.within for part, _ in left) or len(left) > MOST_CUTS:
            return _lost(line, links, n)
        made = _moved(line, links, n)
        return replace(made, within=(*left, *made.within)) if left and not made.bound else made
    if line.axis is None and not line.bound:
        return line
    if line.bound:  # the axes are lost: only who reads all of the input is known to see all that it sees
        return Line(None, line.seen) if links.reads_all() else line
    link = links.along(line.axis or 0)
    if link is not None and link.axis is None:
        return Line(None, (line.over(*link.seen[0]),), within=link.within)
    return links.moved(line, link) or _lost(line, links, n)


def _lost(line: Line, links: "_Links", n: int) -> Line:
    """What all units of the line see together, since it is not known which sees what."""
    first, last = line.seen[0] if line.axis is None else line.over(0, links.value.shape[line.axis] - 1)
    return Line(None, ((max(first, 0), min(last, n - 1)),), bound=True)


def _joined(fields: list[Field]) -> Field:
    """Their parts, those that move together as one."""
    if len(fields) == 1:
        return fields[0]
    first, parts = fields[0], list[Lines]()
    for part in dict.fromkeys(p for f in fields for p in f.parts):
        i, together = next(
            ((i, t) for i, p in enumerate(parts) if (t := _together(p, part, first.lengths))), (-1, None)
        )
        parts = [*parts, part] if together is None else [*parts[:i], together, *parts[i + 1 :]]
    if len(parts) > MOST_PARTS:
        each = zip(zip(*parts, strict=True), first.lengths, strict=True)
        parts = [tuple(_bound(list(lines), n) for lines, n in each)]
    names = tuple(dict.fromkeys(name for f in fields for name in f.global_through))
    return Field(first.axes, first.lengths, tuple(parts), names)


def _together(a: Lines, b: Lines, lengths: tuple[int, ...]) -> Lines | None:
    """The hull of two parts that move together; what stands still and sees all of an axis gives way to what moves."""
    lines = []
    for p, q, n in zip(a, b, lengths, strict=True):
        line = p if q.covers(n) else q if p.covers(n) else join([p, q]) if not (p.bound or q.bound) else None
        line = line or (_bound([p, q], n) if p.bound or q.bound else None)
        if line is None:
            return None
        lines.append(line)
    return tuple(lines)


def _bound(lines: list[Line], n: int) -> Line:
    """What lines see at most."""
    still = [line.seen[0] for line in lines if line.axis is None]
    every = [(0, n - 1)] if len(still) < len(lines) else []
    return Line(None, (joined([*still, *every]),), bound=True)


class _Links:
    """The lines of one operator from its output to one of its inputs, asked of its rule."""

    def __init__(self, op: Op, value: Value, k: int, rules: Rules, *, alone: bool) -> None:
        self.op, self.value, self.k, self.rules, self.alone = op, value, k, rules, alone
        self.rule, self.out = rule_of(op, rules=rules), op.outputs[k]
        self._found: dict[int, Line | None] = {}

    def along(self, axis: int) -> Line | None:
        """The line along an axis of the input; None if it is not known to repeat."""
        if axis not in self._found:
            self._found[axis] = self._along_axis(axis)
        return self._found[axis]

    def _along_axis(self, axis: int) -> Line | None:
        rule, op = self.rule, self.op
        if rule is None or rule.reads is reading.everything:
            return None
        if rule.reads is reading.conv_reads and self.value == op.args["input"] and axis >= 2:
            window = conv_windows(op)[axis - 2]
            return transposed_line(axis, window) if op.args["transposed"] else window_line(axis, window)
        if rule.reads is reading.pool_reads:
            windows = pool_windows(op)
            place = axis - (len(self.value.shape) - len(windows))
            return window_line(axis, windows[place]) if place >= 0 else each(axis)
        if rule.reads is reading.cat_reads:
            return self._beside(axis)
        if rule.reads is resizing.adaptive_reads and self.out.shape[axis] == 1 < self.value.shape[axis]:
            return Line(None, ((0, self.value.shape[axis] - 1),))
        if rule.reads is reading.reshape_reads:
            return reshaped_line(axis, self.out.shape, self.value.shape)
        if rule.reads is reading.changed_reads:
            return self._written(axis)
        if rule.reads is reading.stack_reads:
            return each(axis + (axis >= op.args["dim"] % len(self.out.shape)))
        if rule.reads in (reading.reflected_reads, reading.replicated_reads):
            before = reading.padding_before(op, len(self.value.shape))[axis]
            return Line(axis, ((-before, -before),), 1)  # a mirror shows at the border what lies inside
        return self._probed(axis)

    def moved(self, line: Line, link: Line | None) -> Line | None:
        """The line of the output, from a line of the input and the operator's own."""
        if link is not None:
            return behind(line, link)
        if self.rule is None or self.rule.reads is not reading.reshape_reads:
            return None
        return split_line(line, self.out.shape, self.value.shape)

    def _beside(self, axis: int) -> Line | None:
        """Along the axis that parts are joined at, only a single part that depends on the input is followed."""
        if axis != self.op.args["dim"] % len(self.out.shape):
            return each(axis)
        parts = self.op.args["tensors"]
        start = sum(p.shape[axis] for p in parts[: parts.index(self.value)])
        return Line(axis, ((-start, -start),), 1) if self.alone else None

    def _written(self, axis: int) -> Line | None:
        """Of a tensor changed through a view: its own place before, or where the written box begins."""
        if self.value == self.op.args["self"]:
            return each(axis)
        if self.op.args["start"] is None:
            return None
        where = self.op.args["axes"][axis]
        start = self.op.args["start"][where]
        return Line(where, ((-start, -start),), 1)

    def reads_all(self) -> bool:
        """Whether a single unit reads all of the input."""
        if self.rule is None or self.rule.reads is reading.everything:
            return False
        unit = tuple((n // 2, n // 2) for n in self.out.shape)
        return reads(self.op, unit, self.value, k=self.k, rules=self.rules) == whole(self.value)

    def _ask(self, axis: int = 0, unit: int | None = None) -> Box | None:
        """What a slice of the output reads: one unit along an axis, everything along the others."""
        box = whole(self.out)
        return reads(
            self.op,
            box if unit is None else (*box[:axis], (unit, unit), *box[axis + 1 :]),
            self.value,
            k=self.k,
            rules=self.rules,
        )

    def _probed(self, axis: int) -> Line | None:
        """The line found by asking the rule about single units; None if two axes move it, or it does not repeat."""
        all_of_it = self._ask()
        if all_of_it is None:
            return None
        movers: dict[int, int] = {}  # how far a step along an axis of the output moves what is read
        for a, n in enumerate(self.out.shape):
            if n == 1:
                continue
            one, next_one = self._ask(a, n // 2 - 1), self._ask(a, n // 2)
            if one is None or next_one is None or one[axis] != all_of_it[axis] or one[axis] != next_one[axis]:
                movers[a] = abs(next_one[axis][0] - one[axis][0]) if one and next_one else 0
        if not movers:
            return Line(None, (all_of_it[axis],))
        most = max(movers, key=movers.__getitem__)
        line = self._along(axis, most)
        others = tuple((each(a), self.out.shape[a]) for a in movers if a != most)
        return replace(line, within=others) if line and others else line

    def _along(self, axis: int, mover: int) -> Line | None:
        """The line along the one axis of the output that moves what is read of the input's axis."""
        n, m = self.value.shape[axis], self.out.shape[mover]
        sure = self.rule is not None and self.rule.uniform
        corners = self.op.args.get("align_corners") and m > 1
        period = 1 if sure else Fraction(n - 1, m - 1).denominator if corners else Fraction(n, m).denominator
        if period > LONGEST:
            return None
        first = m // 2 // period * period
        if first + period >= m and first >= period:  # the unit a period behind must exist
            first -= period
        seen = [self._interval(axis, mover, u) for u in range(first, first + period + 1)]
        if any(s is None for s in seen):
            return None
        known = [s for s in seen if s is not None]
        step = known[-1][0] - known[0][0]
        back = first // period * step
        line = Line(mover, tuple((lo - back, hi - back) for lo, hi in known[:-1]), step)
        return line if sure or self._holds(line, axis, mover) else None

    def _interval(self, axis: int, mover: int, unit: int) -> Interval | None:
        box = self._ask(mover, unit)
        return box[axis] if box else None

    def _holds(self, line: Line, axis: int, mover: int) -> bool:
        """Whether the first and last units read what the line says, but for what lies outside the input."""
        n, m = self.value.shape[axis], self.out.shape[mover]
        return all(
            self._interval(axis, mover, u) == tuple(min(max(i, 0), n - 1) for i in line.at(u)) for u in {0, m - 1}
        )


def _seeing(line: Line) -> list[int]:
    return [u for u in range(line.period) if line.seen[u][0] <= line.seen[u][1]] or [0]


def _plain(value: Fraction) -> Fraction | int:
    return value.numerator if value.denominator == 1 else value
