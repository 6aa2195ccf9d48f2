"""How well a network tells the class of each pixel: overlaps with their uncertainty, and what it confuses.

Shape suffixes: P pictures, C classes (true, then said), R resamples.
"""

import math
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from convscope.data.samples import IGNORE, SampleSet
from convscope.errors import ModelError
from convscope.evaluate.common import bootstrap, judged, known, table_of, told
from convscope.table import Column, Table
from convscope.tasks import Segmentation

NEAR = 0.0075  # of the diagonal, within which a boundary is met


@dataclass(frozen=True, slots=True)
class ClassOverlap:
    """One class: its pixels, and how well what was said lies on what is true; None where it occurs nowhere."""

    name: str
    pixels: int
    iou: float | None
    dice: float | None
    boundary_f: float | None


@dataclass(frozen=True, slots=True, eq=False)
class SegmentationEvaluation:
    """The result over a set of pictures.

    `miou` is the mean over classes of the intersection over the union of all pixels; `interval` holds 95 % of it
    when pictures are drawn anew; `dice` the mean of 2 |A and B| / (|A| + |B|); `boundary_f` how
    well outlines lie, the mean over pictures, then over classes; `confusion[i][j]` counts pixels of
    class i that were called j; `image_ious` is the miou of each picture alone, `worst` their order, worst first.
    """

    num_images: int
    miou: float
    interval: tuple[float, float]
    dice: float
    boundary_f: float | None
    accuracy: float
    per_class: tuple[ClassOverlap, ...]
    confusion: tuple[tuple[int, ...], ...]
    image_ious: tuple[float, ...]
    worst: tuple[int, ...]

    def table(self) -> Table:
        """A row a class, and the mean as the total."""
        columns = (
            *(Column("pixels", "pixels"), Column("iou", "IoU", "%"), Column("dice", "Dice", "%")),
            Column("boundary_f", "boundary F", "%"),
        )
        mean = {"iou": self.miou, "dice": self.dice, "boundary_f": self.boundary_f}
        notes = (
            told("mIoU", self.miou, self.interval, self.num_images),
            f"pixel accuracy {100 * self.accuracy:.2f} %",
        )
        return table_of(self.per_class, columns, mean=mean, notes=notes)

    def data(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self)


def evaluate_segmentation(model: nn.Module, images: SampleSet, *, batch_size: int = 32) -> SegmentationEvaluation:
    """Tell the class of every pixel of a set, on the model's device, and compare with the masks.

    Raises: ModelError if the model gives something other than logits [N, C, H, W].
    """
    return judged(model, images, PixelJudge(images), batch_size=batch_size)


class PixelJudge:
    """Pixels by true and said class of each picture, and how well boundaries lie, gathered batch by batch."""

    def __init__(self, images: SampleSet) -> None:
        self.classes, self.shape, self.task = images.classes, images.shape, Segmentation(len(images.classes))
        self.counts: list[Tensor] = []  # [C, C] of each picture, ignored pixels left out
        self.boundaries: list[Tensor] = []  # [C] of each picture

    def take(self, outputs: Any, targets: Tensor) -> None:
        """What the network gives for a batch, and the masks [N, H, W].

        Raises: ModelError if it is no logits of their size.
        """
        count = len(self.classes)
        if not isinstance(outputs, Tensor) or outputs.shape != (len(targets), count, *targets.shape[1:]):
            raise ModelError(f"model: does not give {self.task.wanted(self.shape)} for a picture; give a segmenter")
        said = self.task.decode(outputs).cpu()
        for mask, named in zip(targets, said, strict=True):
            valid = mask != IGNORE
            pairs = mask[valid] * count + named[valid]
            self.counts.append(torch.bincount(pairs, minlength=count**2).view(count, count))
            self.boundaries.append(boundary_f(mask, named.where(valid, IGNORE), num_classes=count))

    def result(self) -> SegmentationEvaluation:
        """How good they are."""
        counts, boundaries = torch.stack(self.counts).double(), torch.stack(self.boundaries).nanmean(0)
        whole = counts.sum(0)
        ious, dices = overlaps(whole[None])
        each = overlaps(counts)[0].nanmean(1)
        numbers = zip(self.classes, whole.sum(1), ious[0], dices[0], boundaries, strict=True)
        return SegmentationEvaluation(
            num_images=len(counts),
            miou=ious.nanmean().item(),
            interval=bootstrap(len(counts), lambda w_RP: _means(w_RP, counts)),
            dice=dices.nanmean().item(),
            boundary_f=known(boundaries.nanmean()),
            accuracy=(whole.diagonal().sum() / whole.sum()).item(),
            per_class=tuple(ClassOverlap(name, int(n), *map(known, shares)) for name, n, *shares in numbers),
            confusion=tuple(tuple(row) for row in whole.long().tolist()),
            image_ious=tuple(each.tolist()),
            worst=tuple(each.argsort(stable=True).tolist()),
        )


def boundary_f(true_HW: Tensor, said_HW: Tensor, *, num_classes: int) -> Tensor:
    """How well the outline of each class is met: [C], the harmonic mean of precision and recall of boundary pixels.

    A boundary pixel of a class has a neighbour (of four) of another; it is met if one of the other mask lies within
    0.75 % of the picture's diagonal. NaN for a class that has no boundary in either mask; 255 bounds nothing.
    Source: Csurka et al. 2013, What is a good evaluation measure for semantic segmentation? (doi:10.5244/C.27.32).

    >>> mask = torch.zeros(8, 8).long()
    >>> mask[2:5, 2:5] = 1
    >>> boundary_f(mask, mask.roll(1, 0), num_classes=3).tolist()
    [1.0, 1.0, nan]
    """
    radius = max(1.0, NEAR * math.hypot(*true_HW.shape))
    true, said = (_boundaries(mask, num_classes) for mask in (true_HW, said_HW))
    near_true, near_said = _grown(true, radius), _grown(said, radius)
    right, met = (said & near_true).sum((1, 2)).double(), (true & near_said).sum((1, 2)).double()
    precision, recall = right / said.sum((1, 2)).clamp(min=1), met / true.sum((1, 2)).clamp(min=1)
    f = 2 * precision * recall / (precision + recall).clamp(min=1e-12)
    return f.where(true.any(2).any(1) | said.any(2).any(1), torch.nan)


def _boundaries(mask_HW: Tensor, num_classes: int) -> Tensor:
    """[C, H, W]: the pixels of each class beside a pixel of another."""
    edge = torch.zeros_like(mask_HW, dtype=torch.bool)
    for axis in (0, 1):
        first, second = (
            mask_HW.narrow(axis, 0, mask_HW.shape[axis] - 1),
            mask_HW.narrow(axis, 1, mask_HW.shape[axis] - 1),
        )
        differ = (first != second) & (first != IGNORE) & (second != IGNORE)
        edge.narrow(axis, 0, differ.shape[axis]).logical_or_(differ)
        edge.narrow(axis, 1, differ.shape[axis]).logical_or_(differ)
    return (mask_HW == torch.arange(num_classes)[:, None, None]) & edge


def _grown(pixels_CHW: Tensor, radius: float) -> Tensor:
    """The pixels whose centre is within `radius` of one that is set."""
    reach = int(radius)
    at = torch.arange(-reach, reach + 1)
    disc = (at[:, None] ** 2 + at**2 <= radius**2).float()
    return torch.nn.functional.conv2d(pixels_CHW[:, None].float(), disc[None, None], padding=reach)[:, 0] > 0.5


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
