"""What a network says of pictures."""

from collections.abc import Sequence
from itertools import chain, islice
from pathlib import Path

from convscope.data.frames import open_frames
from convscope.data.named import expand
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


def predict_files(
    loaded: LoadedModel, names: Sequence[str], *, top: int = 5, threshold: float = 0.4, every: int = 1,
    out: Path | None = None,
) -> tuple[Told, list[str], list[Path]]:  # fmt: skip
    """What a model says of files, folders, patterns, videos, shards; what was done to the pictures; the files written.

    `every` so-many-th frame of a video is looked at. Pictures are read, told of and drawn (into the folder `out`) 32 at
    a time, so that memory does not grow with their pixels; masks are not kept. An `out` that ends in .parquet is a
    file of the rows, and nothing is drawn.
    Raises: ImageError; InputError if `out` cannot be written in; ModelError if the model does not fit its task.
    """
    table = check_parquet(out) if out and out.suffix.lower() == ".parquet" else None
    drawings, parts, notes, written = Drawings(out) if out and not table else None, [], {}, []
    frames = chain.from_iterable(open_frames(name, every=every) for name in expand(names))
    while some := list(islice(frames, BATCH)):
        told, own = look(loaded, some, Wish(top, threshold))
        notes |= dict.fromkeys(own)
        written += drawings.save(told, [picture for _, picture in some]) if drawings else ()
        parts.append(without_masks(told))
    told = joined(parts)
    if table:
        return told, list(notes), save_as_parquet(told, table)
    tables = save_predictions(told, out=out, categories=loaded.categories) if out else ()
    return told, list(notes), [*tables, *written]
