"""An entry's picture read, its boxes and mask checked against it, and made a Sample of the training size."""

from collections.abc import Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch

from convscope.data.decoding import Decoder, aside
from convscope.data.entries import Box, Entry, Layout
from convscope.data.findings import Findings
from convscope.data.folder import resize
from convscope.data.images import Picture, to_channels
from convscope.data.samples import IGNORE, Sample
from convscope.data.tree import Tree
from convscope.data.turning import orientation, turned_array, turned_box
from convscope.errors import DataError, ImageError

LEAST = 1e-3  # pixels that a box must be wide and high
BEYOND = 1.0  # pixels that a box may stick out without a word


@dataclass(frozen=True, slots=True, eq=False)
class Opened:
    """A picture, upright, and what is right of its labels, in its pixels: boxes [n, 4], labels [n], mask [H, W]."""

    picture: Picture
    boxes: tuple[Box, ...]
    labels: tuple[int, ...]
    mask: np.ndarray | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Held:
    """What the files of an entry hold; `error` if one of them cannot be read."""

    content: bytes = b""
    picture: Picture | None = None
    values: np.ndarray | None = None
    error: DataError | ImageError | None = None


def held(tree: Tree, entries: Sequence[Entry]) -> Generator[Held]:
    """What each entry's files hold, decoded in processes of their own, some ahead; to be closed as `aside` is."""
    return aside([partial(read_entry, tree, entry) for entry in entries])


def read_entry(tree: Tree, entry: Entry, decoder: Decoder) -> Held:
    """What an entry's files hold."""
    try:
        content = tree.read(entry.file)
        picture, mask = decoder.decode(content, source=entry.file), entry.mask_file
        return Held(content, picture, decoder.values(tree.read(mask), source=mask) if mask else None)
    except (DataError, ImageError) as error:
        return Held(error=error)


def open_entries(tree: Tree, entries: Sequence[Entry], layout: Layout, found: Findings) -> Generator[Opened | None]:
    """As `open_entry`, of several."""
    with closing(held(tree, entries)) as files:
        for entry, file in zip(entries, files, strict=True):
            yield open_entry(entry, file, layout, found)


def open_entry(entry: Entry, file: Held, layout: Layout, found: Findings) -> Opened | None:
    """An entry's picture with its labels; None, and a finding, if it cannot be read or its labels do not fit it."""
    try:
        if file.picture is None:
            assert file.error is not None
            raise file.error
        boxes, labels = _boxes(entry, file.picture, found) if layout.task == "detect" else ((), entry.labels)
        mask = _mask(entry, file, layout, found) if layout.task == "segment" else None
    except (DataError, ImageError) as error:
        found.refuse(error, kind="picture")
        return None
    if layout.task == "segment" and mask is None:
        return None
    return Opened(file.picture, boxes, labels, mask)


def sample(opened: Opened, shape: Sequence[int]) -> Sample:
    """A Sample of `shape` (C, H, W): all stretched to it, boxes and masks in step; masks take the nearest pixel."""
    from torchvision import tv_tensors  # it takes a second to import

    pixels = to_channels(opened.picture, shape[0]).pixels
    height, width = pixels.shape[:2]
    image = resize(torch.from_numpy(pixels), size=shape[1:]).mul(255).round().to(torch.uint8)
    if opened.mask is not None:
        whole = torch.from_numpy(opened.mask)[None, None]
        mask = torch.nn.functional.interpolate(whole, tuple(shape[1:]), mode="nearest-exact")[0, 0]
        return Sample(tv_tensors.Image(image), mask=tv_tensors.Mask(mask), name=opened.picture.source)
    scale = torch.tensor([shape[2] / width, shape[1] / height] * 2, dtype=torch.float64)
    boxes = (torch.tensor(opened.boxes, dtype=torch.float64).reshape(-1, 4) * scale).float()
    size = (shape[1], shape[2])
    return Sample(
        tv_tensors.Image(image),
        tv_tensors.BoundingBoxes(boxes, format="XYXY", canvas_size=size),  # pyright: ignore[reportCallIssue]
        torch.tensor(opened.labels, dtype=torch.int64),
        name=opened.picture.source,
    )


def _turn(entry: Entry, picture: Picture, found: Findings) -> int:
    """How labels are turned to lie on the upright picture: not at all (1) if they are of it already.

    Raises: DataError if the stated size is neither the upright nor the stored picture's.
    """
    how, (height, width, _) = orientation(picture), picture.shape
    stored = (height, width) if how >= 5 else (width, height)
    if entry.size in (None, (width, height)):
        if how > 1 and (entry.labels or entry.mask):
            found.note("orientation", entry.file, f"was turned upright (EXIF orientation {how}); its labels were not",
                       "look at it with `convscope data show`")  # fmt: skip
        return 1
    if entry.size != stored:
        stated = "x".join(map(str, entry.size or ()))
        raise DataError(f"{entry.where}: says that {entry.file} is {stated}, but it is {width}x{height}; correct the "
                        "size, and the labels if they were made for it")  # fmt: skip
    return how


def _boxes(entry: Entry, picture: Picture, found: Findings) -> tuple[tuple[Box, ...], tuple[int, ...]]:
    how, (height, width, _) = _turn(entry, picture, found), picture.shape
    kept: list[tuple[Box, int]] = []
    for box, label, where in zip(entry.boxes, entry.labels, entry.lines, strict=True):
        if entry.relative:
            box = (box[0] * width, box[1] * height, box[2] * width, box[3] * height)
        if how > 1 and entry.size is not None:
            box = turned_box(box, how, width=entry.size[0], height=entry.size[1])
        if (clipped := _clipped(box, where, width=width, height=height, found=found)) is not None:
            kept.append((clipped, label))
    return tuple(b for b, _ in kept), tuple(label for _, label in kept)


def _clipped(box: Box, where: str, *, width: int, height: int, found: Findings) -> Box | None:
    """The part of a box within its picture; None, and a finding, if it has none."""
    x1, y1, x2, y2 = box
    shown = f"({', '.join(f'{v:g}' for v in box)})"
    if not all(v - v == 0 for v in box):
        found.add("box NaN", where, f"box {shown} holds NaN or infinity", "remove it")
        return None
    if x2 < x1 or y2 < y1:
        found.add("box turned", where, f"box {shown} ends before it begins", "write the left upper corner first")
        return None
    if x2 - x1 < LEAST or y2 - y1 < LEAST:
        found.add("box empty", where, f"box {shown} has no width or height", "remove it, or draw it anew")
        return None
    inner = (max(x1, 0.0), max(y1, 0.0), min(x2, float(width)), min(y2, float(height)))
    if inner[2] - inner[0] < LEAST or inner[3] - inner[1] < LEAST:
        found.add("box outside", where, f"box {shown} lies outside the picture of {width}x{height}",
                  "remove it; boxes are in pixels of the picture as it is in the file")  # fmt: skip
        return None
    if max(abs(a - b) for a, b in zip(box, inner, strict=True)) > BEYOND:
        found.note("box beyond", where, f"box {shown} reaches beyond the picture of {width}x{height}",
                   "nothing to do: it is cut at the edge")  # fmt: skip
    return inner


def _mask(entry: Entry, file: Held, layout: Layout, found: Findings) -> np.ndarray | None:
    picture, values = file.picture, file.values
    assert picture is not None
    how, (height, width, _) = orientation(picture), picture.shape
    if entry.mask is not None:
        how = _turn(entry, picture, found)
        wide, high = (width, height) if entry.size is None else entry.size
        return turned_array(entry.mask(high, wide), how)
    assert values is not None
    if values.shape[:2] != (height, width):
        if how < 5 or values.shape[:2] != (width, height):
            raise DataError(f"{entry.mask_file}: is {values.shape[1]}x{values.shape[0]}, but its picture {entry.file} "
                            f"is {width}x{height}; bring them to one size")  # fmt: skip
        values = turned_array(values, how)
    if values.ndim == 3:
        return _from_colours(values, layout.colours, entry.mask_file, found)
    unknown = {int(v): int(c) for v, c in zip(*np.unique(values, return_counts=True), strict=True)
               if not 0 <= v < len(layout.classes) and v != IGNORE}  # fmt: skip
    if unknown and layout.classes:
        found.add("mask values", entry.mask_file, f"holds values that are no class: {_counted(unknown)}; there are "
                  f"{len(layout.classes)} classes (0 to {len(layout.classes) - 1})",
                  f"correct them, or name the classes; {IGNORE} is to be ignored")  # fmt: skip
        return None
    return values.astype(np.uint8)


def _from_colours(
    values_HW3: np.ndarray, colours: Mapping[tuple[int, int, int], int], where: str, found: Findings
) -> np.ndarray | None:
    if not colours:
        found.add("mask colours", where, "is in colours, but no file says which class each is",
                  "write `name r g b` a line into classes.txt")  # fmt: skip
        return None
    packed = values_HW3.astype(np.int32) @ np.array([65536, 256, 1], np.int32)
    seen, inverse, counts = np.unique(packed, return_inverse=True, return_counts=True)
    of = {(r << 16) + (g << 8) + b: label for (r, g, b), label in colours.items()}
    unknown = {(int(v) >> 16, int(v) >> 8 & 255, int(v) & 255): int(c)
               for v, c in zip(seen, counts, strict=True) if int(v) not in of}  # fmt: skip
    if unknown:
        found.add(
            "mask colours", where, f"holds colours of no class: {_counted(unknown)}", "correct them, or add a class"
        )
        return None
    return np.array([of[int(v)] for v in seen], np.uint8)[inverse].reshape(packed.shape)


def _counted(unknown: Mapping[Any, int]) -> str:
    told = [f"{v} ({c:,} pixels)" for v, c in list(unknown.items())[:8]]
    return ", ".join(told) + ", ..." * (len(unknown) > 8)
