"""One call of every operator that has a rule, with the MACs that it takes by hand."""

import torch
import torch.nn.functional as F
import torchvision


def unary(name):
    return lambda x: getattr(torch.ops.aten, name)(x)


def binary(name):
    return lambda x, y: getattr(torch.ops.aten, name)(x, y)


NORM = (torch.ones(3), torch.zeros(3), torch.zeros(3), torch.ones(3))
IMAGE, ROWS = (2, 3, 6, 8), (4, 5)
UNARY = [
    "leaky_relu_", "sin", "cos", "floor", "ceil", "round", "log2", "lift_fresh", "neg", "abs", "exp", "log", "sqrt",
    "rsqrt", "relu", "relu_", "leaky_relu", "elu", "gelu", "silu", "silu_", "sigmoid", "tanh", "hardtanh", "hardtanh_",
    "hardswish", "hardswish_", "hardsigmoid", "clone", "detach", "alias", "celu", "erf", "hardshrink", "log1p", "mish",
    "nan_to_num", "reciprocal", "sigmoid_", "sign", "softplus", "softshrink", "tanh_", "logical_not", "asinh", "atan",
    "sinh", "cosh", "tan", "erfc", "exp2", "expm1", "log10", "isinf", "isnan", "trunc", "_conj_physical",
]  # fmt: skip
BINARY = [
    "add", "add_", "sub", "sub_", "mul", "mul_", "div", "div_", "minimum", "maximum", "copy_", "eq", "ne", "lt", "gt",
    "le", "ge", "hypot", "atan2", "logical_and", "logical_or", "logical_xor", "logaddexp", "xlogy", "copy", "fmod",
]  # fmt: skip
SPACES = {1: (2, 3, 6), 2: (2, 3, 6, 4), 3: (1, 2, 4, 3, 2)}


def padded(n, mode):
    return (lambda x: F.pad(x, (1, 0, 1, 1, 0, 1)[: 2 * n], mode=mode)), (SPACES[n],), 0


def resized(n, mode):
    return (lambda x: F.interpolate(x, (9, 5, 3)[:n], mode=mode)), (SPACES[n],), 0


# rules that may read more than decides the result: a comparison or a maximum, and indices that are not looked at
BOUNDED = [
    "_embedding_bag", "_embedding_bag_forward_only", "_fft_c2c", "_fft_c2r", "_fft_r2c", "_unique2",
    "_weight_norm_interface", "adaptive_max_pool2d", "adaptive_max_pool3d", "affine_grid_generator", "all",
    "amin", "any", "argmax", "argmin", "as_strided", "bincount", "bitwise_xor", "bucketize", "ceil", "col2im",
    "convolution_backward", "count_nonzero", "diagonal", "embedding", "eq", "floor", "fmod",
    "fractional_max_pool2d", "gather", "ge", "grid_sampler_2d", "grid_sampler_3d", "gt", "hardshrink", "im2col",
    "index", "index_add", "index_put", "index_put_", "index_select", "isinf", "isnan", "kthvalue", "le",
    "logical_and", "logical_not", "logical_or", "logical_xor", "lt", "masked_scatter", "max",
    "max_pool2d_with_indices", "max_unpool2d", "max_unpool3d", "maximum", "median", "min", "minimum", "ne",
    "nonzero", "repeat", "rot90", "round", "scatter", "scatter_add", "scatter_reduce", "searchsorted",
    "select_scatter", "sign", "slice_scatter", "softshrink", "sort", "threshold", "topk", "tril", "triu",
    "trunc", "where",
]  # fmt: skip
BOUNDS = {
    "convscope.returned",
    *(f"torchvision.{n}" for n in ("roi_align", "roi_pool", "nms", "deform_conv2d")),
    *(f"aten.{n}" for n in BOUNDED),
}
# key: (function, input shapes, MACs by hand)
CASES = {
    **{f"aten.{n}": (unary(n), (IMAGE,), 0) for n in UNARY},
    **{f"aten.{n}": (binary(n), (IMAGE, IMAGE), 0) for n in BINARY},
    "aten.pow": (lambda x: x**2, (IMAGE,), 0),
    "aten.clamp": (lambda x: x.clamp(0.1, 9.0), (IMAGE,), 0),
    "aten.clamp_": (lambda x: x.clamp_(0.1, 9.0), (IMAGE,), 0),
    "aten._to_copy": (lambda x: x.double(), (IMAGE,), 0),
    "aten.expand": (lambda x: x.expand(2, 3, 6, 8), ((2, 3, 1, 8),), 0),
    "aten.native_dropout": (lambda x: torch.ops.aten.native_dropout(x, 1e-9, True)[0], (IMAGE,), 0),
    "aten.native_batch_norm": (lambda x: F.batch_norm(x, *NORM[2:], *NORM[:2]), (IMAGE,), 0),
    "aten._native_batch_norm_legit_no_training": (
        lambda x: torch.ops.aten._native_batch_norm_legit_no_training(x, *NORM, 0.1, 1e-5)[0], (IMAGE,), 0,
    ),
    "aten.convolution": (
        lambda x: F.conv2d(x, torch.ones(4, 3, 3, 2), stride=(2, 1), padding=(1, 0)),
        (IMAGE,), (2 * 4 * 3 * 7) * (3 * 3 * 2),
    ),
    "aten.mm": (torch.mm, ((4, 5), (5, 6)), 4 * 5 * 6),
    "aten.bmm": (torch.bmm, ((2, 4, 5), (2, 5, 6)), 2 * 4 * 5 * 6),
    "aten.addmm": (torch.addmm, ((6,), (4, 5), (5, 6)), 4 * 5 * 6),
    "aten.max_pool2d_with_indices": (lambda x: F.max_pool2d(x, (2, 1)), (IMAGE,), 0),
    "aten.max_pool3d_with_indices": (lambda x: F.max_pool3d(x, 1, 2), ((1, 2, 4, 4, 4),), 0),
    "aten.avg_pool2d": (lambda x: F.avg_pool2d(x, 3, 2, 1), (IMAGE,), 0),
    "aten.avg_pool3d": (lambda x: F.avg_pool3d(x, 2), ((1, 2, 4, 4, 4),), 0),
    "aten._adaptive_avg_pool2d": (lambda x: F.adaptive_avg_pool2d(x, (4, 3)), (IMAGE,), 0),
    "aten.mean": (lambda x: x.mean((2, 3), keepdim=True), (IMAGE,), 0),
    "aten.sum": (lambda x: x.sum(1), (IMAGE,), 0),
    "aten._softmax": (lambda x: x.softmax(1), (ROWS,), 0),
    "aten._log_softmax": (lambda x: x.log_softmax(-1), (ROWS,), 0),
    "aten.view": (lambda x: x.view(2, 3, 48), (IMAGE,), 0),
    "aten._unsafe_view": (lambda x: torch.ops.aten._unsafe_view(x, [6, 48]), (IMAGE,), 0),
    "aten.unsqueeze": (lambda x: x.unsqueeze(1), (ROWS,), 0),
    "aten.squeeze": (lambda x: x.squeeze(1), ((4, 1, 5),), 0),
    "aten.t": (lambda x: x.t(), (ROWS,), 0),
    "aten.transpose": (lambda x: x.transpose(1, 3), (IMAGE,), 0),
    "aten.permute": (lambda x: x.permute(0, 2, 3, 1), (IMAGE,), 0),
    "aten.cat": (lambda x, y: torch.cat([x, y], 1), (IMAGE, IMAGE), 0),
    "aten.stack": (lambda x, y: torch.stack([x, y], 2), (IMAGE, IMAGE), 0),
    "aten.split": (lambda x: x.split(2, 1)[1], (IMAGE,), 0),
    "aten.unsafe_split": (lambda x: torch.ops.aten.unsafe_split(x, 2, 1)[1], (IMAGE,), 0),
    "aten.flip": (lambda x: x.flip(1, -1), (IMAGE,), 0),
    "aten.split_with_sizes": (lambda x: x.split([1, 2, 3], 2)[2], (IMAGE,), 0),
    "aten.unbind": (lambda x: x.unbind(3)[5], (IMAGE,), 0),
    "aten.slice": (lambda x: torch.ops.aten.slice(x, 3, -7, 7, 2), (IMAGE,), 0),
    "aten.select": (lambda x: x.select(2, -2), (IMAGE,), 0),
    "aten.index": (lambda x: x[:, torch.tensor([2, 0])], (IMAGE,), 0),
    "aten.constant_pad_nd": (lambda x: F.pad(x, (2, 1, -1, 3)), (IMAGE,), 0),
    **{f"aten.replication_pad{n}d": padded(n, "replicate") for n in SPACES},
    **{f"aten.reflection_pad{n}d": padded(n, "reflect") for n in (1, 3)},
    **{f"aten.upsample_nearest{n}d": resized(n, "nearest") for n in (1, 3)},
    **{f"aten._upsample_nearest_exact{n}d": resized(n, "nearest-exact") for n in SPACES},
    "aten.upsample_linear1d": resized(1, "linear"),
    "aten.upsample_trilinear3d": resized(3, "trilinear"),
    "aten.upsample_bicubic2d": (lambda x: F.interpolate(x, (9, 20), mode="bicubic"), (IMAGE,), 0),
    "aten.pixel_shuffle": (lambda x: F.pixel_shuffle(x, 2), ((2, 8, 3, 5),), 0),
    "aten.pixel_unshuffle": (lambda x: F.pixel_unshuffle(x, 2), ((2, 3, 6, 4),), 0),
    "aten.channel_shuffle": (lambda x: F.channel_shuffle(x, 3), ((2, 12, 2, 2),), 0),
    "aten.unfold": (lambda x: x.unfold(2, 3, 2), (IMAGE,), 0),
    "aten.im2col": (lambda x: F.unfold(x, 3), ((1, 2, 4, 4),), 0),
    "aten.col2im": (lambda x: F.fold(x, 4, 3), ((1, 18, 4),), 0),
    "aten.adaptive_max_pool2d": (lambda x: F.adaptive_max_pool2d(x, (4, 3)), (IMAGE,), 0),
    "aten.adaptive_max_pool3d": (lambda x: F.adaptive_max_pool3d(x, 2), (SPACES[3],), 0),
    "aten._adaptive_avg_pool3d": (lambda x: F.adaptive_avg_pool3d(x, 2), (SPACES[3],), 0),
    "aten.baddbmm": (torch.baddbmm, ((4, 6), (2, 4, 5), (2, 5, 6)), 2 * 4 * 5 * 6),
    "aten._prelu_kernel": (lambda x: F.prelu(x - 2, torch.ones(1) / 4), (IMAGE,), 0),
    "aten.log_sigmoid_forward": (F.logsigmoid, (IMAGE,), 0),
    "aten.threshold": (lambda x: F.threshold(x, 0.1, 0.0), (IMAGE,), 0),
    "aten.rrelu_with_noise": (F.rrelu, (IMAGE,), 0),
    "aten.lerp": (lambda x, y: torch.lerp(x, y, 0.25), (IMAGE, IMAGE), 0),
    "aten.amin": (lambda x: x.amin(1) * 1, (ROWS,), 0),
    "aten.max": (lambda x: x.max(0).values, (ROWS,), 0),
    "aten.min": (lambda x: x.min(1).values, (ROWS,), 0),
    "aten.argmax": (lambda x: x.argmax(0), (ROWS,), 0),
    "aten.argmin": (lambda x: x.argmin(), (ROWS,), 0),
    "aten.logsumexp": (lambda x: x.logsumexp(1), (ROWS,), 0),
    "aten.prod": (lambda x: x.prod(0), (ROWS,), 0),
    "aten.std": (lambda x: x.std((2, 3)), (IMAGE,), 0),
    "aten.var": (lambda x: x.var(0), (ROWS,), 0),
    "aten.var_mean": (lambda x: torch.var_mean(x, 1)[1], (ROWS,), 0),
    "aten.empty_like": (lambda x: torch.empty_like(x).fill_(1.0), (ROWS,), 0),
    "aten.eye": (lambda x: torch.eye(3), (ROWS,), 0),
    "aten.reflection_pad2d": (lambda x: F.pad(x, (1, 2, 3, 3), mode="reflect"), (IMAGE,), 0),
    "aten.roll": (lambda x: x.roll((1, -3), (2, 3)), (IMAGE,), 0),
    "aten.as_strided_": (lambda x: torch.ops.aten.as_strided_(x, IMAGE, [144, 48, 8, 1]), (IMAGE,), 0),
    "aten.upsample_nearest2d": (lambda x: F.interpolate(x, (9, 20)), (IMAGE,), 0),
    "aten.upsample_bilinear2d": (lambda x: F.interpolate(x, (9, 20), mode="bilinear"), (IMAGE,), 0),
    "aten.amax": (lambda x: x.amax(1) * 1, ((4, 1),), 0),
    "aten.linalg_vector_norm": (lambda x: x.norm(dim=1), (IMAGE,), 0),
    "aten.native_layer_norm": (lambda x: F.layer_norm(x, (6, 8)), (IMAGE,), 0),
    "aten.native_group_norm": (lambda x: F.group_norm(x, 2), ((2, 4, 3, 3),), 0),
    "aten._safe_softmax": (lambda x: torch.ops.aten._safe_softmax(x, 1), (ROWS,), 0),
    "aten._scaled_dot_product_flash_attention_for_cpu": (
        F.scaled_dot_product_attention, ((1, 2, 5, 8), (1, 2, 7, 8), (1, 2, 7, 8)), 2 * 5 * 7 * (8 + 8),
    ),
    "aten.clamp_min": (lambda x: torch.ops.aten.clamp_min(x, 0.1), (IMAGE,), 0),
    "aten.clamp_max": (lambda x: torch.ops.aten.clamp_max(x, 9.0), (IMAGE,), 0),
    "aten.addcmul": (torch.addcmul, (IMAGE, IMAGE, IMAGE), 0),
    "aten.masked_fill": (lambda x: x.masked_fill(torch.zeros(8, dtype=torch.bool), 1.0), (IMAGE,), 0),
    "aten.where": (lambda x, y: torch.where(torch.tensor(True), x, y), (IMAGE, IMAGE), 0),
    "aten.bitwise_not": (lambda x: torch.bitwise_not((4 * x).int()), (IMAGE,), 0),
    "aten.bitwise_and": (lambda x: torch.bitwise_and((4 * x).int(), 127), (IMAGE,), 0),
    "aten.bitwise_or": (lambda x: torch.bitwise_or((4 * x).int(), 128), (IMAGE,), 0),
    "aten.remainder": (lambda x: torch.remainder(x, 9.0), (IMAGE,), 0),
    "aten.index_put_": (lambda x: x.index_put_((torch.tensor([1]),), torch.tensor(1.0)), (ROWS,), 0),
    "aten.nonzero": (torch.nonzero, (ROWS,), 0),
    "aten.topk": (lambda x: x.topk(2).values, (ROWS,), 0),
    "aten.sort": (lambda x: x.sort().values, (ROWS,), 0),
    "aten.repeat": (lambda x: x.repeat(2, 1), (ROWS,), 0),
    "aten.rsub": (lambda x: torch.rsub(x, 1.0), (ROWS,), 0),
    "aten.linspace": (lambda x: torch.linspace(0, 1, 3), (ROWS,), 0),
    "aten.ones_like": (torch.ones_like, (ROWS,), 0),
    "aten.grid_sampler_2d": (
        lambda x: F.grid_sample(x, torch.zeros(2, 2, 2, 2) - 0.3, align_corners=False), (IMAGE,), 0,
    ),
    "convscope.changed": (lambda x: (x[1:3].mul_(2), x)[1], (ROWS,), 0),
    "torchvision.roi_align": (
        lambda x: torchvision.ops.roi_align(x, [torch.tensor([[1.0, 1, 5, 5]])] * 2, 3), (IMAGE,), 0,
    ),
    "aten.empty": (lambda x: torch.empty(2).fill_(1.0), (ROWS,), 0),
    "aten.new_empty": (lambda x: x.new_empty(2).fill_(1.0), (ROWS,), 0),
    "aten.new_full": (lambda x: x.new_full((2,), 1.0), (ROWS,), 0),
    "aten.full_like": (lambda x: torch.full_like(x, 2.0), (ROWS,), 0),
    "aten._local_scalar_dense": (lambda x: torch.ones(2) * x.sum().item(), ((1,),), 0),
    "aten.zeros": (lambda x: torch.zeros(2), (ROWS,), 0),
    "aten.ones": (lambda x: torch.ones(2), (ROWS,), 0),
    "aten.full": (lambda x: torch.full((2,), 3.0), (ROWS,), 0),
    "aten.arange": (lambda x: torch.arange(3), (ROWS,), 0),
    "aten.scalar_tensor": (lambda x: torch.ops.aten.scalar_tensor(2.0), (ROWS,), 0),
    "aten.new_zeros": (lambda x: x.new_zeros(3), (ROWS,), 0),
    "aten.zeros_like": (torch.zeros_like, (ROWS,), 0),
    "aten.zero_": (lambda x: x.zero_(), (ROWS,), 0),
    "aten.fill_": (lambda x: x.fill_(2.0), (ROWS,), 0),
    "aten.fill": (lambda x: torch.ops.aten.fill(x, 2.0), (ROWS,), 0),
    "aten.new_ones": (lambda x: x.new_ones(3), (ROWS,), 0),
    "aten.empty_strided": (lambda x: torch.empty_strided((2,), (1,)).fill_(1.0), (ROWS,), 0),
    "aten.new_empty_strided": (lambda x: x.new_empty_strided((2,), (1,)).fill_(1.0), (ROWS,), 0),
    "aten.hann_window": (lambda x: torch.hann_window(4), (ROWS,), 0),
    **{f"aten.{n}": (lambda x, n=n: getattr(torch, n)(3), (ROWS,), 0) for n in ("rand", "randn", "randperm")},
    "aten.randint": (lambda x: torch.randint(9, (3,)), (ROWS,), 0),
    "aten.rand_like": (torch.rand_like, (ROWS,), 0),
    "aten.randn_like": (torch.randn_like, (ROWS,), 0),
    "aten.bernoulli_": (lambda x: x.bernoulli_(), (ROWS,), 0),
    "aten.uniform_": (lambda x: x.uniform_(), (ROWS,), 0),
    "aten.normal_": (lambda x: x.normal_(), (ROWS,), 0),
    "aten.is_same_size": (lambda x: (torch.ops.aten.is_same_size(x, x), torch.ones(2))[1], (ROWS,), 0),
    "aten._has_same_storage_numel": (
        lambda x: (torch.ops.aten._has_same_storage_numel(x, x), torch.ones(2))[1], (ROWS,), 0,
    ),
    "aten.acos": (lambda x: (x / 9).acos(), (IMAGE,), 0),
    "aten.asin": (lambda x: (x / 9).asin(), (IMAGE,), 0),
    "aten.atanh": (lambda x: (x / 9).atanh(), (IMAGE,), 0),
    "aten.acosh": (lambda x: (x + 9).acosh(), (IMAGE,), 0),
    "aten._conj": (lambda x: (torch.ops.aten._conj(torch.complex(x, x)) * 1).real, (ROWS,), 0),
    "aten.bitwise_xor": (lambda x: torch.bitwise_xor((4 * x).int(), 127), (IMAGE,), 0),
    "aten.addcdiv": (torch.addcdiv, (IMAGE, IMAGE, IMAGE), 0),
    "aten.tril": (torch.tril, (ROWS,), 0),
    "aten.triu": (lambda x: torch.triu(x, 1), (ROWS,), 0),
    "aten.any": (lambda x: x.any(1), (ROWS,), 0),
    "aten.all": (lambda x: (x > 0.1).all(0), (ROWS,), 0),
    "aten.count_nonzero": (lambda x: x.count_nonzero(1), (ROWS,), 0),
    "aten._native_batch_norm_legit": (
        lambda x: torch.ops.aten._native_batch_norm_legit.no_stats(x, *NORM[:2], True, 0.1, 1e-5)[0], (IMAGE,), 0,
    ),
    "aten.grid_sampler_3d": (
        lambda x: F.grid_sample(x, torch.zeros(1, 2, 2, 2, 3) - 0.3, align_corners=False), (SPACES[3],), 0,
    ),
    "aten.affine_grid_generator": (lambda x: F.affine_grid(x, [1, 1, 4, 4], align_corners=False), ((1, 2, 3),), 0),
    "aten.as_strided": (lambda x: x.as_strided((3, 2), (5, 1)), (ROWS,), 0),
    "aten.diagonal": (torch.diagonal, (ROWS,), 0),
    "aten.rot90": (torch.rot90, (ROWS,), 0),
    "aten._unique2": (lambda x: x.flatten().unique(), (ROWS,), 0),
    "aten._embedding_bag": (
        lambda x: torch.ops.aten._embedding_bag(x, torch.tensor([1, 0, 2]), torch.tensor([0, 2]))[0], (ROWS,), 0,
    ),
    "aten._embedding_bag_forward_only": (lambda x: F.embedding_bag(torch.tensor([[1, 0], [2, 2]]), x), (ROWS,), 0),
    "aten.kthvalue": (lambda x: x.kthvalue(2).values, (ROWS,), 0),
    "aten.median": (lambda x: x.median(1).values, (ROWS,), 0),
    "aten.max_unpool2d": (
        lambda x: F.max_unpool2d(x, torch.arange(8).reshape(1, 1, 2, 4), 2), ((1, 1, 2, 4),), 0,
    ),
    "aten.max_unpool3d": (
        lambda x: F.max_unpool3d(x, torch.arange(4).reshape(1, 1, 1, 2, 2), 2), ((1, 1, 1, 2, 2),), 0,
    ),
    "aten.fractional_max_pool2d": (
        lambda x: F.fractional_max_pool2d(x, 2, (3, 4), _random_samples=torch.full((2, 3, 2), 0.5)), (IMAGE,), 0,
    ),
    "aten.masked_scatter": (lambda x, y: x.masked_scatter(torch.tensor(True), y), (ROWS, ROWS), 0),
    "aten.bucketize": (lambda x: torch.bucketize(x, torch.tensor([0.7, 1.1])), (ROWS,), 0),
    "aten.searchsorted": (lambda x: torch.searchsorted(torch.tensor([0.7, 1.1]), x), (ROWS,), 0),
    "aten.bincount": (lambda x: x.long().bincount(minlength=3), ((5,),), 0),
    "aten._weight_norm_interface": (
        lambda v, g: torch._weight_norm(v, g, 0), ((4, 5), (4, 1)), 0,
    ),
    "aten.scatter": (lambda x: x.scatter(1, torch.tensor([[0], [1]]), 0.0), (ROWS,), 0),
    "aten.scatter_add": (
        lambda x, y: x.scatter_add(0, torch.zeros(4, 5, dtype=torch.long), y), (ROWS, ROWS), 0,
    ),
    "aten.scatter_reduce": (
        lambda x, y: x.scatter_reduce(0, torch.zeros(4, 5, dtype=torch.long), y, "sum"), (ROWS, ROWS), 0,
    ),
    "aten.select_scatter": (lambda x, y: x.select_scatter(y, 0, 1), (ROWS, (5,)), 0),
    "aten.slice_scatter": (lambda x, y: x.slice_scatter(y, 0, 1, 3), (ROWS, (2, 5)), 0),
    "aten.index_put": (lambda x, y: x.index_put((torch.tensor([1]),), y), (ROWS, (1, 5)), 0),
    "aten.index_add": (lambda x, y: x.index_add(0, torch.tensor([1, 2]), y), (ROWS, (2, 5)), 0),
    "aten.cumsum": (lambda x: x.cumsum(1), (ROWS,), 0),
    "aten.cumprod": (lambda x: x.cumprod(0), (ROWS,), 0),
    "aten._fft_c2c": (lambda x: torch.fft.ifft(torch.complex(x, x), dim=0).real, (ROWS,), None),
    "aten._fft_r2c": (lambda x: torch.fft.rfft(x, dim=1).real, (ROWS,), None),
    "aten._fft_c2r": (lambda x: torch.fft.irfft(torch.complex(x, x), dim=1), (ROWS,), None),
    "aten.view_as_real": (lambda x: torch.view_as_real(torch.complex(x, x)), (ROWS,), 0),
    "aten.view_as_complex": (lambda x: torch.view_as_complex(x).abs(), ((4, 2),), 0),
    "aten.gather": (lambda x: x.gather(1, torch.tensor([[2], [0], [4], [1]])), (ROWS,), 0),
    "aten.index_select": (lambda x: x.index_select(0, torch.tensor([2, 0, 0])), (ROWS,), 0),
    "aten.embedding": (lambda x: F.embedding(torch.tensor([1, 3, 0]), x), (ROWS,), 0),
    "aten.mv": (torch.mv, (ROWS, (5,)), 4 * 5),
    "aten.dot": (torch.dot, ((5,), (5,)), 5),
    "aten.convolution_backward": (
        lambda x, w: torch.nn.grad.conv2d_weight(x, w.shape, torch.ones(1, 4, 4, 4)), ((1, 3, 6, 6), (4, 3, 3, 3)),
        (4 * 4 * 4) * (3 * 3 * 3),
    ),
    "torchvision.deform_conv2d": (
        lambda x: torchvision.ops.deform_conv2d(x, torch.zeros(1, 18, 4, 4), torch.ones(4, 3, 3, 3)),
        ((1, 3, 6, 6),), (4 * 4 * 4) * (3 * 3 * 3),
    ),
    "torchvision.roi_pool": (
        lambda x: torchvision.ops.roi_pool(x, [torch.tensor([[1.0, 1, 5, 5]])] * 2, 3), (IMAGE,), 0,
    ),
    "torchvision.nms": (lambda x: torchvision.ops.nms(torch.eye(4), x, 0.5), ((4,),), 0),
    "convscope.taken": (lambda x: (x.numpy(), torch.ones(2))[1], ((3,),), 0),
    "convscope.returned": (lambda x: torch.from_numpy(2 * x.numpy()) + 1, ((3,),), 0),
}  # fmt: skip
