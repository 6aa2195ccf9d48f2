"""Segmentation: one class for each pixel."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from convscope.data.samples import IGNORE
from convscope.layers.fast.entropy import mean_entropy

if TYPE_CHECKING:
    from torchmetrics import MetricCollection


@dataclass(frozen=True, slots=True, eq=False)
class Segmentation:
    """Cross-entropy on the logits of every pixel for training, the likeliest class for prediction.

    Shapes: outputs are logits [N, num_classes, H, W], targets are classes [N, H, W] (255 counts neither way);
    class_weights [num_classes].
    """

    num_classes: int
    label_smoothing: float = 0.0
    class_weights: Tensor | None = None

    score = "miou"

    def loss(self, outputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """`loss`, the mean cross-entropy of a pixel (nats, weighted) to be minimised.

        >>> import torch
        >>> found = Segmentation(2).loss(torch.zeros(1, 2, 1, 2), torch.tensor([[[0, 255]]]))
        >>> round(found["loss"].item(), 4)
        0.6931
        """
        weights = None if self.class_weights is None else self.class_weights.to(outputs.device)
        plain = weights is None and not self.label_smoothing and torch.is_grad_enabled()
        known = mean_entropy(outputs, targets, ignored=IGNORE) if plain else None
        if known is not None:
            return {"loss": known}
        valid = targets != IGNORE
        if plain:
            return {"loss": _PlainEntropy.apply(outputs, targets.where(valid, 0), valid) / valid.sum().clamp(min=1)}
        logits = outputs.float().contiguous()  # softmax over the channels of NHWC takes five times as long
        options = {"ignore_index": IGNORE, "reduction": "sum", "label_smoothing": self.label_smoothing}
        share = valid.sum() if weights is None else (weights[targets.where(valid, 0)] * valid).sum()
        return {"loss": F.cross_entropy(logits, targets, weights, **options) / share.clamp(min=1e-6)}

    def decode(self, outputs: Tensor) -> Tensor:
        """The likeliest class of each pixel, int64 [N, H, W].

        >>> import torch
        >>> Segmentation(2).decode(torch.tensor([0.0, 1.0]).view(1, 2, 1, 1)).tolist()
        [[[1]]]
        """
        return outputs.max(1).indices  # `argmax` over the channels takes nine times as long

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


class _PlainEntropy(torch.autograd.Function):
    """The sum of the valid pixels' cross-entropies, whose gradient is made with it: one exponential a value, not two.

    On a CPU half the time of PyTorch's, for which the logits are gone through three times more.
    """

    @staticmethod
    def forward(ctx: Any, logits_NCHW: Tensor, targets_NHW: Tensor, valid_NHW: Tensor) -> Tensor:
        x = logits_NCHW.detach().to(torch.float32, memory_format=torch.contiguous_format, copy=True)
        wanted, valid = targets_NHW[:, None], valid_NHW[:, None]
        x.sub_(x.amax(1, keepdim=True))
        picked = x.gather(1, wanted)
        total = x.exp_().sum(1, keepdim=True)
        loss = ((total.log() - picked) * valid).sum()
        x.mul_(valid / total).scatter_add_(1, wanted, -valid.to(x.dtype))
        ctx.save_for_backward(x)
        ctx.like = logits_NCHW.dtype
        return loss

    @staticmethod
    def backward(ctx: Any, *above: Tensor) -> tuple[Tensor, None, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        return (ctx.saved_tensors[0] * above[0]).to(ctx.like), None, None
