"""Ways of a layer beside the layer, for the tests of forms and of kernels in other vectors."""

import copy

import torch
from torch import nn

from convscope.layers.fast import TOLERANCE
from convscope.layers.fast.ways import ways


def close(found: torch.Tensor, wanted: torch.Tensor, dtype: torch.dtype = torch.float32) -> None:
    assert found.shape == wanted.shape
    assert (found - wanted).abs().max() <= TOLERANCE[dtype] * wanted.abs().max().clamp_min(1e-6)


def grads(module: nn.Module, x: torch.Tensor, like: torch.Tensor) -> list[torch.Tensor]:
    x = x.clone().requires_grad_()
    return list(torch.autograd.grad(module(x), [x, *module.parameters()], like))


def same(layer: nn.Module, x: torch.Tensor) -> set[str]:
    """Every way of the layer is held against it in float64; the words of the ways."""
    exact = copy.deepcopy(layer).double()
    wanted = exact(x.double())
    like = torch.randn_like(wanted)
    words = set()
    for training in (False, True):
        for way in ways(layer, x, training=training):
            form = way.make()
            for layout in (torch.contiguous_format, torch.channels_last):
                with torch.inference_mode():
                    close(form(x.contiguous(memory_format=layout)), wanted.float())
            close(form(x).detach(), wanted.float())
            if training:
                for found, exactly in zip(grads(form, x, like.float()), grads(exact, x.double(), like), strict=True):
                    close(found, exactly.float())
            words.add(way.words)
    return words
