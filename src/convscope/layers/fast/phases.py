"""A transposed convolution as ordinary ones: of every s-th output along an axis, each sees the same taps.

With stride s an axis has s such phases, each a convolution of stride 1 with its own part of the kernel. Shape suffixes:
I inputs, O outputs of a group, HW the axes of the kernel.
"""

from collections.abc import Sequence
from typing import NamedTuple, final

import torch
from torch import Tensor, nn

from convscope.layers.fast.compiled import Window
from convscope.layers.fast.forms import Form, pair
from convscope.layers.fast.operators import LAST, can, conv2d


class Axis(NamedTuple):
    """One phase along one axis: the taps from `tap` on, `stride` apart, the padding of the convolution that they make,
    and which of its outputs are kept: `size` from `first` on."""

    tap: int
    taps: int
    padding: int
    first: int
    size: int


def axis(phase: int, size: int, out: int, *, kernel: int, stride: int, padding: int) -> Axis:
    """The phase of an axis of `size` inputs and `out` outputs."""
    tap = (phase + padding) % stride
    taps, count = len(range(tap, kernel, stride)), len(range(phase, out, stride))
    behind = (phase + padding - tap) // stride  # the last input that the first output sees, and the first one
    before = behind - taps + 1
    around = max(-before, count - size + behind, 0)
    return Axis(tap, taps, around, before + around, count)


def phased(layer: nn.ConvTranspose2d) -> bool:
    """Whether each phase is a convolution that goes in tiles."""
    steps = zip(layer.kernel_size, layer.stride, strict=True)
    if set(pair(layer.dilation)) != {1} or any(kernel < stride for kernel, stride in steps):
        return False
    return can("tiles", _by_group(layer.weight, layer.groups), stride=(1, 1), groups=layer.groups)


def _by_group(w_IOHW: Tensor, groups: int) -> Tensor:
    """As a convolution has it: outputs of all groups, inputs of one."""
    return w_IOHW.unflatten(0, (groups, -1)).transpose(1, 2).flatten(0, 1)


@final
class Phases(Form):
    """A transposed convolution, phase by phase in tiles; no gradients."""

    def __init__(self, plain: nn.ConvTranspose2d) -> None:
        super().__init__(plain)
        self._made_of: tuple[Tensor, int] | None = None
        self._parts: dict[tuple[int, int], Tensor] = {}

    def run(self, x: Tensor) -> Tensor:
        if torch.is_grad_enabled():
            return self.plain(x)
        plain, (n, _, *size) = self.plain, x.shape
        weight, steps = plain.weight, list(zip(plain.kernel_size, plain.stride, plain.padding, strict=True))
        more = pair(plain.output_padding)
        out = [(i - 1) * s - 2 * p + k + m for i, (k, s, p), m in zip(size, steps, more, strict=True)]
        y = torch.empty((n, plain.out_channels, *out), dtype=x.dtype, memory_format=LAST)
        for a in range(plain.stride[0]):
            for b in range(plain.stride[1]):
                down, along = (
                    axis(phase, i, o, kernel=k, stride=s, padding=p)
                    for phase, i, o, (k, s, p) in zip((a, b), size, out, steps, strict=True)
                )
                window = Window(down.taps, along.taps, 1, 1, down.padding, along.padding, 1, 1)
                part = conv2d(x, self._part(weight, down, along), plain.bias, window, plain.groups, "tiles")
                kept = part[:, :, down.first : down.first + down.size, along.first : along.first + along.size]
                y[:, :, a :: plain.stride[0], b :: plain.stride[1]] = kept
        return y

    def _part(self, weight: Tensor, down: Axis, along: Axis) -> Tensor:
        """The taps of a phase, back to front, made anew when the weight has changed."""
        version = None if weight.is_inference() else weight._version
        if self._made_of is None or self._made_of[0] is not weight or self._made_of[1] != version:
            self._parts, self._made_of = {}, None if version is None else (weight, version)
        at = (down.tap, along.tap)
        if at not in self._parts:
            with torch.inference_mode(False), torch.no_grad():
                strides: Sequence[int] = self.plain.stride
                taps = weight.detach()[:, :, down.tap :: strides[0], along.tap :: strides[1]].flip(2, 3)
                self._parts[at] = _by_group(taps, self.plain.groups).contiguous()
        return self._parts[at]
