"""torchvision's 80 classifiers, told whole by convscope, and in part by torchinfo and FlopCounterMode.

Each side runs in a process of its own, so that its memory is its own; for every model the sides take turns, and each
model is built without its weights being drawn. Seconds are those of the answer, of the fastest round; peak is the
resident memory above what the process holds once the libraries are loaded and the model is built. The ratio to
FlopCounterMode is taken model by model. A long run can be cut: results are added to those that a file holds.

    python bench/inspect_all.py --models 0:20 --into inspect.json
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch
import torchinfo
import torchvision
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from convscope import machine, record, summarize
from convscope.table import Column, Table

MIB = 2**20
SIDES = {
    "convscope": "shapes, parameters, MACs, memory, receptive fields",
    "FlopCounterMode": "MACs, on meta tensors",
    "torchinfo": "shapes, parameters, MACs, by a real pass",
}


def convscope_macs(model: nn.Module, x: torch.Tensor) -> int:
    return summarize(record(model, x)).total.macs


def flop_counter_macs(model: nn.Module, x: torch.Tensor) -> int:
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(x)
    return counter.get_total_flops() // 2


def torchinfo_macs(model: nn.Module, x: torch.Tensor) -> int:
    return int(torchinfo.summary(model, input_data=x, verbose=0, col_names=("output_size",)).total_mult_adds)


COUNTS: dict[str, Callable[[nn.Module, torch.Tensor], int]] = {
    "convscope": convscope_macs,
    "FlopCounterMode": flop_counter_macs,
    "torchinfo": torchinfo_macs,
}


def answer(side: str, name: str) -> dict[str, Any]:
    """Seconds, peak MiB above idle and 10^9 MACs of one side on one model."""
    model, x = built(name)
    if side == "FlopCounterMode":
        model, x = model.to("meta"), x.to("meta")
    idle = resident()
    forget_peak()
    started = time.perf_counter()
    macs = COUNTS[side](model, x)
    seconds = time.perf_counter() - started
    return {"seconds": seconds, "peak": max(0.0, peak() - idle), "macs": macs / 1e9}


def built(name: str) -> tuple[nn.Module, torch.Tensor]:
    weights = next(iter(torchvision.models.get_model_weights(name)))
    size = weights.transforms().crop_size[0]
    options: dict[str, Any] = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    options |= {"aux_logits": False} if name == "googlenet" else {}
    options |= {"image_size": size} if name.startswith("vit") else {}
    return torchvision.models.get_model(name, weights=None, **options).eval(), torch.zeros(1, 3, size, size)


def resident() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / MIB


def forget_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def peak() -> float:
    """The peak of resident memory since it was last forgotten."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1024


def serve(side: str) -> None:
    """Answer for each model that is named on stdin."""
    machine.tune(on=False)
    for name in dir(nn.init):
        if name.endswith("_") and not name.startswith("_"):
            setattr(nn.init, name, lambda tensor, *args, **kwargs: tensor)
    answer(side, "resnet18")  # warm up
    for line in sys.stdin:
        try:
            told = answer(side, line.strip())
        except Exception as error:  # what a side cannot do is a result
            told = {"failed": f"{type(error).__name__}: {error}".splitlines()[0]}
        print(json.dumps(told), flush=True)


def ask(process: "subprocess.Popen[str]", name: str) -> dict[str, Any]:
    if process.stdin is None or process.stdout is None:
        raise RuntimeError("the side has no pipes")
    process.stdin.write(name + "\n")
    process.stdin.flush()
    return json.loads(process.stdout.readline())


def best(told: list[dict[str, Any]]) -> dict[str, Any]:
    """The fastest answer, with the largest peak; a failure if there is one."""
    failed = next((t for t in told if "failed" in t), None)
    return failed or min(told, key=lambda t: t["seconds"]) | {"peak": max(t["peak"] for t in told)}


def compare(names: list[str], rounds: int) -> list[dict[str, Any]]:
    """For each model what it publishes, and the answer of each side."""
    command = [sys.executable, __file__, "--side"]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    processes = {s: subprocess.Popen([*command, s], env=os.environ, **pipes) for s in SIDES}
    results = []
    for name in names:
        told: dict[str, list[dict[str, Any]]] = {s: [] for s in SIDES}
        for _ in range(rounds):
            for side, process in processes.items():
                told[side].append(ask(process, name))
        published = next(iter(torchvision.models.get_model_weights(name))).meta["_ops"]
        results.append({"model": name, "published": published, **{s: best(told[s]) for s in SIDES}})
    for process in processes.values():
        process.communicate()
    return results


COLUMNS = (
    Column("side", "side"),
    Column("seconds", "in all", "s"),
    Column("ratio", "time / FlopCounterMode's"),
    Column("peak", "largest peak", "MiB"),
    Column("told", "models told"),
    Column("agree", "MACs as published"),
    Column("tells", "tells"),
)


def table(results: list[dict[str, Any]], rounds: int) -> Table:
    """One row a side; below, the models whose MACs are not the published ones, which have three decimals."""
    rows, notes = [], []
    for side, tells in SIDES.items():
        done = [r for r in results if "failed" not in r[side]]
        agree = [r for r in done if agrees(r[side]["macs"], r["published"])]
        both = [r for r in done if "failed" not in r["FlopCounterMode"]]
        ratios = sorted(r[side]["seconds"] / r["FlopCounterMode"]["seconds"] for r in both)
        rows.append({
            "side": side,
            "seconds": sum(r[side]["seconds"] for r in done),
            "ratio": f"{median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})",
            "peak": max(r[side]["peak"] for r in done),
            "told": f"{len(done)} of {len(results)}",
            "agree": f"{len(agree)} of {len(results)}",
            "tells": tells,
        })  # fmt: skip
        wrong = [f"{r['model']} {r[side].get('macs', 0):.3f} for {r['published']:.3f}" for r in done if r not in agree]
        wrong += [f"{r['model']}: {r[side]['failed']}" for r in results if r not in done]
        if wrong:
            notes.append(f"{side} differs in {len(wrong)} (10^9 MACs): {'; '.join(wrong)}")
    facts = machine.describe()
    where = f"{facts['processor']}, {facts['cores']} cores, torch {facts['torch']}; fastest of {rounds} rounds"
    return Table(COLUMNS, tuple(rows), "torchvision's classifiers", None, (where, *notes))


def agrees(macs: float, published: float) -> bool:
    return abs(macs - published) <= max(0.0006, 0.001 * published)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default=":", help="which of them, in the order of their names: 0:20")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--into", type=Path, help="a JSON file whose results are added to")
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.side:
        serve(given.side)
        return
    names = sorted(set(torchvision.models.list_models(module=torchvision.models)))
    first, _, last = given.models.partition(":")
    wanted = names[int(first or 0) : int(last) if last else None]
    before = json.loads(given.into.read_text()) if given.into and given.into.exists() else []
    results = [r for r in before if r["model"] not in wanted] + compare(wanted, given.rounds)
    if given.into:
        given.into.write_text(json.dumps(results))
    print(table(results, given.rounds))


if __name__ == "__main__":
    sys.exit(main())
