"""How well a network does on pictures that it has not seen."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

from torch import nn

from convscope import data as datasets
from convscope.data.samples import TaskName
from convscope.engines import ENDINGS
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
from convscope.runs.loaded import LoadedModel, load_model

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
    "held_out",
    "wilson",
]

EVALUATIONS: Mapping[str, Callable[[nn.Module, Any], Any]] = {
    "classify": evaluate,
    "detect": evaluate_detection,
    "segment": evaluate_segmentation,
    **{task: evaluate_joint for task in get_args(TaskName) if "," in task},
}


@dataclass(frozen=True, slots=True, eq=False)
class Measured:
    """A network and its run (None if it was exported), the pictures that it was measured on, and the result."""

    run: Run | None
    model: nn.Module
    images: Any
    evaluation: Any

    def parts(self) -> "dict[str, Measured]":
        """The same of each task of several, as if the network had learnt that alone."""
        told = self.evaluation.of if isinstance(self.evaluation, JointEvaluation) else {}
        return {t: Measured(self.run, OneHead(self.model, t), self.images.part(t), told[t]) for t in told}


def evaluate_run(folder: Path | str, *, data: str | None = None) -> Measured:
    """Measure a run's network, or an exported one, on the test part of its own data, or of other data like it.

    Raises: CheckpointError if the run is unfinished or damaged; ModelError if the exported file is; DataError if the
    classes differ, or no data are known.
    """
    run = None if str(folder).endswith(ENDINGS) else open_run(folder)
    loaded = load_model(str(folder))
    images = held_out(loaded, data)
    return Measured(run, loaded.model, images, EVALUATIONS[loaded.task](loaded.model, images))


def held_out(loaded: LoadedModel, data: str | None = None, *, part: str = "test") -> Any:
    """The test part (or another) of `data`, or of what the network was trained on, as the network takes pictures.

    Raises: DataError if the classes differ, or no data are known.
    """
    spec = data or loaded.data
    if not spec:
        raise DataError(f"{loaded.spec}: no data are known to measure it on; give --data")
    wanted: Any = {"seed": loaded.seed, "task": loaded.task, "allow_empty": data is None}  # as training had them
    parts = datasets.load(spec, shape=loaded.shape, **wanted)
    images = getattr(parts, part)
    if images.classes != loaded.classes and {*images.classes} <= {*(loaded.classes or ())}:
        images = images.as_classes(loaded.classes)
    if images.classes != loaded.classes:
        learnt = ", ".join(loaded.class_names()[:8])
        raise DataError(f"data {spec!r}: has classes {', '.join(images.classes[:8])}, but {loaded.spec} "
                        f"learnt {learnt}; give data with those classes")  # fmt: skip
    return replace(images, normalisation=loaded.normalisation)
