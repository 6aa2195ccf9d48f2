"""One unit of ResNet-50 at 224x224 explained, after one forward pass that kept every tensor.

Each round explains one unit of every operator once; shown are the slowest operators, a tree ten operators deep, and
Grad-CAM beside one forward and backward pass.
"""

import statistics
import sys
import time
from collections.abc import Callable

import torch
import torchvision

from convscope import machine, record
from convscope.explain import attribute, explain, trace

ROUNDS = 15
WHOLE = ("tree of depth 10, breadth 2", "forward and backward", "Grad-CAM")


def main() -> None:
    machine.tune()
    torch.manual_seed(0)
    model = torchvision.models.resnet50(weights=None).eval()
    x = torch.rand(1, 3, 224, 224)
    recording = record(model, x, keep=lambda op: True)
    units = [(op, tuple(n // 2 for n in op.outputs[0].shape)) for op in recording.ops]
    seconds: dict[str, list[float]] = {}
    for _ in range(ROUNDS):
        for op, unit in units:
            key = f"{op.name} {'x'.join(map(str, op.outputs[0].shape))}"
            seconds.setdefault(key, []).append(timed(lambda op=op, unit=unit: explain(recording, op, unit=unit).total))
        seconds.setdefault("forward and backward", []).append(timed(lambda: both(model, x)))
        seconds.setdefault("Grad-CAM", []).append(timed(lambda: attribute(model, x, "grad-cam", layer="layer4")))
        deep = timed(lambda: trace(recording, recording.ops[-1], unit=(0, 500), depth=10, breadth=2))
        seconds.setdefault("tree of depth 10, breadth 2", []).append(deep)
    facts = machine.describe()
    print(f"{facts['processor']}, {facts['cores']} cores, torch {facts['torch']}, {len(units)} operators")
    every = [t for name, taken in seconds.items() if name not in WHOLE for t in taken]
    shown = sorted(seconds, key=lambda name: -statistics.median(seconds[name]))[: 5 + len(WHOLE)]
    for name, taken in [("any operator", every), *((name, seconds[name]) for name in shown)]:
        low, middle, high = (1000 * f(taken) for f in (min, statistics.median, max))
        print(f"{name:36} median {middle:6.2f} ms, {low:.2f} to {high:.2f}")


def both(model: torch.nn.Module, x: torch.Tensor) -> None:
    """One forward and one backward pass down to the picture, as a gradient method takes it at least."""
    leaf = x.clone().requires_grad_()
    score = model(leaf)[0].max()
    torch.autograd.grad(score, leaf)


def timed(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


if __name__ == "__main__":
    sys.exit(main())
