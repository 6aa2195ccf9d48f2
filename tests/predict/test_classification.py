"""Prediction: the likeliest classes, in order, with softmax probabilities."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from convscope import models
from convscope.errors import InputError, ModelError
from convscope.predict import predict

CLASSES = ("ant", "bee", "cat", "dog")


class _Told(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1)


@given(st.integers(0, 10_000), st.integers(1, 5), st.integers(1, 6))
def test_rows_are_the_sorted_softmax(seed: int, n: int, top: int) -> None:
    logits = np.random.default_rng(seed).normal(scale=3, size=(n, 4)).astype(np.float32)
    rows = predict(_Told(), torch.from_numpy(logits).view(n, 1, 2, 2), classes=CLASSES, top=top).rows
    assert len(rows) == n * min(top, 4)
    for i in range(n):
        mine = [r for r in rows if r.image == str(i)]
        shares = np.exp(logits[i].astype(np.float64)) / np.exp(logits[i].astype(np.float64)).sum()
        best = np.argsort(-shares)[: min(top, 4)]
        assert [r.label for r in mine] == [CLASSES[j] for j in best]
        assert [r.rank for r in mine] == list(range(1, len(mine) + 1))
        assert [r.probability for r in mine] == pytest.approx(shares[best].tolist(), rel=1e-4)


def test_the_published_softmax_of_lenet5() -> None:
    torch.manual_seed(1)
    model = models.build("LeNet5")
    x = torch.randn(1, 1, 32, 32)
    rows = predict(model, x, classes=tuple("0123456789"), top=10, names=["noise"]).rows
    shares = {r.label: round(r.probability, 4) for r in rows}
    wanted = [0.1055, 0.0958, 0.1093, 0.0939, 0.0942, 0.0990, 0.1092, 0.0956, 0.0874, 0.1102]
    assert shares == dict(zip("0123456789", wanted, strict=True))
    assert {r.image for r in rows} == {"noise"}


def test_the_table_shows_per_cent() -> None:
    table = predict(_Told(), torch.tensor([[0.0, 0, 0, 50]]).view(1, 1, 2, 2), classes=CLASSES, top=1).table()
    assert table.rows == ({"image": "0", "rank": 1, "label": "dog", "probability": 100.0},)


def test_what_does_not_fit_is_refused() -> None:
    x = torch.zeros(2, 1, 2, 2)
    with pytest.raises(InputError, match="top 0"):
        predict(_Told(), x, classes=CLASSES, top=0)
    with pytest.raises(InputError, match="1 names for 2 pictures"):
        predict(_Told(), x, classes=CLASSES, names=["a"])
    with pytest.raises(ModelError, match="gives 2x4 for a batch of 2x1x2x2, but 2x3 is needed"):
        predict(_Told(), x, classes=CLASSES[:3])
