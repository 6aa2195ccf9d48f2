"""1,797 handwritten digits that come with the package: real data without a download.

Source: E. Alpaydin, C. Kaynak, "Optical recognition of handwritten digits", UCI, 1998 (CC BY 4.0); they are its test
part, 8x8 pixels of 0..16, those of `sklearn.datasets.load_digits`.
"""

import math
from functools import cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from convscope.data.embedded import DIGITS
from convscope.data.sets import ImageSet, Normalisation, Splits
from convscope.errors import DataError

CLASSES = tuple("0123456789")
NORMALISATION = Normalisation(mean=(0.3,), std=(0.32,))  # of the training pixels: 0.305 and 0.324


def digits(shape: tuple[int, ...] = (1, 32, 32)) -> Splits:
    """The digits as 1,293 training, 144 validation and 360 test pictures of `shape` (C, H, W).

    Pixels are brought to 0..1 and enlarged bilinearly; the one grey channel is repeated if C is 3.
    The split is stratified and fixed, whatever the seed of a run.
    Raises: DataError if a digit cannot be shown in that shape.

    >>> d = digits()
    >>> len(d.train), len(d.val), len(d.test), d.test.shape
    (1293, 144, 360, (1, 32, 32))
    """
    if len(shape) != 3 or shape[0] not in (1, 3) or min(shape[1:]) < 8:
        raise DataError(f"digits: cannot be shown as {'x'.join(map(str, shape))}; give 1 or 3 channels, 8x8 or larger")
    pixels, labels, part = _raw()
    images = F.interpolate(pixels, shape[1:], mode="bilinear", align_corners=False).clamp_(0, 1)
    images = images.repeat(1, shape[0], 1, 1)
    whole = ImageSet(images, labels, CLASSES, NORMALISATION)
    train, val, test = (whole.subset(torch.nonzero(part == which)[:, 0]) for which in range(3))
    return Splits(train, val, test)


def stratified(labels: Tensor, *, fraction: float, seed: int) -> tuple[Tensor, Tensor]:
    """Indices (kept, held out): about `fraction` of every class is held out, both in rising order.

    Of all samples `fraction` is held out, rounded up; each class gives its share rounded down, and those with the
    largest remainders one more.
    Raises: DataError if a class has fewer than two samples, or there are fewer held out, or kept, than classes.

    >>> kept, held = stratified(torch.tensor([0, 0, 0, 0, 1, 1, 1, 1]), fraction=0.25, seed=0)
    >>> len(kept), len(held), held[0] < 4 <= held[1]
    (6, 2, tensor(True))
    """
    _, inverse, counts = np.unique(labels.numpy(), return_inverse=True, return_counts=True)
    held_out = math.ceil(fraction * len(labels))
    if counts.min(initial=2) < 2 or not len(counts) <= held_out <= len(labels) - len(counts):
        raise DataError(f"split: too few samples to hold out {fraction:.0%} of every class ({len(labels)} samples of "
                        f"{len(counts)} classes, the smallest of {counts.min(initial=0)}); add some")  # fmt: skip
    shares = counts * held_out / len(labels)
    numbers = np.floor(shares).astype(int)
    numbers[np.argsort(numbers - shares, kind="stable")[: held_out - numbers.sum()]] += 1
    generator = np.random.Generator(np.random.Philox(key=[seed, len(labels)]))
    taken = [generator.permutation(np.flatnonzero(inverse == c))[:n] for c, n in enumerate(numbers)]
    held = np.sort(np.concatenate(taken))
    return torch.from_numpy(np.setdiff1d(np.arange(len(labels)), held)), torch.from_numpy(held)


@cache
def _raw() -> tuple[Tensor, Tensor, Tensor]:
    """Pixels in 0..1 [N,1,8,8], labels and parts [N]: 0 to learn from, 1 to watch, 2 to test on."""
    with np.load(DIGITS) as raw:
        images, labels, part = (torch.from_numpy(raw[name]) for name in ("images", "labels", "part"))
    return images.unsqueeze(1).float() / 16, labels.long(), part
