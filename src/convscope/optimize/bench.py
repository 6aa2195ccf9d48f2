"""Bench: candidates are made one after the other, compared with the network, scored, and timed in turns with it."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Protocol, final

import torch
from torch import Tensor, nn

from convscope.clock import Timing
from convscope.engines import Judge, named_outputs
from convscope.errors import ConvscopeError, ModelError
from convscope.evaluate import EVALUATIONS
from convscope.optimize.candidates import LOSSLESS, STAGES, STRUCTURAL, Candidate, Made, Material
from convscope.optimize.fusing import CLOSE, difference
from convscope.optimize.progress import Progress
from convscope.optimize.result import GAIN, ORIGINAL, Row, chosen
from convscope.optimize.retrain import Teaching, distil
from convscope.optimize.structural import CHANGES, Change
from convscope.runs.loaded import LoadedModel
from convscope.tasks import score_of

JUDGED = 500  # validation pictures at most that say which layers stand eight bits
FINALISTS = 4  # files that take turns in the last run

Tried = tuple[Row, Made | None]


class Clock(Protocol):
    """`convscope.clock.compare`, or what stands in for it."""

    def __call__(
        self, runs: Mapping[str, Callable[[], object]], *, rounds: int, at_least: float, at_most: float
    ) -> dict[str, Timing]: ...


@final
@dataclass(frozen=True, eq=False)
class Bench:
    """Where candidates are compared with the network: pictures, a test set, the drop allowed, a clock, a teacher.

    `made` are the forms so far that are right.
    """

    loaded: LoadedModel
    x: Tensor
    batch: Tensor
    images: Any
    max_drop: float
    clock: Clock
    teaching: Teaching | None
    progress: Progress
    made: dict[str, Made] = field(default_factory=dict)

    def judge(self, validation: Any) -> Judge:
        """Who says on some pictures how much a form loses, and whether it is worth being made better."""
        at = torch.linspace(0, len(validation) - 1, min(JUDGED, len(validation))).long().unique()
        some, task = validation.subset(at), self.loaded.task

        def score(module: nn.Module) -> float:
            return float(getattr(EVALUATIONS[task](module, some), score_of(task)))

        return Judge(score, self.max_drop, self._beaten)

    def stages(self, material: Material) -> tuple[Row, ...]:
        """The network as it is, and every candidate."""
        rows = [self.original]
        stages = (*STAGES, STRUCTURAL) if self.images is not None else (LOSSLESS,)
        self.progress.total = sum(len(STAGES.get(s, CHANGES if self.teaching else ())) for s in stages)
        for stage in stages:
            tried = [*(self._structural(rows, material) if stage == STRUCTURAL else self._stage(stage, material))]
            if tried:
                found = self._timed(tried)
                rows[0] = replace(rows[0], seconds=rows[0].seconds or found[0].seconds, ratio=1.0)
                rows += found[1:]
        return self._last_run(rows)

    @cached_property
    def original(self) -> Row:
        """The network as it is, with its score."""
        size = sum(t.numel() * t.element_size() for t in self.loaded.model.state_dict().values())
        return self._scored(Row("", ORIGINAL, bytes=size), self.loaded.model)

    def _stage(self, stage: str, material: Material) -> Iterator[Tried]:
        for candidate in STAGES[stage]:
            self.progress.begin(candidate.name)
            row, form = self._tried(Row(stage, candidate.name), candidate, material)
            self.progress.end(row.why)
            yield row, form

    def _structural(self, rows: Sequence[Row], material: Material) -> Iterator[Tried]:
        """Every change of structure, in the forms of file that were the fastest of each stage so far."""
        best = [chosen(tuple(r for r in rows if r.stage == stage)) for stage in STAGES]
        forms = [c for stage in STAGES.values() for c in stage if c.name in {b.candidate for b in best if b}]
        too_far: dict[str, str] = {}  # changes that lose too much, and the least of them
        for change in CHANGES if self.teaching else ():
            self.progress.begin(change.name)
            try:
                if change.less in too_far:
                    too_far[change.name] = too_far[change.less]
                    raise ModelError(f"did not learn, since {too_far[change.less]} cost too much already")
                changed = material.changed(self._learnt(change, material, chosen(tuple(rows))))
                tried = [self._tried(Row(STRUCTURAL, f"{change.name}, {f.name}"), f, changed) for f in forms]
            except ConvscopeError as error:
                tried = [(Row(STRUCTURAL, change.name, why=str(error)), None)]
            if all(self._lost(row) > self.max_drop for row, _ in tried):
                too_far[change.name] = change.name
            self.progress.end(tried[-1][0].why)
            yield from tried

    def _learnt(self, change: Change, material: Material, best: Row | None) -> nn.Module:
        """The changed network, which has learnt again.

        Raises: ModelError where that would be in vain.
        """
        assert self.teaching is not None
        changed = change.make(material.model, self.batch, self.clock)
        if best:
            (form,) = (c for stage in STAGES.values() for c in stage if c.name == best.candidate)
            quick, name = form.make(material.changed(changed, judged=False)), f"{change.name}, {form.name}"
            times = self._clocked({best.candidate: self.made[best.candidate], name: quick})
            if times[name].over(times[best.candidate]) >= GAIN:
                raise ModelError(f"did not learn, as it is no faster in {form.name}")
        return distil(changed, material.model, self.teaching)

    def _tried(self, row: Row, candidate: Candidate, material: Material) -> Tried:
        """The candidate made, compared and scored; without a form if it is not worth timing."""
        try:
            form = candidate.make(material)
            self.progress.doing("compared")
            others = named_outputs(form.module(self.x))
        except ConvscopeError as error:
            return replace(row, why=str(error)), None
        size = sum(map(len, form.files.values())) if form.files else None
        off = difference(self._own, others)
        row = replace(row, bytes=size, is_file=form.files is not None, note=form.note, difference=off)
        row = replace(row, agreement=_agreement(self.loaded.task, self._own, others))
        if row.stage == LOSSLESS and not off <= CLOSE:
            return replace(row, why="not equal"), None
        if not off < float("inf"):
            return replace(row, why="not finite"), None
        row = self._scored(row, form.module)
        if self.images is not None and not self._lost(row) <= self.max_drop:
            why = f"less accurate, by {100 * self._lost(row):.2f} points"
            return replace(row, why="; ".join(filter(None, (why, form.excuse)))), None
        self.made[row.candidate] = form
        return row, form

    @cached_property
    def _own(self) -> dict[str, Tensor]:
        """What the network gives for the pictures."""
        return named_outputs(self.loaded.model(self.x))

    def _scored(self, row: Row, module: nn.Module) -> Row:
        if self.images is None:
            return row
        self.progress.doing("scored")
        found = EVALUATIONS[self.loaded.task](module, self.images)
        score, interval = getattr(found, score_of(self.loaded.task)), getattr(found, "interval", None)
        return replace(row, score=float(score), interval=interval)

    def _lost(self, row: Row) -> float:
        """How much of the network's score; nothing where there is none."""
        return 0.0 if row.score is None or self.original.score is None else self.original.score - row.score

    def _beaten(self, form: nn.Module) -> str:
        """The file so far that is as fast as a form, "" if there is none."""
        files = {name: made for name, made in self.made.items() if made.files}
        times = self._clocked(files | {"": Made(form)})
        best = min(files, key=lambda name: times[name].over(times[""]), default="")
        if best and times[""].over(times[best]) >= GAIN:
            return best
        self.progress.doing("layers are sought that go back to float32")
        return ""

    def _timed(self, tried: Sequence[Tried]) -> list[Row]:
        """The network as it is, and the rows with their times."""
        times = self._clocked({row.candidate: form for row, form in tried if form is not None})
        found = [Row("", ORIGINAL, times[ORIGINAL].median)]
        for row, _ in tried:
            if row.candidate in times:
                share = times[row.candidate].over(times[ORIGINAL])
                why = "" if share < GAIN else "slower" if share > 1 / GAIN else "no faster"
                row = replace(row, seconds=times[row.candidate].median, ratio=1 / share, why=why)
            found.append(row)
        return found

    def _last_run(self, rows: Sequence[Row]) -> tuple[Row, ...]:
        """The rows, the best of all stages with their ratio in one run, and out of the choice if that is no gain."""
        files = sorted((r for r in rows if r.helps and r.is_file), key=lambda r: -(r.ratio or 0))[:FINALISTS]
        inside = sorted((r for r in rows if r.helps and not r.is_file), key=lambda r: -(r.ratio or 0))[:1]
        names = [r.candidate for r in (*files, *inside)]
        if not names:
            return tuple(rows)
        times = self._clocked({name: self.made[name] for name in names})
        shares = {name: times[name].over(times[ORIGINAL]) for name in names}

        def told(row: Row) -> Row:
            share = shares.get(row.candidate)
            if share is None:
                return row
            return replace(row, final=1 / share, why="" if share < GAIN else "no faster in the last run")

        return tuple(map(told, rows))

    def _clocked(self, forms: Mapping[str, Made]) -> dict[str, Timing]:
        """The times of the network and of these forms, in turns."""
        self.progress.doing(f"{len(forms)} forms and the network are timed in turns")
        runs: dict[str, Callable[[], object]] = {ORIGINAL: lambda: self.loaded.model(self.batch)}
        runs |= {name: lambda module=form.module: module(self.batch) for name, form in forms.items()}
        return self.clock(runs, rounds=15, at_least=20e-3, at_most=2.0 * len(runs))

    def notes(self) -> tuple[str, ...]:
        """How it was measured, and what was not tried."""
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


def _agreement(task: str, own: Mapping[str, Tensor], others: Mapping[str, Tensor]) -> float | None:
    """The share of equal predictions: of pictures or of pixels; None where a prediction is not one class."""
    if task == "detect" or len(own) != 1:
        return None
    (mine,), (other,) = own.values(), others.values()
    return float((mine.argmax(1) == other.argmax(1)).double().mean()) if mine.dim() > 1 else None
