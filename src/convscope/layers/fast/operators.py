"""The compiled kernels as operators of PyTorch, so that autograd, recording and `torch.compile` know them.

`convscope::conv2d` is a convolution done in one of two ways, `convscope::separable2d` a depthwise one with a 1x1 behind
it, `convscope::flattened2d` the two the other way round (both without gradients), `convscope::max_pool2d` a pooling.
Gradients of inputs are convolutions again, and go the same way where the stride is 1; those of weights have Winograd's
way, and large depthwise kernels Fourier's.
The functions of these names call the operators, or, where nobody listens (inference mode), what is behind them.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import is_in_torch_dispatch_mode
from torch.utils.weak import WeakIdKeyDictionary

from convscope.layers.fast.compiled import After, Kernels, Window, kernels
from convscope.layers.fast.packing import pack_grouped, pack_panels

LAST = torch.channels_last
LARGE = 9  # taps along an axis of a depthwise kernel, from which on its gradient goes by Fourier transforms
_LIBRARY = torch.library.Library("convscope", "DEF")
_WINDOW = "int[] stride, int[] padding, int[] dilation"
_LIBRARY.define(f"conv2d(Tensor x, Tensor weight, Tensor? bias, {_WINDOW}, int groups, str way) -> Tensor")
_LIBRARY.define(f"separable2d(Tensor x, Tensor depth, Tensor point, Tensor? bias, {_WINDOW}) -> Tensor")
_LIBRARY.define(f"flattened2d(Tensor x, Tensor across, Tensor depth, Tensor? bias, {_WINDOW}) -> Tensor")
_LIBRARY.define(f"winograd_inputs(Tensor grad, Tensor weight, {_WINDOW}, int groups) -> Tensor")
_LIBRARY.define(f"winograd_weights(Tensor x, Tensor grad, int[] size, {_WINDOW}, int groups) -> Tensor")
_LIBRARY.define(f"max_pool2d_backward(Tensor x, Tensor grad, int[] size, {_WINDOW}) -> Tensor")
_LIBRARY.define(f"max_pool2d(Tensor x, int[] size, {_WINDOW}) -> Tensor")


def there() -> Kernels:
    """The compiled kernels, where it is known that there are some."""
    found = kernels()
    if found is None:
        raise RuntimeError("the compiled kernels are not there")
    return found


def can(way: str, weight: Tensor, *, stride: tuple[int, ...], groups: int) -> bool:
    """Whether the kernels know this convolution in this way."""
    found = kernels()
    if found is None or weight.dtype != torch.float32 or weight.device.type != "cpu" or weight.dim() != 4:
        return False
    out, per, *size = weight.shape
    if way == "grouped":
        fits = per in (1, 2, 4, 8) and out == per * groups and out % 4 == 0
        return fits and (per == 1 or per <= found.lanes(out))
    if way == "pointwise":
        return size == [1, 1] and set(stride) == {1} and groups == 1 and out % (found.panel // 2) == 0
    one_axis_or_two = set(size) <= {1, 3} and 3 in size
    return set(stride) == {1} and one_axis_or_two and (out // groups) % found.panel == 0 and per * groups % 16 == 0


def pack(way: str, weight: Tensor, *, groups: int) -> Tensor:
    """The weights as the way reads them."""
    if way == "grouped":
        return pack_grouped(weight, lanes=there().lanes(weight.shape[0]))
    if way == "pointwise":
        full = F.pad(weight.flatten(1), (0, 0, 0, -weight.shape[0] % there().panel))
        return pack_panels(full[..., None, None], panel=there().panel)
    return there().winograd_pack(weight, groups)


class _Packed:
    """Packed weights, kept as long as the tensor is, and packed anew when it has changed."""

    def __init__(self) -> None:
        self._kept = WeakIdKeyDictionary()

    def get(self, weight: Tensor, how: str, pack: Callable[[Tensor], Tensor]) -> Tensor:
        if weight.is_inference():  # has no version that would tell of a change
            return pack(weight)
        found = self._kept.get(weight)
        if found is None or found[:2] != (weight._version, how):
            found = self._kept[weight] = (weight._version, how, pack(weight.detach()))
        return found[2]

    def forget(self) -> None:
        """Pack anew what is asked for next, as after a step of training, which changes all weights."""
        self._kept.clear()


_PACKED = _Packed()
forget_packed = _PACKED.forget


def _conv2d(  # noqa: PLR0913 - the arguments of the operator
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    groups: int,
    way: str,
) -> Tensor:
    window = _of(weight.shape[2:], stride, padding, dilation)
    packed = _PACKED.get(weight, way, lambda w: pack(way, w, groups=groups))
    x = x.contiguous(memory_format=LAST)
    if way == "grouped":
        return there().grouped(x, packed, After(bias), window)
    return there().winograd(x, packed, After(bias), window, groups)


def _conv2d_shape(x: Tensor, weight: Tensor, bias: Any, stride: Any, padding: Any, dilation: Any, *_: Any) -> Tensor:
    return _empty(x, weight.shape[0], _of(weight.shape[2:], stride, padding, dilation))


def _separable2d(  # noqa: PLR0913 - the arguments of the operator
    x: Tensor,
    depth: Tensor,
    point: Tensor,
    bias: Tensor | None,
    stride: list[int],
    padding: list[int],
    dilation: list[int],
) -> Tensor:
    found = there()
    window = _of(depth.shape[2:], stride, padding, dilation)
    packed_depth = _PACKED.get(depth, "grouped", lambda w: pack("grouped", w, groups=len(w)))
    packed_point = _PACKED.get(point, "panels", lambda w: pack_panels(w, panel=found.panel))
    return found.separable(x.contiguous(memory_format=LAST), packed_depth, packed_point, bias, window)


def _separable2d_shape(x: Tensor, depth: Tensor, point: Tensor, bias: Any, *window: Any) -> Tensor:
    return _empty(x, point.shape[0], _of(depth.shape[2:], *window))


def _flattened2d(  # noqa: PLR0913 - the arguments of the operator
    x: Tensor,
    across: Tensor,
    depth: Tensor,
    bias: Tensor | None,
    stride: list[int],
    padding: list[int],
    dilation: list[int],
) -> Tensor:
    found = there()
    window = _of(depth.shape[2:], stride, padding, dilation)
    packed_across = _PACKED.get(across, "panels", lambda w: pack_panels(w, panel=found.panel))
    packed_depth = _PACKED.get(depth, "grouped", lambda w: pack("grouped", w, groups=len(w)))
    return found.flattened(x.contiguous(memory_format=LAST), packed_across, packed_depth, bias, window)


def _flattened2d_shape(x: Tensor, across: Tensor, depth: Tensor, bias: Any, *window: Any) -> Tensor:
    return _empty(x, len(across), _of(depth.shape[2:], *window))


def _winograd_inputs(
    grad: Tensor, weight: Tensor, stride: list[int], padding: list[int], dilation: list[int], groups: int
) -> Tensor:
    packed = there().winograd_pack(weight, groups, turned=True)
    window = _of(weight.shape[2:], stride, padding, dilation)
    return there().winograd(grad.contiguous(memory_format=LAST), packed, After(), window, groups)


def _winograd_inputs_shape(grad: Tensor, weight: Tensor, *window: Any) -> Tensor:
    *steps, groups = window
    return _empty(grad, groups * weight.shape[1], _of(weight.shape[2:], *steps))


def _winograd_weights(  # noqa: PLR0913 - the arguments of the operator
    x: Tensor,
    grad: Tensor,
    size: list[int],
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    groups: int,
) -> Tensor:
    window = _of(size[2:], stride, padding, dilation)
    x, grad = (t.contiguous(memory_format=LAST) for t in (x, grad))
    return there().winograd_weights(x, grad, size, window, groups)


def _winograd_weights_shape(x: Tensor, grad: Tensor, size: Any, *_: Any) -> Tensor:
    return x.new_empty(size)


def _max_pool2d(x: Tensor, size: list[int], stride: list[int], padding: list[int], dilation: list[int]) -> Tensor:
    return there().max_pool(x.contiguous(memory_format=LAST), _of(size, stride, padding, dilation))


def _max_pool2d_shape(x: Tensor, size: Any, *window: Any) -> Tensor:
    return _empty(x, x.shape[1], _of(size, *window))


def _max_pool2d_backward(
    x: Tensor, grad: Tensor, size: list[int], stride: list[int], padding: list[int], dilation: list[int]
) -> Tensor:
    x, grad = (t.contiguous(memory_format=LAST) for t in (x, grad))
    return there().max_pool_backward(x, grad, _of(size, stride, padding, dilation))


def _max_pool2d_backward_shape(x: Tensor, *_: Any) -> Tensor:
    return torch.empty_like(x, memory_format=LAST)


def _keep_conv2d(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, weight, bias, ctx.stride, ctx.padding, ctx.dilation, ctx.groups, ctx.way = inputs
    ctx.bias_size = None if bias is None else [len(bias)]
    ctx.save_for_backward(x, weight)


def _conv2d_backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    """Gradients of gradients are PyTorch's own."""
    x, weight = ctx.saved_tensors
    grad, wanted = grad.contiguous(memory_format=LAST), list(ctx.needs_input_grad[:3])
    found: list[Tensor | None] = [None, None, None]
    if not torch.is_grad_enabled():
        if wanted[0]:
            found[0] = _grad_of_input(ctx, grad, weight)
        if wanted[1]:
            found[1] = _grad_of_weight(ctx, grad, x, weight)
        if wanted[2]:
            found[2] = grad.permute(0, 2, 3, 1).flatten(0, 2).sum(0)
    left = [want and done is None for want, done in zip(wanted, found, strict=True)]
    if any(left):
        window = (ctx.stride, ctx.padding, ctx.dilation, False, [0, 0], ctx.groups)
        rest = torch.ops.aten.convolution_backward(grad, x, weight, ctx.bias_size, *window, left)
        found = [own if own is not None else other for own, other in zip(found, rest, strict=True)]
    return (*found, None, None, None, None, None)


def _grad_of_input(ctx: Any, grad: Tensor, weight: Tensor) -> Tensor | None:
    """With stride 1: the convolution of the gradient with the turned kernel, inputs and outputs exchanged."""
    padding = [d * (k - 1) - p for k, p, d in zip(weight.shape[2:], ctx.padding, ctx.dilation, strict=True)]
    by_group = weight.unflatten(0, (ctx.groups, -1)).transpose(1, 2).flatten(0, 1)
    if set(ctx.stride) != {1} or min(padding) < 0 or not can(ctx.way, by_group, stride=(1,), groups=ctx.groups):
        return None
    if ctx.way == "winograd":
        return torch.ops.convscope.winograd_inputs(grad, weight, [1, 1], padding, ctx.dilation, ctx.groups)
    turned = by_group.flip(2, 3)
    return torch.ops.convscope.conv2d(grad, turned, None, [1, 1], padding, ctx.dilation, ctx.groups, ctx.way)


def _grad_of_weight(ctx: Any, grad: Tensor, x: Tensor, weight: Tensor) -> Tensor | None:
    if ctx.way == "winograd":
        window = (ctx.stride, ctx.padding, ctx.dilation)
        return torch.ops.convscope.winograd_weights(x, grad, weight.shape, *window, ctx.groups)
    plain = set(ctx.stride) == set(ctx.dilation) == {1} and ctx.groups == len(weight)
    return correlated(x, grad, weight, ctx.padding) if plain and min(weight.shape[2:]) >= LARGE else None


def correlated(x: Tensor, grad: Tensor, weight: Tensor, padding: Sequence[int]) -> Tensor:
    """The gradient of a depthwise kernel, of stride 1, by Fourier transforms: every shift of the gradient over the
    padded input at once. Source: the convolution theorem.
    """
    padded = (x.shape[2] + 2 * padding[0], x.shape[3] + 2 * padding[1])
    size = [next(_good_sizes(n)) for n in padded]
    total = torch.zeros(len(weight), size[0], size[1] // 2 + 1, dtype=torch.complex64)
    for picture, slope in zip(x, grad, strict=True):  # one at a time, so that the transforms stay in cache
        total.addcmul_(_spectrum(picture, size), _spectrum(slope, size).conj())
    # an input's place counts from behind the padding: tap t is at t - padding, around the end where that is negative
    shifts = torch.fft.irfft2(total, s=size).roll(tuple(padding), (1, 2))
    return shifts[:, None, : weight.shape[2], : weight.shape[3]].contiguous()


def _spectrum(maps: Tensor, size: Sequence[int]) -> Tensor:
    return torch.fft.rfft2(maps.contiguous(), s=size)


def _good_sizes(least: int) -> Iterator[int]:
    """Lengths, not below `least`, of which Fourier transforms are quick: with no factors but 2, 3 and 5."""
    for n in itertools.count(least):
        rest = n
        for factor in (2, 3, 5):
            while rest % factor == 0:
                rest //= factor
        if rest == 1:
            yield n


def _keep_max_pool2d(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, *ctx.window = inputs
    ctx.save_for_backward(x)


def _max_pool2d_gradient(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    (x,) = ctx.saved_tensors
    if torch.is_grad_enabled():
        with torch.enable_grad():
            again = x.detach().requires_grad_()
            return torch.autograd.grad(F.max_pool2d(again, *ctx.window), again, grad)[0], None, None, None, None
    return torch.ops.convscope.max_pool2d_backward(x, grad, *ctx.window), None, None, None, None


def _of(size: Sequence[int], stride: Sequence[int], padding: Sequence[int], dilation: Sequence[int]) -> Window:
    return Window(*size, *stride, *padding, *dilation)


def _empty(x: Tensor, channels: int, window: Window) -> Tensor:
    size = (x.shape[0], channels, *window.out(*x.shape[2:]))
    return torch.empty(size, dtype=x.dtype, device=x.device, memory_format=LAST)


for _name, _run, _shape in (
    ("conv2d", _conv2d, _conv2d_shape),
    ("separable2d", _separable2d, _separable2d_shape),
    ("flattened2d", _flattened2d, _flattened2d_shape),
    ("max_pool2d", _max_pool2d, _max_pool2d_shape),
    ("winograd_inputs", _winograd_inputs, _winograd_inputs_shape),
    ("winograd_weights", _winograd_weights, _winograd_weights_shape),
    ("max_pool2d_backward", _max_pool2d_backward, _max_pool2d_backward_shape),
):
    _LIBRARY.impl(_name, _run, "CPU")
    torch.library.register_fake(f"convscope::{_name}", _shape, lib=_LIBRARY)
for _name, _gradient, _setup in (
    ("conv2d", _conv2d_backward, _keep_conv2d),
    ("max_pool2d", _max_pool2d_gradient, _keep_max_pool2d),
):
    torch.library.register_autograd(f"convscope::{_name}", _gradient, setup_context=_setup, lib=_LIBRARY)


def _called(run: Callable[..., Tensor], operator: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def call(x: Tensor, *args: Any) -> Tensor:
        unheard = torch.is_inference_mode_enabled() and not torch.compiler.is_compiling()
        if unheard and type(x) is Tensor and not is_in_torch_dispatch_mode():
            return run(x, *args)
        return operator(x, *args)

    return call


conv2d = _called(_conv2d, torch.ops.convscope.conv2d)
separable2d = _called(_separable2d, torch.ops.convscope.separable2d)
flattened2d = _called(_flattened2d, torch.ops.convscope.flattened2d)
max_pool2d = _called(_max_pool2d, torch.ops.convscope.max_pool2d)
