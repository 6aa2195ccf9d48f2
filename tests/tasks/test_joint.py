"""Two tasks of one network: their losses are added, and each is judged as if it were alone."""

from typing import Any

import pytest
import torch

from convscope.data import SampleSet
from convscope.errors import DataError
from convscope.models import HeadedNetwork, OneHead, backbone, network
from convscope.tasks import Detection, Joint, Segmentation
from tiny import SIZE, tiny


@pytest.fixture(scope="module")
def batch() -> tuple[Any, Any]:
    """Outputs of a fresh network of two heads, and targets."""
    torch.manual_seed(0)
    x, targets = tiny("detect,segment").val.batch(torch.arange(4))
    return network("small", num_classes=3, task="detect,segment").eval()(x), targets


def test_the_loss_is_the_weighted_sum_of_the_tasks_alone(batch: tuple[Any, Any]) -> None:
    outputs, targets = batch
    detect = Detection(2).loss(outputs["detect"], targets["detect"])
    segment = Segmentation(3).loss(outputs["segment"], targets["segment"])
    told = Joint(3, {"segment": 0.5}).loss(outputs, targets)
    assert told["loss"].item() == pytest.approx((detect["loss"] + 0.5 * segment["loss"]).item(), rel=1e-6)
    assert told["detect_loss"] == detect["loss"]
    assert told["detect_placing"] == detect["placing"]
    assert told["segment_loss"] == segment["loss"]
    assert told["loss"].requires_grad
    assert not told["segment_loss"].requires_grad


def test_both_losses_move_the_backbone() -> None:
    torch.manual_seed(0)
    x, targets = tiny("detect,segment").val.batch(torch.arange(4))
    model = network("small", num_classes=3, task="detect,segment")

    def gradient(weights: dict[str, float]) -> torch.Tensor:
        model.zero_grad()
        Joint(3, weights).loss(model(x), targets)["loss"].backward()
        return torch.cat([p.grad.flatten() for p in model.backbone.parameters() if p.grad is not None])

    one, two, both = gradient({"segment": 1e-9}), gradient({"detect": 1e-9}), gradient({})
    assert one.norm() > 1e-3
    assert two.norm() > 1e-3
    torch.testing.assert_close(one + two, both, rtol=1e-3, atol=1e-4)


def test_metrics_are_those_of_the_tasks_and_their_mean(batch: tuple[Any, Any]) -> None:
    outputs, targets = batch
    joint, metrics = Joint(3), Joint(3).metrics().to("cpu")
    metrics.update(joint.decode(outputs), targets)
    told = metrics.compute()
    for name, task in (("detect", Detection(2)), ("segment", Segmentation(3))):
        alone: Any = task.metrics()
        alone.update(task.decode(outputs[name]), targets[name])
        for key, value in alone.compute().items():
            assert told[f"{name}_{key}"] == value
    assert told["score"] == (told["detect_map"] + told["segment_miou"]) / 2


def test_it_serves_what_a_network_of_two_heads_gives_and_nothing_else() -> None:
    shapes = [(1, 84, 2), (1, 84, 4), (84, 2), (84,), (1, 3, SIZE, SIZE)]
    task, picture = Joint(3), (3, SIZE, SIZE)
    assert task.serves(shapes, picture)
    for wrong in (shapes[:-1], shapes[-1:], shapes[::-1], [(1, 84, 3), *shapes[1:]], [*shapes, (1,)], []):
        assert not task.serves(wrong, picture)
    assert task.wanted(picture).startswith("detect: 1xLx2 logits")
    assert task.wanted(picture).endswith("segment: 1x3x64x64 logits")


def test_one_head_gives_what_a_network_of_that_head_alone_gives() -> None:
    both, x = network("small", num_classes=3, task="detect,segment"), torch.rand(2, 3, SIZE, SIZE)
    for task, count in (("detect", 2), ("segment", 3)):
        alone = HeadedNetwork(backbone("small"), {task: count}).eval()
        alone.load_state_dict({k: v for k, v in both.state_dict().items() if k in alone.state_dict()})
        assert all(map(torch.equal, OneHead(both, task)(x), alone(x)))


def test_a_set_for_both_gives_both_and_is_checked_for_both() -> None:
    both = tiny("detect,segment").val
    at = torch.arange(3)
    x, targets = both.batch(at)
    for task in ("detect", "segment"):
        alone = tiny(task).val
        part = both.part(task)
        assert (part.classes, part.task) == (alone.classes, task)
        assert torch.equal(x, alone.batch(at)[0])
        assert all(map(torch.equal, targets[task], alone.batch(at)[1]))
    without = SampleSet(tiny("detect").val.samples, both.classes, "detect,segment")
    assert len(without) == 8
    with pytest.raises(
        DataError, match=r"sample 0: box 0 has label 1, but there are 1 classes \(0 to 0\)|box 1 has label"
    ):
        SampleSet(both.samples, ("ground", "square"), "detect,segment")
