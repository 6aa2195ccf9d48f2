"""profile(): each operator's time inside the network and alone, beside the least that the machine allows.

Inside the network, a dispatch mode holds the stopwatch: what Python spends around an operator is not the
operator's. Alone, an operator is run again and again on the tensors that it met, with warm caches.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from convscope.clock import Limits, Timing, measure
from convscope.errors import InputError
from convscope.graph import (
    RULES,
    Op,
    OpRule,
    Recording,
    Value,
    call_of,
    is_in_place,
    moved_bytes,
    record,
    rule_of,
)
from convscope.table import Column, Table, number

COLUMNS = (
    Column("layer", "layer"),
    Column("op", "operator"),
    Column("output", "output"),
    Column("inside", "in the network", "ms"),
    Column("of_time", "of the time"),
    Column("alone", "alone", "ms"),
    Column("least", "at least", "ms"),
    Column("bound", "set by"),
    Column("of_limit", "of the limit"),
)


@dataclass(frozen=True, slots=True)
class TimedOp:
    """One operator on the clock.

    Units: `inside` and `alone` are seconds a run (`alone` None where it was not asked for); `macs` None without a
    rule; `bytes` what it reads and writes; `least` the seconds that the machine's limit allows, and `bound` what
    sets it: "arithmetic", "memory" or "call".
    """

    op: Op
    inside: Timing
    alone: Timing | None
    macs: int | None
    bytes: int
    least: float
    bound: str

    def data(self) -> dict[str, Any]:
        """Plain data for JSON. Units: seconds, bytes, MACs."""
        return {
            "module": self.op.module,
            "op": self.op.name,
            "output_shape": self.op.outputs[0].shape if self.op.outputs else (),
            "inside": self.inside.data(),
            "alone": self.alone and self.alone.data(),
            "macs": self.macs,
            "bytes": self.bytes,
            "least": self.least,
            "bound": self.bound,
        }


@dataclass(frozen=True, slots=True)
class Profile:
    """The answer of `profile`: operators in the order in which they ran, and the network as a whole.

    `whole` is timed without the stopwatch, in the same rounds; `rest` is what it has beyond the operators' sum:
    Python, modules, hooks. Units: seconds.
    """

    ops: tuple[TimedOp, ...]
    whole: Timing
    limits: Limits
    notes: tuple[str, ...] = ()

    @property
    def inside(self) -> float:
        """The operators' times inside the network, added."""
        return sum(t.inside.median for t in self.ops)

    @property
    def rest(self) -> float:
        """What the whole network takes beyond its operators."""
        return self.whole.median - self.inside

    @property
    def least(self) -> float:
        """The least that the machine allows for the operators, one after the other."""
        return sum(t.least for t in self.ops)

    def table(self, *, title: str = "", top: int | None = None) -> Table:
        """The operators that take longest (all, if `top` is None), and the sums. Units: ms."""
        longest = sorted(self.ops, key=lambda t: -t.inside.median)
        left_out = longest[top:] if top else []
        others = f"{len(left_out)} more operators: {number(sum(t.inside.median for t in left_out) * 1e3)} ms"
        total = {"layer": "operators, added", "inside": self.inside * 1e3, "least": self.least * 1e3}
        whole = (
            f"{number(self.whole.median * 1e3)} ms ({number(self.whole.low * 1e3)} to {number(self.whole.high * 1e3)})"
        )
        beyond = (
            f"{number(self.rest * 1e3)} ms beyond them (Python, modules)" if self.rest > 0 else "nothing beyond them"
        )
        network = f"the whole network: {whole}, {beyond}"
        return Table(
            COLUMNS,
            tuple(self._row(t) for t in longest[:top]),
            title=title,
            total=total | self._shares(self.inside, self.least),
            notes=(*([others] if left_out else []), network, *self.notes),
        )

    def data(self) -> dict[str, Any]:
        """Plain data for JSON. Units: seconds, bytes, MACs."""
        totals = {"inside": self.inside, "rest": self.rest, "least": self.least}
        return {
            "total": {"seconds": self.whole.data(), **totals},
            "operators": [t.data() for t in self.ops],
            "limits": self.limits.data(),
            "notes": list(self.notes),
        }

    def _row(self, timed: TimedOp) -> dict[str, Any]:
        return {
            "layer": timed.op.module or "(model)",
            "op": timed.op.name,
            "output": timed.op.outputs[0].shape if timed.op.outputs else (),
            "inside": timed.inside.median * 1e3,
            "alone": timed.alone and timed.alone.median * 1e3,
            "least": timed.least * 1e3,
            "bound": timed.bound,
        } | self._shares(timed.inside.median, timed.least)

    def _shares(self, inside: float, least: float) -> dict[str, str]:
        of_limit = f"{100 * least / inside:.0f} %" if inside else ""
        return {"of_time": f"{100 * inside / self.inside:.1f} %", "of_limit": of_limit}


def profile(
    model: nn.Module,
    *example: Any,
    limits: Limits,
    rounds: int = 10,
    alone: bool = True,
    rules: Mapping[str, OpRule] = RULES,
) -> Profile:
    """Time every operator of `model(*example)` as the model is, without gradients.

    rounds: how often the whole network runs with and without the stopwatch, in turn. alone: time each operator by
    itself as well; operators that agree in everything but values are timed once.
    Raises: InputError if the model is not on the CPU; ModelError if the forward pass raises.
    """
    elsewhere = {p.device.type for p in model.parameters()} - {"cpu", "meta"}
    if elsewhere:
        raise InputError(f"profile: the model is on {min(elsewhere)}, but times and limits are the processor's; "
                         "bring the model and its input to the CPU")  # fmt: skip
    recording = record(model, *example, keep=lambda op: True)
    whole, laps = _rounds(model, example, recording, rounds)
    by_itself = dict(_alone(recording)) if alone else {}
    timed = []
    for op in _ran(recording):
        rule, moved = rule_of(op, rules=rules), moved_bytes(recording, op)
        macs = rule.macs(op) if rule else None
        dtype = op.outputs[0].dtype if op.outputs else torch.float32
        work: dict[str, Any] = {"macs": macs or 0, "bytes": moved, "dtype": _counted(dtype, limits)}
        least, bound = limits.least_seconds(**work), limits.bound(**work)
        timed.append(TimedOp(op, laps[op.index], by_itself.get(op.index), macs, moved, least, bound))
    return Profile(tuple(timed), whole, limits, recording.notes)


def _counted(dtype: torch.dtype, limits: Limits) -> str:
    """The dtype whose arithmetic limit holds: where its own was not measured, that of float32."""
    name = str(dtype).removeprefix("torch.")
    return name if name in limits.macs else "float32"


def _ran(recording: Recording) -> Iterator[Op]:
    """The operators that PyTorch ran; a change seen through a view is none."""
    return (op for op in recording.ops if not op.is_own)


class _Stopwatch(TorchDispatchMode):
    """Takes each operator's time, in the order in which they run."""

    def __init__(self) -> None:
        super().__init__()
        self.laps: list[tuple[str, float]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        start = perf_counter()
        result = func(*args, **(kwargs or {}))
        self.laps.append((str(func), perf_counter() - start))
        return result


def _rounds(model: nn.Module, example: Any, recording: Recording, rounds: int) -> tuple[Timing, dict[int, Timing]]:
    """The whole network without the stopwatch and each operator with it, in turn."""
    whole: list[float] = []
    laps: dict[int, list[float]] = {op.index: [] for op in _ran(recording)}
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # as in the recording
    try:
        with torch.no_grad():
            model(*example)
            for _ in range(rounds):
                start = perf_counter()
                model(*example)
                whole.append(perf_counter() - start)
                with _Stopwatch() as watch:
                    model(*example)
                for index, seconds in _matched(recording, watch.laps):
                    laps[index].append(seconds)
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
    return Timing(tuple(whole)), {index: Timing(tuple(seconds)) for index, seconds in laps.items()}


def _matched(recording: Recording, laps: list[tuple[str, float]]) -> Iterator[tuple[int, float]]:
    """Laps of recorded operators: both are in the order of running, and the recording left some out."""
    remaining = iter(laps)
    for op in _ran(recording):
        for target, seconds in remaining:
            if target == op.target:
                yield op.index, seconds
                break


def _alone(recording: Recording) -> Iterator[tuple[int, Timing]]:
    """Each operator by itself on the tensors that it met; alike ones are timed once."""
    known: dict[Any, Timing] = {}
    with torch.no_grad():
        for op in _ran(recording):
            alike = _alike(op, recording.tensors)
            if alike not in known:
                known[alike] = measure(call_of(op, _own(op, recording.tensors)), at_most=0.3)
            yield op.index, known[alike]


def _own(op: Op, tensors: Mapping[int, Tensor]) -> Mapping[int, Tensor]:
    """Copies of what an operator in place would change."""
    return {v.id: tensors[v.id].clone() for v in op.inputs} if is_in_place(op) else tensors


def _alike(op: Op, tensors: Mapping[int, Tensor]) -> Any:
    """What operators must agree in to take the same time: everything but values."""
    met = tuple((t.shape, t.stride(), t.dtype) for t in (tensors[v.id] for v in op.inputs))
    return op.target, met, tuple((name, _plain(arg)) for name, arg in op.args.items())


def _plain(arg: Any) -> Any:
    if isinstance(arg, tuple):
        return tuple(_plain(a) for a in arg)
    return None if isinstance(arg, Value) else repr(arg)
