"""The compiled kernels as operators of PyTorch, so that autograd, recording and `torch.compile` know them.

`convscope::conv2d` is a convolution done in one of two ways, `convscope::separable2d` a depthwise one with a 1x1 behind
it, `convscope::flattened2d` the two the other way round (both without gradients), `convscope::max_pool2d` a pooling.
Gradients of inputs are convolutions again, and go the same way where the stride is 1; those of weights are summed in
the same way, and for large depthwise kernels by Fourier transforms.
The functions of these names call the operators, or, where nobody listens (no recording, tracing, compiling,
transforming), what is behind them.
"""

import itertools
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import is_in_torch_dispatch_mode

from convscope.layers.fast.compiled import After, Kernels, Unfit, Window, kernels
from convscope.layers.fast.content import Content, content
from convscope.layers.fast.packing import (
    is_ours,
    ours,
    pack_dense,
    pack_grouped,
    pack_half,
    pack_panels,
    pack_tiles,
    unpack_grouped,
)

LAST = torch.channels_last
POINT = Window(1, 1, 1, 1, 0, 0, 1, 1)
LARGE = 9  # taps along an axis of a depthwise kernel, from which on its gradient goes by Fourier transforms
_LIBRARY = torch.library.Library("convscope", "DEF")  # a window is the eight numbers of `Window`
_LIBRARY.define("conv2d(Tensor x, Tensor weight, Tensor? bias, int[] window, int groups, str way) -> Tensor")
_LIBRARY.define("separable2d(Tensor x, Tensor depth, Tensor point, Tensor? bias, int[] window, str way) -> Tensor")
_LIBRARY.define("flattened2d(Tensor x, Tensor across, Tensor depth, Tensor? bias, int[] window, str way) -> Tensor")
_LIBRARY.define("grouped_weights(Tensor x, Tensor grad, int[] window, int groups) -> Tensor")
_LIBRARY.define("winograd_inputs(Tensor grad, Tensor weight, int[] window, int groups) -> Tensor")
_LIBRARY.define("winograd_weights(Tensor x, Tensor grad, int[] size, int[] window, int groups) -> Tensor")
_LIBRARY.define("max_pool2d_backward(Tensor x, Tensor grad, int[] window) -> Tensor")
_LIBRARY.define("max_pool2d(Tensor x, int[] window) -> Tensor")


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
    if way == "tiles":
        return found.tiles and out // groups % 32 == per % 32 == 0
    if way == "pointwise":
        return size == [1, 1] and set(stride) == {1} and groups == 1 and out % (found.panel // 2) == 0
    if way == "dense":
        return groups == 1 and out % (found.panel // 2) == 0
    one_axis_or_two = set(size) <= {1, 3} and 3 in size
    return set(stride) == {1} and one_axis_or_two and (out // groups) % found.panel == 0 and per * groups % 16 == 0


def pack(way: str, weight: Tensor, *, groups: int) -> Tensor:
    """The weights as the way reads them."""
    if way == "grouped":
        return pack_grouped(weight, lanes=there().lanes(weight.shape[0]))
    if way == "tiles":
        return pack_tiles(weight.permute(0, 2, 3, 1).flatten(1))
    if way == "half":
        return pack_half(weight)
    if way == "pointwise":
        full = F.pad(weight.flatten(1), (0, 0, 0, -weight.shape[0] % there().panel))
        return pack_panels(full, panel=there().panel)
    if way == "dense":
        return pack_dense(weight, panel=there().panel)
    return there().winograd_pack(weight, groups)


How = tuple[str, int, Window]  # a way, groups, a window


class _Packed:
    """Packed weights, kept as long as the tensor is, and packed anew when it has changed."""

    def __init__(self) -> None:
        self._kept: dict[int, tuple[weakref.ref[Tensor], Content | None, How, Tensor]] = {}

    def get(self, weight: Tensor, how: How, x: Tensor | None = None) -> Tensor:
        """The weights as they are read, for inputs with as many channels as x.

        Raises: Unfit if they are no weights of such a convolution, in float32 on the CPU.
        """
        at = id(weight)
        found = self._kept.get(at)
        last = found[1] if found is not None else None
        held = None if is_ours(weight) else content(weight, last)
        if found is not None and held is last and found[2] == how and found[0]() is weight:
            return found[3]
        way, groups, window = how
        known = can(way, weight, stride=(window.sh, window.sw), groups=groups)
        known = known and weight.shape[2:] == window[:2]
        if not known or (x is not None and weight.shape[1] * groups != x.shape[1]):
            raise Unfit
        kept = weakref.ref(weight, lambda _: self._kept.pop(at, None))
        packed = pack(way, weight.detach(), groups=groups)
        self._kept[at] = (kept, held, how, packed)
        return packed

    def forget(self) -> None:
        """Pack anew what is asked for next, as after a step of training, which changes all weights."""
        self._kept.clear()


_PACKED = _Packed()
forget_packed = _PACKED.forget


def _conv2d(x: Tensor, weight: Tensor, bias: Tensor | None, window: Sequence[int], groups: int, way: str) -> Tensor:
    same, x, found, bias = _window(window), x.contiguous(memory_format=LAST), there(), plain_bias(bias, weight)
    packed = _PACKED.get(weight, (way, groups, same), x)
    if way == "grouped":
        return found.grouped(x, packed, bias, same)
    return (found.tiled if way == "tiles" else found.winograd)(x, packed, After(bias), same, groups)


def _window(numbers: Sequence[int]) -> Window:
    return numbers if isinstance(numbers, Window) else Window(*numbers)


def plain_bias(bias: Tensor | None, weight: Tensor) -> Tensor | None:
    """A number for each output, one behind another."""
    if bias is None:
        return None
    if bias.dtype is not torch.float32 or bias.numel() != weight.size(0):
        raise Unfit
    return bias if bias.is_contiguous() else bias.contiguous()


def _conv2d_shape(x: Tensor, weight: Tensor, bias: Any, window: Sequence[int], *_: Any) -> Tensor:
    return _empty(x, weight.shape[0], window)


def _separable2d(
    x: Tensor, depth: Tensor, point: Tensor, bias: Tensor | None, window: Sequence[int], way: str
) -> Tensor:
    same, bias = _window(window), plain_bias(bias, point)
    packed = _PACKED.get(depth, ("grouped", len(depth), same), x), _PACKED.get(point, (way, 1, POINT), x)
    return there().separable(x.contiguous(memory_format=LAST), *packed, bias, same)


def _separable2d_shape(x: Tensor, depth: Any, point: Tensor, bias: Any, window: Sequence[int], way: str) -> Tensor:
    return _empty(x, point.shape[0], window)


def _flattened2d(
    x: Tensor, across: Tensor, depth: Tensor, bias: Tensor | None, window: Sequence[int], way: str
) -> Tensor:
    same, bias = _window(window), plain_bias(bias, across)
    packed = _PACKED.get(across, (way, 1, POINT), x), _PACKED.get(depth, ("grouped", len(across), same))
    return there().flattened(x.contiguous(memory_format=LAST), *packed, bias, same)


def _flattened2d_shape(x: Tensor, across: Tensor, depth: Any, bias: Any, window: Sequence[int], way: str) -> Tensor:
    return _empty(x, len(across), window)


def _grouped_weights(x: Tensor, grad: Tensor, window: Sequence[int], groups: int) -> Tensor:
    x, grad = (t.contiguous(memory_format=LAST) for t in (x, grad))
    return unpack_grouped(there().grouped_weights(x, grad, x.shape[1] // groups, Window(*window)))


def _grouped_weights_shape(x: Tensor, grad: Tensor, window: Sequence[int], groups: int) -> Tensor:
    kernel = Window(*window)
    return x.new_empty((grad.shape[1], x.shape[1] // groups, kernel.kh, kernel.kw))


def _winograd_inputs(grad: Tensor, weight: Tensor, window: Sequence[int], groups: int) -> Tensor:
    packed = there().winograd_pack(weight, groups, turned=True)
    return there().winograd(grad.contiguous(memory_format=LAST), packed, After(), Window(*window), groups)


def _winograd_inputs_shape(grad: Tensor, weight: Tensor, window: Sequence[int], groups: int) -> Tensor:
    return _empty(grad, groups * weight.shape[1], window)


def _winograd_weights(x: Tensor, grad: Tensor, size: Sequence[int], window: Sequence[int], groups: int) -> Tensor:
    x, grad = (t.contiguous(memory_format=LAST) for t in (x, grad))
    return there().winograd_weights(x, grad, size, Window(*window), groups)


def _winograd_weights_shape(x: Tensor, grad: Tensor, size: Sequence[int], *_: Any) -> Tensor:
    return x.new_empty(size)


def _max_pool2d(x: Tensor, window: Sequence[int]) -> Tensor:
    return there().max_pool(x.contiguous(memory_format=LAST), _window(window))


def _max_pool2d_shape(x: Tensor, window: Sequence[int]) -> Tensor:
    return _empty(x, x.shape[1], window)


def _max_pool2d_backward(x: Tensor, grad: Tensor, window: Sequence[int]) -> Tensor:
    x, grad = (t.contiguous(memory_format=LAST) for t in (x, grad))
    return there().max_pool_backward(x, grad, Window(*window))


def _max_pool2d_backward_shape(x: Tensor, *_: Any) -> Tensor:
    return torch.empty_like(x, memory_format=LAST)


def _keep_conv2d(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, weight, bias, window, ctx.groups, ctx.way = inputs
    ctx.window, ctx.bias_size = Window(*window), None if bias is None else [len(bias)]
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
        window = (*ctx.window.steps(), False, [0, 0], ctx.groups)
        rest = torch.ops.aten.convolution_backward(grad, x, weight, ctx.bias_size, *window, left)
        found = [own if own is not None else other for own, other in zip(found, rest, strict=True)]
    return (*found, None, None, None)


def _grad_of_input(ctx: Any, grad: Tensor, weight: Tensor) -> Tensor | None:
    """With stride 1: the convolution of the gradient with the turned kernel, inputs and outputs exchanged."""
    turned_window = ctx.window.turned()
    by_group = weight.unflatten(0, (ctx.groups, -1)).transpose(1, 2).flatten(0, 1)
    if turned_window is None or not can(ctx.way, by_group, stride=(1,), groups=ctx.groups):
        return None
    if ctx.way == "winograd":
        return _winograd_inputs_of(grad, weight, turned_window, ctx.groups)
    return conv2d(grad, ours(by_group.flip(2, 3)), None, turned_window, ctx.groups, ctx.way)


def _grad_of_weight(ctx: Any, grad: Tensor, x: Tensor, weight: Tensor) -> Tensor | None:
    w = ctx.window
    if ctx.way == "winograd":
        return _winograd_weights_of(x, grad, weight.shape, w, ctx.groups)
    if ctx.way == "tiles" and (w != POINT or ctx.groups > 1):
        return None
    if ctx.way == "tiles":
        return (grad.permute(1, 0, 2, 3).flatten(1) @ x.permute(0, 2, 3, 1).flatten(0, 2))[..., None, None]
    large, plain = min(w.kh, w.kw) >= LARGE, {w.sh, w.sw, w.dh, w.dw} == {1} and ctx.groups == len(weight)
    if large:
        return correlated(x, grad, weight, (w.ph, w.pw)) if plain else None
    return _grouped_weights_of(x, grad, w, ctx.groups)


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
    x, window = inputs
    ctx.window = Window(*window)
    ctx.save_for_backward(x)


def _max_pool2d_gradient(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    (x,), w = ctx.saved_tensors, ctx.window
    if torch.is_grad_enabled():
        with torch.enable_grad():
            again = x.detach().requires_grad_()
            stride, padding, dilation = w.steps()
            return torch.autograd.grad(F.max_pool2d(again, (w.kh, w.kw), stride, padding, dilation), again, grad)[
                0
            ], None
    return _max_pool2d_backward_of(x, grad, w), None


def _empty(x: Tensor, channels: int, window: Sequence[int]) -> Tensor:
    size = (x.shape[0], channels, *Window(*window).out(*x.shape[2:]))
    return torch.empty(size, dtype=x.dtype, device=x.device, memory_format=LAST)


for _name, _run, _shape in (
    ("conv2d", _conv2d, _conv2d_shape),
    ("separable2d", _separable2d, _separable2d_shape),
    ("flattened2d", _flattened2d, _flattened2d_shape),
    ("max_pool2d", _max_pool2d, _max_pool2d_shape),
    ("grouped_weights", _grouped_weights, _grouped_weights_shape),
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


def _direct(run: Callable[..., Tensor], keep: Callable[..., None], gradient: Callable[..., Any]) -> Any:
    """An operator and its gradients without the operator's overhead, for where nobody listens."""

    def forward(ctx: Any, *inputs: Any) -> Tensor:
        y = run(*inputs)
        keep(ctx, inputs, y)
        return y

    both = {"forward": staticmethod(forward), "backward": staticmethod(gradient)}
    return type(run.__name__, (torch.autograd.Function,), both)


def _called(
    run: Callable[..., Tensor],
    operator: Callable[..., Tensor],
    function: type[torch.autograd.Function] | None = None,
) -> Callable[..., Tensor]:
    def call(x: Tensor, *args: Any) -> Tensor:
        if unheard(x):
            if not torch.is_grad_enabled():
                return run(x, *args)
            if function is not None:
                return function.apply(x, *args)
        return operator(x, *args)

    return call


def unheard(x: Tensor) -> bool:
    """Whether nobody records, traces, compiles or transforms what is called."""
    listened = is_in_torch_dispatch_mode() or torch.compiler.is_compiling() or type(x) is not Tensor
    return not listened and not torch._C._are_functorch_transforms_active() and not is_traced()


def is_traced() -> bool:
    """Whether `torch.jit.trace` writes down what is called."""
    return torch._C._get_tracing_state() is not None


conv2d = _called(_conv2d, torch.ops.convscope.conv2d, _direct(_conv2d, _keep_conv2d, _conv2d_backward))
separable2d = _called(_separable2d, torch.ops.convscope.separable2d)
flattened2d = _called(_flattened2d, torch.ops.convscope.flattened2d)
max_pool2d = _called(
    _max_pool2d, torch.ops.convscope.max_pool2d, _direct(_max_pool2d, _keep_max_pool2d, _max_pool2d_gradient)
)
_winograd_inputs_of = _called(_winograd_inputs, torch.ops.convscope.winograd_inputs)
_winograd_weights_of = _called(_winograd_weights, torch.ops.convscope.winograd_weights)
_grouped_weights_of = _called(_grouped_weights, torch.ops.convscope.grouped_weights)
_max_pool2d_backward_of = _called(_max_pool2d_backward, torch.ops.convscope.max_pool2d_backward)
