"""What is made to fit tiles, transposed convolutions by their phases and pairs of groups: PyTorch's own values."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from convscope.layers.fast import operators, paired, phases
from sameness import same

WORDS = "own kernel, phases in tiles"
AXES = st.tuples(st.integers(1, 3), st.integers(0, 3), st.integers(0, 2), st.integers(0, 2))  # stride, more taps ...


def conv2d(x, weight, bias, window, groups, way):
    """In the place of tiles, so that the arithmetic of phases is tested on processors without them too."""
    return torch.conv2d(x, weight, bias, *window.steps(), groups)


def layer(down, along, groups):
    (sh, mh, ph, oh), (sw, mw, pw, ow) = down, along
    kernel, output_padding = (sh + mh, sw + mw), (min(oh, sh - 1), min(ow, sw - 1))
    return nn.ConvTranspose2d(
        32 * groups, 64 * groups, kernel, (sh, sw), (ph, pw), output_padding, groups, bias=groups == 1
    )


@settings(max_examples=40, deadline=None)
@given(AXES, AXES, st.sampled_from([1, 2]), st.tuples(st.integers(5, 9), st.integers(5, 9)))
def test_all_phases_are_the_whole(down, along, groups, size):
    plain, x = layer(down, along, groups), torch.randn(2, 32 * groups, *size)
    with pytest.MonkeyPatch.context() as patch, torch.no_grad():
        patch.setattr(phases, "conv2d", conv2d)
        torch.testing.assert_close(phases.Phases(plain)(x), plain(x), atol=1e-4, rtol=1e-4)


def tiles():
    found = operators.kernels()
    return found is not None and found.tiles


@pytest.mark.skipif(not tiles(), reason="the processor has no tiles")
@pytest.mark.parametrize("groups", [1, 2])
def test_in_tiles(groups):
    for down, along in (((2, 1, 1, 1), (2, 1, 1, 1)), ((2, 0, 0, 0), (2, 0, 0, 0)), ((3, 2, 1, 2), (1, 1, 1, 0))):
        assert WORDS in same(layer(down, along, groups), torch.randn(2, 32 * groups, 7, 9))


@pytest.mark.skipif(not tiles(), reason="the processor has no tiles")
def test_changed_weights_are_seen():
    plain = nn.ConvTranspose2d(32, 32, 2, 2)
    form, x = phases.Phases(plain), torch.randn(1, 32, 4, 4)
    with torch.no_grad():
        form(x)
        plain.weight.mul_(2)
        torch.testing.assert_close(form(x), plain(x), atol=1e-4, rtol=1e-4)


@pytest.mark.skipif(not tiles(), reason="the processor has no tiles")
@pytest.mark.parametrize("window", [{}, {"padding": 1}, {"stride": 2, "padding": 2, "dilation": 2}])
def test_pairs_of_groups(window):
    words = same(nn.Conv2d(64, 64, 3, groups=4, **window), torch.randn(2, 64, 9, 7))
    assert "own kernel, pairs of groups in tiles" in words


def test_pairs_of_groups_on_paper():
    plain = nn.Conv2d(64, 64, 3, groups=4)
    x = torch.randn(1, 64, 5, 6)
    with torch.no_grad():
        found = torch.conv2d(x, paired.pairs(plain.weight), plain.bias, groups=2)
        torch.testing.assert_close(found, plain(x), atol=1e-5, rtol=1e-5)
