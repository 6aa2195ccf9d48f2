"""Window arithmetic on integers: what sizes come out, and which inputs an output reads.

A window slides along one axis. All of it is exact: no floats, no torch.
"""

from dataclasses import dataclass

from convscope.errors import InputError

Interval = tuple[int, int]  # both ends included; may reach outside the axis (padding)


@dataclass(frozen=True, slots=True)
class Window:
    """A sliding window along one axis: a convolution's or a pooling's.

    `size` elements, `dilation` apart, moved by `stride`, over an axis padded by `padding` at both ends.
    Raises: InputError if size, stride or dilation is below 1, or padding below 0.

    >>> Window(3, dilation=2).span
    5
    """

    size: int
    stride: int = 1
    padding: int = 0
    dilation: int = 1

    def __post_init__(self) -> None:
        for name, least in (("size", 1), ("stride", 1), ("padding", 0), ("dilation", 1)):
            value = getattr(self, name)
            if value < least:
                raise InputError(f"Window: {name} is {value}; use {least} or more")

    @property
    def span(self) -> int:
        """Elements from the first to the last that the window touches, holes included."""
        return self.dilation * (self.size - 1) + 1


def out_size(n: int, w: Window, *, ceil: bool = False) -> int:
    """Number of window positions along an axis of `n` elements.

    Shapes: n, result: elements along one spatial axis. `ceil` lets a last window hang over the end if it
    still begins inside the axis or its left padding (the rule of PyTorch's pooling).
    Raises: InputError if no window fits.
    Source: Dumoulin & Visin 2016 (arXiv:1603.07285).

    >>> out_size(224, Window(7, stride=2, padding=3))
    112
    >>> out_size(5, Window(3, padding=1))
    5
    """
    padded = n + 2 * w.padding
    count = -(-(padded - w.span) // w.stride) + 1 if ceil else (padded - w.span) // w.stride + 1
    if ceil and (count - 1) * w.stride >= n + w.padding:
        count -= 1
    if count < 1:
        need = -(-(w.span - n) // 2)
        raise InputError(
            f"out_size: the window spans {w.span} elements but the padded axis has {padded}; "
            f"use padding >= {need} or a smaller kernel or dilation"
        )
    return count


def formula(n: int, w: Window) -> str:
    """The output-size formula with its numbers, as it is taught.

    >>> formula(5, Window(3, padding=1))
    '(5 - 3 + 2*1) / 1 + 1 = 5'
    """
    exact = (n + 2 * w.padding - w.span) % w.stride == 0
    sign = "=" if exact else "-> rounded down:"
    return f"({n} - {w.span} + 2*{w.padding}) / {w.stride} + 1 {sign} {out_size(n, w)}"


def reads(lo: int, hi: int, w: Window) -> Interval:
    """The inputs that the outputs `lo` to `hi` read: first and last, padding counted.

    >>> reads(0, 0, Window(3, padding=1))
    (-1, 1)
    """
    return lo * w.stride - w.padding, hi * w.stride - w.padding + w.span - 1


def transposed_out_size(n: int, w: Window, *, output_padding: int = 0) -> int:
    """Length that a transposed convolution makes from an axis of `n` elements.

    Raises: InputError if output_padding is not below the larger of stride and dilation, or nothing is left.
    Source: Dumoulin & Visin 2016 (arXiv:1603.07285).

    >>> transposed_out_size(2, Window(3))
    4
    """
    if not 0 <= output_padding < max(w.stride, w.dilation):
        raise InputError(
            f"transposed_out_size: output_padding is {output_padding}; "
            f"use 0 to {max(w.stride, w.dilation) - 1} (below the larger of stride and dilation)"
        )
    size = (n - 1) * w.stride - 2 * w.padding + w.span + output_padding
    if size < 1:
        raise InputError(f"transposed_out_size: padding {w.padding} leaves {size} elements; use less padding")
    return size


def transposed_reads(lo: int, hi: int, w: Window) -> Interval | None:
    """The inputs that the outputs `lo` to `hi` of a transposed convolution read; None if they read none.

    Input j touches the outputs `j*stride - padding + dilation*k` for `k = 0 .. size-1`.

    >>> transposed_reads(0, 3, Window(3))
    (-2, 3)
    >>> transposed_reads(1, 1, Window(1, stride=2)) is None
    True
    """
    touching = [
        (o + w.padding - w.dilation * k) // w.stride
        for o in _ends(lo, hi, w)
        for k in range(w.size)
        if (o + w.padding - w.dilation * k) % w.stride == 0
    ]
    return (min(touching), max(touching)) if touching else None


def _ends(lo: int, hi: int, w: Window) -> list[int]:
    """The outputs that decide the hull: one period of the stride at each end is enough."""
    if hi - lo < 2 * w.stride:
        return list(range(lo, hi + 1))
    return [*range(lo, lo + w.stride), *range(hi - w.stride + 1, hi + 1)]
