"""Detection and segmentation on digit scenes: images a second, and how good a network is after a budget of minutes.

Speed: training steps of `convscope.train` as its command runs them (tuned start, average of the weights, clipping,
augmentation) against a plain loop over the same network and pictures as PyTorch is installed, each in a process of its
own, turn about.
Accuracy: `--minutes` from scratch, the median over seeds on the test part.

    python bench/tasks.py speed [rounds]
    python bench/tasks.py accuracy [minutes] [seeds]
"""

import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time

import torch

from convscope import data, machine, models
from convscope.data.augment import draws, order
from convscope.evaluate import evaluate_run
from convscope.runs import TrainConfig
from convscope.tasks import TASKS
from convscope.train import train

TASK_NAMES = ("detect", "segment")
STEPS = 12


def bare(task: str) -> float:
    """Images a second of a plain loop: forward, backward and step, in the default layout."""
    config = TrainConfig(task=task)
    images = data.load(config.data, shape=(3, 128, 128), task=config.task).train
    torch.manual_seed(0)
    model = models.network(config.model, num_classes=len(images.classes), task=task).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=config.lr, weight_decay=config.weight_decay)
    loss_of, numbers = TASKS[task](len(images.classes)).loss, draws(len(images), seed=0, epoch=0)
    batches = order(len(images), seed=0, epoch=0).split(config.batch_size)
    for step, batch in enumerate(batches[: STEPS + 2]):
        if step == 2:
            began = time.monotonic()
        x, y = images.batch(batch, draws=numbers)
        loss = loss_of(model(x), y)["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return STEPS * config.batch_size / (time.monotonic() - began)


def ours(task: str) -> float:
    """Images a second of the trainer's own steps, as an epoch has them."""
    from convscope.train import loop

    config = TrainConfig(task=task, **machine.training_defaults())
    with tempfile.TemporaryDirectory() as folder:
        team = loop.Team(device="cpu", precision=config.precision)
        training = loop.Training(config, folder=loop.Path(folder), team=team, before=None, override=False)
        training.prepare(measure=False)
        training._training_mode()
        batches = order(len(training.splits.train), seed=0, epoch=0).tensor_split(training.num_batches)
        numbers = training._draws()
        for step in range(STEPS + 2):
            if step == 2:
                began = time.monotonic()
            training._step(batches[step], numbers=numbers, rate=config.lr)
        return STEPS * config.batch_size / (time.monotonic() - began)


SIDES = {"plain loop": bare, "convscope": ours}


def side(name: str, task: str) -> float:
    """Images a second of one side, in a process of its own."""
    environment = os.environ | {"CONVSCOPE_TUNE": str(int(name == "convscope"))}
    command = [sys.executable, __file__, "side", name, task]
    return float(subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout)


def speed(rounds: int = 5) -> None:
    """Print each side's median, and the median and spread of the ratio."""
    for task in TASK_NAMES:
        found: dict[str, list[float]] = {name: [] for name in SIDES}
        for turn in range(rounds):
            for name in reversed(SIDES) if turn % 2 else SIDES:
                found[name].append(side(name, task))
        ratios = [a / b for a, b in zip(found["convscope"], found["plain loop"], strict=True)]
        rates = ", ".join(f"{name} {statistics.median(rate):.0f} images/s" for name, rate in found.items())
        print(f"{task:8} {rates}, ratio {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")


def accuracy(minutes: float = 3.0, seeds: int = 3) -> None:
    """Print the test score of each seed and their median."""
    machine.tune()
    for task in TASK_NAMES:
        scores = []
        for seed in range(seeds):
            config = TrainConfig(task=task, minutes=minutes, seed=seed, **machine.training_defaults())
            with tempfile.TemporaryDirectory() as folder:
                began = time.monotonic()
                run = train(config, out=folder, progress=False)
                seconds = time.monotonic() - began
                found = evaluate_run(folder).evaluation
            scores.append(found.map if task == "detect" else found.miou)
            print(f"{task:8} seed {seed}: {scores[-1]:.3f} after {run.config.epochs} epochs in {seconds:.0f} s")
        print(f"{task:8} median of {seeds}: {statistics.median(scores):.3f}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["side"]:
        machine.tune()
        print(SIDES[sys.argv[2]](sys.argv[3]))
    else:
        print(
            platform.processor() or platform.machine(), "torch", torch.__version__, torch.get_num_threads(), "threads"
        )
        what, *numbers = sys.argv[1:] or ["speed"]
        {"speed": speed, "accuracy": accuracy}[what](*map(int, numbers))
