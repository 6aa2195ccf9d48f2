"""Data sets: embedded ones, and folders of pictures."""

from collections.abc import Callable, Mapping
from pathlib import Path

from convscope.data.digits import CLASSES, digits
from convscope.data.folder import folder, folder_classes
from convscope.data.samples import Boxes, Sample, SampleSet, TaskName
from convscope.data.scenes import SCENE_CLASSES, scenes
from convscope.data.sets import ImageSet, Normalisation, Splits
from convscope.errors import DataError, nearest

__all__ = [
    "DATASETS",
    "Boxes",
    "ImageSet",
    "Normalisation",
    "Sample",
    "SampleSet",
    "Splits",
    "TaskName",
    "class_names",
    "digits",
    "folder",
    "load",
    "scenes",
]

# task -> name -> (classes, function of the shape and the seed)
DATASETS: Mapping[str, Mapping[str, tuple[tuple[str, ...], Callable[[tuple[int, ...], int], Splits]]]] = {
    "classify": {"digits": (CLASSES, lambda shape, seed: digits(shape))},
    "detect": {"scenes": (SCENE_CLASSES["detect"], lambda shape, seed: scenes("detect", shape=shape))},
    "segment": {"scenes": (SCENE_CLASSES["segment"], lambda shape, seed: scenes("segment", shape=shape))},
    "detect,segment": {
        "scenes": (SCENE_CLASSES["detect,segment"], lambda shape, seed: scenes("detect,segment", shape=shape))
    },
}


def class_names(spec: str, *, task: TaskName = "classify") -> tuple[str, ...]:
    """The classes of a data set, before its pictures are read.

    Raises: DataError if `spec` is neither an embedded data set of the task nor a folder of class folders.

    >>> class_names("digits")[:3]
    ('0', '1', '2')
    """
    known = DATASETS[task]
    return known[spec][0] if spec in known else folder_classes(_folder(spec, task))


def load(spec: str, *, shape: tuple[int, ...], seed: int = 0, task: TaskName = "classify") -> Splits:
    """The data set `spec`, a name of `DATASETS` or a folder, as pictures of `shape` (C, H, W).

    `seed` splits a folder that has no parts of its own; embedded sets have one fixed split.
    Raises: DataError, ImageError.
    """
    known = DATASETS[task]
    return known[spec][1](shape, seed) if spec in known else folder(_folder(spec, task), shape=shape, seed=seed)


def _folder(spec: str, task: TaskName) -> Path:
    path = Path(spec)
    if task != "classify":
        raise DataError(f"data {spec!r}: is no embedded data set to {task}; {nearest(spec, DATASETS[task])}")
    if not path.is_dir():
        raise DataError(f"data {spec!r}: is neither a folder nor an embedded data set; {nearest(spec, DATASETS[task])}")
    return path
