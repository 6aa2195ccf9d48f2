"""The convolution family beyond `torch.nn`, kernels set by hand, and the loops that define it all."""

from convscope.layers.blocks import ConvNormAct, DilatedPyramid, InvertedResidual, PoolAndBack, ShuffleUnit, UpBlock
from convscope.layers.expand import expand
from convscope.layers.factorise import Factorised, factorise
from convscope.layers.family import (
    DepthwiseSeparableConv,
    FlattenedConv,
    ShuffledGroupConv,
    SpatiallySeparableConv,
    channel_shuffle,
)
from convscope.layers.kernels import KERNELS, find_kernel, named_kernel, parse_kernel
from convscope.layers.matrix import conv_gemm, convolution_matrix, im2col
from convscope.layers.reference import conv_reference, max_pool_reference, shuffle_reference, transposed_reference

__all__ = [
    "KERNELS",
    "ConvNormAct",
    "DepthwiseSeparableConv",
    "DilatedPyramid",
    "Factorised",
    "FlattenedConv",
    "InvertedResidual",
    "PoolAndBack",
    "ShuffleUnit",
    "ShuffledGroupConv",
    "SpatiallySeparableConv",
    "UpBlock",
    "channel_shuffle",
    "conv_gemm",
    "conv_reference",
    "convolution_matrix",
    "expand",
    "factorise",
    "find_kernel",
    "im2col",
    "max_pool_reference",
    "named_kernel",
    "parse_kernel",
    "shuffle_reference",
    "transposed_reference",
]
