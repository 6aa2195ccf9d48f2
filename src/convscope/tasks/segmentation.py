"""Segmentation: one class for each pixel."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from convscope.data.samples import IGNORE

if TYPE_CHECKING:
    from torchmetrics import MetricCollection


@dataclass(frozen=True, slots=True, eq=False)
class Segmentation:
    """Cross-entropy and overlap on the logits of every pixel for training, the likeliest class for prediction.

    Shapes: outputs are logits [N, num_classes, H, W], targets are classes [N, H, W] (255 counts neither way).
    Source: Milletari et al. 2016 (arXiv:1606.04797) for the overlap, Dice over the classes that are there.
    """

    num_classes: int
    label_smoothing: float = 0.0
    class_weights: Tensor | None = None

    score = "miou"

    def loss(self, outputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """`loss`, the sum of the mean cross-entropy of a pixel (nats) and 1 - Dice, and both apart.

        >>> found = Segmentation(2).loss(torch.zeros(1, 2, 1, 2), torch.tensor([[[0, 255]]]))
        >>> [round(v.item(), 4) for v in found.values()]
        [1.0265, 0.6931, 0.3333]
        """
        logits = outputs.float()
        weights = None if self.class_weights is None else self.class_weights.to(outputs.device)
        each = F.cross_entropy(
            logits, targets, weights, ignore_index=IGNORE, reduction="none", label_smoothing=self.label_smoothing
        )
        valid = targets != IGNORE
        share = valid if weights is None else weights[targets.where(valid, 0)] * valid
        entropy = each.sum() / share.sum().clamp(min=1e-6)
        overlap = 1 - self._dice(logits, targets.where(valid, 0), valid)
        return {"loss": entropy + overlap, "entropy": entropy.detach(), "overlap": overlap.detach()}

    def _dice(self, logits: Tensor, targets: Tensor, valid: Tensor) -> Tensor:
        """The mean over the classes of the batch of 2 |P and T| / (|P| + |T|), P the probabilities."""
        shares = logits.softmax(1) * valid[:, None]
        hits = torch.zeros(self.num_classes, device=logits.device)
        hits = hits.index_add(0, targets.flatten(), shares.gather(1, targets[:, None]).flatten())
        true = torch.bincount(targets[valid], minlength=self.num_classes)
        dice = 2 * hits / (shares.sum((0, 2, 3)) + true).clamp(min=1e-6)
        there = true > 0
        return (dice * there).sum() / there.sum().clamp(min=1)

    def decode(self, outputs: Tensor) -> Tensor:
        """The likeliest class of each pixel, int64 [N, H, W].

        >>> Segmentation(2).decode(torch.tensor([0.0, 1.0]).view(1, 2, 1, 1)).tolist()
        [[[1]]]
        """
        return outputs.argmax(1)

    def metrics(self) -> "MetricCollection":
        """`miou`, the mean over classes of the intersection over the union, and the share of pixels that are right."""
        from torchmetrics import MetricCollection
        from torchmetrics.classification import MulticlassAccuracy, MulticlassJaccardIndex

        options = {"num_classes": self.num_classes, "ignore_index": IGNORE, "validate_args": False}
        metrics = {
            "miou": MulticlassJaccardIndex(**options),
            "accuracy": MulticlassAccuracy(**options, average="micro"),
        }
        return MetricCollection(metrics, compute_groups=False)

    def wanted(self, picture: Sequence[int]) -> str:
        """In words, what a network must give."""
        return f"1x{self.num_classes}x{picture[1]}x{picture[2]} logits"

    def serves(self, shapes: Sequence[tuple[int, ...]], picture: Sequence[int]) -> bool:
        """Whether outputs of these shapes are that."""
        return [*shapes] == [(1, self.num_classes, *picture[1:])]
