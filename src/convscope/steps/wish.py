"""A small convolution as a person asks for it: numbers by hand, at random, or out of a picture."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from convscope.data.images import Picture, to_channels
from convscope.errors import InputError
from convscope.layers.kernels import find_kernel, parse_kernel
from convscope.steps.case import LETTERS, Axes, Case, by, check_groups, check_shapes

USUAL: Mapping[int, tuple[int, ...]] = {1: (7,), 2: (5, 5), 3: (3, 4, 4)}  # the input's axes, if nobody says
LARGEST, LARGEST_WEIGHT = 3, 2  # of random whole numbers, either sign


@dataclass(frozen=True, slots=True)
class Wish:
    """What is asked for, before there are numbers.

    `ndim`: spatial axes, 1 to 3. `input`: the shape D... or CxD...; 7, 5x5 or 3x4x4 if nothing says otherwise, or 8x8
    of a picture. `values`: the input by hand, "1 2 3; 4 5 6"; a "|" between channels, ";;" between the slices of a
    volume. Or a `picture`, cropped with its top left corner `at` (row, column), its middle if None; its values are 0
    to 255. `kernel`: a size for random whole numbers ("3", "5x3"), or a name or rows as in `layers.find_kernel`; such
    a kernel serves every pair of channels. `out_channels`: as many as groups if None. `bias`: a number for all output
    channels, or one for each, "1 -2".
    """

    ndim: int = 2
    input: tuple[int, ...] | None = None
    values: str | None = None
    picture: Picture | None = None
    at: tuple[int, ...] | None = None
    kernel: str = "3"
    out_channels: int | None = None
    bias: str | None = None
    seed: int = 0
    stride: Axes = 1
    padding: Axes = 0
    dilation: Axes = 1
    groups: int = 1
    transposed: bool = False
    output_padding: Axes = 0

    def case(self) -> Case:
        """The convolution with its numbers. Random ones are -3 to 3 in the input and -2 to 2 in the kernel.

        Raises: InputError if the wish contradicts itself, a number cannot be read, or the case cannot be.

        >>> case = Wish(values="1 2; 3 4", kernel="1 1; 1 1").case()
        >>> case.torch_output().tolist()
        [[[10.0]]]
        """
        if self.ndim not in USUAL:
            raise InputError(f"conv: ndim is {self.ndim}; use 1, 2 or 3")
        random = np.random.default_rng(self.seed)
        x = self._input(random)
        outputs = self.groups if self.out_channels is None else self.out_channels
        check_groups(len(x), outputs, self.groups)
        pairs = (len(x), outputs // self.groups) if self.transposed else (outputs, len(x) // self.groups)
        return Case(
            x,
            self._kernel(random, pairs),
            b=self._bias(outputs),
            stride=self.stride,
            padding=self.padding,
            dilation=self.dilation,
            groups=self.groups,
            transposed=self.transposed,
            output_padding=self.output_padding,
        )

    def _input(self, random: np.random.Generator) -> np.ndarray:
        if self.values is not None and self.picture is not None:
            raise InputError("conv: --values and --picture both say what the input is; leave one away")
        if self.at is not None and self.picture is None:
            raise InputError("conv: --at is a place in a picture, but there is none; give --picture")
        if self.values is not None:
            return self._by_hand(self.values)
        if self.picture is not None:
            return self._crop(self.picture)
        shape = self._with_channels(self.input or USUAL[self.ndim])
        check_shapes(shape, (1,))
        return random.integers(-LARGEST, LARGEST + 1, shape).astype(np.float64)

    def _by_hand(self, text: str) -> np.ndarray:
        try:
            channels = [_map(part, self.ndim, parse_kernel) for part in text.split("|")]
        except InputError as error:
            raise InputError(str(error).replace("kernel:", "--values:", 1)) from None
        if len({c.shape for c in channels}) > 1:
            sizes = " and ".join(by(c.shape) for c in channels)
            raise InputError(f"--values: the channels are {sizes}; write as many rows and columns in each")
        x = np.stack(channels)
        if self.input is not None and self._with_channels(self.input) != x.shape:
            raise InputError(f"conv: --input is {by(self.input)} but --values are {by(x.shape)}; leave --input away")
        return x

    def _crop(self, picture: Picture) -> np.ndarray:
        if self.ndim != 2:
            raise InputError(
                f"conv: a picture has rows and columns, but ndim is {self.ndim}; use --ndim 2, or --values"
            )
        shape = self.input or (8, 8)
        check_shapes(shape, (1,))
        if len(shape) == 3:
            picture = to_channels(picture, shape[0])
        size = shape[-2:]
        room = [n - s for n, s in zip(picture.shape, size, strict=False)]
        at = tuple(r // 2 for r in room) if self.at is None else self.at
        if len(at) != 2 or not all(0 <= a <= r for a, r in zip(at, room, strict=True)):
            place, whole = ",".join(map(str, at)), by(picture.shape[:2])
            raise InputError(f"conv: a crop of {by(size)} at {place} does not lie in {picture.source} of {whole}; "
                             "use another --at row,column or --input")  # fmt: skip
        crop = picture.pixels[at[0] : at[0] + size[0], at[1] : at[1] + size[1]]
        return np.rint(crop.transpose(2, 0, 1) * 255.0)

    def _kernel(self, random: np.random.Generator, pairs: tuple[int, int]) -> np.ndarray:
        if re.fullmatch(r"\s*\d{1,9}(x\d{1,9})*\s*", self.kernel):
            size = tuple(int(n) for n in self.kernel.split("x"))
            if len(size) not in (1, self.ndim):
                raise InputError(f"conv: the kernel {self.kernel} has {len(size)} sizes; give one, or {self.ndim} with "
                                 "'x' between, or another --ndim")  # fmt: skip
            shape = (*pairs, *(size * self.ndim if len(size) == 1 else size))
            check_shapes((1,), shape)
            return random.integers(-LARGEST_WEIGHT, LARGEST_WEIGHT + 1, shape).astype(np.float64)
        kernel = _map(self.kernel, self.ndim, find_kernel)
        check_shapes((1,), (*pairs, *kernel.shape))
        return np.broadcast_to(kernel, (*pairs, *kernel.shape))

    def _bias(self, outputs: int) -> np.ndarray | None:
        if self.bias is None:
            return None
        try:
            numbers = _map(self.bias, 1, parse_kernel)
        except InputError as error:
            raise InputError(str(error).replace("kernel:", "--bias:", 1)) from None
        return np.repeat(numbers, outputs) if len(numbers) == 1 else numbers

    def _with_channels(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        if len(shape) not in (self.ndim, self.ndim + 1):
            letters = LETTERS[self.ndim]
            raise InputError(
                f"conv: --input is {by(shape)}; give {letters} or Cx{letters} (C channels), or another --ndim"
            )
        return (1, *shape) if len(shape) == self.ndim else shape


def _map(text: str, ndim: int, read: Callable[[str], Tensor]) -> np.ndarray:
    """Numbers by hand over so many axes: one row, rows, or slices of rows with ";;" between."""
    slices = [read(part).numpy() for part in (text.split(";;") if ndim == 3 else [text])]
    if len({part.shape for part in slices}) > 1:
        sizes = " and ".join(by(part.shape) for part in slices)
        raise InputError(f"kernel: the slices are {sizes}; write as many rows and columns in each")
    if ndim == 1 and len(slices[0]) > 1:
        raise InputError(f"kernel: {text.strip()!r} has {len(slices[0])} rows, but along one axis there is one; "
                         "take away the ';', or use --ndim 2")  # fmt: skip
    return np.stack(slices) if ndim == 3 else slices[0] if ndim == 2 else slices[0][0]
