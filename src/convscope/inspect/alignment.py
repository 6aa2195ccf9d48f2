"""Where branches meet that look at different places: the centres of their fields lie apart."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any

from convscope.graph import RULES, Op, Recording, Value
from convscope.graph.rules import Rules
from convscope.inspect.lines import centre_apart
from convscope.inspect.receptive_field import Field, fields_through
from convscope.table import Column, Table, number

COLUMNS = (
    Column("join", "join"),
    Column("first", "branch"),
    Column("second", "beside"),
    Column("apart", "apart", "px"),
)

MOST_TOLD = 4  # joins that a sentence is given to


@dataclass(frozen=True, slots=True)
class Misalignment:
    """Two branches whose fields have their centres `apart` input elements along each axis, where `join` joins them.

    Positive: `second` looks further down or right than `first`. Of the phases of an up-sampling, the mean.
    """

    join: str
    op: int
    first: str
    second: str
    apart: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Alignment:
    """The answer of `misaligned`: empty where all branches look at the same places."""

    found: tuple[Misalignment, ...]
    joins: int

    def table(self, *, title: str = "") -> Table:
        """One row for each pair of branches that do not look at the same place."""
        rows = tuple(asdict(m) | {"apart": tuple(number(a) for a in m.apart)} for m in self.found)
        return Table(COLUMNS, rows, title=title, notes=(f"{self.joins} joins of local branches were compared",))

    @property
    def sentences(self) -> tuple[str, ...]:
        """One for each join, with the two branches that are farthest apart; of many joins, the first."""
        worst: dict[int, Misalignment] = {}
        for found in sorted(self.found, key=lambda m: max(map(abs, m.apart))):
            worst[found.op] = found
        shown = [worst[op] for op in sorted(worst)]
        told = [
            f"{m.join}: joins branches that look at different places, {'x'.join(number(abs(a)) for a in m.apart)} px "
            f"apart ({m.first} and {m.second})"
            for m in shown[:MOST_TOLD]
        ]
        rest = len(shown) - MOST_TOLD
        return (*told, *([f"{rest} more joins are like that"] if rest > 0 else []))

    def data(self) -> dict[str, Any]:
        """Plain data for JSON: `found`, `joins`."""
        return asdict(self)

    def __str__(self) -> str:
        return self.table().text()


def misaligned(recording: Recording, *, rules: Rules = RULES) -> Alignment:
    """The joins of a network whose branches look at different places of the first input.

    Such are an even kernel with padding at one side, or a strided 1x1 shortcut beside an unpadded 3x3 kernel: what is
    added does not lie at the same place. Branches whose fields are bounds, or that see everything, are not compared.

    >>> import torch
    >>> from convscope import record
    >>> class Late(torch.nn.Module):
    ...     def forward(self, x):
    ...         return x[..., :-1] + torch.nn.functional.avg_pool1d(x, 2, stride=1)
    >>> misaligned(record(Late(), torch.zeros(1, 1, 8))).found[0].apart
    (0.5,)
    """
    found: list[Misalignment] = []
    joins, made_in = 0, {v.id: op.module or op.name for op in recording.ops for v in op.outputs}
    for op, through in _joins(recording, rules):
        joins += 1
        for (a, p), (b, q) in combinations(through, 2):
            apart = _apart(p, q, op.outputs[0].shape)
            if any(apart):
                names = (made_in.get(a.id, a.name), made_in.get(b.id, b.name))
                found.append(Misalignment(op.module or op.name, op.index, *names, apart))
    return Alignment(tuple(found), joins)


def _joins(recording: Recording, rules: Rules) -> Iterator[tuple[Op, list[tuple[Value, Field]]]]:
    """The operators that join local fields, each with what it sees through each of its inputs."""
    for out, _, op, through in fields_through(recording, rules=rules):
        known = [(v, f) for v, f in through if len(f.parts) == 1 and not f.is_bound]
        if len(known) > 1 and out is op.outputs[0]:
            yield op, known


def _apart(p: Field, q: Field, shape: tuple[int, ...]) -> tuple[float, ...]:
    return tuple(
        0.0
        if a.axis != b.axis or a.axis is None or a.covers(n) or b.covers(n)
        else centre_apart(a, b, shape[a.axis] // 2)
        for a, b, n in zip(p.lines, q.lines, p.lengths, strict=True)
    )
