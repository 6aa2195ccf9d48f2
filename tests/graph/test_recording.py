"""A recording is right if replaying it gives the model's output, and if recording changes nothing."""

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import nn

from convscope.errors import InputError, ModelError
from convscope.graph import Role, record, replay
from convscope.models import ConvNet3, LeNet5


class Awkward(nn.Module):
    """A residual in place, a module called twice, shared weights, a constant, a functional call, two outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.tied = nn.Conv2d(4, 4, 3, padding=1)
        self.tied.weight = self.conv.weight
        self.scale = torch.arange(4.0).view(1, 4, 1, 1)

    def forward(self, x):
        y = self.norm(self.conv(x))
        y += x
        y = F.relu(self.conv(y), inplace=True) * self.scale
        return {"maps": y, "pair": (self.tied(y), torch.cat([y, y[:, :2]], 1))}


class Branching(nn.Module):
    """Control flow that needs values: meta tensors cannot take it."""

    def forward(self, x):
        return x.relu() if x.sum() > 0 else x.neg()


def flat(tree):
    if isinstance(tree, torch.Tensor):
        return [tree]
    items = tree.values() if isinstance(tree, dict) else tree
    return [t for item in items for t in flat(item)]


MODELS = {
    "LeNet5": (LeNet5, (1, 32, 32)),
    "ConvNet3": (ConvNet3, (1, 32, 32)),
    "resnet18": (torchvision.models.resnet18, (3, 64, 64)),
    "mobilenet_v2": (torchvision.models.mobilenet_v2, (3, 64, 64)),
    "awkward": (Awkward, (4, 8, 8)),
    "branching": (Branching, (2, 2)),
    "dropout": (lambda: nn.Sequential(nn.Dropout(), nn.Linear(4, 4)), (4,)),
}


@pytest.mark.parametrize("name", MODELS)
@torch.no_grad()
def test_a_replayed_recording_gives_the_models_output(name):
    make, shape = MODELS[name]
    model, x = make().eval(), torch.rand(2, *shape)
    expected = flat(model(x.clone()))
    replayed = replay(record(model, x), model, x)
    assert len(replayed) == len(expected)
    assert all(torch.equal(a, b) for a, b in zip(replayed, expected, strict=True))


@pytest.mark.parametrize("keep", [None, lambda op: True], ids=["meta", "real"])
def test_recording_changes_nothing_of_the_model_or_the_world(keep):
    model, x = Awkward().train(), torch.rand(2, 4, 8, 8)
    state = {k: v.clone() for k, v in model.state_dict().items()}
    before, rng = x.clone(), torch.get_rng_state()
    record(model, x, keep=keep)
    assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())
    assert torch.equal(x, before)
    assert torch.equal(torch.get_rng_state(), rng)
    assert model.training
    assert all(p.requires_grad and p.grad is None for p in model.parameters())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_meta_is_tried_first_and_real_tensors_are_said_aloud():
    assert record(LeNet5(), torch.zeros(1, 1, 32, 32)).notes == ()
    fallen_back, escaped = record(Branching(), torch.ones(2)).notes
    assert fallen_back == "recorded on real tensors, since .item() needs values"
    assert escaped.startswith("1 value left PyTorch as numbers or arrays: ")


def test_shared_parameters_stand_once_and_a_module_called_twice_is_two_operators():
    recording = record(Awkward(), torch.rand(1, 4, 8, 8))
    assert [v.name for v in recording.params if v.name.endswith("weight")] == ["conv.weight", "norm.weight"]
    assert [op.module for op in recording.ops if op.name == "convolution"] == ["conv", "conv", "tied"]
    assert {v.role for v in recording.params} == {Role.PARAMETER, Role.BUFFER}


def test_frozen_parameters_are_known():
    model = LeNet5()
    model.features.requires_grad_(False)
    recording = record(model, torch.zeros(1, 1, 32, 32))
    assert {v.name for v in recording.params if v.id in recording.trainable} == {
        f"head.{layer}.{kind}" for layer in ("F5", "F6", "output") for kind in ("weight", "bias")
    }


def test_an_operator_in_place_makes_a_new_value():
    recording = record(nn.ReLU(inplace=True), torch.ones(3))
    (op,) = recording.ops
    assert op.inputs[0].id == recording.inputs[0].id
    assert op.outputs[0].id != op.inputs[0].id
    assert recording.outputs == op.outputs


def test_keep_holds_what_the_operator_read_and_made_even_in_place():
    x = torch.tensor([-1.0, 2.0])
    recording = record(nn.ReLU(inplace=True), x, keep=lambda op: op.name == "relu_")
    (op,) = recording.ops
    assert recording.tensors[op.inputs[0].id].tolist() == [-1.0, 2.0]
    assert recording.tensors[op.outputs[0].id].tolist() == [0.0, 2.0]
    assert record(LeNet5(), torch.zeros(1, 1, 32, 32), keep=lambda op: False).tensors == {}


def test_arguments_are_named_and_defaults_filled():
    (op,) = record(nn.MaxPool2d(2), torch.zeros(1, 1, 4, 4)).ops
    assert op.target == "aten.max_pool2d_with_indices.default"
    assert list(op.args) == ["self", "kernel_size", "stride", "padding", "dilation", "ceil_mode"]
    assert op.args["kernel_size"] == (2, 2)
    assert op.args["dilation"] == 1 or op.args["dilation"] == (1, 1)


def test_layers_are_found_by_index_path_and_end_of_path():
    recording = record(LeNet5(), torch.zeros(1, 1, 32, 32))
    assert recording.find("C3") == recording.find("features.C3") == recording.find(recording.find("C3").index)
    for wrong, words in (("C33", "did you mean 'C3'?"), ("features.C33", "did you mean 'features.C3'?"), (99, "0 to ")):
        with pytest.raises(InputError, match="layer") as error:
            recording.find(wrong)
        assert words in str(error.value)


def test_a_module_called_by_a_number_comes_before_the_operator_of_that_number():
    recording = record(nn.Sequential(nn.Linear(2, 2), nn.ReLU()), torch.zeros(1, 2))
    assert recording.find("1").name == "relu"
    assert recording.find(1).name == recording.ops[1].name != "relu"


def test_an_end_that_fits_several_modules_is_refused():
    recording = record(torchvision.models.resnet18().eval(), torch.zeros(1, 3, 32, 32))
    with pytest.raises(InputError, match="give the whole path"):
        recording.find("bn2")


def test_a_model_that_raises_names_the_module_and_the_shapes():
    with pytest.raises(ModelError) as error:
        record(LeNet5(), torch.zeros(1, 3, 32, 32))
    assert str(error.value).startswith("features.C1 raised RuntimeError")
    assert "on input 1x3x32x32; check the input's shape" in str(error.value)


@pytest.mark.parametrize("name", sorted(MODELS.keys() - {"branching"}))
@pytest.mark.parametrize("training", [False, True])
def test_meta_tensors_and_real_ones_give_the_same_recording(name, training):
    make, shape = MODELS[name]
    model, x = make().train(training), torch.rand(2, *shape)
    meta, real = record(model, x), record(model, x, keep=lambda op: False)
    assert meta.notes == real.notes == ()

    def seen(recording):
        return [(op.target, op.module, op.inputs, op.outputs[:1]) for op in recording.ops]

    assert seen(meta) == seen(real)
    assert (meta.inputs, meta.outputs, meta.params) == (real.inputs, real.outputs, real.params)


class Remembering(nn.Module):
    """Keeps what it made in an attribute, as detectors keep their anchors."""

    def __init__(self):
        super().__init__()
        self.anchors = None

    def forward(self, x):
        if self.anchors is None:
            self.anchors = torch.ones(2, device=x.device)
        return x + self.anchors


def test_what_a_model_remembers_from_the_pass_is_forgotten_again():
    model = Remembering()
    record(model, torch.zeros(2))
    assert model.anchors is None
    assert model(torch.zeros(2)).tolist() == [1.0, 1.0]


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("backward", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_batch_normalisation_on_meta_tensors_makes_what_it_makes_on_real_ones(dtype, backward, affine):
    model = nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3, affine=affine)).to(dtype).eval()
    x = torch.rand(2, 3, 4, 5, dtype=dtype).to(memory_format=torch.channels_last)
    meta, real = (record(model, x, keep=keep, backward=backward) for keep in (None, lambda op: False))
    norms = [[o for o in r.ops if "native_batch_norm" in o.target] for r in (meta, real)]
    assert [o.target for o in norms[0]] == [o.target for o in norms[1]]
    assert len(norms[0]) == 1 + backward
    for of_meta, of_real in zip(*norms, strict=True):
        made = [[(v.shape, v.dtype, r.storages[v.storage]) for v in o.outputs]
                for o, r in ((of_meta, meta), (of_real, real))]  # fmt: skip
        assert made[0] == made[1]


def test_a_module_of_modules_answers_with_the_last_operator_inside_it():
    block = nn.Sequential(nn.Conv2d(1, 1, 1), nn.ReLU())
    recording = record(block.append(nn.Sequential(nn.Sigmoid(), nn.Tanh())), torch.zeros(1, 1, 2, 2))
    assert recording.find("2").name == "tanh"
    assert recording.find("2.0").name == "sigmoid"
