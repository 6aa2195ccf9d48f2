"""Data sets: embedded ones, and folders of pictures."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TypeAlias, cast

import torch

from convscope.data.check import check
from convscope.data.digits import CLASSES, digits
from convscope.data.findings import Finding, Report, Stopped
from convscope.data.folder import folder, folder_classes
from convscope.data.formats import recognise
from convscope.data.loading import folder_layout, load_folder, load_some
from convscope.data.samples import Boxes, Sample, SampleSet, TaskName
from convscope.data.scenes import SCENE_CLASSES, scenes
from convscope.data.sets import ImageSet, Normalisation, Splits
from convscope.data.streamed import MEMORY
from convscope.data.tree import walk
from convscope.errors import DataError, ImageError, nearest

__all__ = [
    "DATASETS",
    "Boxes",
    "Finding",
    "ImageSet",
    "Normalisation",
    "Report",
    "Sample",
    "SampleSet",
    "Splits",
    "TaskName",
    "check",
    "class_names",
    "digits",
    "folder",
    "load",
    "scenes",
    "some",
]

# name -> (classes, function of the shape and the seed)
Embedded: TypeAlias = Mapping[str, tuple[tuple[str, ...], Callable[[tuple[int, ...], int], Splits]]]
DATASETS: Mapping[str, Embedded] = {
    "classify": {"digits": (CLASSES, lambda shape, seed: digits(shape))},
    **{
        task: {"scenes": (classes, lambda shape, seed, task=task: scenes(cast(TaskName, task), shape=shape))}
        for task, classes in SCENE_CLASSES.items()
    },
}


def class_names(spec: str, *, task: TaskName = "classify") -> tuple[str, ...]:
    """The classes of a data set, before its pictures are read.

    Raises: DataError if `spec` is neither an embedded data set of the task nor a folder in a known format.

    >>> class_names("digits")[:3]
    ('0', '1', '2')
    """
    known = _known(task)
    if spec in known:
        return known[spec][0]
    path = _folder(spec, task)
    with _pointing(spec):
        return folder_classes(path) if _in_class_folders(path, task) else folder_layout(path, task).classes


def load(
    spec: str,
    *,
    shape: tuple[int, ...],
    seed: int = 0,
    task: TaskName = "classify",
    allow_empty: bool = False,
    memory: float = MEMORY,
) -> Splits:
    """The data set `spec`, a name of `DATASETS` or a folder, as pictures of `shape` (C, H, W).

    `seed` splits a folder that has no parts of its own; embedded sets have one fixed split. Folders whose pictures take
    more than `memory` GB are not held: each picture is read when it is asked for.
    `allow_empty`: class folders without a picture are classes like others.
    Raises: DataError, ImageError.
    """
    known = _known(task)
    if spec in known:
        return known[spec][1](shape, seed)
    path = _folder(spec, task)
    with _pointing(spec):
        if _in_class_folders(path, task):
            return folder(path, shape=shape, seed=seed, allow_empty=allow_empty, memory=memory)
        return load_folder(path, task=task, shape=shape, seed=seed, memory=memory)


def some(
    spec: str, *, task: str | None = None, shape: tuple[int, ...] | None = None, count: int = 12, seed: int = 0
) -> tuple[ImageSet | SampleSet, str]:
    """A few training samples, chosen by `seed`, and a sentence on what they are.

    `shape`: (C, H, W); if None, that of an embedded set, or 3x128x128.
    Raises: DataError if there is no such data set, or its format is not known.

    >>> samples, told = some("digits", count=3)
    >>> len(samples), told
    (3, 'digits, to classify')
    """
    if task is not None:
        _known(task)
    if shape and len(shape) != 3:
        raise DataError(f"shape {'x'.join(map(str, shape))}: is that of no picture; use CxHxW, such as 3x128x128")
    for known in [task] if task else DATASETS:
        if spec in DATASETS[known]:
            usual = (1, 32, 32) if known == "classify" else (3, 128, 128)
            whole = load(spec, shape=shape or usual, seed=seed, task=cast(TaskName, known)).train
            chosen = torch.randperm(len(whole), generator=torch.Generator().manual_seed(seed))[:count]
            return whole.subset(chosen), f"{spec}, to {known}"
    path = _folder(spec, cast(TaskName, task or "detect"))
    samples, layout, lost = load_some(path, task=task, shape=shape or (3, 128, 128), count=count, seed=seed)
    more = f"; {lost} could not be shown, and `convscope data check {spec}` says why" * bool(lost)
    return samples, f"{spec}: {layout.format}, to {layout.task}{more}"


def _known(task: str) -> Embedded:
    """The embedded data sets of a task."""
    if task not in DATASETS:
        raise DataError(f"task {task!r}: is none; {nearest(str(task), DATASETS)}")
    return DATASETS[task]


def _folder(spec: str, task: TaskName) -> Path:
    path = Path(spec)
    if path.is_dir() and "," in task:
        raise DataError(f"data {spec!r}: is a folder, which is read for one task at a time; train {task} on "
                        f"{', '.join(DATASETS[task])}")  # fmt: skip
    if path.is_file():
        raise DataError(f"data {spec!r}: is a file, but a folder is needed; unpack an archive and give its folder")
    if not path.is_dir():
        raise DataError(f"data {spec!r}: is neither a folder nor an embedded data set; {nearest(spec, DATASETS[task])}")
    return path


def _in_class_folders(path: Path, task: TaskName) -> bool:
    return task == "classify" and recognise(walk(path), task)[0].name == "class folders"


@contextmanager
def _pointing(spec: str) -> Iterator[None]:
    """Errors of a folder say what tells of all of them at once."""
    try:
        yield
    except Stopped:
        raise
    except (DataError, ImageError) as error:
        raise type(error)(f"{error} (`convscope data check {spec}` lists all that is wrong)") from error
