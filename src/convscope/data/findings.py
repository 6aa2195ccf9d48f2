"""What is wrong with a data set, where, and how to mend it."""

from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from convscope.errors import DataError
from convscope.table import Column, Table

SHOWN = 50  # findings of a kind that are kept; the others are counted


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing: where (`file`, `file:line`), what was found, how to mend it, and whether training would stop at it."""

    where: str
    what: str
    mend: str
    stops: bool = True


class Stopped(DataError):  # noqa: N818 - as StopIteration: it ends a reading
    """A finding that ended reading, in one sentence."""


@dataclass(slots=True)
class Findings:
    """A list that grows; a `strict` one raises at the first finding that stops training.

    Kinds that are `allowed` stop nothing. Memory is bounded: of each kind the first 50 are kept.

    >>> found = Findings(Path("set"))
    >>> found.add("column", "a.txt:3", "has 4 columns", "write class x y width height")
    >>> found.stops, found.kept[0].where
    (True, 'a.txt:3')
    """

    root: Path
    strict: bool = False
    allowed: frozenset[str] = frozenset()
    kept: list[Finding] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    stops: bool = False

    def add(self, kind: str, where: str, what: str, mend: str, *, stops: bool = True) -> None:
        """Note one; `kind` groups those that are alike.

        Raises: DataError if it stops training and the list is strict.
        """
        stops = stops and kind not in self.allowed
        if self.strict and stops:
            raise Stopped(f"{where}: {what}; {mend} (`convscope data check {self.root}` lists all that is wrong)")
        self.counts[kind] += 1
        self.stops |= stops
        if self.counts[kind] <= SHOWN:
            self.kept.append(Finding(where, what, mend, stops))

    def note(self, kind: str, where: str, what: str, mend: str) -> None:
        """Note one that a person should know of, and that training can live with."""
        self.add(kind, where, what, mend, stops=False)

    def refuse(self, error: Exception, *, kind: str = "file") -> None:
        """Note an error of ours, which has said all three."""
        if isinstance(error, Stopped):
            raise error
        where, _, rest = str(error).partition(": ")
        what, _, mend = rest.rpartition("; ")
        with suppress(ValueError):
            where = Path(where).relative_to(self.root).as_posix()
        self.add(kind, where, what or mend, mend if what else "look at the file")


@dataclass(frozen=True, slots=True)
class Report:
    """A data set looked through: its format, task, pictures in each part, how often each class occurs, findings.

    `categories` is how the file's own numbers became classes, where they did.
    """

    root: str
    format: str
    task: str
    parts: Mapping[str, int]
    classes: Mapping[str, int]
    findings: tuple[Finding, ...]
    left_out: int = 0
    categories: Mapping[str, int] = field(default_factory=dict)

    @property
    def clean(self) -> bool:
        """Whether training can begin."""
        return not any(f.stops for f in self.findings)

    def table(self) -> Table:
        """A row a finding, those that stop training first."""
        columns = (
            Column("stops", "stops"),
            Column("where", "where"),
            Column("what", "what"),
            Column("mend", "to mend"),
        )
        rows = tuple({**asdict(f), "where": f.where} for f in self.findings)
        pictures = ", ".join(f"{count:,} {name}" for name, count in self.parts.items())
        title = f"{self.root}: {self.format}, to {self.task}: {pictures or 'no'} pictures, {len(self.classes)} classes"
        notes = [f"{self.left_out:,} more findings of the same kinds"] if self.left_out else []
        notes.append("nothing stops training" if self.clean else "training would stop at this")
        return Table(columns, rows, title=title, notes=tuple(notes))

    def data(self) -> dict[str, Any]:
        """Plain data."""
        return {**asdict(self), "clean": self.clean}
