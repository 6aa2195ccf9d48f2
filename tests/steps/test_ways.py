"""Every way to compute a convolution, held to PyTorch; the transforms of Winograd to exact fractions."""

import cmath
import json
from fractions import Fraction
from itertools import product

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from convscope.errors import InputError
from convscope.steps import WAYS, Case, compare, compute, frames, ways_of
from convscope.steps.way import TITLES
from convscope.steps.winograd import A_T, B_T, G
from convscope.table import to_json


def whole(draw, *shape):
    values = draw(st.lists(st.integers(-4, 4), min_size=int(np.prod(shape)), max_size=int(np.prod(shape))))
    return np.array(values, dtype=float).reshape(shape)


taps = st.integers(1, 3)


@st.composite
def cases(draw, *, transposed=False, kernel=taps):
    groups, each, outputs = draw(st.integers(1, 2)), draw(st.integers(1, 2)), draw(st.integers(1, 2))
    ndim, channels = draw(st.integers(1, 3)), groups * each

    def axes(least, most):
        return tuple(draw(st.integers(least, most)) for _ in range(ndim))

    x = whole(draw, channels, *axes(1, 5 if ndim < 3 else 4))
    size = tuple(draw(kernel) for _ in range(ndim))
    w = whole(draw, *((channels, outputs) if transposed else (groups * outputs, each)), *size)
    b = whole(draw, groups * outputs) if draw(st.booleans()) else None
    stride, dilation, padding = axes(1, 3), axes(1, 2), axes(0, 2)
    extra = tuple(draw(st.integers(0, s - 1)) for s in stride) if transposed else 0
    at = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    try:
        case = Case(x, w, b=b, transposed=transposed, output_padding=extra, **at)
    except InputError as error:
        assume("larger than the padded" not in str(error) and "leaves nothing" not in str(error))
        raise
    assume(np.prod(case.out_shape) <= 400)  # more steps are not shown
    return case


def by_torch(case: Case) -> np.ndarray:
    """PyTorch's answer, asked for here and not by the code under test."""
    x, w = torch.tensor(case.x)[None], torch.tensor(case.w)
    b = None if case.b is None else torch.tensor(case.b)
    plain, transposed = {
        1: (F.conv1d, F.conv_transpose1d),
        2: (F.conv2d, F.conv_transpose2d),
        3: (F.conv3d, F.conv_transpose3d),
    }[case.x.ndim - 1]
    at = {"stride": case.stride, "padding": case.padding, "dilation": case.dilation, "groups": case.groups}
    if case.transposed:
        return transposed(x, w, b, output_padding=case.output_padding, **at)[0].numpy()
    return plain(x, w, b, **at)[0].numpy()


# All ways


@given(case=cases(), way=st.sampled_from(["window", "im2col", "matrix", "fft"]))
def test_every_way_is_the_convolution(case, way):
    done = compute(case, way)
    assert done.output.shape == case.out_shape
    np.testing.assert_allclose(done.output, by_torch(case), rtol=0, atol=1e-10 if way == "fft" else 0)
    assert done.difference <= 1e-10


@given(case=cases(kernel=st.just(3)))
def test_winograd_is_the_convolution_where_it_serves_and_says_why_where_it_does_not(case):
    if {*case.stride, *case.dilation} == {1}:
        np.testing.assert_array_equal(compute(case, "winograd").output, by_torch(case))
    else:
        with pytest.raises(InputError, match=r"winograd: the (stride|dilation) is .* or another --way"):
            compute(case, "winograd")


@given(case=cases(transposed=True), way=st.sampled_from(["scatter", "insert", "matrix"]))
def test_every_way_is_the_transposed_convolution(case, way):
    done = compute(case, way)
    assert done.output.shape == case.out_shape
    np.testing.assert_array_equal(done.output, by_torch(case))


def test_output_padding_may_reach_the_stride_where_the_dilation_is_larger():
    case = Case(np.ones((1, 3, 3)), np.ones((1, 1, 2, 2)), dilation=3, output_padding=2, transposed=True)
    for way in ways_of(case):
        np.testing.assert_array_equal(compute(case, way).output, by_torch(case))


def test_every_way_has_its_title():
    assert set(WAYS) == set(TITLES)


def test_an_unknown_or_unfitting_way_is_refused():
    case = Case(np.ones((1, 3, 3)), np.ones((1, 1, 2, 2)))
    with pytest.raises(InputError, match="did you mean 'winograd'"):
        compute(case, "winnograd")
    with pytest.raises(InputError, match="'scatter' is no way of a convolution; use window, im2col"):
        compute(case, "scatter")


# The facts of the textbook


def test_padding_one_keeps_five_by_five():
    case = Case(np.ones((1, 5, 5)), np.ones((1, 1, 3, 3)), padding=1)
    assert case.formulas == ("(5 - 3 + 2*1) / 1 + 1 = 5",)
    assert compute(case, "window").output.shape == (1, 5, 5)


def test_two_by_two_becomes_four_by_four_under_a_full_border_of_zeros():
    case = Case(np.arange(1.0, 5).reshape(1, 2, 2), np.ones((1, 1, 3, 3)), transposed=True)
    board = frames(case, view="insert")
    assert board.field.shape == (1, 6, 6)
    assert board.field.sum() == board.field[:, 2:4, 2:4].sum() == 10
    assert board.output.shape == (1, 4, 4)


def test_the_transposed_matrix_restores_the_size_and_not_the_values():
    rng = np.random.default_rng(0)
    case = Case(rng.integers(-3, 4, (2, 6, 5)), rng.integers(-3, 4, (3, 2, 3, 2)), stride=2, padding=1)
    stages = {s.name: s.values for s in compute(case, "matrix").stages}
    y = torch.tensor(by_torch(case))[None]
    extra = tuple((n + 2 - k) % 2 for n, k in ((6, 3), (5, 2)))
    back = F.conv_transpose2d(y, torch.tensor(case.w), stride=2, padding=1, output_padding=extra)
    np.testing.assert_array_equal(stages["A^T (A x)"], back[0])
    assert not np.array_equal(stages["A^T (A x)"], case.x)


# Winograd


def exact(matrix):
    return [[Fraction(v) for v in row] for row in np.asarray(matrix).tolist()]


def times(a, b):
    return [[sum((p * q for p, q in zip(row, column, strict=True)), Fraction()) for column in zip(*b, strict=True)]
            for row in a]  # fmt: skip


@given(d=st.lists(st.fractions(), min_size=16, max_size=16), g=st.lists(st.fractions(), min_size=9, max_size=9))
def test_the_transforms_give_the_convolution_in_exact_fractions(d, g):
    d, g = [d[4 * i : 4 * i + 4] for i in range(4)], [g[3 * i : 3 * i + 3] for i in range(3)]
    b_t, a_t, big_g = exact(B_T), exact(A_T), exact(G)
    u = times(times(big_g, g), exact(G.T))
    v = times(times(b_t, d), exact(B_T.T))
    m = [[p * q for p, q in zip(*rows, strict=True)] for rows in zip(u, v, strict=True)]
    y = times(times(a_t, m), exact(A_T.T))
    for i, j in product(range(2), repeat=2):
        assert y[i][j] == sum(d[i + r][j + c] * g[r][c] for r, c in product(range(3), repeat=2))


@pytest.mark.parametrize(("ndim", "few", "many"), [(1, 4, 6), (2, 16, 36), (3, 64, 216)])
def test_winograd_saves_a_third_along_each_axis(ndim, few, many):
    case = Case(np.ones((1, *[4] * ndim)), np.ones((1, 1, *[3] * ndim)))
    counts = {w.name: w.multiplications for w in compare(case).ways}
    assert (counts["winograd"], counts["window"], case.macs) == (few, many, many)


def test_winograd_has_16_multiplications_where_the_definition_has_36():
    wide = Case(np.ones((3, 8, 6)), np.ones((5, 3, 3, 3)))
    assert compute(wide, "winograd").multiplications * 36 == compute(wide, "im2col").multiplications * 16


# Spectra, and what is left out


def test_the_spectrum_is_the_transform_by_its_definition():
    x = np.arange(12.0).reshape(1, 3, 4) ** 2
    spectrum = next(s for s in compute(Case(x, np.ones((1, 1, 2, 2))), "fft").stages if s.name == "X").values[0]
    for u, v in np.ndindex(*spectrum.shape):
        terms = [x[0, i, j] * cmath.exp(-2j * cmath.pi * (u * i / 3 + v * j / 4)) for i, j in np.ndindex(3, 4)]
        assert spectrum[u, v] == pytest.approx(sum(terms), abs=1e-9)


def test_what_does_not_serve_is_left_out_with_its_reason():
    told = compare(Case(np.ones((1, 5, 5)), np.ones((1, 1, 3, 3)), stride=2))
    assert [w.name for w in told.ways] == ["window", "im2col", "matrix", "fft"]
    assert told.left_out == (
        "winograd: the stride is 2x2, but a tile's 2x2 outputs share their sums only if they are neighbours; "
        "use stride 1 or another --way",
    )
    assert told.left_out[0] in str(told)


def test_a_matrix_that_would_be_huge_is_refused():
    with pytest.raises(InputError, match=r"the matrix of .* would have .* elements; at most 1,048,576"):
        compute(Case(np.ones((1, 40, 40)), np.ones((1, 1, 3, 3))), "matrix")


@settings(max_examples=5)
@given(case=cases())
def test_all_data_is_json_and_the_text_can_be_read(case):
    told = compare(case)
    data = json.loads(to_json(told.data()))
    assert [w["way"] for w in data["ways"]] == [w.name for w in told.ways]
    assert all(w["difference"] < 1e-10 for w in data["ways"])
    assert all(w.agreement in str(told) for w in told.ways)
    assert all(len(w.table().rows) == len(w.stages) for w in told.ways)


SMALL = """\
convolution 3x3, kernel 2x2, stride 2, padding 1: 2x2
size: (3 - 2 + 2*1) / 2 + 1 -> rounded down: 2

window: the kernel slides over the input
========================================

input: the kernel slides over it (. = padding)
.   .  .    .  .
.   1  2    3  .
.  −4  5  0.5  .
.   7  8    9  .
.   .  .    .  .

kernel: what each value is multiplied with
1  −1
0   2

one window, y[0, 1, 1]:

under the kernel   x kernel   = products
5  0.5             1  −1      5  −0.5
8    9             0   2      0    18

every window:

y[0, 0, 0] = 0 + 0 + 0 + 2 = 2
y[0, 0, 1] = 0 + 0 + 0 + 6 = 6
y[0, 1, 0] = 0 + 4 + 0 + 14 = 18
y[0, 1, 1] = 5 − 0.5 + 0 + 18 = 22.5

output: equal to F.conv2d
 2     6
18  22.5

16 multiplications: outputs x kernel values, padding counted"""


def test_the_text_of_a_small_case():
    x, w = [[[1, 2, 3], [-4, 5, 0.5], [7, 8, 9]]], [[[[1, -1], [0, 2]]]]
    assert str(compute(Case(np.array(x), np.array(w), stride=2, padding=1), "window")) == SMALL


VOLUME = """\
3D convolution 2x2x2, kernel 2x1x2, bias: 1x2x1
size: (2 - 2 + 2*0) / 1 + 1 = 1 and (2 - 1 + 2*0) / 1 + 1 = 2

window: the kernel slides over the input
========================================

input: the kernel slides over it (. = padding)
slice 0   slice 1
1  2      5  6
3  4      7  8

kernel: what each value is multiplied with
slice 0   slice 1
1  0      −1  2

one window, y[0, 0, 0, 0]:

slice 0   x kernel   = products
1  2      1  0       1  0

slice 1   x kernel   = products
5  6      −1  2      −5  12

every window:

y[0, 0, 0, 0] = 1 + 0 − 5 + 12 + bias −1 = 7
y[0, 0, 1, 0] = 3 + 0 − 7 + 16 + bias −1 = 11

bias: added to every value of its output channel
−1

output: equal to F.conv3d
 7
11

8 multiplications: outputs x kernel values, padding counted"""


def test_the_text_of_a_volume():
    x, w = np.arange(1, 9).reshape(1, 2, 2, 2), np.array([[[[[1, 0]], [[-1, 2]]]]])
    assert str(compute(Case(x, w, b=np.array([-1])), "window")) == VOLUME


def test_a_stamp_along_one_axis_says_where_it_lands():
    text = str(compute(Case(np.array([[2.0, 3.0]]), np.array([[[1.0, -1.0]]]), stride=2, transposed=True), "scatter"))
    assert "x[0, 1] = 3 x kernel, added to y[0] at places 2 to 3" in text
