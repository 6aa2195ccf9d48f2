"""A small convolution as a person asks for it: numbers by hand, at random, or out of a picture."""

import re
from dataclasses import dataclass

import numpy as np

from convscope.data.images import Picture, to_channels
from convscope.errors import InputError
from convscope.layers.kernels import find_kernel, parse_kernel
from convscope.steps.case import Case, Pair, by, check_groups, check_shapes

LARGEST, LARGEST_WEIGHT = 3, 2  # of random whole numbers, either sign


@dataclass(frozen=True, slots=True)
class Wish:
    """What is asked for, before there are numbers.

    `input`: the shape HxW or CxHxW; 5x5 if nothing says otherwise, or 8x8 of a picture.
    `values`: the input by hand, "1 2 3; 4 5 6"; a "|" between channels. Or a `picture`, cropped with its top left
    corner `at` (row, column), its middle if None; its values are 0 to 255.
    `kernel`: a size for random whole numbers ("3", "5x3"), or a name or rows as in `layers.find_kernel`; such a
    kernel serves every pair of channels. `out_channels`: as many as groups if None.
    """

    input: tuple[int, ...] | None = None
    values: str | None = None
    picture: Picture | None = None
    at: tuple[int, ...] | None = None
    kernel: str = "3"
    out_channels: int | None = None
    seed: int = 0
    stride: Pair = 1
    padding: Pair = 0
    dilation: Pair = 1
    groups: int = 1
    transposed: bool = False
    output_padding: Pair = 0

    def case(self) -> Case:
        """The convolution with its numbers. Random ones are -3 to 3 in the input and -2 to 2 in the kernel.

        Raises: InputError if the wish contradicts itself, a number cannot be read, or the case cannot be.

        >>> case = Wish(values="1 2; 3 4", kernel="1 1; 1 1").case()
        >>> case.torch_output().tolist()
        [[[10.0]]]
        """
        random = np.random.default_rng(self.seed)
        x = self._input(random)
        outputs = self.groups if self.out_channels is None else self.out_channels
        check_groups(len(x), outputs, self.groups)
        pairs = (len(x), outputs // self.groups) if self.transposed else (outputs, len(x) // self.groups)
        return Case(
            x,
            self._kernel(random, pairs),
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
        shape = _three(self.input or (5, 5))
        check_shapes(shape, (1,))
        return random.integers(-LARGEST, LARGEST + 1, shape).astype(np.float64)

    def _by_hand(self, text: str) -> np.ndarray:
        channels = []
        for part in text.split("|"):
            try:
                channels.append(parse_kernel(part).numpy())
            except InputError as error:
                raise InputError(str(error).replace("kernel:", "--values:", 1)) from None
        if len({c.shape for c in channels}) > 1:
            sizes = " and ".join(by(c.shape) for c in channels)
            raise InputError(f"--values: the channels are {sizes}; write as many rows and columns in each")
        x = np.stack(channels)
        if self.input is not None and _three(self.input) != x.shape:
            raise InputError(f"conv: --input is {by(self.input)} but --values are {by(x.shape)}; leave --input away")
        return x

    def _crop(self, picture: Picture) -> np.ndarray:
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
        size = re.fullmatch(r"\s*(\d{1,9})(?:x(\d{1,9}))?\s*", self.kernel)
        if not size:
            kernel = find_kernel(self.kernel).numpy()
            check_shapes((1,), (*pairs, *kernel.shape))
            return np.broadcast_to(kernel, (*pairs, *kernel.shape))
        shape = (*pairs, int(size[1]), int(size[2] or size[1]))
        check_shapes((1,), shape)
        return random.integers(-LARGEST_WEIGHT, LARGEST_WEIGHT + 1, shape).astype(np.float64)


def _three(shape: tuple[int, ...]) -> tuple[int, ...]:
    if len(shape) not in (2, 3):
        raise InputError(f"conv: --input is {by(shape)}; give rows x columns, or channels x rows x columns")
    return (1, *shape) if len(shape) == 2 else shape
