"""Segmentation measured: scikit-learn and loops as oracles."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import confusion_matrix, f1_score, jaccard_score
from torch import nn
from torchvision import tv_tensors

from convscope.data import Sample, SampleSet
from convscope.errors import ModelError
from convscope.evaluate import bootstrap, evaluate_segmentation
from convscope.evaluate.segmentation import boundary_f


class _Told(nn.Module):
    """Reads the class of each pixel out of the picture."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.one_hot((x[:, 0] * 255).round().long(), 4).movedim(-1, 1).float()


def _case(seed: int, pictures: int = 5) -> tuple[np.ndarray, np.ndarray, SampleSet]:
    g = np.random.default_rng(seed)
    said = g.integers(0, 3, (pictures, 6, 7)).astype(np.uint8)
    true = np.where(g.random(said.shape) < 0.6, said, g.integers(0, 3, said.shape)).astype(np.uint8)
    true[g.random(said.shape) < 0.1] = 255
    samples = tuple(
        Sample(tv_tensors.Image(torch.from_numpy(s).repeat(3, 1, 1)), mask=tv_tensors.Mask(torch.from_numpy(t)))
        for s, t in zip(said, true, strict=True)
    )
    return said, true, SampleSet(samples, ("ground", "a", "b", "nowhere"), "segment")


@given(st.integers(0, 10_000))
def test_every_number_is_its_definition(seed: int) -> None:
    said, true, images = _case(seed)
    found, valid = evaluate_segmentation(_Told(), images, batch_size=2), true != 255
    labels = [0, 1, 2]
    assert found.miou == pytest.approx(jaccard_score(true[valid], said[valid], labels=labels, average="macro"))
    assert found.dice == pytest.approx(f1_score(true[valid], said[valid], labels=labels, average="macro"))
    assert found.accuracy == pytest.approx((true[valid] == said[valid]).mean())
    assert np.array_equal(found.confusion, confusion_matrix(true[valid], said[valid], labels=range(4)))
    assert found.per_class[3] == type(found.per_class[3])("nowhere", 0, None, None, None)
    each = [jaccard_score(t[t != 255], s[t != 255], labels=np.union1d(t[t != 255], s[t != 255]), average="macro")
            for t, s in zip(true, said, strict=True)]  # fmt: skip
    assert found.image_ious == pytest.approx(each)
    assert [found.image_ious[i] for i in found.worst] == sorted(found.image_ious)
    assert found.interval[0] <= found.miou <= found.interval[1]
    assert "mIoU" in str(found.table())
    assert found.data()["per_class"][3]["iou"] is None


def _outline(mask: np.ndarray, label: int) -> list[tuple[int, int]]:
    """Pixels of a class beside one of another that counts: the definition, pixel by pixel."""
    rows, columns = mask.shape
    found = []
    for r, c in zip(*np.nonzero(mask == label), strict=True):
        beside = [(r - 1, c), (r + 1, c), (r, c - 1), (r, c + 1)]
        inside = [mask[y, x] for y, x in beside if 0 <= y < rows and 0 <= x < columns]
        if any(v not in (label, 255) for v in inside):
            found.append((int(r), int(c)))
    return found


@given(st.integers(0, 10_000), st.sampled_from([(9, 8), (150, 160)]))
@settings(max_examples=30)
def test_boundary_f_is_its_definition(seed: int, shape: tuple[int, int]) -> None:
    """Oracle: distances between all pairs of boundary pixels; near is 0.75 % of the diagonal, 1 px at least."""
    g = np.random.default_rng(seed)
    true, said = np.zeros(shape, np.uint8), np.zeros(shape, np.uint8)
    for mask in (true, said):
        for label in (1, 2):
            top, left = (int(g.integers(0, n - 3)) for n in shape)
            mask[top : top + int(g.integers(1, shape[0])), left : left + int(g.integers(1, shape[1]))] = label
    true[g.random(shape) < 0.05] = 255
    said[true == 255] = 255
    near = max(1.0, 0.0075 * float(np.hypot(*shape)))
    found = boundary_f(torch.from_numpy(true).long(), torch.from_numpy(said).long(), num_classes=4)
    for label, value in enumerate(found.tolist()):
        one, other = _outline(true, label), _outline(said, label)
        if not one and not other:
            assert np.isnan(value)
            continue
        distance = np.hypot(*(np.array(one).reshape(-1, 1, 2) - np.array(other).reshape(1, -1, 2)).transpose(2, 0, 1))
        recall = (distance <= near).any(1).mean() if one else 0.0
        precision = (distance <= near).any(0).mean() if other else 0.0
        wanted = 2 * precision * recall / (precision + recall) if precision + recall else 0.0
        assert value == pytest.approx(wanted), label


def test_a_bootstrap_of_a_mean_is_the_normal_interval() -> None:
    """Oracle: the standard error of a mean, for many pictures."""
    values = torch.from_numpy(np.random.default_rng(0).random(2000))
    low, high = bootstrap(2000, lambda w_RP: w_RP @ values / 2000)
    error = 1.96 * values.std().item() / 2000**0.5
    assert (low, high) == pytest.approx((values.mean().item() - error, values.mean().item() + error), abs=0.1 * error)


def test_what_is_no_segmenter_is_refused() -> None:
    with pytest.raises(ModelError, match="model: does not give 1x4x6x7 logits for a picture"):
        evaluate_segmentation(nn.Identity(), _case(0)[2])
