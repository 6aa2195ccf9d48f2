"""Detection measured: pycocotools and loops as oracles."""

import contextlib
import io
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from torch import nn
from torchvision import tv_tensors

from convscope.data import Boxes, Sample, SampleSet
from convscope.data.samples import joined
from convscope.errors import ModelError
from convscope.evaluate import evaluate_detection
from convscope.evaluate.precision import OVERLAPS, match
from convscope.models import Candidates
from convscope.tasks.detection import AveragePrecision

NUM_CLASSES = 3


def _case(seed: int, pictures: int = 6) -> tuple[list[Boxes], list[Boxes]]:
    """True boxes, and found ones: moved, doubled, misnamed, missed and made up."""
    g = np.random.default_rng(seed)
    found, true = [], []
    for _ in range(pictures):
        n = int(g.integers(0, 6))
        corner = g.uniform(0, 80, (n, 2))
        boxes = np.concatenate([corner, corner + g.uniform(8, 40, (n, 2))], 1)
        labels = g.integers(0, NUM_CLASSES, n)
        true.append(joined([(torch.from_numpy(boxes), torch.from_numpy(labels))]))
        near = np.concatenate([boxes, boxes]) + g.normal(0, 2.5, (2 * n, 4))
        near[:, 2:] = np.maximum(near[:, 2:], near[:, :2] + 1)  # pycocotools leaves out boxes of negative area
        corner = g.uniform(0, 80, (2, 2))
        wild = np.concatenate([corner, corner + g.uniform(8, 40, (2, 2))], 1)
        said = np.concatenate([near, wild])
        named = np.concatenate([labels, labels, g.integers(0, NUM_CLASSES, 2)])
        named = np.where(g.random(len(named)) < 0.15, g.integers(0, NUM_CLASSES, len(named)), named)
        made = joined([(torch.from_numpy(said), torch.from_numpy(named))])
        scores = torch.from_numpy(g.permutation(1000)[: len(named)] / 1000).float()
        made = made._replace(scores=scores)
        found.append(made.where(scores.argsort(descending=True)))
    return found, true


def _pycocotools(found: list[Boxes], true: list[Boxes]) -> COCOeval:
    def rows(boxes: Boxes, image: int) -> list[dict[str, Any]]:
        each = zip(boxes.boxes.double().tolist(), boxes.labels.tolist(), boxes.scores.tolist(), strict=True)
        return [{"image_id": image, "category_id": c, "bbox": [a, b, x - a, y - b], "area": (x - a) * (y - b)}
                | {"score": s, "iscrowd": 0} for (a, b, x, y), c, s in each]  # fmt: skip

    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        annotations = [r | {"id": 0} for i, t in enumerate(true, 1) for r in rows(t, i)]
        coco.dataset = {
            "images": [{"id": i} for i in range(1, len(true) + 1)],
            "categories": [{"id": c} for c in range(NUM_CLASSES)],
            "annotations": [a | {"id": i} for i, a in enumerate(annotations, 1)],
        }
        coco.createIndex()
        said = coco.loadRes([r for i, f in enumerate(found, 1) for r in rows(f, i)])
        told = COCOeval(coco, said, "bbox")
        told.evaluate()
        told.accumulate()
        told.summarize()
    return told


@given(st.integers(0, 100_000))
@example(5107)  # a recall that lies on a threshold
@settings(max_examples=25)
def test_average_precision_is_that_of_pycocotools(seed: int) -> None:
    found, true = _case(seed)
    if not any(len(t.labels) for t in true):
        return
    wanted = _pycocotools(found, true)
    each = np.stack([m.average_precision(torch.ones(1, len(true), dtype=torch.float64))[0].numpy()
                     for m in match(found, true, num_classes=NUM_CLASSES)])  # fmt: skip
    assert np.nanmean(each) == pytest.approx(wanted.stats[0], abs=1e-6)
    assert np.nanmean(each[:, 0]) == pytest.approx(wanted.stats[1], abs=1e-6)
    precision = wanted.eval["precision"][..., 0, 2]  # [T, recall, C]
    for c in range(NUM_CLASSES):
        if (precision[..., c] > -1).any():
            np.testing.assert_allclose(each[c], precision[..., c].mean(1), atol=1e-6)
        else:
            assert np.isnan(each[c]).all()


def test_the_metric_while_training_is_that_of_pycocotools() -> None:
    found, true = _case(11, pictures=20)
    metric = AveragePrecision()
    for at in range(0, 20, 5):
        parts = [[b._replace(picture=torch.full_like(b.labels, i)) for i, b in enumerate(s[at : at + 5])]
                 for s in (found, true)]  # fmt: skip
        metric.update(*(Boxes(*map(torch.cat, zip(*p, strict=True))) for p in parts))
    wanted, told = _pycocotools(found, true), metric.compute()
    assert told["map"].item() == pytest.approx(wanted.stats[0], abs=1e-6)
    assert told["map50"].item() == pytest.approx(wanted.stats[1], abs=1e-6)


def test_a_picture_that_counts_twice_is_a_picture_that_is_there_twice() -> None:
    found, true = _case(5)
    weights = torch.tensor([[0, 1, 2, 1, 3, 0]], dtype=torch.float64)
    drawn = [i for i, n in enumerate(weights[0].int().tolist()) for _ in range(n)]
    once = torch.ones(1, len(drawn), dtype=torch.float64)
    for one, other in zip(
        match(found, true, num_classes=NUM_CLASSES),
        match([found[i] for i in drawn], [true[i] for i in drawn], num_classes=NUM_CLASSES),
        strict=True,
    ):
        torch.testing.assert_close(one.average_precision(weights), other.average_precision(once), atol=0.02, rtol=0)


class _Told(nn.Module):
    """A detector that says what it was given, picture by picture, in order."""

    def __init__(self, found: list[Boxes]) -> None:
        super().__init__()
        self.found = found

    def forward(self, x: torch.Tensor) -> Candidates:
        indices = (x[:, 0, 0, 0] * 255).round().int().tolist()
        places = 64
        logits, boxes = torch.full((len(x), places, NUM_CLASSES), -20.0), torch.zeros(len(x), places, 4)
        for at, index in enumerate(indices):
            for place, (box, label, score) in enumerate(
                zip(self.found[index].boxes, self.found[index].labels, self.found[index].scores, strict=True)
            ):
                logits[at, place, label], boxes[at, place] = torch.logit(score, 1e-6), box
        return Candidates(logits, boxes, torch.zeros(places, 2), torch.ones(places))


def _set(true: list[Boxes]) -> SampleSet:
    samples = []
    for index, boxes in enumerate(true):
        image = tv_tensors.Image(torch.full((3, 128, 128), index, dtype=torch.uint8))
        wrapped = tv_tensors.BoundingBoxes(boxes.boxes, format="XYXY", canvas_size=(128, 128))
        samples.append(Sample(image, wrapped, boxes.labels))
    return SampleSet(tuple(samples), ("a", "b", "c"), "detect")


def test_the_truth_is_perfect_and_makes_no_mistakes() -> None:
    _, true = _case(2, pictures=9)
    told = evaluate_detection(_Told([t._replace(scores=t.scores * 0.9) for t in true]), _set(true), batch_size=4)
    assert told.map == told.map50 == told.map75 == pytest.approx(1)
    assert told.interval == pytest.approx((1, 1))
    assert set(told.mistakes) == {0}
    counts = [sum(int((t.labels == c).sum()) for t in true) for c in range(NUM_CLASSES)]
    assert [row[c] for c, row in enumerate(told.confusion[:3])] == counts == [c.objects for c in told.per_class]


def test_each_kind_of_mistake_is_counted_where_it_belongs() -> None:
    square = torch.tensor([[0.0, 0, 20, 20]])
    there = [joined([(square, torch.tensor([c]))]) for c in (0, 1, 2)]
    said = [
        joined([(square, torch.tensor([1]))]),  # a, taken for b
        joined([(square + 60, torch.tensor([1]))]),  # b missed, and a b where nothing is
        joined([(square, torch.tensor([2]))])._replace(scores=torch.tensor([0.1])),  # c, too unsure
    ]
    told = evaluate_detection(_Told(said), _set(there))
    assert told.confusion == ((0, 1, 0, 0), (0, 0, 0, 1), (0, 0, 0, 1), (0, 1, 0, 0))
    assert told.mistakes == (1, 2, 1)
    assert told.worst == (1, 0, 2)
    assert "mAP 33.33 %" in str(told.table())
    assert told.data()["found"][0]["labels"] == [1]
    assert len(OVERLAPS) == 10


def test_the_interval_holds_the_score_and_narrows_with_pictures() -> None:
    widths = []
    for pictures in (10, 80):
        found, true = _case(1, pictures=pictures)
        told = evaluate_detection(_Told(found), _set(true))
        assert told.interval[0] <= told.map <= told.interval[1]
        widths.append(told.interval[1] - told.interval[0])
    assert widths[1] < widths[0]


def test_what_is_no_detector_is_refused() -> None:
    with pytest.raises(ModelError, match="model: gives a Tensor, but 1xLx3 logits"):
        evaluate_detection(nn.Identity(), _set(_case(0)[1]))
