"""A run that is stopped in many ways, and resumed, ends bit for bit as the one that was not."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from convscope.runs import folder as runs
from convscope.runs import open_run


def _weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def _same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


SCRIPT = '''
"""Train in forked children that are stopped in many ways, and resume each until it is done."""
import json, os, random, signal, sys, time
from pathlib import Path
from convscope.errors import ConvscopeError
from convscope.runs.config import TrainConfig
from convscope.train import train
import lightning_fabric, torchmetrics.classification, safetensors.torch

root = Path(sys.argv[1])
config = TrainConfig(model="dropping:net", epochs=4, batch_size=128, save_every_steps=3, num_threads=1, device="cpu")


def child(out, resume, kill_at=0):
    pid = os.fork()
    if pid:
        return pid
    count, replace = 0, os.replace
    def counted(*args):
        nonlocal count
        count += 1
        if count == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        return replace(*args)
    os.replace = counted
    try:
        train(config, out=out, resume=resume, progress=False)
        os._exit(0)
    except ConvscopeError as error:
        print(error, file=sys.stderr)
        os._exit(error.exit_code)
    except BaseException:
        import traceback; traceback.print_exc(); os._exit(99)


def ended(pid):
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def begun(out):
    return (out / "manifest.json").exists()


def signalled(out, number):
    """Send a signal once the first checkpoint lies there; the exit code."""
    pid = child(out, begun(out))
    while not (out / "last.ckpt").exists():
        time.sleep(0.001)
    os.kill(pid, number)
    return ended(pid)


told = {"plain": ended(child(root / "plain", False)), "saving": [], "random": []}
for kill_at in range(1, 14):  # just before each file takes its name
    told["saving"].append(ended(child(root / "saving", begun(root / "saving"), kill_at)))
told["saving_end"] = ended(child(root / "saving", True))
rng = random.Random(4)
for _ in range(40):
    pid = child(root / "random", begun(root / "random"))
    while not begun(root / "random"):  # on a busy machine the first start may take longer than any pause here
        time.sleep(0.001)
    time.sleep(rng.uniform(0.02, 0.35))
    os.kill(pid, signal.SIGKILL)
    told["random"].append(ended(pid))
    if told["random"][-1] == 0:
        break
told["random_end"] = ended(child(root / "random", True))
for name in ("SIGTERM", "SIGINT"):
    told[name] = signalled(root / name, getattr(signal, name))
    told[name + "_end"] = ended(child(root / name, True))
print(json.dumps(told))
'''
NET = """
from torch import nn
def net(num_classes):
    model = nn.Sequential(nn.Conv2d(1, 8, 5, stride=2), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.3),
                          nn.Flatten(), nn.Linear(8 * 14 * 14, num_classes))
    model.input_shape = (1, 32, 32)
    return model
"""


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """Runs that were stopped and resumed to their end, beside one that was not."""
    root = tmp_path_factory.mktemp("stopped")
    (root / "dropping.py").write_text(NET)
    environment = os.environ | {"PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", SCRIPT, str(root)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return root, json.loads(done.stdout)


def _logged(folder: Path) -> list[dict[str, Any]]:
    return [
        {k: v for k, v in row.items() if k not in ("seconds", "images_per_second")}
        for row in open_run(folder).metrics()
    ]


@pytest.mark.parametrize("name", ["saving", "random", "SIGTERM", "SIGINT"])
def test_a_stopped_and_resumed_run_ends_bit_for_bit_as_the_undisturbed_one(
    stopped: tuple[Path, dict[str, Any]], name: str
) -> None:
    root, told = stopped
    assert told["plain"] == told[f"{name}_end"] == 0
    assert _same(_weights(root / "plain"), _weights(root / name))
    plain, other = (runs.load_checkpoint(root / at) for at in ("plain", name))
    assert plain is not None
    assert other is not None
    for key, state in plain["optimizer"]["state"].items():
        assert _same(state, other["optimizer"]["state"][key])
    assert _logged(root / "plain") == _logged(root / name)
    assert [row["step"] for row in _logged(root / name)] == [11, 22, 33, 44]
    left = {p.name for p in (root / name).iterdir() if p.suffix != ".part"}
    assert left == {
        *("config.toml", "manifest.json", "metrics.jsonl", "run.lock"),
        *("last.ckpt", "last-1.ckpt", "model.safetensors"),
    }


def test_the_runs_were_really_stopped(stopped: tuple[Path, dict[str, Any]]) -> None:
    _, told = stopped
    assert told["saving"] == [-signal.SIGKILL] * 13
    assert told["random"].count(-signal.SIGKILL) >= 3
    assert set(told["random"]) <= {0, -signal.SIGKILL}
    assert (told["SIGTERM"], told["SIGINT"]) == (143, 130)
