"""What a network says of pictures: the likeliest classes and their probabilities."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor, nn

from convscope.errors import InputError
from convscope.evaluate import checked_logits, evaluating
from convscope.table import Column, Table
from convscope.tasks import Classification


@dataclass(frozen=True, slots=True)
class Prediction:
    """One class for one picture; rank 1 is the likeliest, probability is 0..1."""

    image: str
    rank: int
    label: str
    probability: float


@dataclass(frozen=True, slots=True)
class Predictions:
    """Rows by picture, then by rank."""

    rows: tuple[Prediction, ...]

    def table(self) -> Table:
        """A row a prediction."""
        columns = (
            Column("image", "image"),
            Column("rank", "rank"),
            Column("label", "class"),
            Column("probability", "probability", "%"),
        )
        rows = tuple(
            {"image": r.image, "rank": r.rank, "label": r.label, "probability": 100 * r.probability} for r in self.rows
        )
        return Table(columns, rows, title="Predictions")

    def data(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {"predictions": [asdict(r) for r in self.rows]}


def predict(
    model: nn.Module, images: Tensor, *, classes: Sequence[str], top: int = 5, names: Sequence[str] | None = None
) -> Predictions:
    """The `top` likeliest classes of each picture.

    Shapes: images [N, C, H, W], normalised as the model was trained; the model gives logits [N, len(classes)].
    names: what the pictures are called; their positions if left out.
    Raises: InputError if `top` or the number of names does not fit; ModelError if the model does not.

    >>> import torch
    >>> class Two(nn.Module):
    ...     def forward(self, x):
    ...         return torch.tensor([[0.0, 1.0]])
    >>> rows = predict(Two(), torch.zeros(1, 1, 8, 8), classes=("cat", "dog")).rows
    >>> [(r.label, round(r.probability, 3)) for r in rows]
    [('dog', 0.731), ('cat', 0.269)]
    """
    names = [str(i) for i in range(len(images))] if names is None else names
    if top < 1 or len(names) != len(images):
        raise InputError(f"predict: needs top >= 1 and a name a picture, got top {top} and {len(names)} names "
                         f"for {len(images)} pictures")  # fmt: skip
    with evaluating(model) as device:
        logits = checked_logits(model, images.to(device), num_classes=len(classes))
    return likeliest(logits, classes=classes, names=names, top=top)


def likeliest(logits: Tensor, *, classes: Sequence[str], names: Sequence[str], top: int) -> Predictions:
    """The `top` likeliest classes of each picture, from what the network gave for them: logits [N, len(classes)]."""
    best = Classification(len(classes)).decode(logits).cpu().topk(min(top, len(classes)), dim=1)
    rows = (
        Prediction(name, rank, classes[int(label)], probability)
        for name, labels, values in zip(names, best.indices.tolist(), best.values.tolist(), strict=True)
        for rank, (label, probability) in enumerate(zip(labels, values, strict=True), 1)
    )
    return Predictions(tuple(rows))
