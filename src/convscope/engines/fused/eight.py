"""Eight bits: which arrays of a network in one call become bytes, and the layers that read and write them.

A byte stands for 0 to 255 times the scale of its array, so that only what is never negative becomes one: what follows a
ReLU. Weights are signed bytes with a scale for each output. Sums are exact; other arrays stay bfloat16.
Source: Jacob et al. 2018 (arXiv:1712.05877).
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

import torch
from torch import Tensor, fx

from convscope.engines.fused.fusing import activation_of
from convscope.engines.fused.layers import NONE
from convscope.engines.fused.onecall import Layer, Place
from convscope.engines.fused.program import Program
from convscope.layers.fast.compiled import After
from convscope.layers.fast.packing import pack_bytes

LEVELS: Final = 255
_AT_ONCE = 8  # pictures whose values are looked at
_DEPTH = 64  # inputs in a row of a tile
_KEEP = ("largest", "padded")  # what gives no values but those it reads, and zeros


def peaks_of(program: Program, pictures_NCHW: Tensor) -> dict[str, float]:
    """How far values behind each activation reach, by the node's name: the largest of a picture, on average."""
    found: dict[str, list[Tensor]] = {}

    def see(node: fx.Node, value: object) -> None:
        if isinstance(value, Tensor) and value.dim() == 4 and activation_of(node) != NONE:
            found.setdefault(node.name, []).append(value.flatten(1).amax(1))

    for some in pictures_NCHW.split(_AT_ONCE):
        program.run(some, watch=see)
    return {name: float(torch.cat(peaks).mean()) for name, peaks in found.items()}


class Eight:
    """Layers with some of their arrays in bytes. `peaks`: the largest value of a place, by its number."""

    def __init__(self, layers: Sequence[Layer], outputs: Sequence[Place], peaks: Mapping[int, float]) -> None:
        self._layers, self._outputs = layers, {p.number for p in outputs}
        self._made = {t.y.number: t for t in layers}
        self._readers: dict[int, list[Layer]] = {}
        for t in layers:
            self._readers.setdefault(t.x.number, []).append(t)
        self._added = {n: [t for t in layers if t.other is not None and t.other.number == n] for n in self._made}
        self._peaks = {n: peak for n in self._made if (peak := self._peak(n, peaks)) > 0}
        self._bytes: set[int] = set()  # arrays that are bytes,
        self._copied: dict[int, Place] = {}  # and that have a copy of bytes
        number = max(self._made)
        for t in reversed(layers):
            place = t.y
            if not any(self._reads(r) for r in self._readers.get(place.number, ())):
                continue
            if self._only(place.number):
                self._bytes.add(place.number)
            elif any(self._takes(r) for r in self._readers[place.number]):
                number += 1
                self._copied[place.number] = replace(place, number=number, bytes=True)

    def layers(self) -> list[Layer]:
        """All of them, with copies where some need bytes and others do not."""
        found = []
        for t in self._layers:
            found.append(self._changed(t))
            if t.y.number in self._copied:
                after = After(None, None, 0.0, 1 / self._scale(t.y.number))
                found.append(Layer("to bytes", t.y, self._copied[t.y.number], after=after))
        return found

    def _peak(self, number: int, peaks: Mapping[int, float]) -> float:
        """The largest value of a place that has none below zero; 0 if it may, or nobody knows."""
        t = self._made.get(number)
        if t is None:
            return 0.0
        if t.kind in _KEEP:
            return self._peak(t.x.number, peaks)
        return peaks.get(number, 0.0) if t.after.low == 0 and not t.after.activation else 0.0

    def _takes(self, t: Layer) -> bool:
        """Whether the layer is computed from bytes."""
        conv = t.conv
        if t.kind != "tiles" or conv is None or t.after.activation or t.x.number not in self._peaks:
            return False
        ins = conv.weight.shape[1]
        return ins % _DEPTH == 0 or (ins % 16 == 0 and conv.groups == conv.dilation[1] == 1)

    def _reads(self, t: Layer) -> bool:
        """Whether the layer reads bytes, if it can have them."""
        return self._takes(t) or (t.kind == "largest" and t.y.number in self._bytes)

    def _only(self, number: int) -> bool:
        """Whether nobody needs the array as bfloat16."""
        made, added = self._made[number], self._added[number]
        if number in self._outputs or not all(map(self._reads, self._readers[number])):
            return False
        if not all(t.kind == "tiles" and not t.after.activation and t.conv is not None for t in added):
            return False
        if made.kind == "largest":
            x = made.x.number
            alone = self._readers[x] == [made] and not self._added[x] and x not in self._outputs
            return alone and x in self._peaks and self._made[x].kind == "tiles"
        return made.kind == "tiles" and made.conv is not None and number in self._peaks

    def _scale(self, number: int) -> float:
        return self._peaks[number] / LEVELS

    def _here(self, place: Place) -> Place:
        return replace(place, bytes=True) if place.number in self._bytes else place

    def _changed(self, t: Layer) -> Layer:
        y, other = self._here(t.y), None if t.other is None else self._here(t.other)
        x = self._here(t.x)
        if self._takes(t) and not x.bytes:
            x = self._copied[x.number]
        if not (x.bytes or y.bytes or (other and other.bytes)):
            return t
        if t.kind == "largest" or t.conv is None:
            return replace(t, x=x, y=y, other=other)
        unit = self._scale(y.number) if y.bytes else 1.0
        share = self._scale(other.number) if other and other.bytes else 1.0
        weight, factors = t.weight, torch.ones(y.wide)
        if x.bytes:
            weight, worth = pack_bytes(t.conv.weight)
            factors = worth * self._scale(t.x.number)
        bias = torch.zeros(y.wide) if t.bias is None else t.bias
        numbers = torch.cat([factors / unit, bias / unit, torch.tensor([share / unit])])
        high = min(t.after.high / unit, LEVELS) if y.bytes else t.after.high
        after = After(None, None, t.after.low / unit, high)
        return replace(t, x=x, y=y, other=other, weight=weight, bias=numbers, after=after)
