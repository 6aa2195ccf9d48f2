"""Detection: assignment and losses against loops, decoding against its definition."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchvision.ops import box_iou, generalized_box_iou, sigmoid_focal_loss

from convscope.data.samples import Boxes, joined
from convscope.models import Candidates, network
from convscope.tasks import TASKS, Detection
from convscope.tasks.detection import assign, quality_focal_loss

STRIDES = (8, 16, 32)


def _places(size: int = 128) -> tuple[torch.Tensor, torch.Tensor]:
    found = [(x, y, s) for s in STRIDES for y in range(s // 2, size, s) for x in range(s // 2, size, s)]
    grid = torch.tensor(found).float()
    return grid[:, :2], grid[:, 2]


def _random(seed: int, *, most: int = 6, pictures: int = 3) -> Boxes:
    g = torch.Generator().manual_seed(seed)
    parts = []
    for _ in range(pictures):
        n = int(torch.randint(0, most + 1, (1,), generator=g))
        corner, size = 100 * torch.rand(n, 2, generator=g), 2 + 126 * torch.rand(n, 2, generator=g) ** 2
        parts.append((torch.cat([corner, corner + size], 1), torch.randint(0, 4, (n,), generator=g)))
    return joined(parts)


def _answers(point: torch.Tensor, stride: float, box: torch.Tensor) -> tuple[bool, bool]:
    """Whether the box is of this place's map, and whether the place is near its centre and in it."""
    half = float(max(box[2] - box[0], box[3] - box[1])) / 2
    level = (stride == 8 or half >= 4 * stride) and (stride == 32 or half < 8 * stride)
    x, y = point.tolist()
    away = max(abs(x - float(box[0] + box[2]) / 2), abs(y - float(box[1] + box[3]) / 2))
    return level, bool(box[0] < x < box[2] and box[1] < y < box[3] and away < 1.5 * stride)


@given(st.integers(0, 10_000))
def test_assignment_is_its_definition_in_loops(seed: int) -> None:
    (points, strides), targets = _places(), _random(seed)
    found = assign(points, strides, targets, num_pictures=3)
    for picture in range(3):
        own = (targets.picture == picture).nonzero().flatten().tolist()
        nearest = {}
        for m in own:
            box = targets.boxes[m]
            centre = (box[:2] + box[2:]) / 2
            away = {at: float((points[at] - centre).pow(2).sum()) for at in range(len(points))
                    if _answers(points[at], float(strides[at]), box)[0]}  # fmt: skip
            nearest[m] = {at for at, d in away.items() if d == min(away.values())}
        for at in range(len(points)):
            fits = [
                m for m in own if all(_answers(points[at], float(strides[at]), targets.boxes[m])) or at in nearest[m]
            ]
            areas = [float((targets.boxes[m, 2:] - targets.boxes[m, :2]).prod()) for m in fits]
            said = int(found[picture, at])
            assert (said == -1) == (not fits)
            if fits:
                assert said in fits
                assert areas[fits.index(said)] == min(areas)


@given(st.integers(0, 10_000))
def test_losses_are_their_definitions(seed: int) -> None:
    (points, strides), targets = _places(), _random(seed)
    g = torch.Generator().manual_seed(seed)
    logits = torch.randn(3, len(points), 4, generator=g)
    corner = points - strides[:, None] * torch.rand(3, len(points), 2, generator=g)
    boxes = torch.cat([corner, corner + 3 * strides[:, None] * (0.2 + torch.rand(3, len(points), 2, generator=g))], 2)
    found = Detection(4).loss(Candidates(logits, boxes, points, strides), targets)
    owners = assign(points, strides, targets, num_pictures=3)
    quality, placing, count = torch.zeros(3, len(points), 4, dtype=torch.float64), 0.0, 0
    for picture, at in (owners >= 0).nonzero().tolist():
        m = int(owners[picture, at])
        one, other = boxes[picture, at][None].double(), targets.boxes[m][None].double()
        quality[picture, at, targets.labels[m]] = box_iou(one, other)[0, 0]
        placing += 1 - float(generalized_box_iou(one, other)[0, 0])
        count += 1
    p = logits.double().sigmoid()
    entropy = -(quality * p.log() + (1 - quality) * (1 - p).log())
    scoring = float(((quality - p).abs() ** 2 * entropy).sum())
    assert found["scoring"].item() == pytest.approx(scoring / max(1, count), rel=1e-4)
    assert found["placing"].item() == pytest.approx(2 * placing / max(1, count), rel=1e-4, abs=1e-6)
    assert found["loss"].item() == pytest.approx(found["scoring"].item() + found["placing"].item(), rel=1e-5)


def test_with_hard_targets_the_focal_loss_is_torchvisions() -> None:
    logits, hard = torch.randn(40, generator=torch.Generator().manual_seed(0)), (torch.arange(40) % 3 == 0).float()
    wanted = sigmoid_focal_loss(logits, hard, alpha=-1, gamma=2, reduction="sum")
    torch.testing.assert_close(quality_focal_loss(logits, hard), wanted)


def test_pictures_without_boxes_have_a_finite_loss_and_a_gradient() -> None:
    model = network("small", num_classes=4, task="detect").train()
    found = Detection(4).loss(model(torch.rand(2, 3, 64, 64)), joined([(torch.zeros(0, 4), torch.zeros(0))] * 2))
    found["loss"].backward()
    assert math.isfinite(found["loss"].item())
    assert found["placing"].item() == 0
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


@given(st.integers(0, 10_000))
def test_decoding_keeps_the_best_of_those_that_overlap(seed: int) -> None:
    """Oracle: non-maximum suppression in loops, class by class and picture by picture."""
    g = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(2, 12, 3, generator=g)
    corner = 20 * torch.rand(2, 12, 2, generator=g)
    boxes = torch.cat([corner, corner + 5 + 20 * torch.rand(2, 12, 2, generator=g)], 2)
    task = Detection(3, threshold=0.3, overlap=0.5)
    found = task.decode(Candidates(logits, boxes, torch.zeros(12, 2), torch.ones(12)))
    for picture in range(2):
        wanted = []
        for label in range(3):
            scores = logits[picture, :, label].sigmoid()
            left = [i for i in scores.argsort(descending=True).tolist() if scores[i] > 0.3]
            while left:
                best, *rest = left
                wanted.append((scores[best].item(), label, boxes[picture, best].tolist()))
                ious = box_iou(boxes[picture, best][None], boxes[picture, rest])[0] if rest else torch.zeros(0)
                left = [i for i, iou in zip(rest, ious, strict=True) if iou <= 0.5]
        own = found.of(picture)
        said = sorted(
            zip(own.scores.tolist(), own.labels.tolist(), own.boxes.tolist(), strict=True), key=lambda f: f[1:]
        )
        wanted.sort(key=lambda f: f[1:])
        assert [f[1:] for f in said] == [f[1:] for f in wanted]
        assert [f[0] for f in said] == pytest.approx([f[0] for f in wanted], abs=1e-6)
        assert own.scores.tolist() == sorted(own.scores.tolist(), reverse=True)


def test_at_most_a_hundred_boxes_of_a_picture_are_kept() -> None:
    points = torch.stack(torch.meshgrid(torch.arange(20.0), torch.arange(20.0), indexing="xy"), -1).view(-1, 2) * 10
    boxes = torch.cat([points, points + 5], 1).expand(2, -1, -1)
    logits = torch.linspace(-1, 1, 400).view(1, 400, 1).expand(2, -1, -1)
    found = Detection(1).decode(Candidates(logits, boxes, points, torch.ones(400)))
    assert torch.bincount(found.picture).tolist() == [100, 100]
    assert float(found.scores.min()) == pytest.approx(float(logits[0, 300].sigmoid()))


def test_metrics_are_one_for_the_truth_and_zero_for_nothing() -> None:
    truth = _random(3)
    metrics, empty = TASKS["detect"](4).metrics(), TASKS["detect"](4).metrics()
    metrics.update(truth, truth)
    empty.update(truth.where(truth.scores > 2), truth)
    assert metrics.compute()["map"].item() == pytest.approx(1)
    assert {name: value.item() for name, value in empty.compute().items()} == {"map": 0, "map50": 0}
