"""What is asked about nodes before a kernel of one call is chosen: who reads them, and what a layer can take in."""

from collections.abc import Collection

import torch.nn.functional as F
from torch import fx

from convscope.engines.fused.fusing import Around, Shapes, only_user, pair
from convscope.engines.fused.layers import NONE, Conv
from convscope.engines.fused.program import Program, arguments
from convscope.engines.fused.simplify import CONV, is_call, tensor_of
from convscope.layers.fast.packing import phases_of

FLAT = ("aten.reshape.default", "aten.flatten.using_ints", "aten.squeeze.dims")
ENLARGE, TRANSPOSED = "aten.upsample_bilinear2d.vec", "aten.conv_transpose2d.input"
_LARGEST = "aten.max_pool2d.default"


def any_width(node: fx.Node) -> bool:
    """Whether all that read the node read any number of channels, not whole vectors of them alone."""

    def reads(n: fx.Node) -> bool:
        if is_call(n, CONV):
            return arguments(n, None, 1, 0, 1, 1)[6] == 1
        return is_call(n, *FLAT) or (is_call(n, _LARGEST) and any_width(n))

    return all(map(reads, node.users))


def halving(node: fx.Node | None) -> fx.Node | None:
    """The node, if it takes the largest of each 2x2."""
    if node is None or not is_call(node, _LARGEST) or node.kwargs:
        return None
    _, size, stride, padding, *rest = arguments(node, None, 0)
    fits = pair(size) == pair(stride or size) == (2, 2) and pair(padding) == (0, 0) and rest in ([], [1], [[1, 1]])
    return node if fits else None


def around_transposed(node: fx.Node, shapes: Shapes, made: Collection[fx.Node]) -> Around:
    """A transposed convolution takes in a map that is made larger, not `made` yet, and added."""
    total = only_user(node)
    if total is not None and is_call(total, "aten.add.Tensor") and not total.kwargs:
        for other in total.all_input_nodes:
            ready = is_call(other, ENLARGE) and other not in made and only_user(other) is total
            if ready and shapes.equal(other, node):
                return Around(total, other, NONE)
    return Around(node, None, NONE)


def in_phases(program: Program, node: fx.Node, shape: tuple[int, ...], *, fill: int, lanes: int) -> Conv | None:
    """A transposed convolution of a map of this shape, as one to the outputs of all phases; None if it does not make
    the map larger by its stride. Outputs of a phase are filled up with zeros to a multiple of `fill`.
    """
    _, weight, bias, stride, padding, more, groups, dilation = arguments(node, None, 1, 0, 0, 1, 1)
    own, times = tensor_of(program, weight), pair(stride)[0]
    if own is None or groups != 1 or {*pair(dilation)} != {1}:
        return None
    exact = [k - 2 * p + m for k, p, m in zip(own.shape[2:], pair(padding), pair(more), strict=True)]
    if {*pair(stride), *exact} != {times}:
        return None
    outs, phases = own.shape[1], times**2
    full = -(-outs // fill) * fill
    full += next(n for n in range(0, lanes, 4) if (full + n) * phases % lanes == 0)
    kernel, added = phases_of(own, times, pair(padding), outs=full), tensor_of(program, bias)
    added = None if added is None else F.pad(added, (0, full - outs)).repeat(phases)
    kernel = F.pad(kernel, (0, 0, 0, 0, 0, shape[1] - own.shape[0]))
    return Conv(kernel, added, (1, 1), tuple(n // 2 for n in kernel.shape[2:]), (1, 1), 1, shape, NONE)
