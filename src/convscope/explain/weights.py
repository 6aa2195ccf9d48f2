"""The kernels of a convolution as a picture: in colour where they read RGB, else as signed grids on one scale."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn

from convscope.errors import InputError, nearest
from convscope.explain.capture import as_model, find_layer
from convscope.explain.pictures import MAX_MAPS, Scale, grid, png_bytes
from convscope.explain.sheets import Panel, page, zoomed
from convscope.graph import record
from convscope.table import Column, Table, number

DOWN, ACROSS = 16, 32  # kernels and input channels that one picture shows at most


@dataclass(frozen=True, slots=True, eq=False)
class Kernels:
    """The weights of one layer: output channels x input channels of the group x height x width."""

    layer: str
    weights: np.ndarray

    def picture(self) -> Image.Image:
        """Colour pictures for three input channels, one map a kernel for one, else kernels down and inputs across."""
        w_OIHW = self.weights
        if w_OIHW.shape[1] == 3:
            return self._colour()
        title = f"{self.layer}, kernels"
        return grid(w_OIHW[:, 0], title=title) if w_OIHW.shape[1] == 1 else self._mosaic(title)

    def table(self) -> Table:
        """One row: the sizes, and the range of the weights."""
        names = ("layer", "kernels", "channels", "size", "smallest", "largest")
        outputs, inputs, *size = self.weights.shape
        row: dict[str, Any] = {"layer": self.layer, "kernels": outputs, "channels": inputs, "size": tuple(size)}
        row |= {"smallest": float(self.weights.min()), "largest": float(self.weights.max())}
        return Table(tuple(Column(n, n) for n in names), (row,))

    def _repr_png_(self) -> bytes:
        return png_bytes(self.picture())

    def _colour(self) -> Image.Image:
        drawn, limit = self.weights[:MAX_MAPS], Scale.of(self.weights).limit or 1.0
        share = np.nan_to_num((drawn / limit + 1) / 2).clip(0, 1)
        pixels = np.rint(255 * share.transpose(0, 2, 3, 1)).astype(np.uint8)
        panels = [Panel(zoomed(p, 84), str(i)) for i, p in enumerate(pixels)]
        of = (
            f"{len(drawn)} of {len(self.weights)} kernels"
            if len(drawn) < len(self.weights)
            else f"{len(drawn)} kernels"
        )
        line = f"{of} in red, green and blue · half of a colour is 0, none {number(-limit)}, all {number(limit)}"
        rows = [panels[i : i + 8] for i in range(0, len(panels), 8)]
        return page(rows, title=f"{self.layer}, kernels", shape="x".join(map(str, self.weights.shape)), lines=(line,))

    def _mosaic(self, title: str) -> Image.Image:
        w_OIHW = self.weights[:DOWN, :ACROSS]
        scale = Scale(Scale.of(self.weights).limit, signed=True)
        outputs, inputs, height, width = w_OIHW.shape
        zoom = max(1, min(48 // max(height, width), 960 // (inputs * width)))
        tiles = scale.paint(w_OIHW).repeat(zoom, axis=2).repeat(zoom, axis=3)
        for width_, grey in ((1, 200), (2, 255)):  # a fine frame, and a gap
            tiles = np.pad(tiles, ((0, 0), (0, 0), (width_, width_), (width_, width_), (0, 0)), constant_values=grey)
        h, w = tiles.shape[2:4]
        whole = tiles.transpose(0, 2, 1, 3, 4).reshape(outputs * h, inputs * w, 3)
        down, across = (
            f"{n} of {all_}" if n < all_ else f"{n}"
            for n, all_ in zip((outputs, inputs), self.weights.shape[:2], strict=True)
        )
        line = f"{down} kernels down, {across} input channels across, one scale"
        shape = "x".join(map(str, self.weights.shape))
        return page([[Panel(whole, "", scale)]], title=title, shape=shape, lines=(line,))


def first_convolution(model: nn.Module, *, shape: tuple[int, ...]) -> str:
    """The layer that convolves first; shape: C, H, W of the model's input.

    Raises: InputError if none does.

    >>> first_convolution(nn.Sequential(nn.ReLU(), nn.Conv2d(3, 8, 5)), shape=(3, 9, 9))
    '1'
    """
    for op in record(model, as_model(model, torch.zeros(1, *shape))).ops:
        if op.name == "convolution" and op.module:
            return op.module
    raise InputError("kernels: the model has no layer that convolves; give one that has")


def kernels(model: nn.Module, layer: str, *, shape: tuple[int, ...]) -> Kernels:
    """The kernels that a layer convolves with, whatever made them.

    shape: C, H, W of the model's input. Shapes: a transposed convolution's are brought to outputs x inputs, too.
    Raises: InputError if the layer is no convolution of one or two axes.

    >>> kernels(nn.Sequential(nn.Conv2d(3, 8, 5)), "0", shape=(3, 9, 9)).weights.shape
    (8, 3, 5, 5)
    """
    path = find_layer(model, layer)
    x = as_model(model, torch.zeros(1, *shape))
    recording = record(model, x, keep=lambda op: op.name == "convolution" and op.module == path)
    ops = [op for op in recording.ops if op.name == "convolution"]
    op = next((o for o in reversed(ops) if o.module == path), None)
    if op is None:
        known = list(dict.fromkeys(o.module for o in ops if o.module))
        raise InputError(f"layer {layer!r}: is no convolution; {nearest(path, known)}")
    w = recording.tensors[op.args["weight"].id].float().cpu().numpy()
    if w.ndim not in (3, 4):
        raise InputError(f"layer {layer!r}: its kernels have {w.ndim - 2} axes; kernels of 1 or 2 axes can be drawn")
    if op.args["transposed"]:
        groups = op.args["groups"]
        w = w.reshape(groups, -1, *w.shape[1:]).swapaxes(1, 2).reshape(-1, w.shape[0] // groups, *w.shape[2:])
    return Kernels(path, w if w.ndim == 4 else w[:, :, None])
