"""A short training of a changed network, which has the network that it was made from as its teacher."""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from convscope import tasks
from convscope.data.augment import draws, order
from convscope.engines import named_outputs
from convscope.errors import ModelError
from convscope.runs import TrainConfig

RATE, RISE = 2e-3, 0.05  # the highest learning rate, and the share of the time in which it rises


@dataclass(frozen=True, slots=True, eq=False)
class Teaching:
    """What a changed network learns from: the pictures and settings of the run, and for how long at most; `told` is
    given the share that is done."""

    images: Any
    config: TrainConfig
    seconds: float
    told: Callable[[float], object] = lambda share: None


def distil(student: nn.Module, teacher: nn.Module, teaching: Teaching) -> nn.Module:
    """The student, trained in place on the task and on what the teacher gives for the same pictures.

    It takes as many epochs as the run had, or `teaching.seconds` if that is less. The loss is the task's own, and for
    each output the mean squared difference from the teacher's as a share of its variance.
    Raises: ModelError if the loss is not finite.
    Source: Ba & Caruana 2014 (arXiv:1312.6184): regression on the outputs before softmax.
    """
    config, images = teaching.config, teaching.images
    if config.flip:
        images = replace(images, flip=True)
    task = tasks.make(config.task, len(images.classes))
    steps = -(-len(images) // config.batch_size)
    optimizer = torch.optim.AdamW(student.parameters(), lr=RATE, weight_decay=config.weight_decay, fused=True)
    began, student = time.monotonic(), student.train()
    for step in range(config.epochs * steps):
        done = max(step / (config.epochs * steps), (time.monotonic() - began) / teaching.seconds)
        if done >= 1:
            break
        teaching.told(done)
        for group in optimizer.param_groups:
            group["lr"] = RATE * min(done / RISE, 0.5 + 0.5 * math.cos(math.pi * done))
        x, y = _batch(images, config, step // steps, step % steps)
        optimizer.zero_grad()
        with torch.enable_grad():
            given = student(x)
            loss = task.loss(given, y)["loss"] + unlikeness(named_outputs(given), named_outputs(teacher(x)))
        if not loss.isfinite():
            raise ModelError("the loss of its re-training is not finite")
        loss.backward()
        nn.utils.clip_grad_norm_(student.parameters(), config.clip or math.inf)
        optimizer.step()
    return student.eval()


def unlikeness(own: Mapping[str, Tensor], teacher: Mapping[str, Tensor]) -> Tensor:
    """The mean squared difference of what is learnt, as a share of the variance of the teacher's; summed over outputs.

    >>> unlikeness({"a": torch.tensor([0.0, 2.0], requires_grad=True)}, {"a": torch.tensor([1.0, 3.0])}).item()
    1.0
    """
    learnt = [(own[name], t.detach()) for name, t in teacher.items() if own[name].requires_grad]
    return torch.stack([F.mse_loss(o, t) / t.var(unbiased=False).clamp_min(1e-12) for o, t in learnt]).sum()


def _batch(images: Any, config: TrainConfig, epoch: int, at: int) -> tuple[Tensor, Any]:
    """Pictures that the run did not see in this order or so varied: its epochs are counted on."""
    turn = {"seed": config.seed, "epoch": config.epochs + epoch}
    samples = order(len(images), **turn).split(config.batch_size)[at]
    return images.batch(samples, draws=None if config.augment == "none" else draws(len(images), **turn))
