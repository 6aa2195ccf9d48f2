"""Windows of pictures of bytes at another size, bit for bit as PyTorch makes them."""

import ctypes

import torch
from torch import Tensor

from convscope.layers.fast.training import AT, NUMBER, YES, at, function, library

_SIZES = ("channels", "height", "width", "top", "left", "rows", "columns", "out_height", "out_width")


class _Crop(ctypes.Structure):
    _fields_ = [("x", AT), ("y", AT), *((name, NUMBER) for name in _SIZES)]


def bilinear(x_CHW: Tensor, place: tuple[int, int, int, int], size: tuple[int, int]) -> Tensor | None:
    """The window (top, left, rows, columns) of x, bilinear with antialiasing; None where the kernel does not serve.

    >>> x = torch.arange(12, dtype=torch.uint8).view(1, 3, 4)
    >>> found = bilinear(x, (1, 0, 2, 4), (2, 4))
    >>> found is None or torch.equal(found, x[:, 1:])
    True
    """
    told = _told(x_CHW, place, size)
    return told[1] if told and function("crop_bilinear", _Crop, result=YES)(told[0]) else None


def nearest(x_CHW: Tensor, place: tuple[int, int, int, int], size: tuple[int, int]) -> Tensor | None:
    """The same of the nearest pixel."""
    told = _told(x_CHW, place, size)
    if told is None:
        return None
    function("crop_nearest", _Crop)(told[0])
    return told[1]


def _told(x: Tensor, place: tuple[int, int, int, int], size: tuple[int, int]) -> tuple[_Crop, Tensor] | None:
    plain = x.dtype == torch.uint8 and x.device.type == "cpu" and x.dim() == 3 and x.is_contiguous() and x.numel() > 0
    if not plain or min(*place[2:], *size) < 1 or library() is None:
        return None
    y = x.new_empty((len(x), *size))
    return _Crop(at(x), at(y), *x.shape, *place, *size), y
