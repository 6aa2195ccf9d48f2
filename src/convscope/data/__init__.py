"""Data sets: embedded ones, and folders of pictures."""

from pathlib import Path

from convscope.data.digits import CLASSES, digits
from convscope.data.folder import folder, folder_classes
from convscope.data.sets import ImageSet, Normalisation, Splits
from convscope.errors import DataError, nearest

__all__ = ["DATASETS", "ImageSet", "Normalisation", "Splits", "class_names", "digits", "folder", "load"]

DATASETS = {"digits": (CLASSES, digits)}


def class_names(spec: str) -> tuple[str, ...]:
    """The classes of a data set, before its pictures are read.

    Raises: DataError if `spec` is neither an embedded data set nor a folder of class folders.

    >>> class_names("digits")[:3]
    ('0', '1', '2')
    """
    return DATASETS[spec][0] if spec in DATASETS else folder_classes(_folder(spec))


def load(spec: str, *, shape: tuple[int, ...], seed: int = 0) -> Splits:
    """The data set `spec`, a name of `DATASETS` or a folder, as pictures of `shape` (C, H, W).

    `seed` splits a folder that has no parts of its own; embedded sets have one fixed split.
    Raises: DataError, ImageError.
    """
    return DATASETS[spec][1](shape) if spec in DATASETS else folder(_folder(spec), shape=shape, seed=seed)


def _folder(spec: str) -> Path:
    path = Path(spec)
    if not path.is_dir():
        raise DataError(f"data {spec!r}: is neither a folder nor an embedded data set; {nearest(spec, DATASETS)}")
    return path
