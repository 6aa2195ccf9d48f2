"""An explanation's terms add up to the value that PyTorch computed."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from convscope import record, replay
from convscope.errors import InputError
from convscope.explain import explain
from convscope.models import LeNet5
from convscope.table import number

CONV = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}


def kept(model, x):
    return record(model.eval(), x, keep=lambda op: True)


@settings(max_examples=60)
@given(
    ndim=st.integers(1, 3), size=st.integers(1, 3), stride=st.integers(1, 3), padding=st.integers(0, 2),
    dilation=st.integers(1, 2), groups=st.sampled_from([1, 2]), bias=st.booleans(), data=st.data(),
)  # fmt: skip
def test_the_terms_of_any_convolution_add_up(ndim, size, stride, padding, dilation, groups, bias, data):
    conv = CONV[ndim](4, 6, size, stride, padding, dilation, groups, bias)
    x = torch.randn(2, 4, *(7,) * ndim)
    recording = kept(conv, x)
    y = recording.tensors[recording.outputs[0].id]
    unit = tuple(data.draw(st.integers(0, n - 1)) for n in y.shape)
    told = explain(recording, recording.ops[-1], unit=unit)
    assert told.model_value == y[unit].item()
    assert told.total == pytest.approx(y[unit].item(), abs=1e-5)
    assert told.channel_sums.sum() + told.bias == pytest.approx(told.total)
    assert told.x_CK.shape == told.w_CK.shape == (4 // groups, *(size,) * ndim)
    assert not told.x_CK[~told.inside].any()


TRANSPOSED = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}


@settings(max_examples=60)
@given(
    ndim=st.integers(1, 3), size=st.integers(1, 3), stride=st.integers(1, 3), dilation=st.integers(1, 2),
    groups=st.sampled_from([1, 2]), bias=st.booleans(), data=st.data(),
)  # fmt: skip
def test_the_terms_of_any_transposed_convolution_add_up(ndim, size, stride, dilation, groups, bias, data):
    padding = data.draw(st.integers(0, size - 1))
    conv = TRANSPOSED[ndim](4, 6, size, stride, padding, 0, groups, bias, dilation)
    recording = kept(conv, torch.randn(2, 4, *(4,) * ndim))
    y = recording.tensors[recording.outputs[0].id]
    unit = tuple(data.draw(st.integers(0, n - 1)) for n in y.shape)
    told = explain(recording, recording.ops[-1], unit=unit)
    assert told.total == pytest.approx(y[unit].item(), abs=1e-5)
    assert told.x_CK.shape == told.w_CK.shape == (4 // groups, *(size,) * ndim)


def test_the_patch_is_cut_from_where_the_explanation_says():
    x = torch.randn(1, 3, 9, 9)
    recording = kept(nn.Conv2d(3, 2, 3, 2, 1), x)
    told = explain(recording, 0, unit=(0, 1, 2, 3))
    assert told.origin == (2 * 2 - 1, 3 * 2 - 1)
    assert np.array_equal(told.x_CK, x[0, :, 3:6, 5:8].double().numpy())


def test_c3_of_lenet5_reads_six_channels_of_five_by_five():
    recording = kept(LeNet5(), torch.randn(1, 1, 32, 32))
    told = explain(recording, "C3", unit=(0, 5, 3, 4))
    assert told.products.size == 6 * 5 * 5
    assert abs(told.difference) < 1e-5
    text = str(told)
    assert "features.C3[0, 5, 3, 4] (convolution)" in text
    assert "the model says" in text
    assert all(f"input channel {c}" in text for c in range(6))


def test_linear_and_max_pooling_are_explained():
    recording = kept(LeNet5(), torch.randn(1, 1, 32, 32))
    told = explain(recording, "F6", unit=(0, 11))
    assert abs(told.difference) < 1e-5
    first, *_, rest, says = str(told).splitlines()[3:]
    assert first.startswith(max(told.terms, key=lambda term: abs(term.contribution)).label)
    shown = told.largest(16)
    assert rest == f"and 105 smaller terms, together {number(told.total - sum(t.contribution for t in shown))}"
    assert "the model says" in says
    pooled = explain(recording, "S2", unit=(0, 3, 4, 5))
    assert pooled.difference == 0
    assert pooled.combine == "max"
    assert "largest of 4" in str(pooled)


def test_a_maximum_is_never_taken_from_padding():
    recording = kept(nn.MaxPool2d(3, 2, 1), -torch.rand(1, 2, 6, 6) - 1)
    told = explain(recording, 0, unit=(0, 0, 0, 0))
    assert told.total == told.model_value < 0
    assert int(told.inside.sum()) == 4


@pytest.mark.parametrize(
    ("layer", "unit", "words"),
    [
        ("C3", (0, 16, 0, 0), "unit 0,16,0,0 is outside its output; use 0..0, 0..15, 0..9, 0..9"),
        ("C3", (0, 1), "use 0..0, 0..15, 0..9, 0..9"),
        ("C4", (0, 0, 0, 0), "no operator ran in a module of that name"),
    ],
)
def test_what_cannot_be_explained_says_why(layer, unit, words):
    recording = kept(LeNet5(), torch.zeros(1, 1, 32, 32))
    with pytest.raises(InputError) as error:
        explain(recording, layer, unit=unit)
    assert words in str(error.value)


def test_tensors_that_were_not_kept_are_asked_for():
    recording = record(LeNet5(), torch.zeros(1, 1, 32, 32))
    with pytest.raises(InputError, match="its tensors were not kept; record with keep="):
        explain(recording, "C3", unit=(0, 0, 0, 0))


def test_an_operator_without_an_explanation_is_named_with_its_inputs_and_those_that_have_one():
    recording = kept(nn.LPPool2d(2, 2), torch.rand(1, 3, 4, 4))
    with pytest.raises(InputError) as error:
        explain(recording, 0, unit=(0, 0, 0, 0))
    assert "explain pow: pow has no explanation yet (it read 1x3x4x4); those that have: convolution, " in str(
        error.value
    )


def test_another_output_than_the_first_is_refused_unless_it_is_a_part_of_the_input():
    recording = kept(nn.MaxPool2d(2, return_indices=True), torch.rand(1, 3, 4, 4))
    with pytest.raises(InputError, match="output 1 of max_pool2d_with_indices has no explanation yet"):
        explain(recording, 0, unit=(0, 0, 0, 0), output=1)
    with pytest.raises(InputError, match=r"output 2 is not among its outputs; use 0\.\.1"):
        explain(recording, 0, unit=(0, 0, 0, 0), output=2)


def test_normalisation_by_the_batch_says_how_to_mend_it():
    recording = record(nn.BatchNorm2d(3).train(), torch.rand(2, 3, 4, 4), keep=lambda op: True)
    op = next(op for op in recording.ops if op.name == "native_batch_norm")
    with pytest.raises(InputError, match=r"statistics of the batch has no explanation yet; call model\.eval\(\)"):
        explain(recording, op, unit=(0, 0, 0, 0))


def test_an_explanation_of_damaged_values_is_damaged_too():
    x = torch.tensor([[1.0, float("inf"), float("nan")]])
    recording = kept(nn.Linear(3, 2), x)
    told = explain(recording, recording.ops[-1], unit=(0, 1))
    assert np.isnan(told.total)
    assert np.isnan(told.model_value)
    assert told.largest(1)[0].index == (0, 2)
    assert "nan" in str(told)


def test_normalisation_as_gpus_call_it_is_the_same_operator():
    class OnGpu(nn.BatchNorm2d):
        def forward(self, x):
            return torch.cudnn_batch_norm(
                x, self.weight, self.bias, self.running_mean, self.running_var, False, self.momentum, self.eps
            )[0]

    def on_cpu(x, weight, bias, mean, var, training, momentum, eps):
        return *torch.native_batch_norm(x, weight, bias, mean, var, training, momentum, eps), x.new_empty(0)

    library = torch.library.Library("aten", "IMPL")
    library.impl("cudnn_batch_norm", on_cpu, "CPU")
    norm, x = OnGpu(3).eval(), torch.rand(2, 3, 4, 4)
    nn.init.uniform_(norm.weight)
    norm.running_var.mul_(2)
    try:
        recording = kept(norm, x)
    finally:
        library._destroy()
    told, plain = (explain(r, 0, unit=(1, 2, 0, 3)) for r in (recording, kept(_plain(norm), x)))
    assert (told.op.target, told.total, told.terms) == (plain.op.target, plain.total, plain.terms)
    assert abs(told.difference) < 1e-6
    (y,) = replay(recording, norm, x)
    torch.testing.assert_close(y, _plain(norm)(x))


def _plain(norm: nn.BatchNorm2d) -> nn.BatchNorm2d:
    made = nn.BatchNorm2d(norm.num_features).eval()
    made.load_state_dict(norm.state_dict())
    return made
