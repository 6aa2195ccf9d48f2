"""How well a network does on pictures that it has not seen."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from convscope import data as datasets
from convscope.errors import DataError
from convscope.evaluate.classification import (
    ClassResult,
    Evaluation,
    calibration_error,
    checked_logits,
    evaluate,
    wilson,
)
from convscope.evaluate.common import bootstrap, evaluating
from convscope.evaluate.detection import DetectionEvaluation, evaluate_detection
from convscope.evaluate.joint import JointEvaluation, evaluate_joint
from convscope.evaluate.segmentation import SegmentationEvaluation, evaluate_segmentation
from convscope.models import OneHead
from convscope.runs import Run, open_run

__all__ = [
    "EVALUATIONS",
    "ClassResult",
    "DetectionEvaluation",
    "Evaluation",
    "JointEvaluation",
    "Measured",
    "SegmentationEvaluation",
    "bootstrap",
    "calibration_error",
    "checked_logits",
    "evaluate",
    "evaluate_detection",
    "evaluate_joint",
    "evaluate_run",
    "evaluate_segmentation",
    "evaluating",
    "wilson",
]

EVALUATIONS: Mapping[str, Callable[[nn.Module, Any], Any]] = {
    "classify": evaluate,
    "detect": evaluate_detection,
    "segment": evaluate_segmentation,
    "detect,segment": evaluate_joint,
}


@dataclass(frozen=True, slots=True, eq=False)
class Measured:
    """A run and its network, the pictures that it was measured on, and the result, as its task has it."""

    run: Run
    model: nn.Module
    images: Any
    evaluation: Any

    def parts(self) -> "dict[str, Measured]":
        """The same of each task of several, as if the network had learnt that alone."""
        told = self.evaluation.of if isinstance(self.evaluation, JointEvaluation) else {}
        return {t: Measured(self.run, OneHead(self.model, t), self.images.part(t), told[t]) for t in told}


def evaluate_run(folder: Path | str, *, data: str | None = None) -> Measured:
    """Measure a run's network on the test part of its own data, or of other data with the same classes.

    Raises: CheckpointError if the run is unfinished or damaged; DataError if the classes differ.
    """
    run = open_run(folder)
    model, task = run.model(), run.config.task
    images = datasets.load(data or run.config.data, shape=run.shape, seed=run.config.seed, task=task).test
    if images.classes != run.classes:
        raise DataError(f"data {data or run.config.data!r}: has classes {', '.join(images.classes[:8])}, but {folder} "
                        f"learnt {', '.join(run.classes[:8])}; give data with those classes")  # fmt: skip
    images = replace(images, normalisation=run.normalisation)
    return Measured(run, model, images, EVALUATIONS[task](model, images))
