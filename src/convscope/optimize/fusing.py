"""The fused form of a network: what stands around a convolution is done while its output is still in registers.

torch.fx traces the network. Normalisation is folded into the convolution before it; an activation, or the addition of
another path and its ReLU, becomes part of the convolution; weights are laid out once, as oneDNN wants them. Where one
of our own kernels (Winograd's, 1x1, depthwise, pooling) is faster on this machine, with the same things fused, it takes
the place.
"""

import copy
import math
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, final

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch.fx.passes.shape_prop import ShapeProp
from torch.nn.utils.fusion import fuse_conv_bn_eval

from convscope.clock import compare
from convscope.engines import named_outputs
from convscope.errors import ModelError
from convscope.layers.fast.choose import fastest
from convscope.layers.fast.compiled import After, Window
from convscope.layers.fast.forms import AveragePool, MaxPool
from convscope.layers.fast.operators import can, pack, there

LAST = torch.channels_last
CLOSE = 1e-4  # largest difference from the network, as a share of the largest value of an output
ONEDNN, POOLING = "oneDNN", "own pooling"
OWN: Mapping[str, str] = {"Winograd": "winograd", "own 1x1": "pointwise", "own depthwise": "grouped"}
_GAIN = 0.97  # our own kernel takes at most so much of oneDNN's time: less is noise
_ONEDNN = torch.ops.mkldnn


@dataclass(frozen=True, slots=True)
class Activation:
    """An activation as oneDNN knows it: its name there, its numbers and its algorithm."""

    name: str = "none"
    numbers: tuple[float, ...] = ()
    algorithm: str = ""


NONE, RELU = Activation(), Activation("relu")
_MODULES: Mapping[type[nn.Module], Callable[[Any], Activation]] = {
    nn.ReLU: lambda m: RELU,
    nn.ReLU6: lambda m: Activation("hardtanh", (0.0, 6.0)),
    nn.Hardtanh: lambda m: Activation("hardtanh", (m.min_val, m.max_val)),
    nn.LeakyReLU: lambda m: Activation("leaky_relu", (m.negative_slope,)),
    nn.SiLU: lambda m: Activation("swish"),
    nn.Hardswish: lambda m: Activation("hardswish"),
    nn.GELU: lambda m: Activation("gelu", algorithm=m.approximate),
    nn.Sigmoid: lambda m: Activation("sigmoid"),
    nn.Tanh: lambda m: Activation("tanh"),
}
_RELUS = (F.relu, torch.relu, torch.relu_, "relu", "relu_")
_ADDITIONS = (operator.add, operator.iadd, torch.add, "add", "add_")


@final
class FusedConv(nn.Module):
    """A convolution by oneDNN, with an activation in it, or with another array added and an activation after that."""

    def __init__(self, conv: nn.Conv2d, activation: Activation, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.window = (_pair(conv.padding), list(conv.stride), list(conv.dilation), conv.groups)
        self.packed = _ONEDNN._reorder_convolution_weight(conv.weight.detach(), *self.window, list(shape))
        self.bias = None if conv.bias is None else conv.bias.detach()
        self.activation = activation

    def forward(self, x: Tensor, other: Tensor | None = None) -> Tensor:
        a, given = self.activation, (self.packed, self.bias, *self.window)
        if other is None:
            return _ONEDNN._convolution_pointwise(x, *given, a.name, list(a.numbers), a.algorithm)
        after = None if a == NONE else a.name
        return _ONEDNN._convolution_pointwise.binary(x, other, *given, "add", 1.0, after, list(a.numbers), a.algorithm)


@final
class OwnConv(nn.Module):
    """A convolution by one of our own kernels, another array added and bounds kept before it writes its sums."""

    def __init__(self, conv: nn.Conv2d, activation: Activation, way: str) -> None:
        super().__init__()
        self.way, self.channels, self.groups = way, conv.out_channels, conv.groups
        self.packed = pack(way, conv.weight.detach(), groups=conv.groups)
        self.bias = None if conv.bias is None else conv.bias.detach()
        self.window = Window(*_pair(conv.kernel_size), *conv.stride, *_pair(conv.padding), *conv.dilation)
        self.low, self.high = _bounds(activation) or (-math.inf, math.inf)

    def forward(self, x: Tensor, other: Tensor | None = None) -> Tensor:
        added = None if other is None else other.contiguous(memory_format=LAST)
        after, x = After(self.bias, added, self.low, self.high), x.contiguous(memory_format=LAST)
        if self.way == "pointwise":
            return there().pointwise(x, self.packed, after, self.channels)
        if self.way == "grouped":
            return there().grouped(x, self.packed, after, self.window)
        return there().winograd(x, self.packed, after, self.window, self.groups)


class Fused(nn.Module):
    """The traced network, given its input in channels last."""

    def __init__(self, graph: fx.GraphModule, counts: Mapping[str, int]) -> None:
        super().__init__()
        self.graph = graph
        self.counts = dict(counts)

    def forward(self, x: Tensor) -> Any:
        return self.graph(x.contiguous(memory_format=LAST))


@torch.no_grad()
def fuse(model: nn.Module, example: Tensor) -> Fused:
    """The network in its fused form, for float32 on the CPU and without gradients; the model stays as it is.

    Shapes: example NxCxHxW, the size that weights are laid out for; other sizes are taken as well.
    `counts` says how many normalisations were folded, and how many layers run on oneDNN and on each own kernel.
    Raises: ModelError if torch.fx cannot trace the network, or the result differs by more than 0.0001 of the largest
    output.

    >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU()).eval()
    >>> fuse(net, torch.zeros(1, 3, 8, 8)).counts
    {'folded': 1, 'oneDNN': 1, 'Winograd': 0, 'own 1x1': 0, 'own depthwise': 0, 'own pooling': 0}
    """
    own = named_outputs(model.eval()(example))
    found = _fused(model, example, ways=OWN)
    if found.counts["Winograd"] and not difference(own, named_outputs(found(example))) <= CLOSE:
        found = _fused(model, example, ways={name: way for name, way in OWN.items() if way != "winograd"})
    off = difference(own, named_outputs(found(example)))
    if not off <= CLOSE:
        raise ModelError(f"fusing: the fused form differs by {off:.2g} of the largest output; it is left out")
    return found


@torch.no_grad()
def fold(model: nn.Module, example: Tensor) -> Fused:
    """The network with each normalisation folded into the convolution before it; the rest is PyTorch's own.

    Raises: ModelError if torch.fx cannot trace the network.
    """
    graph = _traced(model)
    counts = {"folded": _fold(graph)}
    graph.graph.eliminate_dead_code()
    graph.recompile()
    return Fused(graph.to(memory_format=LAST), counts)


def difference(own: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> float:
    """The largest difference of any output, as a share of that output's largest value."""
    shares = [
        float((other[n].float() - t.float()).abs().max() / t.abs().max().clamp_min(1e-30)) for n, t in own.items()
    ]
    return max(shares, key=lambda s: s if s == s else float("inf"))  # NaN is the worst


def _fused(model: nn.Module, example: Tensor, *, ways: Mapping[str, str]) -> Fused:
    graph = _traced(model)
    counts = {"folded": _fold(graph), ONEDNN: 0, **dict.fromkeys(OWN, 0)}
    ShapeProp(graph).propagate(example.contiguous(memory_format=LAST))
    chosen: dict[Any, str] = {}
    for node in list(graph.graph.nodes):
        conv = _conv(graph, node)
        if conv is None or not torch.backends.mkldnn.is_available():
            continue
        end, other, activation = _around(graph, node)
        shape = tuple(node.args[0].meta["tensor_meta"].shape)
        window = (conv.weight.shape, conv.stride, conv.padding, conv.dilation, conv.groups)
        key = (shape, *window, other is None, activation)
        forms: dict[str, nn.Module] = {ONEDNN: FusedConv(conv, activation, shape)}
        for name, way in ways.items():
            if chosen.get(key, name) == name and _takes(way, conv, activation, added=other is not None):
                forms[name] = OwnConv(conv, activation, way)
        if key not in chosen:
            chosen[key] = _fastest(forms, shape, added=other is not None)
        counts[chosen[key]] += 1
        _put(graph, node, forms[chosen[key]], end, other)
    counts[POOLING] = _pool(graph)
    graph.graph.eliminate_dead_code()
    graph.graph.lint()
    graph.recompile()
    return Fused(graph, counts)


def _traced(model: nn.Module) -> fx.GraphModule:
    try:
        return fx.symbolic_trace(copy.deepcopy(model).eval())
    except Exception as error:
        lines = str(error).strip().splitlines()
        raise ModelError(
            f"fusing: torch.fx cannot trace the network ({lines[0][:200] if lines else type(error).__name__}); "
            "keep its path free of values"
        ) from error


def _fold(graph: fx.GraphModule) -> int:
    count = 0
    for node in list(graph.graph.nodes):
        before = node.args[0] if node.op == "call_module" and node.args else None
        if not isinstance(before, fx.Node) or type(_module(graph, node)) is not nn.BatchNorm2d:
            continue
        conv, norm = _module(graph, before), graph.get_submodule(str(node.target))
        alone = len(before.users) == 1 and _is_called_once(graph, before) and _is_called_once(graph, node)
        if type(conv) is nn.Conv2d and alone and norm.running_mean is not None:
            graph.set_submodule(str(before.target), fuse_conv_bn_eval(conv, norm))  # pyright: ignore[reportArgumentType]
            node.replace_all_uses_with(before)
            graph.graph.erase_node(node)
            count += 1
    return count


def _pool(graph: fx.GraphModule) -> int:
    """Every pooling in its fastest way; how many are not PyTorch's."""
    count = 0
    for node in graph.graph.nodes:
        pool, given = _module(graph, node), node.args[0] if node.args else None
        shape = _shape(given) if isinstance(given, fx.Node) else None
        if isinstance(pool, nn.MaxPool2d | nn.AvgPool2d) and shape and len(shape) == 4:
            form = fastest(pool, torch.randn(shape).contiguous(memory_format=LAST)).module
            if isinstance(form, MaxPool | AveragePool):
                graph.set_submodule(str(node.target), form)
                count += 1
    return count


def _conv(graph: fx.GraphModule, node: fx.Node) -> nn.Conv2d | None:
    """The node's convolution, if it is one that oneDNN's operators take as it is."""
    conv = _module(graph, node)
    if type(conv) is not nn.Conv2d or conv.padding_mode != "zeros" or isinstance(conv.padding, str):
        return None
    shape = _shape(node.args[0]) if isinstance(node.args[0], fx.Node) else None
    return conv if shape and len(shape) == 4 and conv.weight.dtype == torch.float32 else None


def _around(graph: fx.GraphModule, node: fx.Node) -> tuple[fx.Node, fx.Node | None, Activation]:
    """The last node that the convolution can take in, the array that is added, and the activation."""
    end, other = node, None
    user = _only_user(node)
    if user is not None and _is_addition(user):
        others = [a for a in user.args if a is not node]
        if len(others) == 1 and isinstance(others[0], fx.Node) and _shape(others[0]) == _shape(node):
            end, other = user, others[0]
    after = _only_user(end)
    activation = NONE if after is None else _activation(graph, after)
    if after is None or activation == NONE or (other is not None and activation != RELU):
        return end, other, NONE
    return after, other, activation


def _put(graph: fx.GraphModule, node: fx.Node, module: nn.Module, end: fx.Node, other: fx.Node | None) -> None:
    """The module in place of everything from the convolution to `end`."""
    name = f"fused_{node.name}"
    graph.add_submodule(name, module)
    with graph.graph.inserting_after(end):
        given = (node.args[0],) if other is None else (node.args[0], other)
        new = graph.graph.call_module(name, given)
    new.meta = dict(end.meta)
    end.replace_all_uses_with(new)
    while end is not node:  # nobody reads them any more; in-place ones would not count as dead
        before = end.all_input_nodes
        graph.graph.erase_node(end)
        end = node if node in before else next(n for n in before if n.op != "placeholder" and not n.users)
    graph.graph.erase_node(node)


def _module(graph: fx.GraphModule, node: fx.Node) -> nn.Module | None:
    return graph.get_submodule(str(node.target)) if node.op == "call_module" else None


def _is_called_once(graph: fx.GraphModule, node: fx.Node) -> bool:
    return sum(n.op == "call_module" and n.target == node.target for n in graph.graph.nodes) == 1


def _only_user(node: fx.Node) -> fx.Node | None:
    return next(iter(node.users)) if len(node.users) == 1 else None


def _is_addition(node: fx.Node) -> bool:
    return node.op in ("call_function", "call_method") and node.target in _ADDITIONS and not node.kwargs


def _activation(graph: fx.GraphModule, node: fx.Node) -> Activation:
    module = _module(graph, node)
    if module is not None:
        make = _MODULES.get(type(module))
        return make(module) if make else NONE
    is_relu = node.op in ("call_function", "call_method") and node.target in _RELUS
    return RELU if is_relu else NONE


def _shape(node: fx.Node) -> tuple[int, ...] | None:
    meta = node.meta.get("tensor_meta")
    return tuple(meta.shape) if meta is not None and hasattr(meta, "shape") else None


def _bounds(activation: Activation) -> tuple[float, float] | None:
    """What an activation that only bounds keeps its values between."""
    if activation == RELU:
        return 0.0, math.inf
    if activation == NONE:
        return -math.inf, math.inf
    return (activation.numbers[0], activation.numbers[1]) if activation.name == "hardtanh" else None


def _takes(way: str, conv: nn.Conv2d, activation: Activation, *, added: bool) -> bool:
    """Whether our own kernel does this convolution with what stands around it."""
    if _bounds(activation) is None or not can(way, conv.weight, stride=conv.stride, groups=conv.groups):
        return False
    if way == "pointwise":
        return _pair(conv.padding) == [0, 0]
    return conv.kernel_size == (3, 3) if way == "winograd" else not added


def _fastest(forms: Mapping[str, nn.Module], shape: tuple[int, ...], *, added: bool) -> str:
    """oneDNN's form, unless one of our own takes less."""
    if len(forms) == 1:
        return ONEDNN
    x = torch.randn(shape).contiguous(memory_format=LAST)
    given = (x, forms[ONEDNN](x)) if added else (x,)
    runs = {name: lambda form=form: form(*given) for name, form in forms.items()}
    times = compare(runs, rounds=25, at_least=1e-3)
    best = min(times, key=lambda name: times[name].over(times[ONEDNN]))
    return best if times[best].over(times[ONEDNN]) < _GAIN else ONEDNN


def _pair(value: Any) -> list[int]:
    return [value, value] if isinstance(value, int) else list(value)
