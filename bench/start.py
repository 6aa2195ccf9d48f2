"""The effect of the tuned start: `python bench/start.py [--rounds 5] [--batch 16]`.

Each round starts one process a side, one after the other, so that a slow minute of the machine hits both; the
ratio is taken inside a round. Each process runs resnet18 on 224x224 images and gives its median.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time

from convscope.machine import describe, tune
from convscope.table import Column, Table

SIDES = {
    "as installed": {"CONVSCOPE_TUNE": "0"},
    "tuned, contiguous": {"CONVSCOPE_TUNE": "1", "BENCH_FORMAT": "contiguous_format"},
    "tuned": {"CONVSCOPE_TUNE": "1"},
}


def forward(batch: int, repeats: int) -> float:
    """Median milliseconds of one forward pass in this process."""
    settings = tune()
    import torch
    from torchvision.models import resnet18

    layout = getattr(torch, os.environ.get("BENCH_FORMAT", settings.memory_format))
    model = resnet18().eval().to(memory_format=layout)
    x = torch.randn(batch, 3, 224, 224).to(memory_format=layout)
    times = []
    with torch.inference_mode():
        for _ in range(repeats + 2):
            start = time.perf_counter()
            model(x)
            times.append((time.perf_counter() - start) * 1000)
    return statistics.median(times[2:])  # the first two warm up


def side(name: str, batch: int) -> float:
    """The same, in a process of its own."""
    command = [sys.executable, __file__, "--child", "--batch", str(batch)]
    return json.loads(subprocess.run(command, env=os.environ | SIDES[name], check=True, capture_output=True).stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    wanted = parser.parse_args()
    if wanted.child:
        print(json.dumps(forward(wanted.batch, repeats=8)))
        return
    rounds = [{name: side(name, wanted.batch) for name in SIDES} for _ in range(wanted.rounds)]
    rows = []
    for name in SIDES:
        ratios = sorted(r["as installed"] / r[name] for r in rounds)
        rows.append(
            {
                "side": name,
                "ms": statistics.median(r[name] for r in rounds),
                "ratio": statistics.median(ratios),
                "spread": f"{ratios[0]:.2f} to {ratios[-1]:.2f}",
            }
        )
    columns = (Column("side", "start"), Column("ms", "median", "ms"), Column("ratio", "times faster"))
    machine = describe()
    notes = tuple(f"{key}: {machine[key]}" for key in ("processor", "cores", "instructions", "torch", "allocator"))
    print(Table((*columns, Column("spread", "spread")), tuple(rows), f"resnet18, batch {wanted.batch}", None, notes))


if __name__ == "__main__":
    main()
