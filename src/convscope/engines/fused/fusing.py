"""The fused form of a program: what stands around a layer is done while its output is still in registers.

An activation, or the addition of another path and its ReLU, becomes part of the convolution; weights are laid out once,
as oneDNN wants them. Where one of our own kernels (Winograd's, 1x1, depthwise, in tiles, pooling) is faster on this
machine, with the same things fused, it takes the place. What was measured is kept in the user's cache folder.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx, nn

from convscope.clock import cache, compare
from convscope.engines.fused import layers
from convscope.engines.fused.layers import KNOWN, LAST, NONE, RELU, Activation, Conv, Run
from convscope.engines.fused.program import Program, arguments
from convscope.engines.fused.simplify import CONV, LINEAR, is_call, tensor_of
from convscope.layers.fast.choose import fastest
from convscope.layers.fast.compiled import digest
from convscope.layers.fast.forms import AveragePool, MaxPool

ONEDNN, LINEARS, POOLING = "oneDNN", "oneDNN linear", "own pooling"
OWN: Mapping[str, str] = {
    "Winograd": "winograd", "own 1x1": "pointwise", "own depthwise": "grouped", "own": "dense", "in tiles": "tiles",
}  # fmt: skip
COUNTED = (ONEDNN, LINEARS, *OWN, POOLING)
_GAIN = 0.97  # our own kernel takes at most so much of oneDNN's time: less is noise


class Around(NamedTuple):
    """What a layer takes in: the last node of it, the array that is added, the activation."""

    end: fx.Node
    other: fx.Node | None
    activation: Activation


@dataclass(frozen=True, slots=True)
class Shapes:
    """The shape of every value, for the wanted batch and for another one."""

    wanted: dict[fx.Node, tuple[int, ...]] = field(default_factory=dict)
    another: dict[fx.Node, tuple[int, ...]] = field(default_factory=dict)

    def equal(self, a: fx.Node, b: fx.Node) -> bool:
        """Whether they have one shape whatever the batch."""
        return all(a in of and of[a] == of.get(b) for of in (self.wanted, self.another))


def rewrite(program: Program, example: Tensor, *, ways: Mapping[str, str]) -> dict[str, int]:
    """Bring the program into its fused form; how many layers run on oneDNN and on each own kernel.

    Shapes: example NxCxHxW, the size that weights are laid out for.
    """
    counts, shapes = dict.fromkeys(COUNTED, 0), shapes_of(program, example)
    if torch.backends.mkldnn.is_available():
        for node in [*program.graph.nodes]:
            way = _rewritten(program, node, shapes, ways)
            counts |= {way: counts[way] + 1} if way else {}
        program.tidy()
    return counts


def _rewritten(program: Program, node: fx.Node, shapes: Shapes, ways: Mapping[str, str]) -> str:
    if is_call(node, CONV):
        return _conv(program, node, shapes, ways)
    if is_call(node, LINEAR):
        return _linear(program, node, shapes)
    if ways and is_call(node, "aten.max_pool2d.default", "aten.avg_pool2d.default"):
        return _pool(node, shapes)
    return ""


def shapes_of(program: Program, example: Tensor) -> Shapes:
    """The shapes of all values for a batch like the example, and for one with a picture more."""
    found = Shapes()
    for x, into in ((example, found.wanted), (torch.cat([example, example[:1]]), found.another)):
        program.run(x, watch=lambda n, v, into=into: into.update({n: tuple(v.shape)} if isinstance(v, Tensor) else {}))
    return found


def _conv(program: Program, node: fx.Node, shapes: Shapes, ways: Mapping[str, str]) -> str:
    x, weight, bias, stride, padding, dilation, groups = arguments(node, None, 1, 0, 1, 1)
    own, shape = tensor_of(program, weight), shapes.wanted[x]
    if own is None or len(shape) != 4:
        return ""
    found = around(node, shapes, after_sum=lambda a: a == RELU)
    windows = (pair(stride), pair(padding), pair(dilation))
    conv = Conv(own, tensor_of(program, bias), *windows, int(groups), shape, found.activation)
    added = found.other is not None
    known = {name: way for name, way in ways.items() if layers.takes(way, conv, added=added)}
    runs: dict[str, Callable[[], Run]] = {ONEDNN: lambda: layers.by_onednn(conv, added=added)}
    runs |= {name: lambda way=way: layers.by_own(conv, way) for name, way in known.items()}
    name = chosen(runs, conv, added=added)
    _put(program, node, runs[name](), found, shapes)
    return name


def _linear(program: Program, node: fx.Node, shapes: Shapes) -> str:
    x, weight, bias = arguments(node, None)
    own, shape = tensor_of(program, weight), shapes.wanted[x]
    if own is None or len(shape) < 2:
        return ""
    found = around(node, shapes, after_sum=lambda a: False)
    rows = torch.Size(shape[:-1]).numel()
    run = layers.linear(own, tensor_of(program, bias), rows, found.activation, added=found.other is not None)
    _put(program, node, run, found, shapes)
    return LINEARS


def _pool(node: fx.Node, shapes: Shapes) -> str:
    """Pooling by our own kernel, if that is the fastest way."""
    shape = shapes.wanted[arguments(node)[0]]
    kind = nn.MaxPool2d if "max" in str(node.target) else nn.AvgPool2d
    pool = kind(*arguments(node)[1:2], *([v or None for v in arguments(node)[2:3]]), *arguments(node)[3:])
    form = fastest(pool, torch.randn(shape).contiguous(memory_format=LAST)).module if len(shape) == 4 else None
    if not isinstance(form, MaxPool | AveragePool):
        return ""
    node.target, node.args = form.run, arguments(node)[:1]
    return POOLING


def around(
    node: fx.Node, shapes: Shapes, *, after_sum: Callable[[Activation], bool], taken: Collection[fx.Node] = ()
) -> Around:
    """What the layer can take in; `after_sum` says which activations behind a sum, `taken` what others take in."""
    end, other = node, None
    user = only_user(node)
    if user is not None and user not in taken and is_call(user, "aten.add.Tensor") and not user.kwargs:
        others = [a for a in user.args if a is not node]
        if len(others) == 1 and isinstance(others[0], fx.Node) and shapes.equal(others[0], node):
            end, other = user, others[0]
    after = only_user(end)
    activation = NONE if after is None else activation_of(after)
    if after is None or activation == NONE or (other is not None and not after_sum(activation)):
        return Around(end, other, NONE)
    return Around(after, other, activation)


def activation_of(node: fx.Node) -> Activation:
    """The activation that the node calls; NONE if it calls something else."""
    family, _, rest = str(node.target).partition(".")
    make = KNOWN.get(rest.partition(".")[0]) if family == "aten" and node.op == "call_function" else None
    return make(*arguments(node)[1:], **node.kwargs) if make else NONE


def _put(program: Program, node: fx.Node, run: Run, found: Around, shapes: Shapes) -> None:
    """The run in place of everything from the layer to the end of what it takes in."""
    end, other, _ = found
    with program.graph.inserting_after(end):
        new = program.graph.call_function(run, (arguments(node)[0],) if other is None else (arguments(node)[0], other))
    end.replace_all_uses_with(new)
    for of in (shapes.wanted, shapes.another):
        of[new] = of[end]


def only_user(node: fx.Node) -> fx.Node | None:
    """The one node that reads it, if there is one alone."""
    return next(iter(node.users)) if len(node.users) == 1 else None


def chosen(runs: Mapping[str, Callable[[], Run]], conv: Conv, *, added: bool) -> str:
    """The first of the runs, unless another one takes less on this machine."""
    if len(runs) == 1:
        return next(iter(runs))
    key = {**cache.here(), "kernels": digest(), "layer": conv.key(), "added": added, "ways": [*runs]}
    kept: Any = cache.load("fused", key)
    if kept not in runs:
        kept = _fastest({name: make() for name, make in runs.items()}, conv, added=added)
        cache.save("fused", key, kept)
    return kept


def _fastest(runs: Mapping[str, Run], conv: Conv, *, added: bool) -> str:
    x = torch.randn(conv.shape).contiguous(memory_format=LAST)
    shape = (conv.shape[0], len(conv.weight), *conv.window().out(*conv.shape[2:]))
    given = (x, torch.randn(shape).contiguous(memory_format=LAST)) if added else (x,)
    times = compare({name: lambda run=run: run(*given) for name, run in runs.items()}, rounds=25, at_least=1e-3,
                    at_most=0.5)  # fmt: skip
    first = next(iter(runs))
    best = min(times, key=lambda name: times[name].over(times[first]))
    return best if times[best].over(times[first]) < _GAIN else first


def pair(value: Any) -> tuple[int, int]:
    """One number for each of the two axes."""
    if isinstance(value, int):
        return value, value
    first, *rest = value
    return first, rest[0] if rest else first
