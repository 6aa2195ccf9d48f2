"""A picture through convolutions: kernels set by hand, or drawn at random as a new layer has them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from convscope.data.images import Picture
from convscope.errors import InputError
from convscope.geometry import Window, formula, out_size
from convscope.layers.kernels import find_kernel
from convscope.table import Column, Table

MAX_VALUES = 2**29  # of one layer's output: 2 GiB of float32

Pair = int | tuple[int, int]


@dataclass(frozen=True, slots=True)
class ConvSpec:
    """One convolution that is asked for: a `kernel` set by hand, or `out_channels` random kernels.

    `kernel`: a name in `layers.KERNELS`, or rows such as "1 0 -1; 2 0 -2; 1 0 -1".
    `channels`: what a kernel set by hand does with several channels. "each" filters every channel apart, so that
    a blurred RGB picture is an RGB picture (depthwise); "sum" adds the results to one map (the textbook's way).
    `kernel_size`: of random kernels, an int or (height, width), as are `stride`, `padding` and `dilation` of both.
    Raises: InputError unless exactly one of `kernel` and `out_channels` is given.

    >>> ConvSpec(kernel="sobel-x").name, ConvSpec(out_channels=32, kernel_size=(5, 3)).name
    ('sobel-x, each channel', '32 random kernels')
    """

    kernel: str | None = None
    channels: Literal["each", "sum"] = "each"
    out_channels: int | None = None
    kernel_size: Pair = 3
    stride: Pair = 1
    padding: Pair = 0
    dilation: Pair = 1

    def __post_init__(self) -> None:
        if (self.kernel is None) == (self.out_channels is None):
            raise InputError("ConvSpec: give either a kernel or out_channels, and not both")
        if self.out_channels is not None and self.out_channels < 1:
            raise InputError(f"ConvSpec: out_channels is {self.out_channels}; use 1 or more")
        if self.channels not in ("each", "sum"):
            raise InputError(f"ConvSpec: channels is {self.channels!r}; use 'each' or 'sum'")
        for field in ("kernel_size", "stride", "padding", "dilation"):
            _pair(getattr(self, field), field)

    @property
    def name(self) -> str:
        """What the table calls it."""
        if self.out_channels is not None:
            return f"{self.out_channels} random kernel{'s' if self.out_channels > 1 else ''}"
        return f"{self.kernel}, " + ("each channel" if self.channels == "each" else "channels added")


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """One convolution that was done. Shapes are NxCxHxW; `formulas` are of the height and the width."""

    name: str
    in_shape: tuple[int, ...]
    out_shape: tuple[int, ...]
    kernel_size: tuple[int, int]
    formulas: tuple[str, str]
    params: int
    macs: int
    weight: Tensor
    bias: Tensor | None
    output: Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Convolved:
    """A picture and the convolutions that it went through."""

    picture: Picture
    steps: tuple[Step, ...]
    seed: int

    @property
    def output(self) -> Tensor:
        """The last feature maps, 1xCxHxW."""
        return self.steps[-1].output

    def table(self) -> Table:
        """A row for each convolution, and the totals."""
        rows = tuple(_row(index, step) for index, step in enumerate(self.steps, start=1))
        total = {"layer": "total", "params": sum(r["params"] for r in rows), "macs": sum(r["macs"] for r in rows)}
        return Table(_COLUMNS, rows, title=self.picture.source, total=total, notes=self.picture.notes)


_COLUMNS = (
    Column("layer", "layer"),
    Column("what", "what"),
    Column("in_shape", "input"),
    Column("kernel_size", "kernel"),
    Column("out_shape", "output"),
    Column("height", "height"),
    Column("width", "width"),
    Column("params", "params"),
    Column("macs", "MACs"),
)


def convolve(picture: Picture, layers: Sequence[ConvSpec], *, seed: int = 0) -> Convolved:
    """The picture through the layers, one after the other, with nothing in between.

    Random kernels and their biases are PyTorch's default initialisation of `nn.Conv2d` under `seed`, the layers
    made in their order; the process's own random state stays as it was.
    Shapes: a picture HxWxC is taken as 1xCxHxW; MACs are multiplications of a kernel value with an input value.
    Raises: InputError if a kernel is larger than its padded input, or an output would need more than 2 GiB.
    Source: He et al. 2015 (arXiv:1502.01852), the initialisation.

    >>> from convscope.data.images import photograph
    >>> layers = [ConvSpec(out_channels=32, kernel_size=(5, 3)), ConvSpec(kernel="box-blur")]
    >>> convolve(photograph(), layers).output.shape
    torch.Size([1, 32, 421, 636])
    """
    if not layers:
        raise InputError("convolve: no layer is given; name a kernel or a number of random ones")
    x, steps = picture.tensor(), []
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        for index, spec in enumerate(layers, start=1):
            step = _step(x, spec, place=f"convolve, layer {index}")
            steps.append(step)
            x = step.output
    return Convolved(picture, tuple(steps), seed)


def _step(x: Tensor, spec: ConvSpec, *, place: str) -> Step:
    weight, bias, groups = _weights(spec, x.shape[1], place=place)
    size = (weight.shape[2], weight.shape[3])
    stride, padding, dilation = (_pair(getattr(spec, n), n) for n in ("stride", "padding", "dilation"))
    windows = [Window(*w) for w in zip(size, stride, padding, dilation, strict=True)]
    axes = list(zip(x.shape[2:], windows, strict=True))
    _check_fits(axes, place)
    out_shape = (x.shape[0], weight.shape[0], *(out_size(n, w) for n, w in axes))
    _check_size(place, "output", out_shape, remedy="use fewer kernels, a larger stride or a smaller picture")
    return Step(
        name=spec.name,
        in_shape=tuple(x.shape),
        out_shape=out_shape,
        kernel_size=size,
        formulas=(formula(*axes[0]), formula(*axes[1])),
        params=weight.numel() + (bias.numel() if bias is not None else 0),
        macs=prod(out_shape) * weight[0].numel(),
        weight=weight,
        bias=bias,
        output=F.conv2d(x, weight, bias, stride=stride, padding=padding, dilation=dilation, groups=groups),
    )


def _weights(spec: ConvSpec, channels: int, *, place: str) -> tuple[Tensor, Tensor | None, int]:
    """Kernels OxIxHxW, biases O or None, and groups."""
    if spec.kernel is None:
        shape = (spec.out_channels or 1, channels, *_pair(spec.kernel_size, "kernel_size"))
        _check_size(place, "kernels", shape, remedy="use fewer, or smaller ones")
        layer = nn.Conv2d(channels, shape[0], shape[2:])
        return layer.weight.detach(), layer.bias.detach() if layer.bias is not None else None, 1
    kernel = find_kernel(spec.kernel)
    if spec.channels == "each":
        return kernel.repeat(channels, 1, 1, 1), None, channels
    return kernel.repeat(1, channels, 1, 1), None, 1


def _check_fits(axes: Sequence[tuple[int, Window]], place: str) -> None:
    if all(n + 2 * w.padding >= w.span for n, w in axes):
        return
    kernel, span = _by(w.size for _, w in axes), _by(w.span for _, w in axes)
    dilated = f" (with dilation it spans {span})" if span != kernel else ""
    padded = _by(n + 2 * w.padding for n, w in axes)
    need = _by(max(w.padding, -(-(w.span - n) // 2)) for n, w in axes)
    raise InputError(
        f"{place}: the kernel {kernel}{dilated} is larger than the padded image {padded}; "
        f"use padding {need} or more, a smaller kernel or dilation, or a larger picture"
    )


def _check_size(place: str, what: str, shape: Sequence[int], *, remedy: str) -> None:
    if (values := prod(shape)) > MAX_VALUES:
        raise InputError(f"{place}: the {what} {_by(shape)} would need {values * 4 / 2**30:,.1f} GiB; {remedy}")


def _row(index: int, step: Step) -> dict[str, Any]:
    return {
        "layer": str(index),
        "what": step.name,
        "in_shape": step.in_shape,
        "kernel_size": step.kernel_size,
        "out_shape": step.out_shape,
        "height": step.formulas[0],
        "width": step.formulas[1],
        "params": step.params,
        "macs": step.macs,
    }


def _pair(value: Pair, name: str) -> tuple[int, int]:
    pair = value if isinstance(value, tuple | list) else (value, value)
    least = 0 if name == "padding" else 1
    if len(pair) != 2 or not all(isinstance(v, int) and v >= least for v in pair):
        raise InputError(f"convolve: {name} is {value!r}; use one int or (height, width), each {least} or more")
    return pair[0], pair[1]


def _by(sizes: Iterable[int]) -> str:
    return "x".join(str(n) for n in sizes)
