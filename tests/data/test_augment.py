"""Augmentation: a pure function of (seed, epoch, sample), and the affine map that it says it is."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from convscope.data.augment import ROTATION, SCALE, SHEAR, SHIFT, affine, draws, order
from convscope.data.digits import digits

seeds = st.integers(0, 2**31 - 1)
epochs = st.integers(0, 10_000)


@given(seed=seeds, epoch=epochs, n=st.integers(1, 60))
def test_numbers_depend_on_seed_epoch_and_sample_alone(seed: int, epoch: int, n: int) -> None:
    numbers = draws(60, seed=seed, epoch=epoch)
    assert torch.equal(draws(n, seed=seed, epoch=epoch), numbers[:n])
    assert numbers.abs().max() <= 1
    assert not torch.equal(numbers, draws(60, seed=seed, epoch=epoch + 1))
    assert not torch.equal(numbers, draws(60, seed=seed + 1, epoch=epoch))


@given(seed=seeds, epoch=epochs, n=st.integers(1, 200))
def test_an_order_visits_each_sample_once(seed: int, epoch: int, n: int) -> None:
    found = order(n, seed=seed, epoch=epoch)
    assert sorted(found.tolist()) == list(range(n))
    assert torch.equal(found, order(n, seed=seed, epoch=epoch))


def test_orders_and_numbers_differ_between_epochs_and_are_uniform() -> None:
    assert not torch.equal(order(50, seed=0, epoch=0), order(50, seed=0, epoch=1))
    numbers = draws(20_000, seed=1, epoch=2)
    assert numbers.mean(0).abs().max() < 0.02
    assert (numbers.std(0) - 1 / math.sqrt(3)).abs().max() < 0.01


@given(st.permutations(range(8)), st.integers(1, 7))
def test_a_sample_looks_the_same_in_any_batch(permutation: list[int], cut: int) -> None:
    train, numbers = digits().train, draws(1293, seed=0, epoch=0)
    together, _ = train.batch(torch.arange(8), draws=numbers)
    some = torch.tensor(permutation[:cut])
    alone, labels = train.batch(some, draws=numbers)
    torch.testing.assert_close(alone, together[some], rtol=0, atol=1e-6)
    assert torch.equal(labels, train.labels[some])


@pytest.mark.parametrize("seed", range(6))
def test_affine_is_the_matrix_that_scipy_applies(seed: int) -> None:
    """Oracle: scipy's affine_transform with rotation . shear . scale written out in pixels."""
    numbers = draws(1, seed=seed, epoch=0)
    x = torch.zeros(1, 1, 33, 33)
    x[..., 8:25, 8:25] = torch.from_numpy(np.random.default_rng(seed).random((17, 17), np.float32))
    a, s = math.radians(ROTATION * numbers[0, 0]), math.radians(SHEAR * numbers[0, 1])
    rotation = np.array([[math.cos(a), -math.sin(a)], [math.sin(a), math.cos(a)]])
    shear = np.array([[1, math.tan(s)], [0, 1]])
    scale = np.diag(1 / (1 + SCALE * numbers[0, 2:4].double().numpy()))
    xy = scale @ rotation @ shear  # acts on (x, y) about the centre
    shift = 33 * SHIFT * numbers[0, 4:6].double().numpy()
    matrix, centre = xy[::-1, ::-1], np.array([16, 16])
    offset = centre + shift[::-1] - matrix @ centre
    wanted = ndimage.affine_transform(x[0, 0].double().numpy(), matrix, offset, order=1, mode="grid-constant")
    np.testing.assert_allclose(affine(x, numbers)[0, 0].numpy(), wanted, atol=2e-5)
