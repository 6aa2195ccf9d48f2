"""The loop over steps and epochs, from its checkpoint to its next.

Nothing random is remembered: the order of samples is a function of (seed, epoch), the augmentation of
(seed, epoch, sample), dropout of (seed, step), and the learning rate of the position. A checkpoint therefore
holds the weights, their average, the optimiser, the position, and what was logged so far.
"""

import copy
import json
import math
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor

from convscope import data, files, machine, models
from convscope.data.augment import draws
from convscope.data.streamed import expect
from convscope.errors import InputError, RunError
from convscope.runs import folder as runs
from convscope.runs.config import TrainConfig, differences
from convscope.runs.folder import Run
from convscope.runs.progress import Progress, shown
from convscope.train import parts, trial
from convscope.train.board import board
from convscope.train.stopping import Interrupted, Stop, plain_errors, signals
from convscope.train.team import Team

SECONDS_BETWEEN_SAVES = 10.0
VAL_BATCH = 64
POSITION = ("epoch", "batch", "step", "elapsed", "sums", "rows")


def train(
    config: TrainConfig, *, out: Path | str, resume: bool = False, override: bool = False, progress: bool = True
) -> Run:
    """Train a network and leave a run folder at `out`.

    `resume` goes on from the last checkpoint; `override` lets it go on with other settings than it began with.
    `progress` shows how far it is on stderr.
    Raises: InputError if the folder, the settings, the model or the data do not serve; RunError if the loss is
    not finite or memory runs out; Interrupted after SIGINT or SIGTERM.
    """
    folder = Path(out)
    with ExitStack() as stack:
        stack.enter_context(plain_errors(config, folder))
        device = machine.best_device(config.device).type
        team = stack.enter_context(Team(device=device))

        def begun() -> tuple[TrainConfig, dict[str, Any] | None]:
            stack.enter_context(runs.locked(files.writable_folder(folder)))
            return _before(folder, config, resume=resume, override=override)

        settings, before = team.led(begun)
        stack.enter_context(torch.random.fork_rng(devices=team.gpus))
        stack.enter_context(torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True))
        stop = stack.enter_context(signals())
        training = team.together(lambda: Training(settings, folder=folder, team=team, before=before, override=override))
        stack.enter_context(threads(training.num_threads))
        training.prepare(measure=before is None and settings.minutes > 0)
        epochs, quiet = training.config.epochs, not progress or not team.leads
        bar = stack.enter_context(shown(steps=epochs * training.num_batches, epochs=epochs, quiet=quiet))
        training.fit(bar, stop=stop)
        return training.about


class Training:
    """One run's state, and the loop over it."""

    def __init__(
        self, config: TrainConfig, *, folder: Path, team: Team, before: dict[str, Any] | None, override: bool
    ) -> None:
        self.config, self.folder, self.before, self.override = config, folder, before, override
        self.team = team
        classes = data.class_names(config.data, task=config.task)
        torch.manual_seed(config.seed)
        self.model = models.network(config.model, num_classes=len(classes), task=config.task)
        self.splits = parts.load_data(self.model, config)
        self.task = parts.make_task(config, self.splits.train)
        self.work = parts.check_fits(self.model, self.splits, self.task) * config.batch_size
        self.num_threads = config.num_threads or (1 if self.work < trial.SMALL_WORK else 0)
        self.num_batches = -(-len(self.splits.train) // config.batch_size)
        self.epoch = self.batch = self.step = 0
        self.elapsed = 0.0  # seconds of the epoch that is under way
        self.sums: dict[str, float] = {}  # of that epoch, over samples
        self.rows: list[dict[str, Any]] = []
        self.left: list[str] = []
        if before is not None:
            runs.load_weights(self.model, before["model"], source=str(folder / runs.LAST))
        elif config.weights:
            self.left = parts.begin_with(self.model, config.weights)
        self.frozen = parts.frozen(self.model) if config.freeze else []
        self.format = torch.channels_last if config.channels_last else torch.contiguous_format
        if before is None:
            parts.check_readable(self.splits, rank=team.rank, num_processes=team.size)
        parts.check_shares(self.splits, num_batches=self.num_batches, num_processes=team.size)
        wanted, done = config.tensorboard and team.leads, before["step"] if before else 0
        self.board = board(folder, after=done) if wanted else lambda row: None

    @property
    def fabric(self) -> Fabric:
        """What places, casts and joins; another one for each precision."""
        return self.team.fabric

    def prepare(self, *, measure: bool) -> None:
        """Everything up to the first step; with `measure`, as many epochs as the minutes allow."""
        begun = time.monotonic()
        if self.fabric.device.type == "cpu":
            machine.large_pages()
        self._settle()
        if measure:
            spent = time.monotonic() - begun
            self.config = self.config.model_copy(update={"epochs": trial.epochs_that_fit(self, spent=spent)})
        self._set_up()
        if self.before is not None:
            self._continue(self.before, override=self.override)
        self.about = Run(
            self.folder, self.config, self.splits.train.classes, self.splits.train.shape,
            self.splits.train.normalisation, getattr(self.splits.train, "categories", {}),
        )  # fmt: skip
        if self.team.leads:
            parts.check_room(self.folder, self.model, self.config, resumed=self.before is not None)
            runs.start(self.about)
            files.write_whole(self.folder / runs.METRICS, "".join(map(_json_line, self.rows)))

    def _settle(self) -> None:
        """Decide what was left to be decided by measuring."""
        if self.config.precision == "auto":
            self.config = self.config.model_copy(update={"precision": trial.faster_precision(self)})

    def _set_up(self) -> None:
        self.team.compute_in(self.config.precision)
        model = self.model.to(self.fabric.device).to(memory_format=self.format)  # pyright: ignore[reportCallIssue]
        self.optimizer = parts.optimizer(model, self.config)
        self.module = self.fabric.setup(model)
        self.quick = parts.quick(model, precision=self.config.precision, device=self.fabric.device)
        flats, decay = self.optimizer.flats, self.config.ema
        self.average = parts.Average(model, decay=decay, flats=flats) if decay else None
        self.judged = self.model if self.average is None else self.average.inner

    def fit(self, bar: Progress, *, stop: Stop) -> None:
        """Every epoch that is left, then the weights to use."""
        self.saved = time.monotonic()
        while self.epoch < self.config.epochs and not self._no_longer_better():
            self._train_epoch(bar, stop)
            row = self._finish_epoch()
            if self.team.leads:
                with (self.folder / runs.METRICS).open("a") as file:
                    file.write(_json_line(row))
            bar.epoch(row)
            self.board(row)
            if time.monotonic() - self.saved > SECONDS_BETWEEN_SAVES and not self.config.save_every_steps:
                self._save()
            if self._stopped(stop) and self.epoch < self.config.epochs:
                self._interrupt(stop)
        self._save()
        if self.team.leads:
            runs.save_model(self.folder, self.judged)

    def _train_epoch(self, bar: Progress, stop: Stop) -> None:
        config = self.config
        batches, numbers = self._batches(self.epoch), self._draws()
        expect(self.splits.train, torch.cat([self.team.share(b) for b in batches[self.batch :]]))
        self._training_mode()
        began = time.monotonic() - self.elapsed
        for at in range(self.batch, self.num_batches):
            done = (self.epoch + (at + 0.5) / self.num_batches) / config.epochs
            self._step(batches[at], numbers=numbers, rate=parts.learning_rate(config, done=done))
            self.batch, self.step = at + 1, self.step + 1
            self.elapsed = time.monotonic() - began
            bar.step(self.step)
            if self.batch < self.num_batches:  # an epoch's end is saved with its row
                if self._stopped(stop):
                    self._interrupt(stop)
                if config.save_every_steps and self.step % config.save_every_steps == 0:
                    self._save()

    def _batches(self, epoch: int) -> tuple[Tensor, ...]:
        return parts.batches(self.splits.train, seed=self.config.seed, epoch=epoch, number=self.num_batches)

    def _draws(self) -> Tensor | None:
        if self.config.augment == "none":
            return None
        return draws(len(self.splits.train), seed=self.config.seed, epoch=self.epoch)

    def _training_mode(self) -> None:
        self.module.train()
        for part in self.frozen:
            part.eval()

    def _step(self, samples: Tensor, *, numbers: Tensor | None, rate: float) -> dict[str, float] | None:
        """One step of the optimiser; the mean losses of its batch, None if they were not finite and it was skipped."""
        config = self.config
        parts.seed((config.seed << 32) + self.step * self.team.size + self.team.rank, device=self.fabric.device)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group.get("share", 1.0)
        with self.quick:
            values = self._gradients(samples, numbers)
        if values is None:
            return None
        if config.clip:
            self.optimizer.clip(config.clip)
        self.optimizer.step()
        if self.average is not None:
            self.average.follow(self.step + 1)
        for name, value in (values | {"samples": 1.0}).items():
            self.sums[name] = self.sums.get(name, 0.0) + value * len(samples)
        return values

    def _gradients(self, samples: Tensor, numbers: Tensor | None) -> dict[str, float] | None:
        """Gradients of a batch, part after part, and its mean losses; None if they are not finite and skipped.

        Each process takes its share of the batch; DDP makes the mean over processes, where the sum is wanted.
        """
        self.optimizer.zero_grad()
        values: dict[str, float] = {}
        count = min(self.config.accumulate, len(samples) // self.team.size)
        for at, part in enumerate(self.team.share(samples).tensor_split(count), start=1):
            x, y = self.splits.train.batch(part, draws=numbers)
            x, y = x.to(self.fabric.device, memory_format=self.format), self.fabric.to_device(y)
            with self.fabric.no_backward_sync(self.module, enabled=at < count):  # pyright: ignore[reportArgumentType]
                losses, share = self.task.loss(self.module(x), y), len(part) / len(samples)
                told = self.team.added({name: share * value.item() for name, value in losses.items()})
                values = {name: values.get(name, 0.0) + value for name, value in told.items()}
                if not math.isfinite(values["loss"]):
                    if self.config.nan == "skip":
                        return None
                    raise self.team.agreed(RunError(self._not_finite(values["loss"], samples)))
                self.fabric.backward(share * self.team.size * losses["loss"])
        return values

    def _finish_epoch(self) -> dict[str, Any]:
        count = self.sums.pop("samples", 0.0)
        row: dict[str, Any] = {"epoch": self.epoch + 1, "step": self.step}
        row |= {f"train_{name}": total / count for name, total in self.sums.items()}
        began = time.monotonic()
        row |= {f"val_{name}": value for name, value in self.validate().items()}
        row["lr"] = self.optimizer.param_groups[-1]["lr"]  # of the head
        row["images_per_second"] = round(len(self.splits.train) / self.elapsed, 1)
        row["seconds"] = round(self.elapsed + time.monotonic() - began, 3)
        self.rows.append(row)
        self.epoch, self.batch, self.elapsed, self.sums = self.epoch + 1, 0, 0.0, {}
        return row

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """The loss and the metrics of the validation part."""
        self.judged.eval()
        self.team.as_the_leader(self.judged)
        metrics = self.task.metrics().to(self.fabric.device)
        val, loss = self.splits.val, 0.0
        own = self.team.share(torch.arange(len(val)))
        expect(val, own)
        for indices in own.split(VAL_BATCH):
            x, y = val.batch(indices)
            x, y = x.to(self.fabric.device, memory_format=self.format), self.fabric.to_device(y)
            with self.fabric.autocast():
                outputs = self.judged(x)
            loss += self.task.loss(outputs, y)["loss"].item() * len(indices)
            metrics.update(self.task.decode(outputs), y)
        told = {name: value.item() for name, value in metrics.compute().items()}  # over all processes
        return {"loss": self.team.added({"loss": loss})["loss"] / len(val)} | told

    def losses_at(self, rates: Sequence[float]) -> list[float]:
        """The loss at each rate in turn, a step each; fewer where it is no longer finite."""
        self._settle()
        self._set_up()
        self._training_mode()
        losses: list[float] = []
        for at, rate in enumerate(rates):
            epoch, batch = divmod(at, self.num_batches)
            values = self._step(self._batches(epoch)[batch], numbers=self._draws(), rate=rate)
            if values is None:
                break
            losses.append(values["loss"])
        return losses

    def _no_longer_better(self) -> bool:
        scores = [row[f"val_{self.task.score}"] for row in self.rows]
        return bool(self.config.patience and scores) and (
            len(scores) - 1 - max(range(len(scores)), key=lambda at: (scores[at], -at)) >= self.config.patience
        )

    @contextmanager
    def rehearsing(self, precision: str) -> Iterator[None]:
        """Steps in here are taken by a copy of the network, and leave nothing behind."""
        model, config = self.model, self.config
        self.model, self.config = copy.deepcopy(model), config.model_copy(update={"precision": precision})
        self._set_up()
        self._training_mode()
        try:
            yield
        finally:
            self.model, self.config, self.sums = model, config, {}

    def rehearse(self, number: int) -> list[float]:
        """The seconds of so many steps of the first epoch, whose learning rate is 0."""
        batches, numbers, seconds = self._batches(0), self._draws(), []
        for at in range(number):
            began = time.monotonic()
            self._step(batches[at % self.num_batches], numbers=numbers, rate=0.0)
            if self.team.gpus:  # whose work goes on when the step is back
                torch.cuda.synchronize()
            seconds.append(time.monotonic() - began)
        return seconds

    def _save(self) -> None:
        if not all(value.isfinite().all() for value in self.model.state_dict().values()):
            raise self.team.agreed(RunError(
                f"train: weights became NaN or infinite by step {self.step}; nothing was saved over the last good "
                f"checkpoint in {self.folder}; use a smaller lr"
            ))  # fmt: skip
        if not self.team.leads:
            return
        state = {key: getattr(self, key) for key in POSITION}
        state |= {"samples": len(self.splits.train), "num_batches": self.num_batches}
        state |= {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}
        state |= {"average": self.average.inner.state_dict() if self.average is not None else {}}
        runs.save_checkpoint(self.folder, state)
        self.saved = time.monotonic()

    def _continue(self, before: dict[str, Any], *, override: bool) -> None:
        for key in POSITION:
            setattr(self, key, before[key])
        same = (before["samples"], before["num_batches"]) == (len(self.splits.train), self.num_batches)
        if not same and not override:
            raise self.team.agreed(InputError(
                f"{self.folder}: the run began with {before['samples']} training pictures, now there are "
                f"{len(self.splits.train)}; bring the old data back, or override"
            ))  # fmt: skip
        if not same:  # the batches are cut anew, so the epoch under way starts over
            self.batch, self.elapsed, self.sums = 0, 0.0, {}
        if before["optimizer_name"] == self.config.optimizer and parts.fits(self.optimizer, before["optimizer"]):
            self.optimizer.load_state_dict(before["optimizer"])
        if self.average is not None and before.get("average"):
            self.average.inner.load_state_dict(before["average"])

    def _stopped(self, stop: Stop) -> bool:
        """Whether a signal came, to whichever process: all stop at the same step."""
        number = self.team.highest(stop.number)
        if number:  # a signal that came in between is told at the next step
            stop.number = number
        return number != 0

    def _interrupt(self, stop: Stop) -> None:
        self._save()
        name = signal.Signals(stop.number).name
        raise self.team.agreed(Interrupted(
            f"{self.folder}: stopped by {name} and saved at step {self.step}; resume to go on", number=stop.number
        ))  # fmt: skip

    def _not_finite(self, loss: float, samples: Tensor) -> str:
        kept = "the last good checkpoint was kept" if runs.is_begun(self.folder) else "nothing had been saved"
        return (
            f"train: the loss became {loss} at epoch {self.epoch + 1}, step {self.step + 1}, on the training samples "
            f"{', '.join(map(str, samples.tolist()))}; {kept} in {self.folder}; use a smaller lr, or nan=skip"
        )


def _before(
    folder: Path, config: TrainConfig, *, resume: bool, override: bool
) -> tuple[TrainConfig, dict[str, Any] | None]:
    """The settings, and the checkpoint to go on from, once it is known that this may be done."""
    if not resume:
        if runs.is_begun(folder):
            raise InputError(f"{folder}: already holds a run; resume it, or give another --out")
        return config, None
    run = runs.open_run(folder)
    if config.minutes and config.minutes == run.config.minutes:  # what they came to was measured then
        config = config.model_copy(update={"epochs": run.config.epochs})
    if config.precision == "auto":
        config = config.model_copy(update={"precision": run.config.precision})
    changed = differences(run.config, config)
    if changed and not override:
        listed = ", ".join(f"{key} was {old!r} and is {new!r}" for key, (old, new) in changed.items())
        raise InputError(f"{folder}: the run began with other settings ({listed}); take those, or override")
    before = runs.load_checkpoint(folder)
    return config, before and before | {"optimizer_name": run.config.optimizer}


def _json_line(row: dict[str, Any]) -> str:
    finite = {key: value if math.isfinite(value) else None for key, value in row.items()}
    return json.dumps(finite, allow_nan=False) + "\n"


@contextmanager
def threads(number: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(number or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)
