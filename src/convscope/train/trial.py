"""What is settled by trying: the precision of the products, and how many epochs fit into so many minutes."""

import statistics
import time
from typing import TYPE_CHECKING, Any

import torch

from convscope.clock import cache
from convscope.layers.fast.training import digest

if TYPE_CHECKING:
    from convscope.train.loop import Training

SMALL_WORK = 1e8  # MACs of a step's forward pass; below it threads wait for each other longer than they work
FEW_STEPS = 200  # of a run that is over before a trial pays
ROUNDS = 3
STEPS = (1, 2)  # of a round: before the clock starts, and while it runs
GAIN = 0.9  # of the time: what bfloat16 must come to
MEASURED_STEPS = (4, 12)  # for the epochs: before the clock starts, and while it runs


def faster_precision(training: "Training") -> str:
    """bfloat16 where steps of this network on this machine are clearly faster in it, else float32.

    They are tried in turns, once: what it came to is kept, so that the same run later is the same run.
    """
    config = training.config
    if training.work < SMALL_WORK or (not config.minutes and config.epochs * training.num_batches < FEW_STEPS):
        return "float32"
    key = _key(training)
    found = training.fabric.broadcast(cache.load("precision", key))
    if found not in ("float32", "bfloat16"):
        found = training.fabric.broadcast(_tried(training))
        if training.team.leads:
            cache.save("precision", key, found)
    return found


def _tried(training: "Training") -> str:
    seconds = dict[str, list[float]](float32=[], bfloat16=[])
    for _ in range(ROUNDS):
        for precision, own in seconds.items():
            with training.rehearsing(precision):
                own += training.rehearse(sum(STEPS))[STEPS[0] :]
    return "bfloat16" if min(seconds["bfloat16"]) < GAIN * min(seconds["float32"]) else "float32"


def _key(training: "Training") -> dict[str, Any]:
    """What a choice of precision holds for."""
    names = ("batch_size", "accumulate", "channels_last", "optimizer", "freeze", "ema")
    on_gpu = training.fabric.device.type == "cuda"
    return {
        **cache.here(),
        "device": torch.cuda.get_device_name() if on_gpu else "cpu",
        "processes": training.team.size,
        "kernels": "" if on_gpu else digest(),  # which compiles them
        "network": repr(training.model),
        "shape": list(training.splits.train.shape),
        "settings": {name: getattr(training.config, name) for name in names},
    }


def epochs_that_fit(training: "Training", *, spent: float) -> int:
    """How many epochs the minutes allow, less the seconds spent, by the time of some steps of a copy of the network."""
    config, begun = training.config, time.monotonic()
    with training.rehearsing(config.precision):
        seconds = training.rehearse(sum(MEASURED_STEPS))[MEASURED_STEPS[0] :]
        began = time.monotonic()
        training.validate()
        now = time.monotonic()
    an_epoch = statistics.median(seconds) * training.num_batches + now - began
    left = 60 * config.minutes - spent - (now - begun)
    return training.fabric.broadcast(max(1, int(left / an_epoch)))
