"""How well a network finds objects: average precision with its uncertainty, what it misses and confuses."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from convscope.data.samples import Boxes, SampleSet
from convscope.errors import ModelError
from convscope.evaluate.common import bootstrap, judged, known, table_of, told
from convscope.evaluate.precision import Matches, match, overlap
from convscope.models import Candidates
from convscope.table import Column, Table
from convscope.tasks import Detection

RESAMPLES = 200
SHOWN_SCORE, SHOWN_OVERLAP = 0.4, 0.5  # what the confusion matrix counts as said, and as meant


@dataclass(frozen=True, slots=True)
class ClassPrecision:
    """One class: its objects, average precision over overlaps of 0.50 to 0.95, and at 0.50; None without objects."""

    name: str
    objects: int
    ap: float | None
    ap50: float | None


@dataclass(frozen=True, slots=True, eq=False)
class DetectionEvaluation:
    """The result over a set of pictures.

    `map`, `map50` and `map75` are COCO's; `interval` holds 95 % of `map` when pictures are drawn anew.
    `confusion[i][j]` counts objects of class i that were called j, by boxes that overlap by half and score 0.4 or
    more; its last column counts the missed, its last row what was found where nothing is. `found` are the boxes of
    each picture; `mistakes` the wrong, missed and needless ones of each, and `worst` the pictures' order by them.
    """

    num_images: int
    map: float
    interval: tuple[float, float]
    map50: float
    map75: float
    per_class: tuple[ClassPrecision, ...]
    confusion: tuple[tuple[int, ...], ...]
    found: tuple[Boxes, ...]
    mistakes: tuple[int, ...]
    worst: tuple[int, ...]

    def table(self) -> Table:
        """A row a class, and the mean as the total."""
        columns = (Column("objects", "objects"), Column("ap", "AP", "%"), Column("ap50", "AP at 0.50", "%"))
        notes = (
            told("mAP", self.map, self.interval, self.num_images),
            f"at an overlap of 0.50: {100 * self.map50:.2f} %, of 0.75: {100 * self.map75:.2f} %",
        )
        return table_of(self.per_class, columns, mean={"ap": self.map, "ap50": self.map50}, notes=notes)

    def data(self) -> dict[str, Any]:
        """Plain data for JSON."""
        named = ("boxes", "labels", "scores")
        found = [{name: getattr(boxes, name).tolist() for name in named} for boxes in self.found]
        return {k: v for k, v in asdict(self).items() if k != "found"} | {"found": found}


def evaluate_detection(model: nn.Module, images: SampleSet, *, batch_size: int = 32) -> DetectionEvaluation:
    """Find the objects of every picture of a set, on the model's device, and compare with the true boxes.

    Raises: ModelError if the model gives something other than `Candidates`.
    """
    return judged(model, images, BoxJudge(images), batch_size=batch_size)


class BoxJudge:
    """Found and true boxes of each picture, gathered batch by batch, on the CPU."""

    def __init__(self, images: SampleSet) -> None:
        self.classes, self.shape, self.task = images.classes, images.shape, Detection(len(images.classes))
        self.found: list[Boxes] = []
        self.true: list[Boxes] = []

    def take(self, outputs: Any, targets: Boxes) -> None:
        """What the network gives for a batch, and what is there.

        Raises: ModelError if it is no `Candidates`.
        """
        if not isinstance(outputs, Candidates):
            wanted = self.task.wanted(self.shape)
            raise ModelError(f"model: gives a {type(outputs).__name__}, but {wanted} are needed; give a detector")
        boxes = self.task.decode(outputs).to("cpu")
        self.found += [boxes.of(i) for i in range(len(outputs.logits))]
        self.true += [targets.of(i) for i in range(len(outputs.logits))]

    def result(self) -> DetectionEvaluation:
        """How good they are."""
        count, num_classes = len(self.found), len(self.classes)
        matches = match(self.found, self.true, num_classes=num_classes)
        once = torch.ones(1, count, dtype=torch.float64)
        each = torch.stack([m.average_precision(once)[0] for m in matches])  # [C, T]
        at50, at75 = 0, 5  # of the overlaps 0.50 to 0.95
        confusion, mistakes = _confusion(self.found, self.true, num_classes)
        return DetectionEvaluation(
            num_images=count,
            map=each.nanmean().item(),
            interval=bootstrap(count, lambda w_RP: _means(w_RP, matches), resamples=RESAMPLES),
            map50=each[:, at50].nanmean().item(),
            map75=each[:, at75].nanmean().item(),
            per_class=tuple(
                ClassPrecision(name, int(m.true.sum()), known(ap.mean()), known(ap[at50]))
                for name, m, ap in zip(self.classes, matches, each, strict=True)
            ),
            confusion=tuple(tuple(row) for row in confusion.tolist()),
            found=tuple(self.found),
            mistakes=tuple(mistakes),
            worst=tuple(int(i) for i in np.argsort(-np.array(mistakes), kind="stable")),
        )


def _means(weights_RP: Tensor, matches: Sequence[Matches]) -> Tensor:
    return torch.stack([m.average_precision(weights_RP) for m in matches]).nanmean((0, 2))


def _confusion(found: Sequence[Boxes], true: Sequence[Boxes], num_classes: int) -> tuple[np.ndarray, list[int]]:
    """Objects by true and said class, with a last row and column for nothing; and the mistakes of each picture."""
    counts, mistakes = np.zeros((num_classes + 1, num_classes + 1), np.int64), []
    for said, meant in zip(found, true, strict=True):
        said = said.where(said.scores >= SHOWN_SCORE)
        own = np.zeros_like(counts)
        lying = overlap(said.boxes.double().numpy(), meant.boxes.double().numpy())
        taken: set[int] = set()
        for at, label in enumerate(said.labels.tolist()):  # best first
            free = [(lying[at, g], g) for g in range(len(meant.labels)) if g not in taken]
            share, best = max(free, default=(0.0, -1))
            if share >= SHOWN_OVERLAP:
                taken.add(best)
                own[int(meant.labels[best]), label] += 1
            else:
                own[num_classes, label] += 1
        for g, label in enumerate(meant.labels.tolist()):
            own[label, num_classes] += g not in taken
        counts += own
        mistakes.append(int(own.sum() - np.trace(own)))
    return counts, mistakes
