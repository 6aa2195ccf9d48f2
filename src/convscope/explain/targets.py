"""What a network is asked about: functions from its outputs to one number a sample."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from convscope.errors import InputError

Target = Callable[[Any], Tensor]


def logit(index: int) -> Target:
    """The output of one class. Shapes: N x classes -> N.

    Raises: InputError, when called, if the outputs are not N x classes, or the class is none of them.

    >>> logit(1)(torch.tensor([[3.0, 4.0]]))
    tensor([4.])
    """

    def score(outputs: Any) -> Tensor:
        if not isinstance(outputs, Tensor) or outputs.ndim != 2:
            found = "x".join(map(str, outputs.shape)) if isinstance(outputs, Tensor) else f"a {type(outputs).__name__}"
            raise InputError(
                f"target {index}: the model gives {found}, not N x classes; "
                "give a function of its outputs, such as logit_sum or box_score"
            )
        if not 0 <= index < outputs.shape[1]:
            raise InputError(f"target {index}: the model has classes 0 to {outputs.shape[1] - 1}; choose one of them")
        return outputs[:, index]

    return score


def logit_sum(index: int, *, key: str | None = None) -> Target:
    """The outputs of one class, added over all places, as segmentation needs it. Shapes: N x classes x ... -> N.

    key: which entry, where the outputs are a mapping ("out" for torchvision's segmentation networks).

    >>> logit_sum(0)(torch.ones(1, 2, 3, 3))
    tensor([9.])
    """
    return lambda outputs: (outputs if key is None else outputs[key])[:, index].flatten(1).sum(1)


def unit(*index: int) -> Target:
    """One element of the output of each sample. Shapes: N x ... -> N.

    >>> unit(0, 2, 1)(torch.arange(9.0).view(1, 1, 3, 3))
    tensor([7.])
    """
    return lambda outputs: outputs[(slice(None), *index)]


def box_score(box: tuple[float, float, float, float], *, label: int) -> Target:
    """The best score of a box of that class that overlaps `box` by half at least (intersection over union); else 0.

    box: x1, y1, x2, y2 in pixels. Outputs: a mapping with "boxes" Mx4, "scores" M and "labels" M for each sample.

    >>> found = {"boxes": torch.tensor([[0.0, 0, 4, 4]]), "scores": torch.tensor([0.9]), "labels": torch.tensor([2])}
    >>> box_score((0, 0, 4, 5), label=2)([found])
    tensor([0.9000])
    """
    from torchvision.ops import box_iou

    def one(found: Any) -> Tensor:
        wanted = torch.tensor([box], dtype=found["boxes"].dtype, device=found["boxes"].device)
        near = (box_iou(found["boxes"].detach(), wanted)[:, 0] >= 0.5) & (found["labels"] == label)
        scores = found["scores"]
        return scores[near].max() if bool(near.any()) else scores.sum() * 0

    return lambda outputs: torch.stack([one(found) for found in outputs])
