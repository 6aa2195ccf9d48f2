"""patches(): the parts of a data set's pictures that make a channel fire most.

Shape suffixes: N pictures, C channels, H rows, W columns.
"""

import heapq
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from convscope.errors import DataError, InputError
from convscope.explain.capture import as_model, called, capturing, find_layer, op_of, undisturbed
from convscope.explain.pictures import png_bytes
from convscope.explain.sheets import Panel, as_rgb, page, zoomed
from convscope.geometry import Interval
from convscope.graph import record
from convscope.inspect import receptive_field
from convscope.table import Column, Table, number

PADDING = (214, 214, 222), (180, 180, 192)  # the two greys of the hatching where the field lies outside the picture


@dataclass(frozen=True, slots=True, eq=False)
class Patch:
    """One unit, and what it saw.

    `value` is its activation, `image` the picture's number in the data set, `unit` its index in the layer's output
    (channel, row, column), `box` its receptive field as (first, last) rows and columns of the picture, which reach
    beyond it where the field lies in padding. `pixels` are HxWxC in 0..1, NaN outside the picture.
    """

    value: float
    image: int
    unit: tuple[int, ...]
    box: tuple[Interval, Interval]
    pixels: np.ndarray


@dataclass(frozen=True, slots=True, eq=False)
class PatchGrid:
    """The strongest patches of one channel over `num_images` pictures, strongest first, one a picture at most."""

    layer: str
    channel: int
    num_images: int
    patches: tuple[Patch, ...]

    def picture(self) -> Image.Image:
        """The patches in rows, each under its value and its picture's number; padding is hatched."""
        size = max(max(p.pixels.shape[:2]) for p in self.patches)
        side = max(112, min(size, 224))
        panels = [Panel(_shown(p.pixels, side), f"{number(p.value)} in {p.image}") for p in self.patches]
        across = len(panels) if len(panels) <= 4 else int(np.ceil(np.sqrt(len(panels))))
        rows = [panels[i : i + across] for i in range(0, len(panels), across)]
        high, wide = self.patches[0].pixels.shape[:2]
        lines = [f"strongest of {self.num_images:,} pictures", "above each: its value, and the picture it is in"]
        if any(np.isnan(p.pixels).any() for p in self.patches):
            lines.append("hatched: outside the picture")
        shape = f"channel {self.channel}, fields of {high}x{wide}"
        return page(rows, title=self.layer, shape=shape, lines=lines)

    def table(self) -> Table:
        """A row a patch."""
        rows = tuple(
            {"rank": rank, "value": p.value, "image": p.image, "unit": ", ".join(map(str, p.unit)),
             "rows": f"{p.box[0][0]}..{p.box[0][1]}", "columns": f"{p.box[1][0]}..{p.box[1][1]}"}
            for rank, p in enumerate(self.patches, 1)
        )  # fmt: skip
        names = ("rank", "value", "image", "unit", "rows", "columns")
        title = f"{self.layer}, channel {self.channel}: strongest of {self.num_images:,} pictures"
        return Table(tuple(Column(n, n) for n in names), rows, title=title)

    def data(self) -> dict[str, Any]:
        """Plain data for JSON, without the pixels."""
        patches = [{"value": p.value, "image": p.image, "unit": p.unit, "box": p.box} for p in self.patches]
        return {"layer": self.layer, "channel": self.channel, "images": self.num_images, "patches": patches}

    def _repr_png_(self) -> bytes:
        return png_bytes(self.picture())


def patches(
    model: nn.Module,
    batches: Iterable[Tensor],
    *,
    layer: str,
    channels: Sequence[int],
    top: int = 9,
    pixels: Callable[[Tensor], Tensor] = lambda x: x,
) -> tuple[PatchGrid, ...]:
    """For each channel, the `top` pictures whose strongest unit is the strongest, and what those units saw.

    batches: NxCxHxW each, all of one size, as the model takes them; one is in memory at a time, and of earlier ones
    the winning patches. pixels: brings such a batch back to values in 0..1.
    Raises: InputError if layer, channel or top do not fit; DataError if there are no pictures.
    Source: Zeiler & Fergus 2013 (arXiv:1311.2901), figure 2.

    >>> model = nn.Sequential(nn.Conv2d(1, 2, 3))
    >>> made = patches(model, [torch.rand(5, 1, 8, 8)], layer="0", channels=[1], top=2)
    >>> [p.pixels.shape for p in made[0].patches]
    [(3, 3, 1), (3, 3, 1)]
    """
    if top < 1:
        raise InputError(f"patches: top is {top}; use 1 or more")
    path = find_layer(model, layer)
    best: dict[int, list[Any]] = {c: [] for c in channels}
    images, order, field = 0, count(), None
    with undisturbed(model), torch.no_grad():
        for x in batches:
            x = as_model(model, x)
            with capturing(model, path) as outputs:
                called(model, x)
            made = _checked(outputs, path, channels)
            field = field or _Field.of(model, x[:1], path, tuple(made.shape[1:]))
            seen = pixels(x.float().cpu())
            for c in channels:
                for at, value, unit in _strongest(made[:, c], top):
                    if len(best[c]) < top or value > best[c][0][0]:
                        cut = field.cut(seen[at], (c, *unit))
                        push = heapq.heappush if len(best[c]) < top else heapq.heapreplace
                        push(best[c], (value, -next(order), Patch(value, images + at, (c, *unit), *cut)))
            images += len(x)
    if images == 0:
        raise DataError("patches: there are no pictures; give a data set that has some")
    ranked = {c: tuple(p for *_, p in sorted(found, key=lambda f: (-f[0], -f[1]))) for c, found in best.items()}
    return tuple(PatchGrid(path, c, images, ranked[c]) for c in channels)


@dataclass(frozen=True, slots=True)
class _Field:
    """Where a unit of the layer looks, worked out on one recording and remembered by unit."""

    recording: Any
    op: Any
    known: dict[tuple[int, ...], tuple[Interval, Interval]]

    @classmethod
    def of(cls, model: nn.Module, x: Tensor, path: str, shape: tuple[int, ...]) -> "_Field":
        recording = record(model, x)
        op = op_of(recording, path)
        if op.outputs[0].shape[1:] != shape:
            raise InputError(f"layer {path!r}: no single operator made its output; choose a layer in it")
        return cls(recording, op, {})

    def cut(self, picture_CHW: Tensor, unit: tuple[int, ...]) -> tuple[tuple[Interval, Interval], np.ndarray]:
        """The box of a unit, and the pixels in it, HxWxC."""
        if unit not in self.known:
            box = receptive_field(self.recording, self.op, unit=(0, *unit))
            if box is None:
                raise InputError(f"layer {self.op.module!r}: does not depend on the picture; choose another layer")
            self.known[unit] = box[-2:][0], box[-2:][1]
        rows, columns = self.known[unit]
        high, wide = picture_CHW.shape[1:]
        made = np.full((rows[1] - rows[0] + 1, columns[1] - columns[0] + 1, len(picture_CHW)), np.nan, np.float32)
        top, left = max(rows[0], 0), max(columns[0], 0)
        inside = picture_CHW[:, top : min(rows[1] + 1, high), left : min(columns[1] + 1, wide)].permute(1, 2, 0)
        y, x = top - rows[0], left - columns[0]
        made[y : y + inside.shape[0], x : x + inside.shape[1]] = inside.numpy()
        return (rows, columns), made


def _checked(outputs: list[Tensor], path: str, channels: Sequence[int]) -> Tensor:
    if not outputs or outputs[0].ndim not in (2, 4):
        found = "nothing" if not outputs else "x".join(map(str, outputs[0].shape))
        raise InputError(f"layer {path!r}: gives {found}, not N x channels x height x width; choose another layer")
    have = outputs[0].shape[1]
    for c in channels:
        if not 0 <= c < have:
            raise InputError(f"channel {c}: layer {path!r} has channels 0 to {have - 1}; choose one of them")
    return outputs[0].float().cpu()


def _strongest(values_NHW: Tensor, top: int) -> list[tuple[int, float, tuple[int, ...]]]:
    """(picture, value, place) of the strongest unit of each picture, for the `top` strongest pictures; no NaN."""
    flat = values_NHW.reshape(len(values_NHW), -1).nan_to_num(nan=-torch.inf, posinf=torch.inf)
    value, place = flat.max(dim=1)
    order = value.argsort(descending=True, stable=True)[:top].tolist()
    shape = values_NHW.shape[1:]
    return [(i, float(value[i]), tuple(int(k) for k in np.unravel_index(int(place[i]), shape))) for i in order]


def _shown(pixels_HWC: np.ndarray, side: int) -> np.ndarray:
    """As colours, zoomed, what lies outside the picture hatched."""
    outside = zoomed(np.asarray(np.isnan(pixels_HWC).any(axis=2, keepdims=True)), side)[..., 0]
    drawn = zoomed(as_rgb(pixels_HWC), side)
    y, x = np.indices(outside.shape)
    hatched = np.where(((x + y) // 3 % 2 == 0)[..., None], *(np.array(c, np.uint8) for c in PADDING))
    return np.where(outside[..., None], hatched, drawn).astype(np.uint8)
