"""The kernels of `kernels.cpp`, compiled on this machine for this machine, once; or the reason why there are none.

They need GCC (`CXX`, else g++). The library is kept in the user's cache folder by its source, its compiler and the processor.
`CONVSCOPE_COMPILE=0` does without. Arrays are float32 on the CPU, channels last.
"""

import ctypes
import functools
import hashlib
import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from convscope import machine
from convscope.clock import cache
from convscope.errors import RunError
from convscope.files import write_whole

SOURCE = Path(__file__).with_name("kernels.cpp")
SWITCH = "CONVSCOPE_COMPILE"
_FLAGS = ("-O3", "-march=native", "-std=c++17", "-fopenmp", "-fno-math-errno", "-shared", "-fPIC")
_BLOCK_BYTES = 2**20  # of transformed tiles that a thread holds: about a second-level cache


class HasWindow(Protocol):
    """What a convolution or pooling tells of its window: one number for each of the two axes."""

    @property
    def kernel_size(self) -> Any: ...
    @property
    def stride(self) -> Any: ...
    @property
    def padding(self) -> Any: ...
    @property
    def dilation(self) -> Any: ...


class _Shape(ctypes.Structure):
    _fields_ = [(name, ctypes.c_int) for name in ("n", "h", "w", "c", "out_h", "out_w", "out_c")]


class _Window(ctypes.Structure):
    _fields_ = [(name, ctypes.c_int) for name in ("kh", "kw", "sh", "sw", "ph", "pw", "dh", "dw")]


@dataclass(frozen=True, slots=True)
class Window:
    """A window over two axes: its size, stride, padding and dilation along each."""

    size: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]

    def out(self, size: tuple[int, ...]) -> tuple[int, ...]:
        """The size of the output."""
        parts = zip(size, self.size, self.stride, self.padding, self.dilation, strict=True)
        return tuple((n + 2 * p - d * (k - 1) - 1) // s + 1 for n, k, s, p, d in parts)


class Kernels:
    """The loaded library. Every call returns a new array, channels last."""

    def __init__(self, path: Path) -> None:
        self._library = ctypes.CDLL(str(path))
        self.panel = int(self._library.panel())

    def lanes(self, channels: int) -> int:
        """How many channels lie side by side in packed weights."""
        return int(self._library.lanes(channels))

    def grouped(self, x: Tensor, packed: Tensor, bias: Tensor | None, window: Window) -> Tensor:
        """Convolution in groups of as many outputs as inputs; packed as `pack_grouped` does."""
        y, shape = _output(x, x.shape[1], window)
        self._library.grouped(_at(x), _at(packed), _at(bias), _at(y), shape, _window(window), packed.shape[3])
        return y

    def separable(self, x: Tensor, depth: Tensor, point: Tensor, bias: Tensor | None, window: Window) -> Tensor:
        """Depthwise (without bias), then 1x1; packed as `pack_grouped` and `pack_panels` do."""
        y, shape = _output(x, point.shape[1] * point.shape[3], window)
        self._library.separable(_at(x), _at(depth), _at(point), _at(bias), _at(y), shape, _window(window))
        return y

    def winograd(self, x: Tensor, packed: Tensor, bias: Tensor | None, window: Window, groups: int) -> Tensor:
        """Convolution of stride 1 with 3 taps along one axis or both; packed as `pack_panels` does, point by point."""
        points, panels, _, panel = packed.shape
        y, shape = _output(x, panels * panel, window)
        per_tile = 4 * points * (x.shape[1] + panels * panel)
        block = max(14, _BLOCK_BYTES // per_tile // 14 * 14)
        self._library.winograd(_at(x), _at(packed), _at(bias), _at(y), shape, _window(window), groups, block)
        return y

    def max_pool(self, x: Tensor, window: Window) -> Tensor:
        """The largest of each window."""
        y, shape = _output(x, x.shape[1], window)
        self._library.max_pool(_at(x), _at(y), shape, _window(window))
        return y


def kernels() -> Kernels | None:
    """The compiled kernels; None where there are none, and `why_absent` says why."""
    return _built()[0]


def why_absent() -> str:
    """Why there are no compiled kernels; empty if there are."""
    return _built()[1]


def digest() -> str:
    """What the kernels are: changes with their source, and tells whether they are there."""
    return hashlib.sha256(SOURCE.read_bytes()).hexdigest()[:12] if kernels() else "none"


@functools.cache
def _built() -> tuple[Kernels | None, str]:
    if os.environ.get(SWITCH) == "0":
        return None, f"{SWITCH}=0"
    compiler = os.environ.get("CXX") or "g++"
    found = shutil.which(compiler)
    if found is None:
        return None, f"there is no {compiler}"
    key = {"flags": _FLAGS, "instructions": machine.instructions(), "processor": machine.processor()}
    parts = (repr(key), found, str(Path(found).resolve().stat().st_mtime_ns), SOURCE.read_text())
    path = cache.folder() / f"kernels-{hashlib.sha256(''.join(parts).encode()).hexdigest()[:16]}.so"
    try:
        if not path.exists():
            _compile(found, path)
        return Kernels(path), ""
    except (OSError, RunError, AttributeError, subprocess.SubprocessError) as error:
        said = getattr(error, "stderr", None) or str(error)
        return None, f"{compiler} could not build them: {said.strip().splitlines()[0]}"


def _compile(compiler: str, path: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder) / "kernels.so"
        command = [compiler, *_FLAGS, str(SOURCE), "-o", str(library)]
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=120)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, library.read_bytes())


def _output(x: Tensor, channels: int, window: Window) -> tuple[Tensor, _Shape]:
    n, c, h, w = x.shape
    out = window.out((h, w))
    y = torch.empty((n, channels, *out), dtype=x.dtype, memory_format=torch.channels_last)
    return y, _Shape(n, h, w, c, *out, channels)


def _window(w: Window) -> _Window:
    return _Window(*w.size, *w.stride, *w.padding, *w.dilation)


def _at(tensor: Tensor | None) -> ctypes.c_void_p:
    return ctypes.c_void_p(None if tensor is None else tensor.data_ptr())
