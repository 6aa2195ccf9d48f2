"""Pictures brought to the channels that a network takes; the oracle is Pillow."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageOps

from convscope.data.images import Picture, photograph, to_channels
from convscope.errors import InputError

RNG = np.random.default_rng(0)
RGB = RNG.integers(0, 256, (12, 17, 3), dtype=np.uint8)
RGBA = RNG.integers(0, 256, (12, 17, 4), dtype=np.uint8)
GREY = RNG.integers(0, 256, (12, 17), dtype=np.uint8)


def test_compositing_is_the_one_of_pillow():
    picture = Picture(RGBA.astype(np.float32) / 255, "RGBA", "a")
    back = Image.new("RGBA", (17, 12), (51, 102, 255))
    expected = np.asarray(Image.alpha_composite(back, Image.fromarray(RGBA)))[..., :3]
    got = to_channels(picture, 3, background=(0.2, 0.4, 1.0))
    assert np.abs(got.pixels * 255 - expected).max() <= 1
    assert got.notes == ("transparency was composited on rgb(0.2, 0.4, 1)",)


@pytest.mark.parametrize("channels", [1, 3])
def test_colours_hidden_by_full_transparency_do_not_show(channels):
    hidden = np.concatenate([RGB / np.float32(255), np.zeros((12, 17, 1), np.float32)], axis=2)
    got = to_channels(Picture(hidden, "RGBA", "a"), channels)
    np.testing.assert_allclose(got.pixels, 1, atol=1e-6)
    assert got.notes[0] == "transparency was composited on white"


def test_luma_is_the_one_of_pillow():
    expected = np.asarray(ImageOps.grayscale(Image.fromarray(RGB)))
    got = to_channels(Picture(RGB / np.float32(255), "RGB", "a"), 1)
    assert np.abs(got.pixels[..., 0] * 255 - expected).max() <= 1


def test_grey_is_repeated_and_said():
    got = to_channels(Picture(GREY[..., None] / np.float32(255), "L", "a", ("before",)), 3)
    np.testing.assert_array_equal(got.pixels, np.stack([GREY / np.float32(255)] * 3, axis=2))
    assert got.notes == ("before", "the grey channel was repeated three times")


@given(have=st.integers(1, 4), want=st.integers(1, 4), data=st.data())
def test_channels_are_as_asked_within_0_1_and_said(have, want, data):
    level = data.draw(st.floats(0, 1, width=32))
    picture = Picture(np.full((2, 3, have), level, dtype=np.float32), "?", "a")
    background = data.draw(st.sampled_from([(1.0, 1.0, 1.0), (0.0, 0.5, 1.0)]))
    got = to_channels(picture, want, background=background)
    assert got.shape == (2, 3, want)
    assert got.pixels.dtype == np.float32
    assert got.pixels.min() >= 0
    assert got.pixels.max() <= 1
    assert bool(got.notes) == (have != want)


def test_other_channel_counts_are_refused():
    with pytest.raises(InputError, match="7 channels were asked for; use 1, 2, 3 or 4"):
        to_channels(photograph(), 7)
