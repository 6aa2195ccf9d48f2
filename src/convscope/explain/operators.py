"""EXPLAINERS: how each operator is taken apart. To support one more is to add one entry."""

from collections.abc import Callable, Mapping

from convscope.errors import InputError
from convscope.explain import elementwise as each
from convscope.explain import windows
from convscope.explain.terms import Explanation
from convscope.explain.windows import Asked
from convscope.graph import Op, Recording

Explainer = Callable[[Asked], Explanation]
EXPLAINERS: Mapping[str, Explainer] = {
    # a patch and its weights
    "aten.convolution": windows.convolution,
    "aten.addmm": windows.matrix_product("mat1", "mat2", "self"),
    "aten.mm": windows.matrix_product("self", "mat2"),
    "aten.bmm": windows.matrix_product("self", "mat2"),
    "aten.baddbmm": windows.matrix_product("batch1", "batch2", "self"),
    "aten.max_pool2d_with_indices": windows.max_pool,
    "aten.max_pool3d_with_indices": windows.max_pool,
    "aten.avg_pool2d": windows.average_pool,
    "aten.avg_pool3d": windows.average_pool,
    "aten._adaptive_avg_pool2d": windows.adaptive_average_pool,
    "aten._adaptive_avg_pool3d": windows.adaptive_average_pool,
    "aten.mean": windows.mean,
    "aten.sum": windows.total,
    "aten.upsample_linear1d": windows.interpolation,
    "aten.upsample_bilinear2d": windows.interpolation,
    "aten.upsample_trilinear3d": windows.interpolation,
    # arithmetic
    "aten.add": each.addition(1),
    "aten.add_": each.addition(1),
    "aten.sub": each.addition(-1),
    "aten.sub_": each.addition(-1),
    "aten.rsub": each.reversed_subtraction,
    "aten.mul": each.product,
    "aten.mul_": each.product,
    "aten.div": each.quotient,
    "aten.div_": each.quotient,
    # one value through a function
    "aten.relu": each.activation,
    "aten.relu_": each.activation,
    "aten.leaky_relu": each.activation,
    "aten.leaky_relu_": each.activation,
    "aten.elu": each.activation,
    "aten.elu_": each.activation,
    "aten.hardtanh": each.activation,
    "aten.hardtanh_": each.activation,
    "aten.clamp.default": each.activation,
    "aten.clamp_min.default": each.activation,
    "aten.sigmoid": each.activation,
    "aten.sigmoid_": each.activation,
    "aten.hardsigmoid": each.activation,
    "aten.hardsigmoid_": each.activation,
    "aten.tanh": each.activation,
    "aten.tanh_": each.activation,
    "aten.silu": each.activation,
    "aten.silu_": each.activation,
    "aten.hardswish": each.activation,
    "aten.hardswish_": each.activation,
    "aten.gelu": each.activation,
    "aten.mish": each.activation,
    "aten.mish_": each.activation,
    "aten.softplus": each.activation,
    "aten.exp": each.activation,
    "aten.log": each.activation,
    "aten.sqrt": each.activation,
    "aten.rsqrt": each.activation,
    "aten.neg": each.activation,
    "aten.abs": each.activation,
    # normalisation
    "aten.native_batch_norm": each.batch_norm,
    "aten.native_layer_norm": each.layer_norm,
    "aten.native_group_norm": each.group_norm,
    "aten._softmax": each.softmax,
    "aten._log_softmax": each.log_softmax,
    # a value from elsewhere
    "aten.cat": each.joined,
    "aten.stack": each.stacked,
    "aten.constant_pad_nd": each.padded,
    "aten.upsample_nearest1d": each.nearest,
    "aten.upsample_nearest2d": each.nearest,
    "aten.upsample_nearest3d": each.nearest,
    "aten.clone": each.same_place,
    "aten._to_copy": each.same_place,
    "aten.detach": each.same_place,
    "aten.alias": each.same_place,
    "aten.view.default": each.viewed,
    "aten._unsafe_view": each.viewed,
    "aten.permute": each.viewed,
    "aten.transpose": each.viewed,
    "aten.t": each.viewed,
    "aten.expand": each.viewed,
    "aten.slice": each.viewed,
    "aten.select": each.viewed,
    "aten.squeeze": each.viewed,
    "aten.unsqueeze": each.viewed,
    "aten.split": each.viewed,
    "aten.split_with_sizes": each.viewed,
    "aten.unbind": each.viewed,
    "aten.lift_fresh": each.same_place,
    "aten.roll": each.moved,
    "aten.flip": each.moved,
    "aten.pixel_shuffle": each.moved,
}


def explain(recording: Recording, layer: str | int | Op, *, unit: tuple[int, ...], output: int = 0) -> Explanation:
    """The terms that were combined to make one value of a layer's output.

    layer: an operator of the recording, its index, or its module ("C3"). unit: an index for every axis of the
    output. output: which, for an operator that makes several. The recording must keep the operator:
    `record(model, x, keep=lambda op: op.module == "features.C3")`.
    Raises: InputError if the unit lies outside, the tensors were not kept, or the operator has no explanation.

    >>> import torch
    >>> from torch import nn
    >>> from convscope.graph import record
    >>> conv = nn.Conv2d(1, 1, 3, padding=1)
    >>> recording = record(nn.Sequential(conv), torch.ones(1, 1, 5, 5), keep=lambda op: True)
    >>> told = explain(recording, "0", unit=(0, 0, 0, 0))
    >>> int(told.inside.sum()), abs(told.difference) < 1e-6
    (4, True)
    """
    op = layer if isinstance(layer, Op) else recording.find(layer)
    where = f"explain {op.module or op.name}"
    if not 0 <= output < len(op.outputs):
        raise InputError(f"{where}: output {output} is not among its outputs; use 0..{len(op.outputs) - 1}")
    explainer = explainer_of(op, output)
    if explainer is None:
        which = f"output {output} of {op.name}" if output else op.name
        inputs = ", ".join("x".join(map(str, v.shape)) for v in op.inputs)
        known = ", ".join(name.removeprefix("aten.") for name in EXPLAINERS if not name.endswith("_"))
        raise InputError(f"{where}: {which} has no explanation yet (it read {inputs}); those that have: {known}")
    shape = op.outputs[output].shape
    if len(unit) != len(shape) or not all(0 <= i < n for i, n in zip(unit, shape, strict=False)):
        ranges = ", ".join(f"0..{n - 1}" for n in shape)
        raise InputError(f"{where}: unit {','.join(map(str, unit))} is outside its output; use {ranges}")
    if not was_kept(recording, op, output):
        raise InputError(f"{where}: its tensors were not kept; record with keep=lambda op: op.module == {op.module!r}")
    return explainer(Asked(recording, op, unit, output))


def explainer_of(op: Op, output: int = 0) -> Explainer | None:
    """The entry of an operator, by its whole name or without its overload; None if there is none.

    Of several outputs, only the first is explained, unless they are parts of what was read.
    """
    found = EXPLAINERS.get(op.target) or EXPLAINERS.get(op.target.rpartition(".")[0])
    return found if output == 0 or found is each.viewed else None


def was_kept(recording: Recording, op: Op, output: int = 0) -> bool:
    """Whether the recording holds what the operator read and made."""
    return all(v.id in recording.tensors for v in (*op.inputs, op.outputs[output]))
