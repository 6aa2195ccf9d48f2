"""Run folders: whole files, digests, locks, and plain words for damage."""

import errno
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from convscope import models
from convscope.data import Normalisation
from convscope.errors import CheckpointError, InputError, RunError
from convscope.runs import TrainConfig, load_run_model, open_run
from convscope.runs import folder as runs

CONFIG = TrainConfig(epochs=2)
CLASSES = tuple("0123456789")


@pytest.fixture
def run(tmp_path: Path) -> runs.Run:
    """A finished run with two checkpoints."""
    run = runs.Run(tmp_path, CONFIG, CLASSES, (1, 32, 32), Normalisation((0.3,), (0.4,)))
    torch.manual_seed(5)
    runs.start(run)
    for step in (1, 2, 3):
        runs.save_checkpoint(tmp_path, {"step": step, "model": {"w": torch.full((50,), float(step))}})
    runs.save_model(tmp_path, models.build("LeNet5"))
    return run


def _flip(path: Path, at: float) -> None:
    content = bytearray(path.read_bytes())
    content[int(len(content) * at)] ^= 1
    path.write_bytes(content)


DAMAGES: dict[str, Callable[[Path], object]] = {
    "empty": lambda path: path.write_bytes(b""),
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-100]),
    "start": lambda path: _flip(path, 0.0),
    "middle": lambda path: _flip(path, 0.5),
    "end": lambda path: _flip(path, 0.999),
    "other": lambda path: path.write_text("<html>"),
}


def test_a_run_is_read_back(run: runs.Run) -> None:
    assert open_run(run.folder) == run
    model, config = load_run_model(run.folder)
    torch.manual_seed(5)
    wanted = models.build("LeNet5").state_dict()
    assert config == CONFIG
    assert not model.training
    assert all(torch.equal(value, wanted[key]) for key, value in model.state_dict().items())


def test_two_checkpoints_are_kept(run: runs.Run) -> None:
    state = runs.load_checkpoint(run.folder)
    assert state is not None
    assert state["step"] == 3
    (run.folder / "last.ckpt").unlink()
    before = runs.load_checkpoint(run.folder)
    assert before is not None
    assert (before["step"], before["model"]["w"][0].item()) == (2, 2.0)
    (run.folder / "last-1.ckpt").unlink()
    assert runs.load_checkpoint(run.folder) is None


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_names_the_sound_one(run: runs.Run, damage: str) -> None:
    DAMAGES[damage](run.folder / "last.ckpt")
    what = r"is empty \(0 bytes\)" if damage == "empty" else "is damaged"
    with pytest.raises(CheckpointError, match=rf"last\.ckpt: {what}.*; last-1\.ckpt is sound: rename it to last\.ckpt"):
        runs.load_checkpoint(run.folder)
    (run.folder / "last-1.ckpt").replace(run.folder / "last.ckpt")  # the advice works
    state = runs.load_checkpoint(run.folder)
    assert state is not None
    assert state["step"] == 2


@pytest.mark.parametrize("damage", DAMAGES)
def test_two_damaged_checkpoints_say_so(run: runs.Run, damage: str) -> None:
    for name in ("last.ckpt", "last-1.ckpt"):
        DAMAGES[damage](run.folder / name)
    with pytest.raises(CheckpointError, match=r"last-1\.ckpt is missing or damaged too, so train again"):
        runs.load_checkpoint(run.folder)


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_weights_are_refused(run: runs.Run, damage: str) -> None:
    DAMAGES[damage](run.folder / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"model\.safetensors: is (empty|damaged)"):
        load_run_model(run.folder)


def test_a_pickle_that_runs_code_is_never_run(run: runs.Run, tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, ...]:
            return os.mkdir, (str(tmp_path / "owned"),)

    runs.save_checkpoint(run.folder, {"evil": Evil()})  # with a digest in the manifest
    with pytest.raises(CheckpointError, match=r"last\.ckpt: is not a checkpoint"):
        runs.load_checkpoint(run.folder)
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize(
    "changed",
    [{"classes": []}, {"classes": [1, 2]}, {"classes": "abc"}, {"classes": None}, {"shape": [1, 0, 32]},
     {"shape": [1, 10**9, 32]}, {"shape": ["a", 1, 2]}, {"normalisation": [[float("nan")], [1.0]]},
     {"normalisation": [[0.0], [0.0]]}, {"normalisation": 7}, {"sha256": []}, {"sha256": {"model": 7}},
     {"categories": {"a": "b"}}],
    ids=str,
)  # fmt: skip
def test_a_manifest_with_anything_else_in_it_is_damaged(run: runs.Run, changed: dict[str, object]) -> None:
    path = run.folder / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changed))
    with pytest.raises(CheckpointError, match=r"manifest\.json: is damaged \(.*\); restore it or train again"):
        runs.open_run(run.folder)


@pytest.mark.parametrize("text", ["1", "[]", "{}", '{"epoch": "x"}', "nan", '{"epoch": 1}\n{"ep'])
def test_a_log_of_anything_else_than_epochs_is_damaged(run: runs.Run, text: str) -> None:
    (run.folder / "metrics.jsonl").write_text(text + "\n")
    with pytest.raises(CheckpointError, match=r"metrics\.jsonl: is damaged \(.*\); remove the line that is cut"):
        runs.open_run(run.folder).metrics()


@pytest.mark.parametrize("name", ["manifest.json", "config.toml", "last.ckpt", "model.safetensors"])
def test_a_pipe_in_the_place_of_a_file_is_not_waited_for(run: runs.Run, name: str) -> None:
    (run.folder / name).unlink()
    os.mkfifo(run.folder / name)
    read = runs.load_checkpoint if name == "last.ckpt" else load_run_model
    with pytest.raises(CheckpointError, match=name.replace(".", r"\.")):
        read(run.folder)


def test_weights_of_another_network_are_listed() -> None:
    model = models.build("LeNet5")
    weights = dict(model.state_dict())
    weights["head.F6.biases"] = weights.pop("head.F6.bias")
    weights["head.output.bias"] = torch.zeros(3)
    with pytest.raises(CheckpointError) as caught:
        runs.load_weights(model, weights, source="x")
    assert str(caught.value) == (
        "x: holds weights of another network: 1 missing (head.F6.bias, perhaps head.F6.biases); "
        "1 left over (head.F6.biases); 1 of another shape (head.output.bias is 3, not 10); "
        "give the network that it was saved from"
    )


@pytest.mark.parametrize("content", ["", "{", "[]", '{"sha256": 3}', '{"sha256": {}}', "[" * 99_999])
def test_a_damaged_manifest_is_one_sentence(run: runs.Run, content: str) -> None:
    (run.folder / "manifest.json").write_text(content)
    with pytest.raises(CheckpointError, match=r"manifest\.json: is damaged"):
        open_run(run.folder)


def test_missing_things_are_named(run: runs.Run, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="holds no run"):
        open_run(tmp_path / "nowhere")
    (run.folder / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="is missing, so the run was not finished; resume it"):
        load_run_model(run.folder)


def test_a_full_disk_keeps_both_checkpoints(run: runs.Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    before = {p.name: p.read_bytes() for p in run.folder.iterdir()}
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RunError, match="No space left on device"):
        runs.save_checkpoint(run.folder, {"step": 4})
    assert {p.name: p.read_bytes() for p in run.folder.iterdir()} == before


def test_many_saves_keep_the_manifest_short(run: runs.Run) -> None:
    for step in range(runs.KEPT_DIGESTS + 5):
        runs.save_checkpoint(run.folder, {"step": step})
    known = json.loads((run.folder / "manifest.json").read_text())["sha256"]
    assert len(known["checkpoint"]) == runs.KEPT_DIGESTS
    state = runs.load_checkpoint(run.folder)
    assert state == {"step": runs.KEPT_DIGESTS + 4}
    assert load_run_model(run.folder)[1] == CONFIG


def test_a_folder_is_held_by_one_run_and_freed_by_death(tmp_path: Path) -> None:
    hold = (
        "import sys, fcntl, time\nf = open(sys.argv[1], 'a')\nfcntl.flock(f, fcntl.LOCK_EX)\n"
        "print('held', flush=True)\ntime.sleep(60)"
    )
    command = [sys.executable, "-c", hold, str(tmp_path / "run.lock")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with pytest.raises(InputError, match="another run is writing there"), runs.locked(tmp_path):
            pass
        other.kill()
        other.wait()
    with runs.locked(tmp_path), pytest.raises(InputError, match="another run"), runs.locked(tmp_path):
        pass
