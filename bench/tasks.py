"""The three tasks on digits and digit scenes: images a second, and how good a network is after a budget of minutes.

Speed: training steps of `convscope.train` as its command runs them (tuned start, average of the weights, clipping,
augmentation) against a plain loop over the same network and pictures as PyTorch is installed, with its own operators
alone, each in a process of its own, turn about.
Accuracy: digits as the command trains them; three minutes on scenes for detection, segmentation and the largest digit,
each with a network of its own, and nine for one network with three heads; the median over seeds on the test part. Each
finished training is a line of `runs/bench-tasks.jsonl`, and is not repeated: a run can be stopped, or made in pieces.
`CONVSCOPE_SMOKE=1` trains for one epoch each, and keeps its lines apart.

    python bench/tasks.py speed [rounds]
    python bench/tasks.py accuracy [pieces, 0: all] [minutes] [seeds]
    python bench/tasks.py table [minutes]
"""

import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from convscope import data, machine, models
from convscope.data.augment import draws, order
from convscope.data.samples import SampleSet
from convscope.data.sets import Splits
from convscope.evaluate import evaluate_run
from convscope.runs import TrainConfig
from convscope.tasks import TASKS
from convscope.train import train

TASK_NAMES = ("detect", "segment")
STEPS = 40
RESULTS = Path("runs/bench-tasks.jsonl")
SMOKE = os.environ.get("CONVSCOPE_SMOKE", "")  # epochs


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
    """Images a second of the trainer's own steps, as an epoch has them, in the precision that it settles on."""
    from convscope.train import loop

    config = TrainConfig(task=task, **machine.training_defaults())
    with tempfile.TemporaryDirectory() as folder:
        team = loop.Team(device="cpu")
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
    own = str(int(name == "convscope"))
    environment = os.environ | {"CONVSCOPE_TUNE": own, "CONVSCOPE_COMPILE": own}
    command = [sys.executable, __file__, "side", name, task]
    return float(subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout)


def speed(rounds: float = 5) -> None:
    """Print each side's median, and the median and spread of the ratio."""
    for task in TASK_NAMES:
        found: dict[str, list[float]] = {name: [] for name in SIDES}
        for turn in range(int(rounds)):
            for name in reversed(SIDES) if turn % 2 else SIDES:
                found[name].append(side(name, task))
        ratios = [a / b for a, b in zip(found["convscope"], found["plain loop"], strict=True)]
        rates = ", ".join(f"{name} {statistics.median(rate):.0f} images/s" for name, rate in found.items())
        print(f"{task:8} {rates}, ratio {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")


def goals() -> dict[str, tuple[dict[str, Any], float]]:
    """What is trained: settings, and for how much of the minutes (0: as many epochs as the command takes)."""
    apart = {"data": "scenes", "model": "small", "batch_size": 8, "augment": "crop", "ema": 0.99, "clip": 5.0}
    three = "classify,detect,segment"
    return {
        "digits": ({"task": "classify"}, 0.0),
        "detect": ({"task": "detect"}, 1.0),
        "segment": ({"task": "segment"}, 1.0),
        "largest digit": ({"task": "classify", "weight_decay": 0.05, **apart}, 1.0),
        "three heads": ({"task": three}, 3.0),  # as long as the three before it together
    }


def scores_of(found: Any) -> dict[str, float]:
    """The score that says how good a network is, by task."""
    if hasattr(found, "of"):
        return {task: score for own in found.of.values() for task, score in scores_of(own).items()}
    known = {"map": "detect", "miou": "segment", "accuracy": "classify"}
    return next({known[name]: getattr(found, name)} for name in known if hasattr(found, name))


def piece(goal: str, seed: int, minutes: float) -> dict[str, Any]:
    """One training from scratch, measured on the test part."""
    scenes = data.scenes("classify,detect")
    parts = (SampleSet(part.samples, part.classes, "classify", part.normalisation)
             for part in (scenes.train, scenes.val, scenes.test))  # fmt: skip
    splits = Splits(*parts)
    data.DATASETS["classify"]["scenes"] = (splits.train.classes, lambda shape, seed: splits)  # pyright: ignore
    settings, share = goals()[goal]
    settings = {**settings, "seed": seed, **machine.training_defaults()}
    settings |= {"minutes": share * minutes} if share else {}
    settings |= {"epochs": int(SMOKE), "minutes": 0.0} if SMOKE else {}
    with tempfile.TemporaryDirectory() as folder:
        began = time.monotonic()
        run = train(TrainConfig(**settings), out=folder, progress=False)
        seconds = time.monotonic() - began
        scores = scores_of(evaluate_run(folder).evaluation)
    facts = {"goal": goal, "seed": seed, "minutes": minutes, "smoke": bool(SMOKE), "epochs": run.config.epochs}
    return facts | {"seconds": round(seconds), "scores": scores}


def accuracy(pieces: float = 0, minutes: float = 3.0, seeds: float = 3) -> None:
    """Train what is missing in the file of results, so many pieces at most (0: all), and print what there is."""
    machine.tune()
    done = {(row["goal"], row["seed"]) for row in known(minutes)}
    missing = [(goal, seed) for seed in range(int(seeds)) for goal in goals() if (goal, seed) not in done]
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    for goal, seed in missing[: int(pieces) or None]:
        row = piece(goal, seed, minutes)
        with RESULTS.open("a") as file:
            file.write(json.dumps(row) + "\n")
        print(json.dumps(row), flush=True)
    table(minutes)


def known(minutes: float) -> list[dict[str, Any]]:
    """The results so far of trainings of that many minutes."""
    rows = map(json.loads, RESULTS.read_text().splitlines()) if RESULTS.exists() else ()
    return [row for row in rows if row["minutes"] == minutes and row["smoke"] == bool(SMOKE)]


def table(minutes: float = 3.0) -> None:
    """Print each goal's scores, their median and the epochs, and one network of three heads beside the three apart."""
    rows, medians = known(minutes), {}
    for goal in goals():
        own = [row for row in rows if row["goal"] == goal]
        for task in own[0]["scores"] if own else ():
            values = [row["scores"][task] for row in own]
            medians[goal, task] = statistics.median(values)
            shown = ", ".join(f"{v:.4f}" for v in values)
            print(f"{goal:14} {task:9} median {medians[goal, task]:.4f} of {len(values)} ({shown}), "
                  f"{own[0]['epochs']} epochs, {own[0]['seconds']} s")  # fmt: skip
    for alone, task in (("largest digit", "classify"), ("detect", "detect"), ("segment", "segment")):
        if (alone, task) in medians and ("three heads", task) in medians:
            more = medians["three heads", task] - medians[alone, task]
            print(f"three heads    {task:9} {more:+.4f} beside a network apart")


if __name__ == "__main__":
    if sys.argv[1:2] == ["side"]:
        machine.tune()
        print(SIDES[sys.argv[2]](sys.argv[3]))
    else:
        print(
            platform.processor() or platform.machine(), "torch", torch.__version__, torch.get_num_threads(), "threads"
        )
        what, *numbers = sys.argv[1:] or ["speed"]
        {"speed": speed, "accuracy": accuracy, "table": table}[what](*map(float, numbers))
