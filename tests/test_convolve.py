import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import nn

from convscope import convolve as module
from convscope.convolve import ConvSpec, convolve
from convscope.data.images import Picture, photograph, to_channels
from convscope.errors import InputError
from convscope.layers.kernels import KERNELS, named_kernel
from convscope.layers.reference import conv_reference


def picture(pixels: np.ndarray) -> Picture:
    return Picture(pixels.astype(np.float32), "RGB", "test")


def noise(height: int = 7, width: int = 6, channels: int = 3) -> Picture:
    return picture(np.random.default_rng(0).random((height, width, channels)))


def one(kernel: str, pixels: np.ndarray, **options) -> np.ndarray:
    return convolve(picture(pixels), [ConvSpec(kernel=kernel, **options)]).output[0].numpy()


# Known facts


def test_the_identity_gives_the_picture_back():
    p = noise()
    np.testing.assert_array_equal(convolve(p, [ConvSpec(kernel="identity", padding=1)]).output, p.tensor())


def test_sobel_of_a_ramp_is_constant():
    ramp = np.tile(np.arange(8.0)[None, :, None] / 8, (6, 1, 1))
    np.testing.assert_allclose(one("sobel-x", ramp), 8 / 8, atol=1e-6)  # (1 + 2 + 1) rows x 2 steps of 1/8
    np.testing.assert_allclose(one("sobel-y", ramp), 0, atol=1e-6)


@pytest.mark.parametrize("kernel", ["box-blur", "gaussian", "sharpen", "emboss"])
def test_kernels_that_sum_to_one_keep_a_constant(kernel):
    np.testing.assert_allclose(one(kernel, np.full((5, 6, 3), 0.7)), 0.7, atol=1e-6)


def test_the_laplacian_of_a_parabola_is_its_second_derivative():
    parabola = np.tile((np.arange(9.0) ** 2)[:, None, None] / 64, (1, 7, 1))
    np.testing.assert_allclose(one("laplacian", parabola), 2 / 64, atol=1e-6)


def test_a_blurred_rgb_picture_is_an_rgb_picture_and_summed_is_one_map():
    pixels = noise().pixels
    each, added = one("gaussian", pixels), one("gaussian", pixels, channels="sum")
    assert each.shape == (3, 5, 4)
    assert added.shape == (1, 5, 4)
    np.testing.assert_allclose(each.sum(axis=0), added[0], rtol=1e-5)


def test_random_layers_on_a_picture_of_four_channels():
    rgba = to_channels(photograph(), 4)
    specs = [ConvSpec(out_channels=n, kernel_size=(5, 3), stride=s) for n, s in ((32, 4), (128, 1))]
    done = convolve(rgba, specs, seed=3)
    torch.manual_seed(3)
    first, second = nn.Conv2d(4, 32, (5, 3), stride=4), nn.Conv2d(32, 128, (5, 3))
    with torch.no_grad():
        expected = second(first(rgba.tensor()))
    assert done.output.shape == (1, 128, 102, 158)
    torch.testing.assert_close(done.output, expected)
    assert [s.params for s in done.steps] == [4 * 32 * 15 + 32, 32 * 128 * 15 + 128]
    assert [s.macs for s in done.steps] == [32 * 106 * 160 * 60, 128 * 102 * 158 * 480]


@pytest.mark.parametrize(
    ("channels", "specs", "shapes"),
    [
        (4, [ConvSpec(out_channels=1)], [(1, 1, 18, 28)]),
        (
            4,
            [ConvSpec(out_channels=32, kernel_size=(5, 3)), ConvSpec(out_channels=128, kernel_size=(5, 3))],
            [(1, 32, 16, 28), (1, 128, 12, 26)],
        ),
    ],
)
def test_shapes_from_the_textbook(channels, specs, shapes):
    done = convolve(noise(20, 30, channels), specs)
    assert [s.out_shape for s in done.steps] == shapes
    assert [tuple(s.output.shape) for s in done.steps] == shapes


def test_the_seed_decides_and_the_process_keeps_its_own():
    spec = [ConvSpec(out_channels=2)]
    torch.manual_seed(11)
    expected = torch.rand(3)
    torch.manual_seed(11)
    a, b, c = (convolve(noise(), spec, seed=s).output for s in (1, 1, 2))
    assert torch.equal(torch.rand(3), expected)
    assert torch.equal(a, b)
    assert not torch.equal(a, c)


# The loops as oracle


pair = st.one_of(st.integers(1, 2), st.tuples(st.integers(1, 2), st.integers(1, 2)))


@settings(max_examples=40, deadline=None)
@given(data=st.data(), channels=st.integers(1, 4), stride=pair, dilation=pair, padding=st.integers(0, 2))
def test_values_are_those_of_the_loops(data, channels, stride, dilation, padding):
    p = noise(data.draw(st.integers(3, 7)), data.draw(st.integers(3, 7)), channels)
    geometry = {"stride": stride, "dilation": dilation, "padding": padding}
    kernel = data.draw(st.sampled_from([*KERNELS, "1 -2; 1/3 4", None]))
    if kernel is None:
        spec = ConvSpec(out_channels=2, kernel_size=(3, 2), **geometry)
    else:
        spec = ConvSpec(kernel=kernel, channels=data.draw(st.sampled_from(["each", "sum"])), **geometry)
    down, across = dilation if isinstance(dilation, tuple) else (dilation, dilation)
    assume(min(p.shape[0] + 2 * padding - 2 * down, p.shape[1] + 2 * padding - 2 * across) >= 1)
    step = convolve(p, [spec]).steps[0]
    groups = channels // step.weight.shape[1]
    bias = None if step.bias is None else step.bias.numpy()
    expected = conv_reference(p.tensor().numpy(), step.weight.numpy(), bias_O=bias, groups=groups, **geometry)
    assert step.out_shape == expected.shape
    np.testing.assert_allclose(step.output.numpy(), expected, atol=1e-5)
    assert step.macs == expected.size * step.weight[0].numel()
    for text, size in zip(step.formulas, expected.shape[2:], strict=True):
        assert text.endswith(f" {size}")


def test_a_hand_set_kernel_is_the_same_for_every_channel():
    weight = convolve(noise(), [ConvSpec(kernel="emboss")]).steps[0].weight
    assert weight.shape == (3, 1, 3, 3)
    assert all(torch.equal(w[0], named_kernel("emboss")) for w in weight)


def test_the_table_shows_each_layer_and_its_formulas():
    p = Picture(np.zeros((5, 6, 1), np.float32), "L", "five.png", ("a note",))
    table = convolve(p, [ConvSpec(kernel="sobel-x", padding=1), ConvSpec(out_channels=2, kernel_size=(2, 3))]).table()
    first, second = table.rows
    assert first["height"] == "(5 - 3 + 2*1) / 1 + 1 = 5"
    assert (first["in_shape"], first["out_shape"], first["params"]) == ((1, 1, 5, 6), (1, 1, 5, 6), 9)
    assert (second["out_shape"], second["params"], second["macs"]) == ((1, 2, 4, 4), 2 * 6 + 2, 2 * 16 * 6)
    assert table.total == {"layer": "total", "params": 23, "macs": 270 + 192}
    text = table.text()
    assert text.startswith("five.png\n")
    assert text.endswith("a note")


# What is refused


def test_a_kernel_larger_than_the_padded_picture():
    with pytest.raises(InputError) as caught:
        convolve(noise(4, 4), [ConvSpec(kernel="identity"), ConvSpec(out_channels=1, kernel_size=(5, 2))])
    assert str(caught.value) == (
        "convolve, layer 2: the kernel 5x2 is larger than the padded image 2x2; "
        "use padding 2x0 or more, a smaller kernel or dilation, or a larger picture"
    )
    with pytest.raises(InputError, match=r"kernel 3x3 \(with dilation it spans 3x9\) is larger"):
        convolve(noise(), [ConvSpec(kernel="sharpen", dilation=(1, 4))])


def test_an_output_too_large_for_memory_is_refused_before_it_is_made(monkeypatch):
    monkeypatch.setattr(module, "MAX_VALUES", 100)
    with pytest.raises(InputError, match="layer 1: the output 1x9x7x6 would need"):
        convolve(noise(), [ConvSpec(out_channels=9, kernel_size=1)])
    with pytest.raises(InputError, match="layer 1: the kernels 9x3x3x3 would need"):
        convolve(noise(), [ConvSpec(out_channels=9)])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "give either a kernel or out_channels"),
        ({"kernel": "emboss", "out_channels": 2}, "and not both"),
        ({"out_channels": 0}, "out_channels is 0; use 1 or more"),
        ({"kernel": "emboss", "channels": "all"}, "channels is 'all'; use 'each' or 'sum'"),
        ({"kernel": "emboss", "stride": 0}, "stride is 0; use one int or"),
        ({"kernel": "emboss", "padding": (0, -1)}, r"padding is \(0, -1\)"),
        ({"out_channels": 1, "kernel_size": (1, 2, 3)}, r"kernel_size is \(1, 2, 3\)"),
        ({"kernel": "emboss", "dilation": 1.5}, "dilation is 1.5"),
    ],
)
def test_a_spec_that_makes_no_sense_is_refused(options, message):
    with pytest.raises(InputError, match=message):
        ConvSpec(**options)


def test_no_layers_and_unknown_kernels():
    with pytest.raises(InputError, match="no layer is given"):
        convolve(noise(), [])
    with pytest.raises(InputError, match="did you mean 'sharpen'"):
        convolve(noise(), [ConvSpec(kernel="sharpn")])
