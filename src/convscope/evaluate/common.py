"""What every evaluation does: a network in evaluation mode, its outputs batch by batch, and intervals."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

RESAMPLES = 1000


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
