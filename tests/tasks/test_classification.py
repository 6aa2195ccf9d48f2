"""Classification: loss, decoding and metrics against their definitions in numpy."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from convscope.tasks import TASKS, Classification


@given(st.integers(0, 10_000), st.integers(1, 12), st.integers(2, 9))
def test_loss_and_probabilities_are_their_definitions(seed: int, n: int, num_classes: int) -> None:
    rng = np.random.default_rng(seed)
    logits, targets = rng.normal(scale=4, size=(n, num_classes)).astype(np.float32), rng.integers(0, num_classes, n)
    powers = np.exp(logits.astype(np.float64))
    shares = powers / powers.sum(1, keepdims=True)
    task = Classification(num_classes)
    found = task.loss(torch.from_numpy(logits), torch.from_numpy(targets))
    assert found["loss"].item() == pytest.approx(-np.log(shares[range(n), targets]).mean(), rel=1e-4, abs=1e-5)
    assert found["accuracy"].item() == pytest.approx((logits.argmax(1) == targets).mean())
    np.testing.assert_allclose(task.decode(torch.from_numpy(logits)).numpy(), shares, rtol=1e-4, atol=1e-6)


def test_metrics_count_samples_alike_over_uneven_batches() -> None:
    metrics, task = Classification(3).metrics(), Classification(3)
    for labels, named in (([0, 1, 2, 0], [0, 1, 2, 1]), ([2], [0])):
        outputs = torch.nn.functional.one_hot(torch.tensor(named), 3).float() * 5
        metrics.update(task.decode(outputs), torch.tensor(labels))
    assert metrics.compute()["accuracy"].item() == pytest.approx(3 / 5)


def test_only_the_loss_carries_a_gradient() -> None:
    outputs = torch.zeros(2, 3, requires_grad=True)
    found = Classification(3).loss(outputs, torch.tensor([0, 1]))
    assert found["loss"].requires_grad
    assert not found["accuracy"].requires_grad


def test_tasks_by_name() -> None:
    assert TASKS["classify"](4).num_classes == 4
