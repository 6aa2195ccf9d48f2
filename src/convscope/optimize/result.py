"""What was tried, what it came to, and what was kept."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from convscope.table import Column, Table

ORIGINAL = "the network as it is"
GAIN = 0.97  # what helps takes at most so much of the network's time: less is noise


@dataclass(frozen=True, slots=True)
class Row:
    """One candidate; None where it was not measured.

    `seconds` for a batch (median), `ratio` how many times as fast as the network as it is, in one run with it; `bytes`
    of its files; `difference` the largest one of an output as a share of its largest value; `agreement` the share of
    equal predictions; `score` and `interval` on the data, 0 to 1. `why` says why it does not help, and is empty if it
    does. `is_file` tells what can be written from what lives in this process alone. `final` is `ratio` in the last run,
    among the best of all stages.
    """

    stage: str
    candidate: str
    seconds: float | None = None
    ratio: float | None = None
    bytes: int | None = None
    difference: float | None = None
    agreement: float | None = None
    score: float | None = None
    interval: tuple[float, float] | None = None
    why: str = ""
    is_file: bool = False
    note: str = ""
    final: float | None = None

    @property
    def helps(self) -> bool:
        """Faster, and as right as was asked for."""
        return not self.why and self.ratio is not None and self.stage != ""

    @property
    def standing(self) -> tuple[float, float]:
        """What the choice goes by: the last run, and the stage's own where it was not in that."""
        return self.final or 0.0, self.ratio or 0.0


def chosen(rows: tuple[Row, ...]) -> Row | None:
    """The fastest that helps and can be written as a file."""
    return max((r for r in rows if r.helps and r.is_file), key=lambda r: r.standing, default=None)


@dataclass(frozen=True, slots=True)
class Optimised:
    """Every candidate that was tried, in order, the network as it is first, and the files of the one that was kept."""

    model: str
    batch_size: int
    num_images: int
    score: str
    rows: tuple[Row, ...]
    files: tuple[Path, ...]
    notes: tuple[str, ...]

    @property
    def kept(self) -> Row | None:
        """The row of the files; None if nothing that can be written helps."""
        return chosen(self.rows)

    def table(self) -> Table:
        """A row a candidate."""
        columns = [
            Column("stage", "stage"),
            Column("candidate", "candidate"),
            Column("ms", "time", "ms"),
            Column("ratio", "times as fast"),
            Column("final", "in the last run"),
            Column("mib", "size", "MiB"),
            Column("difference", "difference"),
            Column("agreement", "agreement", "%"),
        ]
        if self.score:
            columns += [Column("score", self.score, "%"), Column("interval", "95 % interval")]
        rows = tuple(self._shown(r) for r in self.rows)
        title = f"{self.model}, batch {self.batch_size}"
        return Table((*columns, Column("verdict", "verdict")), rows, title=title, notes=(*self.notes, *self._told()))

    def _shown(self, row: Row) -> dict[str, Any]:
        low, high = row.interval or (0, 0)
        return {
            "stage": row.stage,
            "candidate": row.candidate,
            "ms": row.seconds and 1e3 * row.seconds,
            "ratio": row.ratio,
            "final": row.final,
            "mib": row.bytes and row.bytes / 2**20,
            "difference": row.difference,
            "agreement": _percent(row.agreement),
            "score": _percent(row.score),
            "interval": f"{100 * low:.1f} to {100 * high:.1f}" if row.interval else "",
            "verdict": self._verdict(row),
        }

    def _verdict(self, row: Row) -> str:
        if row.candidate == ORIGINAL or row.why:
            return row.why
        said = "kept" if row == self.kept else "helps" if row.is_file else "helps, in this process alone"
        return f"{said} ({row.note})" if row.note else said

    def _told(self) -> list[str]:
        kept = self.kept
        best = max((r for r in self.rows if r.helps), key=lambda r: r.standing, default=None)
        if best is None:
            return ["nothing helps: the network is kept as it is"]
        if kept is None:
            return [f"what helps lives in a process of PyTorch alone ({best.candidate}): no file was written"]
        where = f", in {', '.join(map(str, self.files))}" if self.files else ""
        told = [f"kept: {kept.candidate}, {kept.final or kept.ratio:.2f} times as fast{where}"]
        if best != kept and best.final and kept.final:
            told.append(f"{best.candidate}, which no file holds, is {best.final / kept.final:.2f} times as fast")
        return told

    def data(self) -> dict[str, Any]:
        """Plain data for JSON."""
        kept = self.kept
        rows = [asdict(r) | {"helps": r.helps, "kept": r == kept} for r in self.rows]
        return asdict(self) | {"files": [str(f) for f in self.files], "rows": rows}


def _percent(share: float | None) -> float | None:
    return None if share is None else 100 * share
