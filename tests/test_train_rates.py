"""Learning rates layer by layer, the rate to begin with, and the log for TensorBoard."""

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

from convscope import models
from convscope.cli import app
from convscope.errors import InputError, RunError
from convscope.runs import TrainConfig
from convscope.train import find_lr, train
from convscope.train.finding import judged
from convscope.train.parts import layers, optimizer

QUICK = TrainConfig(epochs=2, batch_size=256, num_threads=1, device="cpu", augment="none", precision="float32")


def _config(**changed: Any) -> TrainConfig:
    return QUICK.model_copy(update=changed)


def test_layers_go_from_the_picture_to_the_head() -> None:
    model = models.network("small", num_classes=3, task="detect,segment")
    found = layers(model)
    own = {id(p) for p in model.heads.parameters()}
    assert {id(p) for p in found[-1]} == own
    assert sum(map(len, found)) == len(list(model.parameters()))
    names = {id(p): name for name, p in model.named_parameters()}
    stages = [{names[id(p)].split(".")[2] for p in layer} for layer in found[:-1]]
    assert [min(s) for s in stages] == sorted(min(s) for s in stages)
    assert all(len(s) == 1 for s in stages)
    resnet = models.build("torchvision:resnet18", num_classes=2)
    assert [len(layer) for layer in layers(resnet)] == [1, 2, 12, 15, 15, 15, 2]


def test_each_layer_learns_at_its_share_of_the_rate(tmp_path: Path) -> None:
    """Oracle: SGD's first step moves weights by 1.9 times rate and gradient, so that moves go as the rates."""
    options = {"optimizer": "sgd", "lr": 0.05, "weight_decay": 0.0, "warmup": 0.0, "epochs": 1, "batch_size": 1293}
    torch.manual_seed(0)
    before = models.build("LeNet5", num_classes=10).state_dict()
    moved = {}
    for decay in (1.0, 0.5):
        run = train(_config(layer_decay=decay, **options), out=tmp_path / str(decay), progress=False)
        after = load_file(run.folder / "model.safetensors")
        moved[decay] = {k: after[k].double() - before[k].double() for k in after}
    for key, whole in moved[1.0].items():
        share = 1.0 if key.startswith("head") else 0.25 if key.lower().startswith("features.c1") else 0.5
        torch.testing.assert_close(moved[0.5][key], share * whole, rtol=1e-3, atol=1e-7)
    assert run.metrics()[0]["lr"] == pytest.approx(0.025)


def test_a_run_with_layer_decay_resumes_bit_for_bit_and_takes_another(tmp_path: Path) -> None:
    config = _config(layer_decay=0.8)
    whole = train(config, out=tmp_path / "whole", progress=False)
    train(config.model_copy(update={"epochs": 1}), out=tmp_path / "parts", progress=False)
    assert len(torch.load(tmp_path / "parts" / "last.ckpt", weights_only=True)["optimizer"]["param_groups"]) == 3
    (tmp_path / "parts" / "config.toml").write_text((tmp_path / "whole" / "config.toml").read_text())
    assert whole.config == config
    again = train(_config(layer_decay=1.0), out=tmp_path / "parts", resume=True, override=True, progress=False)
    assert [row["epoch"] for row in again.metrics()] == [1, 2]


def test_weights_that_are_frozen_have_no_layer() -> None:
    model = models.build("LeNet5")
    model.features.requires_grad_(False)
    groups = optimizer(model, _config(layer_decay=0.5)).param_groups
    assert [g["share"] for g in groups] == [1.0]


def test_the_rate_that_is_found_trains_well(tmp_path: Path) -> None:
    found = find_lr(_config())
    assert 1e-4 < found.lr < 1e-1
    assert [t.lr for t in found.steps] == sorted(t.lr for t in found.steps)
    assert found.data() == find_lr(_config()).data()
    scores = {
        lr: train(_config(lr=lr), out=tmp_path / str(lr), progress=False).metrics()[-1]["val_loss"]
        for lr in (found.lr / 100, found.lr)
    }
    assert scores[found.lr] < scores[found.lr / 100]


def test_the_steepest_slope_is_chosen_and_none_is_said() -> None:
    rates = [10.0**at for at in range(-6, 1)]
    found = judged(rates, [1.0, 1.0, 0.9, -9.0, -9.5, -9.5, -9.5])
    assert found.lr in (1e-4, 1e-3)
    falling = [3.0] * 40 + [3.0 - 0.1 * at for at in range(20)]
    peak = [*falling, 9.0, 9.0, *[1.1] * 18]
    assert judged([10 ** (at / 13.3 - 6) for at in range(80)], peak).lr < 10 ** (60 / 13.3 - 6)  # not behind the peak
    with pytest.raises(RunError, match="the loss falls at no learning rate from 1e-6 to 1; look at the data"):
        judged(rates, [1.0 + at for at in range(7)])


def test_the_command_finds_a_rate_and_trains_nothing(tmp_path: Path) -> None:
    words = ["--set", "num_threads=1", "--device", "cpu", "--batch-size", "256", "--out", str(tmp_path / "run")]
    told = CliRunner().invoke(app, ["train", "classify", "--find-lr", *words])
    assert told.exit_code == 0, told.output
    assert "the loss falls fastest at lr" in told.stdout
    assert [p.name for p in (tmp_path / "run").iterdir()] == ["learning-rates.png"]


def test_tensorboard_that_is_missing_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(InputError, match=r"tensorboard: is not installed; pip install 'convscope\[tensorboard\]'"):
        train(_config(tensorboard=True), out=tmp_path, progress=False)


def test_tensorboard_shows_what_metrics_hold(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="the tensorboard extra is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    config = _config(tensorboard=True, epochs=3)
    run = train(config, out=tmp_path, progress=False)
    read = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    rows = run.metrics()
    for key in ("train_loss", "val_accuracy"):
        shown = read.Scalars(key.replace("_", "/", 1))
        assert [(s.step, s.value) for s in shown] == [(r["step"], pytest.approx(r[key], rel=1e-6)) for r in rows]
