"""Affine augmentation as a pure function of (seed, epoch, sample).

Nothing is remembered between batches: a run that is stopped and resumed sees the very same pictures.
"""

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

ROTATION = 12.0  # degrees, to either side
SHIFT = 0.10  # of the picture's side, to either side
SCALE = 0.12  # 0.88 to 1.12, each axis apart
SHEAR = 10.0  # degrees, to either side


def draws(num_samples: int, *, seed: int, epoch: int) -> Tensor:
    """The random numbers [num_samples, 6] of an epoch, uniform in -1..1, from a counter-based generator.

    Source: Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3" (Philox).

    >>> bool((draws(5, seed=0, epoch=3) == draws(9, seed=0, epoch=3)[:5]).all())
    True
    """
    generator = np.random.Generator(np.random.Philox(key=[seed, epoch]))
    return torch.from_numpy(generator.uniform(-1, 1, (num_samples, 6)).astype(np.float32))


def order(num_samples: int, *, seed: int, epoch: int) -> Tensor:
    """The order [num_samples] in which an epoch visits the samples.

    >>> sorted(order(4, seed=0, epoch=1).tolist())
    [0, 1, 2, 3]
    """
    generator = np.random.Generator(np.random.Philox(key=[seed, epoch]).jumped())
    return torch.from_numpy(generator.permutation(num_samples))


def affine(x_NCHW: Tensor, draws_N6: Tensor) -> Tensor:
    """Each picture rotated, sheared, scaled and shifted by its own six numbers in -1..1; what comes in is 0.

    >>> x = torch.rand(1, 1, 5, 5)
    >>> torch.allclose(affine(x, torch.zeros(1, 6)), x, atol=1e-6)
    True
    """
    angle, shear = (draws_N6[:, i] * math.radians(d) for i, d in ((0, ROTATION), (1, SHEAR)))
    wide, high = 1 + draws_N6[:, 2] * SCALE, 1 + draws_N6[:, 3] * SCALE
    cos, sin, tan = angle.cos(), angle.sin(), shear.tan()
    rows = [
        cos / wide, (cos * tan - sin) / wide, 2 * SHIFT * draws_N6[:, 4],
        sin / high, (sin * tan + cos) / high, 2 * SHIFT * draws_N6[:, 5],
    ]  # fmt: skip
    theta = torch.stack(rows, 1).view(-1, 2, 3)
    grid = F.affine_grid(theta, list(x_NCHW.shape), align_corners=False)
    return F.grid_sample(x_NCHW, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
