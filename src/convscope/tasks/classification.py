"""Classification: one class for a whole picture."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch.nn.functional as F
from torch import Tensor

if TYPE_CHECKING:
    from torchmetrics import MetricCollection


@dataclass(frozen=True, slots=True, eq=False)
class Classification:
    """Cross-entropy on logits for training, softmax for prediction.

    Shapes: outputs are logits [N, num_classes], targets are class indices [N]; class_weights [num_classes].
    """

    num_classes: int
    label_smoothing: float = 0.0
    class_weights: Tensor | None = None

    score = "accuracy"

    def loss(self, outputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """`loss`, the mean cross-entropy (nats) to be minimised, and `accuracy` of the batch.

        >>> import torch
        >>> two = Classification(2).loss(torch.zeros(1, 2), torch.tensor([0]))
        >>> round(two["loss"].item(), 4), two["accuracy"].item()
        (0.6931, 1.0)
        """
        hits = outputs.detach().argmax(1) == targets
        weights = None if self.class_weights is None else self.class_weights.to(outputs.device)
        loss = F.cross_entropy(outputs.float(), targets, weights, label_smoothing=self.label_smoothing)
        return {"loss": loss, "accuracy": hits.float().mean()}

    def decode(self, outputs: Tensor) -> Tensor:
        """Probabilities [N, num_classes], summing to one.

        >>> import torch
        >>> Classification(2).decode(torch.zeros(1, 2)).tolist()
        [[0.5, 0.5]]
        """
        return outputs.float().softmax(1)

    def metrics(self) -> "MetricCollection":
        """`accuracy`, over all samples alike, fed with decoded outputs and targets."""
        from torchmetrics import MetricCollection
        from torchmetrics.classification import MulticlassAccuracy

        return MetricCollection(
            {"accuracy": MulticlassAccuracy(self.num_classes, average="micro", validate_args=False)},
            compute_groups=False,
        )

    def wanted(self, picture: Sequence[int]) -> str:
        """In words, what a network must give."""
        return f"1x{self.num_classes} logits"

    def serves(self, shapes: Sequence[tuple[int, ...]], picture: Sequence[int]) -> bool:
        """Whether outputs of these shapes are that."""
        return [*shapes] == [(1, self.num_classes)]
