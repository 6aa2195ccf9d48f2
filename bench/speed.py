"""Whole networks, inference, float32 pictures: every way to run one takes turns with stock PyTorch in one run.

    python bench/speed.py --models resnet18 --batch 1
    python bench/speed.py --models "mobilenet_v2;resnet50" --batch 16 --sides "stock;OpenVINO;ours"

    python bench/speed.py --models resnet18 --out out/resnet18.json

int8 is calibrated on noise: its time is that of a calibrated network, its answers are not. `bench/speed_page.py` makes
the table of docs/optimize.md from the files that `--out` writes.
"""

import argparse
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from convscope import machine

machine.tune()

import torch
import torchvision
from torch import Tensor, nn

from convscope.clock import Timing, compare
from convscope.data import ImageSet
from convscope.engines import Card, named_outputs, output_names
from convscope.errors import ConvscopeError
from convscope.files import write_whole
from convscope.models import LeNet5
from convscope.optimize import STAGES, Material
from convscope.optimize.fusing import difference
from convscope.table import Column, Table, to_json

STOCK = "stock PyTorch"


class OneOutput(nn.Module):
    """torchvision's segmentation networks give a dict; what counts is `out`."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x)["out"]


def of_torchvision(name: str) -> nn.Module:
    return getattr(torchvision.models, name)(weights=None)


MODELS: Mapping[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "LeNet5": (LeNet5, (1, 32, 32)),
    **{
        name: (lambda name=name: of_torchvision(name), (3, 224, 224))
        for name in ("resnet18", "resnet50", "mobilenet_v2", "efficientnet_b0", "convnext_tiny")
    },
    "fcn_resnet50": (
        lambda: OneOutput(torchvision.models.segmentation.fcn_resnet50(weights=None, weights_backbone=None)),
        (3, 520, 520),
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default=";".join(MODELS), help="names, with ; between them")
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 16])
    parser.add_argument("--sides", default="", help="parts of their names, with ; between them; stock is always there")
    parser.add_argument("--seconds", type=float, default=30, help="of measuring, for each network and batch")
    parser.add_argument("--out", type=Path, help="a JSON file for what was measured")
    asked = parser.parse_args()
    facts = machine.describe()
    title = f"{facts['processor']}, {facts['threads']} threads, torch {facts['torch']}, allocator {facts['allocator']}"
    print(title)
    found = []
    for name in asked.models.split(";"):
        for batch in asked.batch:
            measured = table(name, batch, asked)
            print(f"\n{measured}", flush=True)
            found.append({"model": name, "batch": batch, "rows": list(measured.rows), "notes": list(measured.notes)})
    if asked.out:
        facts = {"title": title, "instructions": machine.instructions(), "found": found}
        write_whole(asked.out, to_json(facts) + "\n")


@torch.no_grad()
def table(name: str, batch: int, asked: argparse.Namespace) -> Table:
    torch.manual_seed(0)
    make, shape = MODELS[name]
    model, x = make().eval(), torch.randn(batch, *shape)
    sides, notes = made(model, x, asked.sides.split(";"))
    off = {side: difference(named_outputs(model(x)), named_outputs(m(x))) for side, m in sides.items()}
    runs = {side: lambda m=m: m(x) for side, m in sides.items()}
    times = compare(runs, rounds=25, at_least=50e-3, at_most=asked.seconds)
    columns = (
        Column("side", "side"),
        Column("ms", "median", "ms"),
        Column("low", "quartiles", "ms"),
        Column("high", "", ""),
        Column("over", "times as fast"),
        Column("difference", "difference"),
    )
    rows = tuple(row(side, times[side], times[STOCK], off[side]) for side in sides)
    shown = "x".join(map(str, (batch, *shape)))
    title = f"{name}, {shown}: {len(times[STOCK].seconds)} rounds in turns"
    return Table(columns, rows, title=title, notes=tuple(notes))


def made(
    model: nn.Module, x: Tensor, parts: list[str], *, training: ImageSet | None = None
) -> tuple[dict[str, nn.Module], list[str]]:
    """The sides that were asked for and can be had, and why the others cannot; int8 sees noise if there is no
    `training`."""
    card = Card("classify", None, tuple(x.shape[1:]), (0.5,), (0.25,), output_names(model, x[:1]))
    noise = ImageSet(torch.rand(32, *x.shape[1:]), torch.zeros(32, dtype=torch.int64), ("noise",))
    material, sides, notes = Material(model, x, card, training=training or noise), {STOCK: model}, []
    for candidates in STAGES.values():
        for candidate in candidates:
            name = candidate.name
            if any(p in name for p in parts):
                try:
                    sides[name] = candidate.make(material).module
                except ConvscopeError as error:
                    notes.append(f"{name}: {error}")
    return sides, notes


def row(side: str, own: Timing, stock: Timing, off: float) -> dict[str, Any]:
    quartiles = {"low": 1e3 * own.low, "high": 1e3 * own.high}
    return {"side": side, "ms": 1e3 * own.median, **quartiles, "over": 1 / own.over(stock), "difference": off}


if __name__ == "__main__":
    sys.exit(main())
