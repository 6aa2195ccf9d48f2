"""The fused form of a network: what stands around a convolution is done while its output is still in registers.

torch.fx traces the network. Normalisation is folded into the convolution before it; an activation, or the addition of
another path and its ReLU, becomes part of the convolution; weights are laid out once, as oneDNN wants them. Where
Winograd's convolution in our own kernels is faster on this machine, with the same things fused, it takes the place.
"""

import copy
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
from convscope.layers.fast.compiled import After, Window, kernels
from convscope.layers.fast.operators import can, pack, there

LAST = torch.channels_last
CLOSE = 1e-4  # largest difference from the network, as a share of the largest value of an output
_GAIN = 0.97  # Winograd takes at most so much of oneDNN's time: less is noise
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
class WinogradConv(nn.Module):
    """A 3x3 convolution by our own kernel, another array added and a ReLU applied before it writes its sums."""

    def __init__(self, conv: nn.Conv2d, activation: Activation) -> None:
        super().__init__()
        self.packed = pack("winograd", conv.weight.detach(), groups=conv.groups)
        self.bias = None if conv.bias is None else conv.bias.detach()
        self.window = Window(3, 3, *conv.stride, *_pair(conv.padding), *conv.dilation)
        self.groups, self.relu = conv.groups, activation == RELU

    def forward(self, x: Tensor, other: Tensor | None = None) -> Tensor:
        added = None if other is None else other.contiguous(memory_format=LAST)
        after = After(self.bias, added, self.relu)
        return there().winograd(x.contiguous(memory_format=LAST), self.packed, after, self.window, self.groups)


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
    `counts` says how many normalisations were folded, and how many convolutions run on oneDNN and on Winograd.
    Raises: ModelError if torch.fx cannot trace the network, or the result differs by more than 0.0001 of the largest
    output.

    >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU()).eval()
    >>> fuse(net, torch.zeros(1, 3, 8, 8)).counts
    {'folded': 1, 'oneDNN': 1, 'Winograd': 0}
    """
    own = named_outputs(model.eval()(example))
    found = _fused(model, example, winograd=kernels() is not None)
    if found.counts["Winograd"] and not difference(own, named_outputs(found(example))) <= CLOSE:
        found = _fused(model, example, winograd=False)
    off = difference(own, named_outputs(found(example)))
    if not off <= CLOSE:
        raise ModelError(f"the fused form differs by {off:.2g} of the largest output")
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


def _fused(model: nn.Module, example: Tensor, *, winograd: bool) -> Fused:
    graph = _traced(model)
    counts = {"folded": _fold(graph), "oneDNN": 0, "Winograd": 0}
    ShapeProp(graph).propagate(example.contiguous(memory_format=LAST))
    chosen: dict[Any, bool] = {}
    for node in list(graph.graph.nodes):
        conv = _conv(graph, node)
        if conv is None or not torch.backends.mkldnn.is_available():
            continue
        end, other, activation = _around(graph, node)
        shape = tuple(node.args[0].meta["tensor_meta"].shape)
        module: nn.Module = FusedConv(conv, activation, shape)
        if winograd and activation in (NONE, RELU) and _is_winograds(conv):
            key = (shape, conv.weight.shape, conv.padding, conv.dilation, conv.groups, other is None, activation)
            ours = WinogradConv(conv, activation)
            if key not in chosen:
                chosen[key] = _is_faster(ours, module, shape, added=other is not None)
            module = ours if chosen[key] else module
        counts["Winograd" if isinstance(module, WinogradConv) else "oneDNN"] += 1
        _put(graph, node, module, end, other)
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
            f"torch.fx cannot trace the network ({lines[0][:200] if lines else type(error).__name__})"
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


def _is_winograds(conv: nn.Conv2d) -> bool:
    return conv.kernel_size == (3, 3) and can("winograd", conv.weight, stride=conv.stride, groups=conv.groups)


def _is_faster(ours: nn.Module, other: nn.Module, shape: tuple[int, ...], *, added: bool) -> bool:
    x = torch.randn(shape).contiguous(memory_format=LAST)
    given = (x, other(x)) if added else (x,)
    times = compare({"ours": lambda: ours(*given), "other": lambda: other(*given)}, rounds=9, at_least=1e-3)
    return times["ours"].over(times["other"]) < _GAIN


def _pair(value: Any) -> list[int]:
    return [value, value] if isinstance(value, int) else list(value)
