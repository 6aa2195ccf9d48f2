"""What a network says of pictures."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from itertools import chain, islice
from pathlib import Path
from typing import NamedTuple

from convscope.data.decoding import Decoder
from convscope.data.frames import are_many, try_frames
from convscope.data.images import Picture
from convscope.data.named import expand
from convscope.errors import ImageError
from convscope.predict.answers import Answer, answer
from convscope.predict.classification import Prediction, Predictions, predict
from convscope.predict.cluster import Sweep, predict_on_cluster
from convscope.predict.joint import Together
from convscope.predict.looking import BATCH, Told, Wish, joined, look, predict_any, without_masks
from convscope.predict.objects import ClassShare, FoundObject, Objects, Regions, detect, segment
from convscope.predict.saving import Drawings, check_parquet, save_as_parquet, save_predictions
from convscope.runs.loaded import LoadedModel

__all__ = [
    "Answer",
    "ClassShare",
    "FoundObject",
    "Objects",
    "Predicted",
    "Prediction",
    "Predictions",
    "Regions",
    "Sweep",
    "Together",
    "Wish",
    "answer",
    "detect",
    "predict",
    "predict_any",
    "predict_files",
    "predict_on_cluster",
    "save_predictions",
    "segment",
]


class Predicted(NamedTuple):
    """What was told of the pictures, what was done to them, the files written, and what could not be read."""

    told: Told
    notes: list[str]
    written: list[Path]
    damaged: list[ImageError]


def predict_files(
    loaded: LoadedModel, names: Sequence[str], *, top: int = 5, threshold: float = 0.4, every: int = 1,
    out: Path | None = None,
) -> Predicted:  # fmt: skip
    """What a model says of files, folders, patterns, videos, shards.

    `every` so-many-th frame of a video is looked at. Pictures are read, told of and drawn (into the folder `out`) 32 at
    a time, so that memory does not grow with their pixels; masks are not kept. An `out` that ends in .parquet is a
    file of the rows, and nothing is drawn. Several files are decoded in a process of its own, and one that cannot be
    read is among the `damaged`: the others are told of.
    Raises: ImageError if not one can be read; InputError if `out` cannot be written in; ModelError if the model does
    not fit its task.
    """
    table = check_parquet(out) if out and out.suffix.lower() == ".parquet" else None
    files = expand(names)
    drawings = Drawings(out, files) if out and not table else None
    parts, notes, written, damaged = [], {}, [], []
    with closing(Decoder()) as decoder:  # which begins no process before it is asked
        apart = decoder if are_many(files) else None
        frames = chain.from_iterable(try_frames(name, every=every, decoder=apart) for name in files)
        while some := list(islice(_whole(frames, damaged), BATCH)):
            told, own = look(loaded, some, Wish(top, threshold))
            notes |= dict.fromkeys(own)
            written += drawings.save(told, [picture for _, picture in some]) if drawings else ()
            parts.append(without_masks(told))
    if not parts:
        raise damaged[0]
    told = joined(parts)
    if table:
        return Predicted(told, list(notes), save_as_parquet(told, table), damaged)
    tables = save_predictions(told, out=out, categories=loaded.categories) if out else ()
    return Predicted(told, list(notes), [*tables, *written], damaged)


def _whole(
    frames: Iterable[tuple[str, Picture | ImageError]], damaged: list[ImageError]
) -> Iterator[tuple[str, Picture]]:
    """Those that could be read; the errors of the others go into the list."""
    for name, picture in frames:
        if isinstance(picture, Picture):
            yield name, picture
        else:
            damaged.append(picture)
