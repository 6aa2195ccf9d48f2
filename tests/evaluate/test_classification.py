"""Evaluation against definitions in plain loops, scikit-learn and scipy."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest
from sklearn import metrics
from torch import Tensor, nn

from convscope.data import ImageSet
from convscope.errors import ModelError
from convscope.evaluate import Evaluation, calibration_error, evaluate, wilson


class _Told(nn.Module):
    """A network that reads its logits out of the picture: 1 x 1 x C in, C out."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Dropout(0.5)

    def forward(self, x: Tensor) -> Tensor:
        return 8 * self.inner(x.flatten(1))


def _case(seed: int, n: int, num_classes: int, *, batch_size: int = 7) -> tuple[np.ndarray, np.ndarray, Evaluation]:
    rng = np.random.default_rng(seed)
    pixels, labels = rng.random((n, num_classes), np.float32), rng.integers(0, num_classes, n)
    classes = tuple(f"c{i}" for i in range(num_classes))
    images = ImageSet(torch.from_numpy(pixels).view(n, 1, 1, num_classes), torch.from_numpy(labels), classes)
    return 8 * pixels.astype(np.float64), labels, evaluate(_Told().train(), images, batch_size=batch_size)


cases = st.builds(_case, st.integers(0, 10_000), st.integers(1, 40), st.integers(2, 9))


@given(cases)
def test_every_number_is_its_definition(case: tuple[np.ndarray, np.ndarray, Evaluation]) -> None:
    logits, labels, found = case
    n, num_classes = logits.shape
    named = logits.argmax(1)
    shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    assert found.num_images == n
    assert found.predictions.tolist() == named.tolist()
    assert list(found.wrong) == [i for i in range(n) if named[i] != labels[i]]
    assert found.accuracy == pytest.approx(1 - len(found.wrong) / n)
    assert found.loss == pytest.approx(-np.log(shares[range(n), labels]).mean(), rel=1e-4)
    assert np.array_equal(found.confusion, metrics.confusion_matrix(labels, named, labels=range(num_classes)))
    if num_classes > 5:
        assert found.top5 == pytest.approx(metrics.top_k_accuracy_score(labels, logits, k=5, labels=range(num_classes)))
    else:
        assert found.top5 is None
    for at, result in enumerate(found.per_class):
        mine, said = labels == at, named == at
        assert (result.name, result.images, result.predicted) == (f"c{at}", mine.sum(), said.sum())
        assert result.recall == (pytest.approx((mine & said).sum() / mine.sum()) if mine.any() else None)
        assert result.precision == (pytest.approx((mine & said).sum() / said.sum()) if said.any() else None)


@given(cases)
def test_calibration_error_is_its_definition_in_loops(case: tuple[np.ndarray, np.ndarray, Evaluation]) -> None:
    logits, labels, _ = case
    shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    confidence, right = shares.max(1), shares.argmax(1) == labels
    wanted = 0.0
    for b in range(15):
        inside = [i for i in range(len(labels)) if b / 15 < confidence[i] <= (b + 1) / 15]
        if inside:
            wanted += len(inside) / len(labels) * abs(right[inside].mean() - confidence[inside].mean())
    assert calibration_error(torch.from_numpy(shares), torch.from_numpy(labels)) == pytest.approx(wanted, abs=1e-9)


@given(st.integers(1, 3000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_the_interval_is_the_one_of_scipy(counts: tuple[int, int]) -> None:
    hits, total = counts
    wanted = binomtest(hits, total).proportion_ci(0.95, method="wilson")
    assert wilson(hits, total) == pytest.approx((wanted.low, wanted.high), abs=1e-12)
    assert 0 <= wilson(hits, total)[0] <= hits / total <= wilson(hits, total)[1] <= 1


@pytest.mark.parametrize(("hits", "total"), [(0, 0), (2, 1), (-1, 4)])
def test_the_interval_refuses_impossible_counts(hits: int, total: int) -> None:
    with pytest.raises(ValueError, match="give a total above 0, and hits from 0 to it"):
        wilson(hits, total)


def test_the_batch_size_changes_nothing() -> None:
    _, _, one = _case(3, 29, 7, batch_size=1)
    _, _, all_at_once = _case(3, 29, 7, batch_size=500)
    assert (one.confusion, one.wrong, one.top5) == (all_at_once.confusion, all_at_once.wrong, all_at_once.top5)
    assert one.loss == pytest.approx(all_at_once.loss)


@pytest.mark.parametrize("modes", [(True, True), (True, False), (False, True), (False, False)])
def test_the_models_modes_come_back(modes: tuple[bool, bool]) -> None:
    model = _Told()
    model.training, model.inner.training = modes
    images = ImageSet(torch.rand(4, 1, 1, 3), torch.tensor([0, 1, 2, 0]), ("a", "b", "c"))
    evaluate(model, images)
    assert (model.training, model.inner.training) == modes


def test_a_model_that_does_not_serve_is_refused() -> None:
    images = ImageSet(torch.rand(2, 1, 1, 3), torch.tensor([0, 1]), ("a", "b"))
    with pytest.raises(ModelError, match="gives 2x3 for a batch of 2x1x1x3, but 2x2 is needed"):
        evaluate(_Told(), images)
    with pytest.raises(ModelError, match="does not take a batch of 2x1x1x3"):
        evaluate(nn.Linear(4, 2), images)

    class Mute(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            raise ValueError

    with pytest.raises(ModelError, match=r"does not take a batch of 2x1x1x3 \(ValueError\); check its input"):
        evaluate(Mute(), images)


def test_the_table_says_what_is_undefined_by_leaving_it_empty() -> None:
    images = ImageSet(torch.tensor([[1.0, 0, 0], [0, 1, 0]]).view(2, 1, 1, 3), torch.tensor([0, 0]), ("a", "b", "c"))
    result = evaluate(_Told(), images)
    table = result.table()
    assert [(r["recall"], r["precision"]) for r in table.rows] == [(50.0, 100.0), (None, 0.0), (None, None)]
    assert "accuracy 50.00 % (95 % interval 9.45 to 90.55 %), 1 of 2 wrong" in str(table)
    assert math.isfinite(result.calibration_error)
