"""Several tasks of one network, learnt together: a head each, and the sum of their losses."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from convscope.models import classes_of_heads
from convscope.tasks.classification import Classification
from convscope.tasks.detection import Detection
from convscope.tasks.segmentation import Segmentation

PARTS = {"classify": Classification, "detect": Detection, "segment": Segmentation}
OUTPUTS = {"classify": 1, "detect": 4, "segment": 1}  # tensors that a head gives
Part = Classification | Detection | Segmentation


@dataclass(frozen=True, slots=True)
class Joint:
    """Several tasks on the same pictures.

    Outputs and targets are dicts by task; each has the shapes of its task. `num_classes` counts those of the masks,
    where there are masks; the first of them is the background, which no box and no picture has. `weights` of a task's
    loss are 1 where none is given.
    """

    num_classes: int
    weights: Mapping[str, float] = field(default_factory=dict)
    names: tuple[str, ...] = ("detect", "segment")

    score = "score"

    @property
    def tasks(self) -> dict[str, Part]:
        """The tasks, by the names of their heads."""
        heads = classes_of_heads(",".join(self.names), self.num_classes)
        return {name: PARTS[name](len(classes)) for name, classes in heads.items()}

    def loss(self, outputs: Mapping[str, Any], targets: Mapping[str, Any]) -> dict[str, Tensor]:
        """`loss`, the weighted sum to be minimised, and what each task tells of its own, such as `detect_loss`."""
        told = {name: task.loss(outputs[name], targets[name]) for name, task in self.tasks.items()}
        total = sum(self.weights.get(name, 1.0) * own["loss"] for name, own in told.items())
        named = {f"{name}_{key}": v.detach() for name, own in told.items() for key, v in own.items()}
        return {"loss": total, **named}  # pyright: ignore[reportReturnType]

    def decode(self, outputs: Mapping[str, Any]) -> dict[str, Any]:
        """What a person asks for, by task."""
        return {name: task.decode(outputs[name]) for name, task in self.tasks.items()}

    def metrics(self) -> "JointMetrics":
        """The metrics of every task, `detect_map` for instance, and `score`, the mean of the tasks' scores."""
        return JointMetrics(self.tasks)

    def wanted(self, picture: Sequence[int]) -> str:
        """In words, what a network must give."""
        return "; ".join(f"{name}: {task.wanted(picture)}" for name, task in self.tasks.items())

    def serves(self, shapes: Sequence[tuple[int, ...]], picture: Sequence[int]) -> bool:
        """Whether outputs of these shapes are that."""
        left, found = list(shapes), []
        for name, task in self.tasks.items():
            found.append(task.serves(left[: OUTPUTS[name]], picture))
            left = left[OUTPUTS[name] :]
        return all(found) and not left


class JointMetrics:
    """The metrics of several tasks."""

    def __init__(self, tasks: Mapping[str, Part]) -> None:
        self.scores = {name: f"{name}_{task.score}" for name, task in tasks.items()}
        self.inner: dict[str, Any] = {name: task.metrics() for name, task in tasks.items()}

    def to(self, device: Any) -> "JointMetrics":
        """Itself, with its counts on a device."""
        self.inner = {name: metrics.to(device) for name, metrics in self.inner.items()}
        return self

    def update(self, decoded: Mapping[str, Any], targets: Mapping[str, Any]) -> None:
        """What was found and what is true in a batch, by task."""
        for name, metrics in self.inner.items():
            metrics.update(decoded[name], targets[name])

    def compute(self) -> dict[str, Tensor]:
        """Every metric with its task before its name, and their `score`."""
        told = {f"{name}_{key}": v for name, metrics in self.inner.items() for key, v in metrics.compute().items()}
        scores = [told[key].cpu() for key in self.scores.values()]
        return {**told, "score": sum(scores) / len(scores)}  # pyright: ignore[reportReturnType]
