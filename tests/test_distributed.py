"""Several processes that torchrun starts learn what one learns, stop together, and leave a run that goes on."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from convscope import data
from convscope.errors import InputError
from convscope.runs import TrainConfig, open_run
from convscope.train import train
from convscope.train.loop import Training
from convscope.train.parts import check_shares
from convscope.train.stopping import Stop
from tiny import SIZE, offer, tiny

ROOT = Path(__file__).parent
PLAIN: dict[str, Any] = {"epochs": 2, "batch_size": 256, "num_threads": 1, "device": "cpu"}
BOTH: dict[str, Any] = {"task": "detect,segment", "data": "tiny", "image_size": SIZE, "epochs": 2, "batch_size": 8}
BOTH |= {"num_threads": 1, "device": "cpu", "lr": 0.001, "ema": 0.8}
LONG = ["--set", "epochs=4000", "--set", "save_every_steps=5", "--set", "num_threads=1", "--set", "device=cpu"]
WORKER = """
import json, sys
from convscope import data
from convscope.runs import TrainConfig
from convscope.train import train
from tiny import offer
offer(data.DATASETS)
for name, settings in json.loads(sys.argv[2]).items():
    train(TrainConfig(**settings), out=f"{sys.argv[1]}/{name}", progress=False)
"""


@pytest.fixture(scope="module", autouse=True)
def tiny_data() -> Iterator[None]:
    before = {task: dict(known) for task, known in data.DATASETS.items()}
    offer(data.DATASETS)  # pyright: ignore[reportArgumentType]
    yield
    data.DATASETS.update(before)  # pyright: ignore[reportAttributeAccessIssue]


def _torchrun(*words: str, where: tuple[str, ...] = (), **options: Any) -> subprocess.Popen[str]:
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    environment = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"} | options.pop("environment", {})
    command = [*where, sys.executable, "-m", "torch.distributed.run", *words]
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True, **options)


def _train(out: Path, *words: str) -> subprocess.Popen[str]:
    return _torchrun("--standalone", "--nproc-per-node=2", "-m", "convscope.cli", "train", "classify", *LONG,
                     "--out", str(out), *words)  # fmt: skip


def _said(running: subprocess.Popen[str]) -> tuple[int, str]:
    _, told = running.communicate(timeout=300)
    return running.returncode, told


def _workers(running: subprocess.Popen[str]) -> list[int]:
    """The processes that torchrun started, by rank."""
    below = Path(f"/proc/{running.pid}/task/{running.pid}/children").read_text().split()
    ranks = {}
    for pid in map(int, below):
        given = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        ranks |= {int(word[5:]): pid for word in given if word.startswith(b"RANK=")}
    return [ranks[r] for r in sorted(ranks)]


def _once_saved(running: subprocess.Popen[str], out: Path) -> None:
    while not (out / "last.ckpt").exists():
        assert running.poll() is None, running.communicate()
        time.sleep(0.01)


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of two processes."""
    root = tmp_path_factory.mktemp("two")
    (root / "worker.py").write_text(WORKER)
    runs = json.dumps({"digits": PLAIN, "both": BOTH})
    code, told = _said(_torchrun("--standalone", "--nproc-per-node=2", str(root / "worker.py"), str(root), runs))
    assert code == 0, told
    return root


def test_two_processes_learn_what_one_learns(two: Path, tmp_path: Path) -> None:
    alone, shared = train(TrainConfig(**PLAIN), out=tmp_path, progress=False), open_run(two / "digits")
    for one, other in zip(alone.metrics(), shared.metrics(), strict=True):
        assert one.keys() == other.keys()
        for key in one.keys() - {"seconds", "images_per_second"}:
            assert other[key] == pytest.approx(one[key], rel=1e-4), key
    for key, value in load_file(tmp_path / "model.safetensors").items():
        torch.testing.assert_close(load_file(two / "digits" / "model.safetensors")[key], value, rtol=1e-3, atol=1e-5)


def test_a_share_of_a_batch_is_a_part_of_it(two: Path, tmp_path: Path) -> None:
    """Two processes normalise batches and weigh losses as one does that computes each batch in two parts."""
    parts = train(TrainConfig(**BOTH, accumulate=2), out=tmp_path, progress=False)
    for one, other in zip(parts.metrics(), open_run(two / "both").metrics(), strict=True):
        for key in (k for k in one if k.startswith("train_")):
            assert other[key] == pytest.approx(one[key], rel=2e-3), key


def test_what_is_validated_in_shares_is_the_whole(two: Path) -> None:
    """Oracle: the weights to use, measured by one process."""
    run = open_run(two / "both")
    last, (detect, segment) = run.metrics()[-1], evaluate_run_on_val(run.folder)
    assert last["val_detect_map"] == pytest.approx(detect, abs=1e-6)
    assert last["val_segment_miou"] == pytest.approx(segment, abs=1e-6)


def evaluate_run_on_val(folder: Path) -> tuple[float, float]:
    model, task = open_run(folder).model(), {"detect": "map", "segment": "miou"}
    from convscope.evaluate import EVALUATIONS

    found = EVALUATIONS["detect,segment"](model, tiny("detect,segment").val)
    return tuple(getattr(found.of[name], score) for name, score in task.items())  # pyright: ignore[reportReturnType]


def test_a_killed_process_ends_the_run_and_one_process_goes_on(tmp_path: Path) -> None:
    running = _train(tmp_path)
    _once_saved(running, tmp_path)
    os.kill(_workers(running)[1], signal.SIGKILL)
    code, told = _said(running)
    assert code == 1
    assert f"the last checkpoint in {tmp_path} was kept; resume" in told
    assert "convscope: train: process 0 of 2 lost the others (" in told
    assert "internal error" not in told
    saved = torch.load(tmp_path / "last.ckpt", weights_only=True)
    config = open_run(tmp_path).config
    ends = config.model_copy(update={"epochs": saved["epoch"] + 1})
    run = train(ends, out=tmp_path, resume=True, override=True, progress=False)
    rows = run.metrics()
    assert [row["epoch"] for row in rows] == list(range(1, saved["epoch"] + 2))
    assert rows[-1]["step"] == 21 * len(rows)


def test_a_signal_stops_all_at_one_step_and_two_go_on_from_one(tmp_path: Path) -> None:
    running = _train(tmp_path)
    _once_saved(running, tmp_path)
    os.kill(_workers(running)[1], signal.SIGTERM)  # to the one that does not write
    code, told = _said(running)
    assert code == 1  # torchrun's own
    assert told.count("stopped by SIGTERM and saved at step") == 1
    before = torch.load(tmp_path / "last.ckpt", weights_only=True)
    again = _train(tmp_path, "--resume")
    while torch.load(tmp_path / "last.ckpt", weights_only=True)["step"] <= before["step"]:
        assert again.poll() is None, again.communicate()
        time.sleep(0.1)
    again.send_signal(signal.SIGTERM)
    told = _said(again)[1]
    assert "stopped by SIGTERM and saved at step" in told or "lost the others" in told


def test_what_cannot_be_shared_is_said_once(tmp_path: Path) -> None:
    code, told = _said(_train(tmp_path, "--set", "batch_size=1"))
    assert code == 1
    said = (
        "convscope: train: 2 processes cannot share 1 pictures of a batch, or of the validation part; start 1, or use"
    )
    assert told.count(said) == 1
    with pytest.raises(InputError, match="9 processes cannot share 8 pictures"):
        check_shares(tiny("detect"), num_batches=4, num_processes=9)


def _ip(*words: str) -> bool:
    return subprocess.run(["ip", *words], capture_output=True, check=False).returncode == 0


@pytest.fixture
def two_hosts() -> Iterator[tuple[str, str]]:
    """Two network namespaces with a cable between them."""
    names = tuple(f"convscope{os.getpid()}{end}" for end in "ab")
    try:
        if not all(_ip("netns", "add", name) for name in names):
            pytest.skip("network namespaces cannot be made here (that takes root)")
        assert _ip("link", "add", "cable", "netns", names[0], "type", "veth", "peer", "cable", "netns", names[1])
        for at, name in enumerate(names, start=1):
            assert _ip("-n", name, "address", "add", f"10.77.0.{at}/24", "dev", "cable")
            assert _ip("-n", name, "link", "set", "cable", "up")
            assert _ip("-n", name, "link", "set", "lo", "up")
        yield names
    finally:
        for name in names:
            _ip("netns", "delete", name)


def test_two_hosts_that_share_no_folder_learn_what_one_learns(two_hosts: tuple[str, str], tmp_path: Path) -> None:
    (tmp_path / "worker.py").write_text(WORKER)
    running = []
    for at, name in enumerate(two_hosts):
        home = tmp_path / f"host{at}"
        home.mkdir()
        rendezvous = [f"--node-rank={at}", "--master-addr=10.77.0.1", "--master-port=29400"]
        words = ["--nnodes=2", "--nproc-per-node=1", *rendezvous]
        words += [str(tmp_path / "worker.py"), str(home), json.dumps({"digits": PLAIN})]
        here = ("ip", "netns", "exec", name)
        running.append(_torchrun(*words, where=here, environment={"GLOO_SOCKET_IFNAME": "cable"}))
    for code, told in map(_said, running):
        assert code == 0, told
    wrote = [at for at in range(2) if (tmp_path / f"host{at}" / "digits").exists()]
    assert len(wrote) == 1  # the one that leads
    rows = open_run(tmp_path / f"host{wrote[0]}" / "digits").metrics()
    alone = train(TrainConfig(**PLAIN), out=tmp_path / "alone", progress=False).metrics()
    for one, other in zip(alone, rows, strict=True):
        assert other["train_loss"] == pytest.approx(one["train_loss"], rel=1e-4)
        assert other["val_loss"] == pytest.approx(one["val_loss"], rel=1e-4)


def test_a_signal_that_comes_while_processes_agree_is_told_at_the_next_step() -> None:
    stop, training = Stop(), Training.__new__(Training)

    def highest(number: int) -> int:
        stop.number = signal.SIGTERM
        return number

    training.team = SimpleNamespace(highest=highest)  # pyright: ignore[reportAttributeAccessIssue]
    assert not training._stopped(stop)
    assert stop.number == signal.SIGTERM
    assert training._stopped(stop)
