"""The convolution family on the clock: PyTorch's default layout, its best one, and the fastest way convscope finds.

The sides take turns in one run. Beside the times stand the share of the machine's limit that is reached, and the saving
that a member promises (MACs of the dense 3x3 convolution over its own) beside the one it delivers (time of the dense
convolution at its best over its own). What falls short is worked out and said below the table.

    python bench/family.py --size 56 --batch 8
    python bench/family.py --size 112 --batch 1 --training --members "dense;depthwise"
"""

import argparse
import copy
import math
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from convscope import machine

machine.tune()

import torch
from torch import Tensor, nn

from convscope import layers, record, summarize
from convscope.clock import Limits, Timing, compare, limits
from convscope.layers.fast import fastest
from convscope.layers.fast.operators import forget_packed
from convscope.table import Column, Table, to_json

CHANNELS = {16: 256, 56: 128, 112: 64}
SHARE, SAVING, SAME = 0.7, 0.6, 0.97  # the goals; what is within 3 % counts as equal
MEMBERS: Mapping[str, Callable[[int], nn.Module]] = {
    "dense 3x3": lambda c: nn.Conv2d(c, c, 3, padding=1),
    "dilated 3x3": lambda c: nn.Conv2d(c, c, 3, padding=2, dilation=2),
    "spatially separable": lambda c: layers.SpatiallySeparableConv(c, c, 3, padding=1),
    "depthwise separable": lambda c: layers.DepthwiseSeparableConv(c, c, 3, padding=1),
    "flattened": lambda c: layers.FlattenedConv(c, c, 3, padding=1),
    "grouped, 4": lambda c: nn.Conv2d(c, c, 3, padding=1, groups=4),
    "grouped, 32": lambda c: nn.Conv2d(c, c, 3, padding=1, groups=32),
    "grouped, shuffled": lambda c: layers.ShuffledGroupConv(c, c, 3, padding=1, groups=4),
    "depthwise 3x3": lambda c: nn.Conv2d(c, c, 3, padding=1, groups=c),
    "depthwise 31x31": lambda c: nn.Conv2d(c, c, 31, padding=15, groups=c),
    "pointwise": lambda c: nn.Conv2d(c, c, 1),
    "transposed 3x3, 2": lambda c: nn.ConvTranspose2d(c, c, 3, stride=2, padding=1, output_padding=1),
    "transposed 2x2, 2": lambda c: nn.ConvTranspose2d(c, c, 2, stride=2),
    "shuffle": lambda _: nn.ChannelShuffle(4),
    "max pool 2": lambda _: nn.MaxPool2d(2),
    "average pool 3, 1": lambda _: nn.AvgPool2d(3, stride=1, padding=1),
}
SAVERS = [*list(MEMBERS)[2:9], "pointwise"]  # they stand in a dense convolution's place
KEPT = {"depthwise separable", "flattened", "spatially separable"}  # those that the goal on savings is about


@dataclass(frozen=True)
class Result:
    """One member: MACs and bytes of a forward pass, the way that was chosen, and the times of each side."""

    name: str
    macs: int
    bytes: int
    way: str
    default: Timing
    best: Timing
    ours: Timing


def main() -> None:
    asked = arguments()
    here, wanted = limits(anew=True), asked.members or list(MEMBERS)
    names = ["dense 3x3", *(n for n in wanted if n != "dense 3x3")]  # what savings are measured against
    results = {name: measured(name, asked) for name in names}
    rows = [row(r, results["dense 3x3"], here, asked.training) for name, r in results.items() if name in wanted]
    table = Table(
        columns(asked.training), tuple(rows), title=title(asked, here), notes=tuple(notes(rows, asked.training))
    )
    print(table)
    if asked.out:
        asked.out.write_text(to_json({"title": table.title, "rows": rows, "notes": list(table.notes)}) + "\n")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=56, choices=sorted(CHANNELS), help="height and width")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--training", action="store_true", help="forward and backward")
    parser.add_argument("--bfloat16", action="store_true", help="let ours run in bfloat16 as well")
    parser.add_argument("--shortest", action="store_true", help="not the median, for a machine that others use as well")
    parser.add_argument("--members", type=chosen, help="parts of their names, with ; between them")
    parser.add_argument("--out", type=Path, help="also write the rows there, as JSON")
    return parser.parse_args()


def chosen(text: str) -> list[str]:
    return [name for name in MEMBERS if any(part in name for part in text.split(";"))]


def measured(name: str, asked: argparse.Namespace) -> Result:
    torch.manual_seed(0)
    channels = CHANNELS[asked.size]
    plain, x = MEMBERS[name](channels).eval(), torch.randn(asked.batch, channels, asked.size, asked.size)
    last = copy.deepcopy(plain).to(memory_format=torch.channels_last)
    dtypes = (torch.float32, torch.bfloat16) if asked.bfloat16 else (torch.float32,)
    choice = fastest(plain, x, training=asked.training, dtypes=dtypes)
    x_last = x.contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        y = plain(x)
    sides = {"default": (plain, x), "last": (last, x_last)}
    sides["ours"] = (choice.module, x_last if choice.memory_format == torch.channels_last else x)
    with torch.inference_mode(not asked.training):
        runs = {k: run(m, i, y, asked.training) for k, (m, i) in sides.items()}
        times = compare(runs, rounds=60 if asked.shortest else 15, at_most=1.5, at_least=2e-3)
    if asked.shortest:
        times = {k: Timing((t.least,)) for k, t in times.items()}
    best = min(times["default"], times["last"], key=lambda t: t.median)
    macs = summarize(record(plain, x)).total.macs
    size = 4 * (x.numel() + y.numel() + sum(p.numel() for p in plain.parameters()))
    return Result(name, macs, size, choice.way, times["default"], best, times["ours"])


def run(module: nn.Module, x: Tensor, like: Tensor, training: bool) -> Callable[[], object]:
    if not training:
        return lambda: module(x)
    layout = torch.channels_last if not x.is_contiguous() else torch.contiguous_format
    grad, x = torch.ones_like(like).contiguous(memory_format=layout), x.clone().requires_grad_()
    wanted = [x, *module.parameters()]

    def step() -> object:
        forget_packed()
        return torch.autograd.grad(module(x), wanted, grad)

    return step


def row(r: Result, dense: Result, here: Limits, training: bool) -> dict[str, Any]:
    least = here.least_seconds(macs=r.macs, bytes=r.bytes)
    saves = r.name in SAVERS and r.macs > 0
    promised = dense.macs / r.macs if saves else None
    delivered = min(dense.best.median, dense.ours.median) / r.ours.median if saves else None
    direct = dense.best.median / r.ours.median if saves else None
    forward = {} if training else {"limit": 1e3 * least, "share": least / r.ours.median}
    return {
        "member": r.name,
        "default": 1e3 * r.default.median,
        "best": 1e3 * r.best.median,
        "ours": 1e3 * r.ours.median,
        "over_default": r.default.over(r.ours),
        "over_best": r.best.over(r.ours),
        **forward,
        "bound": here.bound(macs=r.macs, bytes=r.bytes),
        "promised": promised,
        "direct": direct,
        "delivered": delivered,
        "way": r.way,
    }


def columns(training: bool) -> tuple[Column, ...]:
    limit = () if training else (Column("limit", "limit", "ms"), Column("share", "share"), Column("bound", "bound"))
    return (
        Column("member", "member"),
        Column("default", "default", "ms"),
        Column("best", "best layout", "ms"),
        Column("ours", "ours", "ms"),
        Column("over_default", "x default"),
        Column("over_best", "x best"),
        *limit,
        Column("promised", "promised"),
        Column("direct", "delivered"),
        Column("delivered", "against our dense"),
        Column("way", "way"),
    )


def title(asked: argparse.Namespace, here: Limits) -> str:
    shape = f"{asked.batch}x{CHANNELS[asked.size]}x{asked.size}x{asked.size}"
    what = "forward and backward" if asked.training else "forward"
    dtype = "float32 (ours: or bfloat16)" if asked.bfloat16 else "float32"
    what += ", shortest times" if asked.shortest else ""
    return (
        f"{shape} {dtype}, {what}; {here.processor}, {here.threads} threads, torch {here.torch_version}, "
        f"allocator: {machine.tune().allocator}"
    )


def slower(r: dict[str, Any]) -> bool:
    return r["over_best"] < SAME and not r["way"].startswith("PyTorch")  # PyTorch's own beside itself is noise


def unkept(r: dict[str, Any]) -> bool:
    return r["member"] in KEPT and r["direct"] < SAVING * r["promised"]


def notes(rows: list[dict[str, Any]], training: bool) -> list[str]:
    """What the numbers say, the goals that are missed first."""
    said = []
    for r in rows:
        if not training and r["share"] < SHARE:
            said.append(
                f"short of {SHARE} of the limit: {r['member']} with {r['share']:.2f}; {r['bound']} is its bound"
            )
        if slower(r):
            said.append(f"slower than PyTorch's best layout: {r['member']}, {r['over_best']:.2f} times as fast")
        if unkept(r):
            said.append(f"delivers {r['direct'] / r['promised']:.2f} of the saving it promises: {r['member']}")
    for key, words in (("over_default", "PyTorch's default layout"), ("over_best", "PyTorch's best layout")):
        mean = math.exp(sum(math.log(r[key]) for r in rows) / len(rows))
        said.append(f"geometric mean over {len(rows)} members: {mean:.2f} times as fast as {words}")
    return said


if __name__ == "__main__":
    sys.exit(main())
