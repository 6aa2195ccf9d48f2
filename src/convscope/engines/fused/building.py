"""The layers of a network that our own kernels do alone, from its program: `Builder`."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch.nn.functional as F
from torch import Tensor, fx

from convscope.engines.fused.around import ENLARGE, FLAT, TRANSPOSED, any_width, around_transposed, halving, in_phases
from convscope.engines.fused.between import FORTH, PERMUTE, Between
from convscope.engines.fused.fusing import POOLING, Around, activation_of, around, chosen, only_user, pair
from convscope.engines.fused.layers import NONE, Conv, Run, by_own, takes
from convscope.engines.fused.onecall import MOST, Layer, Place
from convscope.engines.fused.placing import Unknown, after_of
from convscope.engines.fused.program import arguments
from convscope.engines.fused.simplify import CONV, LINEAR, PADS, is_call, tensor_of
from convscope.layers.fast.compiled import Window
from convscope.layers.fast.operators import pack, there
from convscope.layers.fast.packing import pack_thin

_SAME = ("aten.clone.default", "aten.contiguous.default", "aten.dropout.default")
GROUPS = "aten.group_norm.default"
_HALF = {"tiles": "half"}  # ways that pack weights of their own


@dataclass(slots=True)
class Builder(Between):
    packed: dict[Any, Tensor] = field(default_factory=dict)  # weights that several layers have are there once
    taken: set[fx.Node] = field(default_factory=set)
    ends: dict[fx.Node, tuple[fx.Node, Around]] = field(default_factory=dict)
    given: list[fx.Node] = field(default_factory=list)  # what is left to PyTorch is made of these

    def build(self, nodes: Sequence[fx.Node]) -> list[Place]:
        """All layers; the places of what the network gives, or of `given`."""
        source = next(n for n in nodes if n.op == "placeholder")
        _, c, h, w = self.shapes.wanted[source]
        self.places[source] = given = Place(0, (c, h, w), c)
        if self.half:
            self.places[source] = self._next(given)
            self._put(Layer("narrowed", given, self.places[source]))
        for node in nodes:
            self._visit_or_leave(node)
        outputs = arguments(nodes[-1])[0]
        if not all(n in self.places for n in outputs):
            self.given = self._borders(outputs, source)
        found = [self._any(n) for n in self.given or outputs]
        first = self.places[source].number
        narrow = {first, *(t.y.number for t in self.layers if t.kind == "padded" and t.x.number == first)}
        readers = {t.kind for t in self.layers if narrow & {t.x.number, t.other.number if t.other else -1}} - {"padded"}
        odd = c % self.lanes and readers - ({"tiles"} if self.half else {"dense", "thin", "thin largest"})
        numbers = {p.number for p in found}
        if odd or narrow & numbers or not 0 < len(numbers) == len(found) <= MOST:
            raise Unknown("the input, as it is")
        return [self._given_out(p) for p in found]

    def _visit_or_leave(self, node: fx.Node) -> None:
        """Put the layers that the node ends, if there are kernels for them; else it has no place.

        Raises: Unknown if the layer has weights: such a one is not left to PyTorch.
        """
        layers, counts = len(self.layers), dict(self.counts)
        try:
            self.visit(node)
        except Unknown:
            if is_call(self.ends.get(node, (node,))[0], CONV, LINEAR, TRANSPOSED):
                raise
            del self.layers[layers:]
            self.counts = counts
            self.places.pop(node, None)

    def _borders(self, outputs: Sequence[fx.Node], source: fx.Node) -> list[fx.Node]:
        """What layers give to nodes that have no place."""
        todo, found, seen = [*outputs], [], {source}
        while todo:
            node = todo.pop()
            if node in seen or node.op == "get_attr":
                continue
            seen.add(node)
            if node in self.places and not is_call(node, PERMUTE, *FLAT, *_SAME):  # these have the place of another
                found.append(node)
            else:
                todo += node.all_input_nodes
        return found

    def visit(self, node: fx.Node) -> None:
        if (
            is_call(node, CONV, LINEAR, TRANSPOSED, GROUPS, "aten.add.Tensor")
            and node not in self.taken
            and node not in self.ends
        ):
            self._take(node)
        if node in self.ends:
            first, found = self.ends[node]
            make = {CONV: self._conv, LINEAR: self._linear, TRANSPOSED: self._transposed, GROUPS: self._groups}
            make.get(str(first.target), self._sum)(first, found)
        elif node not in self.taken and node.op == "call_function":
            self._plain(node)

    def _take(self, node: fx.Node) -> None:
        """Note the layer, and what it takes in, for when all that it reads is there."""
        if is_call(node, "aten.add.Tensor", GROUPS):
            after = only_user(node)
            activation = NONE if after is None else activation_of(after)
            found = Around(node if after is None or activation == NONE else after, None, activation)
        elif is_call(node, TRANSPOSED):
            found = around_transposed(node, self.shapes, self.places)
            self.taken |= {found.other} if found.other is not None else set()
        else:
            found = self._around(node)
        if found.activation.own() is None:  # no kernel has it
            found = Around(found.end.all_input_nodes[0], found.other, NONE)
        inner = node
        while inner is not found.end:
            self.taken.add(inner)
            inner = next(iter(inner.users))
        self.ends[found.end] = (node, found)

    def _around(self, node: fx.Node) -> Around:
        """What the layer takes in; a sum also where the channels go back behind the batch before it."""
        found, taken = around(node, self.shapes, after_sum=lambda a: True, taken=self.taken | {*self.ends}), None
        after = only_user(node)
        if found.end is node and after is not None and is_call(after, PERMUTE) and [*arguments(after)[1]] == FORTH:
            taken = around(after, self.shapes, after_sum=lambda a: True, taken=self.taken | {*self.ends})
        return taken if taken and taken.other is not None else found

    def _plain(self, node: fx.Node) -> None:
        made: Mapping[str, Callable[[fx.Node], None]] = {
            "aten.max_pool2d.default": self._largest,
            "aten.avg_pool2d.default": self._average,
            "aten.adaptive_avg_pool2d.default": self._mean,
            "aten.mean.dim": self._mean,
            "aten.mul.Tensor": self._scaled,
            "aten.layer_norm.default": self._normalised,
            ENLARGE: self._enlarged,
            "aten.upsample_nearest2d.vec": self._repeated,
            "aten.sym_size.int": lambda node: None,
            PERMUTE: self._permuted,
            "aten.cat.default": self._joined,
            **dict.fromkeys(PADS, self._padded),
            **dict.fromkeys(FLAT, self._flat),
            **dict.fromkeys(_SAME, self._same),
        }
        if str(node.target) in made:
            made[str(node.target)](node)
        elif activation_of(node) != NONE:
            self._sum(node, Around(node, None, activation_of(node)))
        else:
            raise Unknown(str(node.target))

    def _given_out(self, place: Place) -> Place:
        """What the network gives is float32, and numbers of a picture fill no vectors."""
        flat = place.flat and place.size[1:] == (1, 1) and place.wide != place.size[0]
        end = self.layers[-1]
        there = any(t.kind == "cut" and t.y == place for t in self.layers)
        if there or (end.kind in ("enlarged", "unfolded") and end.y == place) or not (self.half or flat):
            return place
        found = self._next(replace(place, wide=place.size[0]) if flat else place)
        self._put(Layer("cut" if flat else "widened", place, found, per=0))
        return found

    def _conv(self, node: fx.Node, found: Around) -> None:
        x, weight, bias, stride, padding, dilation, groups = arguments(node, None, 1, 0, 1, 1)
        own, at = tensor_of(self.program, weight), self._at(x)
        if own is None or isinstance(padding, str) or at.flat:
            raise Unknown("a convolution of another kind")
        if self._thin(node, own, at, found):
            return
        y = self._new(found.end)
        depthwise = groups == at.size[0] == len(own) and own.shape[1] == 1 and groups > 1
        if groups != 1 and not depthwise and (at.size[0], len(own)) != (at.wide, y.wide):
            raise Unknown("groups that fill no vectors")
        more = (0 if depthwise or groups != 1 else at.wide - at.size[0], y.wide - len(own))
        if at.wide % self.few and (depthwise or groups != 1):
            raise Unknown("channels that fill no vectors")
        own = F.pad(own, (0, 0, 0, 0, 0, more[0], 0, more[1]))
        added = self._bias(tensor_of(self.program, bias), y)
        windows = (pair(stride), pair(padding), pair(dilation))
        shape = (self.shapes.wanted[x][0], at.wide, *at.size[1:])
        conv = Conv(own, added, *windows, at.wide if depthwise else int(groups), shape, found.activation)
        self._put_conv(conv, at, y, found, of=str(weight.target))

    def _thin(self, node: fx.Node, own: Tensor, at: Place, found: Around) -> bool:
        """Put a convolution to few channels, with a pooling behind it, if the kernel for them does it."""
        _, _, bias, stride, padding, dilation, groups = arguments(node, None, 1, 0, 1, 1)
        (outs, ins, kh, kw), wide = own.shape, -(-len(own) // 4) * 4
        vector, pool = there().panel // 2, halving(only_user(found.end))
        pixels = vector // wide
        if self.half or groups != 1 or found.other is not None or kh not in (3, 5) or pixels < 2:
            return False
        if {*pair(stride), *pair(dilation)} != {1} or (pixels - 1) * at.wide >= vector:
            return False
        end = pool or found.end
        across = self.shapes.wanted[found.end][3] // (2 if pool else 1) * (2 if pool else 1)
        if not any_width(found.end) or across < pixels:
            return False
        y = self.places[end] = replace(self._new(end), wide=wide)
        added = tensor_of(self.program, bias)
        added = None if added is None else F.pad(added, (0, wide - outs)).repeat(pixels)
        packed = pack_thin(F.pad(own, (0, 0, 0, 0, 0, 0, 0, wide - outs)), lanes=vector)
        window, macs = (
            Window(kh, kw, 1, 1, *pair(padding), 1, 1),
            own.numel() * math.prod(self.shapes.wanted[found.end][2:]),
        )
        kind = "thin largest" if pool else "thin"
        self._put(Layer(kind, at, y, None, packed, added, window, ins, after_of(found.activation), macs), "own")
        if pool:
            self.taken.add(pool)
            self.counts[POOLING] = self.counts.get(POOLING, 0) + 1
        return True

    def _put_conv(self, conv: Conv, x: Place, y: Place, found: Around, *, of: str = "") -> None:
        """`of`: the name of its weights, if they are a filled up copy of those."""
        other = None if found.other is None else self._at(found.other)
        way, name = self._half_way(conv) if self.half else self._way(conv, added=other is not None)
        per = conv.weight.shape[1] if way == "grouped" else conv.groups
        places, form = y.size[1] * y.size[2], _HALF.get(way, way) if self.half else way
        key = (of, form, conv.weight.shape, conv.groups)
        if not of or key not in self.packed:
            self.packed[key] = pack(form, conv.weight, groups=conv.groups)
        after, macs = after_of(found.activation), conv.weight.numel() * places
        self._put(Layer(way, x, y, other, self.packed[key], conv.bias, conv.window(), per, after, macs, conv), name)

    def _way(self, conv: Conv, *, added: bool) -> tuple[str, str]:
        """The quickest of our kernels, and its name."""
        known = {name: way for name, way in self.ways.items() if takes(way, conv, added=added)}
        if not known:
            raise Unknown("a convolution of another kind")
        runs: dict[str, Callable[[], Run]] = {n: lambda way=way: by_own(conv, way) for n, way in known.items()}
        name = chosen(runs, conv, added=added)
        return known[name], name

    def _half_way(self, conv: Conv) -> tuple[str, str]:
        """The kernel that does it in bfloat16, and its name."""
        outs, ins = len(conv.weight) // conv.groups, conv.weight.shape[1]
        if conv.groups > 1 and outs == ins in (1, 2, 4, 8):
            return "grouped", "own depthwise"
        full = (conv.groups == 1 and outs == self.few) or outs % self.lanes == 0
        if not full or (ins % self.lanes and (conv.groups > 1 or conv.dilation[1] > 1)):
            raise Unknown("a convolution of another kind")
        return "tiles", "in tiles"

    def _linear(self, node: fx.Node, found: Around) -> None:
        x, weight, bias = arguments(node, None)
        own, at = tensor_of(self.program, weight), self._any(x)
        if own is None or not (at.flat or at.last):
            raise Unknown("a linear layer of another kind")
        y = self._new(found.end, last=at.last and found.other is None)
        c, h, w = at.size
        if at.flat:
            own = F.pad(own.reshape(-1, c, h, w).permute(0, 2, 3, 1), (0, at.wide - c)).flatten(1)
            at = Place(at.number, (own.shape[1], 1, 1), own.shape[1], flat=True)
        own = F.pad(own, (0, at.wide - own.shape[1], 0, y.wide - len(own)))[..., None, None]
        added, shape = self._bias(tensor_of(self.program, bias), y), (self.shapes.wanted[x][0], at.wide, *at.size[1:])
        conv = Conv(own, added, (1, 1), (0, 0), (1, 1), 1, shape, found.activation)
        self._put_conv(conv, at, y, found)

    def _bias(self, bias: Tensor | None, y: Place) -> Tensor | None:
        return None if bias is None else F.pad(bias, (0, y.wide - len(bias)))

    def _transposed(self, node: fx.Node, found: Around) -> None:
        """As a convolution to the outputs of all phases, which are then laid side by side."""
        x, at = arguments(node)[0], self._at(arguments(node)[0])
        shape = (self.shapes.wanted[x][0], at.wide, *at.size[1:])
        conv = in_phases(self.program, node, shape, fill=self._fill(found.end), lanes=self.lanes)
        if conv is None:
            raise Unknown(str(node.target))
        apart = self._next(Place(0, (len(conv.weight), *at.size[1:]), len(conv.weight)))
        self._put_conv(conv, at, apart, Around(node, None, NONE))
        self._unfold(apart, found, pair(arguments(node)[3])[0])

    def _unfold(self, apart: Place, found: Around, times: int) -> None:
        """The outputs of all phases side by side, and a map that is made larger added."""
        y, other, window = self._new(found.end), None, Window(0, 0, 0, 0, 0, 0, 1, 1)
        y = self.places[found.end] = replace(y, wide=-(-y.size[0] // self._fill(found.end)) * self._fill(found.end))
        if found.other is not None:
            coarse, _, corners, factors = arguments(found.other, None, None)
            other = self._at(coarse)
            if factors is not None:
                raise Unknown(str(found.other.target))
            window = Window(*other.size[1:], other.wide, int(corners), 0, 0, 1, 1)
        self._put(Layer("unfolded", apart, y, other, window=window, per=times))
