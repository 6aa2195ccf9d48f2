"""Weights in the order in which the compiled kernels read them.

Shape suffixes: O output channels, I input channels of a group, HW the kernel's axes, P Winograd's points.
"""

import torch
from torch import Tensor

# Winograd's F(4, 3) on weights: 3 taps become 6 points (Lavin & Gray 2015, arXiv:1509.09308).
_POINTS = torch.tensor(
    [
        [1 / 4, 0, 0],
        [-1 / 6, -1 / 6, -1 / 6],
        [-1 / 6, 1 / 6, -1 / 6],
        [1 / 24, 1 / 12, 1 / 6],
        [1 / 24, -1 / 12, 1 / 6],
        [0, 0, 1],
    ],
    dtype=torch.float64,
)


def pack_grouped(w_OIHW: Tensor, *, lanes: int) -> Tensor:
    """Blocks of `lanes` output channels: O/lanes x H x W x I x lanes."""
    o, i, h, w = w_OIHW.shape
    return w_OIHW.reshape(o // lanes, lanes, i, h, w).permute(0, 3, 4, 2, 1).contiguous()


def pack_panels(w_POI: Tensor, *, panel: int) -> Tensor:
    """Panels of output channels: P x O/panel x I x panel."""
    p, o, i = w_POI.shape
    return w_POI.reshape(p, o // panel, panel, i).transpose(2, 3).contiguous()


def winograd_points(w_OIHW: Tensor) -> Tensor:
    """The weights at Winograd's points, worked out in float64: P x O x I, P = 36 or 6."""
    w = w_OIHW.double()
    if w.shape[2] == 3:
        w = torch.einsum("ph,oihw->oipw", _POINTS, w)
    if w.shape[3] == 3:
        w = torch.einsum("pw,oihw->oihp", _POINTS, w)
    return w.flatten(2).permute(2, 0, 1).to(w_OIHW.dtype)
