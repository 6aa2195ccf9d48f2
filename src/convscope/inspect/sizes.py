"""sizes(): one network at several input sizes; least_input(): the smallest that it takes."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from convscope.errors import ModelError
from convscope.graph import record
from convscope.inspect.memory import MIB
from convscope.inspect.summary import Summary, summarize
from convscope.table import Column, Table

COLUMNS = (
    Column("input_shape", "input"),
    Column("output_shape", "output"),
    Column("macs", "MACs"),
    Column("peak", "peak memory", "MiB"),
)


@dataclass(frozen=True, slots=True)
class Sizes:
    """The summaries of one network at several input sizes."""

    summaries: tuple[Summary, ...]

    def table(self, *, title: str = "") -> Table:
        """One row an input size: output shape, MACs, peak memory of inference."""
        return Table(COLUMNS, tuple(map(_row, self.summaries)), title=title)

    def data(self) -> dict[str, Any]:
        """Plain data for JSON: the rows of the table."""
        return {"sizes": [_row(s) for s in self.summaries]}

    def __str__(self) -> str:
        return self.table().text()


def sizes(model: nn.Module, shapes: list[tuple[int, ...]]) -> Sizes:
    """The network at each input shape (N, C, H, W), recorded anew on tensors without values.

    Raises: ModelError if it does not take one of them.

    >>> [s.operators[-1].output_shape for s in sizes(nn.Conv2d(1, 2, 3), [(1, 1, 8, 8), (1, 1, 9, 7)]).summaries]
    [(1, 2, 6, 6), (1, 2, 7, 5)]
    """
    return Sizes(tuple(summarize(record(model, torch.zeros(shape, device="meta"))) for shape in shapes))


def least_input(model: nn.Module, *, channels: int = 3, most: int = 1024) -> int | None:
    """The least side in px of a square picture that the network takes; None if it takes none up to `most`.

    It is searched by halving between sides that run: what the network does not take above it (sides that must be
    multiples of 32) is not looked at.

    >>> least_input(nn.Sequential(nn.Conv2d(1, 2, 5), nn.MaxPool2d(2)), channels=1)
    6
    """
    takes = next((side for side in (32, 64, 128, 224, 256, 512, most) if _runs(model, channels, side)), None)
    if takes is None:
        return None
    least, low = takes, 0
    while least - low > 1:
        middle = (low + least) // 2
        least, low = (middle, low) if _runs(model, channels, middle) else (least, middle)
    return least


def _runs(model: nn.Module, channels: int, side: int) -> bool:
    try:
        record(model, torch.zeros(1, channels, side, side, device="meta"))
    except ModelError:
        return False
    return True


def _row(summary: Summary) -> dict[str, Any]:
    last = summary.operators[-1] if summary.operators else None
    macs = summary.total.macs
    return {
        "input_shape": summary.input_shapes[0],
        "output_shape": last.output_shape if last else (),
        "macs": f"≥ {macs:,}" if summary.total.unknown else macs,
        "peak": summary.total.memory.peak / MIB,
    }
