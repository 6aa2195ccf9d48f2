"""Attributions against definitions in loops, captum, and networks whose answer is known by construction."""

import captum.attr
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.stats import spearmanr
from torch import nn

from convscope import record
from convscope.errors import InputError, ModelError
from convscope.explain.attribution import METHODS, attribute, default_layer
from convscope.explain.targets import box_score, logit_sum, unit
from convscope.models import LeNet5


def small(seed=0, **options):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1), nn.ReLU(inplace=True), nn.MaxPool2d(2), nn.Conv2d(4, 5, 3), nn.ReLU(),
        nn.Flatten(), nn.Linear(5 * 4 * 4, 3),
    ).eval()  # fmt: skip


class LooksFor(nn.Module):
    """Class 1 is how well the best place agrees with a pattern; class 0 is nothing."""

    def __init__(self, pattern):
        super().__init__()
        self.match = nn.Conv2d(1, 1, pattern.shape[-1], bias=False)
        self.match.weight.data = pattern[None, None]
        self.positive = nn.ReLU()

    def forward(self, x):
        found = self.positive(self.match(x) - 4).flatten(1).sum(1, keepdim=True)
        return torch.cat([torch.zeros_like(found), found], dim=1)


@pytest.mark.parametrize("method", METHODS)
def test_every_method_finds_what_the_network_looks_for(method):
    torch.manual_seed(0)
    pattern = torch.tensor([[1.0, -1, 1], [-1, 1, -1], [1, -1, 1]])
    x = 0.1 * torch.randn(1, 1, 24, 24)
    x[0, 0, 15:18, 6:9] += pattern
    made = attribute(LooksFor(pattern), x, method)
    assert made.target == "class 1"
    size = np.abs(made.map)
    near = size[12:21, 3:12].sum() / size.sum()  # 81 of 576 places
    assert near > 0.8, near
    row, column = np.unravel_index(size.argmax(), size.shape)
    assert 13 <= row <= 19
    assert 4 <= column <= 10


@pytest.mark.parametrize("seed", range(4))
def test_integrated_gradients_add_up_to_the_rise_of_the_score(seed):
    model, x = small(seed), torch.randn(1, 2, 12, 12)
    made = attribute(model, x, "integrated-gradients", target=2)
    with torch.no_grad():
        risen = float((model(x) - model(torch.zeros_like(x)))[0, 2])
    assert made.map.sum(dtype=np.float64) == pytest.approx(risen, abs=0.02 * (abs(risen) + 1))
    assert made.gap == pytest.approx(made.map.sum(dtype=np.float64) - risen, abs=1e-4)
    assert made.score == pytest.approx(float(model(x)[0, 2].detach()))


def test_integrated_gradients_of_a_linear_network_are_weight_times_input():
    model, x = nn.Sequential(nn.Flatten(), nn.Linear(50, 2)), torch.randn(1, 2, 5, 5)
    made = attribute(model, x, "integrated-gradients", target=1)
    assert np.allclose(made.map, (model[1].weight[1].view(2, 5, 5) * x[0]).sum(0).detach(), atol=1e-5)
    assert abs(made.gap) < 1e-4


def test_saliency_is_the_largest_gradient_by_finite_differences():
    model, x = small().double(), torch.randn(1, 2, 12, 12, dtype=torch.float64)
    made, step = attribute(model, x, "saliency", target=0).map, 1e-6
    for row, column in ((0, 0), (5, 7), (11, 3)):
        slopes = []
        for channel in range(2):
            moved = torch.zeros_like(x)
            moved[0, channel, row, column] = step
            with torch.no_grad():
                slopes.append(float((model(x + moved) - model(x - moved))[0, 0]) / (2 * step))
        assert made[row, column] == pytest.approx(max(map(abs, slopes)), rel=1e-4, abs=1e-7)


def test_smooth_grad_of_a_linear_network_is_its_saliency_and_the_seed_decides_elsewhere():
    linear, x = nn.Sequential(nn.Flatten(), nn.Linear(50, 2)), torch.randn(1, 2, 5, 5)
    made = [attribute(linear, x, m, target=1).map for m in ("saliency", "smooth-grad")]
    assert np.allclose(*made, atol=1e-6)
    first, again, other = (
        attribute(small(), torch.ones(1, 2, 12, 12).tril(), "smooth-grad", target=1, seed=s).map for s in (0, 0, 1)
    )
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_occlusion_is_the_mean_fall_of_the_windows_that_cover_a_place():
    model, x = small(), torch.randn(1, 2, 12, 12)
    made = attribute(model, x, "occlusion", target=1).map
    falls, times, window = np.zeros((12, 12)), np.zeros((12, 12)), 1  # 12 // 8
    with torch.no_grad():
        whole = float(model(x)[0, 1])
        for row in range(12):
            for column in range(12):
                cut = x.clone()
                cut[..., row : row + window, column : column + window] = 0
                falls[row : row + window, column : column + window] += whole - float(model(cut)[0, 1])
                times[row : row + window, column : column + window] += 1
    assert np.allclose(made, falls / times, atol=1e-5)


def test_overlapping_windows_of_occlusion_are_averaged():
    torch.manual_seed(1)
    model, x = nn.Sequential(nn.Flatten(), nn.Linear(32 * 32, 1)), torch.randn(1, 1, 32, 32)
    made = attribute(model, x, "occlusion", target=0).map
    parts = (model[1].weight.view(32, 32) * x[0, 0]).detach().numpy()
    falls, times = np.zeros((32, 32)), np.zeros((32, 32))
    for row in range(0, 29, 2):
        for column in range(0, 29, 2):
            falls[row : row + 4, column : column + 4] += parts[row : row + 4, column : column + 4].sum()
            times[row : row + 4, column : column + 4] += 1
    assert np.allclose(made, falls / times, atol=1e-4)


def by_loops(model, x, target, layer, plus):
    """Grad-CAM (equations 1 and 2) or Grad-CAM++ (equations 10 and 19), one number at a time."""
    A = model[: layer + 1](x).detach().requires_grad_()
    (G,) = torch.autograd.grad(model[layer + 1 :](A)[0, target], A)
    A, G = A.detach()[0].double().numpy(), G[0].double().numpy()
    channels, rows, columns = A.shape
    cam = np.zeros((rows, columns))
    for k in range(channels):
        weight = 0.0
        for i in range(rows):
            for j in range(columns):
                if not plus:
                    weight += G[k, i, j] / (rows * columns)
                elif G[k, i, j] > 0:
                    weight += G[k, i, j] ** 2 / (2 * G[k, i, j] ** 2 + sum(A[k].flat * G[k, i, j] ** 3)) * G[k, i, j]
        cam += weight * A[k]
    return np.maximum(cam, 0)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("layer", [1, 2, 4])
@pytest.mark.parametrize("plus", [False, True])
def test_grad_cam_is_its_definition(seed, layer, plus):
    model, x = small(seed), torch.randn(1, 2, 12, 12)
    made = attribute(model, x, "grad-cam++" if plus else "grad-cam", target=2, layer=str(layer))
    assert np.allclose(made.cells, by_loops(model, x, 2, layer, plus), atol=1e-5)
    assert made.layer == str(layer)
    assert made.map.shape == (12, 12)


def test_grad_cam_is_captums():
    model, x = LeNet5().eval(), torch.randn(1, 1, 32, 32)
    theirs = captum.attr.LayerGradCam(model, model.features.C3).attribute(x, target=4, relu_attributions=True)
    ours = attribute(model, x, "grad-cam", target=4, layer="C3")
    assert np.allclose(ours.cells, theirs[0, 0].detach(), atol=1e-6)
    assert np.allclose(ours.map, F.interpolate(theirs, (32, 32), mode="bilinear")[0, 0].detach(), atol=1e-6)


@pytest.mark.parametrize("method", METHODS)
def test_the_map_is_of_the_weights(method):
    """Random weights change the map. Source: Adebayo et al. 2018, "Sanity checks for saliency maps"."""
    x = torch.randn(1, 1, 32, 32, generator=torch.Generator().manual_seed(5))
    alike = []
    for seed in range(4):
        torch.manual_seed(seed)
        one, other = LeNet5(), LeNet5()
        maps = [
            attribute(m, x, method, target=3).map[8:24, 8:24].ravel() for m in (one, other)
        ]  # borders are read less
        alike.append(spearmanr(*maps).statistic if all(np.ptp(m) > 0 for m in maps) else 0.0)
    assert abs(np.mean(alike)) < 0.3, alike


@pytest.mark.parametrize("method", METHODS)
def test_nothing_of_the_model_changes(method):
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Dropout(), nn.ReLU(inplace=True), nn.Flatten(),
                          nn.Linear(72, 2))  # fmt: skip
    model.train()
    model[0].weight.requires_grad_(False)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    x, state = torch.randn(1, 1, 8, 8), torch.get_rng_state()
    kept = x.clone()
    attribute(model, x, method)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert [p.requires_grad for p in model.parameters()] == [False, *[True] * 5]
    assert all(p.grad is None for p in model.parameters())
    assert all(m.training and not m._forward_hooks and not m._backward_hooks for m in model.modules())
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(x, kept)
    assert not x.requires_grad


def test_the_default_layer_is_the_last_with_places():
    assert default_layer(record(LeNet5(), torch.zeros(1, 1, 32, 32))) == "features.S4"
    assert default_layer(record(small(), torch.zeros(1, 2, 12, 12))) == "4"


def test_segmentation_by_a_sum_of_logits_or_a_unit():
    model, x = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 2, 1)), torch.randn(1, 1, 9, 9)
    whole = attribute(model, x, "saliency", target=logit_sum(1))
    assert whole.target == "logit_sum"
    with torch.no_grad():
        assert whole.score == pytest.approx(float(model(x)[0, 1].sum()), abs=1e-5)
    one = attribute(model, x, "saliency", target=unit(1, 4, 4)).map
    assert one[3:6, 3:6].sum() > 0
    one[3:6, 3:6] = 0
    assert one.sum() == 0


def test_detection_by_the_score_of_a_box():
    class Detector(nn.Module):
        """Two boxes; the score of each is the mean of the picture in it."""

        def forward(self, x):
            boxes = torch.tensor([[0.0, 0, 4, 4], [8, 8, 12, 12]])
            means = [torch.stack([p[:, :4, :4].mean(), p[:, 8:12, 8:12].mean()]) for p in x]
            return [{"boxes": boxes, "scores": m, "labels": torch.tensor([1, 2])} for m in means]

    made = attribute(Detector(), torch.rand(1, 1, 16, 16), "saliency", target=box_score((8, 8, 12, 11), label=2))
    inside = made.map[8:12, 8:12].sum()
    assert inside == pytest.approx(1) == made.map.sum(), "a mean of 16 pixels has 16 slopes of 1/16"


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize("method", METHODS)
def test_other_types_give_the_same_map_up_to_rounding(method, dtype):
    model, x = small(), torch.randn(1, 2, 12, 12)
    want = attribute(model, x, method, target=1).map
    made = attribute(model.to(dtype), x, method, target=1)
    assert made.map.dtype == np.float32
    alike = np.corrcoef(want.ravel(), made.map.ravel())[0, 1]
    assert alike > (
        0.9 if dtype is torch.bfloat16 and "smooth" not in method else 0.5 if "smooth" in method else 0.9999
    )


def test_what_does_not_fit_is_said_in_a_sentence():
    model, x = small(), torch.randn(1, 2, 12, 12)
    for told, call in {
        "method 'gradcam': there is none of that name; use one of saliency, smooth-grad": {"method": "gradcam"},
        "target 3: the model has classes 0 to 2": {"target": 3},
        "layer '9': the model has no module of that name": {"method": "grad-cam", "layer": "9"},
        "layer '5': its output 1x80 has no places to tell apart": {"method": "grad-cam", "layer": "5"},
        "looks at no layer": {"layer": "1"},
        "return one number a sample": {"target": lambda outputs: outputs},
    }.items():
        with pytest.raises(InputError, match=told):
            attribute(model, x, **{"method": "saliency", **call})
    with pytest.raises(InputError, match="give one picture"):
        attribute(model, x.repeat(2, 1, 1, 1), "saliency")
    with pytest.raises(ModelError, match="does not take a batch of 1x1x12x12"):
        attribute(model, x[:, :1], "saliency")
    with pytest.raises(InputError, match="no layer has more than one place"):
        attribute(nn.Sequential(nn.Flatten(), nn.Linear(288, 2)), x, "grad-cam")
    with pytest.raises(InputError, match="not N x classes; give a function"):
        attribute(model[:1], x, "saliency", target=0)
    with pytest.raises(ModelError, match="gives no gradient"):
        attribute(nn.Sequential(nn.Flatten(), Blocked()), x, "saliency", target=0)


class Blocked(nn.Module):
    def forward(self, x):
        return x.detach()[:, :2]
