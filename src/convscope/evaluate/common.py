"""What every evaluation does: a network in evaluation mode, its outputs batch by batch, and intervals."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from convscope.data.streamed import expect
from convscope.table import Column, Table

RESAMPLES = 1000
Result = TypeVar("Result", covariant=True)


class Judge(Protocol[Result]):
    """What looks at a network's outputs batch by batch, and in the end says how good they are."""

    def take(self, outputs: Any, targets: Any) -> None: ...

    def result(self) -> Result: ...


def judged(model: nn.Module, images: Any, judge: Judge[Result], *, batch_size: int) -> Result:
    """The result of a judge, once the network has run over every picture of a set, on its own device."""
    with evaluating(model) as device:
        expect(images, torch.arange(len(images)))
        for at in torch.arange(len(images)).split(batch_size):
            x, targets = images.batch(at)
            judge.take(model(x.to(device)), targets)
    return judge.result()


@contextmanager
def evaluating(model: nn.Module) -> Iterator[torch.device]:
    """The model in evaluation mode without gradients, and its device; its modes come back afterwards."""
    modes = [(module, module.training) for module in model.modules()]
    first = next(model.parameters(), None)
    try:
        with torch.no_grad():
            model.eval()
            yield first.device if first is not None else torch.device("cpu")
    finally:
        for module, mode in modes:
            module.training = mode


def bootstrap(
    num_images: int, statistic: Callable[[Tensor], Tensor], *, resamples: int = RESAMPLES, share: float = 0.95
) -> tuple[float, float]:
    """The interval that holds the middle `share` of a statistic over sets of pictures drawn with replacement.

    `statistic` takes how often each picture was drawn, float64 [R, num_images], and gives [R] values.
    Source: Efron 1979, Bootstrap methods: another look at the jackknife (the percentile interval).

    >>> bootstrap(4, lambda w_RP: w_RP @ torch.ones(4, dtype=torch.float64) / 4)
    (1.0, 1.0)
    """
    generator = np.random.Generator(np.random.Philox(key=[0, num_images]))
    drawn = generator.multinomial(num_images, np.full(num_images, 1 / num_images), size=resamples)
    values = statistic(torch.from_numpy(drawn).double())
    low, high = values.nanquantile(torch.tensor([(1 - share) / 2, (1 + share) / 2], dtype=torch.float64)).tolist()
    return low, high


def percent(share: float | None) -> float | None:
    """A share in 0..1 as a percentage; None stays None."""
    return None if share is None else 100 * share


def known(value: Tensor) -> float | None:
    """A number, or None where there was nothing to measure (NaN)."""
    return None if value.isnan() else value.item()


def told(name: str, share: float, interval: tuple[float, float], num_images: int) -> str:
    """A measure with its interval.

    >>> told("mIoU", 0.5, (0.4, 0.625), 12)
    'mIoU 50.00 % (95 % interval 40.00 to 62.50 %) over 12 pictures'
    """
    low, high = (100 * bound for bound in interval)
    return f"{name} {100 * share:.2f} % (95 % interval {low:.2f} to {high:.2f} %) over {num_images} pictures"


def table_of(
    per_class: Sequence[Any], columns: Sequence[Column], *, mean: Mapping[str, float | None], notes: tuple[str, ...]
) -> Table:
    """A row a class, shares in %, what is counted in whole numbers, and the means as the total."""
    shares = {c.key for c in columns if c.unit == "%"}
    rows = tuple(
        {"name": c.name}
        | {k.key: percent(getattr(c, k.key)) if k.key in shares else getattr(c, k.key) for k in columns}
        for c in per_class
    )
    total: dict[str, Any] = {"name": "mean"} | {key: percent(value) for key, value in mean.items()}
    total |= {c.key: sum(getattr(p, c.key) for p in per_class) for c in columns if c.key not in shares}
    return Table((Column("name", "class"), *columns), rows, title="Evaluation", total=total, notes=notes)
