"""Eight bits: layers that do not stand them go back to float32, and no others."""

import pytest
import torch
from torch import nn

from convscope.data import digits
from convscope.engines import Card, OpenVinoModel, int8_layers, onnx_with
from convscope.engines.onnx import OnnxModel
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
    model[0].weight[0] *= 1e5
    model[0].bias[0] *= 1e5
    model[2].weight[:, 0] /= 1e5
    card = Card("classify", None, (1, 32, 32), (0.5,), (0.25,), ("output",))
    judge = Judge(lambda module: EVALUATIONS["classify"](module, train.subset(torch.arange(300))).accuracy, 0.005)
    return Material(model, train.batch(torch.arange(1))[0], card, training=train, judge=judge)


def test_only_what_does_not_stand_eight_bits_goes_back_to_float(material):
    plain = int8.make(Material(material.model, material.batch, material.card, training=material.training))
    assert not material.judge.allows(plain.module, material.model)
    made = int8.make(material)
    assert material.judge.allows(made.module, material.model)
    left, all_of_them = (int8_layers(*m.files.values()) for m in (made, plain))
    assert 0 < left < all_of_them == 4
    assert made.note == f"{all_of_them - left} layers back in float32"
    again = OpenVinoModel(*made.files.values(), source="model.xml")
    assert material.judge.score(again) == material.judge.score(made.module)


def test_what_stands_eight_bits_has_them_everywhere(material, train):
    easy = Judge(material.judge.score, max_drop=1.0)
    made = int8.make(Material(material.model, material.batch, material.card, training=train, judge=easy))
    assert (int8_layers(*made.files.values()), made.note) == (4, "")


def test_a_file_for_one_thread_says_so_and_gives_the_same(material):
    both, alone = (next(c for c in STAGES["lossless"] if c.name == n).make(material) for n in
                   ("ONNX Runtime", "ONNX Runtime, one thread"))  # fmt: skip
    assert (both.module.card.threads, alone.module.card.threads) == (0, 1)
    assert alone.module.session.get_session_options().intra_op_num_threads == 1
    assert both.module.session.get_session_options().intra_op_num_threads == torch.get_num_threads()
    torch.testing.assert_close(alone.module(material.batch), both.module(material.batch))
    again = onnx_with(alone.files["model.onnx"], both.module.card)
    assert OnnxModel(again, source="again").card == both.module.card
