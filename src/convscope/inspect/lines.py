"""What units see along one axis, as integers that repeat: exact for strides, phases of up-sampling, and flattened axes.

A `Line` says of unit u which interval it sees; behind an up-sampling the pattern repeats with a period. The line of an
operator (output to input) put behind the line of its input (input to the network's input) is the line of its output.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import gcd, lcm, prod

from convscope.geometry import Interval, Window, transposed_reads

NOTHING: Interval = (10**15, -(10**15))  # the hull of no element; hulls swallow it
LONGEST = 512  # units after which a pattern must repeat to be followed


@dataclass(frozen=True, slots=True)
class Line:
    """Unit u along `axis` sees `seen[u mod period]` moved by `step` a period; places outside lie in padding.

    `axis` None: it stands still. `spacing`: of the interval only every so many elements are read. `bound`: no more is
    known than what all units together see. `within`: the interval is cut into parts (a view has cut rows into windows),
    and of which the unit sees one: a line that says which, and how many there are. Who sees all parts sees all of it.
    """

    axis: int | None
    seen: tuple[Interval, ...]
    step: int = 0
    spacing: int = 1
    bound: bool = False
    within: "tuple[tuple[Line, int], ...]" = ()

    @property
    def period(self) -> int:
        """Units after which the pattern repeats."""
        return len(self.seen)

    def at(self, unit: int) -> Interval:
        """First and last element that the unit sees; NOTHING if none."""
        turns, phase = divmod(unit, len(self.seen))
        lo, hi = self.seen[phase]
        return lo + turns * self.step, hi + turns * self.step

    def over(self, first: int, last: int, *, spacing: int = 1) -> Interval:
        """What units from `first` to `last` see together: a period at each end decides."""
        if self.axis is None:
            return self.seen[0]
        units = range(first, last + 1, spacing)
        few = units if len(units) <= 2 * self.period else [*units[: self.period], *units[-self.period :]]
        return joined([self.at(u) for u in few])

    @property
    def sizes(self) -> tuple[int, ...]:
        """Elements from first to last of each phase; 0 where it sees none."""
        return tuple(max(0, hi - lo + 1) for lo, hi in self.seen)

    def covers(self, n: int) -> bool:
        """Whether every unit sees all of an axis of n elements, whichever unit it is."""
        sure = self.axis is None and not self.bound and not self.within
        return sure and self.seen[0][0] <= 0 and self.seen[0][1] >= n - 1

    def misses(self, n: int) -> bool:
        """Whether it stands still beside an axis of n elements: a class token's place before the picture's."""
        return self.axis is None and not (self.seen[0][0] < n and self.seen[0][1] >= 0)

    def longer(self, period: int) -> "Line":
        """The same line with a multiple of its period."""
        seen = tuple(self.at(u) for u in range(period))
        return Line(self.axis, seen, self.step * (period // self.period), self.spacing, within=self.within)


def joined(intervals: Sequence[Interval]) -> Interval:
    """The hull; NOTHING of none."""
    real = [i for i in intervals if i[0] <= i[1]]
    return (min(lo for lo, _ in real), max(hi for _, hi in real)) if real else NOTHING


def each(axis: int) -> Line:
    """Every unit along an axis sees its own place."""
    return Line(axis, ((0, 0),), 1)


def window_line(axis: int, w: Window) -> Line:
    """A convolution's or a pooling's line from its output to its input.

    >>> window_line(2, Window(3, stride=2, padding=1)).at(4)
    (7, 9)
    """
    return Line(axis, ((-w.padding, w.span - 1 - w.padding),), w.stride, w.dilation)


def transposed_line(axis: int, w: Window) -> Line:
    """A transposed convolution's line; it repeats with its stride.

    >>> transposed_line(2, Window(3, stride=2)).seen
    ((-1, 0), (0, 0))
    """
    seen = tuple(transposed_reads(u, u, w) or NOTHING for u in range(w.stride))
    return Line(axis, seen, 1, w.dilation // gcd(w.dilation, w.stride))


def reshaped_line(axis: int, out: tuple[int, ...], into: tuple[int, ...]) -> Line | None:
    """A view's line, where one axis of its output holds all of the input's axis; None where several share it.

    >>> reshaped_line(3, (1, 8, 35), (1, 8, 5, 7)).at(9)
    (2, 2)
    """
    if prod(out) != prod(into):  # the same bytes as another type
        return None
    there, here = next((t, h) for t, h in matched(out, into) if axis in h)
    longer = [a for a in there if out[a] > 1]
    if not there:  # an axis of one element, which the output does not have
        return Line(None, ((0, 0),))
    if len(longer) > 1:
        return None
    if not there:  # the last axes are gone, each of one element
        return Line(None, ((0, 0),))
    mover = (longer or there)[-1]
    inner = prod(into[a] for a in here if a > axis)
    if all(into[a] == 1 for a in here if a < axis):
        return Line(mover, ((0, 0),) * inner, 1)
    return Line(mover, tuple((i, i) for i in range(into[axis]) for _ in range(inner)))


def split_line(line: Line, out: tuple[int, ...], into: tuple[int, ...]) -> Line | None:
    """A line behind a view that cuts its axis in two: along one of them, within the other too if it moves with both.

    It gives tokens back their rows and columns.
    """
    there, here = next((t, h) for t, h in matched(out, into) if line.axis in h)
    longer = [a for a in there if out[a] > 1]
    if len(longer) != 2 or prod(into[a] for a in here) != into[line.axis or 0]:
        return None
    inner = out[longer[1]]
    if line.step == 0 and inner % line.period == 0:
        return Line(longer[1], *_unrolled(line.seen))
    if (period := lcm(line.period, inner)) > LONGEST:
        return None
    seen, step = line.longer(period).seen, line.step * (period // line.period)
    heads = tuple(joined(seen[i : i + inner]) for i in range(0, period, inner))
    alike = all(s == heads[i // inner] for i, s in enumerate(seen))
    return Line(longer[0], heads, step, within=() if alike else ((each(longer[1]), inner),))


def _unrolled(seen: tuple[Interval, ...]) -> tuple[tuple[Interval, ...], int]:
    """The shortest pattern and its step that go through the intervals of one round, so that they go on at its ends."""
    for period in range(1, len(seen) // 2 + 1):
        turns = list(zip(seen, seen[period:], strict=False))
        if any((now[0] > now[1]) != (then[0] > then[1]) for now, then in turns):  # only nothing follows on nothing
            continue
        moves = {(then[0] - now[0], then[1] - now[1]) for now, then in turns if now[0] <= now[1]} or {(0, 0)}
        if len(moves) == 1 and len(set(*moves)) == 1:
            return seen[:period], next(iter(moves))[0]
    return seen, 0


def matched(out: tuple[int, ...], into: tuple[int, ...]) -> Iterator[tuple[list[int], list[int]]]:
    """The shortest groups of neighbouring axes that hold as many elements on both sides of a view.

    >>> list(matched((2, 12), (2, 3, 4)))
    [([0], [0]), ([1], [1, 2])]
    """
    o = i = 0
    while o < len(out) or i < len(into):
        there, here = list(range(o, min(o + 1, len(out)))), list(range(i, min(i + 1, len(into))))
        o, i = o + len(there), i + len(here)
        while (left := prod(out[a] for a in there)) != (right := prod(into[a] for a in here)):
            if left < right:
                there, o = [*there, o], o + 1
            else:
                here, i = [*here, i], i + 1
        yield there, here


def behind(line: Line, op_line: Line) -> Line | None:
    """The line of an operator's output, from that of its input and the operator's own; None if it hardly repeats."""
    if op_line.seen == ((0, 0),) and op_line.step == 1:
        return Line(op_line.axis, line.seen, line.step, line.spacing, within=op_line.within)
    turns = line.period // gcd(line.period, op_line.step)
    period = op_line.period * turns
    if period > LONGEST:
        return None
    read = [op_line.at(u) for u in range(period)]
    seen = tuple(line.over(lo, hi, spacing=op_line.spacing) if lo <= hi else NOTHING for lo, hi in read)
    return Line(op_line.axis, seen, line.step * op_line.step * turns // line.period, within=op_line.within)


def join(lines: Sequence[Line]) -> Line | None:
    """The hull of lines that follow the same axis at the same pace; None if they do not."""
    first = lines[0]
    if all(line == first for line in lines[1:]):
        return first
    if any(line.axis != first.axis or line.step * first.period != first.step * line.period for line in lines):
        return None
    period = lcm(*(line.period for line in lines))
    if period > LONGEST:
        return None
    longer = [line.longer(period) for line in lines]
    seen = tuple(joined([line.seen[u] for line in longer]) for u in range(period))
    wholes = [line.within for line in longer if line.seen == seen]  # who sees all of it decides
    within = min(wholes, key=len) if wholes else tuple(dict.fromkeys(part for line in longer for part in line.within))
    return Line(first.axis, seen, longer[0].step, within=within)


def centre_apart(a: Line, b: Line, unit: int) -> float:
    """How far the centre of `b` lies behind that of `a`, in input elements: the mean over a common period at a unit."""
    period = min(lcm(a.period, b.period), LONGEST)
    pairs = [(a.at(u), b.at(u)) for u in range(unit, unit + period)]
    apart = [(q[0] + q[1] - p[0] - p[1]) / 2 for p, q in pairs if p[0] <= p[1] and q[0] <= q[1]]
    return sum(apart) / len(apart) if apart else 0.0
