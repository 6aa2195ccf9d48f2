"""Quantised networks against their float twins: the same MACs and fields, parameters those that are packed."""

import pytest
import torch
from networks import packed_count
from torch import nn
from torchvision import models
from torchvision.models import quantization

from convscope import record, replay, summarize
from convscope.models import build

pytestmark = pytest.mark.filterwarnings("ignore:must run observer", "ignore::DeprecationWarning", "ignore:.*quantiz.*")

SLOW = ("resnext", "inception")  # the largest of each kind; the smaller ones are told by the same rules
NAMES = [name for name in sorted(set(models.list_models(module=quantization))) if not any(s in name for s in SLOW)]
SMALL = ["quantized_mobilenet_v3_large", "quantized_resnet18", "quantized_shufflenet_v2_x0_5"]


@pytest.fixture
def plain_initialisation():
    """Weights that take no time to draw, and that are finite: scales are made of them."""
    with pytest.MonkeyPatch.context() as patch:
        for name in dir(nn.init):
            if name.endswith("_") and not name.startswith("_"):
                patch.setattr(nn.init, name, lambda tensor, *args, **kwargs: tensor.detach().fill_(0.01))
        yield


@pytest.mark.usefixtures("plain_initialisation")
@pytest.mark.parametrize("name", NAMES)
def test_macs_are_published_and_parameters_those_that_are_packed(name):
    facts = next(iter(models.get_model_weights(name)))
    size = facts.transforms().crop_size[0]
    model = build(f"torchvision:{name}")
    total = summarize(record(model, torch.rand(1, 3, size, size))).total
    assert total.unknown == ()
    assert total.params == packed_count(model) > 0
    # with the normalisation that is folded into them, they are the float network's
    norms = build(f"torchvision:{name.removeprefix('quantized_')}").modules()
    channels = sum(m.num_features for m in norms if isinstance(m, nn.BatchNorm2d))
    if "googlenet" not in name:  # whose published numbers are without auxiliary classifiers
        assert total.params + channels == facts.meta["num_params"]
    assert total.macs / 1e9 == pytest.approx(facts.meta["_ops"], rel=0.001, abs=0.0006)


def rows(summary):
    return {(o.module, o.output_shape): o for o in summary.operators if o.macs}


@pytest.mark.parametrize("name", SMALL)
def test_every_layer_is_that_of_the_float_twin(name):
    x = torch.rand(1, 3, 64, 64)
    told = rows(summarize(record(build(f"torchvision:{name}"), x)))
    twin = rows(summarize(record(build(f"torchvision:{name.removeprefix('quantized_')}"), x)))
    assert told.keys() == twin.keys()
    for key, row in told.items():
        assert (row.macs, row.receptive_field) == (twin[key].macs, twin[key].receptive_field), key


@pytest.mark.parametrize("keep", [None, lambda op: True], ids=["fallen back", "kept"])
def test_it_replays_and_tells_its_memory_in_bytes_of_int8(keep):
    model, x = build("torchvision:quantized_shufflenet_v2_x0_5"), torch.rand(1, 3, 64, 64)
    recording = record(model, x, keep=keep)
    with torch.no_grad():
        assert torch.equal(replay(recording, model, x)[0], model(x))
    row = next(o for o in summarize(recording).operators if o.op == "conv2d_relu")
    assert row.activation_bytes == 24 * 32 * 32
    assert row.bytes_moved == 3 * 64 * 64 + 24 * 32 * 32 + 24 * 27 + 24 * 4


class Packed(nn.Module):
    """Operators on packed weights that no layer holds, and the rest of the quantised arithmetic."""

    def forward(self, x):
        q = torch.quantize_per_tensor(x, 0.02, 128, torch.quint8)
        weight = torch.quantize_per_tensor(torch.rand(4, 2, 3, 3), 0.01, 0, torch.qint8)
        held = torch.ops.quantized.conv2d_prepack(weight, None, [2, 1], [1, 0], [1, 2], 1)
        y = torch.ops.quantized.conv2d(q, held, 0.1, 0)
        y = torch.ops.quantized.cat([y, y], 1, 0.1, 0)
        y = torch.ops.quantized.mul(y, torch.ops.quantized.add(y, y, 0.1, 0), 0.2, 0)
        return torch.dequantize(y)


def test_what_is_packed_outside_of_a_layer_is_a_constant():
    x = torch.rand(1, 2, 8, 9)
    recording = record(Packed(), x)
    summary = summarize(recording)
    conv = next(o for o in summary.operators if o.op == "conv2d")
    assert (conv.output_shape, conv.macs) == ((1, 4, 4, 5), 4 * 4 * 5 * 2 * 9)
    field = summary.operators[-1].receptive_field
    assert (field["size"], field["stride"], field["padding"]) == ((3, 5), (2, 1), (1, 0))
    assert summary.total.params == 0


def test_dynamic_products_count_and_read_a_row():
    model = torch.ao.quantization.quantize_dynamic(nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3)))
    summary = summarize(record(model, torch.rand(2, 6)))
    assert (summary.total.params, summary.total.macs) == (6 * 5 + 5 + 5 * 3 + 3, 2 * (6 * 5 + 5 * 3))
    assert summary.operators[-1].receptive_field["global_through"] or summary.operators[-1].receptive_field["size"]
