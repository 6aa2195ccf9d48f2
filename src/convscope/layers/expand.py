"""expand(): the one dense convolution that equals a stack of linear ones.

Two convolutions in sequence are one: its kernel is the full convolution of theirs, its stride their product, and its
padding p1 + s1*p2. The one thing that can break this is the border: zeros padded between two layers are not what the
first layer would have made there. They are the same where the first has no bias and sees nothing but zeros outside
its own padding, that is, where its padding is at least its span - 1 (a 1x1 kernel: always).
Shape suffixes: O output channels, M those between, I input channels, K a kernel's extent.
"""

from dataclasses import dataclass
from math import gcd

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from convscope.errors import InputError
from convscope.layers.family import CONVS, Conv, ShuffledGroupConv, channel_shuffle, maker

_FUNCTIONS = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}


def expand(layer: nn.Module, *, ndim: int) -> Conv:
    """The dense convolution, without groups, that gives what the layer or the stack of layers gives.

    Takes torch's convolutions of `ndim` axes (any stride, dilation, groups), `nn.Sequential`, `nn.Identity`,
    `nn.ChannelShuffle`, and the layers of the family. Worked out in float64; the result has the dtype of the first.
    Raises: InputError that says which member stands in the way and why: it is not linear, it pads between layers
    where that is no zero padding of the whole, or its channels or axes do not fit.

    >>> stack = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 5, 3, stride=2), nn.Conv2d(5, 6, 3))
    >>> expand(stack, ndim=2)
    Conv2d(3, 6, kernel_size=(9, 9), stride=(2, 2))
    """
    if ndim not in CONVS:
        raise InputError(f"expand: ndim is {ndim}; use 1, 2 or 3")
    whole: _Linear | None = None
    dtype = device = None
    for name, member in _members(layer, ""):
        if isinstance(member, CONVS[ndim]):
            step = _of_conv(member, name)
            whole = step if whole is None else _after(whole, step, name)
            dtype, device = dtype or member.weight.dtype, device or member.weight.device
        elif isinstance(member, nn.ChannelShuffle):
            if whole is None:
                raise InputError(f"expand: {name} comes before any convolution; put it behind one")
            whole = whole.shuffled(member.groups, name)
        else:
            raise InputError(f"expand: {name} is {type(member).__name__}; {_reason(member, ndim)}")
    if whole is None:
        raise InputError(f"expand: {type(layer).__name__} holds no convolution; give one, or a stack of them")
    return whole.conv(dtype=dtype, device=device)


@dataclass(frozen=True, slots=True)
class _Linear:
    """One dense convolution: weight OxIxK..., one number per axis for the rest; bias None where there is none."""

    weight: Tensor
    bias: Tensor | None
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]

    @property
    def size(self) -> tuple[int, ...]:
        return tuple(self.weight.shape[2:])

    def shuffled(self, groups: int, name: str) -> "_Linear":
        if len(self.weight) % groups:
            raise InputError(
                f"expand: {name} shuffles {groups} groups but gets {len(self.weight)} channels; use a divisor"
            )
        order = channel_shuffle(torch.arange(len(self.weight))[None], groups=groups)[0]
        bias = None if self.bias is None else self.bias[order]
        return _Linear(self.weight[order], bias, self.stride, self.padding, self.dilation)

    def conv(self, *, dtype: torch.dtype | None, device: torch.device | None) -> Conv:
        out_channels, in_channels = self.weight.shape[:2]
        window = (self.size, self.stride, self.padding, self.dilation)
        conv = maker(len(self.size))(
            in_channels, out_channels, *window, bias=self.bias is not None, device=device, dtype=dtype
        )
        with torch.no_grad():
            conv.weight.copy_(self.weight)
            if self.bias is not None and conv.bias is not None:
                conv.bias.copy_(self.bias)
        return conv


def _members(layer: nn.Module, name: str) -> list[tuple[str, nn.Module]]:
    """What runs, in order, with its place in the stack."""
    from convscope.layers.blocks import ConvNormAct  # not above: its kernels are chosen among ways that expand layers

    if isinstance(layer, nn.Identity):
        return []
    if isinstance(layer, ShuffledGroupConv):
        return [(f"{name}.conv".lstrip("."), layer.conv), (name or "shuffle", nn.ChannelShuffle(layer.groups))]
    if isinstance(layer, nn.Sequential) and type(layer).forward in (nn.Sequential.forward, ConvNormAct.forward):
        parts = [_members(child, f"{name}.{key}".lstrip(".")) for key, child in layer.named_children()]
        return [member for part in parts for member in part]
    return [(name or "the layer", layer)]


def _of_conv(conv: Conv, name: str) -> _Linear:
    weight = conv.weight.detach().to("cpu", torch.float64)
    bias = None if conv.bias is None else conv.bias.detach().to("cpu", torch.float64)
    padding = padding_in_numbers(conv, f"expand: {name}")
    if any(padding) and conv.padding_mode != "zeros":
        raise InputError(f"expand: {name} has padding_mode={conv.padding_mode!r}; only zeros are linear in the input")
    return _Linear(_without_groups(weight, conv.groups), bias, tuple(conv.stride), padding, tuple(conv.dilation))


def padding_in_numbers(conv: Conv, who: str) -> tuple[int, ...]:
    """The convolution's padding, one number an axis, also where it says "same".

    Raises: InputError, begun with `who`, where "same" pads unequal ends.

    >>> padding_in_numbers(nn.Conv2d(1, 1, (3, 5), padding="same"), "conv")
    (1, 2)
    """
    if not isinstance(conv.padding, str):
        return tuple(conv.padding)
    both = [d * (k - 1) if conv.padding == "same" else 0 for k, d in zip(conv.kernel_size, conv.dilation, strict=True)]
    if any(b % 2 for b in both):
        raise InputError(
            f"{who} has padding='same' with kernel_size={conv.kernel_size}, which pads unequal ends; "
            f"use an odd size or padding in numbers"
        )
    return tuple(b // 2 for b in both)


def _without_groups(weight_OIK: Tensor, groups: int) -> Tensor:
    """The same kernels over all input channels, with zeros for those of other groups."""
    kernels, per_group, *size = weight_OIK.shape
    dense = weight_OIK.new_zeros(groups, kernels // groups, groups, per_group, *size)
    for g, part in enumerate(weight_OIK.chunk(groups)):
        dense[g, :, g] = part
    return dense.reshape(kernels, groups * per_group, *size)


def _after(first: _Linear, second: _Linear, name: str) -> _Linear:
    if second.weight.shape[1] != len(first.weight):
        raise InputError(
            f"expand: {name} takes {second.weight.shape[1]} channels but gets {len(first.weight)} from the one "
            "before; give layers that fit"
        )
    _check_border(first, second, name)
    axes = zip(first.size, first.dilation, second.size, second.dilation, first.stride, strict=True)
    gaps = [(d1 if k1 > 1 else 0, s1 * d2 if k2 > 1 else 0) for k1, d1, k2, d2, s1 in axes]
    dilation = tuple(gcd(*both) or 1 for both in gaps)
    a_MIK = _spread(first.weight, [a // d or 1 for (a, _), d in zip(gaps, dilation, strict=True)])
    b_OMK = _spread(second.weight, [b // d or 1 for (_, b), d in zip(gaps, dilation, strict=True)])
    spatial = list(range(2, b_OMK.dim()))
    full = [k - 1 for k in b_OMK.shape[2:]]
    kernel_IOK = _FUNCTIONS[len(spatial)](a_MIK.transpose(0, 1), b_OMK.flip(spatial), padding=full)
    return _Linear(
        kernel_IOK.transpose(0, 1),
        _bias(first, second),
        tuple(s1 * s2 for s1, s2 in zip(first.stride, second.stride, strict=True)),
        tuple(p1 + s1 * p2 for p1, s1, p2 in zip(first.padding, first.stride, second.padding, strict=True)),
        dilation,
    )


def _check_border(first: _Linear, second: _Linear, name: str) -> None:
    if first.bias is not None and any(second.padding):
        raise InputError(
            f"expand: {name} pads by {second.padding} behind a bias, and a padded zero is not that bias; "
            f"pad in the first layer, or leave the bias to the last"
        )
    for axis, (k, d, p, later) in enumerate(
        zip(first.size, first.dilation, first.padding, second.padding, strict=True)
    ):
        if later and p < d * (k - 1):
            raise InputError(
                f"expand: {name} pads axis {axis} by {later} between layers, where the layers before it, "
                f"{d * (k - 1) + 1} wide and padded by {p}, would not give zeros; pad in the first layer"
            )


def _spread(weight: Tensor, steps: list[int]) -> Tensor:
    """The kernel with zeros between its elements, which come to lie `steps` apart."""
    size = [s * (k - 1) + 1 for s, k in zip(steps, weight.shape[2:], strict=True)]
    wide = weight.new_zeros(*weight.shape[:2], *size)
    wide[(..., *(slice(None, None, s) for s in steps))] = weight
    return wide


def _bias(first: _Linear, second: _Linear) -> Tensor | None:
    if first.bias is None:
        return second.bias
    carried = second.weight.flatten(2).sum(2) @ first.bias
    return carried if second.bias is None else carried + second.bias


def _reason(member: nn.Module, ndim: int) -> str:
    if isinstance(member, tuple(CONVS.values())):
        return f"its number of axes is not ndim={ndim}"
    if isinstance(member, nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d):
        return "a transposed convolution has no kernel that slides; take it out of the stack"
    return "only a stack of convolutions and channel shuffles is one convolution; take it out of the stack"
