"""How well a network with several heads does at each of its tasks."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from convscope.data.samples import SampleSet
from convscope.evaluate.detection import evaluate_detection
from convscope.evaluate.segmentation import evaluate_segmentation
from convscope.models import OneHead
from convscope.table import Tables
from convscope.tasks import TASKS

HEADS = {"detect": evaluate_detection, "segment": evaluate_segmentation}


@dataclass(frozen=True, slots=True, eq=False)
class JointEvaluation:
    """The evaluation of each task, by its name, over the same pictures."""

    of: Mapping[str, Any]

    @property
    def score(self) -> float:
        """The mean of the tasks' scores."""
        return sum(getattr(found, TASKS[name].score) for name, found in self.of.items()) / len(self.of)

    def table(self) -> Tables:
        """The table of each task."""
        return Tables(tuple(replace(found.table(), title=f"Evaluation: {name}") for name, found in self.of.items()))

    def data(self) -> dict[str, Any]:
        """Plain data for JSON, by task, and the score."""
        return {"score": self.score} | {name: found.data() for name, found in self.of.items()}


def evaluate_joint(model: nn.Module, images: SampleSet, *, batch_size: int = 32) -> JointEvaluation:
    """Measure every head of a network on a set that serves all their tasks, each as if it were the only one.

    Raises: ModelError if a head does not give what its task needs.
    """
    return JointEvaluation(
        {task: HEADS[task](OneHead(model, task), images.part(task), batch_size=batch_size) for task in images.parts()}
    )
