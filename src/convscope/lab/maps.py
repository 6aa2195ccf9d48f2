"""The output of an operator as maps: a page of them, in an order, with what is true of each.

Legend of shapes: M maps, H rows, W columns.
"""

from dataclasses import dataclass
from functools import cached_property
from math import isqrt, prod
from typing import Any

import numpy as np

from convscope.errors import InputError
from convscope.explain.pictures import Scale
from convscope.graph import Op, Recording

PAGE = 64
SIDE = 256  # of a map as it is sent; a larger one is thinned out
ORDERS = ("index", "max", "variance")


@dataclass(frozen=True)
class Maps:
    """All maps of one output. `lead` is the shape before rows and columns, so that map m is `lead` unravelled at m.

    A vector of F features is one map in rows of `wrapped` features.
    """

    values_MHW: np.ndarray
    lead: tuple[int, ...]
    wrapped: int | None

    @cached_property
    def stats(self) -> dict[str, np.ndarray]:
        """For each map: smallest, largest, mean and variance of its finite values, and how many are not finite."""
        finite = np.isfinite(self.values_MHW)
        count = np.maximum(finite.sum((1, 2)), 1)
        zeroed = np.where(finite, self.values_MHW, 0.0).astype(np.float64)
        mean = zeroed.sum((1, 2)) / count
        spread = np.where(finite, zeroed - mean[:, None, None], 0.0)
        none = finite.sum((1, 2)) == 0
        return {
            "min": np.where(none, np.nan, np.where(finite, self.values_MHW, np.inf).min((1, 2))),
            "max": np.where(none, np.nan, np.where(finite, self.values_MHW, -np.inf).max((1, 2))),
            "variance": (spread**2).sum((1, 2)) / count,
            "bad": finite[0].size - finite.sum((1, 2)),
        }

    @cached_property
    def scale(self) -> Scale:
        """The scale of the whole layer."""
        return Scale.of(self.values_MHW)

    def order(self, by: str) -> np.ndarray:
        """The maps' numbers, largest first unless by index; a map without a finite value comes last."""
        if by == "index":
            return np.arange(len(self.values_MHW))
        return np.argsort(-np.nan_to_num(self.stats[by], nan=-np.inf), kind="stable")

    def page(self, number: int, *, by: str = "index") -> tuple[dict[str, Any], np.ndarray]:
        """What is said of a page of 64 maps, and their values; every `step`-th row and column of a large map.

        Raises: InputError if there is no such order or page.
        """
        if by not in ORDERS:
            raise InputError(f"order {by[:20]!r}: maps are not sorted so; use {', '.join(ORDERS)}")
        count, height, width = self.values_MHW.shape
        pages = max(1, -(-count // PAGE))
        if not 0 <= number < pages:
            raise InputError(f"page {number}: there are pages 0 to {pages - 1}")
        chosen = self.order(by)[number * PAGE : (number + 1) * PAGE]
        step = max(1, -(-max(height, width) // SIDE))
        values = self.values_MHW[chosen][:, ::step, ::step]
        stats = {k: v[chosen].tolist() for k, v in self.stats.items()}
        dead = [
            low == high == bad == 0 for low, high, bad in zip(stats["min"], stats["max"], stats["bad"], strict=True)
        ]
        return self._whole() | {
            "rows": values.shape[1], "columns": values.shape[2], "step": step, "page": number, "pages": pages, "by": by,
            "index": chosen.tolist(), **stats, "dead": dead,
        }, values  # fmt: skip

    def head(self) -> dict[str, Any]:
        """What is said of all maps in their order, for a page that turns its pages itself."""
        return self._whole() | {k: v.tolist() for k, v in self.stats.items()} | {"page_of": PAGE, "side": SIDE}

    def _whole(self) -> dict[str, Any]:
        """What is true of the layer."""
        count, height, width = self.values_MHW.shape
        return {
            "maps": count, "height": height, "width": width, "lead": self.lead, "wrapped": self.wrapped,
            "limit": self.scale.limit, "signed": self.scale.signed, "not_finite": int(self.stats["bad"].sum()),
        }  # fmt: skip


def maps_of(recording: Recording, op: Op) -> Maps:
    """The maps of an operator's first output.

    Raises: InputError if it has none: a single number, nothing, or no numbers at all.
    """
    out = op.outputs[0] if op.outputs else None
    where = f"maps of {op.module or op.name}"
    if out is None or len(out.shape) < 2 or 0 in out.shape or out.dtype.is_complex:
        shape = "x".join(map(str, out.shape)) if out else "nothing"
        raise InputError(f"{where}: its output ({shape or 'one number'}) has no rows and columns; choose another layer")
    values = recording.tensors[out.id].float().cpu().numpy()
    if len(out.shape) == 2 and out.shape[0] == 1:
        width = _wrap(out.shape[1])
        return Maps(values.reshape(1, -1, width), (), width)
    lead = out.shape[:-2]
    return Maps(values.reshape(prod(lead), *out.shape[-2:]), lead, None)


def _wrap(features: int) -> int:
    """The width at which a vector fills a block as square as its number allows; a short one stays a row."""
    if features <= 16:
        return features
    return features // max(r for r in range(1, isqrt(features) + 1) if features % r == 0)
