"""Tasks: what is minimised in training, what a model's outputs mean, and how well they fit."""

from typing import TYPE_CHECKING, Any, Protocol

from torch import Tensor

from convscope.tasks.classification import Classification

if TYPE_CHECKING:
    from torchmetrics import MetricCollection

__all__ = ["TASKS", "Classification", "Task"]


class Task(Protocol):
    """What the trainer needs to know of a task."""

    def loss(self, outputs: Any, targets: Any) -> dict[str, Tensor]:
        """Scalars of a batch: `loss` is minimised, the others are averaged over an epoch and logged."""
        ...

    def decode(self, outputs: Any) -> Any:
        """A model's raw outputs as what a person asks for."""
        ...

    def metrics(self) -> "MetricCollection":
        """Fresh metrics, updated with (decoded outputs, targets)."""
        ...


TASKS = {"classify": Classification}
