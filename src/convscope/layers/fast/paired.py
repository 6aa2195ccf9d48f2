"""Groups of 16 channels in pairs, so that they fill tiles: one group of 32, half of whose weights are zeros."""

from typing import final

import torch
from torch import Tensor, nn

from convscope.layers.fast.compiled import kernels
from convscope.layers.fast.forms import Form, window_of
from convscope.layers.fast.operators import conv2d
from convscope.layers.fast.packing import Derived, ours


def pairable(layer: nn.Conv2d) -> bool:
    """Whether its groups have 16 channels, and there are tiles."""
    found = kernels()
    sixteen = {layer.in_channels, layer.out_channels} == {16 * layer.groups} and layer.groups % 2 == 0
    return found is not None and found.tiles and sixteen and layer.weight.dtype == torch.float32


def pairs(w_OIHW: Tensor) -> Tensor:
    """The weights of pairs of groups: of 2 x 16 outputs, each half sees its own half of 2 x 16 inputs."""
    o, i, *size = w_OIHW.shape
    both = w_OIHW.new_zeros(o // (2 * i), 2, i, 2, i, *size)
    for half in range(2):
        both[:, half, :, half] = w_OIHW.unflatten(0, (-1, 2, i))[:, half]
    return ours(both.flatten(3, 4).flatten(0, 2))


@final
class Paired(Form):
    """A convolution in groups of 16 channels, two of them as one, in tiles; no gradients."""

    def __init__(self, plain: nn.Conv2d) -> None:
        super().__init__(plain)
        self._window, self._pairs = window_of(plain), Derived(pairs)

    def run(self, x: Tensor) -> Tensor:
        if torch.is_grad_enabled():
            return self.plain(x)
        plain = self.plain
        return conv2d(x, self._pairs.of(plain.weight), plain.bias, self._window, plain.groups // 2, "tiles")
