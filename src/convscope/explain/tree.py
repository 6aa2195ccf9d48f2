"""trace(): the largest terms of a value, their largest terms, and so on towards the pixels; where a NaN began."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from html import escape
from itertools import count
from typing import Any

import numpy as np

from convscope.errors import InputError
from convscope.explain.operators import explain, explainer_of, was_kept
from convscope.explain.terms import Explanation, Term, place
from convscope.graph import Op, Recording, Role
from convscope.table import number

MAX_DEPTH, MAX_VALUES = 200, 10_000


@dataclass(frozen=True, slots=True)
class Tree:
    """One value, and the largest terms that made it.

    `op` made it; None for what no operator made: a pixel of the input, a parameter, padding. `source` and `unit`
    say where it stands. `contribution` is its part in the value above it, `share` that part in the sum of the
    magnitudes of all parts (1 at the root). `stop` says why an operator's value has no terms below it.
    """

    label: str
    source: str
    op: Op | None
    unit: tuple[int, ...]
    value: float
    contribution: float
    share: float
    stop: str = ""
    terms: tuple["Tree", ...] = ()

    def text(self) -> str:
        """One line a value: its share, what it is in the value above, where it stands, and what made it."""
        return "\n".join(self._lines(0))

    def data(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {
            "label": self.label, "source": self.source, "op": self.op and self.op.name, "unit": self.unit,
            "value": self.value, "contribution": self.contribution, "share": self.share, "stop": self.stop,
            "terms": [t.data() for t in self.terms],
        }  # fmt: skip

    def __str__(self) -> str:
        return self.text()

    def _repr_html_(self) -> str:
        return f"<pre>{escape(self.text())}</pre>"

    def _lines(self, level: int) -> Iterator[str]:
        made = f" by {self.op.name}" if self.op else ""
        stop = f" ({self.stop})" if self.stop else ""
        if level == 0:
            yield f"{self.source} = {number(self.value)}{made}{stop}"
        else:
            part = f"{100 * self.share:.0f} %  {number(self.contribution)} from {self.label}"
            stands = f": {self.source} = {number(self.value)}" if self.source else ""
            yield f"{'  ' * level}{part}{stands}{made}{stop}"
        for term in self.terms:
            yield from term._lines(level + 1)


def trace(
    recording: Recording, layer: str | int | Op, *, unit: tuple[int, ...], depth: int = 3, breadth: int = 3
) -> Tree:
    """The largest terms of one value, the largest terms of these, and so on: `depth` operators deep.

    breadth: how many terms of each value are followed. The recording must keep all operators on the way:
    `record(model, x, keep=lambda op: True)`; the tree ends where one was not kept, or has no explanation.
    Raises: InputError if depth is not 1 to 200, the tree grows beyond 10,000 values, or `explain` refuses the value.

    >>> import torch
    >>> from torch import nn
    >>> from convscope.graph import record
    >>> recording = record(nn.Sequential(nn.ReLU(), nn.ReLU()), torch.tensor([-1.0, 2.0]), keep=lambda op: True)
    >>> print(trace(recording, "1", unit=(1,)))
    1[1] = 2 by relu
      100 %  2 from x: 0[1] = 2 by relu
        100 %  2 from x: input[1] = 2
    """
    for name, given, most in (("depth", depth, MAX_DEPTH), ("breadth", breadth, MAX_VALUES)):
        if not 1 <= given <= most:
            raise InputError(f"trace: {name} is {given}; use 1 to {most:,}")
    told = explain(recording, layer, unit=unit)
    makers = {v.id: (op, i) for op in recording.ops for i, v in enumerate(op.outputs)}
    terms = _Walk(recording, makers, breadth, count(1)).below(told, depth)
    value = told.model_value
    return Tree("", place(told.op.outputs[0], unit), told.op, unit, value, value, 1.0, terms=terms)


@dataclass(frozen=True, slots=True)
class _Walk:
    """From a value to its largest terms; counts the values, so that a tree cannot grow without end."""

    recording: Recording
    makers: Mapping[int, tuple[Op, int]]  # id of a value -> the operator that made it, and as which output
    breadth: int
    counter: Iterator[int]

    def below(self, told: Explanation, depth: int) -> tuple[Tree, ...]:
        """The largest terms of a value, each with those below it."""
        in_patch = 0.0 if told.index_CKD is None else float(np.abs(told.contributions).sum())
        whole = in_patch + sum(abs(t.contribution) for t in told.named)
        largest = [t for t in told.largest(self.breadth) if t.contribution != 0] or told.largest(1)
        return tuple(self._node(term, whole, depth) for term in largest)

    def _node(self, term: Term, whole: float, depth: int) -> Tree:
        if next(self.counter) > MAX_VALUES:
            raise InputError(
                f"trace: the tree grows beyond {MAX_VALUES:,} values; use a smaller depth, or a breadth of 1"
            )
        op, output = self.makers.get(term.source.id, (None, 0)) if term.source else (None, 0)
        stop, terms = "", ()
        if op and depth > 1:
            if explainer_of(op, output) is None:
                stop = "no explanation yet"
            elif not was_kept(self.recording, op, output):
                stop = "not kept"
            else:
                told = explain(self.recording, op, unit=term.index, output=output)
                terms = self.below(told, depth - 1)
        source, share = place(term.source, term.index), abs(term.contribution) / whole if whole else 0.0
        return Tree(term.label, source, op, term.index, term.value, term.contribution, share, stop, terms)


def first_nan(recording: Recording) -> Op | None:
    """The first operator whose kept output holds a NaN or an infinity, while what operators made for it does not.

    If the picture or a parameter holds one, that is the first operator that reads it. None if no kept output
    holds one.

    >>> import torch
    >>> from torch import nn
    >>> from convscope.graph import record
    >>> class Root(nn.Module):
    ...     def forward(self, x):
    ...         return torch.relu(torch.log(x))
    >>> first_nan(record(Root(), torch.tensor([1.0, -1.0]), keep=lambda op: True)).name
    'log'
    """
    for op in recording.ops:
        read = [v for v in op.inputs if v.role is Role.ACTIVATION]
        if _bad(recording, op.outputs) and not _bad(recording, read):
            return op
    return None


def _bad(recording: Recording, values: Any) -> bool:
    tensors = [recording.tensors[v.id] for v in values if v.id in recording.tensors]
    return any(not bool(t.isfinite().all()) for t in tensors)
