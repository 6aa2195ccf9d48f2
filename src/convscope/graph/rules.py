"""RULES: what is known of each operator. To support one more is to add one entry.

A rule says how many multiply-accumulates (MACs) an operator does, and which elements of an input a box of
its output reads. A box has one interval per axis, both ends included; it may reach outside (padding).
Elementwise arithmetic, pooling and normalisation count no MACs, the convention of published tables.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod

from convscope.geometry import Interval, Window, transposed_reads
from convscope.geometry import reads as window_reads
from convscope.graph.recording import Op, Value

Box = tuple[Interval, ...]
Reads = Callable[[Op, Box, Value], Box | None]


def whole(value: Value) -> Box:
    """The box of every element."""
    return tuple((0, n - 1) for n in value.shape)


def no_macs(op: Op) -> int:
    """Arithmetic that tables of MACs leave out, or none."""
    return 0


def same_place(op: Op, box: Box, value: Value) -> Box:
    """An elementwise operator reads what it writes; an axis of length 1 is broadcast."""
    extra = len(box) - len(value.shape)
    pairs = zip(box[extra:], value.shape, op.outputs[0].shape[extra:], strict=True)
    return tuple((0, 0) if n == 1 and out != 1 else interval for interval, n, out in pairs)


def everything(op: Op, box: Box, value: Value) -> Box:
    """Each output reads the whole input."""
    return whole(value)


def conv_macs(op: Op) -> int:
    """Each output (each input, if transposed) meets one kernel of input channels / groups x kernel size."""
    x, weight = op.args["input"], op.args["weight"]
    per_place = prod(weight.shape[1:])
    return prod((x if op.args["transposed"] else op.outputs[0]).shape) * per_place


def conv_reads(op: Op, box: Box, value: Value) -> Box | None:
    """Same image, the channels of the group, the window along each spatial axis."""
    x, out, groups = op.args["input"], op.outputs[0], op.args["groups"]
    if value != x:
        return whole(value)
    step = transposed_reads if op.args["transposed"] else window_reads
    spatial = [step(lo, hi, w) for (lo, hi), w in zip(box[2:], conv_windows(op), strict=True)]
    if any(s is None for s in spatial):
        return None
    out_group, in_group = out.shape[1] // groups, x.shape[1] // groups
    channels = (box[1][0] // out_group * in_group, (box[1][1] // out_group + 1) * in_group - 1)
    return (box[0], channels, *(s for s in spatial if s is not None))


def conv_windows(op: Op) -> tuple[Window, ...]:
    """The window of a convolution along each spatial axis."""
    sizes = op.args["weight"].shape[2:]
    columns = (_per_axis(op.args[k], len(sizes)) for k in ("stride", "padding", "dilation"))
    return tuple(Window(*w) for w in zip(sizes, *columns, strict=True))


def pool_reads(op: Op, box: Box, value: Value) -> Box:
    """Same channels, the window along each spatial axis."""
    windows = pool_windows(op)
    spatial = (window_reads(lo, hi, w) for (lo, hi), w in zip(box[-len(windows) :], windows, strict=True))
    return (*box[: -len(windows)], *spatial)


def pool_windows(op: Op) -> tuple[Window, ...]:
    """The window of a pooling along each spatial axis; without a stride it moves by its own size."""
    ndim = len(op.outputs[0].shape) - 2 if len(op.outputs[0].shape) > 2 else 1
    sizes = _per_axis(op.args["kernel_size"], ndim)
    strides = _per_axis(op.args["stride"] or sizes, ndim)
    rest = (_per_axis(op.args["padding"], ndim), _per_axis(op.args.get("dilation", 1), ndim))
    return tuple(Window(*w) for w in zip(sizes, strides, *rest, strict=True))


def adaptive_reads(op: Op, box: Box, value: Value) -> Box:
    """Adaptive pooling divides the axis: output i of m reads floor(i n / m) to ceil((i + 1) n / m) - 1."""
    ndim = len(op.args["output_size"])
    sizes = zip(box[-ndim:], value.shape[-ndim:], op.outputs[0].shape[-ndim:], strict=True)
    return (*box[:-ndim], *((lo * n // m, -(-(hi + 1) * n // m) - 1) for (lo, hi), n, m in sizes))


def reduced_reads(op: Op, box: Box, value: Value) -> Box:
    """A reduction reads its axes whole and keeps its place along the others."""
    dims = (
        {d % len(value.shape) for d in _tuple(op.args["dim"])} if op.args.get("dim") else set(range(len(value.shape)))
    )
    rest = iter(box)
    keep = op.args.get("keepdim", False)
    result = []
    for axis, n in enumerate(value.shape):
        if axis in dims:
            result.append((0, n - 1))
            if keep:
                next(rest)
        else:
            result.append(next(rest))
    return tuple(result)


def along_dim_reads(op: Op, box: Box, value: Value) -> Box:
    """A softmax reads its whole axis, in its own place along the others."""
    dim = op.args["dim"] % len(box)
    return tuple((0, n - 1) if axis == dim else box[axis] for axis, n in enumerate(value.shape))


def reshape_reads(op: Op, box: Box, value: Value) -> Box:
    """The smallest box that holds the elements: they keep their order, not their axes."""
    out = op.outputs[0].shape
    first = last = 0
    for (lo, hi), n in zip(box, out, strict=True):
        first, last = first * n + min(max(lo, 0), n - 1), last * n + min(max(hi, 0), n - 1)
    if first == last:
        return tuple((i, i) for i in _place(first, value.shape))
    a, b = _place(first, value.shape), _place(last, value.shape)
    split = next((i for i, (p, q) in enumerate(zip(a, b, strict=True)) if p != q), len(a))
    tail = value.shape[split + 1 :]
    kept = _kept_axes(out, value.shape)
    hull = (*((p, p) for p in a[:split]), (a[split], b[split]), *((0, n - 1) for n in tail))
    return tuple(box[kept[i]] if i in kept else interval for i, interval in enumerate(hull))


def permuted_reads(op: Op, box: Box, value: Value) -> Box:
    """Axes change places."""
    ndim = len(value.shape)
    if op.name == "permute":
        order = [d % ndim for d in op.args["dims"]]
    else:
        order = list(range(ndim))
        a, b = (op.args.get("dim0", 0) % ndim, op.args.get("dim1", 1) % ndim) if ndim > 1 else (0, 0)
        order[a], order[b] = order[b], order[a]
    result: list[Interval] = [(0, 0)] * ndim
    for axis, source in enumerate(order):
        result[source] = box[axis]
    return tuple(result)


def cat_reads(op: Op, box: Box, value: Value) -> Box | None:
    """The part of the joined axis that came from this input, if the box meets it."""
    dim = op.args["dim"] % len(box)
    start = 0
    for part in op.args["tensors"]:
        if part == value:
            lo, hi = box[dim][0] - start, box[dim][1] - start
            if hi < 0 or lo >= part.shape[dim]:
                return None
            return (*box[:dim], (max(lo, 0), min(hi, part.shape[dim] - 1)), *box[dim + 1 :])
        start += part.shape[dim]
    return None


def matmul_macs(op: Op) -> int:
    """Every output is a dot product over the inner axis."""
    return prod(op.outputs[0].shape) * _factors(op)[0].shape[-1]


def matmul_reads(op: Op, box: Box, value: Value) -> Box:
    """A row of the left factor, a column of the right one, or the added bias in its place."""
    left, right = _factors(op)
    if value == left:
        return (*box[:-1], (0, left.shape[-1] - 1))
    if value == right:
        return (*box[:-2], (0, right.shape[-2] - 1), box[-1])
    return same_place(op, box, value)


@dataclass(frozen=True, slots=True)
class OpRule:
    """How many MACs, and which box of an input a box of the output reads (None: no element).

    `uniform` says that what is read moves by the same step with every step of the output.
    """

    macs: Callable[[Op], int] = no_macs
    reads: Reads = same_place
    uniform: bool = True


_ELEMENTWISE = [
    "add", "add_", "sub", "sub_", "mul", "mul_", "div", "div_", "neg", "abs", "exp", "log", "sqrt", "rsqrt", "pow",
    "relu", "relu_", "leaky_relu", "elu", "gelu", "silu", "silu_", "sigmoid", "tanh", "hardtanh", "hardtanh_",
    "hardswish", "hardswish_", "hardsigmoid", "clamp", "clamp_", "minimum", "maximum", "clone", "detach", "alias",
    "_to_copy", "expand", "copy_", "native_dropout", "native_batch_norm", "_native_batch_norm_legit_no_training",
]  # fmt: skip

RULES: Mapping[str, OpRule] = {
    **{f"aten.{name}": OpRule() for name in _ELEMENTWISE},
    "aten.convolution": OpRule(conv_macs, conv_reads),
    "aten.mm": OpRule(matmul_macs, matmul_reads),
    "aten.bmm": OpRule(matmul_macs, matmul_reads),
    "aten.addmm": OpRule(matmul_macs, matmul_reads),
    "aten.max_pool2d_with_indices": OpRule(reads=pool_reads),
    "aten.max_pool3d_with_indices": OpRule(reads=pool_reads),
    "aten.avg_pool2d": OpRule(reads=pool_reads),
    "aten.avg_pool3d": OpRule(reads=pool_reads),
    "aten._adaptive_avg_pool2d": OpRule(reads=adaptive_reads, uniform=False),
    "aten.mean": OpRule(reads=reduced_reads),
    "aten.sum": OpRule(reads=reduced_reads),
    "aten._softmax": OpRule(reads=along_dim_reads),
    "aten._log_softmax": OpRule(reads=along_dim_reads),
    "aten.view": OpRule(reads=reshape_reads, uniform=False),
    "aten._unsafe_view": OpRule(reads=reshape_reads, uniform=False),
    "aten.unsqueeze": OpRule(reads=reshape_reads, uniform=False),
    "aten.squeeze": OpRule(reads=reshape_reads, uniform=False),
    "aten.t": OpRule(reads=permuted_reads),
    "aten.transpose": OpRule(reads=permuted_reads),
    "aten.permute": OpRule(reads=permuted_reads),
    "aten.cat": OpRule(reads=cat_reads, uniform=False),
}


def rule_of(op: Op, *, rules: Mapping[str, OpRule] = RULES) -> OpRule | None:
    """The operator's rule: that of its overload if there is one, else of its family; None if unknown."""
    return rules.get(op.target) or rules.get(op.target.rpartition(".")[0])


def reads(op: Op, box: Box, value: Value, *, rules: Mapping[str, OpRule] = RULES) -> Box | None:
    """What the box of the operator's output reads of an input; an unknown operator may read everything."""
    rule = rule_of(op, rules=rules)
    return rule.reads(op, box, value) if rule else whole(value)


def _factors(op: Op) -> tuple[Value, Value]:
    names = ("mat1", "mat2") if "mat1" in op.args else ("self", "mat2")
    return op.args[names[0]], op.args[names[1]]


def _tuple(value: int | tuple[int, ...]) -> tuple[int, ...]:
    return (value,) if isinstance(value, int) else tuple(value)


def _per_axis(value: int | tuple[int, ...], ndim: int) -> tuple[int, ...]:
    values = _tuple(value)
    return values * ndim if len(values) == 1 else values


def _place(flat: int, shape: tuple[int, ...]) -> tuple[int, ...]:
    place = []
    for n in reversed(shape):
        flat, rest = divmod(flat, n)
        place.append(rest)
    return tuple(reversed(place))


def _kept_axes(out: tuple[int, ...], into: tuple[int, ...]) -> dict[int, int]:
    """Input axes that a reshape leaves as they are: input axis -> output axis."""
    kept = {}
    o = i = 0
    while o < len(out) and i < len(into):
        if out[o] == into[i]:
            kept[i] = o
            o, i = o + 1, i + 1
            continue
        left, right = out[o], into[i]
        o, i = o + 1, i + 1
        while left != right:
            if left < right:
                left, o = left * out[o], o + 1
            else:
                right, i = right * into[i], i + 1
    return kept
