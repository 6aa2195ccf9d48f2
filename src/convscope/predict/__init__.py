"""What a network says of pictures."""

from collections.abc import Sequence
from dataclasses import fields, replace
from itertools import chain, islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from convscope.data.frames import open_frames
from convscope.data.named import expand
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
from convscope.predict.saving import Drawings, Told, save_predictions
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
    "predict_files",
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


def predict_files(
    loaded: LoadedModel, names: Sequence[str], *, top: int = 5, threshold: float = 0.4, every: int = 1,
    out: Path | None = None,
) -> tuple[Told, list[str], list[Path]]:  # fmt: skip
    """What a model says of files, folders, patterns and videos; what was done to the pictures, and the files written.

    `every` so-many-th frame of a video is looked at. Pictures are read, told of and drawn (into `out`) 32 at a time, so
    that memory does not grow with their pixels; masks are not kept.
    Raises: ImageError; InputError if `out` cannot be written in; ModelError if the model does not fit its task.
    """
    drawings, parts, notes, written = Drawings(out) if out else None, [], {}, []
    frames = chain.from_iterable(open_frames(name, every=every) for name in expand(names))
    while batch := list(islice(frames, BATCH)):
        called, pictures = [name for name, _ in batch], [picture for _, picture in batch]
        prepared = [loaded.prepare(picture) for picture in pictures]
        notes |= dict.fromkeys(note for _, own in prepared for note in own)
        x, sizes = torch.cat([x for x, _ in prepared]), [picture.shape[:2] for picture in pictures]
        told = predict_any(loaded, x, names=called, sizes=sizes, top=top, threshold=threshold)
        written += drawings.save(told, pictures) if drawings else ()
        parts.append(without_masks(told))
    told = joined(parts)
    tables = save_predictions(told, out=out, categories=loaded.categories) if out else ()
    return told, list(notes), [*tables, *written]


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
