"""resized(): a recording as it would be at another input size, from the geometry of its operators alone."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from math import floor, prod
from typing import Any, NoReturn

from convscope.errors import InputError
from convscope.geometry import out_size, transposed_out_size
from convscope.graph import reading, resizing
from convscope.graph.rules import conv_windows, pool_windows, rule_of
from convscope.graph.values import Op, Recording, Value

Shape = tuple[int, ...]


class NotDerived(Exception):  # noqa: N818 - a question that is answered by recording anew, no fault
    """Says which operator's shape does not follow from those of its inputs."""


def resized(recording: Recording, shapes: tuple[Shape, ...], *, settled: Collection[str] = ()) -> Recording:
    """The recording with inputs of other `shapes`: the same operators, each output as large as its rule says.

    Nothing runs. An integer that a model may have computed from the size of its input (the size given to a `view`,
    an `interpolate` or a slice) is not guessed at, but in the modules `settled`, where it is a setting.
    Raises: NotDerived with the operator, if the shape of one does not follow.
    """
    known: dict[int, Value] = {}
    held = dict(recording.storages)
    for value, shape in zip(recording.inputs, shapes, strict=True):
        known[value.id] = _grown(value, shape, held)
    ops = []
    for op in recording.ops:
        new = replace(op, args={name: _swapped(arg, known) for name, arg in op.args.items()})
        made = _shapes(op, new, SETTLED if op.module in settled else {})
        ops.append(replace(new, outputs=_outputs(op, made, known, held)))
    outputs = tuple(known.get(v.id, v) for v in recording.outputs)
    inputs = tuple(known[v.id] for v in recording.inputs)
    return replace(recording, ops=tuple(ops), inputs=inputs, outputs=outputs, storages=held)


def _outputs(op: Op, shapes: Iterable[Shape], known: dict[int, Value], held: dict[int, int]) -> tuple[Value, ...]:
    there = {v.storage for v in op.inputs}
    made = []
    for value, shape in zip(op.outputs, shapes, strict=True):
        if shape != value.shape:
            if any((a == 1) != (b == 1) or not a for a, b in zip(shape, value.shape, strict=True)):
                _refuse(op)  # at a length of 1 PyTorch may look where it copied, or copy where it looked
            fresh = value.storage not in there and value.storage not in {v.storage for v in made}
            value = _grown(value, shape, held if fresh else None)
        known[value.id] = value
        made.append(value)
    return tuple(made)


def _grown(value: Value, shape: Shape, held: dict[int, int] | None) -> Value:
    """The value in another shape, and its block of memory with it, if it is the one that makes it."""
    if held is not None:
        if held[value.storage] != prod(value.shape) * value.dtype.itemsize:
            raise NotDerived(value.name or "an input")
        held[value.storage] = prod(shape) * value.dtype.itemsize
    return replace(value, shape=shape)


def _swapped(arg: Any, known: Mapping[int, Value]) -> Any:
    if isinstance(arg, Value):
        return known.get(arg.id, arg)
    return tuple(_swapped(a, known) for a in arg) if isinstance(arg, tuple) else arg


def _shapes(old: Op, new: Op, more: "Mapping[Callable[..., Any], Follow]") -> Iterable[Shape]:
    """The shape of each output, of the operator as it was and as it is given now."""
    before = tuple(v.shape for v in old.outputs)
    if _same(old, new):
        if not old.inputs and any(prod(s) > 1 for s in before):
            _refuse(old)  # made from integers alone: perhaps from the size
        return before
    rule = rule_of(old)
    follow = (more.get(rule.reads) or SHAPES.get(rule.reads)) if rule else None
    return follow(old, new) if follow else _refuse(old)


def _same(old: Op, new: Op) -> bool:
    pairs = zip(old.inputs, new.inputs, strict=True)
    return old.name != "expand" and not old.name.startswith("upsample") and all(a.shape == b.shape for a, b in pairs)


def _refuse(op: Op) -> NoReturn:
    raise NotDerived(f"{op.name} in {op.module}" if op.module else op.name)


def _broadcast(op: Op, new: Op) -> Iterator[Shape]:
    """Elementwise: what its inputs broadcast to, if that is how it was."""
    if op.name == "expand" or not op.outputs:
        _refuse(op)
    before, after = (_joined(op, (v.shape for v in o.inputs)) for o in (op, new))
    for value in op.outputs:
        yield after if value.shape == before else _refuse(op)


def _joined(op: Op, shapes: Iterable[Shape]) -> Shape:
    given = list(shapes)
    most = max(map(len, given))
    axes = zip(*((1,) * (most - len(s)) + s for s in given), strict=True)
    sizes = [{n for n in axis if n != 1} or {1} for axis in axes]
    return tuple(n.pop() for n in sizes) if all(len(n) == 1 for n in sizes) else _refuse(op)


def _conv(op: Op, new: Op) -> Iterator[Shape]:
    x, weight = new.args["input"].shape, new.args["weight"].shape
    axes = zip(x[2:], conv_windows(op), reading.per_axis(op.args["output_padding"], len(x) - 2), strict=True)
    if x[:2] != op.args["input"].shape[:2] or len(weight) != len(x):
        _refuse(op)
    try:
        if op.args["transposed"]:
            spatial = [transposed_out_size(n, w, output_padding=more) for n, w, more in axes]
        else:
            spatial = [out_size(n, w) for n, w, _ in axes]
    except InputError:  # the map is smaller than the window
        _refuse(op)
    yield (*op.outputs[0].shape[:2], *spatial)


def _pool(op: Op, new: Op) -> Iterator[Shape]:
    """A window as large as the map may be global pooling by hand."""
    windows = pool_windows(op)
    axes = zip(new.inputs[0].shape[-len(windows) :], op.inputs[0].shape[-len(windows) :], windows, strict=True)
    return _refuse(op) if any(n != m and w.size >= m for n, m, w in axes) else _pool_as_set(op, new)


def _pool_as_set(op: Op, new: Op) -> Iterator[Shape]:
    x, windows = new.inputs[0].shape, pool_windows(op)
    ndim, ceil = len(windows), op.args.get("ceil_mode", False)
    if x[:-ndim] != op.inputs[0].shape[:-ndim]:
        _refuse(op)
    try:
        shape = (*x[:-ndim], *(out_size(n, w, ceil=ceil) for n, w in zip(x[-ndim:], windows, strict=True)))
    except InputError:
        _refuse(op)
    yield from [shape] * len(op.outputs)


def _reduced(op: Op, new: Op) -> Iterator[Shape]:
    """Axes that are reduced become 1 or vanish."""
    given, x = op.args.get("dim"), new.inputs[0].shape
    dims = {d % len(x) for d in reading.as_tuple(given)} if given not in (None, ()) else set(range(len(x)))
    keep = op.args.get("keepdim", False)
    shape = tuple(1 if axis in dims else n for axis, n in enumerate(x) if keep or axis not in dims)
    yield from [shape] * len(op.outputs)


def _adaptive(op: Op, new: Op) -> Iterator[Shape]:
    """As large as asked for: 1 is nobody's size, more might be."""
    every = all(n == 1 for n in reading.as_tuple(op.args["output_size"]))
    return _adaptive_as_set(op, new) if every else _refuse(op)


def _adaptive_as_set(op: Op, new: Op) -> Iterator[Shape]:
    size = reading.as_tuple(op.args["output_size"])
    shape = (*new.inputs[0].shape[: -len(size)], *size)
    yield from [shape] * len(op.outputs)


def _norm(op: Op, new: Op) -> Iterator[Shape]:
    """The first output is as large as the input; statistics are those of the channels."""
    if new.args["input"].shape[:2] != op.args["input"].shape[:2]:
        _refuse(op)
    yield new.args["input"].shape
    yield from (v.shape for v in op.outputs[1:])


def _layer_norm(op: Op, new: Op) -> Iterator[Shape]:
    x, ndim = new.args["input"].shape, len(op.args["normalized_shape"])
    if x[-ndim:] != op.args["input"].shape[-ndim:]:
        _refuse(op)
    yield from (x, *[(*x[:-ndim], *(1,) * ndim)] * 2)


def _as_it_is(op: Op, new: Op) -> Iterator[Shape]:
    yield new.inputs[0].shape


def _permuted(op: Op, new: Op) -> Iterator[Shape]:
    box = reading.permuted_reads(op, tuple((i, i) for i in range(len(op.outputs[0].shape))), op.inputs[0])
    order = {place[0]: axis for axis, place in enumerate(box)}  # output axis -> input axis
    yield tuple(new.inputs[0].shape[order[i]] for i in range(len(order)))


def _view(op: Op, new: Op) -> Iterator[Shape]:
    """Axes that stay, axes of 1 that come or go, axes that are joined where the size was left open (-1)."""
    old, x, out = op.inputs[0].shape, new.inputs[0].shape, op.outputs[0].shape
    size, shape = op.args.get("size", ()), list(out)
    for ins, outs in reading.axis_groups(out, old):
        if all(old[i] == x[i] for i in ins):
            continue
        several = sum(old[i] != 1 for i in ins) > 1
        apart = [o for o in outs if out[o] != 1]
        if len(apart) != 1 or (several and (not size or size[apart[0]] != -1)):
            _refuse(op)
        shape[apart[0]] = prod(x[i] for i in ins)
    yield tuple(shape)


def _flattened(op: Op, new: Op) -> Iterator[Shape]:
    """Axes that stay, and axes that are joined."""
    old, x, out = op.inputs[0].shape, new.inputs[0].shape, op.outputs[0].shape
    groups = reading.axis_groups(out, old)
    if any(len(outs) != 1 for _, outs in groups) or len(groups) != len(out):
        _refuse(op)
    yield tuple(prod(x[i] for i in ins) for ins, _ in groups)


def _stack(op: Op, new: Op) -> Iterator[Shape]:
    shapes, dim = [v.shape for v in new.args["tensors"]], op.args["dim"] % len(op.outputs[0].shape)
    if len(set(shapes)) > 1:
        _refuse(op)
    yield (*shapes[0][:dim], len(shapes), *shapes[0][dim:])


def _cat(op: Op, new: Op) -> Iterator[Shape]:
    shapes, dim = [v.shape for v in new.args["tensors"]], op.args["dim"]
    dim %= len(op.outputs[0].shape)
    shapes = [s for s in shapes if len(s) == len(op.outputs[0].shape)]
    if len({(s[:dim], s[dim + 1 :]) for s in shapes}) > 1:
        _refuse(op)
    yield (*shapes[0][:dim], sum(s[dim] for s in shapes), *shapes[0][dim + 1 :])


def _parts(op: Op, new: Op) -> Iterator[Shape]:
    """Parts along an axis that keeps its length."""
    x, dim = new.inputs[0].shape, op.args["dim"] % len(op.inputs[0].shape)
    if x[dim] != op.inputs[0].shape[dim]:
        _refuse(op)
    for part in op.outputs:
        length = () if op.name == "unbind" else (part.shape[dim],)
        yield (*x[:dim], *length, *x[dim + 1 :])


def _slice(op: Op, new: Op) -> Iterator[Shape]:
    """Every step-th place; an end that is counted from the front may have been computed from the size."""
    x, dim, end = new.inputs[0].shape, op.args["dim"] % len(op.inputs[0].shape), op.args["end"]
    if x[dim] != op.inputs[0].shape[dim] and end is not None and 0 <= end < 2**62:
        _refuse(op)
    length = len(range(x[dim])[slice(op.args["start"], end, op.args["step"])])
    yield (*x[:dim], length, *x[dim + 1 :])


def _padded(op: Op, new: Op) -> Iterator[Shape]:
    """Axes that keep their length may be padded: on others, what is added may have been computed from it."""
    x, before, out = new.inputs[0].shape, op.inputs[0].shape, op.outputs[0].shape
    if any(n != m and m != k for n, m, k in zip(x, before, out, strict=True)):
        _refuse(op)
    return _padded_as_set(op, new)


def _padded_as_set(op: Op, new: Op) -> Iterator[Shape]:
    axes = zip(new.inputs[0].shape, op.inputs[0].shape, op.outputs[0].shape, strict=True)
    yield tuple(n + k - m for n, m, k in axes)


def _select(op: Op, new: Op) -> Iterator[Shape]:
    x, dim = new.inputs[0].shape, op.args["dim"] % len(op.inputs[0].shape)
    yield (*x[:dim], *x[dim + 1 :])


def _product(op: Op, new: Op) -> Iterator[Shape]:
    (left, right), (a, b) = (tuple(v.shape for v in reading.factors(o)) for o in (new, op))
    if left[-1] != right[-2] or left[:-2] != right[:-2] or len(a) != len(b):
        _refuse(op)
    yield (*left[:-1], right[-1])


def _linear(op: Op, new: Op) -> Iterator[Shape]:
    x, weight = new.args["input"].shape, new.args["weight"].shape
    yield (*x[:-1], weight[0]) if x[-1] == weight[-1] else _refuse(op)


def _upsampled(op: Op, new: Op) -> Iterator[Shape]:
    """By the scale that was given; a size that was given may be that of another map."""
    x, ndim = new.inputs[0].shape, len(op.outputs[0].shape) - 2
    scales = [v for k, v in op.args.items() if k.startswith("scales")]
    if len(scales) != ndim or None in scales:
        _refuse(op)
    yield (*x[:2], *(floor(n * float(s)) for n, s in zip(x[2:], scales, strict=True)))


def _shuffled(op: Op, new: Op) -> Iterator[Shape]:
    """Pixel (un)shuffle: the map grows or shrinks as the channels give or take."""
    x, factor = new.inputs[0].shape, next(v for k, v in op.args.items() if k.endswith("factor"))
    if x[:-2] != op.inputs[0].shape[:-2]:
        _refuse(op)
    out = op.outputs[0].shape[:-2]
    if op.name == "pixel_shuffle":
        yield (*out, x[-2] * factor, x[-1] * factor)
    elif x[-2] % factor or x[-1] % factor:
        _refuse(op)
    else:
        yield (*out, x[-2] // factor, x[-1] // factor)


Follow = Callable[[Op, Op], Iterator[Shape]]

SHAPES: Mapping[Callable[..., Any], Follow] = {
    reading.same_place: _broadcast,
    reading.conv_reads: _conv,
    reading.pool_reads: _pool,
    reading.reduced_reads: _reduced,
    reading.batch_norm_reads: _norm,
    reading.group_reads: _norm,
    reading.trailing_reads: _layer_norm,
    reading.along_dim_reads: _as_it_is,
    reading.rolled_reads: _as_it_is,
    reading.flipped_reads: _as_it_is,
    reading.permuted_reads: _permuted,
    reading.reshape_reads: _view,
    reading.cat_reads: _cat,
    reading.stack_reads: _stack,
    reading.split_reads: _parts,
    reading.slice_reads: _slice,
    reading.pad_reads: _padded,
    reading.select_reads: _select,
    reading.matmul_reads: _product,
    reading.linear_reads: _linear,
    resizing.adaptive_reads: _adaptive,
    resizing.nearest_reads: _upsampled,
    resizing.exact_nearest_reads: _upsampled,
    resizing.linear_reads: _upsampled,
    resizing.cubic_reads: _upsampled,
    resizing.shuffled_reads: _shuffled,
    resizing.unshuffled_reads: _shuffled,
    resizing.channel_shuffled_reads: _as_it_is,
}

SETTLED: Mapping[Callable[..., Any], Follow] = {
    reading.pool_reads: _pool_as_set,
    reading.pad_reads: _padded_as_set,
    reading.reflected_reads: _padded_as_set,
    reading.replicated_reads: _padded_as_set,
    reading.reshape_reads: _flattened,
    resizing.adaptive_reads: _adaptive_as_set,
}
