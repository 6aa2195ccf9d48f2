"""The storyboard: each output once, each frame's sum its value, each stamp what PyTorch has at that moment."""

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given
from hypothesis import strategies as st

from convscope.errors import InputError
from convscope.steps import Case, frames
from convscope.table import to_json

small = st.integers(1, 2)


@st.composite
def settings_of(draw):
    """Numbers and settings of a convolution whose kernel always fits."""
    groups, each, outputs, size = draw(small), draw(small), draw(small), draw(st.integers(1, 3))
    rng, ndim = np.random.default_rng(draw(st.integers(0, 99))), draw(st.integers(1, 3))
    dilation = draw(small) if ndim < 3 else 1
    axes = [dilation * (size - 1) + draw(st.integers(1, 3 if ndim < 3 else 2)) for _ in range(ndim)]
    settings = {"stride": draw(st.integers(1, 3)), "padding": draw(st.integers(0, size // 2)), "dilation": dilation,
                "groups": groups}  # fmt: skip
    return rng, (groups, each, outputs, [size] * ndim, axes), settings


def convolution(found) -> Case:
    rng, (groups, each, outputs, size, axes), settings = found
    x, b = rng.integers(-4, 5, (groups * each, *axes)), rng.integers(-4, 5, groups * outputs)
    return Case(x, rng.integers(-4, 5, (groups * outputs, each, *size)), b=b, **settings)


def transposed(found) -> Case:
    rng, (groups, each, outputs, size, axes), settings = found
    extra = settings["stride"] - 1
    x, b = rng.integers(-4, 5, (groups * each, *(min(n, 2) for n in axes))), rng.integers(-4, 5, groups * outputs)
    w = rng.integers(-4, 5, (groups * each, outputs, *size))
    case = Case(x, w, b=b, output_padding=extra, transposed=True, **settings)
    assume(np.prod(case.out_shape) <= 400)  # more steps are not shown
    return case


@given(found=settings_of())
def test_windows_cover_each_output_once_and_their_products_add_up_to_it(found):
    case = convolution(found)
    board, y = frames(case), case.torch_output()
    assert [(f.output_channel, *f.place) for f in board.frames] == list(np.ndindex(*case.out_shape))
    assert [f.number for f in board.frames] == list(range(y.size))
    for frame in board.frames:
        assert frame.products.sum() + frame.bias == frame.sum == y[frame.output_channel, *frame.place]
        np.testing.assert_array_equal(frame.patch * frame.kernel, frame.products)
        so_far = np.full(y.shape, np.nan).reshape(-1)
        so_far[: frame.number + 1] = y.reshape(-1)[: frame.number + 1]
        np.testing.assert_array_equal(frame.output, so_far.reshape(y.shape))
    np.testing.assert_array_equal(board.output, y)


@given(found=settings_of())
def test_what_lies_under_the_kernel_is_what_unfold_finds(found):
    case = convolution(found)
    under = F.pad(torch.tensor(case.x), [p for p in reversed(case.padding) for _ in range(2)])
    spans = [d * (k - 1) + 1 for d, k in zip(case.dilation, case.w.shape[2:], strict=True)]
    for axis, span in enumerate(spans):
        under = under.unfold(1 + axis, span, case.stride[axis])[..., :: case.dilation[axis]]
    for frame in frames(case).frames:
        np.testing.assert_array_equal(frame.patch, under[list(frame.channels), *frame.place])
        assert frame.box == (*(taps[0] for taps in frame.taps), *spans)


@given(found=settings_of())
def test_every_frame_of_inserted_zeros_is_a_value_of_the_transposed_convolution(found):
    case = transposed(found)
    board, y = frames(case, view="insert"), case.torch_output()
    assert [(f.output_channel, *f.place) for f in board.frames] == list(np.ndindex(*y.shape))
    for frame in board.frames:
        assert frame.products.sum() + frame.bias == frame.sum == y[frame.output_channel, *frame.place]
    assert board.field[:, ~board.real].sum() == 0
    np.testing.assert_array_equal(board.output, y)


@given(found=settings_of())
def test_every_stamp_leaves_what_pytorch_makes_of_the_values_so_far(found):
    case = transposed(found)
    board = frames(case, view="scatter")
    transposing = [F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d][case.x.ndim - 2]
    settings = {n: getattr(case, n) for n in ("stride", "padding", "output_padding", "dilation", "groups")}
    seen, channel = torch.zeros(1, *case.x.shape, dtype=torch.float64), 0
    for frame in board.frames:
        if frame.output_channel != channel:
            seen, channel = torch.zeros_like(seen), frame.output_channel
        at = (0, frame.channels[0], *frame.place)
        seen[at] = case.x[at[1:]]
        y = transposing(seen, torch.tensor(case.w), torch.tensor(case.b), **settings)[0, channel]
        np.testing.assert_array_equal(np.nan_to_num(frame.output[channel]), y)
    stamped = [(f.output_channel, f.channels[0], *f.place) for f in board.frames]
    assert len(set(stamped)) == len(stamped) == case.x.size * case.w.shape[1]
    np.testing.assert_array_equal(board.output, case.torch_output())


def test_a_border_that_is_cut_off_on_the_way_in():
    """Padding beyond the kernel's span cuts the input before the convolution."""
    case = Case(np.arange(25.0).reshape(1, 5, 5), np.ones((1, 1, 1, 1)), padding=1, transposed=True)
    np.testing.assert_array_equal(frames(case, view="insert").output, case.x[:, 1:4, 1:4])


def test_data_is_plain_and_what_is_not_written_is_null():
    board = frames(Case(np.ones((1, 3, 3)), np.ones((1, 1, 2, 2)), padding=1))
    data = json.loads(to_json(board.data()))
    assert len(data["frames"]) == 16
    assert data["real"][0] == [False] * 5
    first = data["frames"][0]
    assert (first["box"], first["sum"], first["taps"], first["place"]) == ([0, 0, 2, 2], 1, [[0, 1], [0, 1]], [0, 0])
    assert first["output"][0][0] == [1, None, None, None]
    assert None not in data["frames"][-1]["output"][0][3]


def test_too_many_frames_and_unfitting_views_are_refused():
    case = Case(np.ones((1, 30, 30)), np.ones((1, 1, 3, 3)))
    with pytest.raises(InputError, match="has 784 steps; at most 400 are shown, so use a smaller input"):
        frames(case)
    with pytest.raises(InputError, match="the view 'scatter' does not show this kind of convolution; use 'window'"):
        frames(case, view="scatter")
    with pytest.raises(InputError, match="there is no view 'windows'; did you mean 'window'"):
        frames(case, view="windows")  # pyright: ignore[reportArgumentType]
