"""Every task, with every setting that remembers something, resumes bit for bit wherever it was cut."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from convscope import data
from convscope.runs import TrainConfig, open_run
from convscope.runs import folder as runs
from convscope.train import loop, train
from tiny import SIZE, offer

ALL: dict[str, Any] = {"ema": 0.9, "clip": 0.5, "accumulate": 3, "save_every_steps": 2}
ALL |= {"num_threads": 1, "device": "cpu"}
SCENES = {**ALL, "data": "tiny", "image_size": SIZE, "epochs": 3, "batch_size": 16, "channels_last": True, "flip": True}
CONFIGS = {
    "classify": TrainConfig(**ALL, epochs=2, batch_size=400, label_smoothing=0.1, class_weights="balanced"),
    "classify, patient": TrainConfig(**ALL, epochs=6, batch_size=400, patience=1, lr=0.0),
    "classify, sgd, bfloat16": TrainConfig(**ALL, epochs=2, batch_size=400, optimizer="sgd", precision="bfloat16"),
    "detect": TrainConfig(task="detect", **SCENES),
    "segment": TrainConfig(task="segment", **SCENES),
    "segment, of torchvision": TrainConfig(
        task="segment", **SCENES, model="torchvision:mobilenet_v3_small", precision="bfloat16"
    ),
    "detect,segment": TrainConfig(task="detect,segment", task_weights={"segment": 0.5}, **SCENES),
}


class _Cut(Exception):  # noqa: N818 - it is the machine's
    """The machine went down."""


@pytest.fixture(autouse=True)
def tiny_data(monkeypatch: pytest.MonkeyPatch) -> None:
    sets = {task: dict(known) for task, known in data.DATASETS.items()}
    offer(sets)
    monkeypatch.setattr(data, "DATASETS", sets)


def _cut_at(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail in the middle of a step, the `step`th from the beginning of the run."""
    real = loop.parts.learning_rate

    def counted(config: TrainConfig, *, done: float) -> float:
        counted.left -= 1
        if counted.left < 0:
            raise _Cut
        return real(config, done=done)

    counted.left = step
    monkeypatch.setattr(loop.parts, "learning_rate", counted)


def _state(folder: Path) -> dict[str, Any]:
    state = runs.load_checkpoint(folder)
    assert state is not None
    return state


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(_same(one[k], other[k]) for k in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(_same, one, other))
    return one == other


@pytest.mark.parametrize("name", CONFIGS)
def test_a_run_that_was_cut_and_resumed_ends_as_the_undisturbed_one(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = CONFIGS[name]
    train(config, out=tmp_path / "plain", progress=False)
    for step in (3, 2, 4):  # after a save, just before one, over an epoch's end
        with monkeypatch.context() as cut:
            _cut_at(step, cut)
            try:
                train(config, out=tmp_path / "cut", resume=(tmp_path / "cut" / "config.toml").exists(), progress=False)
            except _Cut:
                continue
    train(config, out=tmp_path / "cut", resume=True, progress=False)
    plain, cut = _state(tmp_path / "plain"), _state(tmp_path / "cut")
    for key in ("model", "average", "optimizer", "epoch", "batch", "step"):
        assert _same(plain[key], cut[key]), key
    timeless = [
        [{k: v for k, v in row.items() if k not in ("seconds", "images_per_second")} for row in open_run(at).metrics()]
        for at in (tmp_path / "plain", tmp_path / "cut")
    ]
    assert timeless[0] == timeless[1]
    assert _same(*(load_file(tmp_path / at / "model.safetensors") for at in ("plain", "cut")))


def test_the_average_is_not_the_weights_themselves(tmp_path: Path) -> None:
    train(CONFIGS["segment"], out=tmp_path, progress=False)
    state = _state(tmp_path)
    assert not _same(state["model"], state["average"])
