"""Pictures in folders, one folder a class: `DIR/train/CLASS/*.png` and `DIR/test/...`, or `DIR/CLASS/*.png`.

Only real files below DIR are read: links are passed over, so that no picture counts twice and none is fetched
from elsewhere.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from convscope.data.digits import stratified
from convscope.data.sets import ImageSet, Normalisation, Splits
from convscope.data.streamed import MEMORY, Pixels, Unread, gigabytes
from convscope.errors import DataError

if TYPE_CHECKING:
    from convscope.data.decoding import Decoder
    from convscope.data.images import Picture
    from convscope.data.samples import Sample

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif"})
LITTER = frozenset({"thumbs.db", "desktop.ini", ".ds_store", "__macosx"})

Files = list[tuple[Path, int]]


def folder(
    path: Path | str, *, shape: tuple[int, ...], seed: int = 0, allow_empty: bool = False, memory: float = MEMORY
) -> Splits:
    """The pictures below a folder, each brought to `shape` (C, H, W; C is 1 or 3) and kept as uint8.

    They are held if they take `memory` GB at most; if not, each is read when it is asked for.

    A missing test part is a stratified fifth of the pictures, a missing validation part a tenth of the rest.
    The normalisation is the mean and deviation of each channel over the training pictures.
    `allow_empty`: a folder without pictures is a class like others, of which nothing is learnt.
    Raises: DataError if there are no classes, a class is empty or the parts differ in classes; ImageError if a
    picture cannot be read.
    """
    root = Path(path)
    if len(shape) != 3 or shape[0] not in (1, 3):
        raise DataError(f"{root}: pictures cannot be shown as {'x'.join(map(str, shape))}; give 1 or 3 channels")
    classes = folder_classes(root)
    tops = {name: root / name for name in ("train", "val", "test") if (root / name).is_dir()}
    tops = tops if "train" in tops else {"train": root}
    parts = {name: _files(top, classes, allow_empty=allow_empty) for name, top in tops.items()}
    for name, fraction in (("test", 0.2), ("val", 0.1)):
        if name not in parts:
            parts["train"], parts[name] = _split(parts["train"], fraction=fraction, seed=seed)
    pixels, some = _pixels(parts, shape, memory=memory)
    normalisation = _normalisation(some)
    sets = {
        name: ImageSet(pixels[name], torch.tensor([label for _, label in files]), classes, normalisation)
        for name, files in parts.items()
    }
    return Splits(sets["train"], sets["val"], sets["test"])


def folder_classes(path: Path | str) -> tuple[str, ...]:
    """The names of the class folders, sorted.

    Raises: DataError if there are fewer than two.
    """
    root = Path(path)
    top = root / "train" if (root / "train").is_dir() else root
    names = tuple(class_folders(top))
    if len(names) < 2:
        raise DataError(f"{top}: has {len(names)} class folders, but two are needed; lay pictures out as CLASS/*.png")
    return names


def class_folders(top: Path) -> list[str]:
    """The names of the folders right in a folder, sorted, without links, hidden ones and what systems leave behind."""
    folders = (p.name for p in top.iterdir() if p.is_dir() and not p.is_symlink())
    return sorted(name for name in folders if name[0] != "." and name.lower() not in LITTER)


def resize(x_HWC: Tensor, *, size: Sequence[int]) -> Tensor:
    """A picture [H, W, C] in 0..1 as [C, *size], bilinear with antialiasing.

    >>> resize(torch.ones(4, 6, 3), size=(8, 8)).shape
    torch.Size([3, 8, 8])
    """
    x = F.interpolate(x_HWC.movedim(-1, 0)[None], tuple(size), mode="bilinear", align_corners=False, antialias=True)
    return x[0].clamp(0, 1)


def _files(top: Path, classes: tuple[str, ...], *, allow_empty: bool) -> Files:
    strange = sorted({*class_folders(top)} - {*classes})
    if strange:
        raise DataError(f"{top}: holds classes that the training part lacks: {', '.join(strange)}; rename or move them")
    found = [(p, label) for label, name in enumerate(classes) for p in _pictures(top / name)]
    empty = [name for label, name in enumerate(classes) if all(label != at for _, at in found)]
    if not found or (empty and not allow_empty):
        raise DataError(f"{top}: no pictures in the classes {', '.join(empty)}; add some, remove the folders, or keep "
                        "them as classes with --allow-empty")  # fmt: skip
    return found


def _pictures(top: Path) -> list[Path]:
    if not top.is_dir() or top.is_symlink():
        return []
    below = (Path(at) / name for at, _, names in os.walk(top) for name in names)  # follows no links
    return sorted(p for p in below if p.suffix.lower() in SUFFIXES and p.name[0] != "." and not p.is_symlink())


def _split(files: Files, *, fraction: float, seed: int) -> tuple[Files, Files]:
    kept, held = stratified(torch.tensor([label for _, label in files]), fraction=fraction, seed=seed)
    return [files[i] for i in kept.tolist()], [files[i] for i in held.tolist()]


def _pixels(parts: Mapping[str, Files], shape: tuple[int, ...], *, memory: float) -> tuple[dict[str, Any], Tensor]:
    """The pictures of each part, held if they take `memory` GB at most, and those that tell mean and deviation."""
    sizes = [len(files) for files in parts.values()]
    if gigabytes(sum(sizes), shape) <= memory:
        whole = _pictures_of([file for files in parts.values() for file in files], shape)
        held = dict(zip(parts, whole.split(sizes), strict=True))
        return held, held["train"]
    unread = {name: Unread(_reader(files, shape), len(files), shape=shape) for name, files in parts.items()}
    few = Pixels(unread["train"].few())
    return {name: Pixels(samples) for name, samples in unread.items()}, few[torch.arange(len(few))]


def _reader(files: Files, shape: tuple[int, ...]) -> Callable[[int], Sample]:
    """What reads a picture, with a decoder that ends with it."""
    from convscope.data.decoding import Decoder
    from convscope.data.samples import Sample

    decoder = Decoder()

    def read(at: int) -> Sample:
        return Sample(_sized(_picture(files[at][0], decoder, channels=shape[0]), shape))  # pyright: ignore[reportArgumentType]

    weakref.finalize(read, decoder.close)
    return read


def _picture(path: Path, decoder: Decoder, *, channels: int) -> Picture:
    from convscope.data.images import to_channels

    return to_channels(decoder.read(path), channels)


def _sized(picture: Picture, shape: tuple[int, ...]) -> Tensor:
    return resize(torch.from_numpy(picture.pixels), size=shape[1:]).mul(255).round().to(torch.uint8)


def _pictures_of(files: Files, shape: tuple[int, ...]) -> Tensor:
    """All of them, uint8 [N, C, H, W], decoded in processes of their own."""
    from convscope.data.decoding import aside

    with closing(aside([partial(_picture, path, channels=shape[0]) for path, _ in files])) as pictures:
        return torch.stack([_sized(picture, shape) for picture in pictures])


def _normalisation(pixels_NCHW: Tensor) -> Normalisation:
    channels = pixels_NCHW.movedim(1, 0).flatten(1).double() / 255
    return Normalisation(
        tuple(round(v, 4) for v in channels.mean(1).tolist()),
        tuple(round(max(v, 0.01), 4) for v in channels.std(1).tolist()),
    )
