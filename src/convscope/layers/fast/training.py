"""The kernels that training alone uses: a library of its own, and its functions by name."""

import ctypes
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from convscope.layers.fast.building import built, digest_of

SOURCES = tuple(
    Path(__file__).with_name(name)
    for name in (
        "amx.h",
        "lanes.h",
        "returned.h",
        "returned_tiles.h",
        "convolved.cpp",
        "cropped.cpp",
        "depthwise.cpp",
        "entropy.cpp",
        "norms.cpp",
        "returned.cpp",
        "stepping.cpp",
    )
)
AT, NUMBER, YES = ctypes.c_void_p, ctypes.c_int, ctypes.c_bool


@functools.cache
def library() -> ctypes.CDLL | None:
    """The compiled kernels; None where there are none."""
    return built(SOURCES, lambda path: ctypes.CDLL(str(path)))[0]


def digest() -> str:
    """What the kernels are: changes with their source, and tells whether they are there."""
    return digest_of(SOURCES) if library() else "none"


@functools.cache
def function(name: str, *types: Any, result: Any = None) -> Callable[..., Any]:
    """The kernel of this name, which takes these types.

    Raises: RuntimeError where there are no kernels.
    """
    found = library()
    if found is None:
        raise RuntimeError("the compiled kernels are not there")
    kernel = getattr(found, name)
    kernel.argtypes, kernel.restype = types, result
    return kernel


def plain(size: int, *tensors: Any) -> bool:
    """Whether they are numbers as the kernels take them, so many each: float32, on the CPU, one behind another."""
    return all(
        isinstance(t, Tensor) and t.dtype == torch.float32 and t.is_cpu and t.numel() == size and t.is_contiguous()
        for t in tensors
    )


def usual(weight: Tensor) -> bool:
    """Whether it is float32 on the CPU, and no tensor of a kind of its own."""
    return type(weight) in (Tensor, nn.Parameter) and weight.is_cpu and weight.dtype == torch.float32


def hooked(module: nn.Module) -> bool:
    """Whether somebody listens to what the module is called with."""
    return bool(module._forward_hooks or module._forward_pre_hooks or module._backward_hooks
                or module._backward_pre_hooks)  # fmt: skip


def at(tensor: Tensor | None) -> int | None:
    """Where its values lie."""
    return None if tensor is None else tensor.data_ptr()
