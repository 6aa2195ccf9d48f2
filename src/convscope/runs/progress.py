"""How a run tells where it is: a bar on a terminal, a line an epoch elsewhere; always on stderr."""

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

SECONDS_BETWEEN = 0.1


@dataclass(frozen=True, slots=True)
class Progress:
    """Two things to call: `step(steps done)` and `epoch(row of metrics.jsonl)`."""

    step: Callable[[int], object]
    epoch: Callable[[Mapping[str, Any]], object]


def line(row: Mapping[str, Any], *, epochs: int) -> str:
    """An epoch in one line.

    >>> line({"epoch": 2, "train_loss": 0.51234, "val_accuracy": 0.9375, "images_per_second": 12345.6}, epochs=60)
    'epoch 2/60  train_loss 0.5123  val_accuracy 0.9375  images_per_second 12346'
    """
    parts = [f"{k} {v:.0f}" if abs(v) >= 1000 else f"{k} {v:.4g}" for k, v in row.items() if k not in ("epoch", "step")]
    return "  ".join([f"epoch {row['epoch']}/{epochs}", *parts])


@contextmanager
def shown(*, steps: int, epochs: int, quiet: bool) -> Iterator[Progress]:
    """Progress for a run of that many steps in all."""
    if quiet:
        yield Progress(lambda done: None, lambda row: None)
    elif not sys.stderr.isatty():
        yield Progress(lambda done: None, lambda row: print(line(row, epochs=epochs), file=sys.stderr, flush=True))
    else:
        with _bar(steps, epochs) as bar:
            yield bar


@contextmanager
def _bar(steps: int, epochs: int) -> Iterator[Progress]:
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    columns = (BarColumn(), TextColumn("{task.description}"), TimeRemainingColumn())
    with Bars(*columns, console=Console(stderr=True)) as bars:
        bar = bars.add_task("epoch 1", total=steps)
        told = 0.0

        def step(done: int) -> None:
            nonlocal told
            if (now := time.monotonic()) - told > SECONDS_BETWEEN:
                told = now
                bars.update(bar, completed=done)

        def epoch(row: Mapping[str, Any]) -> None:
            short = {k: v for k, v in row.items() if k in ("epoch", "train_loss") or k.startswith("val_")}
            bars.update(bar, completed=row["step"], description=line(short, epochs=epochs))

        yield Progress(step, epoch)
