"""What a network says of pictures."""

from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any

from torch import Tensor

from convscope.evaluate import checked_logits, evaluating
from convscope.models import classes_of_heads
from convscope.predict.answers import Answer, answer
from convscope.predict.classification import Prediction, Predictions, likeliest, predict
from convscope.predict.joint import Together
from convscope.predict.objects import (
    Asked,
    ClassShare,
    FoundObject,
    Objects,
    Regions,
    detect,
    objects_of,
    regions_of,
    segment,
)
from convscope.predict.saving import save_predictions
from convscope.runs.loaded import LoadedModel

__all__ = [
    "Answer",
    "ClassShare",
    "FoundObject",
    "Objects",
    "Prediction",
    "Predictions",
    "Regions",
    "Together",
    "answer",
    "detect",
    "predict",
    "predict_any",
    "save_predictions",
    "segment",
]


BATCH = 32


def predict_any(
    loaded: LoadedModel, x_NCHW: Tensor, *, names: Sequence[str], sizes: Sequence[tuple[int, int]],
    top: int = 5, threshold: float = 0.4,
) -> Predictions | Objects | Regions | Together:  # fmt: skip
    """What a model says of pictures, in the manner of the task, or the tasks, that it learnt; it runs once, by 32.

    `x_NCHW` are the pictures as the model takes them; boxes and masks are told for pictures of `sizes` (H, W).
    Raises: ModelError if the model does not give what its task needs.
    """
    classes = loaded.class_names()
    heads = {h: [classes[i] for i in own] for h, own in classes_of_heads(loaded.task, len(classes)).items()}
    told: dict[str, list[Any]] = {head: [] for head in heads}
    with evaluating(loaded.model) as device:
        for at in range(0, len(x_NCHW), BATCH):
            x, here = x_NCHW[at : at + BATCH].to(device), slice(at, at + BATCH)
            outputs = checked_logits(loaded.model, x, num_classes=len(classes)) if [*heads] == ["classify"] else (
                loaded.model(x)
            )  # fmt: skip
            for head, own in heads.items():
                given = outputs[head] if len(heads) > 1 else outputs
                asked = Asked(own, names[here], sizes[here], x.shape[2:], threshold)
                told[head].append(_read(head, given, asked, top))
    answers = {head: _joined(parts) for head, parts in told.items()}
    return Together(answers) if len(answers) > 1 else answers[loaded.task]


def _read(head: str, outputs: Any, asked: Asked, top: int) -> Predictions | Objects | Regions:
    if head == "classify":
        return likeliest(outputs, classes=asked.classes, names=asked.names, top=top)
    return objects_of(outputs, asked) if head == "detect" else regions_of(outputs, asked)


def _joined(parts: Sequence[Any]) -> Any:
    """What was told of batches, as told of all pictures at once."""
    first, *rest = parts
    lists = [f.name for f in fields(first) if f.name != "classes"]
    return replace(first, **{name: sum((getattr(p, name) for p in rest), getattr(first, name)) for name in lists})
