"""The family on paper, against the formulas worked out by hand and PyTorch's own counts."""

from math import prod

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from convscope.errors import InputError
from convscope.family import MEMBERS, Setting, family


@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_macs_and_parameters_are_the_formulas(ndim):
    """C to O channels, a kernel of K in all and k along an axis, P places, all of one size: no padding is at play."""
    c, o, k, g, n, batch = 8, 12, 3, 4, 6, 2
    told = family(Setting(c, o, (n,) * ndim, batch=batch, groups=g))
    kernel, places = k**ndim, batch * n**ndim
    weights = {
        "dense": c * o * kernel,
        "spatially separable": c * o * k + (ndim - 1) * o * o * k,
        "depthwise separable": c * kernel + c * o,
        "depthwise": c * kernel,
        "pointwise": c * o,
        "flattened": o * (c + ndim * k),
        "grouped": c * o * kernel // g,
        "shuffled grouped": c * o * kernel // g,
        "dilated": c * o * kernel,
        "transposed": c * o * kernel,
        "max pooling": 0,
        "average pooling": 0,
    }
    if ndim == 1:
        weights["spatially separable"] = c * o * k
    assert {m.name: m.params for m in told.members} == weights
    assert {m.name: m.macs for m in told.members} == {name: w * places for name, w in weights.items()}


def test_the_numbers_that_everybody_knows():
    """576 and 136; XYC and X + Y + C; 9 and 6; 7x7 to 3x3; 760 with the biases."""
    eight = family(Setting(8, 8, (5, 5), batch=1))
    assert (eight["dense"].params, eight["depthwise"].params, eight["pointwise"].params) == (576, 72, 64)
    assert eight["depthwise separable"].params == 136
    flat = family(Setting(16, 1, (9, 9), batch=1, kernel_size=(3, 5)))
    assert (flat["dense"].params, flat["flattened"].params) == (3 * 5 * 16, 3 + 5 + 16)
    one = family(Setting(1, 1, (8, 8), batch=1))
    assert (one["dense"].params, one["spatially separable"].params) == (9, 6)
    assert family(Setting(1, 1, (7, 7), padding=0))["dilated"].output_shape[2:] == (3, 3)
    assert family(Setting(3, 10, (32, 32), kernel_size=5))["dense"].params + 10 == 760


@st.composite
def settings_that_fit(draw) -> Setting:
    ndim = draw(st.integers(1, 3))

    def each(low: int, high: int) -> tuple[int, ...]:
        return tuple(draw(st.lists(st.integers(low, high), min_size=ndim, max_size=ndim)))

    return Setting(
        draw(st.integers(1, 6)),
        draw(st.integers(1, 6)),
        each(7, 9),
        batch=draw(st.integers(1, 3)),
        kernel_size=each(1, 3),
        stride=each(1, 3),
        padding=draw(st.none() | st.just(0)),
        dilation=each(1, 3),
        scale=draw(st.integers(1, 3)),
    )


@settings(max_examples=25)
@given(s=settings_that_fit())
def test_what_is_said_is_what_pytorch_does(s):
    x = torch.rand(s.shape)
    for m in family(s).members:
        layer = MEMBERS[m.name](s)
        with FlopCounterMode(display=False) as counted, torch.no_grad():
            y = layer(x)
        assert m.output_shape == tuple(y.shape)
        assert m.params == sum(p.numel() for p in layer.parameters())
        assert 2 * m.macs == counted.get_total_flops()
        assert m.bytes == 4 * (x.numel() + m.params + y.numel())
        assert m.intensity == m.macs / m.bytes
        assert sum(macs for macs, _ in m.work) == m.macs


@settings(max_examples=15)
@given(s=settings_that_fit())
def test_the_field_holds_the_gradients_support(s):
    """The middle unit and its neighbours; equal where the layer cannot leave out an element of its hull."""
    for name in ("dense", "spatially separable", "transposed", "shuffled grouped", "average pooling", "dilated"):
        told, layer = family(s)[name], MEMBERS[name](s)
        for w in layer.parameters():
            nn.init.ones_(w)
        x = torch.rand(s.shape, requires_grad=True)
        y = layer(x)
        middle = tuple(n // 2 for n in y.shape[2:])
        (slope,) = torch.autograd.grad(y[(0, 0, *middle)], x)
        touched = slope[0].abs().sum(0).nonzero()
        extent = (touched.amax(0) - touched.amin(0) + 1).tolist() if len(touched) else [0] * s.ndim
        assert all(e <= f for e, f in zip(extent, told.field, strict=True)), name


def test_the_field_of_every_member_at_a_glance():
    told = family(Setting(4, 4, (32, 32), kernel_size=(3, 5)))
    assert {m.name: m.field for m in told.members} == {
        **dict.fromkeys(MEMBERS, (3, 5)),
        "pointwise": (1, 1),
        "dilated": (5, 9),
        "transposed": (2, 3),
    }


def test_maps_between_the_parts_of_a_stack_are_work_but_not_the_least_bytes():
    s = Setting(4, 8, (10, 10), batch=1)
    m = family(s)["depthwise separable"]
    maps = 4 * 100 * 4
    assert [moved for _, moved in m.work] == [2 * maps + 4 * 9 * 4, maps + 4 * 8 * 100 + 4 * 4 * 8]
    assert m.bytes == maps + 4 * 8 * 100 + 4 * m.params


def test_a_shuffle_moves_its_map_once_more():
    told = family(Setting(8, 8, (6, 6), batch=1))
    grouped, shuffled = told["grouped"].work, told["shuffled grouped"].work
    assert shuffled == (*grouped, (0, 2 * 4 * 8 * 36))


def test_a_table_for_people_and_data_for_programs():
    told = family(Setting(8, 16, (6, 5), batch=3))
    head, _, columns, dense = str(told).splitlines()[0], *str(told).splitlines()[1:4]
    assert head == "3x8x6x5 to 16 channels, kernel 3x3, groups 4, float32"
    assert columns.startswith("----")
    assert dense.split() == ["dense", "3x16x6x5", "1,152", "103,680", "3x3", "0.01325", "7.826", "1"]
    data = told.data()
    assert [m["name"] for m in data["members"]] == list(MEMBERS)
    assert data["setting"]["size"] == (6, 5)
    assert data["members"][2]["promised"] == told.promised(told["depthwise separable"]) == 1152 / (72 + 128)
    assert data["members"][-1]["promised"] is None
    assert "forward_ms" not in data["members"][0]
    assert told.delivered(told["dense"]) is None
    assert told._repr_html_().startswith("<table>")


def test_groups_are_chosen_to_fit():
    chosen = [Setting(c, o).groups for c, o in ((128, 64), (6, 9), (6, 4), (7, 8))]
    assert chosen == [4, 3, 2, 1]


@pytest.mark.parametrize("scale", [1, 2, 3])
@pytest.mark.parametrize("kernel_size", [1, 2, 3, 4, 5])
def test_the_transposed_member_makes_scale_times_as_much_where_it_can(scale, kernel_size):
    told = family(Setting(1, 1, (8,), kernel_size=kernel_size, scale=scale))["transposed"]
    padding = (kernel_size - 1) // 2
    reachable = range(7 * scale - 2 * padding + kernel_size, 7 * scale - 2 * padding + kernel_size + scale)
    assert told.output_shape[2] == min(reachable, key=lambda n: abs(n - 8 * scale))


def test_nothing_is_computed_however_large_the_maps_are():
    told = family(Setting(4096, 4096, (10_000, 10_000), batch=1))
    assert told["dense"].macs == prod((4096, 4096, 9, 10_000, 10_000))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"groups": 3}, "family: groups is 3; 128 channels divide into 1, 2, 4, 8, 16, 32, 64, 128"),
        ({"out_channels": 6, "groups": 4}, "family: groups is 4; 6 channels divide into 1, 2, 3, 6"),
        ({"groups": 0, "in_channels": 2, "out_channels": 2}, "family: groups is 0; 2 channels divide into 1, 2"),
        ({"dilation": 0}, "family: dilation is 0; use 1 or more"),
        ({"stride": (1, 0)}, "family: stride is (1, 0); use 1 or more"),
        ({"kernel_size": (3, 3, 3)}, "family: kernel_size is (3, 3, 3); give one number, or one for each of the 2 "
                                     "spatial axes"),
        ({"size": ()}, "family: size is (); give one, two or three axes"),
        ({"size": (2, 2, 2, 2)}, "family: size is (2, 2, 2, 2); give one, two or three axes"),
        ({"size": (4, 0)}, "family: size is (4, 0); use 1 or more"),
        ({"batch": 0}, "family: batch is 0; use 1 to 281,474,976,710,656"),
        ({"padding": -1}, "family: padding is -1; use 0 or more"),
        ({"padding": 2}, "family: padding is 2; pooling takes 1 or less, half of kernel_size 3"),
        ({"output_padding": 2}, "transposed_out_size: output_padding is 2; use 0 to 1 (below the larger of stride and "
                                "dilation)"),
        ({"kernel_size": 99, "padding": 0}, "out_size: the window spans 99 elements but the padded axis has 56; use "
                                            "padding >= 22 or a smaller kernel or dilation"),
        ({"kernel_size": 2.5}, "family: kernel_size is 2.5; use whole numbers"),
        ({"in_channels": 2**24, "out_channels": 2**24}, "family: a map or the kernels would hold "
            "2,533,274,790,395,904 values, 281,474,976,710,656 at most; use fewer channels, a smaller input, batch, "
            "kernel_size or scale"),
    ],
)  # fmt: skip
def test_bad_input_names_the_parameter_its_value_and_what_fits(given, message):
    with pytest.raises(InputError) as caught:
        family(Setting(**given))
    assert str(caught.value) == message
