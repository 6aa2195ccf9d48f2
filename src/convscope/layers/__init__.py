"""The convolution family beyond `torch.nn`, kernels set by hand, and the loops that define it all."""

from convscope.layers.kernels import KERNELS, find_kernel, named_kernel, parse_kernel
from convscope.layers.reference import conv_reference

__all__ = ["KERNELS", "conv_reference", "find_kernel", "named_kernel", "parse_kernel"]
