"""ResNet-50 recorded and summarised, beside torchinfo and FlopCounterMode, interleaved in one run.

What each gives: convscope shapes, parameters, MACs and receptive fields; torchinfo shapes, parameters and
multiply-adds; FlopCounterMode (on meta tensors) floating-point operations alone.
"""

import statistics
import sys
import time
from collections.abc import Callable

import torch
import torchinfo
import torchvision
from torch.utils.flop_counter import FlopCounterMode

from convscope import machine, record, summarize

ROUNDS = 15


def main() -> None:
    machine.tune()
    model = torchvision.models.resnet50(weights=None).eval()
    on_meta = torchvision.models.resnet50(weights=None).eval().to("meta")
    x, x_meta = torch.zeros(1, 3, 224, 224), torch.zeros(1, 3, 224, 224, device="meta")

    def flop_counter() -> None:
        with FlopCounterMode(display=False):
            on_meta(x_meta)

    sides: dict[str, Callable[[], object]] = {
        "convscope": lambda: summarize(record(model, x)),
        "torchinfo": lambda: torchinfo.summary(model, input_data=x, verbose=0),
        "FlopCounterMode": flop_counter,
    }
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for side in sides.values():
        side()  # warm up
    for _ in range(ROUNDS):
        for name, side in sides.items():
            start = time.perf_counter()
            side()
            seconds[name].append(time.perf_counter() - start)
    facts = machine.describe()
    print(f"{facts['processor']}, {facts['cores']} cores, torch {facts['torch']}, allocator {facts['allocator']}")
    for name, taken in seconds.items():
        ratios = [a / b for a, b in zip(taken, seconds["convscope"], strict=True)]
        low, middle, high = min(ratios), statistics.median(ratios), max(ratios)
        print(f"{name:16} median {1000 * statistics.median(taken):7.1f} ms   "
              f"time / convscope's: median {middle:.2f}, {low:.2f} to {high:.2f}")  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
