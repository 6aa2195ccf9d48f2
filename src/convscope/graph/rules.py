"""RULES: what is known of each operator. To support one more is to add one entry.

A rule says how many multiply-accumulates (MACs) an operator does, and which elements of an input a box of
its output reads. Elementwise arithmetic, pooling and normalisation count no MACs, the convention of published tables.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod

from convscope.graph import gathering, reading, resizing
from convscope.graph.reading import Box, conv_windows, factors, hull, pool_windows, same_place, whole
from convscope.graph.values import NUMBERS, Op, Value

__all__ = [
    "RULES", "Box", "OpRule", "Rules", "conv_windows", "hull", "outputs_apart", "pool_windows", "reads", "rule_of",
    "same_place", "whole",
]  # fmt: skip

Reads = Callable[[Op, Box, Value, int], Box | None]


def no_macs(op: Op) -> int:
    """Arithmetic that tables of MACs leave out, or none."""
    return 0


def uncounted(op: Op) -> None:
    """It does work that no number of MACs tells, such as a fast Fourier transform: totals stay lower bounds."""
    return


def conv_macs(op: Op) -> int:
    """Each output (each input, if transposed) meets one kernel of input channels / groups x kernel size."""
    x, weight = op.args["input"], op.args["weight"]
    per_place = prod(weight.shape[1:])
    return prod((x if op.args["transposed"] else op.outputs[0]).shape) * per_place


def matmul_macs(op: Op) -> int:
    """Every output is a dot product over the inner axis."""
    return prod(op.outputs[0].shape) * factors(op)[0].shape[-1]


def linear_macs(op: Op) -> int:
    """Every output is a dot product with a row of the weight."""
    return prod(op.outputs[0].shape) * op.args["weight"].shape[-1]


def attention_macs(op: Op) -> int:
    """Queries with keys, then weights with values."""
    query, key, values = (op.args[n] for n in ("query", "key", "value"))
    return prod(query.shape[:-1]) * key.shape[-2] * (query.shape[-1] + values.shape[-1])


def vector_macs(op: Op) -> int:
    """A matrix or a vector meets a vector: each of its elements once."""
    return prod(op.args["self"].shape)


def conv_gradient_macs(op: Op) -> int:
    """As many for the gradient of the input, and again for that of the weight, as the convolution itself takes."""
    x, out, weight = op.args["input"], op.args["grad_output"], op.args["weight"]
    once = prod((x if op.args["transposed"] else out).shape) * prod(weight.shape[1:])
    return once * sum(op.args["output_mask"][:2])


def deformed_macs(op: Op) -> int:
    """Those of the convolution; what moves its taps is interpolation, which is not counted."""
    return prod(op.outputs[0].shape) * prod(op.args["weight"].shape[1:])


@dataclass(frozen=True, slots=True)
class OpRule:
    """How many MACs (None if no number tells), and which box of an input a box of the output reads (None: no element).

    `uniform` says that what is read moves by the same step with every step of the output; `each`, that the outputs
    read different things, so that `reads` is asked for each by its number.
    """

    macs: Callable[[Op], int | None] = no_macs
    reads: Reads = same_place
    uniform: bool = True
    each: bool = False


Rules = Mapping[str, OpRule]

_ELEMENTWISE = [
    "add", "add_", "sub", "sub_", "mul", "mul_", "div", "div_", "neg", "abs", "exp", "log", "sqrt", "rsqrt", "pow",
    "relu", "relu_", "leaky_relu", "elu", "gelu", "silu", "silu_", "sigmoid", "tanh", "hardtanh", "hardtanh_",
    "hardswish", "hardswish_", "hardsigmoid", "clamp", "clamp_", "minimum", "maximum", "clone", "detach", "alias",
    "leaky_relu_", "clamp_min", "clamp_max", "addcmul", "masked_fill", "where", "eq", "ne", "lt", "gt", "bitwise_not",
    "le", "ge", "bitwise_and", "bitwise_or", "floor", "ceil", "round", "log2", "remainder", "lift_fresh",
    "sin", "cos", "_to_copy", "expand", "copy_", "rsub", "native_dropout", "_native_batch_norm_legit_no_training",
    "celu", "erf", "hardshrink", "hypot", "lerp", "log1p", "log_sigmoid_forward", "logical_not", "mish", "nan_to_num",
    "_prelu_kernel", "reciprocal", "rrelu_with_noise", "sigmoid_", "sign", "softplus", "softshrink", "tanh_",
    "threshold", "quantize_per_tensor", "quantize_per_channel", "dequantize",
    "acos", "acosh", "asin", "asinh", "atan", "atan2", "atanh", "cosh", "erfc", "exp2", "expm1", "log10", "sinh", "tan",
    "bitwise_xor", "fmod", "isinf", "isnan", "logical_and", "logical_or", "logical_xor", "logaddexp", "trunc", "tril",
    "triu", "addcdiv", "xlogy", "copy", "_conj", "_conj_physical",
]  # fmt: skip

_MADE_FROM_NOTHING = [
    "empty", "zeros", "ones", "full", "arange", "scalar_tensor", "new_empty", "new_zeros", "new_full", "zeros_like",
    "full_like", "ones_like", "linspace", "zero_", "fill_", "_local_scalar_dense", "empty_like", "eye",
    "rand", "randn", "randint", "randperm", "rand_like", "randn_like", "bernoulli_", "uniform_", "normal_",
    "fill", "new_ones", "empty_strided", "new_empty_strided", "hann_window", "is_same_size", "_has_same_storage_numel",
]  # fmt: skip

_READ_ANYWHERE = [
    "index", "index_put_", "nonzero", "topk", "sort", "repeat", "grid_sampler_2d", "im2col", "col2im",
    "grid_sampler_3d", "affine_grid_generator", "as_strided", "diagonal", "rot90", "_unique2", "_embedding_bag",
    "_embedding_bag_forward_only",
    "kthvalue", "median", "max_unpool2d", "max_unpool3d", "fractional_max_pool2d", "masked_scatter",
    "bucketize", "searchsorted", "bincount", "_weight_norm_interface",
]  # fmt: skip
_SCATTERED = ["scatter", "scatter_add", "scatter_reduce", "select_scatter", "slice_scatter", "index_put", "index_add"]
_GRADIENTS = [
    "_adaptive_avg_pool2d", "_adaptive_avg_pool3d", "avg_pool2d", "avg_pool3d", "elu", "gelu",
    "hardsigmoid", "hardswish", "hardtanh", "leaky_relu", "max_pool2d_with_indices", "max_pool3d_with_indices", "mish",
    "native_batch_norm", "native_dropout", "native_group_norm", "native_layer_norm", "select", "sigmoid", "silu",
    "slice", "softplus", "tanh", "threshold", "upsample_bilinear2d", "upsample_nearest2d", "upsample_bicubic2d",
    "embedding_dense", "grid_sampler_2d", "_prelu_kernel", "reflection_pad2d", "replication_pad2d", "unfold",
    "log_sigmoid",
]  # fmt: skip
_FUSED_ATTENTION = ["flash_attention_for_cpu", "flash_attention", "efficient_attention", "cudnn_attention"]
_ADAPTIVE = ["_adaptive_avg_pool2d", "_adaptive_avg_pool3d", "adaptive_max_pool2d", "adaptive_max_pool3d"]
_LINEAR = ["linear1d", "bilinear2d", "trilinear3d"]
_REDUCTIONS = [
    "mean", "sum", "amax", "amin", "linalg_vector_norm", "logsumexp", "prod", "std", "var", "argmax", "argmin", "any",
    "all", "count_nonzero",
]  # fmt: skip
_REDUCTIONS_TWICE = ["max", "min", "var_mean"]
_QUANTISED = ["add", "add_relu", "mul", "mul_relu", "hardswish", "sigmoid", "tanh", "leaky_relu", "elu", "relu6"]
_QUANTISED_CONVOLUTIONS = ["conv2d.new", "conv2d_relu.new", "conv3d.new", "conv3d_relu.new",
                           "conv_transpose2d", "conv_transpose3d"]  # fmt: skip
_QUANTISED_PRODUCTS = ["linear", "linear_relu", "linear_dynamic", "linear_relu_dynamic"]

RULES: Rules = {
    **{f"aten.{name}": OpRule() for name in _ELEMENTWISE},
    **{f"aten.{name}": OpRule(reads=reading.nothing) for name in _MADE_FROM_NOTHING},
    **{f"aten.{name}": OpRule(reads=reading.everything) for name in _READ_ANYWHERE},
    **{f"aten.{name}": OpRule(reads=reading.reduced_reads) for name in _REDUCTIONS},
    **{f"aten.{name}": OpRule(reads=reading.reduced_reads, each=True) for name in _REDUCTIONS_TWICE},
    "aten.convolution": OpRule(conv_macs, reading.conv_reads),
    "aten.mm": OpRule(matmul_macs, reading.matmul_reads),
    "aten.bmm": OpRule(matmul_macs, reading.matmul_reads),
    "aten.addmm": OpRule(matmul_macs, reading.matmul_reads),
    "aten.baddbmm": OpRule(matmul_macs, reading.matmul_reads),
    "aten.max_pool2d_with_indices": OpRule(reads=reading.pool_reads),
    "aten.max_pool3d_with_indices": OpRule(reads=reading.pool_reads),
    "aten.avg_pool2d": OpRule(reads=reading.pool_reads),
    "aten.avg_pool3d": OpRule(reads=reading.pool_reads),
    **{f"aten.{name}": OpRule(reads=resizing.adaptive_reads, uniform=False) for name in _ADAPTIVE},
    "aten.native_batch_norm": OpRule(reads=reading.batch_norm_reads),
    "aten._native_batch_norm_legit": OpRule(reads=reading.batch_norm_reads),
    "aten.cudnn_batch_norm": OpRule(reads=reading.batch_norm_reads),
    "aten.cudnn_batch_norm_backward": OpRule(reads=reading.everything),
    "aten.native_layer_norm": OpRule(reads=reading.trailing_reads),
    "aten.native_group_norm": OpRule(reads=reading.group_reads, uniform=False),
    "aten._softmax": OpRule(reads=reading.along_dim_reads),
    "aten._log_softmax": OpRule(reads=reading.along_dim_reads),
    "aten._safe_softmax": OpRule(reads=reading.along_dim_reads),
    "aten.view": OpRule(reads=reading.reshape_reads, uniform=False),
    "aten._unsafe_view": OpRule(reads=reading.reshape_reads, uniform=False),
    "aten.unsqueeze": OpRule(reads=reading.reshape_reads, uniform=False),
    "aten.squeeze": OpRule(reads=reading.reshape_reads, uniform=False),
    "aten.t": OpRule(reads=reading.permuted_reads),
    "aten.transpose": OpRule(reads=reading.permuted_reads),
    "aten.permute": OpRule(reads=reading.permuted_reads),
    "aten.cat": OpRule(reads=reading.cat_reads, uniform=False),
    "aten.stack": OpRule(reads=reading.stack_reads, uniform=False),
    "aten.split": OpRule(reads=reading.split_reads, each=True),
    "aten.split_with_sizes": OpRule(reads=reading.split_reads, each=True),
    "aten.unsafe_split": OpRule(reads=reading.split_reads, each=True),
    "aten.unbind": OpRule(reads=reading.split_reads, each=True),
    "aten.slice": OpRule(reads=reading.slice_reads),
    "aten.select": OpRule(reads=reading.select_reads),
    "aten.constant_pad_nd": OpRule(reads=reading.pad_reads),
    **{f"aten.reflection_pad{n}d": OpRule(reads=reading.reflected_reads, uniform=False) for n in (1, 2, 3)},
    **{f"aten.replication_pad{n}d": OpRule(reads=reading.replicated_reads, uniform=False) for n in (1, 2, 3)},
    "aten.unfold": OpRule(reads=reading.unfolded_reads),
    "aten.flip": OpRule(reads=reading.flipped_reads, uniform=False),
    "aten.roll": OpRule(reads=reading.rolled_reads, uniform=False),
    "aten.as_strided_": OpRule(reads=reading.restride_reads, uniform=False),
    **{f"aten.upsample_nearest{n}d": OpRule(reads=resizing.nearest_reads, uniform=False) for n in (1, 2, 3)},
    **{
        f"aten._upsample_nearest_exact{n}d": OpRule(reads=resizing.exact_nearest_reads, uniform=False)
        for n in (1, 2, 3)
    },
    **{f"aten.upsample_{name}": OpRule(reads=resizing.linear_reads, uniform=False) for name in _LINEAR},
    "aten.upsample_bicubic2d": OpRule(reads=resizing.cubic_reads, uniform=False),
    "aten.pixel_shuffle": OpRule(reads=resizing.shuffled_reads, uniform=False),
    "aten.pixel_unshuffle": OpRule(reads=resizing.unshuffled_reads),
    "aten.channel_shuffle": OpRule(reads=resizing.channel_shuffled_reads),
    **{
        f"aten._scaled_dot_product_{name}": OpRule(attention_macs, reading.attention_reads) for name in _FUSED_ATTENTION
    },
    **{f"aten.{name}": OpRule(reads=gathering.scattered_reads) for name in _SCATTERED},
    **{f"aten.{name}": OpRule(reads=gathering.prefix_reads, uniform=False) for name in ("cumsum", "cumprod")},
    **{f"aten._fft_{name}": OpRule(uncounted, gathering.transformed_reads) for name in ("c2c", "r2c", "c2r")},
    "aten.view_as_real": OpRule(reads=gathering.real_parts_reads),
    "aten.view_as_complex": OpRule(reads=gathering.complex_reads),
    "aten.gather": OpRule(reads=gathering.gathered_reads),
    "aten.index_select": OpRule(reads=gathering.gathered_reads),
    "aten.embedding": OpRule(reads=gathering.embedded_reads),
    "aten.mv": OpRule(vector_macs, gathering.vector_reads),
    "aten.dot": OpRule(vector_macs, reading.everything),
    "aten.convolution_backward": OpRule(conv_gradient_macs, reading.everything),
    **{f"aten.{name}_backward": OpRule(reads=reading.everything) for name in _GRADIENTS},
    **{f"aten.{name}_backward_data": OpRule(reads=reading.everything) for name in ("_softmax", "_log_softmax")},
    **{f"quantized.{name}": OpRule() for name in _QUANTISED},
    **{f"quantized.{name}": OpRule(conv_macs, reading.conv_reads) for name in _QUANTISED_CONVOLUTIONS},
    **{f"quantized.{name}": OpRule(linear_macs, reading.linear_reads) for name in _QUANTISED_PRODUCTS},
    "quantized.cat": OpRule(reads=reading.cat_reads, uniform=False),
    "aten.quantized_max_pool2d": OpRule(reads=reading.pool_reads),
    "convscope.taken": OpRule(reads=reading.nothing),
    "convscope.returned": OpRule(reads=reading.everything),
    "convscope.changed": OpRule(reads=reading.changed_reads, uniform=False),
    "torchvision.deform_conv2d": OpRule(deformed_macs, reading.everything),
    **{f"torchvision.{name}": OpRule(reads=reading.everything) for name in ("roi_align", "roi_pool", "nms")},
}


def rule_of(op: Op, *, rules: Rules = RULES) -> OpRule | None:
    """The operator's rule: that of its overload, else of its family, else of its twin that is not in place; or None."""
    family = op.target.rpartition(".")[0]
    return rules.get(op.target) or rules.get(family) or (rules.get(family[:-1]) if family[-1] == "_" else None)


def reads(op: Op, box: Box, value: Value, *, k: int = 0, rules: Rules = RULES) -> Box | None:
    """What a box of the operator's k-th output reads of an input; an unknown operator may read everything."""
    rule = rule_of(op, rules=rules)
    if rule is None or value in op.args.get(NUMBERS, ()):
        return whole(value)
    return rule.reads(op, box, value, k)


def outputs_apart(op: Op, *, rules: Rules = RULES) -> tuple[Value, ...]:
    """The outputs that are asked about: the first alone (others are its by-products), unless each reads its own."""
    rule = rule_of(op, rules=rules)
    return op.outputs if rule is None or rule.each else op.outputs[:1]
