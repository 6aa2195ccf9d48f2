"""Tasks: what is minimised in training, what a model's outputs mean, and how well they fit."""

from collections.abc import Sequence
from typing import Any, Protocol

from torch import Tensor

from convscope.tasks.classification import Classification
from convscope.tasks.detection import Detection
from convscope.tasks.joint import Joint
from convscope.tasks.segmentation import Segmentation

__all__ = ["TASKS", "Classification", "Detection", "Joint", "Metrics", "Segmentation", "Task", "make", "score_of"]


class Metrics(Protocol):
    """Counts over batches, and what they come to."""

    def to(self, device: Any) -> "Metrics": ...

    def update(self, decoded: Any, targets: Any) -> None: ...

    def compute(self) -> dict[str, Tensor]: ...


class Task(Protocol):
    """What the trainer needs to know of a task."""

    @property
    def score(self) -> str:
        """The metric that says how good a network is; more is better."""
        ...

    def loss(self, outputs: Any, targets: Any) -> dict[str, Tensor]:
        """Scalars of a batch: `loss` is minimised, the others are averaged over an epoch and logged."""
        ...

    def decode(self, outputs: Any) -> Any:
        """A model's raw outputs as what a person asks for."""
        ...

    def metrics(self) -> Metrics:
        """Fresh metrics, updated with (decoded outputs, targets)."""
        ...

    def wanted(self, picture: Sequence[int]) -> str:
        """What a network must give for one picture [C, H, W], in words."""
        ...

    def serves(self, shapes: Sequence[tuple[int, ...]], picture: Sequence[int]) -> bool:
        """Whether outputs of these shapes are that."""
        ...


TASKS = {"classify": Classification, "detect": Detection, "segment": Segmentation}


def make(task: str, num_classes: int, **options: Any) -> Task:
    """One task by its name, or several with commas between them, with its options.

    >>> make("classify,segment", 11).names
    ('classify', 'segment')
    """
    if "," in task:
        return Joint(num_classes, names=tuple(task.split(",")), **options)
    return TASKS[task](num_classes, **options)


def score_of(task: str) -> str:
    """The metric that says how good a network is at a task, or at several.

    >>> score_of("detect"), score_of("detect,segment")
    ('map', 'score')
    """
    return Joint.score if "," in task else TASKS[task].score
