"""What a person asks for, and the command line of small convolutions."""

import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest

from convscope.data.named import open_picture
from convscope.errors import InputError
from convscope.steps import Case, Wish

DOCS = Path(__file__).parents[2] / "docs"


def test_random_numbers_are_whole_and_the_seed_decides():
    one, same, other = (Wish(input=(2, 4, 4), seed=s).case() for s in (7, 7, 8))
    np.testing.assert_array_equal(one.x, same.x)
    np.testing.assert_array_equal(one.w, same.w)
    assert not np.array_equal(one.x, other.x)
    for values, limit in ((one.x, 3), (one.w, 2)):
        assert np.array_equal(values, np.rint(values))
        assert np.abs(values).max() <= limit


def test_a_kernel_by_name_serves_every_pair_of_channels():
    case = Wish(input=(2, 4, 4), kernel="sobel-x", out_channels=3).case()
    assert case.w.shape == (3, 2, 3, 3)
    assert (case.w == [[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]]).all()


def test_values_by_hand_and_their_channels():
    case = Wish(values="1 2 3; 4 5 6 | 0 0 1; 0 1 0", kernel="1 1; 1 1").case()
    assert case.x.tolist() == [[[1, 2, 3], [4, 5, 6]], [[0, 0, 1], [0, 1, 0]]]
    assert case.torch_output().tolist() == [[[13, 18]]]


def test_one_axis_three_axes_and_a_bias_by_hand():
    line = Wish(ndim=1, values="1 2 3 | 0 0 1", kernel="1 -1", bias="10").case()
    assert line.x.tolist() == [[1, 2, 3], [0, 0, 1]]
    assert line.torch_output().tolist() == [[9, 8]]
    volume = Wish(ndim=3, values="1 2; 3 4;; 5 6; 7 8", kernel="1 0;; 0 1", out_channels=2, bias="0 -1").case()
    assert volume.x.tolist() == [[[[1, 2], [3, 4]], [[5, 6], [7, 8]]]]
    assert volume.torch_output().tolist() == [[[[7], [11]]], [[[6], [10]]]]
    assert [Wish(ndim=n).case().x.shape for n in (1, 2, 3)] == [(1, 7), (1, 5, 5), (1, 3, 4, 4)]


def test_a_crop_holds_the_pixels_of_the_picture():
    picture = open_picture("flower")
    case = Wish(picture=picture, at=(10, 20), input=(4, 6)).case()
    expected = np.rint(picture.pixels[10:14, 20:26] * 255.0).transpose(2, 0, 1)
    np.testing.assert_array_equal(case.x, expected)
    assert Wish(picture=picture, input=(1, 8, 8)).case().x.shape == (1, 8, 8)


ones = np.ones((1, 5, 5))
BAD = {
    "kernel too large": (
        ["conv", "--input", "3x3", "--kernel", "6", "--padding", "1"],
        "the kernel of 6 is larger than the padded input 5: (3 - 6 + 2*1) / 1 + 1 is less than 1; use padding 2 or "
        "more, or a kernel of 5 or less"),
    "dilated kernel too large": (["conv", "--dilation", "3"], "with dilation 3 spans 7, which is larger than"),
    "no stride": (["conv", "--stride", "0"], "stride is 0; use 1 to 64"),
    "no dilation": (["conv", "--dilation", "0"], "dilation is 0; use 1 to 64"),
    "the formula is said": (["conv", "--stride", "0"], "(n - span + 2*padding) / stride + 1"),
    "groups that do not divide": (
        ["conv", "--input", "4x5x5", "--groups", "3"],
        "4 input and 3 output channels do not divide into 3 groups; use groups 1"),
    "no groups": (["conv", "--groups", "0", "--out-channels", "1"], "do not divide into 0 groups"),
    "output padding": (
        ["conv-transpose", "--stride", "2", "--output-padding", "2"],
        "output_padding is 2; use 0 to 1, less than stride 2 or dilation 1"),
    "nothing left": (["conv-transpose", "--input", "1x1", "--padding", "2"], "use padding 1 or less"),
    "kernel of no size": (["conv", "--kernel", "0"], "would be 0 values"),
    "huge": (["conv", "--input", "99999x99999"], "every number is shown"),
    "huge kernel": (["conv", "--kernel", "999999999"], "every number is shown"),
    "huge padding": (["conv", "--padding", "4000"], "padding is 4000; use 0 to 64"),
    "misspelt kernel": (["conv", "--kernel", "sobel"], "did you mean 'sobel-y'?"),
    "misspelt way": (["conv", "--way", "im2cool"], "did you mean 'im2col'?"),
    "winograd of 5x5": (["conv", "--kernel", "5", "--way", "winograd"], "has transforms for 3x3 alone"),
    "ragged values": (["conv", "--values", "1 2; 3"], "--values: row 2 has 1 value but row 1 has 2"),
    "unequal channels": (["conv", "--values", "1 2|3"], "the channels are 1x2 and 1x1"),
    "two inputs": (["conv", "--values", "1", "--picture", "flower"], "leave one away"),
    "a place without a picture": (["conv", "--at", "1,2"], "give --picture"),
    "a crop outside": (["conv", "--picture", "digits:0", "--at", "30,0"], "does not lie in digits:0 of 32x32"),
    "contradicting input": (["conv", "--values", "1 2", "--input", "5x5"], "leave --input away"),
    "one axis": (["conv", "--input", "5"], "--input is 5; give HxW or CxHxW (C channels), or"),
    "four axes": (["conv", "--ndim", "4"], "ndim is 4; use 1, 2 or 3"),
    "a kernel of other axes": (["conv", "--ndim", "1", "--kernel", "3x3"], "has 2 sizes; give one,"),
    "a kernel of rows along one axis": (["conv", "--ndim", "1", "--kernel", "sobel-x"], "has 3 rows, but"),
    "ragged slices": (["conv", "--ndim", "3", "--values", "1 2;; 3"], "--values: the slices are 1x2 and 1x1"),
    "a stride of other axes": (["conv", "--ndim", "3", "--stride", "2x1"], "use 1 to 64, or 3 of them with"),
    "a size that is none": (["conv", "--dilation", "x"], "--dilation: 'x' is not whole numbers"),
    "a picture has two axes": (["conv", "--ndim", "1", "--picture", "flower"], "a picture has rows and columns"),
    "too many biases": (["conv", "--bias", "1 2"], "the bias has 2 numbers but there are 1 output channels"),
    "a bias that is no number": (["conv", "--bias", "one"], "--bias: row 1, value 1: 'one' is not a number"),
    "output padding of a convolution": (["conv", "--output-padding", "1"], "belongs to a transposed convolution"),
    "unknown ending": (["conv", "--out", "conv.mp4"], "give another --out"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_sentence_and_exit_2(name, call, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words, expected = BAD[name]
    code, out, err = call("explain", *words)
    assert (code, out) == (2, "")
    assert expected in err
    assert len(err.strip().splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_numbers_that_are_none_and_shapes_that_do_not_fit():
    with pytest.raises(InputError, match="the input holds a value that is not finite"):
        Case(ones * np.nan, np.ones((1, 1, 3, 3)))
    with pytest.raises(InputError, match=r"the kernel has the shape \(3, 3\); give OxIxHxW"):
        Case(ones, np.ones((3, 3)))
    with pytest.raises(InputError, match="a kernel has 2 channels but each group of the input has 1"):
        Case(ones, np.ones((1, 2, 3, 3)))
    with pytest.raises(InputError, match=r"the kernel's shape 2x1x3x3 does not fit 1 input channels"):
        Case(ones, np.ones((2, 1, 3, 3)), transposed=True)
    with pytest.raises(InputError, match="output_padding belongs to a transposed convolution"):
        Case(ones, np.ones((1, 1, 3, 3)), output_padding=1, stride=2)


def test_explain_still_takes_a_model_first_and_by_its_name(call):
    words = ["LeNet5", "digits:0", "--layer", "C3", "--unit", "0,5,3,4", "--json"]
    code, out, _ = call("explain", *words)
    assert code == 0
    told = json.loads(out)
    assert json.loads(call("explain", "value", *words)[1])["layer"] == told["layer"] == "features.C3"


def test_json_is_the_way_with_its_storyboard(call):
    code, out, _ = call("explain", "conv", "--padding", "1", "--json")
    told = json.loads(out)
    assert (code, told["way"], told["case"]["output_shape"]) == (0, "window", [1, 5, 5])
    assert len(told["storyboard"]["frames"]) == 25
    assert [w["way"] for w in json.loads(call("explain", "conv-transpose", "--way", "all", "--json")[1])["ways"]] == [
        "scatter", "insert", "matrix"]  # fmt: skip


def documented() -> list[str]:
    page = (DOCS / "explain.md").read_text().replace("\\\n", " ")
    return re.findall(r"^\$ convscope (explain conv.*)$", page, re.MULTILINE)


@pytest.mark.parametrize("line", documented())
def test_a_documented_command_runs_and_the_page_s_picture_is_what_it_draws(line, call, tmp_path, monkeypatch):
    """`convscope explain conv ... --out conv.svg`, run in docs/, writes the page's picture anew."""
    monkeypatch.chdir(tmp_path)
    code, out, _ = call(*shlex.split(line, comments=True))
    assert code == 0
    assert "equal to F.conv" in out
    drawn = Path("conv.svg")
    if drawn.exists():
        assert drawn.read_text() == (DOCS / "conv.svg").read_text()


def test_the_page_has_its_picture():
    assert any("--out conv.svg" in line for line in documented())
