"""The receptive field of one place in a layer, on the picture: in words, in numbers, and drawn."""

from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from PIL import Image, ImageDraw
from torch import Tensor, nn

from convscope.errors import ModelError
from convscope.explain.pictures import colour
from convscope.geometry import Interval
from convscope.graph import record
from convscope.inspect import EffectiveField, Field, Reach, effective_field, fields, misaligned, reach
from convscope.inspect.effective import whole_unit
from convscope.table import Column, Table, number

_PAGE = 640  # px that the longer side of a drawing has, about
_CANVAS, _PADDING, _SEEN, _BOX, _FRAME = (238, 241, 245), (214, 218, 225), (246, 193, 140), "#d9741a", "#6b7785"


@dataclass(frozen=True, slots=True, eq=False)
class PlaceField:
    """What one place of a layer sees of a picture. `box`: rows and columns of its local field, None if it has none."""

    layer: str
    place: tuple[int, ...]
    shape: tuple[int, ...]
    field: Field
    box: tuple[Interval, ...] | None
    reached: Reach
    notes: tuple[str, ...]
    effective: EffectiveField | None = None

    @property
    def outside(self) -> int:
        """Places of the local field that lie in padding, px."""
        inside = [min(hi, n - 1) - max(lo, 0) + 1 for (lo, hi), n in zip(self.box or (), self.shape, strict=False)]
        return prod(hi - lo + 1 for lo, hi in self.box or ()) - prod(max(0, n) for n in inside)

    def mask(self) -> np.ndarray:
        """The places that it depends on at all. Shapes: rows x columns of the picture, bool."""
        return self.reached.mask(*self.field.axes)

    def table(self) -> Table:
        """What is known, one row a fact."""
        rows = [{"what": k, "value": v} for k, v in self._facts().items()]
        return Table((Column("what", self.layer), Column("value", ",".join(map(str, self.place)))), tuple(rows),
                     notes=self.notes)  # fmt: skip

    def data(self) -> dict[str, Any]:
        """Plain data for JSON."""
        stride = self.field.stride
        return {
            "layer": self.layer,
            "place": self.place,
            "size": self.field.size if self.field.is_local else None,
            "stride": stride and tuple(map(float, stride)),
            "padding": self.field.padding,
            "global_through": self.field.global_through,
            "box": self.box,
            "in_padding": self.outside,
            "depends_on": int(self.mask().sum()),
            "bounded_by": self.reached.bounded_by,
            "notes": self.notes,
            "effective": self.effective and self.effective.data(),
        }

    def picture(self, rows_HWC: np.ndarray | None = None) -> Image.Image:
        """The field drawn: on a picture, what is not seen pales; on a plain canvas, what is seen is tinted.

        Shapes: rows_HWC as the network's input, values 0 to 1, or None. The local field's box is
        framed; a pixel of the input is a square of several.
        """
        height, width = self.shape
        box = self.box or ((0, height - 1), (0, width - 1))
        top, left = (max(0, min(-lo, n)) for (lo, _), n in zip(box, self.shape, strict=True))
        bottom, right = (max(0, min(hi - n + 1, n)) for (_, hi), n in zip(box, self.shape, strict=True))
        page = np.empty((top + height + bottom, left + width + right, 3), dtype=np.uint8)
        page[:] = _PADDING
        page[top : top + height, left : left + width] = self._painted(rows_HWC)
        zoom = max(1, _PAGE // max(page.shape[:2]))
        drawn = Image.fromarray(page.repeat(zoom, axis=0).repeat(zoom, axis=1))
        draw = ImageDraw.Draw(drawn)
        frame = ((0, height - 1), (0, width - 1))
        for (rows, columns), ink in ((frame, _FRAME), *(((box, _BOX),) if self.box else ())):
            (y, below), (x, beyond) = rows, columns
            ends = ((x + left) * zoom, (y + top) * zoom, (beyond + left + 1) * zoom - 1, (below + top + 1) * zoom - 1)
            draw.rectangle(ends, outline=ink, width=max(1, min(2, zoom)))
        return drawn

    def _painted(self, rows_HWC: np.ndarray | None) -> np.ndarray:
        """The picture's part of the page."""
        if self.effective is not None:
            return colour(self.effective.map_HW)
        seen = self.mask()
        if self.box and self.field.global_through:  # everything is seen: what is shown is the local part
            pairs = zip(self.box, self.shape, strict=True)
            rows, columns = ((np.arange(n) >= lo) & (np.arange(n) <= hi) for (lo, hi), n in pairs)
            seen = np.outer(rows, columns)
        if rows_HWC is None:
            return np.where(seen[..., None], np.array(_SEEN, dtype=np.uint8), np.array(_CANVAS, dtype=np.uint8))
        base = 255 * rows_HWC.astype(np.float64)
        base[~seen] = 0.3 * base[~seen] + 0.7 * np.array(_CANVAS)
        return np.rint(base).astype(np.uint8)

    def _facts(self) -> dict[str, Any]:
        local, facts = self.field, dict[str, Any]()
        if self.box:
            most = "at most " if local.is_bound else ""
            some = ", the largest of its phases" if local.has_phases else ""
            facts["size"] = f"{most}{' x '.join(map(str, local.size))} px{some}"
            facts["stride"] = local.stride and " x ".join(number(float(s)) for s in local.stride) + " px"
            facts["padding"] = local.padding and " x ".join(map(str, local.padding)) + " px"
            (top, bottom), (left, right) = self.box
            facts["box"] = f"rows {top}..{bottom}, columns {left}..{right}"
            facts["in padding"] = f"{self.outside:,} of {prod(hi - lo + 1 for lo, hi in self.box):,} px"
        if local.global_through:
            shown = local.global_through
            facts["sees everything through"] = ", ".join(shown[:3]) + (f" and {len(shown) - 3} more" * (len(shown) > 3))
        most = "at most " if self.reached.bounded_by else ""
        facts["depends on"] = f"{most}{int(self.mask().sum()):,} of {prod(self.shape):,} px"
        if self.effective is not None:
            facts["spread"] = " x ".join(number(s) for s in self.effective.spread) + " px (standard deviation)"
            facts["95 % of the energy"] = f"in {100 * self.effective.share:.1f} % of what it depends on"
        return facts


def field(
    model: nn.Module, example: Tensor, *, layer: str, place: tuple[int, ...] | None = None, samples: int | None = 0
) -> PlaceField:
    """What one place of a layer sees of a picture: its local field, the exact set, and how much each pixel counts.

    example: pictures N x C x H x W. place: row and column in the layer (the middle if None). samples: how many random
    pictures measure the effective field; 0: it is not measured; None: the given pictures do.
    Raises: InputError if the layer or the place does not exist; ModelError if the input is no picture.

    >>> import torch
    >>> from torch import nn
    >>> found = field(nn.Sequential(nn.Conv2d(1, 1, 3, dilation=2)), torch.zeros(1, 1, 9, 9), layer="0", place=(0, 1))
    >>> found.box, found.outside, int(found.mask().sum())
    (((0, 4), (1, 5)), 0, 9)
    """
    recording = record(model, example[:1])
    op = recording.find(layer)
    unit = whole_unit(recording, op, place)
    local = fields(recording)[op.outputs[0].id]
    if len(local.axes) != 2:
        raise ModelError(f"field: the input has {len(local.axes)} axes of space, which is no picture; give one")
    apart = misaligned(recording).found
    joins = ", ".join(dict.fromkeys(m.join for m in apart))
    notes = (f"branches that look at different places are joined in {joins}",) if apart else ()
    reached = reach(recording, op, unit=unit)
    measured = None if samples == 0 else effective_field(model, example, layer=layer, unit=place, samples=samples)
    chosen = tuple(unit[a] or 0 for a in local.moves_with)
    shape = tuple(example.shape[a] for a in local.axes)
    return PlaceField(
        op.module or op.name, chosen, shape, local, local.at(unit) if local.is_local else None, reached, notes, measured
    )
