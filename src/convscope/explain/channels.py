"""What each channel of a layer does over many pictures: its values, dead and duplicate channels, NaN.

Shape suffixes: P places (of all pictures), C channels.
"""

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from convscope.errors import DataError, InputError
from convscope.explain.capture import as_model, called, capturing, find_layer, undisturbed
from convscope.table import Column, Table

ALIKE = 0.9999  # correlation from which two channels say the same


@dataclass(frozen=True, slots=True)
class ChannelStatistics:
    """One channel over all places of all pictures; NaN and infinite values are counted apart and left out.

    `dead`: it was 0 everywhere. `duplicate_of`: the first earlier channel that it equals but for scale and shift.
    """

    channel: int
    mean: float
    std: float
    min: float
    max: float
    zeros: float
    dead: bool
    duplicate_of: int | None
    not_finite: int


@dataclass(frozen=True, slots=True)
class LayerStatistics:
    """The channels of one layer over `num_images` pictures of `places` places each."""

    layer: str
    num_images: int
    places: int
    channels: tuple[ChannelStatistics, ...]

    @property
    def dead(self) -> tuple[int, ...]:
        """The channels that were 0 everywhere."""
        return tuple(c.channel for c in self.channels if c.dead)

    @property
    def duplicates(self) -> tuple[tuple[int, int], ...]:
        """(channel, the earlier channel that it repeats)."""
        return tuple((c.channel, c.duplicate_of) for c in self.channels if c.duplicate_of is not None)

    def table(self) -> Table:
        """A row a channel; the notes count what is wrong."""
        columns = (
            Column("channel", "channel"), Column("mean", "mean"), Column("std", "std"), Column("min", "min"),
            Column("max", "max"), Column("zeros", "zeros", "%"), Column("remark", "remark"),
        )  # fmt: skip
        rows = tuple({**asdict(c), "zeros": 100 * c.zeros, "remark": _remark(c)} for c in self.channels)
        notes = (
            f"{len(self.channels)} channels: {len(self.dead)} dead, {len(self.duplicates)} duplicates, "
            f"{sum(c.not_finite > 0 for c in self.channels)} with NaN or infinite values",
        )
        title = f"{self.layer} over {self.num_images:,} pictures, {self.places:,} places each"
        return Table(columns, rows, title=title, notes=notes)

    def data(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self)

    def _repr_html_(self) -> str:
        return self.table().html()


def statistics(model: nn.Module, batches: Iterable[Tensor], *, layer: str) -> LayerStatistics:
    """Per channel over all pictures; one batch is in memory at a time.

    batches: NxCxHxW each, as the model takes them. The layer gives N x channels or N x channels x places.
    Raises: InputError if there is no such layer, or it has no channels; DataError if there are no pictures.
    Source: means and moments of batches are joined by Chan, Golub & LeVeque 1979.

    >>> model = nn.Sequential(nn.Conv2d(1, 2, 1), nn.ReLU())
    >>> statistics(model, [torch.rand(4, 1, 3, 3)], layer="1").num_images
    4
    """
    path = find_layer(model, layer)
    found, images, places = _Moments(), 0, 0
    with undisturbed(model), torch.no_grad(), capturing(model, path) as outputs:
        for x in batches:
            called(model, as_model(model, x))
            if not outputs or outputs[0].ndim < 2:
                raise InputError(f"layer {path!r}: gives no N x channels output; choose another layer")
            values_PC = outputs[0].flatten(2).movedim(1, -1).flatten(0, -2)
            found.add(values_PC.double().cpu().numpy())
            images, places = images + len(x), values_PC.shape[0] // len(x)
    if images == 0:
        raise DataError("statistics: there are no pictures; give a data set that has some")
    return LayerStatistics(path, images, places, found.channels())


@dataclass
class _Moments:
    """What has been seen so far; `pairs` are the sums of products of deviations from the means, CxC."""

    count: int = 0
    mean: Any = 0.0
    pairs: Any = 0.0
    finite: Any = 0
    zeros: Any = 0
    low: Any = field(default_factory=lambda: np.inf)
    high: Any = field(default_factory=lambda: -np.inf)
    parts: Any = 0.0  # of the finite values of each channel: their squared deviations, and mean below
    centre: Any = 0.0

    def add(self, values_PC: np.ndarray) -> None:
        good = np.isfinite(values_PC)
        filled = np.where(good, values_PC, 0.0)
        self.low = np.minimum(self.low, np.where(good, values_PC, np.inf).min(axis=0))
        self.high = np.maximum(self.high, np.where(good, values_PC, -np.inf).max(axis=0))
        self.zeros = self.zeros + ((values_PC == 0) & good).sum(axis=0)
        self._add_pairs(filled)
        n = good.sum(axis=0)
        centre = filled.sum(axis=0) / np.maximum(n, 1)
        parts = (np.where(good, values_PC - centre, 0.0) ** 2).sum(axis=0)
        both, apart = np.maximum(self.finite + n, 1), centre - self.centre
        self.parts = self.parts + parts + apart**2 * self.finite * n / both
        self.centre = self.centre + apart * n / both
        self.finite = self.finite + n

    def channels(self) -> tuple[ChannelStatistics, ...]:
        """Each channel's line, from what has been added."""
        bad = self.count - self.finite
        repeats = self._repeats(bad)
        nothing = self.finite == 0
        std = np.sqrt(self.parts / np.maximum(self.finite, 1))
        return tuple(
            ChannelStatistics(
                channel=c,
                mean=float("nan") if nothing[c] else float(self.centre[c]),
                std=float("nan") if nothing[c] else float(std[c]),
                min=float("nan") if nothing[c] else float(self.low[c]),
                max=float("nan") if nothing[c] else float(self.high[c]),
                zeros=float(self.zeros[c] / self.count),
                dead=bool(self.zeros[c] == self.count),
                duplicate_of=repeats[c],
                not_finite=int(bad[c]),
            )
            for c in range(len(std))
        )

    def _add_pairs(self, filled_PC: np.ndarray) -> None:
        n = len(filled_PC)
        mean = filled_PC.mean(axis=0)
        off, apart = filled_PC - mean, mean - self.mean
        self.pairs = self.pairs + off.T @ off + np.multiply.outer(apart, apart) * self.count * n / (self.count + n)
        self.mean = self.mean + apart * n / (self.count + n)
        self.count += n

    def _repeats(self, bad: np.ndarray) -> list[int | None]:
        size = np.sqrt(np.diag(self.pairs))
        moves = (bad == 0) & (size > 1e-9 * np.sqrt(self.count) * np.maximum(np.abs(self.low), np.abs(self.high)))
        scale = np.where(moves, size, np.inf)
        alike = np.tril(self.pairs / scale[:, None] / scale > ALIKE, k=-1)
        return [int(row.argmax()) if row.any() else None for row in alike]


def _remark(c: ChannelStatistics) -> str:
    parts = ["dead"] if c.dead else []
    parts += [f"as channel {c.duplicate_of}"] if c.duplicate_of is not None else []
    parts += [f"{c.not_finite:,} NaN or infinite"] if c.not_finite else []
    return ", ".join(parts)
