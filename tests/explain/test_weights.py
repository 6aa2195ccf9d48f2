"""Kernels are the weights that the layer convolves with."""

import numpy as np
import pytest
import torch
from torch import nn

from convscope.errors import InputError
from convscope.explain.weights import first_convolution, kernels


def test_kernels_are_the_weights_and_of_rgb_they_are_in_colour():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 6, 3, groups=2))
    first, later = (kernels(model, name, shape=(3, 9, 9)) for name in ("0", "2"))
    assert np.array_equal(first.weights, model[0].weight.detach())
    assert later.weights.shape == (6, 2, 3, 3)
    assert first_convolution(model, shape=(3, 9, 9)) == "0"
    with torch.no_grad():
        model[0].weight.zero_()
        model[0].weight[0, 0] = 2.0
    pixels = np.asarray(kernels(model, "0", shape=(3, 9, 9)).picture())
    assert (pixels == (255, 128, 128)).all(axis=2).sum() >= 84 * 84  # red at its largest, the others 0
    assert later._repr_png_().startswith(b"\x89PNG")


def test_transposed_kernels_are_outputs_by_inputs():
    model = nn.Sequential(nn.ConvTranspose2d(4, 6, 3, groups=2))
    made = kernels(model, "0", shape=(4, 5, 5)).weights
    assert made.shape == (6, 2, 3, 3)
    for out in range(6):
        group, within = divmod(out, 3)
        for i in range(2):
            assert np.array_equal(made[out, i], model[0].weight[group * 2 + i, within].detach())


def test_a_layer_that_is_no_convolution_is_said_so():
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Conv3d(2, 2, 1))
    with pytest.raises(InputError, match="layer '1': is no convolution; known: 0"):
        kernels(model[:2], "1", shape=(1, 5, 5))
    with pytest.raises(InputError, match="its kernels have 3 axes"):
        kernels(nn.Sequential(nn.Conv3d(1, 2, 1)), "0", shape=(1, 3, 3, 3))


def test_the_picture_that_is_made_up_is_in_the_model_s_own_precision():
    model = nn.Sequential(nn.Conv2d(3, 4, 3)).double()
    drawn = kernels(model, first_convolution(model, shape=(3, 9, 9)), shape=(3, 9, 9))
    assert np.array_equal(drawn.weights, model[0].weight.detach().float().numpy())
