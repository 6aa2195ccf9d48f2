"""Which learning rate to begin with: a short run in which it rises until the loss does."""

import math
import tempfile
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from convscope import machine
from convscope.errors import RunError
from convscope.files import new_figure
from convscope.runs.config import TrainConfig
from convscope.table import Column, Table
from convscope.train.loop import Training, threads
from convscope.train.team import Team

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LOWEST, HIGHEST, STEPS = 1e-6, 1.0, 120
FAINT, LINE, BLUE, ORANGE = "#6b7785", "#d5dae1", "#2f6fbf", "#d9741a"
KEPT = 0.9  # of the smoothed loss, each step
BEYOND = 4.0  # times the lowest smoothed loss, at which the search ends


@dataclass(frozen=True, slots=True)
class Tried:
    """One step: its rate, the loss of its batch, and the loss smoothed over the steps before."""

    lr: float
    loss: float
    smoothed: float


@dataclass(frozen=True, slots=True)
class RateSearch:
    """Every step, and the rate at which the smoothed loss falls fastest."""

    steps: tuple[Tried, ...]
    lr: float

    def table(self) -> Table:
        """Every tenth step, and the rate to take."""
        columns = (Column("lr", "lr"), Column("loss", "loss"), Column("smoothed", "smoothed"))
        notes = (f"the loss falls fastest at lr {self.lr:.2g}",)
        return Table(columns, tuple(map(asdict, self.steps[::10])), title="Learning rates", notes=notes)

    def data(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self)

    def picture(self) -> "Figure":
        """The loss over the rates."""
        figure = new_figure(7, 3.6)
        axes = figure.subplots()
        rates, smoothed = [t.lr for t in self.steps], [t.smoothed for t in self.steps]
        axes.semilogx(rates, [t.loss for t in self.steps], color=LINE, lw=1, label="each batch")
        axes.semilogx(rates, smoothed, color=BLUE, lw=2, label="smoothed")
        axes.axvline(self.lr, color=ORANGE, ls="--", lw=1, label=f"falls fastest: {self.lr:.2g}")
        room = 0.3 * (smoothed[0] - min(smoothed))
        axes.set(xlabel="learning rate", ylabel="loss", ylim=(min(smoothed) - room, smoothed[0] + 2 * room))
        axes.spines[["top", "right"]].set_visible(False)
        axes.spines[["left", "bottom"]].set_color(LINE)
        axes.tick_params(colors=FAINT, labelsize=9, which="both")
        axes.legend(frameon=False, fontsize=9)
        return figure


def find_lr(config: TrainConfig) -> RateSearch:
    """Train a fresh network for a moment, its rate rising from 1e-6 to 1, and see where the loss falls fastest.

    Nothing is kept. Raises: as `train`; RunError if the loss falls nowhere.
    Source: Smith 2017, Cyclical learning rates for training neural networks (arXiv:1506.01186), 3.3.
    """
    config = config.model_copy(update={"nan": "skip"})
    rates = [LOWEST * (HIGHEST / LOWEST) ** (at / (STEPS - 1)) for at in range(STEPS)]
    with ExitStack() as stack:
        team = stack.enter_context(Team(device=machine.best_device(config.device).type))
        stack.enter_context(torch.random.fork_rng(devices=team.gpus))
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        training = Training(config, folder=folder, team=team, before=None, override=False)
        stack.enter_context(threads(training.num_threads))
        return judged(rates, training.losses_at(rates))


def judged(rates: list[float], losses: list[float]) -> RateSearch:
    """What the losses say of the rates: the steepest slope of the smoothed loss over the logarithm of the rate.

    To fall back from a peak is no progress: what counts is the lowest value so far.

    >>> falling = [3.0] * 40 + [3.0 - 0.2 * i for i in range(10)] + [1.0] * 10 + [9.0]
    >>> found = judged([10 ** (i / 10 - 6) for i in range(61)], falling)
    >>> 1e-2 < found.lr < 1e-1
    True
    """
    steps: list[Tried] = []
    mean, weight = 0.0, 0.0
    for lr, loss in zip(rates, losses, strict=False):
        mean, weight = KEPT * mean + (1 - KEPT) * loss, KEPT * weight + (1 - KEPT)
        steps.append(Tried(lr, loss, mean / weight))
        if mean / weight > BEYOND * min(t.smoothed for t in steps):
            break
    lowest, rising = list(accumulate((t.smoothed for t in steps), min)), [math.log(t.lr) for t in steps]
    slopes = [
        (lowest[at + 2] - lowest[at]) / (rising[at + 2] - rising[at]) for at in range(len(steps) - 2)
    ]  # between the neighbours of a step
    if not slopes or min(slopes) >= 0:
        raise RunError("train: the loss falls at no learning rate from 1e-6 to 1; look at the data with "
                       "`convscope data show`")  # fmt: skip
    return RateSearch(tuple(steps), steps[slopes.index(min(slopes)) + 1].lr)
