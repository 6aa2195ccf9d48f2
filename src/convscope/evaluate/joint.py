"""How well a network with several heads does at each of its tasks."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from convscope.data.samples import SampleSet
from convscope.evaluate.classification import ClassJudge
from convscope.evaluate.common import Judge, judged
from convscope.evaluate.detection import BoxJudge
from convscope.evaluate.segmentation import PixelJudge
from convscope.table import Tables
from convscope.tasks import score_of

JUDGES: Mapping[str, Callable[[SampleSet], Judge[Any]]] = {
    "classify": lambda images: ClassJudge(images.classes), "detect": BoxJudge, "segment": PixelJudge,
}  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class JointEvaluation:
    """The evaluation of each task, by its name, over the same pictures."""

    of: Mapping[str, Any]

    @property
    def score(self) -> float:
        """The mean of the tasks' scores."""
        return sum(getattr(found, score_of(name)) for name, found in self.of.items()) / len(self.of)

    def table(self) -> Tables:
        """The table of each task."""
        return Tables(tuple(replace(found.table(), title=f"Evaluation: {name}") for name, found in self.of.items()))

    def data(self) -> dict[str, Any]:
        """Plain data for JSON, by task, and the score."""
        return {"score": self.score} | {name: found.data() for name, found in self.of.items()}


def evaluate_joint(model: nn.Module, images: SampleSet, *, batch_size: int = 32) -> JointEvaluation:
    """Measure every head of a network on a set that serves all their tasks; the network runs once.

    Raises: ModelError if a head does not give what its task needs.
    """
    return judged(model, images, JointJudge(images), batch_size=batch_size)


class JointJudge:
    """A judge for each task."""

    def __init__(self, images: SampleSet) -> None:
        self.of = {task: JUDGES[task](images.part(task)) for task in images.parts()}

    def take(self, outputs: Any, targets: Mapping[str, Any]) -> None:
        """What the heads give for a batch, and what is there, by task.

        Raises: ModelError if a head is missing, or does not give what its task needs.
        """
        for task, judge in self.of.items():
            judge.take(outputs.get(task) if isinstance(outputs, Mapping) else outputs, targets[task])

    def result(self) -> JointEvaluation:
        """How good they are."""
        return JointEvaluation({task: judge.result() for task, judge in self.of.items()})
