"""optimize(): what is known to make a network faster, tried on this machine, and the best one kept as a file."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from convscope.clock import Timing, compare
from convscope.engines import ENDINGS, Judge, named_outputs, open_engine, output_names
from convscope.errors import ConvscopeError, InputError
from convscope.evaluate import EVALUATIONS, evaluating, held_out
from convscope.files import writable_folder, write_whole
from convscope.optimize.candidates import LOSSLESS, STAGES, STRUCTURAL, Candidate, Made, Material
from convscope.optimize.fusing import CLOSE, difference
from convscope.optimize.result import GAIN, ORIGINAL, Optimised, Row, chosen
from convscope.optimize.retrain import Teaching, distil
from convscope.optimize.structural import CHANGES, Change
from convscope.runs import open_run
from convscope.runs.loaded import LoadedModel
from convscope.tasks import score_of

PICTURES = 64
JUDGED = 500  # training pictures that say which layers stand eight bits
FINALISTS = 4  # files that take turns in the last run


class Clock(Protocol):
    """`convscope.clock.compare`, or what stands in for it."""

    def __call__(
        self, runs: Mapping[str, Callable[[], object]], *, rounds: int, at_least: float, at_most: float
    ) -> dict[str, Timing]: ...


def optimize(  # noqa: PLR0913 - what a person may set
    loaded: LoadedModel,
    *,
    out: Path | None = None,
    data: str | None = None,
    max_drop: float = 0.5,
    batch_size: int = 1,
    retrain: float = 0.0,
    clock: Clock = compare,
) -> Optimised:
    """Try what is known to make a network faster at a batch size, and write the fastest that is right into `out`.

    Lossless candidates must give what the network gives, within 0.0001 of the largest output; numeric ones may lose
    `max_drop` points of the task's score on the test pictures of `data` (of the run's own, if it is a run), and are
    left out where no data are known. Structural ones may lose as much; they need a run, and `retrain` minutes each. All
    candidates of a stage take turns with the network in one run, and the best of all stages in a last one.
    Raises: InputError if the network is an exported file; DataError if the data do not fit it.
    """
    if loaded.spec.endswith(ENDINGS):
        raise InputError(f"{loaded.spec}: is an exported network already; give the network that it was made from")
    loaded, known = loaded.on_cpu(), bool(data or loaded.data)
    images = held_out(loaded, data) if known else None
    with evaluating(loaded.model):
        x = loaded.examples(images, most=max(PICTURES, batch_size))
        card = loaded.card(output_names(loaded.model, x[:1]), data=data)
        batch = x.repeat(-(-batch_size // len(x)), 1, 1, 1)[:batch_size]
        training = held_out(loaded, data, part="train") if known else None
        bench = _Bench(loaded, x, images, max_drop / 100, clock, _teaching(loaded, training, retrain))
        judge = Judge(_scoring(loaded.task, training), max_drop / 100) if known else None
        rows, made = bench.stages(Material(loaded.model, batch, card, training=training, judge=judge))
    best = chosen(rows)
    files = _written(out, made[best.candidate].files or {}) if out and best else ()
    score = score_of(loaded.task) if known else ""
    return Optimised(loaded.spec, batch_size, len(x), score, rows, files, bench.notes())


def load(path: Path | str) -> nn.Module:
    """The network in a file that `optimize` or `export` wrote, as a module; its `card` says how pictures enter it.

    Raises: ModelError if there is no such file, or it is damaged or not convscope's.
    """
    return open_engine(Path(path))


def _written(out: Path, files: Mapping[str, bytes]) -> tuple[Path, ...]:
    """The files; the first is the one to open, and is written last."""
    writable_folder(out)
    return tuple(write_whole(out / name, content) for name, content in reversed([*files.items()]))[::-1]


def _scoring(task: str, training: Any) -> Callable[[nn.Module], float]:
    """The task's score on some training pictures."""
    at = torch.linspace(0, len(training) - 1, min(JUDGED, len(training))).long().unique()
    some = training.subset(at)
    return lambda module: float(getattr(EVALUATIONS[task](module, some), score_of(task)))


def _teaching(loaded: LoadedModel, training: Any, minutes: float) -> Teaching | None:
    """What changed networks learn from: only a run tells how."""
    if training is None or not minutes or not Path(loaded.spec).is_dir():
        return None
    return Teaching(training, open_run(loaded.spec).config, 60 * minutes)


@dataclass(frozen=True, slots=True, eq=False)
class _Bench:
    """Where candidates are compared with the network: pictures, a test set, the drop allowed, a clock, a teacher."""

    loaded: LoadedModel
    x: Tensor
    images: Any
    max_drop: float
    clock: Clock
    teaching: Teaching | None

    def stages(self, material: Material) -> tuple[tuple[Row, ...], dict[str, Made]]:
        own = named_outputs(self.loaded.model(self.x))
        size = sum(t.numel() * t.element_size() for t in self.loaded.model.state_dict().values())
        original = self._scored(Row("", ORIGINAL, bytes=size), self.loaded.model)
        rows, made = [original], {}
        for stage in (*STAGES, STRUCTURAL):
            candidates = self._structural(rows) if stage == STRUCTURAL else STAGES[stage]
            if not candidates or (stage != LOSSLESS and self.images is None):
                continue
            tried = [self._tried(Row(stage, c.name), c, material, own=own, original=original) for c in candidates]
            forms = {row.candidate: form for row, form in tried if form is not None}
            found = self._timed([row for row, _ in tried], forms, material.batch)
            rows[0] = replace(rows[0], seconds=rows[0].seconds or found[0].seconds, ratio=1.0)
            rows += found[1:]
            made |= forms
        return self._last_run(rows, made, material.batch), made

    def _structural(self, rows: Sequence[Row]) -> tuple[Candidate, ...]:
        """Every change of structure, in the forms of file that were the fastest of each stage so far."""
        if self.teaching is None:
            return ()
        best = [chosen(tuple(r for r in rows if r.stage == stage)) for stage in STAGES]
        forms = [c for stage in STAGES.values() for c in stage if c.name in {b.candidate for b in best if b}]
        return tuple(
            Candidate(f"{change.name}, {form.name}", lambda m, c=change, f=form: f.make(m.changed(c.name, self._to(c))))
            for change in CHANGES
            for form in forms
        )

    def _to(self, change: Change) -> Callable[[nn.Module, Tensor], nn.Module]:
        def make(model: nn.Module, batch: Tensor) -> nn.Module:
            assert self.teaching is not None
            return distil(change.make(model, batch, self.clock), model, self.teaching)

        return make

    def _last_run(self, rows: Sequence[Row], made: Mapping[str, Made], batch: Tensor) -> tuple[Row, ...]:
        """The rows, the best of all stages with their ratio in one run, and out of the choice if that is no gain."""
        files = sorted((r for r in rows if r.helps and r.is_file), key=lambda r: -(r.ratio or 0))[:FINALISTS]
        inside = sorted((r for r in rows if r.helps and not r.is_file), key=lambda r: -(r.ratio or 0))[:1]
        names = [r.candidate for r in (*files, *inside)]
        if not names:
            return tuple(rows)
        times = self._clocked({name: made[name] for name in names}, batch)
        shares = {name: times[name].over(times[ORIGINAL]) for name in names}

        def told(row: Row) -> Row:
            share = shares.get(row.candidate)
            if share is None:
                return row
            return replace(row, final=1 / share, why="" if share < GAIN else "no faster in the last run")

        return tuple(map(told, rows))

    def notes(self) -> tuple[str, ...]:
        notes = [
            f"compared on {len(self.x)} pictures; the candidates of a stage and the network took turns in one run, "
            "and the best of all stages in a last one, which decides"
        ]
        if self.images is None:
            notes.append("no data are known, so only what gives the same was tried; give --data for bfloat16 and int8")
        else:
            notes.append(f"at most {100 * self.max_drop:g} points lost on {len(self.images)} test pictures")
            if self.teaching is None:
                notes.append("no other structure was tried: that takes a run folder, and --retrain minutes")
        return tuple(notes)

    def _tried(
        self, row: Row, candidate: Candidate, material: Material, *, own: Mapping[str, Tensor], original: Row
    ) -> tuple[Row, Made | None]:
        """The candidate made, compared and scored; without a form if it is not worth timing."""
        try:
            form = candidate.make(material)
            others = named_outputs(form.module(self.x))
        except ConvscopeError as error:
            return replace(row, why=str(error)), None
        size = sum(map(len, form.files.values())) if form.files else None
        off = difference(own, others)
        row = replace(row, bytes=size, is_file=form.files is not None, note=form.note, difference=off)
        row = replace(row, agreement=_agreement(self.loaded.task, own, others))
        if row.stage == LOSSLESS and not off <= CLOSE:
            return replace(row, why="not equal"), None
        if not off < float("inf"):
            return replace(row, why="not finite"), None
        row = self._scored(row, form.module)
        lost = (original.score or 0) - (row.score or 0)
        if self.images is not None and not lost <= self.max_drop:
            return replace(row, why=f"less accurate, by {100 * lost:.2f} points"), None
        return row, form

    def _scored(self, row: Row, module: nn.Module) -> Row:
        if self.images is None:
            return row
        found = EVALUATIONS[self.loaded.task](module, self.images)
        score, interval = getattr(found, score_of(self.loaded.task)), getattr(found, "interval", None)
        return replace(row, score=float(score), interval=interval)

    def _timed(self, rows: list[Row], forms: Mapping[str, Made], batch: Tensor) -> list[Row]:
        """The network as it is, and the rows with their times."""
        times = self._clocked(forms, batch)
        found = [Row("", ORIGINAL, times[ORIGINAL].median)]
        for row in rows:
            if row.candidate in times:
                share = times[row.candidate].over(times[ORIGINAL])
                why = "" if share < GAIN else "slower" if share > 1 / GAIN else "no faster"
                row = replace(row, seconds=times[row.candidate].median, ratio=1 / share, why=why)
            found.append(row)
        return found

    def _clocked(self, forms: Mapping[str, Made], batch: Tensor) -> dict[str, Timing]:
        """The times of the network and of these forms, in turns."""
        runs: dict[str, Callable[[], object]] = {ORIGINAL: lambda: self.loaded.model(batch)}
        runs |= {name: lambda module=form.module: module(batch) for name, form in forms.items()}
        return self.clock(runs, rounds=15, at_least=20e-3, at_most=2.0 * len(runs))


def _agreement(task: str, own: Mapping[str, Tensor], others: Mapping[str, Tensor]) -> float | None:
    """The share of equal predictions: of pictures or of pixels; None where a prediction is not one class."""
    if task == "detect" or len(own) != 1:
        return None
    (mine,), (other,) = own.values(), others.values()
    return float((mine.argmax(1) == other.argmax(1)).double().mean()) if mine.dim() > 1 else None
