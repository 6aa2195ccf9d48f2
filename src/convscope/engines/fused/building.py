"""The layers of a network that our own kernels do alone, from its program: `one_call`."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx

from convscope.engines.fused.fusing import OWN, POOLING, Around, Shapes, activation_of, around, chosen, only_user, pair
from convscope.engines.fused.layers import NONE, Activation, Conv, Run, by_own, takes
from convscope.engines.fused.onecall import MOST, Layer, OneCall, Place
from convscope.engines.fused.program import Program, arguments
from convscope.engines.fused.simplify import CONV, LINEAR, is_call, tensor_of
from convscope.layers.fast.compiled import After, Window
from convscope.layers.fast.operators import pack, there

_SAME = ("aten.clone.default", "aten.contiguous.default", "aten.dropout.default", "aten.sym_size.int")
_FLAT = ("aten.reshape.default", "aten.flatten.using_ints", "aten.squeeze.dims")


class Unknown(Exception):  # noqa: N818 - it ends a search, and nobody sees it
    """No kernel of ours does this."""


@dataclass(slots=True)
class _Builder:
    program: Program
    shapes: Shapes
    ways: Mapping[str, str]
    lanes: int
    places: dict[fx.Node, Place] = field(default_factory=dict)
    layers: list[Layer] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    taken: set[fx.Node] = field(default_factory=set)
    ends: dict[fx.Node, tuple[fx.Node, Around]] = field(default_factory=dict)
    number: int = 0

    def visit(self, node: fx.Node) -> None:
        if is_call(node, CONV, LINEAR, "aten.add.Tensor") and node not in self.taken and node not in self.ends:
            self._take(node)
        if node in self.ends:
            first, found = self.ends[node]
            make = {CONV: self._conv, LINEAR: self._linear}.get(str(first.target), self._sum)
            make(first, found)
        elif node not in self.taken and node.op == "call_function":
            self._plain(node)

    def _take(self, node: fx.Node) -> None:
        """Note the layer, and what it takes in, for when all that it reads is there."""
        if is_call(node, "aten.add.Tensor"):
            after = only_user(node)
            activation = NONE if after is None else activation_of(after)
            found = Around(node if after is None or activation == NONE else after, None, activation)
        else:
            found = around(node, self.shapes, after_sum=lambda a: True, taken=self.taken | set(self.ends))
        inner = node
        while inner is not found.end:
            self.taken.add(inner)
            inner = next(iter(inner.users))
        self.ends[found.end] = (node, found)

    def _plain(self, node: fx.Node) -> None:
        if is_call(node, "aten.max_pool2d.default"):
            self._pool(node, largest=True)
        elif is_call(node, "aten.avg_pool2d.default"):
            self._pool(node, largest=False)
        elif is_call(node, "aten.adaptive_avg_pool2d.default", "aten.mean.dim"):
            self._mean(node)
        elif is_call(node, "aten.mul.Tensor"):
            self._scaled(node)
        elif is_call(node, *_FLAT):
            self._flat(node)
        elif is_call(node, *_SAME):
            if not is_call(node, "aten.sym_size.int"):
                self.places[node] = self._at(arguments(node)[0])
        elif activation_of(node) != NONE:
            self._sum(node, Around(node, None, activation_of(node)))
        else:
            raise Unknown(str(node.target))

    def _at(self, node: Any) -> Place:
        if node not in self.places:
            raise Unknown(str(node))
        return self.places[node]

    def _new(self, node: fx.Node) -> Place:
        """A place for what the node gives."""
        shape = self.shapes.wanted[node]
        if len(shape) not in (2, 4) or self.shapes.another[node][1:] != shape[1:]:
            raise Unknown(str(node.target))
        c, h, w = shape[1], *(shape[2:] or (1, 1))
        self.number += 1
        self.places[node] = Place(self.number, (c, h, w), -(-c // self.lanes) * self.lanes, len(shape) == 2)
        return self.places[node]

    def _put(self, layer: Layer, name: str = "") -> None:
        self.layers.append(layer)
        if name:
            self.counts[name] = self.counts.get(name, 0) + 1

    def _conv(self, node: fx.Node, found: Around) -> None:
        x, weight, bias, stride, padding, dilation, groups = arguments(node, None, 1, 0, 1, 1)
        own, at, y = tensor_of(self.program, weight), self._at(x), self._new(found.end)
        if own is None or isinstance(padding, str) or at.flat:
            raise Unknown("a convolution of another kind")
        depthwise = groups == at.size[0] == len(own) and own.shape[1] == 1 and groups > 1
        if groups != 1 and not depthwise and (at.size[0], len(own)) != (at.wide, y.wide):
            raise Unknown("groups that fill no vectors")
        more = (0 if depthwise or groups != 1 else at.wide - at.size[0], y.wide - len(own))
        if at.wide % self.lanes and (depthwise or groups != 1):
            raise Unknown("channels that fill no vectors")
        own = F.pad(own, (0, 0, 0, 0, 0, more[0], 0, more[1]))
        added = self._bias(tensor_of(self.program, bias), y)
        windows = (pair(stride), pair(padding), pair(dilation))
        shape = (self.shapes.wanted[x][0], at.wide, *at.size[1:])
        conv = Conv(own, added, *windows, at.wide if depthwise else int(groups), shape, found.activation)
        self._put_conv(conv, at, y, found)

    def _put_conv(self, conv: Conv, x: Place, y: Place, found: Around) -> None:
        other = None if found.other is None else self._at(found.other)
        known = {name: way for name, way in self.ways.items() if takes(way, conv, added=other is not None)}
        if not known:
            raise Unknown("a convolution of another kind")
        runs: dict[str, Callable[[], Run]] = {n: lambda way=way: by_own(conv, way) for n, way in known.items()}
        name = chosen(runs, conv, added=other is not None)
        way = known[name]
        per = conv.weight.shape[1] if way == "grouped" else conv.groups
        places = y.size[1] * y.size[2]
        self._put(
            Layer(way, x, y, other, pack(way, conv.weight, groups=conv.groups), conv.bias, conv.window(), per,
                  _after(found.activation), conv.weight.numel() * places), name
        )  # fmt: skip

    def _linear(self, node: fx.Node, found: Around) -> None:
        own, x, y = tensor_of(self.program, arguments(node)[1]), self._at(arguments(node)[0]), self._new(found.end)
        if own is None or not (x.flat and y.flat):
            raise Unknown("a linear layer of another kind")
        c, h, w = x.size
        own = F.pad(own.reshape(-1, c, h, w).permute(0, 2, 3, 1), (0, x.wide - c)).flatten(1)
        own = F.pad(own, (0, 0, 0, y.wide - len(own)))[..., None, None]
        bias = self._bias(tensor_of(self.program, arguments(node)[2]) if len(arguments(node)) > 2 else None, y)
        given = Place(x.number, (own.shape[1], 1, 1), own.shape[1], flat=True)
        other = None if found.other is None else self._at(found.other)
        packed = pack("pointwise", own, groups=1)
        self._put(
            Layer("pointwise", given, y, other, packed, bias, after=_after(found.activation), macs=own.numel()),
            "own 1x1",
        )

    def _bias(self, bias: Tensor | None, y: Place) -> Tensor | None:
        return None if bias is None else F.pad(bias, (0, y.wide - len(bias)))

    def _sum(self, node: fx.Node, found: Around) -> None:
        """Two arrays added, or one, and an activation."""
        reads = [n for n in node.all_input_nodes if n.op != "get_attr"]
        if node.kwargs or len(reads) not in (1, 2) or (len(reads) == 1 and is_call(node, "aten.add.Tensor")):
            raise Unknown(str(node.target))
        x, y = self._at(reads[0]), self._new(found.end)
        other = self._at(reads[1]) if len(reads) == 2 else None
        if (x.size, x.wide) != (y.size, y.wide) or (other and (other.size, other.wide) != (y.size, y.wide)):
            raise Unknown("an addition of other shapes")
        self._put(Layer("sum", x, y, other, after=_after(found.activation)))

    def _pool(self, node: fx.Node, *, largest: bool) -> None:
        x, size, stride, padding, *rest = arguments(node, None, 0)
        at, y = self._at(x), self._new(node)
        dilation = rest[0] if largest and rest else 1
        ceil = (rest[1:2] if largest else rest[:1]) or [False]
        uneven = not largest and (rest[1:2] == [False] or rest[2:3] not in ([], [None]))
        if ceil[0] or (uneven and pair(padding) != (0, 0)) or at.wide == at.size[0] % self.lanes or node.kwargs:
            raise Unknown(str(node.target))
        window = Window(*pair(size), *pair(stride or size), *pair(padding), *pair(dilation))
        if largest:
            if all(is_call(reader, CONV, *_FLAT) for reader in node.users):  # those read any number of channels
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

    def _flat(self, node: fx.Node) -> None:
        x, shape = self._at(arguments(node)[0]), self.shapes.wanted[node]
        if len(shape) != 2 or shape[1] != math.prod(x.size):
            raise Unknown(str(node.target))
        self.places[node] = replace(x, flat=True)


def _after(activation: Activation) -> After:
    own = activation.own()
    if own is None:
        raise Unknown(activation.name)
    return After(None, None, *own)


def one_call(program: Program, shapes: Shapes, *, ways: Mapping[str, str] = OWN) -> "OneCall | None":
    """The program (without normalisations) in one call, if our own kernels do all of it."""
    nodes = [*program.graph.nodes]
    source = next(n for n in nodes if n.op == "placeholder")
    shape = shapes.wanted[source]
    builder = _Builder(program, shapes, ways, there().panel // 2)
    try:
        c, h, w = shape[1:]
        builder.places[source] = Place(0, (c, h, w), c)
        for node in nodes:
            builder.visit(node)
        given = [builder._at(n) for n in arguments(nodes[-1])[0]]
        firsts = {layer.y.number for layer in builder.layers if layer.x.number == 0 and layer.kind != "dense"}
        if (
            (firsts and shape[1] % builder.lanes)
            or any(p.number == 0 for p in given)
            or len({*given}) < len(given)
            or len(given) > MOST
        ):
            raise Unknown("the input, as it is")
    except Unknown:
        return None
    return OneCall(builder.layers, given, batch=shape[0], counts=builder.counts)
