"""ResNet-50 from the shell, interleaved: `convscope inspect` beside the script that prints torchinfo's summary.

Each is a process of its own, from its start to its end: on the wall, and in seconds of processors, which tell more
where other work runs beside. `python bench/inspect_shell.py [PAIRS]`
"""

import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

from convscope import machine

TORCHINFO = """
import torchinfo, torchvision
model = torchvision.models.resnet50(weights=None).eval()
print(torchinfo.summary(model, input_size=(1, 3, 224, 224), verbose=0))
"""
SIDES = {
    "torchinfo": [sys.executable, "-c", TORCHINFO],
    "convscope": [str(Path(sys.executable).with_name("convscope")), "inspect", "torchvision:resnet50"],
}


def seconds(command: list[str]) -> tuple[float, float]:
    """On the wall, and of processors."""
    start, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return time.perf_counter() - start, spent


def main(pairs: int = 9) -> None:
    for command in SIDES.values():
        seconds(command)  # files come into memory
    rounds = []
    for k in range(pairs):
        order = list(SIDES) if k % 2 else list(SIDES)[::-1]
        rounds.append({name: seconds(SIDES[name]) for name in order})
    facts = machine.describe()
    print(f"{facts['processor']}, {facts['cores']} cores, torch {facts['torch']}, {pairs} pairs")
    for k, clock in enumerate(("wall", "processors")):
        for name in SIDES:
            print(f"{clock:10} {name:10} median {statistics.median(r[name][k] for r in rounds):.2f} s")
        ratios = sorted(r["convscope"][k] / r["torchinfo"][k] for r in rounds)
        print(
            f"{clock:10} convscope / torchinfo: {statistics.median(ratios):.3f} ({ratios[0]:.2f} to {ratios[-1]:.2f})"
        )


if __name__ == "__main__":
    main(*map(int, sys.argv[1:2]))
