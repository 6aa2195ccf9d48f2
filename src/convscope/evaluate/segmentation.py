"""How well a network tells the class of each pixel: overlaps with their uncertainty, and what it confuses.

Shape suffixes: P pictures, C classes (true, then said), R resamples.
"""

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from convscope.data.samples import IGNORE, SampleSet
from convscope.errors import ModelError
from convscope.evaluate.common import bootstrap, evaluating, percent
from convscope.table import Column, Table
from convscope.tasks import Segmentation


@dataclass(frozen=True, slots=True)
class ClassOverlap:
    """One class: its pixels, and how well what was said lies on what is true; None where it occurs nowhere."""

    name: str
    pixels: int
    iou: float | None
    dice: float | None


@dataclass(frozen=True, slots=True, eq=False)
class SegmentationEvaluation:
    """The result over a set of pictures.

    `miou` is the mean over classes of the intersection over the union of all pixels; `interval` holds 95 % of it
    when pictures are drawn anew; `dice` the mean of 2 |A and B| / (|A| + |B|); `confusion[i][j]` counts pixels of
    class i that were called j; `image_ious` is the miou of each picture alone, `worst` their order, worst first.
    """

    num_images: int
    miou: float
    interval: tuple[float, float]
    dice: float
    accuracy: float
    per_class: tuple[ClassOverlap, ...]
    confusion: tuple[tuple[int, ...], ...]
    image_ious: tuple[float, ...]
    worst: tuple[int, ...]

    def table(self) -> Table:
        """A row a class, and the mean as the total."""
        columns = (
            Column("name", "class"),
            Column("pixels", "pixels"),
            Column("iou", "IoU", "%"),
            Column("dice", "Dice", "%"),
        )
        rows = tuple(
            {"name": c.name, "pixels": c.pixels, "iou": percent(c.iou), "dice": percent(c.dice)} for c in self.per_class
        )
        total = {"name": "mean", "pixels": sum(c.pixels for c in self.per_class)}
        total |= {"iou": 100 * self.miou, "dice": 100 * self.dice}
        low, high = (100 * bound for bound in self.interval)
        notes = (
            f"mIoU {100 * self.miou:.2f} % (95 % interval {low:.2f} to {high:.2f} %) over {self.num_images} pictures",
            f"pixel accuracy {100 * self.accuracy:.2f} %",
        )
        return Table(columns, rows, title="Evaluation", total=total, notes=notes)

    def data(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self)


def evaluate_segmentation(model: nn.Module, images: SampleSet, *, batch_size: int = 32) -> SegmentationEvaluation:
    """Tell the class of every pixel of a set, on the model's device, and compare with the masks.

    Raises: ModelError if the model gives something other than logits [N, C, H, W].
    """
    counts = confusions(model, images, batch_size=batch_size).double()
    whole = counts.sum(0)
    ious, dices = overlaps(whole[None])
    each = overlaps(counts)[0].nanmean(1)
    total = whole.sum().item()
    return SegmentationEvaluation(
        num_images=len(images),
        miou=ious.nanmean().item(),
        interval=bootstrap(len(images), lambda w_RP: _means(w_RP, counts)),
        dice=dices.nanmean().item(),
        accuracy=(whole.diagonal().sum() / total).item(),
        per_class=tuple(
            ClassOverlap(name, int(n), _known(iou), _known(dice))
            for name, n, iou, dice in zip(images.classes, whole.sum(1), ious[0], dices[0], strict=True)
        ),
        confusion=tuple(tuple(row) for row in whole.long().tolist()),
        image_ious=tuple(each.tolist()),
        worst=tuple(each.argsort(stable=True).tolist()),
    )


def confusions(model: nn.Module, images: SampleSet, *, batch_size: int = 32) -> Tensor:
    """Pixels by true and said class of each picture, int64 [P, C, C]; ignored pixels are left out."""
    num_classes, task = len(images.classes), Segmentation(len(images.classes))
    counts = []
    with evaluating(model) as device:
        for at in torch.arange(len(images)).split(batch_size):
            x, masks = images.batch(at)
            assert isinstance(masks, Tensor)
            outputs = model(x.to(device))
            if not isinstance(outputs, Tensor) or outputs.shape != (len(x), num_classes, *x.shape[2:]):
                raise ModelError(f"model: does not give {task.wanted(images.shape)} for a picture; give a segmenter")
            said = task.decode(outputs).cpu()
            for mask, named in zip(masks, said, strict=True):
                valid = mask != IGNORE
                pairs = mask[valid] * num_classes + named[valid]
                counts.append(torch.bincount(pairs, minlength=num_classes**2).view(num_classes, num_classes))
    return torch.stack(counts)


def overlaps(counts_PCC: Tensor) -> tuple[Tensor, Tensor]:
    """Intersection over union, and Dice, of each class: [P, C] each; NaN for classes neither there nor said.

    >>> [v.tolist() for v in overlaps(torch.tensor([[[2.0, 1.0], [0.0, 1.0]]]))]
    [[[0.6666666865348816, 0.5]], [[0.800000011920929, 0.6666666865348816]]]
    """
    hits, both = counts_PCC.diagonal(dim1=1, dim2=2), counts_PCC.sum(1) + counts_PCC.sum(2)
    return hits / (both - hits), 2 * hits / both


def _means(weights_RP: Tensor, counts_PCC: Tensor) -> Tensor:
    drawn = (weights_RP @ counts_PCC.flatten(1)).view(-1, *counts_PCC.shape[1:])
    return overlaps(drawn)[0].nanmean(1)


def _known(value: Tensor) -> float | None:
    return None if value.isnan() else value.item()
