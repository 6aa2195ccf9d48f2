"""The effective field against convolutions of kernels, and what it leaves as it was."""

import copy

import numpy as np
import pytest
import torch
from networks import Squeeze
from torch import nn

from convscope import record
from convscope.errors import InputError
from convscope.inspect import effective_field, reach


def stack(kernels, **options):
    """Convolutions of one channel with the given kernels."""
    layers = [nn.Conv2d(1, 1, k.shape, bias=False, **options) for k in kernels]
    for layer, k in zip(layers, kernels, strict=True):
        layer.weight.data = torch.from_numpy(k)[None, None]
    return nn.Sequential(*layers).double()


def convolved(kernels):
    """Full convolution by its definition."""
    made = np.ones((1, 1))
    for k in kernels:
        full = np.zeros((made.shape[0] + k.shape[0] - 1, made.shape[1] + k.shape[1] - 1))
        for (r, c), value in np.ndenumerate(k):
            full[r : r + made.shape[0], c : c + made.shape[1]] += value * made
        made = full
    return made


@pytest.mark.parametrize("seed", range(4))
def test_a_linear_stack_has_the_convolution_of_its_kernels(seed):
    rng = np.random.default_rng(seed)
    kernels = [rng.normal(size=(rng.integers(1, 6), rng.integers(1, 6))) for _ in range(4)]
    whole = np.abs(convolved(kernels))
    found = effective_field(stack(kernels), torch.zeros(1, 1, *whole.shape).double(), layer="3", samples=1)
    assert found.map_HW == pytest.approx(whole / whole.max(), rel=1e-9, abs=1e-12)
    energy = np.sort((whole**2).ravel())[::-1].cumsum()
    assert found.share == (int((energy < 0.95 * energy[-1]).sum()) + 1) / whole.size
    assert found.theoretical == whole.size


@pytest.mark.parametrize(("k", "n"), [(3, 1), (3, 5), (5, 4), (2, 6)])
def test_variances_of_uniform_kernels_add_up(k, n):
    size = n * (k - 1) + 1
    found = effective_field(stack([np.ones((k, k))] * n), torch.zeros(1, 1, size, size).double(), layer=str(n - 1))
    assert found.spread == pytest.approx((np.sqrt(n * (k**2 - 1) / 12),) * 2)
    assert found.centre == pytest.approx(((size - 1) / 2,) * 2)


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.ReLU(inplace=True), nn.Conv2d(2, 4, 3, 2, 1), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.Dropout(0.3),
        nn.Conv2d(4, 4, 3, padding=2, dilation=2, groups=2),
    )  # fmt: skip


@pytest.mark.parametrize("layer", ["1", "2", "3", "5"])
@pytest.mark.parametrize("place", [(0, 0), (4, 7)])
def test_it_lies_inside_the_theoretical_set(layer, place):
    model, x = network().eval(), torch.zeros(1, 2, 24, 30)
    found = effective_field(model, x, layer=layer, unit=place, samples=4)
    recording = record(model, x)
    mask = reach(recording, recording.find(layer), unit=(0, None, *place)).mask(2, 3)
    assert not (found.map_HW[~mask] > 0).any()
    assert found.theoretical == mask.sum()
    assert 0 < found.share <= 1


def test_a_squeeze_reaches_beyond_the_local_field():
    model = nn.Sequential(nn.Conv2d(1, 1, 3, padding=1), Squeeze())
    found = effective_field(model, torch.zeros(1, 1, 16, 16), layer="1.weigh", samples=2)
    assert (found.map_HW > 0).all()
    assert found.theoretical == 256


def test_nothing_of_the_model_changes():
    model, x = network().train(), torch.randn(3, 2, 16, 16)
    model[1].weight.grad = torch.ones_like(model[1].weight)
    model[5].weight.requires_grad_(False)
    before, state, kept = copy.deepcopy(model), torch.get_rng_state(), x.clone()
    found = effective_field(model, x, layer="5", samples=None)
    assert found.samples == 3
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(x, kept)
    assert [m.training for m in model.modules()] == [m.training for m in before.modules()]
    for (name, now), (_, was) in zip(model.state_dict().items(), before.state_dict().items(), strict=True):
        assert torch.equal(now, was), name
    for now, was in zip(model.parameters(), before.parameters(), strict=True):
        assert now.requires_grad == was.requires_grad
        assert now.grad is None or now is model[1].weight
    assert torch.equal(model[1].weight.grad, torch.ones_like(model[1].weight))
    assert not any(m._forward_hooks for m in model.modules())


def test_the_same_seed_gives_the_same_field_also_under_no_grad():
    model, x = network().eval(), torch.zeros(1, 2, 16, 16)
    once = effective_field(model, x, layer="5", samples=2, seed=3)
    with torch.inference_mode():
        again = effective_field(model, x, layer="5", samples=2, seed=3)
    assert np.array_equal(once.map_HW, again.map_HW)


def test_what_cannot_be_measured():
    model, x = network().eval(), torch.zeros(1, 2, 16, 16)
    with pytest.raises(InputError, match="samples is 0; use 1 or more"):
        effective_field(model, x, layer="5", samples=0)
    with pytest.raises(InputError, match="a place in it has 2 indices, not 1"):
        effective_field(model, x, layer="5", unit=(1,))
    with pytest.raises(InputError, match="there is no unit 0,all,1,8"):
        effective_field(model, x, layer="5", unit=(1, 8))
    with pytest.raises(InputError, match="no operator ran in a module of that name"):
        effective_field(model, x, layer="fifth")
