"""dead_channels(): channels that cannot matter, whatever the input, given the weights."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from convscope.graph import Op, Recording, Role, Value, call_of, is_in_place, rule_of
from convscope.graph.reading import factors, pool_reads, same_place
from convscope.graph.resizing import adaptive_reads

_NORMS = {"native_batch_norm", "_native_batch_norm_legit_no_training"}
_RANDOM = {"native_dropout", "rrelu_with_noise", "expand", "copy_"}  # or no arithmetic of their inputs


@dataclass(frozen=True, slots=True)
class DeadChannels:
    """Output channels of a layer that cannot matter: `constant` ones are the same for every input, at every place;
    `unread` ones meet weights of zero alone in all that follows. `params` are the parameters that make them.
    """

    module: str
    op: str
    channels: int
    constant: tuple[int, ...]
    unread: tuple[int, ...]
    params: int

    @property
    def dead(self) -> tuple[int, ...]:
        """The numbers of all of them."""
        return tuple(sorted({*self.constant, *self.unread}))

    def __str__(self) -> str:
        why = []
        if self.constant:
            why.append(f"{len(self.constant)} constant: {_numbers(self.constant)}")
        if self.unread:
            why.append(f"{len(self.unread)} read with weights of zero: {_numbers(self.unread)}")
        count = f"{len(self.dead)} of {self.channels} channels can never matter"
        return f"{self.module or self.op}: {count} ({'; '.join(why)}); they hold {self.params:,} parameters"


def dead_channels(recording: Recording, model: nn.Module) -> tuple[DeadChannels, ...]:
    """The convolutions and linear layers with such channels, from the weights of `model` alone.

    A channel is followed through normalisation (as in evaluation), elementwise functions, pooling, joining and
    flattening; behind any other operator every channel is taken to vary and to be read.

    >>> import convscope
    >>> net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 1))
    >>> with torch.no_grad():
    ...     _, _ = net[0].weight[3].zero_(), net[2].weight[:, 1].zero_()
    >>> print(*dead_channels(convscope.record(net, torch.zeros(1, 1, 5, 5)), net))
    0: 2 of 4 channels can never matter (1 constant: 3; 1 read with weights of zero: 1); they hold 20 parameters
    """
    state = dict(model.named_parameters()) | dict(model.named_buffers())
    if recording.backward_from is not None or any(t.is_meta for t in state.values()):
        return ()
    with torch.no_grad():
        held = _held(recording, state)
        constants, needed = _constants(recording, held), _needed(recording, held)
        found = (_of(op, held, constants, needed) for op in recording.ops if _weight(op, held) is not None)
        return tuple(d for d in found if d and d.dead)


def _of(
    op: Op, held: Mapping[int, Tensor], constants: Mapping[int, Tensor], needed: Mapping[int, Tensor]
) -> DeadChannels | None:
    out = op.outputs[0]
    if out.id not in constants:
        return None
    constant, read = ~constants[out.id].isnan(), needed.get(out.id, torch.zeros(out.shape[1], dtype=torch.bool))
    weight = held[_weight(op, held).id]  # pyright: ignore[reportOptionalMemberAccess]
    bias = op.args.get("bias", op.args.get("self"))
    each = weight.numel() // out.shape[1] + (bias is not None)
    dead = int((constant | ~read).sum())
    return DeadChannels(op.module, op.name, out.shape[1], _places(constant), _places(~read), dead * each)


def _held(recording: Recording, state: Mapping[str, Tensor]) -> dict[int, Tensor]:
    """Parameters, buffers, and what operators make of them alone (the transpose before a product)."""
    held = {v.id: state[v.name].detach().cpu() for v in recording.params if v.name in state}
    for op in recording.ops:
        if op.inputs and all(v.id in held for v in op.inputs) and rule_of(op) and not is_in_place(op):
            made = call_of(op, held)()
            held |= {
                v.id: t for v, t in zip(op.outputs, made if isinstance(made, tuple | list) else [made], strict=True)
            }
    return held


def _weight(op: Op, held: Mapping[int, Tensor]) -> Value | None:
    """The weight of a layer with output channels on axis 1, if its values are known."""
    if op.name == "convolution":
        weight = op.args["weight"]
    elif op.name in ("addmm", "mm"):
        weight = factors(op)[1]
    else:
        return None
    bias = op.args.get("bias", op.args.get("self") if op.name == "addmm" else None)
    return weight if weight.id in held and (bias is None or bias.id in held) else None


def _links(op: Op, weight: Tensor) -> Tensor:
    """Kernels between each output and each input channel: outputs x inputs x places."""
    if op.name != "convolution":
        return weight.T[..., None]
    groups, transposed = op.args["groups"], op.args["transposed"]
    parts = [p.transpose(0, 1) if transposed else p for p in weight.chunk(groups)]
    links = weight.new_zeros(op.outputs[0].shape[1], op.args["input"].shape[1], weight[0, 0].numel())
    for k, part in enumerate(parts):
        high, wide = part.shape[:2]
        links[k * high : (k + 1) * high, k * wide : (k + 1) * wide] = part.flatten(2)
    return links


def _constants(recording: Recording, held: Mapping[int, Tensor]) -> dict[int, Tensor]:
    """For each activation, the value of each channel that is the same everywhere and always; NaN where it varies."""
    known: dict[int, Tensor] = {}
    for op in recording.ops:
        for out in op.outputs:
            if len(out.shape) > 1 and out.id not in held:
                made = _constant(op, known, held) if out is op.outputs[0] else None
                known[out.id] = torch.full((out.shape[1],), torch.nan).double() if made is None else made
    return known


def _constant(op: Op, known: Mapping[int, Tensor], held: Mapping[int, Tensor]) -> Tensor | None:
    weight = _weight(op, held)
    if weight:
        return _convolved(op, held[weight.id], known, held)
    if op.name in _NORMS:
        return _normalised(op, known, held)
    sources = [known.get(v.id) for v in op.inputs]
    if _keeps_channels(op):
        if op.name in ("avg_pool2d", "avg_pool3d") and any(op.args["padding"]) and op.args["count_include_pad"]:
            return None
        return sources[0]
    if _joins(op):
        return None if any(s is None for s in sources) else torch.cat([s for s in sources if s is not None])
    if _flattens(op) and sources[0] is not None:
        return sources[0].repeat_interleave(op.outputs[0].shape[1] // len(sources[0]))
    return _elementwise(op, known, held) if _is_elementwise(op) else None


def _convolved(op: Op, weight: Tensor, known: Mapping[int, Tensor], held: Mapping[int, Tensor]) -> Tensor:
    x, bias = (op.args["input"], op.args["bias"]) if op.name == "convolution" else (factors(op)[0], op.args.get("self"))
    links = _links(op, weight).double()
    given = known.get(x.id, torch.full((links.shape[1],), torch.nan).double())
    varies = given.isnan()
    if op.name == "convolution" and (op.args["transposed"] or any(op.args["padding"])):
        varies = varies | (given != 0)  # at the border it meets padding
    value = links.sum(2) @ torch.where(varies, 0.0, given)
    if bias is not None and bias.id in held and op.name != "mm":
        value = value + held[bias.id].double()
    return value.masked_fill(((links != 0).any(2) & varies).any(1), torch.nan)


def _normalised(op: Op, known: Mapping[int, Tensor], held: Mapping[int, Tensor]) -> Tensor | None:
    names = ("weight", "bias", "running_mean", "running_var")
    parts = [held.get(v.id) if (v := op.args[name]) is not None else None for name in names]
    x = known.get(op.args["input"].id)
    if op.args.get("training") or x is None or any(p is None for p in parts):
        return None
    scale, shift, mean, var = (p.double() for p in parts if p is not None)
    return torch.where(scale == 0, shift, (x - mean) / (var + op.args["eps"]).sqrt() * scale + shift)


def _elementwise(op: Op, known: Mapping[int, Tensor], held: Mapping[int, Tensor]) -> Tensor | None:
    """The operator itself, on one place that holds the constants."""
    out = op.outputs[0].shape
    given, varies = {}, torch.zeros(out[1], dtype=torch.bool)
    for v in op.inputs:
        if v.id in known and len(v.shape) == len(out) and v.shape[1] == out[1]:
            given[v.id] = known[v.id].view(1, -1, *(1,) * (len(out) - 2)).clone()
            varies = varies | known[v.id].isnan()
        elif v.id in held and held[v.id].numel() == 1:
            given[v.id] = held[v.id].clone()
        else:
            return None
    return call_of(op, given)().double().flatten().masked_fill(varies, torch.nan) if given else None


def _needed(recording: Recording, held: Mapping[int, Tensor]) -> dict[int, Tensor]:
    """For each activation that is read, which channels what follows can depend on."""
    needed: dict[int, Tensor] = {}
    for value in recording.outputs:
        needed[value.id] = torch.ones(value.shape[1] if len(value.shape) > 1 else 1, dtype=torch.bool)
    for op in reversed(recording.ops):
        wanted = needed.get(op.outputs[0].id) if op.outputs else torch.ones(1, dtype=torch.bool)
        by_products = any(v.id in needed and bool(needed[v.id].any()) for v in op.outputs[1:])
        for k, value in enumerate(op.inputs):
            if value.id in held or value.role is Role.PARAMETER or len(value.shape) < 2:
                continue
            every = torch.ones(value.shape[1], dtype=torch.bool)
            read = every if by_products else _read(op, value, k, wanted, held)
            needed[value.id] = needed.get(value.id, ~every) | (every if read is None else read)
    return needed


def _read(op: Op, value: Value, k: int, wanted: Tensor | None, held: Mapping[int, Tensor]) -> Tensor | None:
    """Which channels of an input matter for the wanted channels of the output; None if it is not known."""
    if wanted is None:
        return torch.zeros(value.shape[1], dtype=torch.bool)
    weight = _weight(op, held)
    if weight:
        return ((_links(op, held[weight.id]) != 0).any(2) & wanted[:, None]).any(0)
    if op.name in _NORMS and not op.args.get("training"):
        scale = op.args["weight"]
        return wanted & (held[scale.id] != 0) if scale is not None and scale.id in held else wanted
    if _joins(op):
        start = sum(v.shape[1] for v in op.inputs[:k])
        return wanted[start : start + value.shape[1]]
    if _flattens(op):
        return wanted.view(value.shape[1], -1).any(1)
    same = _keeps_channels(op) or (_is_elementwise(op) and len(value.shape) == len(op.outputs[0].shape))
    return wanted if same and value.shape[1] == len(wanted) else None


def _keeps_channels(op: Op) -> bool:
    """Whether each output channel takes one input channel, a mean or the largest of its places."""
    rule = rule_of(op)
    spatial = rule is not None and rule.reads in (pool_reads, adaptive_reads)
    if op.name == "mean":
        ndim = len(op.inputs[0].shape)
        dims = op.args["dim"] or ()
        spatial = bool(dims) and all(d % ndim > 1 for d in dims)
    return spatial and len(op.inputs[0].shape) > 2 and len(op.outputs[0].shape) > 1


def _joins(op: Op) -> bool:
    return op.name == "cat" and op.args["dim"] % len(op.outputs[0].shape) == 1


def _flattens(op: Op) -> bool:
    if op.name not in ("view", "_unsafe_view"):
        return False
    (n, c, *rest), (m, *out) = op.inputs[0].shape, op.outputs[0].shape
    size = 1
    for length in rest:
        size *= length
    return bool(rest) and n == m and out == [c * size]


def _is_elementwise(op: Op) -> bool:
    rule = rule_of(op)
    return rule is not None and rule.reads is same_place and op.name not in _RANDOM and len(op.outputs) == 1


def _places(mask: Tensor) -> tuple[int, ...]:
    return tuple(mask.nonzero().flatten().tolist())


def _numbers(places: tuple[int, ...]) -> str:
    return ", ".join(map(str, places[:6])) + (", ..." if len(places) > 6 else "")
