"""Receptive fields against the support of the gradient."""

import time

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from networks import SIZE, Squeeze, View, Windows, networks, ones, output, positive, support
from torch import nn

from convscope import receptive_field, record, summarize
from convscope.inspect import fields, reach
from convscope.models import build


def field_of(model, x, layer=None):
    recording = record(model, x)
    op = recording.ops[-1] if layer is None else recording.find(layer)
    return fields(recording)[op.outputs[0].id]


def places(mask):
    """First and last row and column."""
    return [(int(axis.min()), int(axis.max())) for axis in mask[0, 0].nonzero()]


def units(data, made):
    return tuple(data.draw(st.integers(0, n - 1)) for n in made.shape)


@settings(max_examples=100, deadline=None)
@given(model=networks(), data=st.data())
def test_box_and_local_field_hold_the_gradients_support(model, data):
    x, model = ones(), positive(model)
    made = output(model, x)
    assume(made is not None)
    recording, unit = record(model, x), units(data, made)
    op = recording.ops[-1]
    found = support(model, x, unit)
    assume(found.any())
    box, local = receptive_field(recording, op, unit=unit), fields(recording)[op.outputs[0].id].at(unit)
    for (lo, hi), (p, q), (first, last) in zip(box[2:], local, places(found), strict=True):
        assert lo <= first <= last <= hi
        assert p <= first <= last <= q


@settings(max_examples=100, deadline=None)
@given(model=networks(padded=False), data=st.data())
def test_where_no_padding_is_read_the_local_field_is_the_hull_of_the_support(model, data):
    """Holes and phases or not; a transposed convolution reads padding at its borders, too. Units that see a mirrored
    border are left out: with zeros in its place they see something else."""
    x, model = ones(), positive(model)
    made = output(model, x)
    assume(made is not None)
    field, unit = field_of(model, x), units(data, made)
    found = support(model, x, unit)
    mirrors = nn.ReflectionPad2d | nn.ReplicationPad2d
    bare = nn.Sequential(*(nn.ZeroPad2d(m.padding) if isinstance(m, mirrors) else m for m in model))
    assume(np.array_equal(found, support(bare, x, unit)))
    box = field.at(unit)
    if field.is_bound:  # more units than are followed share a pattern, or windows lie within windows
        assert any(isinstance(m, View | Windows) for m in model.modules())
    elif box is None:
        assert not found.any()
    elif all(lo >= 0 and hi < n for (lo, hi), n in zip(box, SIZE, strict=True)):
        assert box == tuple(places(found))
        assert all(hi - lo + 1 <= size for (lo, hi), size in zip(box, field.size, strict=True))


@pytest.mark.parametrize("unit", [(1, 1), (1, 2), (2, 30), (44, 56)])
def test_gaps_between_strides_go_on_behind_a_view(unit):
    model = positive(nn.Sequential(nn.ConvTranspose2d(1, 1, 1, 2), View(), nn.ConvTranspose2d(1, 1, 2)))
    field = field_of(model, ones())
    assert all(line.period == 2 for line in field.lines)
    assert field.at((0, 0, *unit)) == tuple(places(support(model, ones(), (0, 0, *unit))))


def test_axes_of_one_element_that_a_view_drops_are_still_seen():
    net = nn.Sequential(nn.Conv2d(3, 10, 8), nn.Flatten())
    shown = summarize(record(net, torch.zeros(1, 3, 8, 8))).operators[-1].receptive_field
    assert shown is not None
    assert (shown["size"], shown["global_through"], shown["bound"]) == (None, ("1",), False)


class UNet(nn.Module):
    """Two levels, 3x3 convolutions, up-sampled by transposed convolutions."""

    def __init__(self, up_size=2):
        super().__init__()
        self.down = nn.ModuleList(self._double(1 if i == 0 else 2) for i in range(3))
        self.up = nn.ModuleList(nn.ConvTranspose2d(2, 2, up_size, 2, (up_size - 2) // 2) for _ in range(2))
        self.mix = nn.ModuleList(self._double(4) for _ in range(2))
        self.pool = nn.AvgPool2d(2)

    def _double(self, channels):
        return nn.Sequential(nn.Conv2d(channels, 2, 3, padding=1), nn.Conv2d(2, 2, 3, padding=1))

    def forward(self, x):
        kept = []
        for i, level in enumerate(self.down):
            x = level(x if i == 0 else self.pool(x))
            kept.append(x)
        for up, mix, skip in zip(self.up, self.mix, reversed(kept[:-1]), strict=True):
            x = mix(torch.cat([skip, up(x)], 1))
        return x


@pytest.mark.parametrize(("up_size", "sizes"), [(2, {44}), (4, {48, 52})])
def test_a_unet_has_its_exact_field_in_every_phase(up_size, sizes):
    model, x = positive(nn.Sequential(UNet(up_size))), ones(size=(96, 96))
    recording = record(model, x)
    field, truth = fields(recording)[recording.ops[-1].outputs[0].id], {}
    for row in range(44, 52):
        unit = (0, 0, row, 47)
        found = support(model, x, unit)
        assert np.array_equal(reach(recording, recording.ops[-1], unit=unit).mask(), found)
        truth[row] = places(found)[0]
        assert field.at(unit) == tuple(places(found))
    assert {hi - lo + 1 for lo, hi in truth.values()} == sizes
    assert (field.size, field.has_phases) == ((max(sizes), max(sizes)), len(sizes) > 1)
    assert (field.stride, field.is_bound) == ((1, 1), False)


def test_squeeze_excitation_has_a_local_field_beside_everything():
    model = nn.Sequential(nn.Conv2d(1, 1, 3, padding=1), Squeeze(), nn.Conv2d(1, 1, 3, 2, 1))
    field = field_of(model, torch.zeros(1, 1, 32, 32))
    assert (field.size, field.stride, field.padding) == ((5, 5), (2, 2), (2, 2))
    assert field.global_through == ("1",)


SQUEEZED = ["efficientnet_b0", "mobilenet_v3_small", "mobilenet_v3_large", "regnet_y_400mf", "efficientnet_v2_s"]


@pytest.mark.parametrize("name", SQUEEZED)
def test_every_layer_behind_a_squeeze_shows_both(name):
    model, x = build(f"torchvision:{name}"), torch.zeros(1, 3, 224, 224)
    recording = record(model, x)
    found, squeezes = (
        fields(recording),
        [n for n, m in model.named_modules() if type(m).__name__ == "SqueezeExcitation"],
    )
    maps = [op for op in recording.ops if len(op.outputs[0].shape) == 4 and op.outputs[0].shape[-1] > 1]
    for op in maps:
        field = found[op.outputs[0].id]
        assert field.is_local
        assert not field.is_bound
        through = {n.rpartition(".")[0] for n in field.global_through}
        assert through == set(squeezes[: len(through)])
    assert through == set(squeezes)
    plain = record(without_squeezes(model), x)
    last = [op for op in plain.ops if len(op.outputs[0].shape) == 4 and op.outputs[0].shape[-1] > 1][-1]
    assert fields(plain)[last.outputs[0].id].lines == found[maps[-1].outputs[0].id].lines


def without_squeezes(model):
    for module in model.modules():
        for name, child in module.named_children():
            if type(child).__name__ == "SqueezeExcitation":
                setattr(module, name, nn.Identity())
    return model


def test_deeplab_has_its_image_pooling_beside_its_dilated_branches():
    from torchvision.models.segmentation import deeplabv3_resnet50

    model = deeplabv3_resnet50(weights=None, weights_backbone=None).eval()
    field = field_of(model, torch.zeros(1, 3, 256, 256), "classifier.0.project.0")
    assert (field.is_local, field.global_through) == (True, ("classifier.0.convs.4.0",))
    last = field_of(model.backbone, torch.zeros(1, 3, 256, 256), "layer4.2")
    assert field.size == tuple(n + 2 * 36 * 8 for n in last.size)  # 3x3 taps 36 apart, at stride 8


def test_attention_sees_everything_and_its_own_patch():
    field = field_of(build("torchvision:vit_b_16"), torch.zeros(1, 3, 224, 224), "encoder.ln")
    assert (field.size, field.stride, field.padding) == ((16, 16), None, None)
    assert field.global_through == tuple(f"encoder.layers.encoder_layer_{i}.self_attention" for i in range(12))
    assert field.at((0, 1 + 14 * 3 + 5, 0)) == ((48, 63), (80, 95))  # behind the class token


def test_a_view_that_drops_a_last_axis_keeps_the_field():
    model = nn.Sequential(nn.Conv2d(1, 1, (3, 8)), nn.Flatten(2), nn.Conv1d(1, 1, 3))
    field = field_of(model, torch.zeros(1, 1, 12, 8), "2")
    assert (field.size, field.stride) == ((5, 8), (1, 0))
    woven = field_of(nn.Sequential(nn.Conv2d(1, 4, 3), nn.PixelShuffle(2)), torch.zeros(1, 1, 8, 8))
    assert (woven.size, woven.stride) == ((3, 3), (0.5, 0.5))
    dropped = field_of(
        nn.Sequential(nn.Conv1d(1, 1, 3, 2), nn.AdaptiveMaxPool1d(1), nn.Flatten(0)), torch.zeros(1, 1, 4)
    )
    assert dropped.size == (3,)


def test_detectors_write_their_pictures_into_a_batch_and_keep_their_fields():
    from torchvision.models import detection

    model = detection.retinanet_resnet50_fpn(weights=None, weights_backbone=None, min_size=128, max_size=256).eval()
    field = field_of(model, torch.zeros(1, 3, 128, 128), "backbone.body.layer2.0.conv1")
    assert (field.size, field.stride, field.padding, field.global_through) == ((35, 35), (4, 4), (17, 17), ())


def test_windows_see_themselves_and_a_view_alone_is_a_bound():
    x = torch.zeros(1, 1, 12, 8)
    seen = field_of(Windows(), x)
    assert (seen.size, seen.stride, seen.is_bound, seen.at((0, 0, 4, 5))) == ((3, 2), (1, 1), False, ((3, 5), (4, 5)))
    blocks = field_of(nn.Unflatten(2, (4, 3)), x)
    assert (blocks.size, blocks.stride, blocks.is_bound) == ((3, 1), (3, 1), True)


def test_statistics_of_the_batch_are_everything():
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))
    assert field_of(model.eval(), torch.zeros(2, 1, 8, 8)).global_through == ()
    assert field_of(model.train(), torch.zeros(2, 1, 8, 8)).global_through == ("1",)
    assert field_of(nn.InstanceNorm2d(2), torch.zeros(1, 2, 8, 8)).global_through == ("native_batch_norm",)


def test_the_time_grows_with_the_operators_and_not_with_their_square():
    seconds = {}
    for count in (1_000, 10_000):
        layers = [nn.Conv1d(1, 1, 3, padding=1) if i % 2 else nn.ReLU() for i in range(count)]
        recording = record(nn.Sequential(nn.ConvTranspose1d(1, 1, 2, 2), *layers), torch.zeros(1, 1, 16))
        start = time.process_time()
        field = fields(recording)[recording.ops[-1].outputs[0].id]
        seconds[count] = time.process_time() - start
    assert seconds[10_000] < 40 * seconds[1_000]
    assert field.size == (5001,)
