"""LeNet5 on the digits: images a second of `convscope.train` against a bare PyTorch loop.

All sides take the same pictures with the same augmentation and batch size, on as many threads, turn about in one
process; "as tuned" is convscope in the memory format that its start chooses. The bare loop has no learning-rate
schedule, no watch for NaN, no accuracy, and no checkpoints.

    python bench/train.py [rounds] [epochs a round] [batch size] [threads]
"""

import platform
import statistics
import sys
import tempfile
import time

import torch
import torch.nn.functional as F

from convscope import data, machine, models
from convscope.data.augment import draws, order
from convscope.runs import TrainConfig
from convscope.train import train


def bare(config: TrainConfig) -> list[float]:
    """Images a second of each epoch."""
    torch.manual_seed(config.seed)
    torch.set_num_threads(config.num_threads)
    images = data.load("digits", shape=(1, 32, 32)).train
    model = models.build("LeNet5").train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=config.lr, weight_decay=config.weight_decay, fused=True)
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
    return rates


def ours(config: TrainConfig) -> list[float]:
    """Images a second of each epoch, as the run logs them."""
    with tempfile.TemporaryDirectory() as folder:
        return [row["images_per_second"] for row in train(config, out=folder, progress=False).metrics()]


def main(rounds: int = 7, epochs: int = 8, batch_size: int = 64, num_threads: int = 1) -> None:
    """Print each side's median, and the median and spread of its ratios to the bare loop."""
    config = TrainConfig(epochs=epochs, batch_size=batch_size, num_threads=num_threads, device="cpu")
    tuned = machine.training_defaults()
    sides = {"bare": bare, "convscope": ours, "as tuned": lambda c: ours(c.model_copy(update=tuned))}
    found: dict[str, list[float]] = {name: [] for name in sides}
    for side in sides.values():
        side(config.model_copy(update={"epochs": 2}))
    for turn in range(rounds):
        for name in sorted(sides, reverse=bool(turn % 2)):
            found[name].append(statistics.median(sides[name](config)))
    print(f"{platform.processor() or platform.machine()}, torch {torch.__version__}, {num_threads} threads, "
          f"allocator {machine.tune().allocator}, batch {batch_size}, {rounds} rounds of {epochs} epochs")  # fmt: skip
    for name, rates in found.items():
        ratios = [a / b for a, b in zip(rates, found["bare"], strict=True)]
        print(f"{name:10} {statistics.median(rates):8.0f} images/s, {statistics.median(ratios):.3f} of bare "
              f"({min(ratios):.3f} to {max(ratios):.3f})")  # fmt: skip


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
