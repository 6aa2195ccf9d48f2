"""Every member under one setting, counted on a recording of it: nothing is computed, nothing is typed."""

from dataclasses import asdict, dataclass
from itertools import product
from math import prod
from typing import Any

import torch

from convscope.clock import Timing
from convscope.family.setting import MEMBERS, Setting
from convscope.graph import Recording, Value, record
from convscope.inspect import Summary, receptive_field, summarize
from convscope.table import Column, Table

_MOVES_NOTHING = frozenset({"view", "_unsafe_view", "permute", "transpose", "unsqueeze", "squeeze"})


@dataclass(frozen=True, slots=True)
class Times:
    """What a member takes on this machine, in seconds.

    `forward` and with the backward pass (`training`) as PyTorch runs it; forward the `fastest` way that was found,
    whose words are `way`; and the least that the machine's limits allow for the forward pass (`limit`).
    """

    forward: Timing
    training: Timing
    fastest: Timing
    way: str
    limit: float


@dataclass(frozen=True, slots=True)
class Member:
    """One member, and what a recording of it says.

    Units: `macs` of the whole batch; `bytes` of the input, the weights and the output, each counted once, the least
    that must be moved; `work` the MACs and bytes of each operator in turn, maps between the parts of a stack included;
    `field` elements of the input that a unit of the output sees at most.
    """

    name: str
    output_shape: tuple[int, ...]
    params: int
    macs: int
    field: tuple[int, ...]
    bytes: int
    work: tuple[tuple[int, int], ...]
    times: Times | None = None

    @property
    def intensity(self) -> float:
        """MACs for each byte that must be moved: where it is low, memory decides, not arithmetic."""
        return self.macs / self.bytes


@dataclass(frozen=True, slots=True)
class Family:
    """All members under one setting, the dense convolution first; `notes` say how they were timed, if they were."""

    setting: Setting
    members: tuple[Member, ...]
    notes: tuple[str, ...] = ()

    def __getitem__(self, name: str) -> Member:
        return next(m for m in self.members if m.name == name)

    def promised(self, member: Member) -> float | None:
        """How many times fewer MACs it has than the dense convolution; None if it has none."""
        return self.members[0].macs / member.macs if member.macs else None

    def delivered(self, member: Member) -> float | None:
        """How many times faster its forward pass is than the dense convolution's, both as PyTorch runs them; None if it
        was not timed.
        """
        dense = self.members[0].times
        return dense.forward.over(member.times.forward) if dense and member.times else None

    def delivered_at_best(self, member: Member) -> float | None:
        """How many times faster it is, run the fastest way, than the dense convolution as PyTorch runs that."""
        dense = self.members[0].times
        return dense.forward.over(member.times.fastest) if dense and member.times else None

    def table(self) -> Table:
        """A row for each member."""
        timed = self.members[0].times is not None
        columns = tuple(c for c in _COLUMNS if timed or c.key not in _TIMED)
        s = self.setting
        by = "x".join(str(w.size) for w in s.windows())
        title = f"{'x'.join(map(str, s.shape))} to {s.out_channels} channels, kernel {by}, groups {s.groups}, float32"
        return Table(columns, tuple(self._row(m) for m in self.members), title=title, notes=self.notes)

    def data(self) -> dict[str, Any]:
        """Plain data for JSON: `setting`, `notes`, and `members` with all that is known of them."""
        rows = [{**self._row(m), "bytes": m.bytes, **_seconds(m.times)} for m in self.members]
        return {"setting": asdict(self.setting), "members": rows, "notes": list(self.notes)}

    def __str__(self) -> str:
        return self.table().text()

    def _repr_html_(self) -> str:
        return self.table().html()

    def _row(self, m: Member) -> dict[str, Any]:
        row = {name: getattr(m, name) for name in ("name", "output_shape", "params", "macs", "field", "intensity")}
        row |= {"megabytes": m.bytes / 1e6, "promised": self.promised(m)}
        if m.times:
            row |= {"forward_ms": m.times.forward.median * 1e3, "training_ms": m.times.training.median * 1e3}
            row |= {"limit_ms": m.times.limit * 1e3, "delivered": self.delivered(m), "way": m.times.way}
            row |= {"fastest_ms": m.times.fastest.median * 1e3, "delivered_at_best": self.delivered_at_best(m)}
        return row


_TIMED = ("limit_ms", "forward_ms", "training_ms", "fastest_ms", "delivered", "delivered_at_best", "way")
_COLUMNS = (
    Column("name", "member"),
    Column("output_shape", "output"),
    Column("params", "params"),
    Column("macs", "MACs"),
    Column("field", "sees", "px"),
    Column("megabytes", "moves", "MB"),
    Column("intensity", "MACs/byte"),
    Column("limit_ms", "limit", "ms"),
    Column("forward_ms", "forward", "ms"),
    Column("training_ms", "and backward", "ms"),
    Column("fastest_ms", "at its fastest", "ms"),
    Column("promised", "fewer MACs", "x"),
    Column("delivered", "faster", "x"),
    Column("delivered_at_best", "faster at its fastest", "x"),
    Column("way", "fastest way"),
)


def family(setting: Setting | None = None) -> Family:
    """Every member of the family under one setting, counted on a recording of it.

    Nothing is computed: layers are made and recorded on tensors that have a shape and no values.
    Raises: InputError if pooling cannot have the padding.

    >>> told = family(Setting(8, 8, (10, 12), batch=1))
    >>> [told[name].macs // 120 for name in ("dense", "depthwise separable")]
    [576, 136]
    """
    s = setting or Setting()
    return Family(s, tuple(_member(name, s) for name in MEMBERS))


def _member(name: str, s: Setting) -> Member:
    with torch.device("meta"):
        recording = record(MEMBERS[name](s), torch.zeros(s.shape))
    summary = summarize(recording)
    return Member(
        name,
        output_shape=recording.outputs[0].shape,
        params=summary.total.params,
        macs=summary.total.macs,
        field=_field(recording),
        bytes=_bytes((*recording.inputs, *recording.params, *recording.outputs)),
        work=_work(recording, summary),
    )


def _bytes(values: tuple[Value, ...]) -> int:
    return sum(prod(v.shape) * v.dtype.itemsize for v in values)


def _work(recording: Recording, summary: Summary) -> tuple[tuple[int, int], ...]:
    """MACs, and bytes read and written, of each operator that moves anything; what nobody reads is not counted."""
    read = {v for op in recording.ops for v in op.inputs} | {*recording.outputs}
    return tuple(
        (row.macs or 0, _bytes((*op.inputs, *(v for v in op.outputs if v in read))))
        for op, row in zip(recording.ops, summary.operators, strict=True)
        if op.name not in _MOVES_NOTHING
    )


def _field(recording: Recording) -> tuple[int, ...]:
    """The largest extent that a middle unit or one beside it sees: those of a transposed convolution differ."""
    out = recording.outputs[0]
    last = next(op for op in recording.ops if out in op.outputs)
    near = [range(n // 2, min(n // 2 + 2, n)) for n in out.shape[2:]]
    boxes = [receptive_field(recording, last, unit=(0, 0, *place)) for place in product(*near)]
    sizes = [tuple(hi - lo + 1 for lo, hi in box[2:]) if box else (0,) * len(near) for box in boxes]
    return tuple(map(max, zip(*sizes, strict=True)))


def _seconds(times: Times | None) -> dict[str, Any]:
    if times is None:
        return {}
    timed = {"forward": times.forward.data(), "training": times.training.data(), "fastest": times.fastest.data()}
    return {**timed, "limit": times.limit}
