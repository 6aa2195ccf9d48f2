"""A tensor that is changed through another view of its memory is another value from then on."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from convscope import receptive_field, record, replay
from convscope.explain import explain


class Call(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


def rows_doubled(x):
    y = x + 0
    y[:, :, 1].mul_(2)
    return y * 1


def columns_from_elsewhere(x):
    y = x * 1
    y[:, :, :, 2:] = x[:, :, :, :-2]
    return y + 0


def second_half(x):
    y = x + 0
    a, b = y[:, :2], y[:, 2:]
    a.relu_()
    return b * 3


def through_the_base(x):
    y = x + 0
    view = y[:, 1:]
    y.neg_()
    return view + 0


WAYS = [rows_doubled, columns_from_elsewhere, second_half, through_the_base]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("keep", [None, lambda op: True], ids=["meta", "real"])
def test_a_change_through_a_view_replays_to_the_same(way, keep):
    x = torch.randn(2, 4, 5, 6)
    model = Call(way)
    (replayed,) = replay(record(model, x, keep=keep), model, x)
    assert torch.equal(replayed, way(x.clone()))


@given(way=st.sampled_from(WAYS), data=st.data())
def test_the_field_holds_what_reached_a_value_through_a_view(way, data):
    x = torch.randn(2, 4, 5, 6, requires_grad=True)
    recording = record(Call(way), x)
    unit = tuple(data.draw(st.integers(0, n - 1)) for n in recording.outputs[0].shape)
    box = receptive_field(recording, recording.ops[-1], unit=unit)
    way(x)[unit].backward()
    places = x.grad.nonzero()
    true = [(int(p.min()), int(p.max())) for p in places.T]
    assert all(lo <= first and hi >= last for (lo, hi), (first, last) in zip(box, true, strict=True))


def test_a_written_box_is_read_where_it_lies_and_nothing_else():
    recording = record(Call(columns_from_elsewhere), torch.zeros(2, 4, 5, 6))
    assert receptive_field(recording, recording.ops[-1], unit=(0, 1, 2, 5))[3] == (3, 5)
    assert receptive_field(recording, recording.ops[-1], unit=(0, 1, 2, 1))[3] == (1, 1)
    apart = record(Call(second_half), torch.zeros(2, 4, 5, 6))
    assert [op.name for op in apart.ops] == ["add", "slice", "slice", "relu_", "mul"]


def test_a_value_is_explained_by_what_it_was_when_it_was_read():
    """The product reads the map before its second row is doubled, the sum after."""

    def both(x):
        y = x + 0
        before = y * 10
        y[1].mul_(2)
        return before, y + 1

    x = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    recording = record(Call(both), x, keep=lambda op: True)
    values = {op.name: [recording.tensors[v.id].tolist() for v in op.inputs] for op in recording.ops}
    assert values["mul"] == [[[1, 2], [3, 4]]]
    assert recording.tensors[recording.ops[-1].inputs[0].id].tolist() == [[1, 2], [6, 8]]
    assert recording.tensors[recording.ops[0].outputs[0].id].tolist() == [[1, 2], [3, 4]]
    told = explain(recording, recording.ops[-1], unit=(1, 1))
    assert told.model_value == pytest.approx(9.0)
    assert told.total == pytest.approx(told.model_value)


def test_a_tensor_that_an_operator_read_and_a_later_one_changed_is_kept_as_it_was_read():
    model = nn.Sequential(nn.Linear(2, 2), nn.Tanh(), nn.ReLU(inplace=True), nn.Linear(2, 1))
    x = torch.tensor([[-1.0, 2.0]])
    recording = record(model, x, keep=lambda op: True)
    for op, layer in (("tanh", model[:2]), ("relu_", model[:3])):
        made = next(o for o in recording.ops if o.name == op).outputs[0]
        assert torch.equal(recording.tensors[made.id], layer(x))
