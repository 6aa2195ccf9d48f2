"""Faults that no other test makes: full disks, files that are more than data, archives, long runs."""

import ast
import json
import os
import pickle
import struct
import subprocess
import sys
import threading
import time
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import nn

from benches import bench
from convscope import data, files, models
from convscope.cli import main
from convscope.data.tree import walk
from convscope.errors import CheckpointError, DataError, InputError, ModelError, RunError
from convscope.runs import TrainConfig, open_run
from convscope.runs import folder as runs
from convscope.runs.loaded import load_model
from convscope.train import train
from convscope.train.parts import begin_with

SOURCE = Path(__file__).parents[1] / "src" / "convscope"


# Disks


@contextmanager
def small_disk(folder: Path, *, size: str = "1m") -> Iterator[None]:
    """A file system of a MiB or so, where the machine lets one be mounted."""
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    if os.geteuid() or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("no file system can be mounted here; test_files.py limits the size of files instead")
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_a_really_full_disk_keeps_both_checkpoints(tmp_path: Path) -> None:
    def state(step: int, size: int = 20_000) -> dict[str, object]:
        return {"step": step, "model": {"w": torch.rand(size)}}

    with small_disk(tmp_path):
        runs.start(runs.Run(tmp_path, TrainConfig(), ("a", "b"), (1, 8, 8), runs.Normalisation()))
        for step in (1, 2):
            runs.save_checkpoint(tmp_path, state(step))
        before = {p.name: p.read_bytes() for p in tmp_path.iterdir() if p.suffix == ".ckpt"}
        with pytest.raises(RunError, match="No space left on device") as caught:
            runs.save_checkpoint(tmp_path, state(3, 400_000))
        assert caught.value.exit_code == 1
        assert {p.name: p.read_bytes() for p in tmp_path.iterdir() if p.suffix == ".ckpt"} == before
        assert not list(tmp_path.glob("*.part")) + list(tmp_path.glob(".*"))
        found = runs.load_checkpoint(tmp_path)
        assert found is not None
        assert found["step"] == 2
        runs.save_checkpoint(tmp_path, state(4))  # and it goes on once there is room


def test_a_disk_that_fills_up_while_a_run_trains(tmp_path: Path) -> None:
    """The run ends with its sentence; once there is room it goes on, and its weights are those of one undisturbed."""
    disk, filler = tmp_path / "disk", tmp_path / "disk" / "filler"
    config = TrainConfig(epochs=6, batch_size=256, num_threads=1, device="cpu", save_every_steps=4)
    train(config, out=tmp_path / "plain", progress=False)
    disk.mkdir()

    def fill() -> None:
        while not (disk / "run" / "last-1.ckpt").exists():
            time.sleep(0.001)
        with suppress(OSError), filler.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))

    with small_disk(disk, size="6m"):
        writer = threading.Thread(target=fill)
        writer.start()
        with pytest.raises(RunError, match="No space left on device") as caught:
            train(config, out=disk / "run", progress=False)
        writer.join()
        assert caught.value.exit_code == 1
        assert [p.name for p in (disk / "run").iterdir() if p.name.startswith(".") or p.suffix == ".part"] == []
        filler.unlink()
        train(config, out=disk / "run", resume=True, progress=False)
        weights = [torch.nn.utils.parameters_to_vector(open_run(at).model().parameters()) for at in
                   (tmp_path / "plain", disk / "run")]  # fmt: skip
        assert torch.equal(*weights)


def test_a_disk_without_room_is_refused_before_the_first_step(tmp_path: Path) -> None:
    with small_disk(tmp_path):
        with pytest.raises(
            InputError, match=r"has \d\.\d MiB left on its disk, but its checkpoints need about 2\.4 MiB"
        ):
            train(TrainConfig(epochs=1, device="cpu"), out=tmp_path, progress=False)
        assert {p.name for p in tmp_path.iterdir()} <= {"run.lock"}


def test_a_file_without_room_is_refused_before_it_is_written(tmp_path: Path) -> None:
    with small_disk(tmp_path):
        (tmp_path / "a").write_bytes(bytes(600_000))
        with pytest.raises(RunError, match="No space left on device"):
            files.write_whole(tmp_path / "a", bytes(700_000))
        assert (tmp_path / "a").stat().st_size == 600_000


# Files that are more than data


class Runs:
    """A pickle that runs code."""

    def __reduce__(self):
        return (exec, ("raise SystemExit('it ran')",))


def test_files_that_hold_more_than_tensors_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save(nn.Linear(2, 2), "whole.pt")
    torch.save({"w": torch.zeros(1), "evil": Runs()}, "evil.pt")
    Path("bare.pkl").write_bytes(pickle.dumps({"a": 1}))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript is deprecated
        torch.jit.save(torch.jit.script(nn.Linear(2, 2)), "script.pt")
    for name, said in (
        ("whole.pt", "holds objects that are no tensors"),
        ("evil.pt", "holds objects that are no tensors"),
        ("bare.pkl", "holds objects that are no tensors|is no state_dict of tensors"),
        ("script.pt", "it is a TorchScript archive, which is code"),
    ):
        with pytest.raises(CheckpointError, match=said) as caught:
            begin_with(models.LeNet5(), name)
        assert "torch.save(model.state_dict())" in str(caught.value)
        assert "weights_only" not in str(caught.value), "torch's advice to run the code is not passed on"
        with pytest.raises(ModelError, match=f"{name}': is a file, but no network that convscope exported"):
            load_model(name)


def test_hostile_safetensors_are_refused(tmp_path: Path) -> None:
    def file(head: object, size: int, length: int | None = None) -> Path:
        text = json.dumps(head).encode()
        length = len(text) if length is None else length
        (tmp_path / "w.safetensors").write_bytes(struct.pack("<Q", length) + text + bytes(size))
        return tmp_path / "w.safetensors"

    def tensor(shape: list[int], *offsets: int) -> dict[str, object]:
        return {"dtype": "F32", "shape": shape, "data_offsets": offsets}

    for hostile in (
        file({}, 0, 2**62),
        file({"a": tensor([2**40], 0, 2**42)}, 16),
        file({"a": tensor([4], 0, 16), "b": tensor([4], 8, 24)}, 24),
        file({"a": tensor([4], 0, 16)}, 7),
    ):
        with pytest.raises(
            CheckpointError, match=r"w\.safetensors: holds no plain weights \(Error while deserializing"
        ):
            begin_with(models.LeNet5(), hostile)


def test_a_newer_run_folder_is_refused_kindly(tmp_path: Path) -> None:
    runs.start(runs.Run(tmp_path, TrainConfig(), ("a", "b"), (1, 8, 8), runs.Normalisation()))
    facts = json.loads((tmp_path / "manifest.json").read_text())
    (tmp_path / "manifest.json").write_text(json.dumps(facts | {"format": 2}))
    with pytest.raises(CheckpointError, match="has format 2, which is not known here; upgrade convscope"):
        open_run(tmp_path)


def test_an_archive_is_not_unpacked(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        archive.writestr("../outside.png", b"x")
    for read in (walk, lambda path: data.load(str(path), shape=(3, 8, 8)), data.check):
        with pytest.raises(DataError, match="is a file, but a folder is needed; unpack an archive and give its folder"):
            read(tmp_path / "set.zip")
    assert [p.name for p in tmp_path.iterdir()] == ["set.zip"]


def test_empty_classes_are_kept_where_that_is_allowed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("ant", "bee", "cat"):
        Path("set", name).mkdir(parents=True)
        for index in range(12 if name != "bee" else 0):
            Image.new("L", (32, 32), 9 * index).save(f"set/{name}/{index}.png")
    words = [
        "train",
        "classify",
        "--data",
        "set",
        "--epochs",
        "1",
        "--batch-size",
        "4",
        "--device",
        "cpu",
        "--out",
        "run",
    ]
    assert _exit(monkeypatch, *words) == 2
    assert (
        "no pictures in the classes bee; add some, remove the folders, or keep them as classes with --allow-empty"
        in (capsys.readouterr().err)
    )
    assert _exit(monkeypatch, "data", "check", "set") == 2
    assert _exit(monkeypatch, "data", "check", "set", "--allow-empty") == 0
    assert _exit(monkeypatch, *words, "--allow-empty", "--set", "class_weights=balanced") == 0
    assert open_run("run").classes == ("ant", "bee", "cat")
    assert _exit(monkeypatch, "evaluate", "run") == 0


def _exit(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr(sys, "argv", ["convscope", *words])
    try:
        main()
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


# Training


def test_a_batch_of_one_is_too_few_for_batch_normalisation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def small(spec: str, *, num_classes: int, task: str) -> nn.Module:
        layers = (nn.AdaptiveAvgPool2d(1), nn.BatchNorm2d(1), nn.Flatten(), nn.Linear(1, num_classes))
        model = nn.Sequential(*layers).eval()
        model.input_shape = (1, 32, 32)  # pyright: ignore[reportAttributeAccessIssue]
        return model

    monkeypatch.setattr(models, "network", small)
    config = TrainConfig(batch_size=1, epochs=1, num_threads=1, device="cpu")
    with pytest.raises(InputError, match="batch normalisation needs two pictures a step; use a larger batch_size"):
        train(config, out=tmp_path, progress=False)


EXHAUSTS = """
import resource, sys
import lightning_fabric, safetensors.torch, torchmetrics.classification
from convscope.errors import RunError
from convscope.runs import TrainConfig
from convscope.train import train
config = TrainConfig(epochs=1, batch_size=1293, num_threads=1, device="cpu", model="ConvNet3", augment="none")
pages = int(open("/proc/self/statm").read().split()[0])
resource.setrlimit(resource.RLIMIT_AS, 2 * (pages * resource.getpagesize() + 150 * 2**20,))
try:
    train(config, out=sys.argv[1], progress=False)
except RunError as error:
    print(error.exit_code, error)
"""


def test_memory_that_really_runs_out(tmp_path: Path) -> None:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", EXHAUSTS, str(tmp_path / "run")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.stdout.startswith("1 train: memory ran out with batch_size 1293, where "), done.stderr[-600:]
    assert not [p for p in (tmp_path / "run").iterdir() if p.suffix in (".ckpt", ".part", ".safetensors")]


def test_a_long_run_does_not_grow(tmp_path: Path) -> None:
    watch = bench("soak").soak(tmp_path, epochs=12)
    assert len(watch.files) >= 4
    assert watch.growth(watch.files) == 0
    assert watch.growth(watch.memory) < 24 * 2**20


# The source


def _calls() -> Iterator[tuple[str, str, ast.Call]]:
    for path in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                yield path.relative_to(SOURCE).as_posix(), ast.unparse(node.func), node


def test_what_the_source_must_not_hold() -> None:
    """No code from data, no picture through torchvision's decoders, no process but the decoder's, no worker."""
    forbidden = {
        "pickle.load",
        "pickle.loads",
        "eval",
        "exec",
        "yaml.load",
        "os.system",
        "DataLoader",
        "torch.hub.load",
    }
    called = list(_calls())
    assert {(file, name) for file, name, _ in called if name in forbidden} == set()
    loads = [node for _, name, node in called if name == "torch.load"]
    assert len(loads) >= 2
    for node in loads:
        assert "weights_only=True" in ast.unparse(node)
    everything = {p.relative_to(SOURCE).as_posix(): p.read_text() for p in SOURCE.rglob("*.py")}
    for word in (
        "torchvision.io",
        "LOAD_TRUNCATED_IMAGES",
        "MAX_IMAGE_PIXELS",
        "multiprocessing",
        "weights_only=False",
    ):
        assert [name for name, text in everything.items() if word in text] == [], word
    subprocesses = {file for file, name, _ in called if name.startswith("subprocess.")}
    assert "data/decoding.py" in subprocesses
    assert not any(file.startswith("lab/") for file in subprocesses)
