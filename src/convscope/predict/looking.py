"""A network shown some pictures: all that its heads say of them."""

from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from convscope.data.images import Picture
from convscope.evaluate import checked_logits, evaluating
from convscope.models import classes_of_heads
from convscope.predict.classification import Predictions, likeliest
from convscope.predict.joint import Together
from convscope.predict.objects import Asked, Objects, Regions, objects_of, regions_of
from convscope.runs.loaded import LoadedModel

BATCH = 32
Told = Predictions | Objects | Regions | Together


class Wish(NamedTuple):
    """What is told: the `top` likeliest classes, objects that score `threshold`, each so-many-th frame of a video."""

    top: int = 5
    threshold: float = 0.4
    every: int = 1


def look(loaded: LoadedModel, some: Sequence[tuple[str, Picture]], wish: Wish) -> tuple[Told, list[str]]:
    """What a model says of pictures with names, and what was done to the pictures.

    Raises: ImageError if one cannot be brought to what the model takes; ModelError if that does not fit its task.
    """
    names, pictures = [name for name, _ in some], [picture for _, picture in some]
    prepared = [loaded.prepare(picture) for picture in pictures]
    x, sizes = torch.cat([x for x, _ in prepared]), [picture.shape[:2] for picture in pictures]
    told = predict_any(loaded, x, names=names, sizes=sizes, top=wish.top, threshold=wish.threshold)
    return told, [note for _, own in prepared for note in own]


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
            if loaded.task == "classify":
                outputs: Any = checked_logits(loaded.model, x, num_classes=len(classes))
            else:
                outputs = loaded.model(x)
            for head, own in heads.items():
                given = outputs[head] if len(heads) > 1 else outputs
                asked = Asked(own, names[here], sizes[here], x.shape[2:], threshold)
                told[head].append(_read(head, given, asked, top))
    answers = {head: joined(parts) for head, parts in told.items()}
    return Together(answers) if len(answers) > 1 else answers[loaded.task]


def _read(head: str, outputs: Any, asked: Asked, top: int) -> Predictions | Objects | Regions:
    if head == "classify":
        return likeliest(outputs, classes=asked.classes, names=asked.names, top=top)
    return objects_of(outputs, asked) if head == "detect" else regions_of(outputs, asked)


def joined(parts: Sequence[Any]) -> Any:
    """What was told of batches, as told of all pictures at once."""
    first, *rest = parts
    if isinstance(first, Together):
        return Together({head: joined([part.of[head] for part in parts]) for head in first.of})
    lists = [f.name for f in fields(first) if f.name != "classes"]
    return replace(first, **{name: sum((getattr(p, name) for p in rest), getattr(first, name)) for name in lists})


def without_masks(told: Any) -> Any:
    """The same, without what each pixel is."""
    if isinstance(told, Together):
        return Together({head: without_masks(own) for head, own in told.of.items()})
    return replace(told, masks=()) if isinstance(told, Regions) else told
