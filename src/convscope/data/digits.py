"""The 1,797 handwritten digits that come with scikit-learn: real data without a download.

Source: E. Alpaydin, C. Kaynak, "Optical recognition of handwritten digits", UCI, 1998 (CC BY 4.0);
the copy in `sklearn.datasets.load_digits` is its test part, 8x8 pixels of 0..16.
"""

from functools import cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from convscope.data.sets import ImageSet, Normalisation, Splits
from convscope.errors import DataError

CLASSES = tuple("0123456789")
NORMALISATION = Normalisation(mean=(0.3,), std=(0.32,))  # of the training pixels: 0.305 and 0.324


def digits(shape: tuple[int, ...] = (1, 32, 32)) -> Splits:
    """The digits as 1,293 training, 144 validation and 360 test pictures of `shape` (C, H, W).

    Pixels are brought to 0..1 and enlarged bilinearly; the one grey channel is repeated if C is 3.
    The split is stratified and fixed (seed 0), whatever the seed of a run.
    Raises: DataError if a digit cannot be shown in that shape.

    >>> d = digits()
    >>> len(d.train), len(d.val), len(d.test), d.test.shape
    (1293, 144, 360, (1, 32, 32))
    """
    if len(shape) != 3 or shape[0] not in (1, 3) or min(shape[1:]) < 8:
        raise DataError(f"digits: cannot be shown as {'x'.join(map(str, shape))}; give 1 or 3 channels, 8x8 or larger")
    pixels, labels = _raw()
    images = F.interpolate(pixels, shape[1:], mode="bilinear", align_corners=False).clamp_(0, 1)
    images = images.repeat(1, shape[0], 1, 1)
    rest, test = stratified(labels, fraction=0.2, seed=0)
    train, val = stratified(labels[rest], fraction=0.1, seed=0)
    whole = ImageSet(images, labels, CLASSES, NORMALISATION)
    return Splits(whole.subset(rest[train]), whole.subset(rest[val]), whole.subset(test))


def stratified(labels: Tensor, *, fraction: float, seed: int) -> tuple[Tensor, Tensor]:
    """Indices (kept, held out): about `fraction` of every class is held out, both in rising order.

    Raises: DataError if a class has fewer than two samples, or there are fewer held out than classes.
    """
    from sklearn.model_selection import train_test_split

    try:
        kept, held = train_test_split(
            np.arange(len(labels)), test_size=fraction, random_state=seed, stratify=labels.numpy()
        )
    except ValueError as error:
        raise DataError(
            f"split: too few samples to hold out {fraction:.0%} of every class ({error}); add some"
        ) from error
    return torch.from_numpy(np.sort(kept)), torch.from_numpy(np.sort(held))


@cache
def _raw() -> tuple[Tensor, Tensor]:
    from sklearn.datasets import load_digits

    raw = load_digits()
    pixels = torch.from_numpy(np.asarray(raw.images, np.float32) / 16).unsqueeze(1)  # pyright: ignore[reportAttributeAccessIssue]
    return pixels, torch.from_numpy(np.asarray(raw.target, np.int64))  # pyright: ignore[reportAttributeAccessIssue]
