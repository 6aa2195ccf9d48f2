"""A classifier of the digits: images a second of `convscope.train` against a bare PyTorch loop.

All sides take the same pictures with the same augmentation and batch size, on as many threads, turn about, each in a
process of its own; "as tuned" is convscope with the allocator and the memory format that its start chooses, in the
precision that is faster (tried in runs of 200 steps and more). The bare loop is PyTorch as it is installed: float32,
its default layout; it has no learning-rate schedule, no watch for NaN and no checkpoints. The last number is the share
of the test digits that the side's last network names.

    python bench/train.py
    python bench/train.py --model torchvision:resnet18 --size 128 --batch 16 --threads 2 --rounds 3 --epochs 3
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F

from convscope import data, machine, models
from convscope.data.augment import draws, order
from convscope.evaluate import evaluate_run
from convscope.runs import TrainConfig
from convscope.train import train

Side = Callable[[TrainConfig], tuple[list[float], float]]


def bare(config: TrainConfig) -> tuple[list[float], float]:
    """Images a second of each epoch, and the share of the test digits that it names."""
    torch.manual_seed(config.seed)
    torch.set_num_threads(config.num_threads)
    shape = (1, 32, 32) if config.model == "LeNet5" else (3, config.image_size, config.image_size)
    splits = data.load("digits", shape=shape)
    images = splits.train
    model = models.network(config.model, num_classes=10, task="classify").train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=config.lr, weight_decay=config.weight_decay)
    rates = []
    for epoch in range(config.epochs):
        numbers = draws(len(images), seed=config.seed, epoch=epoch)
        samples = order(len(images), seed=config.seed, epoch=epoch)
        began = time.monotonic()
        for batch in samples.tensor_split(-(-len(images) // config.batch_size)):
            x, y = images.batch(batch, draws=numbers)
            loss = F.cross_entropy(model(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        rates.append(len(images) / (time.monotonic() - began))
    with torch.no_grad():
        x, y = splits.test.batch(torch.arange(len(splits.test)))
        right = sum(int((model.eval()(a).argmax(1) == b).sum()) for a, b in zip(x.split(64), y.split(64), strict=True))
    return rates, right / len(y)


def ours(config: TrainConfig) -> tuple[list[float], float]:
    """The same of a run, as it logs them."""
    with tempfile.TemporaryDirectory() as folder:
        run = train(config, out=folder, progress=False)
        return [row["images_per_second"] for row in run.metrics()], evaluate_run(folder).evaluation.accuracy


SIDES: Mapping[str, Side] = {
    "bare": bare,
    "convscope": ours,
    "as tuned": lambda c: ours(c.model_copy(update={**machine.training_defaults(), "precision": "auto"})),
}


def apart(name: str, config: TrainConfig) -> tuple[float, float]:
    """Images a second and accuracy of one side, in a process of its own."""
    environment = os.environ | {"CONVSCOPE_TUNE": str(int(name == "as tuned"))}
    command = [sys.executable, __file__, "--side", name, config.model_dump_json()]
    told = subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout
    rates, accuracy = json.loads(told.splitlines()[-1])
    return statistics.median(rates), accuracy


def main() -> None:
    """Print each side's median, the median and spread of its ratios to the bare loop, and its accuracy."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="LeNet5")
    parser.add_argument("--size", type=int, default=0, help="side of the pictures, for other networks than LeNet5")
    for name, usual in (("rounds", 7), ("epochs", 8), ("batch", 64), ("threads", 1)):
        parser.add_argument(f"--{name}", type=int, default=usual)
    asked = parser.parse_args()
    settings = {"num_threads": asked.threads, "device": "cpu", "precision": "float32"}
    config = TrainConfig(model=asked.model, image_size=asked.size, epochs=asked.epochs, batch_size=asked.batch,
                         **settings)  # fmt: skip
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in SIDES}
    for turn in range(asked.rounds):
        for name in sorted(SIDES, reverse=bool(turn % 2)):
            found[name].append(apart(name, config))
    print(f"{platform.processor() or platform.machine()}, torch {torch.__version__}, {asked.threads} threads, "
          f"{asked.model}, batch {asked.batch}, {asked.rounds} rounds of {asked.epochs} epochs")  # fmt: skip
    for name, pairs in found.items():
        ratios = [a / b for (a, _), (b, _) in zip(pairs, found["bare"], strict=True)]
        print(f"{name:10} {statistics.median(rate for rate, _ in pairs):8.0f} images/s, "
              f"{statistics.median(ratios):.3f} of bare ({min(ratios):.3f} to {max(ratios):.3f}), "
              f"{statistics.median(right for _, right in pairs):.4f} right")  # fmt: skip


if __name__ == "__main__":
    if sys.argv[1:2] == ["--side"]:
        machine.tune()
        print(json.dumps(SIDES[sys.argv[2]](TrainConfig.model_validate_json(sys.argv[3]))))
    else:
        main()
