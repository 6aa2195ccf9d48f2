"""Whatever people bring: it is recorded, summarised, replayed to the same outputs, and not changed."""

import copy
import random
import warnings
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torchvision
from networks import packed_count
from torch import nn
from torch.utils.checkpoint import checkpoint

from convscope import record, replay, summarize
from convscope.errors import ModelError
from convscope.graph.values import tensors_of


class Call(nn.Module):
    """A forward pass as a function of the module and its inputs."""

    def __init__(self, forward, **parts):
        super().__init__()
        self.function = forward
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, *x):
        return self.function(self, *x)


@dataclass
class Pair:
    left: torch.Tensor
    right: torch.Tensor


class Named(NamedTuple):
    left: torch.Tensor
    right: torch.Tensor


def conv():
    return nn.Conv2d(3, 3, 3, padding=1)


def tied():
    a, b = nn.Linear(4, 4), nn.Linear(4, 4)
    b.weight = a.weight
    return nn.Sequential(a, b)


def counting(self, x):
    self.calls += 1
    self.seen.append(x.shape)
    self.buffer = self.buffer + x.mean()
    return x * self.buffer + random.random() * 0 + np.random.rand() * 0


def counter():
    model = Call(counting, calls=0, seen=[])
    model.register_buffer("buffer", torch.zeros(1))
    return model


def weights_in_place(self, x):
    with torch.no_grad():
        self.conv.weight.clamp_(-0.01, 0.01)
    return self.conv(x.mul_(2))


def branch(self, x):
    return self.conv(x) if x.sum() > 0 else x


def checkpointed(reentrant):
    return Call(lambda self, x: checkpoint(self.conv, x, use_reentrant=reentrant) + x, conv=conv())


@torch.inference_mode()
def without_autograd(self, x):
    return F.linear(F.relu(self.conv(x)).mean((2, 3)), torch.ones(2, 3))


def picture():
    return torch.rand(1, 3, 8, 8)


def compiled_inside():
    model = nn.Sequential(conv(), nn.ReLU())
    model[0] = torch.compile(model[0])
    return model


def scripted():
    with warnings.catch_warnings(action="ignore"):
        return torch.jit.script(nn.Sequential(conv(), nn.ReLU()))


def autocast(self, x):
    with torch.autocast("cpu", torch.bfloat16):
        return F.conv2d(x, self.w)


def through_numpy(self, x):
    return torch.from_numpy(2 * self.conv(x).detach().numpy()) + x


def chosen(self, x):
    return torch.cond(x.sum() > 0, lambda y: self.conv(y), lambda y: y * 2, (x,))


CASES = {
    "functional": (
        lambda: Call(lambda self, x: F.relu(F.conv2d(x, self.w)), w=nn.Parameter(torch.rand(2, 3, 3, 3))),
        [picture],
    ),
    "called twice": (lambda: Call(lambda self, x: self.conv(self.conv(x)), conv=conv()), [picture]),
    "shared weights": (tied, [lambda: torch.rand(2, 4)]),
    "in place": (lambda: nn.Sequential(conv(), nn.ReLU(inplace=True), nn.Dropout(inplace=True)), [picture]),
    "dict in, dict out": (
        lambda: Call(lambda self, x: {"y": self.conv(x["a"]) + x["b"]}, conv=conv()),
        [lambda: {"a": picture(), "b": picture()}],
    ),
    "dataclass": (
        lambda: Call(lambda self, x: Pair(self.conv(x.left), x.right + 1), conv=conv()),
        [lambda: Pair(picture(), picture())],
    ),
    "named tuple": (
        lambda: Call(lambda self, x: Named(self.conv(x.left), x.right + 1), conv=conv()),
        [lambda: Named(picture(), picture())],
    ),
    "lists": (lambda: Call(lambda self, x: [self.conv(y) for y in x], conv=conv()), [lambda: [picture(), picture()]]),
    "several inputs": (lambda: nn.Bilinear(4, 5, 3), [lambda: torch.rand(2, 4), lambda: torch.rand(2, 5)]),
    "branch": (lambda: Call(branch, conv=conv()), [picture]),
    "a script inside": (lambda: nn.Sequential(conv(), scripted()), [picture]),
    "a script": (scripted, [picture]),
    "autocast": (lambda: Call(autocast, w=nn.Parameter(torch.rand(2, 3, 3, 3))), [picture]),
    "numpy inside": (lambda: Call(through_numpy, conv=conv()), [picture]),
    "conditional operator": (lambda: Call(chosen, conv=conv()), [picture]),
    "Fourier transform": (
        lambda: Call(lambda self, x: torch.fft.irfft2(torch.fft.rfft2(self.conv(x))), conv=conv()),
        [picture],
    ),
    "mapped": (
        lambda: Call(lambda self, x: torch.func.vmap(lambda y: self.conv(y[None])[0])(x), conv=conv()),
        [picture],
    ),
    "half": (lambda: conv().half(), [lambda: picture().half()]),
    "bfloat16": (lambda: nn.Sequential(conv(), nn.BatchNorm2d(3)).bfloat16(), [lambda: picture().bfloat16()]),
    "compiled": (lambda: torch.compile(nn.Sequential(conv(), nn.ReLU())), [picture]),
    "compiled inside": (compiled_inside, [picture]),
    "checkpointed": (lambda: checkpointed(False), [picture]),
    "checkpointed, reentrant": (lambda: checkpointed(True), [picture]),
    "inference mode inside": (lambda: Call(without_autograd, conv=conv()), [picture]),
    "state that grows": (counter, [picture]),
    "weights changed in place": (lambda: Call(weights_in_place, conv=conv()), [picture]),
    "spectral norm": (lambda: nn.utils.parametrizations.spectral_norm(nn.Linear(4, 4)), [lambda: torch.rand(2, 4)]),
    "attention": (lambda: nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), [lambda: torch.rand(1, 5, 8)]),
    "recurrent": (lambda: nn.LSTM(4, 5, batch_first=True), [lambda: torch.rand(2, 3, 4)]),
    "quantised": (
        lambda: torchvision.models.quantization.shufflenet_v2_x0_5(quantize=True),
        [lambda: torch.rand(1, 3, 64, 64)],
    ),
    "optical flow": (
        lambda: torchvision.models.optical_flow.raft_small(),
        [lambda: torch.rand(1, 3, 128, 128), lambda: torch.rand(1, 3, 128, 128)],
    ),
    "detector": (
        lambda: torchvision.models.detection.ssdlite320_mobilenet_v3_large(weights=None, weights_backbone=None),
        [lambda: [torch.rand(3, 64, 80)]],
    ),
}
FUSED = {"attention", "recurrent"}  # PyTorch has a kernel that does it all at once: other roundings


def snapshot(model):
    """All that may not change: parameters, buffers, flags, hooks, attributes, random states."""
    tensors = {n: t.clone() for n, t in (*model.named_parameters(), *model.named_buffers()) if not t.is_quantized}
    buffers = [[n for n, _ in m.named_buffers(recurse=False)] for m in model.modules()]
    hooks = [(len(m._forward_hooks), len(m._forward_pre_hooks)) for m in model.modules()]
    facts = [(m.training, sorted(m.__dict__)) for m in model.modules()], hooks, buffers
    held = [(m.__dict__.get("calls"), list(m.__dict__.get("seen", ()))) for m in model.modules()]
    return tensors, facts, held, torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()


def same(a, b):
    return (
        a[0].keys() == b[0].keys()
        and all(torch.equal(a[0][n], b[0][n]) for n in a[0])
        and a[1:3] == b[1:3]
        and torch.equal(a[3], b[3])
        and a[4] == b[4]
        and np.array_equal(a[5], b[5])
    )


@pytest.mark.filterwarnings("ignore:.*checkpoint:UserWarning", "ignore::DeprecationWarning", "ignore:.*quantiz.*")
@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad", "ignore:must run observer")
@pytest.mark.parametrize("keep", [None, lambda op: False], ids=["meta", "real"])
@pytest.mark.parametrize("name", CASES)
def test_it_is_recorded_summarised_replayed_to_the_same_and_not_changed(name, keep):
    torch.manual_seed(0)
    make, inputs = CASES[name]
    model, x = make().eval(), [part() for part in inputs]
    before, given = snapshot(model), copy.deepcopy(x)
    recording = record(model, *x, keep=keep)
    assert same(before, snapshot(model))
    assert all(torch.equal(a, b) for a, b in zip(tensors_of(x), tensors_of(given), strict=True))
    summary = summarize(recording)
    assert summary.total.params == sum(p.numel() for p in model.parameters()) + packed_count(model)
    assert str(summary)
    replayed = replay(recording, model, *x)
    with torch.no_grad(), torch.compiler.set_stance("force_eager"):
        expected = list(tensors_of(copy.deepcopy(getattr(model, "_orig_mod", model))(*copy.deepcopy(x))))
    assert len(replayed) == len(expected)
    for a, b in zip(replayed, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5 if name in FUSED else 0, atol=1e-6 if name in FUSED else 0)


def test_a_detector_in_training_takes_pictures_and_targets():
    model = CASES["detector"][0]().train()
    targets = [{"boxes": torch.tensor([[5.0, 5.0, 40.0, 40.0]]), "labels": torch.tensor([1])}]
    recording = record(model, [torch.rand(3, 64, 64)] * 2, targets * 2)
    assert len(recording.outputs) == 2
    assert summarize(recording).total.params == sum(p.numel() for p in model.parameters())


def test_a_lazy_model_keeps_no_shapes_and_that_is_said():
    model = nn.Sequential(nn.LazyConv2d(4, 3), nn.ReLU(), nn.LazyBatchNorm2d())
    recording = record(model, torch.rand(1, 3, 8, 8))
    assert summarize(recording).total.params == 3 * 4 * 9 + 4 + 8
    assert "recorded on a copy, since the model is lazy" in recording.notes[0]
    assert nn.parameter.is_lazy(model[0].weight)


def test_a_model_on_the_meta_device_is_recorded_and_asked_for_values_refuses():
    with torch.device("meta"):
        model = torchvision.models.resnet18().eval()
    assert summarize(record(model, torch.rand(1, 3, 64, 64))).total.params == 11_689_512
    with pytest.raises(ModelError):
        record(model, torch.rand(1, 3, 64, 64), keep=lambda op: True)


@pytest.mark.parametrize("inside", [False, True])
def test_in_inference_mode_the_same_is_recorded(inside):
    model, x = nn.Sequential(conv(), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(192, 2)).eval(), picture()
    expected = [op.target for op in record(model, x).ops]
    with torch.inference_mode():
        made = torch.rand(1, 3, 8, 8)
        assert [op.target for op in record(model, made, keep=(lambda op: True) if inside else None).ops] == expected


@pytest.mark.parametrize("model", [Call(lambda self, x: self.conv(x).relu(), conv=conv()), tied()])
def test_a_recorded_training_step_replays_to_autograds_gradients(model):
    x = torch.rand(2, 4) if isinstance(model, nn.Sequential) else picture()
    outputs = list(tensors_of(model(x)))
    wanted = torch.autograd.grad([t.sum() for t in outputs], list(model.parameters()))
    recording = record(model.eval(), x, backward=True)
    assert not model.training
    assert recording.ops[recording.backward_from].name == "ones_like"
    replayed = replay(recording, model, x)
    for a, b in zip(replayed, (*outputs, *wanted), strict=True):
        torch.testing.assert_close(a, b)
    assert all(p.grad is None for p in model.parameters())


def test_a_wrong_shape_names_module_operator_and_shapes():
    model = nn.Sequential(conv(), nn.Flatten(), nn.Linear(7, 2))
    with pytest.raises(ModelError) as error:
        record(model, picture())
    words = str(error.value)
    assert words.startswith("2 raised RuntimeError")
    assert "in addmm of 2, 1x192, 7x2 on input 1x3x8x8; check the input's shape" in words


def test_missing_inputs_are_named():
    with pytest.raises(ModelError) as error:
        record(nn.Bilinear(4, 5, 3), torch.rand(2, 4))
    assert "cannot take 1 input (missing a required argument: 'input2'); give each of its inputs" in str(error.value)


def test_a_model_that_raises_is_quoted():
    def refuse(self, x):
        raise KeyError("no such head")

    with pytest.raises(ModelError, match="the model raised KeyError: 'no such head' on input 1x3x8x8"):
        record(Call(refuse), picture())


def test_inputs_are_given_by_name_too():
    model = Call(None)
    model.forward = lambda x, *, scale: {"y": x * scale}
    recording = record(model, torch.rand(1, 2), named={"scale": torch.rand(2)})
    assert [v.shape for v in recording.inputs] == [(1, 2), (2,)]
    with pytest.raises(ModelError, match=r"cannot take 1 input .*'scale'"):
        record(model, torch.rand(1, 2))


def test_under_autocast_types_are_those_of_real_tensors():
    model, x = CASES["autocast"][0](), picture()
    recording = record(model, x)
    assert recording.outputs[0].dtype == torch.bfloat16
    assert recording.notes == ("recorded on real tensors, since autocast needs values",)
    told = record(model.to("meta"), x.to("meta"))
    assert told.notes == ("tensors without values do not follow autocast: types are as without it",)


def reached(recording):
    """The values that the first input flows into."""
    found = {recording.inputs[0].id}
    for op in recording.ops:
        if any(v.id in found for v in op.inputs):
            found |= {v.id for v in op.outputs}
    return found


ESCAPES = {
    "numpy": lambda self, x: torch.from_numpy(x.numpy() * 2),
    "asarray": lambda self, x: torch.tensor(np.asarray(x).sum()) + torch.ones(2),
    "tolist": lambda self, x: torch.tensor(x.tolist()),
    "item": lambda self, x: torch.tensor(2 * x.sum().item()) * torch.ones(2),
    "the very number": lambda self, x: torch.ones(2) * x.sum().item(),
}


@pytest.mark.parametrize("name", ESCAPES)
def test_what_comes_back_from_outside_of_pytorch_is_reached_from_the_input(name):
    x = torch.tensor([0.3, 0.45])
    recording = record(Call(ESCAPES[name]), x)
    assert recording.outputs[0].id in reached(recording)
    assert "left PyTorch as numbers or arrays" in recording.notes[-1]
    (replayed,) = replay(recording, Call(ESCAPES[name]), x)
    assert torch.equal(replayed, ESCAPES[name](None, x))
    assert summarize(recording).total.unknown == ()


def test_constants_of_the_model_are_not_taken_for_what_came_back():
    model = Call(lambda self, x: self.table + (x.sum().item() > 0), table=torch.ones(2))
    recording = record(model, torch.rand(2))
    assert recording.outputs[0].id not in reached(recording)


def test_a_detector_of_masks_reaches_its_outputs_from_its_input():
    torch.manual_seed(0)
    small = {"min_size": 64, "max_size": 64, "box_score_thresh": 0.0, "box_detections_per_img": 2}
    model = torchvision.models.detection.maskrcnn_resnet50_fpn(weights=None, weights_backbone=None, **small).eval()
    recording = record(model, [torch.rand(3, 64, 64)])
    found = reached(recording)
    assert len(recording.outputs) == 4
    assert all(v.id in found for v in recording.outputs)
    assert summarize(recording).total.unknown == ()


def test_nested_tensors_are_refused_in_a_sentence():
    with warnings.catch_warnings(action="ignore"), pytest.raises(ModelError, match="pad it to one that has"):
        record(Call(lambda self, x: torch.nested.nested_tensor([x[0], x[0]])), picture())


def test_a_backward_pass_that_raises_is_quoted():
    with pytest.raises(ModelError, match="backward pass: raised NotImplementedError: the derivative"):
        record(Call(lambda self, x: self.conv(x).unique(), conv=conv()), picture(), backward=True)
