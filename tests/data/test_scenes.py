"""Digit scenes: the recipe, exact boxes and masks, and the same scene whenever it is asked for."""

import numpy as np
import pytest
import torch
from torch import Tensor

from convscope.data import load, scenes
from convscope.data.scenes import NUM_SCENES, SIZE, scene
from convscope.errors import DataError

SOME = range(25)


@pytest.mark.parametrize("part", NUM_SCENES)
def test_a_scene_is_what_the_recipe_says(part: str) -> None:
    for sample in (scene(part, i) for i in SOME):
        assert sample.image.shape == (3, SIZE, SIZE)
        assert sample.image.dtype == torch.uint8
        assert 3 <= len(sample.boxes) == len(sample.labels) <= 6
        widths, heights = (sample.boxes[:, 2:] - sample.boxes[:, :2]).unbind(1)
        assert max(widths.max(), heights.max()) <= 44
        assert heights.min() >= 8
        assert 0 <= sample.labels.min() <= sample.labels.max() <= 9


@pytest.mark.parametrize("part", NUM_SCENES)
def test_boxes_are_tight_around_the_pixels_of_the_mask(part: str) -> None:
    """Digits lie apart, so that the mask within a box is one digit's, and touches all four sides."""
    for sample in (scene(part, i) for i in SOME):
        mask, left = sample.mask.as_subclass(Tensor).clone(), 0
        for (x1, y1, x2, y2), label in zip(sample.boxes.int().tolist(), sample.labels.tolist(), strict=True):
            inside = mask[y1:y2, x1:x2]
            assert set(inside.unique().tolist()) <= {0, label + 1}
            assert all(bool(side.any()) for side in (inside[0], inside[-1], inside[:, 0], inside[:, -1]))
            inside.zero_()
        left = int(mask.count_nonzero())
        assert left == 0  # nothing visible lies outside the boxes


def test_a_digit_stands_out_from_what_is_around_it() -> None:
    luma = torch.tensor([0.299, 0.587, 0.114])[:, None, None]
    for sample in (scene("train", i) for i in SOME):
        grey, mask = (sample.image.float() / 255 * luma).sum(0), sample.mask.as_subclass(Tensor)
        for x1, y1, x2, y2 in sample.boxes.int().tolist():
            seen, there = grey[y1:y2, x1:x2], mask[y1:y2, x1:x2] > 0
            if there.all() or not there.any():
                continue
            assert abs(float(seen[there].mean() - seen[~there].mean())) > 0.05


def test_scenes_are_functions_of_seed_part_and_index() -> None:
    one, again = scene("test", 3), scene("test", 3)
    assert torch.equal(one.image, again.image)
    assert torch.equal(one.boxes, again.boxes)
    others = [scene("test", 4), scene("train", 3), scene("test", 3, seed=1)]
    assert all(not torch.equal(one.image, other.image) for other in others)


def test_test_scenes_come_from_the_other_halves_of_the_photographs() -> None:
    """Oracle: the crop is found again in the half that it is said to come from, and not in the other."""
    from skimage import data as photographs
    from skimage.feature import match_template

    brick = photographs.brick().astype(float)
    half = brick.shape[1] // 2
    for part, right in (("train", False), ("test", True)):
        found = []
        for sample in (scene(part, i) for i in range(40)):
            free = np.where(sample.mask.as_subclass(Tensor).numpy() > 0, np.nan, sample.image[0].numpy().astype(float))
            corner = free[:40, :40]
            if np.isnan(corner).any():
                continue
            place = [match_template(side, corner).max() for side in (brick[:, :half], brick[:, half:])]
            if max(place) > 0.95:
                found.append(place[1] > place[0])
        assert found
        assert set(found) == {right}


def test_the_sets_of_both_tasks_share_their_scenes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(NUM_SCENES, "train", 4)
    monkeypatch.setitem(NUM_SCENES, "val", 2)
    monkeypatch.setitem(NUM_SCENES, "test", 3)
    detect, segment = scenes("detect", seed=5), scenes("segment", seed=5)
    assert (len(detect.train), len(detect.val), len(detect.test)) == (4, 2, 3)
    assert len(detect.train.classes) == 10
    assert segment.train.classes == ("background", *detect.train.classes)
    x, boxes = detect.train.batch(torch.arange(4))
    y, masks = segment.train.batch(torch.arange(4))
    assert torch.equal(x, y)
    assert boxes.picture.tolist() == sorted(boxes.picture.tolist())
    assert masks.shape == (4, SIZE, SIZE)


def test_what_scenes_cannot_be_is_refused() -> None:
    with pytest.raises(DataError, match=r"scenes: are 3x128x128, not 3x64x64; leave image_size at 128"):
        load("scenes", shape=(3, 64, 64), task="detect")
    with pytest.raises(DataError, match="data 'digits': is neither a folder nor an embedded data set; known: scenes"):
        load("digits", shape=(3, 64, 64), task="segment")
    with pytest.raises(
        DataError, match=r"are to detect or to segment, and to classify .their largest digit. beside that"
    ):
        scenes("classify")
