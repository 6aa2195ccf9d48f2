"""Program: a network as the list of PyTorch's operators that it calls, and its tensors; as a file that runs no code.

torch.export lists the operators. The file is a safetensors file: the tensors, and beside the card the list as JSON. It
holds names of operators from `OPERATORS` alone: all compute tensors from tensors, and none reads or writes elsewhere.
"""

import json
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx.node import map_arg

from convscope.engines.card import KEY, Card
from convscope.engines.outputs import Flat
from convscope.errors import ModelError, first_line

GRAPH = "graph"
FORMAT = 1
_WORDS = """
_adaptive_avg_pool2d _log_softmax _native_batch_norm_legit_no_training _prelu_kernel _softmax _to_copy _unsafe_view
abs adaptive_avg_pool1d adaptive_avg_pool2d adaptive_max_pool2d add addmm alias amax amin arange argmax avg_pool1d
avg_pool2d baddbmm batch_norm bmm cat celu channel_shuffle chunk clamp clamp_max clamp_min clone col2im
constant_pad_nd contiguous conv1d conv2d conv3d conv_transpose1d conv_transpose2d cos cumsum detach div dropout einsum
elu eq erf exp expand expand_as flatten flip floor full full_like gather ge gelu group_norm gt hardsigmoid hardswish
hardtanh im2col index index_select instance_norm layer_norm le leaky_relu lift_fresh_copy linalg_vector_norm linear
linspace log log_sigmoid log_softmax logical_and logical_not logical_or lt matmul max max_pool1d max_pool2d
max_pool2d_with_indices maximum mean meshgrid min minimum mish mm mul narrow native_group_norm native_layer_norm ne
neg new_full new_ones new_zeros ones ones_like pad permute pixel_shuffle pixel_unshuffle pow prelu reciprocal
reflection_pad2d relu relu6 remainder repeat replication_pad2d reshape roll round rsqrt rsub scalar_tensor
scaled_dot_product_attention select selu sigmoid sign silu sin slice softmax softplus split split_with_sizes sqrt
squeeze stack std sub sum sym_size t tanh tile to transpose tril triu type_as unbind unflatten unsqueeze
upsample_bicubic2d upsample_bilinear2d upsample_nearest2d var view where zeros zeros_like
"""
OPERATORS = frozenset(_WORDS.split())
_ARITHMETIC: Mapping[str, Callable[..., Any]] = {
    f.__name__: f for f in (operator.getitem, operator.add, operator.sub, operator.mul, operator.floordiv, operator.neg)
}
_DROPPED = ("aten._assert_tensor_metadata", "aten._assert_scalar", "aten.sym_constrain_range")
_PLAIN = (torch.dtype, torch.device, torch.memory_format, torch.layout)  # arguments that JSON has no form for


class Program:
    """A graph of operators without side effects, its tensors (`get_attr` nodes name them) and one input."""

    def __init__(self, graph: fx.Graph, tensors: Mapping[str, Tensor]) -> None:
        self.graph, self.tensors = graph, dict(tensors)

    def copy(self) -> "Program":
        """Another graph on the same tensors."""
        graph, made = fx.Graph(), {}
        graph.output(graph.graph_copy(self.graph, made))
        for old, new in made.items():
            new.meta = dict(old.meta)
        return Program(graph, self.tensors)

    def tidy(self) -> None:
        """Drop what nobody reads."""
        for node in reversed([*self.graph.nodes]):
            if node.op in ("call_function", "get_attr") and not node.users:
                self.graph.erase_node(node)
        used = {str(n.target) for n in self.graph.nodes if n.op == "get_attr"}
        self.tensors = {name: t for name, t in self.tensors.items() if name in used}

    def behind(self, given: Sequence[fx.Node]) -> "Program":
        """What is left to do where the values of these nodes are given: of the input, and of them in this order."""
        graph, source = fx.Graph(), next(n for n in self.graph.nodes if n.op == "placeholder")
        made = {node: graph.placeholder(node.name) for node in (source, *given)}
        for node in self.graph.nodes:
            if node not in made:
                made[node] = graph.node_copy(node, made.__getitem__)
        found = Program(graph, self.tensors)
        found.tidy()
        return found

    def run(self, x: Tensor, *, watch: Callable[[fx.Node, Any], None] | None = None) -> tuple[Tensor, ...]:
        """What the network gives, operator by operator as PyTorch has them; `watch` sees every value."""
        values: dict[fx.Node, Any] = {}
        last = {read: node for node in self.graph.nodes for read in node.all_input_nodes}
        for node in self.graph.nodes:
            if node.op == "output":
                return tuple(values[n] for n in arguments(node)[0])
            given, named = map_arg((node.args, node.kwargs), values.__getitem__)
            own = {"placeholder": lambda: x, "get_attr": lambda node=node: self.tensors[str(node.target)]}
            values[node] = own[node.op]() if node.op in own else node.target(*given, **named)
            if watch:
                watch(node, values[node])
            for read in node.all_input_nodes:  # maps of large batches do not fit side by side
                if last[read] is node:
                    del values[read]
        raise ModelError("fusing: the network gives nothing; let it give tensors")

    def content(self, card: Card, *, settings: Mapping[str, Any]) -> bytes:
        """The file.

        Raises: ModelError if it uses an operator that no such file holds.
        """
        from safetensors.torch import save

        nodes = [_plain(n) for n in self.graph.nodes]
        text = json.dumps({"format": FORMAT, "nodes": nodes, **settings})
        tensors = {name: t.detach().contiguous().clone() for name, t in self.tensors.items()}
        return save(tensors, {KEY: card.text(), GRAPH: text})


def arguments(node: fx.Node, *rest: Any) -> Any:
    """What the node gives its operator, in order: nodes and plain values; `rest` stands for what may be left out.

    Its first one stands for the third argument, as bias or stride is.
    """
    return (*node.args, *rest[max(0, len(node.args) - 2) :])


def program_of(model: nn.Module, example_NCHW: Tensor) -> Program:
    """The network's operators, for any number of pictures of the example's size.

    Raises: ModelError if torch.export cannot follow the network, in its own words.
    """
    example = example_NCHW if len(example_NCHW) > 1 else torch.cat([example_NCHW, example_NCHW])
    batch = ({0: torch.export.Dim("batch")},)
    try:
        exported = torch.export.export(Flat(model).eval(), (example,), dynamic_shapes=batch).run_decompositions({})
    except Exception as error:
        raise ModelError(
            f"fusing: torch.export cannot follow the network ({first_line(error)}); keep its path free of values"
        ) from error
    return _of_export(exported)


def _of_export(exported: torch.export.ExportedProgram) -> Program:
    signature = exported.graph_signature
    if signature.buffers_to_mutate:
        names = (name.removeprefix("model.") for name in signature.buffers_to_mutate.values())
        raise ModelError(
            f"fusing: the network changes its own {', '.join(names)}; keep tensors as they are in eval mode"
        )
    held = {**exported.constants, **exported.state_dict}
    named = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
    named |= signature.inputs_to_lifted_tensor_constants
    graph, made = fx.Graph(), {}
    for node in exported.graph.nodes:
        if str(node.target).startswith(_DROPPED):
            continue
        if node.op == "placeholder" and node.name in named:
            made[node] = graph.get_attr(named[node.name])
        else:
            made[node] = graph.node_copy(node, made.__getitem__)
            made[node].meta = {}
    found = Program(graph, {name: held[name].detach() for name in named.values()})
    found.tidy()
    return found


def program_from(content: bytes, *, source: str) -> tuple[Program, Card, Mapping[str, Any]]:
    """The program in a file, its card and its settings.

    Raises: ModelError if it is damaged, of a later format, or not convscope's.
    """
    from safetensors import SafetensorError, deserialize
    from safetensors.torch import load

    try:
        deserialize(content)
        size = int.from_bytes(content[:8], "little")
        said = json.loads(content[8 : 8 + size]).get("__metadata__", {})
        tensors = load(content)
    except (SafetensorError, ValueError, KeyError, RecursionError) as error:
        raise ModelError(f"{source}: is no file of a fused network ({error}); optimize again") from None
    card = Card.read(said.get(KEY), source=source)
    try:
        facts = json.loads(said[GRAPH])
        if facts.pop("format") != FORMAT:
            raise ModelError(f"{source}: is of a later format; upgrade convscope")
        return _of_nodes(facts.pop("nodes"), tensors), card, facts
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError, RecursionError) as error:
        raise ModelError(f"{source}: its list of operators is damaged ({error}); optimize again") from None


def is_pure(node: fx.Node) -> bool:
    """Whether the node calls one of the operators that a file may hold: they compute tensors from tensors alone."""
    named = isinstance(node.target, torch._ops.OpOverload)
    return node.op == "call_function" and _is_held(str(node.target) if named else getattr(node.target, "__name__", ""))


def _is_held(name: str) -> bool:
    family, _, rest = name.partition(".")
    return name in _ARITHMETIC or (family == "aten" and rest.partition(".")[0] in OPERATORS)


def _plain(node: fx.Node) -> dict[str, Any]:
    target = str(node.target) if node.op != "call_function" else _name(node.target)
    return {"op": node.op, "name": node.name, "target": target, "args": _argument(node.args),
            "kwargs": {k: _argument(v) for k, v in node.kwargs.items()}}  # fmt: skip


def _name(target: Any) -> str:
    name = str(target) if isinstance(target, torch._ops.OpOverload) else getattr(target, "__name__", "?")
    _target(name)
    return name


def _target(name: str) -> Callable[..., Any]:
    """The operator of that name, if it is one of those that a file may hold."""
    if name in _ARITHMETIC:
        return _ARITHMETIC[name]
    word, _, overload = name.removeprefix("aten.").partition(".")
    found = getattr(getattr(torch.ops.aten, word), overload, None) if _is_held(name) and overload else None
    if not isinstance(found, torch._ops.OpOverload):
        raise ModelError(f"fusing: no file holds the operator {name}; use another format")
    return found


def _argument(value: Any) -> Any:
    if isinstance(value, fx.Node):
        return {"node": value.name}
    if isinstance(value, list | tuple):
        return [_argument(v) for v in value]
    if isinstance(value, _PLAIN):
        return {"torch": str(value).removeprefix("torch."), "kind": type(value).__name__}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise ModelError(f"fusing: no file holds an argument of kind {type(value).__name__}; use another format")


def _restored(value: Any, nodes: Mapping[str, fx.Node]) -> Any:
    if isinstance(value, list):
        return [_restored(v, nodes) for v in value]
    if not isinstance(value, dict):
        return value
    if "node" in value:
        return nodes[value["node"]]
    found = torch.device("cpu") if value["kind"] == "device" else getattr(torch, value["torch"])
    if not isinstance(found, _PLAIN):
        raise ValueError(f"{value['torch']} is no plain value")
    return found


def _of_nodes(told: list[Mapping[str, Any]], tensors: Mapping[str, Tensor]) -> Program:
    graph, nodes = fx.Graph(), {}
    for one in told:
        name, op, target = one["name"], one["op"], one["target"]
        args = tuple(_restored(one["args"], nodes))
        kwargs = {str(k): _restored(v, nodes) for k, v in one["kwargs"].items()}
        if op == "get_attr":
            tensors[target]
        if op not in ("placeholder", "get_attr", "call_function", "output"):
            raise ValueError(f"{op} is no kind of node")
        nodes[name] = graph.create_node(op, _target(target) if op == "call_function" else target, args, kwargs, name)
    if sum(n.op == "placeholder" for n in graph.nodes) != 1 or [*graph.nodes][-1].op != "output":
        raise ValueError("it has not one input and outputs at its end")
    return Program(graph, tensors)
