"""sizes(): one network at several input sizes; least_input(): the smallest that it takes."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from convscope.errors import ModelError
from convscope.graph import NotDerived, Recording, record, resized
from convscope.inspect.memory import MIB
from convscope.inspect.summary import Summary, summarize
from convscope.table import Column, Table

COLUMNS = (
    Column("input_shape", "input"),
    Column("output_shape", "output"),
    Column("macs", "MACs"),
    Column("peak", "peak memory", "MiB"),
    Column("how", "is"),
)


_SETTLED = {"torch.nn.modules.pooling", "torch.nn.modules.padding", "torch.nn.modules.flatten"}
DERIVED = (
    "derived: from the recording at {size}, by the geometry of each operator; nothing ran again, "
    "and code of the network that asks how large a map is was not asked"
)


@dataclass(frozen=True, slots=True)
class Sizes:
    """The summaries of one network at several input sizes.

    `reasons` has an entry for each: None where it was derived from the recording at `origin`, else why it was
    recorded at this size (empty for the one that was recorded anyway).
    """

    summaries: tuple[Summary, ...]
    reasons: tuple[str | None, ...]
    origin: tuple[int, ...]

    def table(self, *, title: str = "") -> Table:
        """One row an input size: output shape, MACs, peak memory of inference, and how they are known."""
        return Table(COLUMNS, self._rows, title=title, notes=self.notes)

    @property
    def notes(self) -> tuple[str, ...]:
        """What was derived, and why the rest was not."""
        derived = DERIVED.format(size="x".join(map(str, self.origin)))
        anew = {f"recorded anew: {reason}" for reason in self.reasons if reason}
        return (*([derived] if None in self.reasons else ()), *sorted(anew))

    def data(self) -> dict[str, Any]:
        """Plain data for JSON: the rows of the table, `how` being "derived" or "recorded", and the `notes`."""
        return {"sizes": list(self._rows), "notes": self.notes}

    @property
    def _rows(self) -> tuple[dict[str, Any], ...]:
        pairs = zip(self.summaries, self.reasons, strict=True)
        return tuple(_row(s) | {"how": "derived" if reason is None else "recorded"} for s, reason in pairs)

    def __str__(self) -> str:
        return self.table().text()


def sizes(model: nn.Module, shapes: list[tuple[int, ...]], *, recording: Recording | None = None) -> Sizes:
    """The network at each shape of its first input, derived from one recording where every operator's shape follows.

    Where one does not follow (its size may come from the model's own arithmetic), the network is recorded anew at
    that shape, on tensors without values. recording: one of this network to derive from; else one is made at the
    first shape.
    Raises: ModelError if it does not take one of them.

    >>> [s.operators[-1].output_shape for s in sizes(nn.Conv2d(1, 2, 3), [(1, 1, 8, 8), (1, 1, 9, 7)]).summaries]
    [(1, 2, 6, 6), (1, 2, 7, 5)]
    """
    recording = recording or _recorded(model, (shapes[0],))
    told = [_at(model, recording, (shape, *(v.shape for v in recording.inputs[1:]))) for shape in shapes]
    return Sizes(tuple(t[0] for t in told), tuple(t[1] for t in told), recording.inputs[0].shape)


def _at(model: nn.Module, recording: Recording, shapes: tuple[tuple[int, ...], ...]) -> tuple[Summary, str | None]:
    """The summary at these shapes, and why it was not derived."""
    if shapes == tuple(v.shape for v in recording.inputs):
        return summarize(recording), ""
    settled = {path for path, module in model.named_modules() if _is_settled(module)}
    try:
        return summarize(resized(recording, shapes, settled=settled)), None
    except NotDerived as reason:
        return summarize(_recorded(model, shapes)), str(reason)


def _is_settled(module: nn.Module) -> bool:
    """Whether the sizes that its operator is given are its settings: no code of the model's is between."""
    asked = getattr(module, "output_size", 1)
    return type(module).__module__ in _SETTLED and None not in (asked if isinstance(asked, tuple) else (asked,))


def _recorded(model: nn.Module, shapes: tuple[tuple[int, ...], ...]) -> Recording:
    return record(model, *(torch.zeros(shape, device="meta") for shape in shapes))


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
