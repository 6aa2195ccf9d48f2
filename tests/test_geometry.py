"""Window arithmetic against its definition in loops, and against PyTorch."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given
from hypothesis import strategies as st

from convscope.errors import InputError
from convscope.geometry import Window, formula, out_size, reads, transposed_out_size, transposed_reads

sizes = st.integers(1, 40)
windows = st.builds(
    Window,
    st.integers(1, 7),
    stride=st.integers(1, 5),
    padding=st.integers(0, 6),
    dilation=st.integers(1, 4),
)
pool_windows = windows.filter(lambda w: w.padding <= w.size // 2)  # PyTorch's limit


def positions(n: int, w: Window) -> list[int]:
    """Where the window can stand: its first element, for every stand inside the padded axis."""
    return [start for start in range(-w.padding, n + w.padding, w.stride) if start + w.span <= n + w.padding]


def ceil_positions(n: int, w: Window) -> list[int]:
    """With ceil: one stand more if elements are left over, unless it would begin in the right padding."""
    stands = positions(n, w)
    further = stands[-1] + w.stride if stands else -w.padding
    left_over = further - w.stride + w.span < n + w.padding if stands else n + 2 * w.padding > w.span - w.stride
    return [*stands, further] if left_over and further < n else stands


def taps(i: int, w: Window) -> list[int]:
    return [i * w.stride - w.padding + w.dilation * k for k in range(w.size)]


def meta(*shape: int) -> torch.Tensor:
    return torch.empty(shape, device="meta")


@given(n=sizes, w=windows)
def test_out_size_counts_the_positions(n, w):
    if positions(n, w):
        assert out_size(n, w) == len(positions(n, w))
    else:
        with pytest.raises(InputError, match=f"the window spans {w.span} elements but the padded axis has"):
            out_size(n, w)


@given(w=windows.filter(lambda w: w.span > 1), data=st.data())
def test_the_padding_that_the_error_names_is_the_least_that_fits(w, data):
    n = data.draw(st.integers(1, w.span - 1))
    with pytest.raises(InputError) as error:
        out_size(n, replace(w, padding=0))
    need = int(str(error.value).split("padding >= ")[1].split()[0])
    assert positions(n, replace(w, padding=need))
    assert not positions(n, replace(w, padding=need - 1))


@given(n=sizes, w=pool_windows)
def test_out_size_with_ceil_counts_the_hanging_window(n, w):
    if ceil_positions(n, w):
        assert out_size(n, w, ceil=True) == len(ceil_positions(n, w))
    else:
        with pytest.raises(InputError):
            out_size(n, w, ceil=True)


@given(n=sizes, w=windows)
def test_out_size_is_that_of_conv1d(n, w):
    assume(positions(n, w))
    y = F.conv1d(meta(1, 1, n), meta(1, 1, w.size), None, w.stride, w.padding, w.dilation)
    assert out_size(n, w) == y.shape[-1]


@given(n=sizes, w=pool_windows, ceil=st.booleans())
def test_out_size_is_that_of_max_pool(n, w, ceil):
    def pool() -> int:
        square = (meta(1, 1, n, n), w.size, w.stride, w.padding, w.dilation)
        return F.max_pool2d(*square, ceil_mode=ceil).shape[-1]

    try:
        expected = out_size(n, w, ceil=ceil)
    except InputError:
        with pytest.raises(RuntimeError, match="Output size is too small"):
            pool()
    else:
        assert pool() == expected


@given(n=sizes, w=windows, data=st.data())
def test_reads_is_the_hull_of_the_taps(n, w, data):
    assume(positions(n, w))
    lo = data.draw(st.integers(0, out_size(n, w) - 1))
    hi = data.draw(st.integers(lo, out_size(n, w) - 1))
    read = [t for i in range(lo, hi + 1) for t in taps(i, w)]
    assert reads(lo, hi, w) == (min(read), max(read))


@given(n=sizes, w=windows, output_padding=st.integers(0, 4))
def test_transposed_out_size_is_that_of_conv_transpose1d(n, w, output_padding):
    assume(output_padding < max(w.stride, w.dilation))
    extra = {"stride": w.stride, "padding": w.padding, "output_padding": output_padding, "dilation": w.dilation}
    try:
        expected = transposed_out_size(n, w, output_padding=output_padding)
    except InputError:
        with pytest.raises(RuntimeError):
            F.conv_transpose1d(torch.ones(1, 1, n), torch.ones(1, 1, w.size), **extra)
    else:
        assert F.conv_transpose1d(meta(1, 1, n), meta(1, 1, w.size), **extra).shape[-1] == expected


@given(n=sizes, w=windows)
def test_the_transposed_undoes_the_size(n, w):
    """Some output padding below the stride leads back to the axis that the window came from."""
    assume(positions(n, w))
    small = out_size(n, w)
    lost = (n + 2 * w.padding - w.span) % w.stride
    assert transposed_out_size(small, w, output_padding=lost) == n


@given(w=windows, lo=st.integers(-20, 40), length=st.integers(0, 30))
def test_transposed_reads_is_the_hull_of_what_touches(w, lo, length):
    hi = lo + length
    touching = [j for j in range(-80, 120) if any(lo <= o <= hi for o in taps(j, w))]
    assert transposed_reads(lo, hi, w) == ((min(touching), max(touching)) if touching else None)


@given(w=windows, i=st.integers(0, 20), j=st.integers(0, 20))
def test_reading_and_touching_are_the_same_edge(w, i, j):
    """Output i reads input j inside the hull of the convolution if transposed output j is touched by input i."""
    if j in taps(i, w):
        lo, hi = reads(i, i, w)
        back = transposed_reads(j, j, w)
        assert lo <= j <= hi
        assert back is not None
        assert back[0] <= i <= back[1]


@given(n=sizes, w=windows)
def test_the_formula_ends_with_the_size(n, w):
    assume(positions(n, w))
    text = formula(n, w)
    assert text.endswith(f" {out_size(n, w)}")
    left = text.split(" = ")[0].split(" -> ")[0]
    assert int(eval(left)) == out_size(n, w)
    assert ("rounded down" in text) == (eval(left) != out_size(n, w))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Window(0), "Window: size is 0; use 1 or more"),
        (lambda: Window(3, stride=0), "Window: stride is 0; use 1 or more"),
        (lambda: Window(3, padding=-1), "Window: padding is -1; use 0 or more"),
        (lambda: Window(3, dilation=0), "Window: dilation is 0; use 1 or more"),
        (
            lambda: out_size(5, Window(7)),
            "out_size: the window spans 7 elements but the padded axis has 5; "
            "use padding >= 1 or a smaller kernel or dilation",
        ),
        (
            lambda: transposed_out_size(4, Window(3, stride=2), output_padding=2),
            r"transposed_out_size: output_padding is 2; use 0 to 1 \(below the larger of stride and dilation\)",
        ),
        (
            lambda: transposed_out_size(1, Window(3, padding=2)),
            "transposed_out_size: padding 2 leaves -1 elements; use less padding",
        ),
    ],
)
def test_what_cannot_be_is_refused_with_the_way_out(make, words):
    with pytest.raises(InputError, match=words):
        make()
