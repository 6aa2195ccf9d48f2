"""Feature maps are the tensors that the layers gave."""

import numpy as np
import torch

from convscope import record
from convscope.explain import feature_maps, save_maps
from convscope.models import LeNet5


def test_every_layers_map_is_its_output(tmp_path):
    model, x = LeNet5().eval(), torch.randn(2, 1, 32, 32)
    maps = {m.name: m.maps for m in feature_maps(record(model, x, keep=lambda op: True), sample=1)}
    with torch.no_grad():
        for name, layer in [*model.features.named_children(), *model.head.named_children()]:
            x = layer(x)
            part = "features" if name in dict(model.features.named_children()) else "head"
            found = maps[f"{part}.{name}"]
            assert np.array_equal(found.reshape(-1), x[1].flatten().numpy())
            assert found.ndim == 3


def test_saved_numbers_are_exact(tmp_path):
    maps = feature_maps(record(LeNet5(), torch.randn(1, 1, 32, 32), keep=lambda op: op.name == "convolution"))
    *pictures, numbers = save_maps(maps, tmp_path)
    assert [p.suffix for p in pictures] == [".png", ".png"]
    values = np.load(numbers)
    assert all(np.array_equal(v, m.maps) for v, m in zip(values.values(), maps, strict=True))


def test_layers_that_were_not_kept_have_no_map():
    assert feature_maps(record(LeNet5(), torch.zeros(1, 1, 32, 32))) == ()
