"""Weights in the order in which the compiled kernels read them.

Shape suffixes: O output channels, I input channels of a group, HW the kernel's axes.
"""

from torch import Tensor


def pack_grouped(w_OIHW: Tensor, *, lanes: int) -> Tensor:
    """Blocks of `lanes` output channels: O/lanes x H x W x I x lanes."""
    o, i, h, w = w_OIHW.shape
    return w_OIHW.reshape(o // lanes, lanes, i, h, w).permute(0, 3, 4, 2, 1).contiguous()


def pack_panels(w_OI11: Tensor, *, panel: int) -> Tensor:
    """Panels of output channels, of a 1x1 kernel: 1 x O/panel x I x panel."""
    o, i = w_OI11.shape[:2]
    return w_OI11.reshape(1, o // panel, panel, i).transpose(2, 3).contiguous()
