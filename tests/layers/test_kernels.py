import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from convscope.errors import InputError
from convscope.layers.kernels import KERNELS, find_kernel, named_kernel, parse_kernel

SUMS = {  # of the values: what a kernel does to a constant picture
    "identity": 1,
    "sobel-x": 0,
    "sobel-y": 0,
    "laplacian": 0,
    "sharpen": 1,
    "emboss": 1,
    "box-blur": 1,
    "gaussian": 1,
}


def test_every_kernel_answers_a_constant_picture_as_it_must():
    assert set(SUMS) == set(KERNELS)
    for name, total in SUMS.items():
        kernel = named_kernel(name)
        assert kernel.shape == (3, 3)
        assert kernel.dtype == torch.float32
        assert kernel.sum().item() == pytest.approx(total, abs=1e-6)


def test_sobel_is_a_column_times_a_row():
    smooth, slope = torch.tensor([1.0, 2, 1]), torch.tensor([-1.0, 0, 1])
    assert torch.equal(named_kernel("sobel-x"), torch.outer(smooth, slope))
    assert torch.equal(named_kernel("sobel-y"), torch.outer(slope, smooth))


def test_gaussian_is_the_binomial_outer_product():
    row = torch.tensor([1.0, 2, 1]) / 4
    assert torch.equal(named_kernel("gaussian"), torch.outer(row, row))


def test_sharpening_is_the_identity_less_the_laplacian():
    assert torch.equal(named_kernel("sharpen"), named_kernel("identity") - named_kernel("laplacian"))


number = st.floats(width=32, allow_nan=False, allow_infinity=False)


@given(data=st.data(), height=st.integers(1, 5), width=st.integers(1, 5))
def test_what_is_written_is_what_is_read(data, height, width):
    rows = data.draw(st.lists(st.lists(number, min_size=width, max_size=width), min_size=height, max_size=height))
    gap = data.draw(st.sampled_from([" ", ",", ", ", "  ", " ,\t"]))
    text = data.draw(st.sampled_from([";", "; ", " ;\n"])).join(gap.join(repr(v) for v in row) for row in rows)
    assert torch.equal(parse_kernel(text), torch.tensor(rows, dtype=torch.float32))


@given(top=st.integers(-99, 99), bottom=st.integers(1, 99))
def test_fractions_and_true_minus_signs(top, bottom):
    text = f"{top}/{bottom}"
    assert parse_kernel(text).item() == pytest.approx(top / bottom)
    assert torch.equal(parse_kernel(text.replace("-", "\N{MINUS SIGN}")), parse_kernel(text))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1 2; 3", "kernel: row 2 has 1 value but row 1 has 2; write as many in every row"),
        ("1 2; 3 4 5", "kernel: row 2 has 3 values but row 1 has 2"),
        ("1 2; 3 x", "kernel: row 2, value 2: 'x' is not a number; write numbers like 1, -0.5 or 1/9"),
        ("1,,2", "kernel: row 1, value 2: '' is not a number"),
        ("1/0", "kernel: row 1, value 1: '1/0' is not a number"),
        ("1/2/3", "kernel: row 1, value 1: '1/2/3' is not a number"),
        ("0 nan", "kernel: row 1, value 2: 'nan' is not a finite float32"),
        ("1e39", "kernel: row 1, value 1: '1e39' is not a finite float32"),
        ("1 2;", "kernel: row 2 is empty; write its values, or take away the ';'"),
        ("", "kernel: row 1 is empty"),
    ],
)
def test_a_kernel_that_cannot_be_read_says_where(text, message):
    with pytest.raises(InputError) as caught:
        parse_kernel(text)
    assert str(caught.value).startswith(message)


def test_names_and_rows_are_told_apart():
    assert torch.equal(find_kernel(" emboss "), named_kernel("emboss"))
    assert find_kernel("1").tolist() == [[1]]
    with pytest.raises(InputError, match="kernel: none is called 'gausian'; did you mean 'gaussian'"):
        find_kernel("gausian")
    with pytest.raises(InputError, match="row 1, value 1: 'sobel3' is not a number"):
        find_kernel("sobel3")
    with pytest.raises(InputError, match="row 1 is empty"):
        find_kernel("  ")
