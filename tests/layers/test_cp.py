"""cp(): planted terms are found again, no sweep makes the error larger, and numpy's SVD bounds it from below."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from convscope.layers.cp import cp, most_terms


def summed(factors: tuple[torch.Tensor, ...]) -> torch.Tensor:
    """The terms added up, one outer product after the other."""
    total = torch.zeros(len(factors[0]), *(f.shape[1] for f in factors), dtype=factors[0].dtype)
    for b in range(len(total)):
        for r in range(factors[0].shape[2]):
            term = factors[0][b, :, r]
            for f in factors[1:]:
                term = term[..., None] * f[b, :, r]
            total[b] += term
    return total


@st.composite
def tensors(draw) -> torch.Tensor:
    torch.manual_seed(draw(st.integers(0, 99)))
    return torch.randn(draw(st.integers(1, 3)), *draw(st.lists(st.integers(1, 5), min_size=2, max_size=4))).double()


@settings(max_examples=15)
@given(tensor=tensors(), data=st.data())
def test_no_sweep_makes_the_error_larger_and_the_last_is_the_true_one(tensor, data):
    rank = data.draw(st.integers(1, most_terms(tuple(tensor.shape[1:]))))
    told = cp(tensor, rank, sweeps=20)
    assert [f.shape for f in told.factors] == [(len(tensor), n, rank) for n in tensor.shape[1:]]
    assert (told.errors.diff(dim=0) <= 1e-12).all()
    left = (tensor - summed(told.factors)).flatten(1).norm(dim=1) / tensor.flatten(1).norm(dim=1)
    torch.testing.assert_close(told.error, left, atol=1e-12, rtol=1e-9)
    for axis in range(1, tensor.dim()):  # no unfolding can be nearer than its truncated SVD
        for one, error in zip(tensor, told.error, strict=True):
            table = one.movedim(axis - 1, 0).flatten(1).numpy()
            least = np.linalg.norm(np.linalg.svd(table, compute_uv=False)[rank:]) / np.linalg.norm(table)
            assert least <= error + 1e-12


@settings(max_examples=20)
@given(tensor=tensors())
def test_enough_terms_are_exact(tensor):
    told = cp(tensor, most_terms(tuple(tensor.shape[1:])))
    assert torch.equal(summed(told.factors), tensor)
    assert (told.error == 0).all()


@pytest.mark.parametrize(("shape", "rank"), [((6, 5), 2), ((5, 6, 7), 3), ((16, 3, 3), 2), ((8, 9, 3, 3), 3)])
def test_planted_terms_are_found_again(shape, rank):
    """Terms that stand apart: of near parallel ones, alternating least squares crawls (a swamp, in the literature)."""
    torch.manual_seed(0)
    planted = tuple(torch.linalg.qr(torch.randn(4, n, rank, dtype=torch.float64))[0] for n in shape)
    mixed = tuple(f + 0.2 * torch.randn_like(f) for f in planted)
    for factors in (planted, mixed):
        assert cp(summed(factors), rank).error.max() < 1e-6


def test_a_table_gets_its_truncated_svd():
    torch.manual_seed(0)
    table = torch.randn(1, 7, 5).double()
    s = np.linalg.svd(table[0].numpy(), compute_uv=False)
    assert cp(table, 2).error.item() == pytest.approx(np.linalg.norm(s[2:]) / np.linalg.norm(s), abs=1e-9)


def test_the_seed_decides_and_more_starts_are_never_worse():
    torch.manual_seed(0)
    tensor = torch.randn(3, 6, 5, 4).double()
    state = torch.get_rng_state()
    first, again, other = (cp(tensor, 3, seed=seed, sweeps=5) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first.factors[0], again.factors[0])
    assert not torch.equal(first.factors[0], other.factors[0])
    assert (cp(tensor, 3, starts=4, sweeps=5).error <= cp(tensor, 3, starts=1, sweeps=5).error).all()


def test_nothing_is_the_sum_of_nothing():
    assert cp(torch.zeros(2, 3, 3, 3).double(), 2).error.tolist() == [0, 0]
