"""compare(): what changed from one network to another."""

from dataclasses import dataclass
from typing import Any

from convscope.inspect.budget import widest_field
from convscope.inspect.memory import MIB, mib
from convscope.inspect.modules import ModuleCost, rolled
from convscope.inspect.summary import Summary
from convscope.table import Column, Table

COLUMNS = (
    Column("name", "module"),
    Column("change", "change"),
    Column("output_shape", "output"),
    Column("params", "params"),
    Column("macs", "MACs"),
    Column("activation", "activation", "MiB"),
)


@dataclass(frozen=True, slots=True)
class Comparison:
    """Modules that are not the same in two networks, as (before, after); None where one has no such module."""

    before: Summary
    after: Summary
    modules: tuple[tuple[ModuleCost | None, ModuleCost | None], ...]
    same: int

    def table(self, *, title: str = "") -> Table:
        """One row a module that changed, each number as the difference; the totals of both below."""
        notes = [f"{self.same} modules are the same"] if self.same else []
        for name, key in (("parameters", "params"), ("MACs", "macs")):
            a, b = getattr(self.before.total, key), getattr(self.after.total, key)
            notes.append(f"{name}: {a:,} -> {b:,}{_ratio(a, b)}")
        a, b = widest_field(self.before), widest_field(self.after)
        notes.append(f"largest local receptive field: {a:,} px -> {b:,} px{_ratio(a, b)}")
        a, b = self.before.total.memory.peak, self.after.total.memory.peak
        notes.append(f"peak memory for inference: {mib(a)} -> {mib(b)}{_ratio(a, b)}")
        return Table(COLUMNS, tuple(_row(a, b) for a, b in self.modules), title=title, notes=tuple(notes))

    def data(self) -> dict[str, Any]:
        """Plain data for JSON: totals of both, and the rows of the table."""
        rows = [_row(a, b) for a, b in self.modules]
        return {"before": self.before.data()["total"], "after": self.after.data()["total"], "modules": rows}

    def __str__(self) -> str:
        return self.table().text()


def compare(before: Summary, after: Summary, *, depth: int = 99) -> Comparison:
    """Which modules `after` has that differ from those of `before`, by their paths cut to `depth` names."""
    old = {m.path: m for m in rolled(before, depth=depth).modules}
    new = {m.path: m for m in rolled(after, depth=depth).modules}
    pairs = [(old.get(path), new.get(path)) for path in {**old, **new}]
    changed = tuple((a, b) for a, b in pairs if a != b)
    return Comparison(before, after, changed, len(pairs) - len(changed))


def _row(a: ModuleCost | None, b: ModuleCost | None) -> dict[str, Any]:
    shown = b or a
    change = "added" if a is None else "removed" if b is None else "changed"
    shapes = (m.output_shape for m in (a, b) if m)
    return {
        "name": shown.path if shown else "",
        "change": change,
        "output_shape": " -> ".join(dict.fromkeys("x".join(map(str, s)) for s in shapes)),
        "params": _difference(a, b, "params"),
        "macs": _difference(a, b, "macs"),
        "activation": (_difference(a, b, "activation_bytes") or 0) / MIB or None,
    }


def _difference(a: ModuleCost | None, b: ModuleCost | None, key: str) -> int | None:
    return ((getattr(b, key) if b else 0) - (getattr(a, key) if a else 0)) or None


def _ratio(a: int, b: int) -> str:
    return f" ({100 * (b - a) / a:+.1f} %)".replace("-", "\N{MINUS SIGN}") if a and a != b else ""
