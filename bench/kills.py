"""Training that is killed at random moments: `python bench/kills.py [--kills 200] [--seed 0]`.

A run trains in a child process that gets SIGKILL at a random moment, again and again, each time resumed from what is on
the disk. When it ends it is compared with the run that was never disturbed, bit for bit, and the next one begins. Half
of the kills come at a moment of saving: just before a file takes its name. Needs a system that can fork.
"""

import argparse
import importlib
import json
import os
import random
import signal
import sys
import tempfile
import time
from pathlib import Path

IMPORTED = (
    "lightning_fabric",
    "safetensors.torch",
    "torchmetrics.classification",
    "convscope.train",
)
SETTINGS = {"epochs": 4, "batch_size": 128, "save_every_steps": 3, "num_threads": 1, "device": "cpu"}


def child(out: Path, *, kill_at: int = 0) -> int:
    """A forked process that trains or goes on; it kills itself before the `kill_at`-th file takes its name."""
    pid = os.fork()
    if pid:
        return pid
    from convscope.errors import ConvscopeError
    from convscope.runs import TrainConfig
    from convscope.train import train

    count, replace = 0, os.replace

    def counted(*names: str) -> None:
        nonlocal count
        count += 1
        if count == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        replace(*names)

    os.replace = counted  # Path.replace calls it
    code = 99
    try:
        train(TrainConfig(**SETTINGS), out=out, resume=(out / "manifest.json").exists(), progress=False)
        code = 0
    except ConvscopeError as error:
        print(f"{out.name}: {error}", file=sys.stderr)
        code = error.exit_code
    finally:
        os._exit(code)


def ended(pid: int) -> int:
    """The exit code of a child; minus the signal's number if one killed it."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def killed(out: Path, chance: random.Random, *, seconds: float) -> int:
    """One attempt that is killed in one of the two ways, or ends before that."""
    if chance.random() < 0.5:
        return ended(child(out, kill_at=chance.randint(1, 12)))
    pid = child(out)
    time.sleep(chance.uniform(0, seconds))
    os.kill(pid, signal.SIGKILL)
    return ended(pid)


def same(one: Path, other: Path) -> bool:
    """Whether two runs ended in the same weights, bit for bit."""
    return (one / "model.safetensors").read_bytes() == (other / "model.safetensors").read_bytes()


def torment(root: Path, *, kills: int, seed: int = 0) -> dict[str, object]:
    """Kill, resume and compare until there were `kills` kills."""
    for name in IMPORTED:  # once here, and not in every child
        importlib.import_module(name)
    start = time.monotonic()
    assert ended(child(root / "plain")) == 0
    seconds, chance = time.monotonic() - start, random.Random(seed)
    told: dict[str, object] = {"kills": 0, "runs": 0, "refused": [], "different": []}
    while told["kills"] < kills:  # pyright: ignore[reportOperatorIssue]
        out = root / f"run-{told['runs']}"
        code = -signal.SIGKILL
        while code == -signal.SIGKILL and told["kills"] < kills:  # pyright: ignore[reportOperatorIssue]
            code = killed(out, chance, seconds=seconds)
            told["kills"] += code == -signal.SIGKILL  # pyright: ignore[reportOperatorIssue]
        code = ended(child(out)) if code in (0, -signal.SIGKILL) else code
        told["runs"] += 1  # pyright: ignore[reportOperatorIssue]
        if code:
            told["refused"].append((out.name, code))  # pyright: ignore[reportAttributeAccessIssue]
        elif not same(root / "plain", out):
            told["different"].append(out.name)  # pyright: ignore[reportAttributeAccessIssue]
    return told | {"seconds": round(time.monotonic() - start, 1)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    wanted = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        told = torment(Path(folder), kills=wanted.kills, seed=wanted.seed)
    print(json.dumps(told))
    sys.exit(bool(told["refused"] or told["different"]))


if __name__ == "__main__":
    main()
