"""Eight bits: layers that do not stand them go back to float32, and no others."""

from dataclasses import replace

import onnx
import pytest
import torch
from torch import nn

from convscope.data import digits
from convscope.engines import (
    Card,
    OnnxModel,
    OpenVinoModel,
    OutOfTimeError,
    int8_bytes,
    int8_layers,
    onnx_bytes,
    onnx_int8_bytes,
    onnx_with,
)
from convscope.engines.onnx import near_outputs
from convscope.evaluate import EVALUATIONS
from convscope.optimize.candidates import NUMERIC, STAGES, Judge, Material

(int8,) = (c for c in STAGES[NUMERIC] if c.name == "OpenVINO, int8")


def network(train):
    """A small one that knows most digits after some steps."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 8, 5, stride=2), nn.ReLU(), nn.Conv2d(8, 16, 5, stride=2), nn.ReLU(),
        nn.Conv2d(16, 16, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 10),
    )  # fmt: skip
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for step in range(60):
        x, y = train.batch(torch.arange(64 * step, 64 * step + 64) % len(train))
        loss = nn.functional.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def train():
    return digits().train


@pytest.fixture(scope="module")
def material(train):
    """One channel of the first layer is large, and its reader has small weights for it: the network is the same."""
    model = network(train)
    model[0].weight[0] *= 2e3
    model[0].bias[0] *= 2e3
    model[2].weight[:, 0] /= 2e3
    card = Card("classify", None, (1, 32, 32), (0.5,), (0.25,), ("output",))
    judge = Judge(lambda module: EVALUATIONS["classify"](module, train.subset(torch.arange(300))).accuracy, 0.005)
    return Material(model, train.batch(torch.arange(1))[0], card, training=train, judge=judge)


def with_judge(material, **changed):
    judge = replace(material.judge, **changed)
    return Material(material.model, material.batch, material.card, training=material.training, judge=judge)


def counted(material, **changed):
    """The same with a judge who counts what it is asked."""
    asked = []

    def score(module):
        asked.append(module)
        return material.judge.score(module)

    return with_judge(material, score=score, **changed), asked


def test_only_what_does_not_stand_eight_bits_goes_back_to_float(material):
    plain = int8.make(Material(material.model, material.batch, material.card, training=material.training))
    assert not material.allows(plain.module)
    searched, asked = counted(material)
    made = int8.make(searched)
    assert material.allows(made.module)
    left, all_of_them = (int8_layers(*m.files.values()) for m in (made, plain))
    assert 0 < left < all_of_them == 4
    assert (left, made.note) == (2, "2 layers back in float32")
    again = OpenVinoModel(*made.files.values(), source="model.xml")
    assert material.judge.score(again) == material.judge.score(made.module)
    # the network, all in eight bits, all but the last, again as NNCF begins, with the worst in float32, and in the end
    assert len(asked) == 6


def test_what_stands_eight_bits_has_them_everywhere(material):
    easy, asked = counted(material, max_drop=1.0)
    made = int8.make(easy)
    assert (int8_layers(*made.files.values()), made.note, made.excuse) == (4, "", "")
    assert len(asked) == 2


def test_nothing_is_sought_once_another_file_is_as_fast(material):
    beaten, asked = counted(material, beaten=lambda form: "the other")
    made = int8.make(beaten)
    assert made.excuse == "as the other is as fast, no more layers go back to float32"
    assert (int8_layers(*made.files.values()), len(asked)) == (4, 2)


def test_when_the_time_is_over_what_there_is_says_so(material):
    made = int8.make(with_judge(material, seconds=-1.0))
    assert made.excuse == "no choice of layers for float32 was found in -1 s"
    assert int8_layers(*made.files.values()) == 3  # the last went back, which takes no search
    with pytest.raises(OutOfTimeError, match="the time to choose layers is over"):
        int8_bytes(material.onnx, material.card, [material.batch] * 4, judge=replace(material.judge, seconds=-1.0))


class Boxes(nn.Module):
    """What a detector does behind its last layer: large numbers, of which eight bits would lose much."""

    def forward(self, x):
        return torch.arange(x.shape[-1]) * 32.0 + 1000 * x.clamp(max=8).exp()


def test_what_stands_behind_the_last_layers_is_not_quantised():
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.Conv2d(8, 2, 3)).eval()
    pictures = [torch.randn(1, 1, 12, 12) for _ in range(8)]
    card = Card("detect", None, (1, 12, 12), (0.5,), (0.25,), ("output",))
    files = {
        model: onnx_bytes(model, torch.cat(pictures[:2]), card) for model in (layers, nn.Sequential(layers, Boxes()))
    }
    alone, whole = (OpenVinoModel(*int8_bytes(f, card, pictures), source="m.xml") for f in files.values())
    x = torch.cat(pictures)
    assert (alone(x) - layers(x)).abs().max() > 1e-3  # it is in eight bits
    torch.testing.assert_close(whole(x), Boxes()(alone(x)))
    runtime = [OnnxModel(onnx_int8_bytes(f, card, pictures), source="m.onnx") for f in files.values()]
    assert (runtime[0](x) - layers(x)).abs().max() > 1e-3
    torch.testing.assert_close(runtime[1](x), Boxes()(runtime[0](x)))


def test_the_last_layers_can_be_left_out():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(400, 3), nn.Softmax(1)).eval()
    pictures = [torch.randn(1, 1, 12, 12) for _ in range(4)]
    card = Card("classify", None, (1, 12, 12), (0.5,), (0.25,), ("output",))
    content = onnx_bytes(model, torch.cat(pictures[:2]), card)
    operators = {node.name: node.op_type for node in onnx.load_model_from_string(content).graph.node}
    kinds = [operators[name] for layers in (False, True) for name in near_outputs(content, layers=layers)]
    assert kinds == ["Softmax", "Softmax", "Gemm"]
    assert [int8_layers(*int8_bytes(content, card, pictures, last=last)) for last in (True, False)] == [2, 1]


def test_a_file_for_one_thread_says_so_and_gives_the_same(material):
    both, alone = (next(c for c in STAGES["lossless"] if c.name == n).make(material) for n in
                   ("ONNX Runtime", "ONNX Runtime, one thread"))  # fmt: skip
    assert (both.module.card.threads, alone.module.card.threads) == (0, 1)
    assert alone.module.session.get_session_options().intra_op_num_threads == 1
    assert both.module.session.get_session_options().intra_op_num_threads == torch.get_num_threads()
    torch.testing.assert_close(alone.module(material.batch), both.module(material.batch))
    again = onnx_with(alone.files["model.onnx"], both.module.card)
    assert OnnxModel(again, source="again").card == both.module.card
