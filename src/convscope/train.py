"""Training that can be stopped at any moment and resumed bit for bit. The only file that knows the trainer library.

Nothing random is remembered: the order of samples is a function of (seed, epoch), the augmentation of
(seed, epoch, sample), dropout of (seed, step), and the learning rate of the position. A checkpoint therefore
holds the weights, the optimiser, the position, and what was logged so far.
"""

import json
import math
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from convscope import data, files, machine, models
from convscope.data.augment import draws, order
from convscope.data.sets import Splits
from convscope.errors import InputError, ModelError, RunError
from convscope.graph import record
from convscope.inspect import summarize
from convscope.runs import folder as runs
from convscope.runs.config import TrainConfig, differences
from convscope.runs.folder import Run
from convscope.runs.progress import Progress, shown
from convscope.tasks import TASKS, Task

SECONDS_BETWEEN_SAVES = 10.0
VAL_BATCH = 256
SMALL_WORK = 1e8  # MACs of a forward pass; below it threads wait for each other longer than they work
PRECISIONS = {"float32": "32-true", "bfloat16": "bf16-mixed"}


class Interrupted(RunError):  # noqa: N818 - it is no error
    """A run that a signal stopped, after its step was finished and saved."""

    def __init__(self, message: str, *, number: int) -> None:
        super().__init__(message)
        self.exit_code = 128 + number


def train(
    config: TrainConfig, *, out: Path | str, resume: bool = False, override: bool = False, progress: bool = True
) -> Run:
    """Train a network and leave a run folder at `out`.

    `resume` goes on from the last checkpoint; `override` lets it go on with other settings than it began with.
    `progress` shows how far it is on stderr.
    Raises: InputError if the folder, the settings, the model or the data do not serve; RunError if the loss is
    not finite or memory runs out; Interrupted after SIGINT or SIGTERM.
    """
    device = machine.best_device(config.device).type
    folder = files.writable_folder(out)
    with ExitStack() as stack:
        stack.enter_context(runs.locked(folder))
        before = _before(folder, config, resume=resume, override=override)
        stack.enter_context(torch.random.fork_rng(devices=[0] if device == "cuda" else []))
        stack.enter_context(torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True))
        stop = stack.enter_context(_signals())
        training = _Training(config, folder=folder, device=device, before=before, override=override)
        stack.enter_context(_threads(training.num_threads))
        steps = config.epochs * training.num_batches
        bar = stack.enter_context(shown(steps=steps, epochs=config.epochs, quiet=not progress))
        stack.enter_context(_plain_errors(config))
        training.fit(bar, stop=stop)
        return training.about


def learning_rate(config: TrainConfig, *, done: float) -> float:
    """The learning rate when the part `done` (0..1) of a run is over: a linear rise, then a cosine to zero.

    >>> c = TrainConfig(lr=1.0, warmup=0.5)
    >>> [round(learning_rate(c, done=d), 6) for d in (0.25, 0.5, 0.75, 1.0)]
    [0.5, 1.0, 0.5, 0.0]
    """
    if done < config.warmup:
        return config.lr * done / config.warmup
    return config.lr * 0.5 * (1 + math.cos(math.pi * (done - config.warmup) / (1 - config.warmup)))


class _Stop:
    """The signal that asked a run to stop; 0 is none."""

    number = 0


class _Training:
    """One run's state, and the loop over it."""

    def __init__(
        self, config: TrainConfig, *, folder: Path, device: str, before: dict[str, Any] | None, override: bool
    ) -> None:
        from lightning_fabric import Fabric

        self.config, self.folder = config, folder
        classes = data.class_names(config.data)
        torch.manual_seed(config.seed)
        self.model = models.build(config.model, num_classes=len(classes))
        self.splits = _data(self.model, config)
        self.task: Task = TASKS[config.task](len(classes))
        work = _check_fits(self.model, self.splits) * config.batch_size
        self.num_threads = config.num_threads or (1 if work < SMALL_WORK else 0)
        self.about = Run(folder, config, classes, self.splits.train.shape, self.splits.train.normalisation)
        self.num_batches = -(-len(self.splits.train) // config.batch_size)
        self.epoch = self.batch = self.step = 0
        self.elapsed = 0.0  # seconds of the epoch that is under way
        self.sums: dict[str, float] = {}  # of that epoch, over samples
        self.rows: list[dict[str, Any]] = []
        if before is not None:
            runs.load_weights(self.model, before["model"], source=str(folder / runs.LAST))
        self.format = torch.channels_last if config.channels_last else torch.contiguous_format
        self.fabric = Fabric(accelerator=device, devices=1, precision=PRECISIONS[config.precision])  # pyright: ignore[reportArgumentType]
        self.module, self.optimizer = self.fabric.setup(
            self.model.to(memory_format=self.format),  # pyright: ignore[reportCallIssue]
            _optimizer(self.model, config),
        )
        if before is not None:
            self._continue(before, override=override)
        runs.start(self.about)
        files.write_whole(folder / runs.METRICS, "".join(map(_json_line, self.rows)))

    def fit(self, bar: Progress, *, stop: _Stop) -> None:
        """Every epoch that is left, then the weights to use."""
        self.saved = time.monotonic()
        while self.epoch < self.config.epochs:
            self._train_epoch(bar, stop)
            row = self._finish_epoch()
            with (self.folder / runs.METRICS).open("a") as file:
                file.write(_json_line(row))
            bar.epoch(row)
            if time.monotonic() - self.saved > SECONDS_BETWEEN_SAVES and not self.config.save_every_steps:
                self._save()
            if stop.number and self.epoch < self.config.epochs:
                self._interrupt(stop)
        self._save()
        runs.save_model(self.folder, self.model)

    def _train_epoch(self, bar: Progress, stop: _Stop) -> None:
        config, train = self.config, self.splits.train
        samples = order(len(train), seed=config.seed, epoch=self.epoch)
        batches = samples.tensor_split(self.num_batches)
        numbers = draws(len(train), seed=config.seed, epoch=self.epoch) if config.augment == "affine" else None
        self.module.train()
        began = time.monotonic() - self.elapsed
        for at in range(self.batch, self.num_batches):
            self._step(*train.batch(batches[at], draws=numbers), samples=batches[at], at=at)
            self.batch, self.step = at + 1, self.step + 1
            self.elapsed = time.monotonic() - began
            bar.step(self.step)
            if self.batch < self.num_batches:  # an epoch's end is saved with its row
                if stop.number:
                    self._interrupt(stop)
                if config.save_every_steps and self.step % config.save_every_steps == 0:
                    self._save()

    def _step(self, x: Tensor, y: Tensor, *, samples: Tensor, at: int) -> None:
        config = self.config
        _seed((config.seed << 32) + self.step, device=self.fabric.device)
        rate = learning_rate(config, done=(self.epoch + (at + 0.5) / self.num_batches) / config.epochs)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        x, y = x.to(self.fabric.device, memory_format=self.format), y.to(self.fabric.device)
        losses = self.task.loss(self.module(x), y)
        values = {name: value.item() for name, value in losses.items()}
        if not math.isfinite(values["loss"]):
            if config.nan == "skip":
                return
            raise RunError(self._not_finite(values["loss"], samples))
        self.optimizer.zero_grad()
        self.fabric.backward(losses["loss"])
        self.optimizer.step()
        for name, value in (values | {"samples": 1.0}).items():
            self.sums[name] = self.sums.get(name, 0.0) + value * len(samples)

    def _finish_epoch(self) -> dict[str, Any]:
        count = self.sums.pop("samples", 0.0)
        row: dict[str, Any] = {"epoch": self.epoch + 1, "step": self.step}
        row |= {f"train_{name}": total / count for name, total in self.sums.items()}
        began = time.monotonic()
        row |= {f"val_{name}": value for name, value in self._validate().items()}
        row["lr"] = self.optimizer.param_groups[0]["lr"]
        row["images_per_second"] = round(len(self.splits.train) / self.elapsed, 1)
        row["seconds"] = round(self.elapsed + time.monotonic() - began, 3)
        self.rows.append(row)
        self.epoch, self.batch, self.elapsed, self.sums = self.epoch + 1, 0, 0.0, {}
        return row

    @torch.no_grad()
    def _validate(self) -> dict[str, float]:
        self.module.eval()
        metrics = self.task.metrics().to(self.fabric.device)
        val, loss = self.splits.val, 0.0
        for indices in torch.arange(len(val)).split(VAL_BATCH):
            x, y = (t.to(self.fabric.device) for t in val.batch(indices))
            outputs = self.module(x)
            loss += self.task.loss(outputs, y)["loss"].item() * len(indices)
            metrics.update(self.task.decode(outputs), y)
        return {"loss": loss / len(val)} | {name: value.item() for name, value in metrics.compute().items()}

    def _save(self) -> None:
        if not all(value.isfinite().all() for value in self.model.state_dict().values()):
            raise RunError(
                f"train: weights became NaN or infinite by step {self.step}; nothing was saved over the last good "
                f"checkpoint in {self.folder}; use a smaller lr"
            )
        state = {key: getattr(self, key) for key in ("epoch", "batch", "step", "elapsed", "sums", "rows")}
        state |= {"samples": len(self.splits.train), "num_batches": self.num_batches}
        state |= {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}
        runs.save_checkpoint(self.folder, state)
        self.saved = time.monotonic()

    def _continue(self, before: dict[str, Any], *, override: bool) -> None:
        for key in ("epoch", "batch", "step", "elapsed", "sums", "rows"):
            setattr(self, key, before[key])
        same = (before["samples"], before["num_batches"]) == (len(self.splits.train), self.num_batches)
        if not same and not override:
            raise InputError(
                f"{self.folder}: the run began with {before['samples']} training pictures, now there are "
                f"{len(self.splits.train)}; bring the old data back, or override"
            )
        if not same:  # the batches are cut anew, so the epoch under way starts over
            self.batch, self.elapsed, self.sums = 0, 0.0, {}
        if len(before["optimizer"]["state"]) and before["optimizer_name"] == self.config.optimizer:
            self.optimizer.load_state_dict(before["optimizer"])

    def _interrupt(self, stop: _Stop) -> None:
        self._save()
        name = signal.Signals(stop.number).name
        raise Interrupted(f"{self.folder}: stopped by {name} and saved at step {self.step}; resume to go on",
                          number=stop.number)  # fmt: skip

    def _not_finite(self, loss: float, samples: Tensor) -> str:
        kept = "the last good checkpoint was kept" if runs.is_begun(self.folder) else "nothing had been saved"
        return (
            f"train: the loss became {loss} at epoch {self.epoch + 1}, step {self.step + 1}, on the training samples "
            f"{', '.join(map(str, samples.tolist()))}; {kept} in {self.folder}; use a smaller lr, or nan=skip"
        )


def _before(folder: Path, config: TrainConfig, *, resume: bool, override: bool) -> dict[str, Any] | None:
    """The checkpoint to go on from, once it is known that this may be done."""
    if not resume:
        if runs.is_begun(folder):
            raise InputError(f"{folder}: already holds a run; resume it, or give another --out")
        return None
    run = runs.open_run(folder)
    changed = differences(run.config, config)
    if changed and not override:
        listed = ", ".join(f"{key} was {old!r} and is {new!r}" for key, (old, new) in changed.items())
        raise InputError(f"{folder}: the run began with other settings ({listed}); take those, or override")
    before = runs.load_checkpoint(folder)
    return before and before | {"optimizer_name": run.config.optimizer}


def _data(model: nn.Module, config: TrainConfig) -> Splits:
    shape = models.input_shape(model, config.model) or (3, 224, 224)
    return data.load(config.data, shape=shape, seed=config.seed)


def _check_fits(model: nn.Module, splits: Splits) -> int:
    """The MACs of one picture, once it is known that the network takes it and gives a logit for each class."""
    x, _ = splits.val.batch(torch.tensor([0]))
    recording = record(model, x)
    found, wanted = tuple(v.shape for v in recording.outputs), ((1, len(splits.train.classes)),)
    if found != wanted:
        given = ", ".join(map(_by, found))
        raise ModelError(f"model: gives {given} for one picture, but {_by(wanted[0])} logits are needed")
    return summarize(recording).total.macs


def _by(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))


def _optimizer(model: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    options = {"lr": config.lr, "weight_decay": config.weight_decay, "fused": True}
    if config.optimizer == "sgd":
        return torch.optim.SGD(model.parameters(), momentum=0.9, nesterov=True, **options)
    return torch.optim.AdamW(model.parameters(), **options)


def _seed(number: int, *, device: torch.device) -> None:
    """`torch.manual_seed` for the device in use alone: the whole takes 0.8 ms, a tenth of a step of LeNet5."""
    torch.default_generator.manual_seed(number)
    if device.type == "cuda":
        torch.cuda.manual_seed(number)


def _json_line(row: dict[str, Any]) -> str:
    finite = {key: value if math.isfinite(value) else None for key, value in row.items()}
    return json.dumps(finite, allow_nan=False) + "\n"


@contextmanager
def _threads(number: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(number or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def _signals() -> Iterator[_Stop]:
    """Note the first SIGINT or SIGTERM; a second stops at once."""
    stop = _Stop()

    def hear(number: int, frame: object) -> None:
        if stop.number:
            raise Interrupted("train: stopped at once by a second signal; the last checkpoint was kept", number=number)
        stop.number = number

    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {number: signal.signal(number, hear) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _plain_errors(config: TrainConfig) -> Iterator[None]:
    try:
        yield
    except (RuntimeError, ValueError, MemoryError) as error:
        text = str(error)
        memory = isinstance(error, MemoryError | torch.OutOfMemoryError) or "allocate memory" in text
        if memory:
            raise RunError(f"train: memory ran out with batch_size {config.batch_size}; use a smaller one") from error
        if "more than 1 value per channel" in text:
            raise InputError("train: batch normalisation needs two pictures a step; use a larger batch_size") from error
        raise
