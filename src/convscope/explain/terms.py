"""Explanation: one output value of one operator, as the terms that were combined to make it.

Legend of shapes: C input channels of the group, K... kernel axes, D axes of the tensor that was read.
x_CK  the patch: what the unit read (0 in padding)      w_CK  the weight of each element
"""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from convscope.explain.text import side_by_side
from convscope.graph import Op, Value
from convscope.table import Column, Table, number

PRODUCTS = ("mm", "bmm", "addmm", "baddbmm")
SHOWN = 16  # rows of a table of named terms


@dataclass(frozen=True, slots=True)
class Term:
    """One value that was read, and its part in the result.

    `source` and `index` say where it stood; `source` is None for padding, for numbers of the operator itself, and
    for what it worked out on the way (a mean over the input). `weight` is what the value was multiplied by, None
    where it was not multiplied; `contribution` is its part of the total.
    """

    label: str
    source: Value | None
    index: tuple[int, ...]
    value: float
    weight: float | None
    contribution: float


@dataclass(frozen=True, slots=True)
class Explanation:
    """One value of one operator, term by term.

    `unit` is its index in the output. How the terms make the total, `combine` says: "sum" adds value x weight, and
    the bias; "max" takes the largest element inside; "copy" is one element from elsewhere; in a "product" each
    factor carries the whole; a "function" is worked out again in double precision from what was read.

    `origin` is the index of the patch's first element on each of its axes in the operator's input (negative in
    padding); `inside` is False where the patch lies in padding, or, for a transposed convolution, between two
    inputs. `source` and `index_CKD` say where each element of the patch stood; without a window there is no
    `source`, and `named` holds all terms (else the bias alone).
    """

    op: Op
    unit: tuple[int, ...]
    combine: Literal["sum", "max", "copy", "product", "function"]
    x_CK: np.ndarray
    w_CK: np.ndarray
    inside: np.ndarray
    origin: tuple[int, ...]
    bias: float
    model_value: float
    source: Value | None = None
    index_CKD: np.ndarray | None = None
    named: tuple[Term, ...] = ()
    result: float | None = None
    formula: str = ""

    @property
    def products(self) -> np.ndarray:
        """patch x weights, element by element."""
        with np.errstate(invalid="ignore", over="ignore"):  # infinity x 0
            return self.x_CK * self.w_CK

    @property
    def channel_sums(self) -> np.ndarray:
        """The products of each input channel, added."""
        with np.errstate(invalid="ignore", over="ignore"):
            return self.products.reshape(len(self.products), -1).sum(axis=1)

    @property
    def total(self) -> float:
        """The value, computed from its terms in float64."""
        if self.result is not None:
            return self.result
        if self.combine == "max":
            return float(self.x_CK[self.winner])
        with np.errstate(invalid="ignore", over="ignore"):
            return float(self.products.sum()) + self.bias

    @property
    def winner(self) -> tuple[int, ...]:
        """Where in the patch the largest element inside is; a NaN comes before all."""
        flat = int(np.argmax(np.where(self.inside, self.x_CK, -np.inf)))
        return tuple(int(i) for i in np.unravel_index(flat, self.x_CK.shape))

    @property
    def difference(self) -> float:
        """What PyTorch computed less what the terms add up to."""
        return self.model_value - self.total

    @property
    def of_vectors(self) -> bool:
        """Whether it is an element of a product of matrices: a row times a column, without channels."""
        return self.index_CKD is not None and self.op.name in PRODUCTS

    @property
    def contributions(self) -> np.ndarray:
        """The part of each element of the patch in the total: its product, or nothing beside the largest."""
        if self.combine != "max":
            return self.products
        parts = np.zeros_like(self.x_CK)
        parts[self.winner] = self.total
        return parts

    @property
    def terms(self) -> tuple[Term, ...]:
        """Every term, those of the patch in its order."""
        return self.largest(None)

    def largest(self, count: int | None) -> tuple[Term, ...]:
        """The `count` terms with the largest contributions, NaN before all; every term in its order if None."""
        if self.index_CKD is None:
            ranked = self.named
        else:
            flat = self.contributions.reshape(-1)
            sizes = np.nan_to_num(np.abs(flat), nan=np.inf)
            order = np.arange(flat.size) if count is None else np.argsort(-sizes, kind="stable")[:count]
            ranked = (*(self._term(int(i), float(flat[i])) for i in order), *self.named)
        if count is None:
            return ranked
        return tuple(sorted(ranked, key=lambda t: -abs(np.nan_to_num(t.contribution, nan=np.inf))))[:count]

    def _term(self, flat: int, contribution: float) -> Term:
        at = tuple(int(i) for i in np.unravel_index(flat, self.x_CK.shape))
        label = f"input {at[1]}" if self.of_vectors else f"channel {at[0]}, tap {','.join(map(str, at[1:]))}"
        weight = float(self.w_CK[at])
        if self.index_CKD is None or not self.inside[at]:
            return Term(f"{label} (padding)", None, (), 0.0, weight, contribution)
        index = tuple(int(i) for i in self.index_CKD[at])
        return Term(label, self.source, index, float(self.x_CK[at]), weight, contribution)

    def table(self) -> Table:
        """The contributions, largest first, and the total beside what the model says."""
        columns = (Column("term", "term"), Column("value", "value"))
        total = {"term": "total", "value": self.total}
        says = f"the model says {number(self.model_value)} (difference {number(self.difference)})"
        if self.index_CKD is None or self.of_vectors:
            return self._table_of_terms(says)
        if self.combine == "max":
            at = ", ".join(str(o) for o in self.index_CKD[self.winner][-len(self.origin) :])
            row = {"term": f"largest of {int(self.inside.sum())}, at {at}", "value": self.total}
            return Table(columns, (row,), title=self.title, total=total, notes=(says,))
        sums = self.channel_sums
        rows = [{"term": f"input channel {c}", "value": float(sums[c])} for c in np.argsort(-np.abs(sums))]
        if self.named or self.op.name == "convolution":
            rows.append({"term": "bias", "value": self.bias})
        return Table(columns, tuple(rows), title=self.title, total=total, notes=(says,))

    def _table_of_terms(self, says: str) -> Table:
        keys, count = ("term", "from", "value", "weight", "part"), self.x_CK.size if self.of_vectors else 0
        count += len(self.named)
        rows = [
            {"term": t.label, "from": place(t.source, t.index), "value": t.value, "weight": t.weight,
             "part": t.contribution}
            for t in self.largest(None if count <= SHOWN else SHOWN)
        ]  # fmt: skip
        left = count - len(rows)
        rest = self.total - sum(row["part"] for row in rows)
        together = f", together {number(rest)}" if self.combine == "sum" else ""
        notes = [self.formula, f"and {left:,} smaller terms{together}" if left else "", says]
        total = {"term": "total", "part": self.total}
        columns = tuple(Column(k, k) for k in keys)
        return Table(columns, tuple(rows), title=self.title, total=total, notes=tuple(n for n in notes if n))

    @property
    def title(self) -> str:
        """Which value of which layer this is."""
        return f"{self.op.module or self.op.name}[{', '.join(map(str, self.unit))}] ({self.op.name})"

    def text(self) -> str:
        """The strongest input channel as patch x weights = products, then the sums; without windows the terms."""
        if self.index_CKD is None or self.of_vectors:
            return str(self.table())
        strongest = int(np.argmax(np.abs(self.channel_sums)))
        parts = [("patch", self.x_CK[strongest])]
        if self.combine == "sum":
            parts += [("x kernel", self.w_CK[strongest]), ("= products", self.products[strongest])]
        lines = side_by_side(parts, self.inside[strongest])
        head = f"input channel {strongest} of {len(self.x_CK)} (. = padding)"
        return "\n".join([head, *lines, "", str(self.table())])

    def data(self) -> dict[str, Any]:
        """Plain data for JSON: every term with its place."""
        named = [
            {"label": t.label, "source": place(t.source, t.index), "value": t.value, "weight": t.weight,
             "contribution": t.contribution}
            for t in self.named
        ]  # fmt: skip
        return {
            "layer": self.op.module, "op": self.op.name, "unit": self.unit, "combine": self.combine,
            "origin": self.origin, "patch": self.x_CK.tolist(), "kernel": self.w_CK.tolist(),
            "inside": self.inside.tolist(), "products": self.products.tolist(),
            "channel_sums": self.channel_sums.tolist(), "bias": self.bias, "named": named, "formula": self.formula,
            "total": self.total, "model_value": self.model_value, "difference": self.difference,
        }  # fmt: skip

    def __str__(self) -> str:
        return self.text()

    def _repr_html_(self) -> str:
        return self.table().html()


def place(source: Value | None, index: tuple[int, ...]) -> str:
    """A value's tensor and its index there: `features.C1[0, 2, 3, 4]`; empty if it stood nowhere.

    >>> import torch
    >>> from convscope.graph import Role
    >>> place(Value(0, (1, 3), torch.float32, Role.INPUT, "input"), (0, 2))
    'input[0, 2]'
    """
    return "" if source is None else f"{source.name or source.role}[{', '.join(map(str, index))}]"
