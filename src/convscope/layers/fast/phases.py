"""A transposed convolution as ordinary ones: of every s-th output along an axis, each sees the same taps.

With stride s an axis has s such phases, each a convolution of stride 1 with its own part of the kernel. Shape suffixes:
I inputs, O outputs of a group, HW the axes of the kernel.
"""

from typing import NamedTuple, final

import torch
from torch import Tensor, nn

from convscope.layers.fast.compiled import Window
from convscope.layers.fast.forms import Form, pair
from convscope.layers.fast.operators import LAST, can, conv2d
from convscope.layers.fast.packing import Derived, ours


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
        self._kernels = Derived(self._parts)

    def run(self, x: Tensor) -> Tensor:
        if torch.is_grad_enabled():
            return self.plain(x)
        plain, (n, _, *size) = self.plain, x.shape
        kernels, steps = (
            self._kernels.of(plain.weight),
            list(zip(plain.kernel_size, plain.stride, plain.padding, strict=True)),
        )
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
                part = conv2d(x, kernels[down.tap, along.tap], plain.bias, window, plain.groups, "tiles")
                kept = part[:, :, down.first : down.first + down.size, along.first : along.first + along.size]
                y[:, :, a :: plain.stride[0], b :: plain.stride[1]] = kept
        return y

    def _parts(self, weight: Tensor) -> dict[tuple[int, int], Tensor]:
        """The kernel of each phase by its first taps, back to front."""
        down, along = self.plain.stride
        taps = {(t, u): weight[:, :, t::down, u::along].flip(2, 3) for t in range(down) for u in range(along)}
        return {at: ours(_by_group(part, self.plain.groups).contiguous()) for at, part in taps.items()}
