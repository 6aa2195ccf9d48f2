"""Which elements of an input a box of an operator's output reads: one function a way of reading.

Each is given the operator, a box of its k-th output, and the input Value asked about; a box has one interval per
axis, both ends included, and may reach outside (padding). None: it reads no element.
"""

from collections.abc import Iterable

from convscope.geometry import Interval, Window, transposed_reads
from convscope.geometry import reads as window_reads
from convscope.graph.values import Op, Value

Box = tuple[Interval, ...]


def whole(value: Value) -> Box:
    """The box of every element."""
    return tuple((0, n - 1) for n in value.shape)


def hull(boxes: Iterable[Box]) -> Box | None:
    """The smallest box that holds them all; None of none."""
    axes = list(zip(*boxes, strict=True))
    return tuple((min(p for p, _ in axis), max(q for _, q in axis)) for axis in axes) if axes else None


def same_place(op: Op, box: Box, value: Value, k: int = 0) -> Box:
    """An elementwise operator reads what it writes; an axis of length 1 is broadcast."""
    extra = len(box) - len(value.shape)
    pairs = zip(box[extra:], value.shape, op.outputs[k].shape[extra:], strict=True)
    return tuple((0, 0) if n == 1 and out != 1 else interval for interval, n, out in pairs)


def everything(op: Op, box: Box, value: Value, k: int = 0) -> Box:
    """Each output reads the whole input."""
    return whole(value)


def conv_reads(op: Op, box: Box, value: Value, k: int = 0) -> Box | None:
    """Same image, the channels of the group, the window along each spatial axis."""
    x, out, groups = op.args["input"], op.outputs[k], op.args["groups"]
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
    columns = (per_axis(op.args[k], len(sizes)) for k in ("stride", "padding", "dilation"))
    return tuple(Window(*w) for w in zip(sizes, *columns, strict=True))


def pool_reads(op: Op, box: Box, value: Value, k: int = 0) -> Box:
    """Same channels, the window along each spatial axis."""
    windows = pool_windows(op)
    spatial = (window_reads(lo, hi, w) for (lo, hi), w in zip(box[-len(windows) :], windows, strict=True))
    return (*box[: -len(windows)], *spatial)


def pool_windows(op: Op) -> tuple[Window, ...]:
    """The window of a pooling along each spatial axis; without a stride it moves by its own size."""
    ndim = 3 if "3d" in op.target else 2 if "2d" in op.target else 1
    sizes = per_axis(op.args["kernel_size"], ndim)
    strides = per_axis(op.args["stride"] or sizes, ndim)
    rest = (per_axis(op.args["padding"], ndim), per_axis(op.args.get("dilation", 1), ndim))
    return tuple(Window(*w) for w in zip(sizes, strides, *rest, strict=True))


def reduced_reads(op: Op, box: Box, value: Value, k: int = 0) -> Box:
    """A reduction reads its axes whole and keeps its place along the others."""
    given = op.args.get("dim")
    named = as_tuple(given) if given is not None and given != () else range(len(value.shape))
    dims = {d % len(value.shape) for d in named}
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


def along_dim_reads(op: Op, box: Box, value: Value, k: int = 0) -> Box:
    """A softmax reads its whole axis, in its own place along the others."""
    dim = op.args["dim"] % len(box)
    return tuple((0, n - 1) if axis == dim else box[axis] for axis, n in enumerate(value.shape))


def reshape_reads(op: Op, box: Box, value: Value, k: int = 0) -> Box:
    """The smallest box that holds the elements: they keep their order, not their axes."""
    out = op.outputs[k].shape
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


def permuted_reads(op: Op, box: Box, value: Value, k: int = 0) -> Box:
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


def cat_reads(op: Op, box: Box, value: Value, k: int = 0) -> Box | None:
    """The parts of the joined axis that came from this input, where the box meets them."""
    dim = op.args["dim"] % len(box)
    start, met = 0, []
    for part in op.args["tensors"]:
        lo, hi = box[dim][0] - start, box[dim][1] - start
        if part == value and hi >= 0 and lo < part.shape[dim]:
            met.append((*box[:dim], (max(lo, 0), min(hi, part.shape[dim] - 1)), *box[dim + 1 :]))
        start += part.shape[dim] if len(part.shape) == len(box) else 0  # an empty vector may be joined to anything
    return hull(met)


def matmul_reads(op: Op, box: Box, value: Value, k: int = 0) -> Box | None:
    """A row of the left factor, a column of the right one, the added bias in its place; all that the value is."""
    left, right = factors(op)
    roles = []
    if value == left:
        roles.append((*box[:-1], (0, left.shape[-1] - 1)))
    if value == right:
        roles.append((*box[:-2], (0, right.shape[-2] - 1), box[-1]))
    if value == op.args.get("self") and left != op.args["self"]:
        roles.append(same_place(op, box, value))
    return hull(roles)


def linear_reads(op: Op, box: Box, value: Value, k: int = 0) -> Box:
    """A row of the input; of weight and bias, all."""
    return (*box[:-1], (0, value.shape[-1] - 1)) if value == op.args["input"] else whole(value)


def nothing(op: Op, box: Box, value: Value, k: int = 0) -> None:
    """The values of the input do not matter."""
    return


def trailing_reads(op: Op, box: Box, value: Value, k: int = 0) -> Box:
    """A layer normalisation reads its last axes whole, in its own place along the others."""
    first = len(box) - len(op.args["normalized_shape"])
    return (*box[:first], *whole(value)[first:]) if value == op.args["input"] else whole(value)


def batch_norm_reads(op: Op, box: Box, value: Value, k: int = 0) -> Box:
    """Its own place; with the statistics of the batch (training, instance normalisation) its channel, everywhere."""
    if value != op.args["input"]:
        return whole(value)
    return (whole(value)[0], box[1], *whole(value)[2:]) if op.args["training"] else box


def group_reads(op: Op, box: Box, value: Value, k: int = 0) -> Box:
    """A group normalisation reads the channels of its group, everywhere."""
    if value != op.args["input"]:
        return whole(value)
    size = op.args["C"] // op.args["group"]
    return (box[0], (box[1][0] // size * size, box[1][1] // size * size + size - 1), *whole(value)[2:])


def split_reads(op: Op, box: Box, value: Value, k: int = 0) -> Box:
    """The part that became the k-th output."""
    dim = op.args["dim"] % len(value.shape)
    if op.name == "unbind":
        return (*box[:dim], (k, k), *box[dim:])
    start = sum(part.shape[dim] for part in op.outputs[:k])
    return (*box[:dim], (box[dim][0] + start, box[dim][1] + start), *box[dim + 1 :])


def slice_reads(op: Op, box: Box, value: Value, k: int = 0) -> Box:
    """Every step-th place along one axis, from the start on."""
    dim, step = op.args["dim"] % len(box), op.args["step"]
    n, start = value.shape[dim], op.args["start"] or 0
    start = max(0, min(n, start + n if start < 0 else start))
    return (*box[:dim], (start + box[dim][0] * step, start + box[dim][1] * step), *box[dim + 1 :])


def select_reads(op: Op, box: Box, value: Value, k: int = 0) -> Box:
    """One place along an axis, which is gone from the output."""
    dim = op.args["dim"] % len(value.shape)
    place = op.args["index"] % value.shape[dim]
    return (*box[:dim], (place, place), *box[dim:])


def stack_reads(op: Op, box: Box, value: Value, k: int = 0) -> Box | None:
    """All of an input that the box meets along the new axis."""
    dim = op.args["dim"] % len(box)
    places = [i for i, part in enumerate(op.args["tensors"]) if part == value]
    met = any(box[dim][0] <= i <= box[dim][1] for i in places)
    return (*box[:dim], *box[dim + 1 :]) if met else None


def pad_reads(op: Op, box: Box, value: Value, k: int = 0) -> Box:
    """The same place, counted from where the padding ends; what lies outside is padding."""
    before = padding_before(op, len(box))
    return tuple((lo - p, hi - p) for (lo, hi), p in zip(box, before, strict=True))


def padding_before(op: Op, ndim: int) -> list[int]:
    """How many elements a padding puts before each axis; its arguments begin with the last axis."""
    pads = op.args["pad" if "pad" in op.args else "padding"]
    return [0] * (ndim - len(pads) // 2) + list(pads[-2::-2])


def reflected_reads(op: Op, box: Box, value: Value, k: int = 0) -> Box:
    """The hull of the places in the mirror of the border."""
    axes = []
    for axis, ((lo, hi), n, before) in enumerate(zip(box, value.shape, padding_before(op, len(box)), strict=True)):
        places = [abs(i - before) for i in range(max(lo, 0), min(hi, op.outputs[k].shape[axis] - 1) + 1)] or [0]
        places = [min(i, 2 * (n - 1) - i) for i in places]
        axes.append((min(places), max(places)))
    return tuple(axes)


def replicated_reads(op: Op, box: Box, value: Value, k: int = 0) -> Box:
    """The same place, counted from where the padding ends, and the border for what lies outside."""
    places = zip(box, padding_before(op, len(box)), value.shape, strict=True)
    return tuple((min(max(lo - p, 0), n - 1), min(max(hi - p, 0), n - 1)) for (lo, hi), p, n in places)


def unfolded_reads(op: Op, box: Box, value: Value, k: int = 0) -> Box:
    """Windows along one axis, their elements along a new last one."""
    axis, step = op.args["dimension"] % len(value.shape), op.args["step"]
    (first, last), (lo, hi) = box[axis], box[-1]
    return (*box[:axis], (first * step + lo, last * step + hi), *box[axis + 1 : -1])


def rolled_reads(op: Op, box: Box, value: Value, k: int = 0) -> Box:
    """The place before the shift; the whole axis where the box meets the seam."""
    if not op.args["dims"]:  # rolled as one long vector
        return whole(value)
    axes = list(box)
    for shift, dim in zip(as_tuple(op.args["shifts"]), as_tuple(op.args["dims"]), strict=True):
        axis, n = dim % len(box), value.shape[dim]
        lo, hi = (i - shift for i in axes[axis])
        axes[axis] = (lo % n, hi % n) if lo // n == hi // n else (0, n - 1)
    return tuple(axes)


def flipped_reads(op: Op, box: Box, value: Value, k: int = 0) -> Box:
    """The mirrored place along the axes that are turned round."""
    dims = {d % len(box) for d in as_tuple(op.args["dims"])}
    axes = enumerate(zip(box, value.shape, strict=True))
    return tuple((n - 1 - hi, n - 1 - lo) if axis in dims else (lo, hi) for axis, ((lo, hi), n) in axes)


def restride_reads(op: Op, box: Box, value: Value, k: int = 0) -> Box:
    """A change of memory layout alone keeps every place; anything else may read everything."""
    return box if op.outputs[k].shape == value.shape else whole(value)


def attention_reads(op: Op, box: Box, value: Value, k: int = 0) -> Box | None:
    """A row of the queries, in its own picture and head; of keys and values every row; all that the value is."""
    last, rows = (0, value.shape[-1] - 1), (0, value.shape[-2] - 1)
    parts = {"query": (*box[:-1], last), "key": (*box[:-2], rows, last), "value": (*box[:-2], rows, box[-1])}
    roles = [read for name, read in parts.items() if value == op.args[name]]
    return hull(roles) if roles else whole(value)


def changed_reads(op: Op, box: Box, value: Value, k: int = 0) -> Box | None:
    """A tensor that was changed through a view: its own place before, and the written box where the box meets it."""
    roles = [box] if value == op.args["self"] else []
    if value in op.args["written"]:
        roles += [_met(op, box, value)]
    return hull(role for role in roles if role is not None)


def _met(op: Op, box: Box, value: Value) -> Box | None:
    """The part of a written value that a box meets, by where it begins; all of it where its place is not known."""
    start, axes = op.args["start"], op.args["axes"]
    if start is None:
        return whole(value)
    lengths = [value.shape[axes.index(axis)] if axis in axes else 1 for axis in range(len(start))]
    met = [(max(lo - s, 0), min(hi - s, n - 1)) for (lo, hi), s, n in zip(box, start, lengths, strict=True)]
    return tuple(met[axis] for axis in axes) if all(lo <= hi for lo, hi in met) else None


def factors(op: Op) -> tuple[Value, Value]:
    """The two matrices that a product multiplies."""
    pairs = (("mat1", "mat2"), ("batch1", "batch2"), ("self", "mat2"))
    left, right = next(pair for pair in pairs if pair[0] in op.args)
    return op.args[left], op.args[right]


def as_tuple(value: int | tuple[int, ...]) -> tuple[int, ...]:
    return (value,) if isinstance(value, int) else tuple(value)


def per_axis(value: int | tuple[int, ...], ndim: int) -> tuple[int, ...]:
    values = as_tuple(value)
    return values * ndim if len(values) == 1 else values


def _place(flat: int, shape: tuple[int, ...]) -> tuple[int, ...]:
    place = []
    for n in reversed(shape):
        flat, rest = divmod(flat, n)
        place.append(rest)
    return tuple(reversed(place))


def _kept_axes(out: tuple[int, ...], into: tuple[int, ...]) -> dict[int, int]:
    """Input axes that a reshape leaves as they are: input axis -> output axis."""
    return {i.start: o.start for i, o in axis_groups(out, into) if len(i) == len(o) == 1}


def axis_groups(out: tuple[int, ...], into: tuple[int, ...]) -> list[tuple[range, range]]:
    """The runs of input axes and of output axes that hold the same elements in a reshape, as short as can be.

    >>> axis_groups((2, 12, 5), (2, 3, 4, 5))
    [(range(0, 1), range(0, 1)), (range(1, 3), range(1, 2)), (range(3, 4), range(2, 3))]
    """
    groups = []
    o = i = 0
    while o < len(out) and i < len(into):
        begin, left, right = (i, o), out[o], into[i]
        o, i = o + 1, i + 1
        while left != right:
            if left < right:
                left, o = left * out[o], o + 1
            else:
                right, i = right * into[i], i + 1
        groups.append((range(begin[0], i), range(begin[1], o)))
    return groups
