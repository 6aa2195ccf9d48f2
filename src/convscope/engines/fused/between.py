"""What stands between convolutions, as layers of one call: sums, pooling, normalisations, maps made larger, lists."""

import math
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import fx

from convscope.engines.fused.around import any_width
from convscope.engines.fused.fusing import POOLING, Around, pair
from convscope.engines.fused.onecall import Layer, Place
from convscope.engines.fused.placing import Placing, Unknown, after_of
from convscope.engines.fused.program import arguments
from convscope.engines.fused.simplify import is_call, tensor_of
from convscope.layers.fast.compiled import Window
from convscope.layers.fast.operators import pack

PERMUTE, _BACK, FORTH = "aten.permute.default", [0, 2, 3, 1], [0, 3, 1, 2]  # channels behind all, and where they were


@dataclass(slots=True)
class Between(Placing):
    def _sum(self, node: fx.Node, found: Around) -> None:
        """Two arrays added, or one, and an activation."""
        reads = [n for n in node.all_input_nodes if n.op != "get_attr"]
        if node.kwargs or len(reads) not in (1, 2) or (len(reads) == 1 and is_call(node, "aten.add.Tensor")):
            raise Unknown(str(node.target))
        x = self._any(reads[0])
        y, other = self._new(found.end, last=x.last), self._at(reads[1], last=x.last) if len(reads) == 2 else None
        if (x.size, x.wide) != (y.size, y.wide) or (other and (other.size, other.wide) != (y.size, y.wide)):
            raise Unknown("an addition of other shapes")
        self._put(Layer("sum", x, y, other, after=after_of(found.activation)))

    def _largest(self, node: fx.Node) -> None:
        self._pool(node, largest=True)

    def _average(self, node: fx.Node) -> None:
        self._pool(node, largest=False)

    def _pool(self, node: fx.Node, *, largest: bool) -> None:
        x, size, stride, padding, *rest = arguments(node, None, 0)
        at, y = self._at(x), self._new(node)
        dilation = rest[0] if largest and rest else 1
        ceil = (rest[1:2] if largest else rest[:1]) or [False]
        uneven = not largest and (rest[1:2] == [False] or rest[2:3] not in ([], [None]))
        if ceil[0] or (uneven and pair(padding) != (0, 0)) or at.wide % (self.few if self.half else 4) or node.kwargs:
            raise Unknown(str(node.target))
        window = Window(*pair(size), *pair(stride or size), *pair(padding), *pair(dilation))
        if largest:
            if not self.half and any_width(node):
                y = self.places[node] = replace(y, wide=-(-y.size[0] // 4) * 4)
            self._put(Layer("largest", at, y, window=window, per=at.wide), POOLING)
            return
        weight = torch.full((at.wide, 1, window.kh, window.kw), 1 / (window.kh * window.kw))
        self._put(Layer("grouped", at, y, None, pack("grouped", weight, groups=at.wide), window=window), POOLING)

    def _mean(self, node: fx.Node) -> None:
        x, y = self._at(arguments(node)[0]), self._new(node)
        dims = arguments(node)[1] if is_call(node, "aten.mean.dim") else [-1, -2]
        if y.size[1:] != (1, 1) or y.size[0] != x.size[0] or sorted(d % 4 for d in dims) != [2, 3]:
            raise Unknown(str(node.target))
        self._put(Layer("mean", x, y), POOLING)

    def _scaled(self, node: fx.Node) -> None:
        one, two = (self._at(n) for n in arguments(node))
        x, factor = (one, two) if two.size[1:] == (1, 1) else (two, one)
        if factor.size != (x.size[0], 1, 1):
            raise Unknown(str(node.target))
        self._put(Layer("scaled", x, self._new(node), factor))

    def _permuted(self, node: fx.Node) -> None:
        x, order = self._any(arguments(node)[0]), [*arguments(node)[1]]
        if x.flat or order != (FORTH if x.last else _BACK):
            raise Unknown(str(node.target))
        self.places[node] = replace(x, last=not x.last)

    def _normalised(self, node: fx.Node) -> None:
        x, size, weight, bias, eps, *_ = arguments(node, None, None, 1e-5)
        at, y = self._at(x, last=True), self._new(node, last=True)
        c = at.size[0]
        if [*size] != [c]:
            raise Unknown(str(node.target))
        scale, shift = tensor_of(self.program, weight), tensor_of(self.program, bias)
        scale = F.pad(torch.ones(c) if scale is None else scale, (0, at.wide - c))
        shift = F.pad(torch.zeros(c) if shift is None else shift, (0, at.wide - c))
        self._put(Layer("normalised", at, y, None, torch.cat([scale, torch.tensor([eps])]), shift, per=c))

    def _groups(self, node: fx.Node, found: Around) -> None:
        x, groups, weight, bias, eps, *_ = arguments(node, None, None, 1e-5)
        at, y = self._at(x), self._new(found.end)
        c, scale, shift = at.size[0], tensor_of(self.program, weight), tensor_of(self.program, bias)
        if at.flat or c % groups or (weight is not None and scale is None) or (bias is not None and shift is None):
            raise Unknown("a normalisation of another kind")
        scale = F.pad(torch.ones(c) if scale is None else scale, (0, at.wide - c))
        shift = F.pad(torch.zeros(c) if shift is None else shift, (0, at.wide - c))
        scale, after = torch.cat([scale, torch.tensor([eps])]), after_of(found.activation)
        self._put(Layer("group normalised", at, y, None, scale, shift, per=c // groups, after=after))

    def _padded(self, node: fx.Node) -> None:
        x, border, *rest = arguments(node)
        at, (left, _, top, *below) = self._at(x), (*border, 0, 0)[: max(len(border), 4)]
        if at.flat or len(below) > 1 or min(border) < 0 or node.kwargs or {*rest} - {"constant", None, 0}:
            raise Unknown(str(node.target))
        self.places[node] = replace(self._new(node), wide=at.wide)
        self._put(Layer("padded", at, self.places[node], window=Window(1, 1, 1, 1, top, left, 1, 1)))

    def _enlarged(self, node: fx.Node) -> None:
        x, _, corners, factors = arguments(node, None, None)
        at, y = self._at(x), self._new(node)
        if factors is not None and [n * f for n, f in zip(at.size[1:], factors, strict=True)] != [*y.size[1:]]:
            raise Unknown(str(node.target))
        y = self.places[node] = replace(y, wide=-(-y.size[0] // self._fill(node)) * self._fill(node))
        self._put(Layer("enlarged", at, y, per=int(corners)))

    def _repeated(self, node: fx.Node) -> None:
        x, _, factors = arguments(node, None)
        at, y = self._at(x), self._new(node)
        if factors is not None and [n * f for n, f in zip(at.size[1:], factors, strict=True)] != [*y.size[1:]]:
            raise Unknown(str(node.target))
        self._put(Layer("repeated", at, y))

    def _joined(self, node: fx.Node) -> None:
        """Lists one behind the other."""
        parts, axis = [self._any(n) for n in arguments(node)[0]], [*arguments(node)[1:], 0][0]
        c, pixels = parts[0].size[0], sum(p.size[1] for p in parts)
        if axis not in (1, -2) or any(not p.listed or p.size[0] != c for p in parts):
            raise Unknown(str(node.target))
        self.places[node] = y = self._next(Place(0, (c, pixels, 1), c, last=True, listed=True))
        for i, part in enumerate(parts):
            self._put(Layer("cut", part, y, per=sum(p.size[1] for p in parts[:i])))

    def _flat(self, node: fx.Node) -> None:
        x, shape = self._any(arguments(node)[0]), self.shapes.wanted[node]
        c, *pixels = x.size
        if x.last and shape[1:] == (math.prod(pixels), c) and self.shapes.another[node][1:] == shape[1:]:
            self.places[node] = replace(x, size=(c, math.prod(pixels), 1), listed=True)
            return
        x = self._at(arguments(node)[0])
        if len(shape) != 2 or shape[1] != math.prod(x.size):
            raise Unknown(str(node.target))
        self.places[node] = replace(x, flat=True)
