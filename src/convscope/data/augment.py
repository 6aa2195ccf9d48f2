"""Augmentation as a pure function of (seed, epoch, sample).

Nothing is remembered between batches: a run that is stopped and resumed sees the very same pictures.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from convscope.data.streamed import BLOCK, WINDOW
from convscope.layers.fast.cropping import bilinear, nearest

ROTATION = 12.0  # degrees, to either side
SHIFT = 0.10  # of the picture's side, to either side
SCALE = 0.12  # 0.88 to 1.12, each axis apart
SHEAR = 10.0  # degrees, to either side

ZOOM = 1.25  # a crop shows objects at 1/1.25 to 1.25 of their size
LIGHT = 0.2  # of contrast and of brightness, to either side


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


def mixed(num_samples: int, *, seed: int, epoch: int) -> Tensor:
    """The order of an epoch for samples that lie one behind the other in few files: blocks of neighbours in any order,
    and eight blocks at a time mixed, so that what is read lies in few places.

    >>> found = mixed(5120, seed=0, epoch=1)
    >>> sorted(found.tolist()) == list(range(5120)), len(set((found[:2048] // 256).tolist()))
    (True, 8)
    """
    generator = np.random.Generator(np.random.Philox(key=[seed, epoch]).jumped(2))
    blocks = [np.arange(at, min(at + BLOCK, num_samples)) for at in range(0, num_samples, BLOCK)]
    turn = generator.permutation(len(blocks))
    windows = [np.concatenate([blocks[b] for b in turn[at : at + WINDOW]]) for at in range(0, len(blocks), WINDOW)]
    return torch.from_numpy(np.concatenate([generator.permutation(window) for window in windows]))


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


def crop(inputs: Any, draws: Sequence[float], *, flip: bool = False) -> Any:
    """Picture, boxes and mask (torchvision's tv_tensors, in any container) through one window of whole pixels.

    draws: six numbers in -1..1: zoom, place across, place down, two that are for `light`, and whether to mirror.
    Where the window reaches beyond the picture there is 0. Boxes (x1 y1 x2 y2) are told whole, also where they reach
    beyond the window. torchvision's kernels are called without its dispatcher, which takes longer than they do.
    """
    from torch.utils._pytree import tree_map_only
    from torchvision.tv_tensors import BoundingBoxes, Mask, TVTensor, wrap

    mirrored = flip and draws[5] > 0

    def through(value: TVTensor) -> TVTensor:
        size = value.canvas_size if isinstance(value, BoundingBoxes) else (value.shape[-2], value.shape[-1])
        place, plain = _window(size, draws[:3]), value.as_subclass(Tensor)
        way = _boxes_through if isinstance(value, BoundingBoxes) else _mask_through if isinstance(value, Mask) else None
        return wrap((way or _picture_through)(plain, place, size, mirrored), like=value)  # pyright: ignore

    return tree_map_only(TVTensor, through, inputs)


Place = tuple[int, int, int, int]  # top, left, rows, columns


def _window(size: tuple[int, int], draws: Sequence[float]) -> Place:
    (height, width), zoom = size, ZOOM ** draws[0]
    rows, columns = round(height / zoom), round(width / zoom)
    top, left = round((height - rows) * (1 + draws[2]) / 2), round((width - columns) * (1 + draws[1]) / 2)
    return top, left, rows, columns


def _picture_through(x: Tensor, place: Place, size: tuple[int, int], mirrored: bool) -> Tensor:
    from torchvision.transforms.v2 import functional as V

    own = bilinear(x, place, size)
    seen = V.resize_image(V.crop_image(x, *place), list(size)) if own is None else own
    return seen.flip(-1) if mirrored else seen


def _mask_through(x: Tensor, place: Place, size: tuple[int, int], mirrored: bool) -> Tensor:
    from torchvision.transforms.v2 import functional as V

    seen = nearest(x[None], place, size)
    if seen is None:  # torchvision's own way for masks ("nearest") moves them by up to half a pixel
        seen = F.interpolate(V.crop_image(x[None], *place)[None], list(size), mode="nearest-exact")[0]
    seen = seen[0]
    return seen.flip(-1) if mirrored else seen


def _boxes_through(x: Tensor, place: Place, size: tuple[int, int], mirrored: bool) -> Tensor:
    (top, left, rows, columns), (height, width) = place, size
    seen = (x - x.new_tensor([left, top] * 2)) * x.new_tensor([width / columns, height / rows] * 2)
    return torch.stack([width - seen[:, 2], seen[:, 1], width - seen[:, 0], seen[:, 3]], 1) if mirrored else seen


def light(x_NCHW: Tensor, draws_N6: Tensor) -> Tensor:
    """Each picture in another light: contrast about its mean, and brightness, by its fourth and fifth number.

    >>> x = torch.rand(1, 3, 5, 5)
    >>> torch.allclose(light(x, torch.zeros(1, 6)), x)
    True
    """
    contrast, brightness = (LIGHT * draws_N6[:, i].view(-1, 1, 1, 1) for i in (3, 4))
    middle = x_NCHW.mean((1, 2, 3), keepdim=True)
    return x_NCHW.mul(1 + contrast).add_(brightness - contrast * middle).clamp_(0, 1)
