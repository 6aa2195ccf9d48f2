"""advise(): what would make a network faster here, and by how much: measured where one run tells, else predicted."""

from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from convscope import machine
from convscope.clock import compare
from convscope.graph import Op
from convscope.profile.measure import Profile, TimedOp
from convscope.table import Column, Table

NORMS = ("native_batch_norm", "_native_batch_norm_legit_no_training")
ACTIVATIONS = ("relu", "relu_", "hardtanh", "hardtanh_", "silu", "silu_", "hardswish", "hardswish_", "gelu", "sigmoid")


@dataclass(frozen=True, slots=True)
class Advice:
    """One thing to try. `gain`: seconds saved of one run of the network; `how`: "measured", "predicted", "at best"."""

    what: str
    gain: float
    how: str

    def data(self) -> dict[str, Any]:
        """Plain data for JSON; the gain in seconds."""
        return asdict(self)


def table_of(advice: Sequence[Advice], *, whole: float) -> Table:
    """The advice for people; `whole`: seconds of the network as it is."""
    columns = (Column("what", "what would help"), Column("gain", "saves", "ms"), Column("share", "of the time"))
    rows = (
        {"what": a.what, "gain": a.gain * 1e3, "share": f"{100 * a.gain / whole:.0f} %", "how": a.how} for a in advice
    )
    return Table((*columns, Column("how", "known how")), tuple(rows))


def advise(profile: Profile, model: nn.Module, *example: Any) -> tuple[Advice, ...]:
    """What would help, the largest gain first; what would not is left out.

    Measured: another memory layout, another dtype, fewer threads, each on the whole network and interleaved with it
    as it is. Predicted: operators that can be folded into their neighbours, from their own time. At best: another
    algorithm, or a cheaper member of the family that has to be trained, at the limit of the machine.
    """
    found = [*_measured(model, example), *_predicted(profile), *_at_best(profile)]
    worth = [a for a in found if a.gain > 0.01 * profile.whole.median]
    return tuple(sorted(worth, key=lambda a: -a.gain))


def _measured(model: nn.Module, example: Any) -> Iterator[Advice]:
    sides = dict(_variants(model, example))
    with torch.no_grad():
        timings = compare(sides)
    usual = timings.pop("as it is").median
    for what, timing in timings.items():
        yield Advice(what, usual - timing.median, "measured")


def _variants(model: nn.Module, example: Any) -> Iterator[tuple[str, Callable[[], Any]]]:
    yield "as it is", lambda: model(*example)
    if any(isinstance(t, Tensor) and t.ndim == 4 for t in example):
        last = deepcopy(model).to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        there = [_channels_last(t) for t in example]
        yield "channels_last memory format", lambda: last(*there)
        if _has_bf16():
            yield "channels_last and bfloat16 autocast", lambda: _autocast(last, there)
    threads = torch.get_num_threads()
    if threads > 1:
        yield f"{threads // 2} of {threads} threads", lambda: _threaded(model, example, threads // 2)


def _channels_last(value: Any) -> Any:
    four = isinstance(value, Tensor) and value.ndim == 4
    return value.contiguous(memory_format=torch.channels_last) if four else value


def _has_bf16() -> bool:
    return bool({"avx512_bf16", "amx_bf16", "bf16"} & set(machine.instructions()))


def _autocast(model: nn.Module, example: Any) -> Any:
    with torch.autocast("cpu", torch.bfloat16):
        return model(*example)


def _threaded(model: nn.Module, example: Any, threads: int) -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        return model(*example)
    finally:
        torch.set_num_threads(before)


def _predicted(profile: Profile) -> Iterator[Advice]:
    made_by = {v.id: t.op for t in profile.ops for v in t.op.outputs}
    for what, names in (("fold batch normalisation into convolutions", NORMS), ("fuse activations", ACTIVATIONS)):
        after = [t for t in profile.ops if t.op.name in names and _follows_convolution(t.op, made_by)]
        if after:
            yield Advice(f"{what} ({len(after)} operators)", sum(t.inside.median for t in after), "predicted")


def _follows_convolution(op: Op, made_by: dict[int, Op]) -> bool:
    source = made_by.get(op.inputs[0].id) if op.inputs else None
    return source is not None and source.name in ("convolution", *NORMS)


def _at_best(profile: Profile) -> Iterator[Advice]:
    dense = [t for t in profile.ops if _is_dense(t.op)]
    winograd = [t for t in dense if _serves_winograd(t.op)]
    if winograd:
        gain = sum(t.inside.median - _least(profile, t, 4) for t in winograd)
        yield Advice(f"Winograd F(4x4, 3x3) for {len(winograd)} convolutions", gain, "at best")
    if dense:
        gain = sum(t.inside.median - _least(profile, t, _separable_saving(t.op)) for t in dense)
        yield Advice(f"depthwise separable in place of {len(dense)} convolutions, trained anew", gain, "at best")


def _is_dense(op: Op) -> bool:
    if op.name != "convolution" or op.args["transposed"] or op.args["groups"] != 1:
        return False
    weight = op.args["weight"].shape
    return prod(weight[2:]) > 1 and weight[1] > 4


def _serves_winograd(op: Op) -> bool:
    """3x3, stride 1, no dilation: Lavin & Gray 2016 (arXiv:1509.09308)."""
    once = all(set(op.args[k]) == {1} for k in ("stride", "dilation"))
    return once and op.args["weight"].shape[2:] == (3, 3)


def _separable_saving(op: Op) -> float:
    """MACs of the dense convolution over those of depthwise and pointwise: 1 / (1 / out + 1 / taps)."""
    out, _, *kernel = op.args["weight"].shape
    return 1 / (1 / out + 1 / prod(kernel))


def _least(profile: Profile, timed: TimedOp, fewer: float) -> float:
    macs = round((timed.macs or 0) / fewer)
    return profile.limits.least_seconds(macs=macs, bytes=timed.bytes)
