"""How well a network classifies: accuracy with its uncertainty, calibration, and what it confuses."""

import math
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from convscope.data.samples import SampleSet
from convscope.data.sets import ImageSet
from convscope.errors import InputError, ModelError, first_line
from convscope.evaluate.common import evaluating, percent
from convscope.table import Column, Table

Z95 = 1.959963984540054  # two-sided 95 % quantile of the normal distribution
CALIBRATION_BINS = 15


@dataclass(frozen=True, slots=True)
class ClassResult:
    """One class: its pictures, and the shares found (recall) and rightly named (precision); None if undefined."""

    name: str
    images: int
    predicted: int
    recall: float | None
    precision: float | None


@dataclass(frozen=True, slots=True, eq=False)
class Evaluation:
    """The result over a set of N images and C classes.

    `interval` is the 95 % Wilson interval of the accuracy; `top5` is None with five classes or fewer; `loss` is
    the mean cross-entropy in nats; `calibration_error` the expected calibration error over 15 bins;
    `confusion[i][j]` counts images of class i that were named j; `predictions` is int64 [N]; `wrong` are the
    indices of the misnamed.
    """

    num_images: int
    accuracy: float
    interval: tuple[float, float]
    top5: float | None
    loss: float
    calibration_error: float
    per_class: tuple[ClassResult, ...]
    confusion: tuple[tuple[int, ...], ...]
    predictions: Tensor
    wrong: tuple[int, ...]

    def table(self) -> Table:
        """A row a class, and the whole set as the total."""
        columns = (
            Column("name", "class"),
            Column("images", "images"),
            Column("predicted", "predicted"),
            Column("recall", "recall", "%"),
            Column("precision", "precision", "%"),
        )
        rows = tuple(
            {"name": c.name, "images": c.images, "predicted": c.predicted}
            | {"recall": percent(c.recall), "precision": percent(c.precision)}
            for c in self.per_class
        )
        total = {"name": "all", "images": self.num_images, "predicted": self.num_images}
        low, high = (100 * bound for bound in self.interval)
        notes = (
            f"accuracy {100 * self.accuracy:.2f} % (95 % interval {low:.2f} to {high:.2f} %), "
            f"{len(self.wrong)} of {self.num_images} wrong",
            *((f"top-5 accuracy {100 * self.top5:.2f} %",) if self.top5 is not None else ()),
            f"loss {self.loss:.4f}, calibration error {100 * self.calibration_error:.2f} %",
        )
        return Table(columns, rows, title="Evaluation", total=total, notes=notes)

    def data(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self) | {"predictions": self.predictions.tolist()}


def evaluate(model: nn.Module, images: ImageSet | SampleSet, *, batch_size: int = 256) -> Evaluation:
    """Classify every image of a set, on the model's device, and compare with the labels.

    The model gives logits [N, C]; it is put in evaluation mode, and back as it was.
    Raises: ModelError if it gives something else for these images.
    """
    judge = ClassJudge(images.classes)
    judge.logits.append(_logits(model, images, batch_size))
    judge.labels.append(images.labels)
    return judge.result()


class ClassJudge:
    """Logits and labels, gathered batch by batch."""

    def __init__(self, classes: tuple[str, ...]) -> None:
        self.classes = classes
        self.logits: list[Tensor] = []
        self.labels: list[Tensor] = []

    def take(self, outputs: Any, targets: Tensor) -> None:
        """What the network gives for a batch, and the classes [N].

        Raises: ModelError if it is no logits.
        """
        self.logits.append(_checked(outputs, len(targets), len(self.classes)).float().cpu())
        self.labels.append(targets)

    def result(self) -> Evaluation:
        """How good they are."""
        return _evaluation(torch.cat(self.logits), torch.cat(self.labels), self.classes)


def _evaluation(logits: Tensor, labels: Tensor, classes: tuple[str, ...]) -> Evaluation:
    num_classes = len(classes)
    named = logits.argmax(1)
    right = named == labels
    confusion = torch.bincount(labels * num_classes + named, minlength=num_classes**2).view(num_classes, num_classes)
    top5 = (logits.topk(5, dim=1).indices == labels[:, None]).any(1) if num_classes > 5 else None
    hits = int(right.sum())
    return Evaluation(
        num_images=len(labels),
        accuracy=hits / len(labels),
        interval=wilson(hits, len(labels)),
        top5=top5.double().mean().item() if top5 is not None else None,
        loss=F.cross_entropy(logits.double(), labels).item(),
        calibration_error=calibration_error(logits.double().softmax(1), labels),
        per_class=_per_class(confusion, classes),
        confusion=tuple(tuple(row) for row in confusion.tolist()),
        predictions=named,
        wrong=tuple((~right).nonzero().flatten().tolist()),
    )


def wilson(hits: int, total: int, *, z: float = Z95) -> tuple[float, float]:
    """The Wilson interval of a share: within 0..1, and of use even when all or none are right.

    Raises: InputError unless 0 <= hits <= total and total > 0.
    Source: E. B. Wilson 1927, "Probable inference, the law of succession, and statistical inference".

    >>> [round(b, 4) for b in wilson(358, 360)]
    [0.98, 0.9985]
    """
    if not 0 <= hits <= total or total == 0:
        raise InputError(f"wilson: hits are {hits} of {total}; give a total above 0, and hits from 0 to it")
    share, spread = hits / total, z * z / total
    centre = (share + spread / 2) / (1 + spread)
    half = z / (1 + spread) * math.sqrt(share * (1 - share) / total + spread / (4 * total))
    return (0.0 if hits == 0 else centre - half), (1.0 if hits == total else centre + half)


def calibration_error(probabilities: Tensor, labels: Tensor, *, bins: int = CALIBRATION_BINS) -> float:
    """Expected calibration error: the gap between confidence and accuracy, averaged over images.

    Shapes: probabilities [N, C], labels [N]. Bins have equal width and are closed above.
    Source: Guo et al. 2017 (arXiv:1706.04599).

    >>> calibration_error(torch.tensor([[0.75, 0.25]]), torch.tensor([0]))
    0.25
    """
    confidence, named = probabilities.double().max(1)
    at = (confidence * bins).ceil().long().clamp(1, bins) - 1
    gaps = torch.zeros(bins, dtype=torch.float64).index_add_(0, at, confidence - (named == labels).double())
    return gaps.abs().sum().item() / len(labels)


def checked_logits(model: nn.Module, x_NCHW: Tensor, *, num_classes: int) -> Tensor:
    """What the model gives for a batch, once it is known to be logits [N, num_classes].

    Raises: ModelError.
    """
    shape = "x".join(map(str, x_NCHW.shape))
    try:
        logits = model(x_NCHW)
    except (RuntimeError, TypeError, ValueError) as error:
        raise ModelError(f"model: does not take a batch of {shape} ({first_line(error)}); check its input") from error
    return _checked(logits, len(x_NCHW), num_classes, of=f"a batch of {shape}")


def _checked(logits: Any, count: int, num_classes: int, *, of: str = "a batch") -> Tensor:
    if not isinstance(logits, Tensor) or tuple(logits.shape) != (count, num_classes):
        found = "x".join(map(str, logits.shape)) if isinstance(logits, Tensor) else f"a {type(logits).__name__}"
        raise ModelError(
            f"model: gives {found} for {of}, but {count}x{num_classes} is needed; give one of as many classes"
        )
    return logits


def _logits(model: nn.Module, images: ImageSet | SampleSet, batch_size: int) -> Tensor:
    with evaluating(model) as device:
        return torch.cat(
            [
                checked_logits(model, images.batch(at)[0].to(device), num_classes=len(images.classes)).float().cpu()
                for at in torch.arange(len(images)).split(batch_size)
            ]
        )


def _per_class(confusion: Tensor, classes: tuple[str, ...]) -> tuple[ClassResult, ...]:
    right, images, predicted = (v.tolist() for v in (confusion.diagonal(), confusion.sum(1), confusion.sum(0)))
    return tuple(
        ClassResult(name, n, p, hit / n if n else None, hit / p if p else None)
        for name, hit, n, p in zip(classes, right, images, predicted, strict=True)
    )
