"""Samples: boxes and masks in step through every crop, batches, and what is refused before the first step."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torchvision import tv_tensors

from convscope.data import Boxes, Normalisation, Sample, SampleSet
from convscope.data.augment import LIGHT, ZOOM, crop, draws, light
from convscope.data.samples import MIN_SEEN, cropped
from convscope.errors import DataError

SIZE = 48


def _sample(box: tuple[int, int, int, int], *, name: str = "") -> Sample:
    """One object of class 1 that fills its box."""
    x1, y1, x2, y2 = box
    mask = torch.zeros(SIZE, SIZE, dtype=torch.uint8)
    mask[y1:y2, x1:x2] = 1
    boxes = tv_tensors.BoundingBoxes(torch.tensor([box]).float(), format="XYXY", canvas_size=(SIZE, SIZE))
    return Sample(tv_tensors.Image(255 * mask.repeat(3, 1, 1)), boxes, torch.tensor([1]), tv_tensors.Mask(mask), name)


numbers = st.lists(st.floats(-1, 1, width=32), min_size=6, max_size=6)
starts, lengths = st.integers(0, SIZE - 12), st.integers(6, 30)


@st.composite
def samples(draw: st.DrawFn) -> Sample:
    x, y = draw(starts), draw(starts)
    return _sample((x, y, min(SIZE, x + draw(lengths)), min(SIZE, y + draw(lengths))))


@given(samples(), numbers, st.booleans())
def test_the_box_of_the_cropped_mask_is_the_cropped_box(sample: Sample, draw: list[float], flip: bool) -> None:
    seen = cropped(sample, draw, flip=flip)
    mask = seen.mask.as_subclass(Tensor)
    rows, columns = mask.any(1).nonzero().flatten(), mask.any(0).nonzero().flatten()
    if not len(seen.labels):  # too little of it was left
        whole = sample.boxes[0, 2:] - sample.boxes[0, :2]
        assert int(mask.sum()) <= (MIN_SEEN + 0.25) * ZOOM**2 * float(whole.prod())
        return
    if not len(rows):  # so small that no pixel of the enlarged mask fell into it
        assert float((seen.boxes[0, 2:] - seen.boxes[0, :2]).min()) <= ZOOM
        return
    tight = torch.stack([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]).float()
    assert (seen.boxes[0].as_subclass(Tensor) - tight).abs().max() <= 1.01
    picture = seen.image.float()[0] > 127
    assert (picture != (mask > 0)).float().mean() < 0.12


@given(samples(), st.booleans())
def test_no_zoom_and_no_shift_is_the_sample_itself(sample: Sample, flip: bool) -> None:
    seen = cropped(sample, [0.0, 0.0, 0.0, 0.0, 0.0, 0.0], flip=flip)
    assert torch.equal(seen.image, sample.image)
    assert torch.equal(seen.boxes, sample.boxes)
    assert torch.equal(seen.mask, sample.mask)


def test_a_mirrored_sample_is_mirrored_in_all_its_parts() -> None:
    seen = cropped(_sample((4, 10, 14, 30)), [0, 0, 0, 0, 0, 1], flip=True)
    assert seen.boxes.tolist() == [[34, 10, 44, 30]]
    assert torch.equal(seen.mask.as_subclass(Tensor), _sample((34, 10, 44, 30)).mask.as_subclass(Tensor))


def test_the_largest_zoom_enlarges_by_its_factor() -> None:
    boxes = _sample((14, 14, 34, 34)).boxes
    for direction in (-1.0, 1.0):
        seen = crop(boxes, [direction, 0, 0, 0, 0, 0])
        assert float(seen[0, 2] - seen[0, 0]) == pytest.approx(20 * ZOOM**direction, rel=0.03)


@given(numbers)
def test_light_is_contrast_about_the_mean_and_brightness(draw: list[float]) -> None:
    x = torch.rand(1, 3, 6, 6, generator=torch.Generator().manual_seed(0))
    wanted = ((x - x.mean()) * (1 + LIGHT * draw[3]) + x.mean() + LIGHT * draw[4]).clamp(0, 1)
    torch.testing.assert_close(light(x, torch.tensor([draw])), wanted, atol=1e-5, rtol=0)


@given(st.permutations(range(6)), st.integers(1, 5))
def test_a_sample_looks_the_same_in_any_batch(permutation: list[int], cut: int) -> None:
    data = SampleSet(tuple(_sample((4 + i, 8, 20 + i, 30)) for i in range(6)), ("a", "b"), "detect")
    numbers = draws(6, seed=0, epoch=1)
    together, boxes = data.batch(torch.arange(6), draws=numbers)
    some = torch.tensor(permutation[:cut])
    alone, own = data.batch(some, draws=numbers)
    assert torch.equal(alone, together[some])
    for at, index in enumerate(some.tolist()):
        assert torch.equal(own.of(at).boxes, boxes.of(index).boxes)


def test_a_batch_is_normalised_and_keeps_pictures_without_boxes() -> None:
    data = SampleSet((_empty(), _sample((0, 0, 8, 8))), ("a", "b"), "detect", Normalisation((0.5,), (0.5,)))
    x, boxes = data.batch(torch.tensor([0, 1]))
    assert (float(x.min()), float(x.max())) == (-1, 1)
    assert boxes.picture.tolist() == [1]
    assert data.class_counts().tolist() == [0, 1]
    masks = SampleSet((_sample((0, 0, 8, 8)),), ("a", "b"), "segment")
    assert masks.class_counts().tolist() == [SIZE**2 - 64, 64]


def _empty() -> Sample:
    whole = _sample((0, 0, 8, 8))
    none = tv_tensors.wrap(torch.zeros(0, 4), like=whole.boxes)
    return Sample(whole.image, none, torch.zeros(0, dtype=torch.int64), whole.mask)


def _with(box: list[float], label: int = 0) -> Sample:
    whole = _sample((0, 0, 8, 8))
    return Sample(
        whole.image, tv_tensors.wrap(torch.tensor([box]), like=whole.boxes), torch.tensor([label]), name="a.png"
    )


NAN = math.nan


@pytest.mark.parametrize(
    ("sample", "said"),
    [
        (_with([4, 4, 4, 9]), "a.png: box 0 (4, 4, 4, 9) has no width or height; "),
        (_with([9, 4, 4, 9]), "a.png: box 0 (9, 4, 4, 9) has no width or height; "),
        (_with([50, 4, 60, 9]), "a.png: box 0 (50, 4, 60, 9) lies outside the picture of 48x48; "),
        (_with([-9, 4, -1, 9]), "a.png: box 0 (-9, 4, -1, 9) lies outside the picture of 48x48; "),
        (_with([1, 4, NAN, 9]), "a.png: box 0 (1, 4, nan, 9) holds NaN or infinity; "),
        (_with([1, 4, 8, 9], 9), "a.png: box 0 has label 9, but there are 2 classes (0 to 1)"),
        (_with([1, 4, 8, 9], -1), "a.png: box 0 has label -1, but there are 2 classes (0 to 1)"),
        (Sample(_sample((0, 0, 8, 8)).image), "sample 0: has no boxes with one label each; "),
        (_empty(), "samples: not one of the 1 pictures has a box; there is nothing to learn from them"),
    ],
)
def test_wrong_boxes_are_named_before_the_first_step(sample: Sample, said: str) -> None:
    with pytest.raises(DataError) as caught:
        SampleSet((sample,), ("a", "b"), "detect")
    assert str(caught.value).startswith(said)


def _masked(values: Any) -> Sample:
    return Sample(_sample((0, 0, 8, 8)).image, mask=tv_tensors.Mask(torch.as_tensor(values, dtype=torch.uint8)))


def test_wrong_masks_are_named_before_the_first_step() -> None:
    mask = torch.zeros(SIZE, SIZE, dtype=torch.uint8)
    mask[0, :3], mask[1, :2], mask[2, :9] = 200, 3, 255
    with pytest.raises(DataError) as caught:
        SampleSet((_masked(mask),), ("a", "b", "c"), "segment")
    assert str(caught.value) == (
        "samples: masks hold values that are no class: 3 (2 pixels), 200 (3 pixels); there are 3 classes (0 to 2), "
        "and 255 is to be ignored"
    )
    with pytest.raises(DataError, match="every pixel of the masks is 255"):
        SampleSet((_masked(torch.full((SIZE, SIZE), 255)),), ("a", "b"), "segment")
    with pytest.raises(DataError, match="has a mask of 4x4, but one of 48x48 is needed"):
        SampleSet((_masked(torch.zeros(4, 4)),), ("a", "b"), "segment")
    with pytest.raises(DataError, match="has no mask"):
        SampleSet((Sample(_sample((0, 0, 8, 8)).image),), ("a", "b"), "segment")
    with pytest.raises(DataError, match="masks of 1 class teach nothing"):
        SampleSet((_masked(torch.zeros(SIZE, SIZE)),), ("a",), "segment")


def test_pictures_of_several_sizes_and_none_are_refused() -> None:
    with pytest.raises(DataError, match="there are none"):
        SampleSet((), ("a",), "detect")
    other = Sample(tv_tensors.Image(torch.zeros(3, 8, 8, dtype=torch.uint8)), name="b.png")
    with pytest.raises(DataError, match=r"b\.png: is 3x8x8, but the first picture is 3x48x48; bring all to one size"):
        SampleSet((_sample((0, 0, 8, 8)), other), ("a", "b"), "detect")


def test_boxes_of_one_picture() -> None:
    boxes = Boxes(torch.arange(12.0).view(3, 4), torch.tensor([1, 2, 3]), torch.tensor([0, 1, 0]), torch.ones(3))
    assert boxes.of(0).labels.tolist() == [1, 3]
    assert boxes.to("cpu").where(boxes.labels > 1).picture.tolist() == [1, 0]


def test_a_box_of_which_too_little_is_left_is_no_longer_asked_for() -> None:
    """The window of the largest zoom, at the left and the top, ends at 38 of 48 pixels."""
    far = [1.0, -1.0, -1.0, 0.0, 0.0, 0.0]
    for box, left in (((36, 10, 46, 20), 0), ((32, 10, 42, 20), 1), ((39, 10, 45, 20), 0), ((10, 36, 20, 46), 0)):
        seen = cropped(_sample(box), far)
        assert len(seen.labels) == len(seen.boxes) == left
