import base64
import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from convscope.errors import InputError, RunError
from convscope.explain import pictures
from convscope.explain.pictures import NOT_FINITE, Scale, colour, colour_table, data_uri, grid, save_png

maps = hnp.arrays(np.float32, hnp.array_shapes(min_dims=2, max_dims=2, max_side=6), elements=st.floats(width=32))


def luminance(colours: np.ndarray) -> np.ndarray:
    """Relative luminance, WCAG 2.2."""
    share = colours / 255
    linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
    return linear @ np.array([0.2126, 0.7152, 0.0722])


def count(image: Image.Image, rgb: tuple[int, int, int]) -> int:
    return int((np.asarray(image) == rgb).all(axis=2).sum())


# Colours


def test_luminance_rises_from_end_to_end_of_the_sequential_scale():
    assert (np.diff(luminance(colour_table("sequential"))) > 0).all()


def test_luminance_falls_from_zero_to_both_ends_of_the_diverging_scale():
    light = luminance(colour_table("diverging"))
    assert (np.diff(light[:129]) > 0).all()
    assert (np.diff(light[128:]) < 0).all()
    assert light[128] == pytest.approx(1)
    assert abs(light[0] - light[-1]) < 0.05


def test_negative_is_blue_and_positive_is_orange():
    colours = colour_table("diverging").astype(int)
    assert (colours[:128, 2] > colours[:128, 0]).all()
    assert (colours[129:, 0] > colours[129:, 2]).all()


@given(values=maps)
def test_the_laws_of_colour(values):
    painted = colour(values)
    assert painted.shape == (*values.shape, 3)
    assert painted.dtype == np.uint8
    magenta = (painted == NOT_FINITE).all(axis=2)
    np.testing.assert_array_equal(magenta, ~np.isfinite(values))
    finite = values[np.isfinite(values)]
    if (finite < 0).any():
        assert (painted[values == 0] == 255).all()
    else:
        ranked = luminance(painted[np.isfinite(values)])[np.argsort(finite)]
        assert (np.diff(ranked) >= 0).all()


@given(values=maps)
def test_turning_the_sign_mirrors_the_scale(values):
    table = [tuple(c) for c in colour_table("diverging").tolist()]
    scale = Scale(Scale.of(values).limit, signed=True)
    there, back = scale.paint(values)[np.isfinite(values)], scale.paint(-values)[np.isfinite(values)]
    for a, b in zip(there.tolist(), back.tolist(), strict=True):
        assert table.index(tuple(a)) + table.index(tuple(b)) == 256


def test_a_limit_clips_and_must_be_positive():
    assert colour(np.array([[-9.0, 9.0]]), limit=1).tolist() == [colour_table("diverging")[[0, -1]].tolist()]
    for limit in (0, -1, float("nan"), float("inf")):
        with pytest.raises(InputError, match="use a positive finite number"):
            colour(np.zeros((1, 1)), limit=limit)


# Pages


def words_of(monkeypatch, *args, **options) -> list[str]:
    """The texts that a page is drawn with."""
    seen: list[str] = []
    text = pictures.ImageDraw.ImageDraw.text

    def spy(self, xy, words, *rest, **kw):
        seen.append(words)
        return text(self, xy, words, *rest, **kw)

    monkeypatch.setattr(pictures.ImageDraw.ImageDraw, "text", spy)
    grid(*args, **options)
    return seen


def test_each_value_is_zoomed_to_whole_pixels():
    values = np.array([[[-1.0, 0.25], [np.nan, 1.0]]])
    page = np.asarray(grid(values, scale=7))
    corner = pictures._MARGIN + 1, pictures._MARGIN + 34 + 14 + 1
    tile = page[corner[1] : corner[1] + 14, corner[0] : corner[0] + 14]
    np.testing.assert_array_equal(tile, colour(values[0]).repeat(7, axis=0).repeat(7, axis=1))


def test_the_page_says_title_shape_numbers_and_damage(monkeypatch):
    maps = np.zeros((2, 4, 4))
    maps[0, 0, 0], maps[1, 1, 1], maps[1, 2, 2], maps[1, 3, 3] = -2.5, 1, np.nan, -np.inf
    words = words_of(monkeypatch, maps, title="C1\nconv", scale=3)
    assert words[:4] == ["C1 conv", "2x4x4", "0", "1"]
    assert words[4:7] == ["−2.5", "0", "2.5"]
    assert words[7] == "2 maps · one value is 3x3 px · one scale"
    assert words[8:] == ["2 of 32 values are NaN or infinite (magenta)"]


def test_at_most_64_maps_are_drawn_and_the_scale_is_of_all(monkeypatch):
    maps = np.ones((512, 2, 2))
    maps[400] = 8
    words = words_of(monkeypatch, maps)
    assert "63" in words
    assert "64" not in words
    assert "8" in words[-2:]  # the end of the bar
    assert words[-1].startswith("64 of 512 maps")


def test_a_layer_has_one_scale_or_each_map_its_own():
    maps = np.stack([np.full((3, 3), 1.0), np.full((3, 3), 4.0)])
    top = tuple(colour_table("sequential")[-1].tolist())
    assert count(grid(maps, scale=10, shared=False), top) - count(grid(maps, scale=10), top) == 30 * 30


def test_large_maps_are_block_means_and_nan_stays_visible(monkeypatch):
    maps = np.random.default_rng(0).random((128, 210, 333))
    maps[0, 100, 100] = np.nan
    image = grid(maps)
    assert image.width <= 1200
    assert count(image, NOT_FINITE) == 1
    assert "one dot is the mean of 3x3 values" in words_of(monkeypatch, maps)[-2]


@given(values=hnp.arrays(np.float64, hnp.array_shapes(min_dims=2, max_dims=2, max_side=9)), size=st.integers(2, 4))
def test_block_means_are_means_of_slices(values, size):
    values = np.arange(values.size, dtype=float).reshape(values.shape)
    height, width = (n // size * size for n in values.shape)
    got = pictures.block_means(values, size)
    assert got.shape == tuple(-(-n // size) for n in values.shape)
    for i in range(0, height, size):
        for j in range(0, width, size):
            assert got[i // size, j // size] == pytest.approx(values[i : i + size, j : j + size].mean())


@given(shape=st.tuples(st.integers(1, 70), st.integers(1, 9), st.integers(1, 9)), columns=st.integers(1, 80))
def test_every_shape_has_a_page_with_all_its_tiles(shape, columns):
    page = grid(np.full(shape, np.nan), columns=columns, scale=1)
    assert count(page, NOT_FINITE) == min(shape[0], 64) * shape[1] * shape[2]


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.float16, bool])
def test_other_number_types(dtype):
    assert grid(np.ones((2, 3, 3), dtype=dtype)).mode == "RGB"


def test_what_cannot_be_drawn_is_refused():
    with pytest.raises(InputError, match=r"maps have the shape \(3, 3\); give CxHxW"):
        grid(np.zeros((3, 3)))
    with pytest.raises(InputError, match="no empty axis"):
        grid(np.zeros((0, 3, 3)))
    with pytest.raises(InputError, match="columns is 0; use 1 or more"):
        grid(np.zeros((1, 3, 3)), columns=0)
    with pytest.raises(InputError, match="scale is -1; use 1 or more"):
        grid(np.zeros((1, 3, 3)), scale=-1)


def test_files_and_addresses_hold_the_same_picture(tmp_path: Path):
    image = grid(np.arange(9.0).reshape(1, 3, 3))
    with Image.open(save_png(image, tmp_path / "a.png")) as read:
        np.testing.assert_array_equal(np.asarray(read), np.asarray(image))
    head, _, body = data_uri(image).partition(",")
    assert head == "data:image/png;base64"
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(base64.b64decode(body)))), np.asarray(image))
    with pytest.raises(RunError, match="could not be written"):
        save_png(image, tmp_path / "none" / "a.png")
