"""What a run can be told beyond its model and data: each setting does what it says."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from convscope import data, models
from convscope.errors import CheckpointError, InputError
from convscope.runs import TrainConfig, open_run
from convscope.train import train, trial
from convscope.train.loop import Training
from convscope.train.parts import Average, begin_with, make_task

QUICK = TrainConfig(epochs=2, batch_size=256, num_threads=1, device="cpu", augment="none")


def _config(**changed: Any) -> TrainConfig:
    return QUICK.model_copy(update=changed)


def _weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def test_the_average_follows_as_its_formula_says() -> None:
    net = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    average = Average(net, decay=0.7)
    wanted = {k: v.clone() for k, v in net.state_dict().items()}
    for step in range(1, 9):
        with torch.no_grad():
            for p in net.parameters():
                p.add_(torch.randn(p.shape, generator=torch.Generator().manual_seed(step)))
        net(torch.rand(4, 3))
        average.follow(step)
        decay = min(0.7, (1 + step) / (10 + step))
        for key, value in net.state_dict().items():
            wanted[key] = decay * wanted[key] + (1 - decay) * value if value.is_floating_point() else value.clone()
    for key, value in average.inner.state_dict().items():
        torch.testing.assert_close(value, wanted[key])


def test_the_weights_to_use_are_the_average_of_those_on_the_way(tmp_path: Path) -> None:
    plain, averaged = (train(_config(ema=e), out=tmp_path / str(e), progress=False) for e in (0.0, 0.9))
    state = torch.load(tmp_path / "0.9" / "last.ckpt", weights_only=True)
    for key, value in _weights(averaged.folder).items():
        assert torch.equal(value, state["average"][key])
    assert all(torch.equal(state["model"][k], v) for k, v in _weights(plain.folder).items())


def test_a_batch_in_parts_is_the_batch(tmp_path: Path) -> None:
    """LeNet5 looks at each picture apart, so that the parts' gradients add up to those of the whole."""
    options = {"optimizer": "sgd", "lr": 0.05}
    whole, parts = (train(_config(accumulate=n, **options), out=tmp_path / str(n), progress=False) for n in (1, 7))
    for key, value in _weights(whole.folder).items():
        torch.testing.assert_close(_weights(parts.folder)[key], value, rtol=1e-3, atol=1e-5)
    for one, other in zip(whole.metrics(), parts.metrics(), strict=True):
        assert one["train_loss"] == pytest.approx(other["train_loss"], rel=1e-4)
        assert one["train_accuracy"] == pytest.approx(other["train_accuracy"], abs=1e-6)


def test_a_gradient_is_no_longer_than_clip(tmp_path: Path) -> None:
    """Oracle: SGD's first step with momentum and Nesterov moves the weights by 1.9 times rate and gradient."""
    config = _config(optimizer="sgd", lr=1.0, clip=0.01, weight_decay=0.0, warmup=0.0, epochs=1, batch_size=1293)
    train(config, out=tmp_path, progress=False)
    torch.manual_seed(0)
    before = models.build("LeNet5", num_classes=10).state_dict()
    moved = sum(float((_weights(tmp_path)[k] - v).square().sum()) for k, v in before.items()) ** 0.5
    assert moved == pytest.approx(0.01 * 1.9 * 0.5, rel=1e-3)  # the middle of the cosine


def test_freeze_keeps_the_backbone_and_trains_the_head(tmp_path: Path) -> None:
    train(_config(freeze=True), out=tmp_path, progress=False)
    torch.manual_seed(0)
    for key, value in models.build("LeNet5", num_classes=10).state_dict().items():
        assert torch.equal(value, _weights(tmp_path)[key]) == key.startswith("features.")


def test_patience_ends_a_run_that_does_not_get_better(tmp_path: Path) -> None:
    rows = train(_config(lr=0.0, epochs=30, patience=3), out=tmp_path, progress=False).metrics()
    assert len(rows) == 4
    assert (tmp_path / "model.safetensors").exists()
    again = train(_config(lr=0.0, epochs=30, patience=3), out=tmp_path, resume=True, progress=False)
    assert len(again.metrics()) == 4


def test_minutes_become_epochs_that_are_written_down(tmp_path: Path) -> None:
    config = _config(minutes=0.05, epochs=500, precision="float32")
    run = train(config, out=tmp_path / "a", progress=False)
    assert 1 <= run.config.epochs < 500
    assert len(run.metrics()) == run.config.epochs == open_run(tmp_path / "a").config.epochs
    plain = train(
        config.model_copy(update={"minutes": 0.0, "epochs": run.config.epochs}), out=tmp_path / "b", progress=False
    )
    assert all(torch.equal(v, _weights(plain.folder)[k]) for k, v in _weights(run.folder).items())
    assert train(config, out=tmp_path / "a", resume=True, progress=False).config.epochs == run.config.epochs


@pytest.mark.parametrize(("slow", "chosen"), [(0.5, "bfloat16"), (0.95, "float32"), (2.0, "float32")])
def test_the_precision_is_settled_by_trying_and_written_down(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, slow: float, chosen: str
) -> None:
    calls: list[str] = []

    def seconds(tried: Training, number: int) -> list[float]:
        calls.append(tried.config.precision)
        return [slow if tried.config.precision == "bfloat16" else 1.0] * number

    monkeypatch.setattr(Training, "rehearse", seconds)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    config = _config(batch_size=400, epochs=2)
    assert train(config, out=tmp_path / "short", progress=False).config.precision == "float32"
    monkeypatch.setattr(trial, "FEW_STEPS", 1)
    assert train(config, out=tmp_path / "long", progress=False).config.precision == chosen
    assert len(calls) == 6
    assert train(config, out=tmp_path / "known", progress=False).config.precision == chosen
    assert train(config.model_copy(update={"batch_size": 390}), out=tmp_path / "other", progress=False)
    assert len(calls) == 12  # tried once for each batch size
    asked = config.model_copy(update={"epochs": 3})
    again = train(asked, out=tmp_path / "long", resume=True, override=True, progress=False)
    assert again.config.precision == chosen
    fixed = train(config.model_copy(update={"precision": chosen}), out=tmp_path / "plain", progress=False)
    assert fixed.metrics()[0]["train_loss"] == again.metrics()[0]["train_loss"]  # trying leaves nothing behind
    monkeypatch.setattr(trial, "digest", lambda: "other kernels")
    assert train(config, out=tmp_path / "anew", progress=False).config.precision == chosen
    assert len(calls) == 18


def test_smoothing_and_class_weights_reach_the_loss() -> None:
    train_set = data.digits().train.subset(torch.arange(100))
    counts = train_set.class_counts().double()
    for kind, power in (("root", 0.5), ("balanced", 1.0)):
        task = make_task(_config(label_smoothing=0.1, class_weights=kind), train_set)
        weights = (counts.mean() / counts) ** power
        logits = torch.randn(20, 10, generator=torch.Generator().manual_seed(0))
        y = train_set.labels[:20]
        wanted = nn.functional.cross_entropy(logits, y, weights.float(), label_smoothing=0.1)
        torch.testing.assert_close(task.loss(logits, y)["loss"], wanted)
    with pytest.raises(InputError, match="label_smoothing and class_weights: are for classify and segment"):
        make_task(TrainConfig(task="detect", label_smoothing=0.1), train_set)


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_a_run_begins_with_the_weights_of_a_file(tmp_path: Path, suffix: str) -> None:
    torch.manual_seed(7)
    weights = models.LeNet5(26).state_dict()
    file = tmp_path / f"weights{suffix}"
    save_file(weights, file) if suffix == ".safetensors" else torch.save(weights, file)
    run = train(_config(weights=str(file), lr=0.0, weight_decay=0.0), out=tmp_path / "run", progress=False)
    same = {k for k, v in _weights(run.folder).items() if k in weights and torch.equal(v, weights[k])}
    assert weights.keys() - same == {"head.output.weight", "head.output.bias"}
    assert begin_with(models.LeNet5(10), file) == ["head.output.bias", "head.output.weight"]


def test_a_backbone_begins_with_a_backbones_weights(tmp_path: Path) -> None:
    torch.manual_seed(7)
    inner = models.backbone("small")
    save_file(inner.state_dict(), tmp_path / "b.safetensors")
    model = models.network("small", num_classes=3, task="segment")
    left = begin_with(model, tmp_path / "b.safetensors")
    assert all(name.startswith("heads.") for name in left)
    assert torch.equal(model.backbone.stages[0][0].conv.weight, inner.stages[0][0].conv.weight)


class _Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return (print, ("run",))


def test_files_that_are_no_weights_are_refused_and_nothing_in_them_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = models.LeNet5()
    torch.save(_Evil(), tmp_path / "evil.pt")
    torch.save([1, 2], tmp_path / "list.pt")
    torch.save({"a": torch.zeros(3)}, tmp_path / "other.pt")
    (tmp_path / "cut.safetensors").write_bytes(b"12345")
    (tmp_path / "empty.pt").write_bytes(b"")
    for name, said in (
        ("evil.pt", "holds no plain weights"),
        ("empty.pt", "holds no plain weights"),
        ("cut.safetensors", "holds no plain weights"),
        ("list.pt", "is no state_dict of tensors"),
        ("other.pt", "holds 1 tensors, of which none has the name and shape of one of the network's 10"),
        ("none.pt", "cannot be read"),
    ):
        with pytest.raises(CheckpointError, match=said):
            begin_with(model, tmp_path / name)
    assert "run" not in capsys.readouterr().out


def test_what_does_not_go_together_is_refused_before_the_first_step(tmp_path: Path) -> None:
    for changed, said in (
        ({"batch_size": 1294}, "batch_size: is 1294, but there are 1293 training pictures; use 1293 or less"),
        ({"augment": "crop"}, "augment: is 'crop', but to classify it can be 'affine' .without flip. or 'none'"),
        ({"flip": True}, "augment: is 'none' with flip, but to classify"),
    ):
        with pytest.raises(InputError, match=said):
            train(_config(**changed), out=tmp_path, progress=False)
    assert not (tmp_path / "config.toml").exists()
