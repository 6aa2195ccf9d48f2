"""COCO's average precision, taken apart picture by picture, so that pictures can be drawn anew for an interval.

Shape suffixes: P pictures, T overlaps asked for, n found boxes of one class, G true boxes, R resamples.
Source: Lin et al. 2014 (arXiv:1405.0312), and the matching of pycocotools.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from convscope.data.samples import Boxes

OVERLAPS = tuple(float(v) for v in np.linspace(0.5, 0.95, 10))
RECALLS = torch.from_numpy(np.linspace(0, 1, 101))  # to the bit, since a recall may lie on one of them


@dataclass(frozen=True, slots=True, eq=False)
class Matches:
    """All found boxes of one class, best first: [n] picture, and [T, n] whether each met a true box; and the
    true boxes [P] of each picture."""

    picture: Tensor
    hits: Tensor
    true: Tensor

    def average_precision(self, weights_RP: Tensor) -> Tensor:
        """[R, T] for pictures that count `weights` times; NaN where no true box is left."""
        weights = weights_RP[:, self.picture]
        wanted = (weights_RP * self.true).sum(1)
        right = (weights[:, None] * self.hits).cumsum(2)
        recall = right / wanted[:, None, None]
        precision = right / weights.cumsum(1)[:, None].clamp(min=1e-9)
        envelope = precision.flip(2).cummax(2).values.flip(2)
        envelope = torch.cat([envelope, envelope.new_zeros(*envelope.shape[:2], 1)], 2)
        at = torch.searchsorted(recall.contiguous(), RECALLS.expand(*recall.shape[:2], -1).contiguous())
        found = envelope.gather(2, at).mean(2)
        return found.where(wanted[:, None] > 0, torch.nan)


def match(found: Sequence[Boxes], true: Sequence[Boxes], *, num_classes: int) -> list[Matches]:
    """Found boxes against true ones, picture by picture: one `Matches` a class."""
    return [_of_class([(f.where(f.labels == c), t.where(t.labels == c)) for f, t in zip(found, true, strict=True)])
            for c in range(num_classes)]  # fmt: skip


def overlap(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Intersection over union of boxes [n, 4] with boxes [G, 4], float64 [n, G].

    >>> overlap(np.array([[0, 0, 2, 2]]), np.array([[0, 0, 2, 1], [4, 4, 5, 5]])).tolist()
    [[0.5, 0.0]]
    """
    low, high = np.maximum(one[:, None, :2], other[None, :, :2]), np.minimum(one[:, None, 2:], other[None, :, 2:])
    shared = np.clip(high - low, 0, None).prod(2)
    areas = [(b[:, 2:] - b[:, :2]).prod(1) for b in (one, other)]
    return shared / np.maximum(areas[0][:, None] + areas[1][None] - shared, 1e-12)


def _of_class(pairs: Sequence[tuple[Boxes, Boxes]]) -> Matches:
    scores, hits, picture = [], [], []
    for index, (found, true) in enumerate(pairs):
        order = np.argsort(-found.scores.numpy(), kind="stable")
        scores.append(found.scores.numpy()[order])
        hits.append(_hits(overlap(found.boxes.double().numpy()[order], true.boxes.double().numpy())))
        picture.append(np.full(len(order), index))
    best_first = np.argsort(-np.concatenate(scores), kind="stable")
    return Matches(
        torch.from_numpy(np.concatenate(picture)[best_first]),
        torch.from_numpy(np.concatenate(hits, axis=1)[:, best_first]).double(),
        torch.tensor([len(true.labels) for _, true in pairs], dtype=torch.float64),
    )


def _hits(overlaps_nG: np.ndarray) -> np.ndarray:
    """[T, n]: each found box in turn takes the true box it lies on best, of those that are left."""
    found, true = overlaps_nG.shape
    hits, asked = np.zeros((len(OVERLAPS), found), bool), np.array(OVERLAPS)
    left = np.ones((len(OVERLAPS), true), bool)
    for at in range(found if true else 0):
        lying = np.where(left, overlaps_nG[at], -1.0)
        best = true - 1 - lying[:, ::-1].argmax(1)  # of equals the last, as pycocotools does
        rows = np.flatnonzero(lying[np.arange(len(asked)), best] >= asked)
        hits[rows, at] = True
        left[rows, best[rows]] = False
    return hits
