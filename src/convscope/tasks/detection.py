"""Detection: a class and a box for each object.

Shape suffixes: N pictures, L places, C classes, M boxes of the batch.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from convscope.data.samples import Boxes
from convscope.models.heads import Candidates

REACH = 8.0  # a map serves boxes of up to this many of its strides, half a side; the coarsest serves all above
RADIUS = 1.5  # strides from a box's centre within which places answer for it
BOX_WEIGHT = 2.0
MOST = 100  # boxes of one picture


@dataclass(frozen=True, slots=True)
class Detection:
    """Anchor-free: places near a box's centre learn its sides, and to score what overlap their box has.

    Shapes: outputs are `Candidates`, targets `Boxes`.
    Source: Tian et al. 2019, FCOS (arXiv:1904.01355); Li et al. 2020, generalized focal loss (arXiv:2006.04388).
    """

    num_classes: int
    threshold: float = 0.02
    overlap: float = 0.6

    score = "map"

    def loss(self, outputs: Candidates, targets: Boxes) -> dict[str, Tensor]:
        """`loss` to be minimised, and its parts: `scoring` (focal) and `placing` (1 - generalised overlap)."""
        from torchvision.ops import generalized_box_iou_loss

        owners = assign(outputs.points, outputs.strides, targets, num_pictures=len(outputs.logits))
        owned = owners >= 0
        wanted, found = targets.boxes[owners[owned]], outputs.boxes[owned]
        placing = generalized_box_iou_loss(found, wanted, reduction="sum")
        quality = torch.zeros_like(outputs.logits)
        picture, place = owned.nonzero(as_tuple=True)
        quality[picture, place, targets.labels[owners[owned]]] = _iou(found.detach(), wanted)
        scoring = quality_focal_loss(outputs.logits, quality)
        count = owned.sum().clamp(min=1)
        scoring, placing = scoring / count, BOX_WEIGHT * placing / count
        return {"loss": scoring + placing, "scoring": scoring.detach(), "placing": placing.detach()}

    def decode(self, outputs: Candidates) -> Boxes:
        """The boxes of the batch, best first in each picture, without those that repeat a better one."""
        from torchvision.ops import batched_nms

        scores = outputs.logits.float().sigmoid()
        picture, place, label = (scores > self.threshold).nonzero(as_tuple=True)
        found = Boxes(outputs.boxes[picture, place].float(), label, picture, scores[picture, place, label])
        groups = found.picture * self.num_classes + found.labels
        kept = batched_nms(found.boxes, found.scores, groups, self.overlap)  # by falling score
        kept = kept[found.picture[kept].argsort(stable=True)]
        found = found.where(kept)
        counts = torch.bincount(found.picture, minlength=len(scores))
        rank = torch.arange(len(kept), device=kept.device) - (counts.cumsum(0) - counts)[found.picture]
        return found.where(rank < MOST)

    def metrics(self) -> "AveragePrecision":
        """`map`, COCO's mean over classes and overlaps of 0.50 to 0.95, and `map50`."""
        return AveragePrecision()

    def wanted(self, picture: Sequence[int]) -> str:
        """In words, what a network must give."""
        return f"1xLx{self.num_classes} logits, 1xLx4 boxes, and the Lx2 points and L strides of the places"

    def serves(self, shapes: Sequence[tuple[int, ...]], picture: Sequence[int]) -> bool:
        """Whether outputs of these shapes are that."""
        if len(shapes) != 4 or len(shapes[0]) != 3:
            return False
        places = shapes[0][1]
        return [*shapes] == [(1, places, self.num_classes), (1, places, 4), (places, 2), (places,)]


class AveragePrecision:
    """COCO's average precision over batches, as torchmetrics and faster-coco-eval reckon it."""

    def __init__(self) -> None:
        from torchmetrics.detection import MeanAveragePrecision

        # torchmetrics' own thresholds are rounded to float32, which moves a recall that lies on one of them
        recalls, overlaps = np.linspace(0, 1, 101).tolist(), np.linspace(0.5, 0.95, 10).tolist()
        self.inner: MeanAveragePrecision = MeanAveragePrecision(
            iou_thresholds=overlaps, rec_thresholds=recalls, backend="faster_coco_eval", sync_on_compute=False
        )
        self.seen: list[tuple[Any, Any]] = []

    def to(self, device: Any) -> "AveragePrecision":
        """Itself: boxes are brought to the CPU, where they are compared."""
        return self

    def update(self, decoded: Boxes, targets: Boxes) -> None:
        """The found and the true boxes of a batch; its last picture must hold one or the other."""
        count = 1 + max((int(b.picture.max()) for b in (decoded, targets) if len(b.picture)), default=-1)
        found, true = ([b.of(i).to("cpu") for i in range(count)] for b in (decoded, targets))
        self.seen.append((
            [{"boxes": b.boxes, "labels": b.labels, "scores": b.scores} for b in found],
            [{"boxes": b.boxes, "labels": b.labels} for b in true],
        ))  # fmt: skip

    def compute(self) -> dict[str, Tensor]:
        """The two means over the pictures of all processes; 0 while there is no class to average."""
        own: Any = self.seen
        seen = [own]
        if dist.is_available() and dist.is_initialized():
            dist.all_gather_object(seen := [own] * dist.get_world_size(), own)
        self.inner.reset()
        for batch in chain.from_iterable(seen):
            self.inner.update(*batch)
        told = self.inner.compute()
        return {"map": told["map"].clamp(min=0), "map50": told["map_50"].clamp(min=0)}


def assign(points_L2: Tensor, strides_L: Tensor, targets: Boxes, *, num_pictures: int) -> Tensor:
    """The box that each place of each picture answers for: [N, L] indices into `targets`, -1 for none.

    A place answers for a box of its map's range if it lies in it and within 1.5 strides of its centre, or is the
    nearest of that map to the centre; of several boxes, for the smallest.

    >>> one = Boxes(torch.tensor([[0.0, 0, 16, 16]]), torch.tensor([3]), torch.tensor([1]), torch.ones(1))
    >>> assign(torch.tensor([[4.0, 4], [12, 4], [28, 4]]), torch.full((3,), 8.0), one, num_pictures=2).tolist()
    [[-1, -1, -1], [0, 0, -1]]
    """
    places, count = len(points_L2), len(targets.labels)
    owners = torch.full((num_pictures * places,), count, device=points_L2.device)
    if count:
        area = (targets.boxes[:, 2:] - targets.boxes[:, :2]).prod(1)
        order = area.argsort(stable=True)
        boxes, picture = targets.boxes[order], targets.picture[order]
        box, place = _answering(points_L2, strides_L, boxes).nonzero(as_tuple=True)
        owners.scatter_reduce_(0, picture[box] * places + place, box, "amin")  # the smallest area
        owners = torch.cat([order, order.new_full((1,), -1)])[owners]
    else:
        owners.fill_(-1)
    return owners.view(num_pictures, places)


def _answering(points_L2: Tensor, strides_L: Tensor, boxes_M4: Tensor) -> Tensor:
    """Which places [M, L] answer for which boxes."""
    centre, half = (boxes_M4[:, :2] + boxes_M4[:, 2:]) / 2, (boxes_M4[:, 2:] - boxes_M4[:, :2]).amax(1) / 2
    away = (points_L2 - centre[:, None]).abs()
    low, high = strides_L.min(), strides_L.max()
    lower = (strides_L / 2 * REACH).where(strides_L > low, 0.0)
    upper = (strides_L * REACH).where(strides_L < high, torch.inf)
    level = (half[:, None] >= lower) & (half[:, None] < upper)
    inside = (points_L2 > boxes_M4[:, None, :2]).all(2) & (points_L2 < boxes_M4[:, None, 2:]).all(2)
    near = inside & (away.amax(2) < RADIUS * strides_L)
    distance = away.pow(2).sum(2).where(level, torch.inf)
    return (near & level) | (distance == distance.amin(1, keepdim=True))


def quality_focal_loss(logits: Tensor, quality: Tensor, *, gamma: float = 2.0) -> Tensor:
    """The sum of cross-entropies with targets in 0..1, each weighted by how far off it is, to the power of gamma.

    Source: Li et al. 2020 (arXiv:2006.04388), eq. 2.

    >>> quality_focal_loss(torch.zeros(1), torch.ones(1)).item() == 0.25 * torch.tensor(2.0).log().item()
    True
    """
    entropy = F.binary_cross_entropy_with_logits(logits, quality, reduction="none")
    return (entropy * (quality - logits.sigmoid()).abs().pow(gamma)).sum()


def _iou(one_M4: Tensor, other_M4: Tensor) -> Tensor:
    low, high = torch.maximum(one_M4[:, :2], other_M4[:, :2]), torch.minimum(one_M4[:, 2:], other_M4[:, 2:])
    shared = (high - low).clamp(min=0).prod(1)
    areas = [(b[:, 2:] - b[:, :2]).prod(1) for b in (one_M4, other_M4)]
    return shared / (areas[0] + areas[1] - shared).clamp(min=1e-6)
