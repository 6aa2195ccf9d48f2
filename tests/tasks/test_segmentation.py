"""Segmentation: loss, decoding and metrics against their definitions in loops."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import jaccard_score

from convscope.tasks import TASKS, Segmentation


def _case(seed: int, num_classes: int) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    targets = torch.randint(0, num_classes, (2, 5, 4), generator=g)
    targets[torch.rand(targets.shape, generator=g) < 0.3] = 255
    return 2 * torch.randn(2, num_classes, 5, 4, generator=g), targets


@given(st.integers(0, 10_000), st.integers(2, 5), st.booleans(), st.sampled_from([0.0, 0.1]))
def test_the_loss_is_its_definition(seed: int, num_classes: int, weighted: bool, smoothing: float) -> None:
    logits, targets = _case(seed, num_classes)
    weights = torch.arange(1.0, num_classes + 1) if weighted else None
    found = Segmentation(num_classes, smoothing, weights).loss(logits, targets)
    p, w = logits.double().softmax(1).numpy(), np.ones(num_classes) if weights is None else weights.numpy()
    entropy, share = 0.0, 0.0
    for n, y, x in np.ndindex(2, 5, 4):
        c = int(targets[n, y, x])
        if c == 255:
            continue
        logs = w * np.log(p[n, :, y, x])
        entropy -= (1 - smoothing) * logs[c] + smoothing / num_classes * logs.sum()
        share += w[c]
    assert found["loss"].item() == pytest.approx(entropy / max(share, 1e-6), rel=1e-4, abs=1e-6)


@given(st.integers(0, 10_000), st.integers(2, 5), st.sampled_from([torch.float32, torch.bfloat16]), st.booleans())
def test_gradients_are_those_of_cross_entropy(seed: int, num_classes: int, dtype: torch.dtype, last: bool) -> None:
    logits, targets = _case(seed, num_classes)
    targets[0, 0, 0] = 0  # one that counts at least
    order = torch.channels_last if last else torch.contiguous_format
    own = logits.to(dtype, memory_format=order).requires_grad_()
    other = own.detach().double().requires_grad_()
    (3 * Segmentation(num_classes).loss(own, targets)["loss"]).backward()
    (3 * torch.nn.functional.cross_entropy(other, targets, ignore_index=255)).backward()
    assert own.grad is not None
    assert other.grad is not None
    assert own.grad.dtype == dtype
    torch.testing.assert_close(own.grad.double(), other.grad, rtol=1e-2 if dtype == torch.bfloat16 else 1e-4, atol=1e-6)


def test_a_batch_without_a_pixel_that_counts_has_a_finite_loss() -> None:
    logits = torch.zeros(1, 3, 2, 2, requires_grad=True)
    loss = Segmentation(3).loss(logits, torch.full((1, 2, 2), 255))["loss"]
    loss.backward()
    assert loss.isfinite()
    assert logits.grad is not None
    assert logits.grad.abs().max() == 0


@given(st.integers(0, 10_000))
def test_metrics_leave_out_what_is_to_be_ignored(seed: int) -> None:
    logits, targets = _case(seed, 3)
    task, metrics = Segmentation(3), TASKS["segment"](3).metrics()
    metrics.update(task.decode(logits), targets)
    found, valid = metrics.compute(), targets != 255
    said, true = task.decode(logits)[valid].numpy(), targets[valid].numpy()
    labels = np.union1d(said, true)
    assert found["miou"].item() == pytest.approx(jaccard_score(true, said, labels=labels, average="macro"), abs=1e-5)
    assert found["accuracy"].item() == pytest.approx((said == true).mean(), abs=1e-5)
