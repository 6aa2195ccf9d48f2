"""The kernels of the C++ files here, compiled on this machine for this machine, once; or why there are none.

They need GCC (`CXX`, else g++). The library is kept in the user's cache folder by its source, its compiler and the
processor. `CONVSCOPE_COMPILE=0` does without. Arrays are float32 on the CPU, channels last; those between the layers of
a network in one call may be bfloat16.
"""

import ctypes
import functools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from convscope.layers.fast.building import built, digest_of

SOURCES = tuple(
    Path(__file__).with_name(name)
    for name in (
        "amx.h",
        "bands.h",
        "kernels.h",
        "mixing.h",
        "patches.h",
        "rows.h",
        "planes.h",
        "between.h",
        "bytes.cpp",
        "content.cpp",
        "halves.cpp",
        "network.cpp",
        "thin.cpp",
        "tiles.cpp",
        "windows.cpp",
        "winograd.cpp",
    )
)
_GAP = 16  # floats behind the values of a point, as the kernels have it
ACTIVATIONS = (
    "none",
    "silu",
    "sigmoid",
    "hardswish",
    "hardsigmoid",
    "gelu",
)  # beside bounds, as the kernels number them
_TILES = 128  # whose transformed values are held while the gradient of the weights is summed


class Unfit(Exception):  # noqa: N818 - no fault: the layer itself does the work
    """Tensors are not, or no longer, of the size or dtype that a form was made for."""


class _Shape(ctypes.Structure):
    _fields_ = [(name, ctypes.c_int) for name in ("n", "h", "w", "c", "out_h", "out_w", "out_c")]


class Window(NamedTuple):
    """A window over two axes: its size, stride, padding and dilation, down and along."""

    kh: int
    kw: int
    sh: int
    sw: int
    ph: int
    pw: int
    dh: int
    dw: int

    def out(self, h: int, w: int) -> tuple[int, int]:
        """The size of the output."""
        down = (h + 2 * self.ph - self.dh * (self.kh - 1) - 1) // self.sh + 1
        return down, (w + 2 * self.pw - self.dw * (self.kw - 1) - 1) // self.sw + 1

    def steps(self) -> tuple[list[int], list[int], list[int]]:
        """Stride, padding and dilation, as PyTorch takes them."""
        return [self.sh, self.sw], [self.ph, self.pw], [self.dh, self.dw]

    def turned(self) -> "Window | None":
        """With stride 1: the window that takes the gradient of the output to that of the input."""
        ph, pw = self.dh * (self.kh - 1) - self.ph, self.dw * (self.kw - 1) - self.pw
        return self._replace(ph=ph, pw=pw) if self.sh == self.sw == 1 and min(ph, pw) >= 0 else None


class After(NamedTuple):
    """What is done to sums before they are written: a bias, another array of the output's shape, an activation (its
    place in ACTIVATIONS), bounds."""

    bias: Tensor | None = None
    other: Tensor | None = None
    low: float = -math.inf
    high: float = math.inf
    activation: int = 0

    def c(self) -> "_After":
        """The same as the kernels take it; the bias goes apart."""
        if self.other is None:
            return _bounds(self.low, self.high, self.activation)
        return _After(_at(self.other), self.low, self.high, self.activation)


NOTHING = After()


class _After(ctypes.Structure):
    _fields_ = [
        ("other", ctypes.c_void_p),
        ("low", ctypes.c_float),
        ("high", ctypes.c_float),
        ("activation", ctypes.c_int),
    ]


@functools.lru_cache(maxsize=64)
def _bounds(low: float, high: float, activation: int) -> _After:
    return _After(None, low, high, activation)


class _Window(ctypes.Structure):
    _fields_ = [(name, ctypes.c_int) for name in Window._fields]


class _Call(ctypes.Structure):
    """What a call is told beside its arrays: kept from call to call, since to hand it over takes longer than to look it
    up."""

    _fields_ = [("s", _Shape), ("k", _Window), ("per", ctypes.c_int), ("after", _After)]


class _Strides(ctypes.Structure):
    _fields_ = [(name, ctypes.c_long) for name in ("group", "out", "in_", "h", "w")]


class Step(ctypes.Structure):
    """A layer of a network that runs in one call, as the kernels have it."""

    _fields_ = [
        *((name, ctypes.c_int) for name in ("kind", "per", "bytes")),
        *((name, ctypes.c_long) for name in ("x", "y", "other", "room")),
        *((name, ctypes.c_void_p) for name in ("w", "bias")),
        *(("s", _Shape), ("k", _Window), ("after", _After), ("threads", ctypes.c_int)),
    ]


class Ready(ctypes.Structure):
    """A network in one call with memory of its own."""

    _fields_ = [
        ("steps", ctypes.c_void_p),
        ("memory", ctypes.c_void_p),
        ("count", ctypes.c_int),
        ("half", ctypes.c_bool),
    ]


class Kernels:
    """The loaded library. Every call returns a new array, channels last."""

    def __init__(self, path: Path) -> None:
        self._library = ctypes.CDLL(str(path))
        self._library.tiles.restype = ctypes.c_bool
        self.panel, self.tiles = int(self._library.panel()), bool(self._library.tiles())
        self.half = self.tiles  # whether it has products of bfloat16
        at, number, yes = ctypes.c_void_p, ctypes.c_int, ctypes.c_bool
        self._grouped, self._max_pool = self._library.call_grouped, self._library.call_max_pool
        self._grouped.argtypes, self._max_pool.argtypes = [at] * 5, [at] * 3
        self._library.pointwise.argtypes = [at, at, at, at, number, number, number, _After]
        self._library.separable.argtypes = [at, at, at, at, at, _Shape, _Window, yes]
        self._library.tiled.argtypes = [at, at, at, at, _Shape, _Window, number, _After]
        self._library.winograd.argtypes = [at, at, at, at, _Shape, _Window, number, _After]
        self._library.winograd_pack.argtypes = [at, at, _Strides, _Window, number, number, number]
        self._library.winograd_weights.argtypes = [at, at, at, at, _Shape, _Window, number, number]
        self._library.flattened.argtypes = [at, at, at, at, at, _Shape, _Window, yes]
        self._library.grouped_weights.argtypes = [at, at, at, _Shape, _Window, number, number, ctypes.c_long]
        self._library.dense.argtypes = [at, at, at, at, at, _Shape, _Window, _After]
        self._library.network.argtypes = [at, number, yes, at, at, at]
        long = ctypes.c_long
        self._library.pictures.argtypes = [at, number, yes, at, long, number, number, at, long, at, at, number]
        self.one_output = self._library.one_output  # of the address of a `Ready`, of an input, and of an output
        self.one_output.argtypes, self.one_output.restype = [at, at, at], None
        self._library.max_pool_backward.argtypes = [at, at, at, _Shape, _Window]
        self.content = self._library.content  # of the address of an array, and of how many bytes
        self.content.argtypes, self.content.restype = [at, long], ctypes.c_uint64

    def lanes(self, channels: int) -> int:
        """How many channels lie side by side in packed weights."""
        return int(self._library.lanes(channels))

    def grouped(self, x: Tensor, packed: Tensor, bias: Tensor | None, window: Window, after: After = NOTHING) -> Tensor:
        """Convolution in groups of as many outputs as inputs, of `after` the activation and bounds; packed as
        `pack_grouped` does.
        """
        size, strides, call, _ = _called(x.shape, window, packed.shape[3], *after[2:])
        y = x.new_empty_strided(size, strides)
        self._grouped(call, x.data_ptr(), packed.data_ptr(), None if bias is None else bias.data_ptr(), y.data_ptr())
        return y

    def grouped_weights(self, x: Tensor, grad: Tensor, per: int, window: Window) -> Tensor:
        """The gradient of the weights of `grouped`, in the order in which they are packed."""
        *_, shape, same = _plan(x.shape, grad.shape[1], window)
        lanes, threads = self.lanes(shape.c), torch.get_num_threads()
        sums = torch.empty(threads, shape.c // lanes, window.kh, window.kw, per, lanes)
        size = sums[0].numel()
        self._library.grouped_weights(_at(x), _at(grad), _at(sums), shape, same, per, threads, size)
        return sums.sum(0)

    def pointwise(self, x: Tensor, packed: Tensor, after: After, channels: int) -> Tensor:
        """Convolution with 1x1 kernels to so many channels; packed as `pack_panels` does."""
        n, c, h, w = x.shape
        y = torch.empty_strided((n, channels, h, w), (h * w * channels, 1, w * channels, channels), dtype=x.dtype)
        self._library.pointwise(_at(x), _at(packed), _at(after.bias), _at(y), n * h * w, c, channels, after.c())
        return y

    def dense(self, x: Tensor, packed: Tensor, after: After, channels: int, window: Window) -> Tensor:
        """Convolution of any window to so many channels; packed as `pack_dense` does."""
        n, c, h, w = x.shape
        y, *plan = _output(x, channels, window)
        room = torch.empty(n * (h + 2 * window.ph) * (w + 2 * window.pw) * c)
        self._library.dense(_at(x), _at(packed), _at(after.bias), _at(y), _at(room), *plan, after.c())
        return y

    def network(self, steps: Any, memory: Tensor, x: Tensor, outputs: Any) -> None:
        """All steps, one after the other, in memory (float32 or bfloat16, as what lies between them) and into outputs
        that are laid out beforehand."""
        half = memory.dtype == torch.bfloat16
        self._library.network(steps, len(steps), half, memory.data_ptr(), x.data_ptr(), outputs)

    def pictures(self, steps: Any, memory: Tensor, x: Tensor, outputs: Any, y_apart: Any) -> None:
        """All steps for each picture, every thread with its own; memory has a row for each thread."""
        rows = (memory.data_ptr(), memory[0].nbytes, len(memory))
        pictures, half = (len(x), x.data_ptr(), x[0].numel()), memory.dtype == torch.bfloat16
        self._library.pictures(steps, len(steps), half, *rows, *pictures, outputs, y_apart, len(outputs))

    def separable(self, x: Tensor, depth: Tensor, point: Tensor, bias: Tensor | None, window: Window) -> Tensor:
        """Depthwise (without bias), then 1x1; packed as `pack_grouped`, and as `pack_panels` or `pack_tiles` do."""
        y, *plan = _output(x, len(point) * self.panel, window)
        self._library.separable(_at(x), _at(depth), _at(point), _at(bias), _at(y), *plan, _in_tiles(point))
        return y

    def flattened(self, x: Tensor, across: Tensor, depth: Tensor, bias: Tensor | None, window: Window) -> Tensor:
        """1x1 (without bias), then depthwise; packed as `pack_panels` or `pack_tiles`, and as `pack_grouped` do."""
        y, *plan = _output(x, len(across) * self.panel, window)
        self._library.flattened(_at(x), _at(across), _at(depth), _at(bias), _at(y), *plan, _in_tiles(across))
        return y

    def tiled(self, x: Tensor, packed: Tensor, after: After, window: Window, groups: int) -> Tensor:
        """Any convolution of 32, 64 ... channels into as many; packed as `pack_tiles` does."""
        y, *plan = _output(x, len(packed) * self.panel, window)
        self._library.tiled(_at(x), _at(packed), _at(after.bias), _at(y), *plan, groups, after.c())
        return y

    def winograd(self, x: Tensor, packed: Tensor, after: After, window: Window, groups: int) -> Tensor:
        """Convolution of stride 1 with 3 taps along one axis or both; packed as `winograd_pack` does."""
        _, panels, _, panel = packed.shape
        y, *plan = _output(x, panels * panel, window)
        given = (_at(x), _at(packed), _at(after.bias), _at(y))
        self._library.winograd(*given, *plan, groups, after.c())
        return y

    def winograd_pack(self, weight: Tensor, groups: int, *, turned: bool = False) -> Tensor:
        """The weights at Winograd's points, P x O/panel x C/groups x panel; P = 36 or 6. They may lie in any order.

        `turned`: as the gradient of the input reads them, back to front, inputs and outputs of a group exchanged.
        """
        outs, ins, *size = weight.shape
        out, (by_out, by_in, *by_tap) = outs // groups, weight.stride()
        at, group, first = [by_out, by_in, *by_tap], out * by_out, weight.data_ptr()
        if turned:
            first += weight.element_size() * sum((n - 1) * step for n, step in zip(size, by_tap, strict=True))
            at = [by_in, by_out, *(-step for step in by_tap)]
            outs, out, ins = groups * ins, ins, out
        points = 36 if size == [3, 3] else 6
        plane = outs * ins + _GAP
        packed = torch.empty(points * plane)
        packed = packed.as_strided(
            (points, outs // self.panel, ins, self.panel), (plane, ins * self.panel, self.panel, 1)
        )
        strides, window = _Strides(group, *at), _Window(*size, *(1, 1, 0, 0, 1, 1))
        self._library.winograd_pack(first, _at(packed), strides, window, groups, out, ins)
        return packed

    def winograd_weights(self, x: Tensor, grad: Tensor, size: Sequence[int], window: Window, groups: int) -> Tensor:
        """The gradient of the weights, of that size, by Winograd's way."""
        *_, shape, same = _plan(x.shape, grad.shape[1], window)
        points = torch.empty((36 if window.kh == window.kw else 6) * (size[0] * size[1] + _GAP))
        weight = torch.empty(tuple(size))
        self._library.winograd_weights(_at(x), _at(grad), _at(points), _at(weight), shape, same, groups, _TILES)
        return weight

    def max_pool_backward(self, x: Tensor, grad: Tensor, window: Window) -> Tensor:
        """The gradient of the input of `max_pool`."""
        to = torch.empty_like(x)
        *_, shape, same = _plan(x.shape, x.shape[1], window)
        self._library.max_pool_backward(_at(x), _at(grad), _at(to), shape, same)
        return to

    def max_pool(self, x: Tensor, window: Window) -> Tensor:
        """The largest of each window."""
        size, strides, call, _ = _called(x.shape, window, 1, *NOTHING[2:])
        y = x.new_empty_strided(size, strides)
        self._max_pool(call, x.data_ptr(), y.data_ptr())
        return y


def kernels() -> Kernels | None:
    """The compiled kernels; None where there are none, and `why_absent` says why."""
    return _built()[0]


def why_absent() -> str:
    """Why there are no compiled kernels; empty if there are."""
    return _built()[1]


def digest() -> str:
    """What the kernels are: changes with their source, and tells whether they are there."""
    return digest_of(SOURCES) if kernels() else "none"


@functools.cache
def _built() -> tuple[Kernels | None, str]:
    return built(SOURCES, Kernels)


def _output(x: Tensor, channels: int, window: Window) -> tuple[Tensor, _Shape, _Window]:
    size, strides, shape, same_window = _plan(x.shape, channels, window)
    return torch.empty_strided(size, strides, dtype=x.dtype), shape, same_window


@functools.lru_cache(maxsize=1024)
def _plan(
    shape: tuple[int, ...], channels: int, window: Window
) -> tuple[tuple[int, ...], tuple[int, ...], _Shape, _Window]:
    """Size and strides of the output, and sizes and window as the kernels take them."""
    n, c, h, w = shape
    down, along = window.out(h, w)
    strides = (down * along * channels, 1, along * channels, channels)
    return (n, channels, down, along), strides, _Shape(n, h, w, c, down, along, channels), _Window(*window)


@functools.lru_cache(maxsize=1024)
def _called(
    shape: tuple[int, ...], window: Window, per: int, low: float, high: float, activation: int
) -> tuple[tuple[int, ...], tuple[int, ...], int, _Call]:
    """Size and strides of an output of as many channels, and the address of a call with all that it is told.

    Raises: Unfit if the channels fill no vectors.
    """
    if shape[1] % 4:
        raise Unfit
    size, strides, *plan = _plan(shape, shape[1], window)
    call = _Call(*plan, per, _bounds(low, high, activation))
    return size, strides, ctypes.addressof(call), call


def _at(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()


def _in_tiles(packed: Tensor) -> bool:
    return packed.dtype == torch.bfloat16
