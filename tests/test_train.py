"""Training: it learns, it stops and resumes bit for bit, and it says what is wrong."""

import math
import signal
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from convscope import data, models
from convscope import train as training
from convscope.data.augment import draws, order
from convscope.errors import CheckpointError, ConvscopeError, DataError, InputError, ModelError, RunError
from convscope.evaluate import evaluate
from convscope.runs import TrainConfig, load_run_model, open_run
from convscope.runs import folder as runs
from convscope.train import Interrupted, learning_rate, stopping, train

QUICK = TrainConfig(epochs=2, batch_size=256, num_threads=1, device="cpu", precision="float32")


def _weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def _same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def test_the_defaults_learn_the_digits(tmp_path: Path) -> None:
    run = train(TrainConfig(), out=tmp_path, progress=False)
    result = evaluate(load_run_model(tmp_path)[0], data.digits().test)
    assert result.accuracy >= 0.99
    rows = run.metrics()
    assert [row["epoch"] for row in rows] == list(range(1, 61))
    assert {type(v) for row in rows for v in row.values()} <= {int, float}
    assert set(rows[0]) == {
        *("epoch", "step", "train_loss", "train_accuracy", "val_loss", "val_accuracy"),
        *("lr", "images_per_second", "seconds"),
    }


def test_training_is_the_loop_that_it_says_it_is(tmp_path: Path) -> None:
    """Oracle: the recipe written out with torch alone."""
    config = QUICK.model_copy(update={"optimizer": "sgd", "lr": 0.05})
    rows = train(config, out=tmp_path, progress=False).metrics()
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model, images = models.build("LeNet5", num_classes=10).train(), data.digits().train
    optimizer = torch.optim.SGD(model.parameters(), lr=1, momentum=0.9, nesterov=True, weight_decay=0.01)
    losses: list[float] = []
    for epoch in range(2):
        numbers = draws(1293, seed=0, epoch=epoch)
        for at, batch in enumerate(order(1293, seed=0, epoch=epoch).tensor_split(6)):
            done = (epoch + (at + 0.5) / 6) / 2
            optimizer.param_groups[0]["lr"] = (
                0.05 * done / 0.1 if done < 0.1 else 0.025 * (1 + math.cos(math.pi * (done - 0.1) / 0.9))
            )
            x, y = images.batch(batch, draws=numbers)
            loss = nn.functional.cross_entropy(model(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses += [loss.item()] * len(batch)
    torch.set_num_threads(before)
    wanted = model.state_dict()
    for key, value in _weights(tmp_path).items():
        torch.testing.assert_close(value, wanted[key], rtol=1e-4, atol=1e-5)
    assert rows[1]["train_loss"] == pytest.approx(sum(losses[1293:]) / 1293, rel=1e-4)
    assert evaluate(load_run_model(tmp_path)[0], data.digits().val).accuracy == pytest.approx(rows[1]["val_accuracy"])


def test_learning_rate_rises_then_falls_to_zero() -> None:
    config = TrainConfig(lr=0.5, warmup=0.2)
    rates = [learning_rate(config, done=i / 1000) for i in range(1001)]
    assert max(rates) == rates[200] == 0.5
    assert rates[:201] == sorted(rates[:201])
    assert rates[200:] == sorted(rates[200:], reverse=True)
    assert abs(rates[-1]) < 1e-12
    assert learning_rate(TrainConfig(lr=0.5, warmup=0), done=0) == 0.5


def test_the_callers_random_state_and_threads_are_untouched(tmp_path: Path) -> None:
    before, threads = torch.get_rng_state(), torch.get_num_threads()
    handlers = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    train(QUICK, out=tmp_path, progress=False)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.get_num_threads() == threads
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == handlers


@pytest.mark.parametrize("changed", [{"precision": "bfloat16"}, {"channels_last": True, "augment": "none"}])
def test_other_precisions_and_formats_train(tmp_path: Path, changed: dict[str, Any]) -> None:
    rows = train(QUICK.model_copy(update={**changed, "epochs": 8}), out=tmp_path, progress=False).metrics()
    assert rows[-1]["train_loss"] < 0.7 * rows[0]["train_loss"]
    assert all(value.dtype == torch.float32 for value in _weights(tmp_path).values())


def test_a_run_in_a_thread_trains(tmp_path: Path) -> None:
    thread = threading.Thread(target=train, args=(QUICK,), kwargs={"out": tmp_path, "progress": False})
    thread.start()
    thread.join()
    assert len(open_run(tmp_path).metrics()) == 2


def test_progress_is_a_line_an_epoch_on_stderr(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train(QUICK, out=tmp_path)
    said = capsys.readouterr()
    assert said.out == ""
    assert [line.split("  ")[0] for line in said.err.splitlines()] == ["epoch 1/2", "epoch 2/2"]


class _Terminal:
    """Standard error that says it is a terminal."""

    encoding = "utf-8"

    def __init__(self) -> None:
        self.text = ""

    def isatty(self) -> bool:
        return True

    def write(self, text: str) -> int:
        self.text += text
        return len(text)

    def flush(self) -> None: ...


def test_progress_is_a_bar_on_a_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", terminal := _Terminal())
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "200")
    train(QUICK, out=tmp_path)
    assert "epoch 2/2" in terminal.text
    assert "━" in terminal.text


class _Poisoned(nn.Module):
    """LeNet5 whose logits are NaN at its seventh training step."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.input_shape = (1, 32, 32)
        self.net, self.steps = models.LeNet5(num_classes), 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.steps += self.training
        return self.net(x) * (math.nan if self.training and self.steps == 7 else 1)


class _BadGradient(models.LeNet5):
    """LeNet5 with a finite loss whose gradient is not."""

    def __init__(self, num_classes: int) -> None:
        super().__init__(num_classes)
        self.root = nn.Parameter(torch.ones(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) + (self.root * 0).sqrt()


def test_nan_stops_at_its_step_names_the_samples_and_keeps_the_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(models, "network", lambda spec, num_classes, task: _Poisoned(num_classes))
    with pytest.raises(RunError) as caught:
        train(QUICK.model_copy(update={"save_every_steps": 5}), out=tmp_path, progress=False)
    samples = order(1293, seed=0, epoch=1).tensor_split(6)[0].tolist()
    assert str(caught.value) == (
        f"train: the loss became nan at epoch 2, step 7, on the training samples {', '.join(map(str, samples))}; "
        f"the last good checkpoint was kept in {tmp_path}; use a smaller lr, or nan=skip"
    )
    state = runs.load_checkpoint(tmp_path)
    assert state is not None
    assert state["step"] == 5
    assert all(value.isfinite().all() for value in state["model"].values())
    assert not (tmp_path / "model.safetensors").exists()


def test_nan_can_be_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "network", lambda spec, num_classes, task: _Poisoned(num_classes))
    rows = train(QUICK.model_copy(update={"nan": "skip"}), out=tmp_path, progress=False).metrics()
    assert rows[1]["step"] == 12
    assert math.isfinite(rows[1]["train_loss"])
    assert all(value.isfinite().all() for value in _weights(tmp_path).values())


def test_weights_that_are_not_finite_are_never_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "network", lambda spec, num_classes, task: _BadGradient(num_classes))
    with pytest.raises(RunError, match="weights became NaN or infinite by step 1; nothing was saved"):
        train(QUICK.model_copy(update={"save_every_steps": 1}), out=tmp_path, progress=False)
    assert not runs.is_begun(tmp_path)


@pytest.mark.parametrize(
    ("changed", "error", "said"),
    [
        ({"model": "LeNet6"}, ModelError, "did you mean 'LeNet5'"),
        ({"data": "digit"}, DataError, "did you mean 'digits'"),
    ],
)
def test_what_does_not_serve_is_refused_first(
    tmp_path: Path, changed: dict[str, Any], error: type[ConvscopeError], said: str
) -> None:
    with pytest.raises(error, match=said):
        train(QUICK.model_copy(update=changed), out=tmp_path, progress=False)


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_a_gpu_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not on this machine; use auto or one of cpu"):
        train(QUICK.model_copy(update={"device": "cuda"}), out=tmp_path)


def test_a_network_that_does_not_fit_the_data_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "network", lambda spec, num_classes, task: models.LeNet5(7))
    with pytest.raises(ModelError, match="gives 1x7 for one picture, but 1x10 logits are needed"):
        train(QUICK, out=tmp_path)
    monkeypatch.setattr(models, "input_shape", lambda model, spec: (3, 20, 20))
    with pytest.raises(ModelError, match="on input 1x3x20x20; check the input's shape"):
        train(QUICK, out=tmp_path)


def test_memory_that_runs_out_is_told_with_the_batch_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def exhausted(*args: object, **kwargs: object) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")

    monkeypatch.setattr(training.loop.Training, "_step", exhausted)
    with pytest.raises(
        RunError, match=r"memory ran out with batch_size 256, where \d+\.\d GiB .*were in use; use a smaller one"
    ):
        train(QUICK, out=tmp_path, progress=False)


def test_outputs_that_cannot_be_written_are_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(InputError, match="is a file, but a folder is needed"):
        train(QUICK, out=tmp_path / "file")
    with pytest.raises(InputError, match="lies below a file"):
        train(QUICK, out=tmp_path / "file" / "run")
    assert (tmp_path / "file").read_text() == "mine"


def test_a_held_folder_is_refused(tmp_path: Path) -> None:
    with runs.locked(tmp_path), pytest.raises(InputError, match="another run is writing there"):
        train(QUICK, out=tmp_path)


def test_a_folder_with_a_run_is_not_written_over(tmp_path: Path) -> None:
    train(QUICK, out=tmp_path, progress=False)
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    with pytest.raises(InputError, match="already holds a run; resume it"):
        train(QUICK, out=tmp_path)
    with pytest.raises(InputError) as caught:
        train(QUICK.model_copy(update={"lr": 0.5, "model": "ConvNet3"}), out=tmp_path, resume=True)
    assert str(caught.value) == (
        f"{tmp_path}: the run began with other settings (model was 'LeNet5' and is 'ConvNet3', "
        "lr was 0.003 and is 0.5); take those, or override"
    )
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


def test_override_goes_on_with_other_settings(tmp_path: Path) -> None:
    train(QUICK, out=tmp_path, progress=False)
    first = _weights(tmp_path)
    longer = QUICK.model_copy(update={"epochs": 3, "batch_size": 100, "optimizer": "sgd"})
    run = train(longer, out=tmp_path, resume=True, override=True, progress=False)
    assert [row["step"] for row in run.metrics()] == [6, 12, 25]
    assert open_run(tmp_path).config == longer
    assert not _same(first, _weights(tmp_path))
    with pytest.raises(CheckpointError, match="holds weights of another network"):
        train(longer.model_copy(update={"model": "ConvNet3"}), out=tmp_path, resume=True, override=True)


def test_resuming_nothing_or_a_damaged_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="holds no run"):
        train(QUICK, out=tmp_path, resume=True)
    train(QUICK, out=tmp_path, progress=False)
    (tmp_path / "last.ckpt").write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"last\.ckpt: is empty \(0 bytes\); last-1\.ckpt is missing"):
        train(QUICK, out=tmp_path, resume=True)


def test_a_second_signal_stops_at_once() -> None:
    with stopping.signals() as stop:
        signal.raise_signal(signal.SIGINT)
        assert stop.number == signal.SIGINT
        with pytest.raises(Interrupted, match="at once") as caught:
            signal.raise_signal(signal.SIGINT)
    assert caught.value.exit_code == 130
