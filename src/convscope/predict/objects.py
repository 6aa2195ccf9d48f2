"""The objects in pictures, and the classes of their pixels, in the pixels of the pictures as they were given."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from convscope.data.samples import Boxes
from convscope.errors import ModelError
from convscope.evaluate import evaluating
from convscope.models import Candidates
from convscope.predict.drawing import draw_boxes, draw_mask
from convscope.table import Column, Table
from convscope.tasks import Detection, Segmentation

Size = tuple[int, int]  # height, width


@dataclass(frozen=True, slots=True)
class FoundObject:
    """One object: its class, how sure the network is (0..1), and its box in pixels."""

    image: str
    label: str
    score: float
    x1: float
    y1: float
    x2: float
    y2: float


@dataclass(frozen=True, slots=True, eq=False)
class Objects:
    """Rows by picture, then by falling score; `boxes` are the same of each picture, `sizes` (H, W) the pictures'."""

    rows: tuple[FoundObject, ...]
    boxes: tuple[Boxes, ...] = field(repr=False)
    names: tuple[str, ...]
    sizes: tuple[Size, ...]
    classes: tuple[str, ...]

    def table(self) -> Table:
        """A row an object."""
        corners = tuple(Column(k, k, "px") for k in ("x1", "y1", "x2", "y2"))
        columns = (Column("image", "image"), Column("label", "class"), Column("score", "score"), *corners)
        return Table(columns, tuple(map(asdict, self.rows)), title="Objects")

    def data(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {"objects": [asdict(r) for r in self.rows]}

    def coco(self, categories: Mapping[str, int]) -> dict[str, Any]:
        """The same as COCO has it: images, categories, and annotations with x y width height.

        `categories`: the numbers of the classes, where the data had some; they count from 1 where not.
        """
        numbers = [categories.get(name, at) for at, name in enumerate(self.classes, 1)]
        images = [
            {"id": i, "file_name": name, "height": size[0], "width": size[1]}
            for i, (name, size) in enumerate(zip(self.names, self.sizes, strict=True), 1)
        ]
        annotations = []
        for image, boxes in zip(images, self.boxes, strict=True):
            rows = zip(boxes.boxes.tolist(), boxes.labels.tolist(), boxes.scores.tolist(), strict=True)
            for (x1, y1, x2, y2), label, score in rows:
                bbox, area = [x1, y1, x2 - x1, y2 - y1], (x2 - x1) * (y2 - y1)
                annotations.append({"id": len(annotations) + 1, "image_id": image["id"], "category_id": numbers[label]}
                                   | {"bbox": bbox, "area": area, "score": score, "iscrowd": 0})  # fmt: skip
        named = [{"id": i, "name": name} for i, name in zip(numbers, self.classes, strict=True)]
        return {"images": images, "categories": named, "annotations": annotations}

    def drawn(self, index: int, picture_CHW: Tensor) -> Tensor:
        """A picture, uint8, with what was found in it."""
        return draw_boxes(picture_CHW, self.boxes[index], self.classes)


@dataclass(frozen=True, slots=True)
class ClassShare:
    """How many pixels of a picture have a class, and what share of it that is (0..1)."""

    image: str
    label: str
    pixels: int
    share: float


@dataclass(frozen=True, slots=True, eq=False)
class Regions:
    """Rows by picture, then by class; `masks` are the classes of each picture's pixels, int64 [H, W]."""

    rows: tuple[ClassShare, ...]
    masks: tuple[Tensor, ...] = field(repr=False)
    names: tuple[str, ...]
    classes: tuple[str, ...]

    def table(self) -> Table:
        """A row a class that occurs in a picture."""
        columns = (
            Column("image", "image"),
            Column("label", "class"),
            Column("pixels", "pixels"),
            Column("share", "share", "%"),
        )
        rows = tuple(asdict(r) | {"share": 100 * r.share} for r in self.rows)
        return Table(columns, rows, title="Regions")

    def data(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {"regions": [asdict(r) for r in self.rows]}

    def drawn(self, index: int, picture_CHW: Tensor) -> Tensor:
        """A picture, uint8, with the classes of its pixels."""
        return draw_mask(picture_CHW, self.masks[index], num_classes=len(self.classes))


def detect(
    model: nn.Module,
    images: Tensor,
    *,
    classes: Sequence[str],
    names: Sequence[str],
    sizes: Sequence[Size],
    threshold: float = 0.4,
) -> Objects:
    """The objects that score `threshold` or more; boxes are scaled from the network's pictures to `sizes`.

    Shapes: images [N, C, H, W], normalised as the model was trained; the model gives `Candidates`.
    Raises: ModelError if it does not.
    """
    with evaluating(model) as device:
        outputs = model(images.to(device))
    return objects_of(outputs, Asked(classes, names, sizes, images.shape[2:], threshold))


class Asked(NamedTuple):
    """Pictures whose outputs are read: classes, the pictures' names and sizes, the size (H, W) that the network saw."""

    classes: Sequence[str]
    names: Sequence[str]
    sizes: Sequence[Size]
    seen: Sequence[int]
    threshold: float = 0.4


def objects_of(outputs: Any, asked: Asked) -> Objects:
    """The objects, from what the network gave.

    Raises: ModelError if that is no `Candidates`.
    """
    classes, names, sizes, shape, threshold = asked
    if not isinstance(outputs, Candidates):
        raise ModelError(f"model: is no detector, since it gives a {type(outputs).__name__}; give one")
    found, told = Detection(len(classes)).decode(outputs).to("cpu"), []
    for index, (height, width) in enumerate(sizes):
        own = found.of(index).where(found.of(index).scores >= threshold)
        scale = torch.tensor([width / shape[1], height / shape[0]] * 2)
        inside = (own.boxes * scale).clamp(min=torch.zeros(4), max=torch.tensor([width, height] * 2))
        told.append(own._replace(boxes=inside))
    rows = tuple(
        FoundObject(name, str(classes[label]), score, *box)
        for name, boxes in zip(names, told, strict=True)
        for label, score, box in zip(boxes.labels.tolist(), boxes.scores.tolist(), boxes.boxes.tolist(), strict=True)
    )
    return Objects(rows, tuple(told), tuple(names), tuple(sizes), tuple(classes))


def segment(
    model: nn.Module, images: Tensor, *, classes: Sequence[str], names: Sequence[str], sizes: Sequence[Size]
) -> Regions:
    """The class of every pixel; masks are brought from the network's pictures to `sizes`, nearest.

    Shapes: images [N, C, H, W], normalised as the model was trained; the model gives logits [N, len(classes), H, W].
    Raises: ModelError if it does not.
    """
    with evaluating(model) as device:
        outputs = model(images.to(device))
    return regions_of(outputs, Asked(classes, names, sizes, images.shape[2:]))


def regions_of(outputs: Any, asked: Asked) -> Regions:
    """The class of every pixel, from what the network gave.

    Raises: ModelError if that is no logits [N, C, H, W].
    """
    classes, names, sizes, seen, _ = asked
    task = Segmentation(len(classes))
    if not isinstance(outputs, Tensor) or outputs.shape[1:] != (len(classes), *seen):
        raise ModelError(f"model: does not give {task.wanted((3, *seen))}; give a segmenter")
    said = task.decode(outputs).cpu()
    masks = [
        torch.nn.functional.interpolate(mask[None, None].float(), size, mode="nearest-exact")[0, 0].long()
        for mask, size in zip(said, sizes, strict=True)
    ]
    rows = tuple(
        ClassShare(name, classes[label], count, count / mask.numel())
        for name, mask in zip(names, masks, strict=True)
        for label, count in enumerate(torch.bincount(mask.flatten(), minlength=len(classes)).tolist())
        if count
    )
    return Regions(rows, tuple(masks), tuple(names), tuple(classes))
