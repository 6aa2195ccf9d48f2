"""factorise(): against numpy's singular values, its own inverse `expand`, and kernels that are separable."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import convscope
from convscope.errors import InputError
from convscope.layers import DepthwiseSeparableConv, Factorised, FlattenedConv, expand, factorise, named_kernel

KINDS = {"spatial", "depthwise", "tucker", "flattened", "cp"}


def discarded(table: np.ndarray, rank: int) -> float:
    """The sum of squares of what a truncated SVD leaves out (Eckart and Young)."""
    return float((np.linalg.svd(table, compute_uv=False)[rank:] ** 2).sum())


def kernel_error(conv: nn.Conv2d, told: Factorised) -> float:
    found, wanted = expand(told.layer, ndim=2).weight.detach().numpy(), conv.weight.detach().numpy()
    return float(np.linalg.norm(found - wanted) / np.linalg.norm(wanted))


@st.composite
def convs(draw) -> nn.Conv2d:
    torch.manual_seed(draw(st.integers(0, 99)))
    size, stride, padding, dilation = (
        tuple(draw(st.lists(st.integers(low, high), min_size=2, max_size=2)))
        for low, high in ((1, 4), (1, 2), (0, 3), (1, 2))
    )
    channels = draw(st.integers(1, 5)), draw(st.integers(1, 5))
    return nn.Conv2d(*channels, size, stride, padding, dilation, bias=draw(st.booleans()), dtype=torch.float64)


@settings(max_examples=40)
@given(conv=convs(), kind=st.sampled_from(sorted(KINDS)))
def test_full_rank_computes_the_same(conv, kind):
    told = factorise(conv, kind)
    assert told.error < 1e-13
    x = torch.randn(2, conv.in_channels, 12, 11, dtype=torch.float64)
    torch.testing.assert_close(told.layer(x), conv(x), atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("kind", sorted(KINDS))
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_full_rank_is_as_exact_as_the_dtype(kind, dtype):
    torch.manual_seed(0)
    conv = nn.Conv2d(6, 8, 3, padding="same", dtype=dtype)
    told = factorise(conv, kind)
    assert all(p.dtype == dtype for p in told.layer.parameters())
    eps = torch.finfo(dtype).eps
    assert told.error < 2 * eps
    x = torch.randn(2, 6, 7, 7)
    torch.testing.assert_close(told.layer.float()(x), conv.float()(x), atol=16 * eps, rtol=16 * eps)


@settings(max_examples=40)
@given(conv=convs(), data=st.data())
def test_spatial_is_the_truncated_svd(conv, data):
    w = conv.weight.detach().numpy()
    o, i, y, x = w.shape
    rank = data.draw(st.integers(1, min(i * y, o * x)))
    told = factorise(conv, "spatial", rank=rank)
    least = np.sqrt(discarded(w.transpose(1, 2, 0, 3).reshape(i * y, o * x), rank)) / np.linalg.norm(w)
    assert told.error == pytest.approx(least, abs=1e-12)
    assert kernel_error(conv, told) == pytest.approx(told.error, abs=1e-15)


@settings(max_examples=40)
@given(conv=convs(), data=st.data())
def test_depthwise_is_a_truncated_svd_for_each_channel(conv, data):
    w = conv.weight.detach().numpy()
    o, i, y, x = w.shape
    rank = data.draw(st.integers(1, min(o, y * x)))
    told = factorise(conv, "depthwise", rank=rank)
    least = np.sqrt(sum(discarded(w[:, c].reshape(o, y * x), rank) for c in range(i))) / np.linalg.norm(w)
    assert told.error == pytest.approx(least, abs=1e-12)
    assert kernel_error(conv, told) == pytest.approx(told.error, abs=1e-15)


@settings(max_examples=40)
@given(conv=convs(), data=st.data())
def test_tucker_lies_between_what_no_projection_can_beat_and_the_hosvd(conv, data):
    w = conv.weight.detach().numpy()
    o, i = w.shape[:2]
    r_in, r_out = data.draw(st.integers(1, min(i, w[:, 0].size))), data.draw(st.integers(1, min(o, w[0].size)))
    told = factorise(conv, "tucker", rank=(r_in, r_out))
    of_in = discarded(w.transpose(1, 0, 2, 3).reshape(i, -1), r_in)
    of_out = discarded(w.reshape(o, -1), r_out)
    squared = (told.error * np.linalg.norm(w)) ** 2
    assert max(of_in, of_out) - 1e-12 <= squared <= of_in + of_out + 1e-12
    assert kernel_error(conv, told) == pytest.approx(told.error, abs=1e-15)


@settings(max_examples=10)
@given(conv=convs())
def test_flattened_lies_between_the_best_of_each_unfolding_and_nothing(conv):
    w = conv.weight.detach().numpy()
    told = factorise(conv, "flattened", rank=1)
    unfolded = [[np.moveaxis(f, a, 0).reshape(f.shape[a], -1) for a in range(3)] for f in w]
    bound = sum(max(discarded(table, 1) for table in tables) for tables in unfolded)
    squared = (told.error * np.linalg.norm(w)) ** 2
    assert bound - 1e-12 <= squared < (w**2).sum()
    assert kernel_error(conv, told) == pytest.approx(told.error, abs=1e-15)


@pytest.mark.parametrize("kind", sorted(KINDS))
@pytest.mark.parametrize("name", ["sobel-x", "sobel-y", "gaussian", "box-blur"])
def test_separable_kernels_are_exact_at_rank_one(kind, name):
    conv = nn.Conv2d(1, 1, 3, padding=1, bias=False, dtype=torch.float64)
    with torch.no_grad():
        conv.weight.copy_(named_kernel(name))
    told = factorise(conv, kind, rank=1)
    assert told.error < 4 * np.finfo(float).eps
    if kind == "spatial":
        assert (told.params, told.dense_params) == (6, 9)


def test_laplacian_is_not_separable_and_the_error_says_so():
    conv = nn.Conv2d(1, 1, 3, bias=False)
    with torch.no_grad():
        conv.weight.copy_(named_kernel("laplacian"))
    assert factorise(conv, "spatial", rank=1).error > 0.1
    assert factorise(conv, "spatial", rank=2).error < 1e-6


@pytest.mark.parametrize("make", ["depthwise", "flattened"])
def test_what_is_of_the_kind_is_found_again(make):
    torch.manual_seed(0)
    kinds = {"depthwise": DepthwiseSeparableConv, "flattened": FlattenedConv}
    dense = expand(kinds[make](5, 7, 3, padding=1, dtype=torch.float64), ndim=2)
    assert factorise(dense, make, rank=1).error < 1e-12


def test_a_kernel_of_low_tucker_rank_is_found_again():
    torch.manual_seed(0)
    stack = nn.Sequential(nn.Conv2d(8, 3, 1, bias=False), nn.Conv2d(3, 4, 3, bias=False), nn.Conv2d(4, 9, 1)).double()
    dense = expand(stack, ndim=2)
    assert factorise(dense, "tucker", rank=(3, 4)).error < 1e-10
    assert min(factorise(dense, "tucker", rank=r).error for r in ((2, 4), (3, 3))) > 0.01


@pytest.mark.parametrize(("kind", "rank"), [("flattened", 2), ("cp", 3)])
def test_planted_terms_are_found_again(kind, rank):
    torch.manual_seed(0)
    conv = nn.Conv2d(8, 9, 3, padding=1, dtype=torch.float64)
    stack = factorise(conv, kind, rank=rank).layer
    for p in stack.parameters():
        nn.init.normal_(p)
    planted = expand(stack, ndim=2)
    again = factorise(planted, kind, rank=rank)
    assert again.error < 0.02
    x = torch.randn(2, 8, 7, 7, dtype=torch.float64)
    torch.testing.assert_close(again.layer(x), expand(again.layer, ndim=2)(x))
    assert isinstance(planted.bias, torch.Tensor)
    assert torch.equal(list(again.layer)[-1].get_parameter("bias"), planted.bias)


@settings(max_examples=10)
@given(conv=convs(), kind=st.sampled_from(sorted(KINDS)), wish=st.sampled_from([0.0, 0.05, 0.3, 0.6, 0.99]))
def test_the_rank_for_an_error_keeps_it_and_no_smaller_one_does(conv, kind, wish):
    told = factorise(conv, kind, error=wish)
    assert told.error <= wish + 1e-13
    if kind in ("spatial", "depthwise") and isinstance(told.rank, int) and told.rank > 1:
        assert factorise(conv, kind, rank=told.rank - 1).error > wish


def test_the_tucker_ranks_for_an_error_are_the_cheapest_that_the_bound_allows():
    torch.manual_seed(0)
    conv = nn.Conv2d(5, 6, 3, bias=False, dtype=torch.float64)
    w = conv.weight.detach().numpy()
    told = factorise(conv, "tucker", error=0.7)
    allowed = (0.7 * np.linalg.norm(w)) ** 2
    fits = [
        (a * 5 + a * b * 9 + b * 6, a, b)
        for a in range(1, 6)
        for b in range(1, 7)
        if discarded(w.transpose(1, 0, 2, 3).reshape(5, -1), a) + discarded(w.reshape(6, -1), b) <= allowed
    ]
    assert (told.macs, *told.rank) == min(fits)


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ({"error": 1.0}, "error is 1.0"),
        ({"error": -0.1}, "error is -0.1"),
        ({"error": float("nan")}, "error is nan"),
        ({"error": 0.1, "rank": 2}, "error is 0.1 and rank 2"),
    ],
)
def test_an_error_is_below_one_and_given_in_place_of_a_rank(given, found):
    with pytest.raises(InputError) as caught:
        factorise(nn.Conv2d(2, 2, 3), "spatial", **given)
    assert str(caught.value) == f"factorise: {found}; give either a rank, or an error from 0 to less than 1"


@pytest.mark.parametrize(
    ("kind", "rank", "params"),
    [
        ("spatial", 4, 4 * 3 * 6 + 4 * 3 * 8 + 8),
        ("depthwise", 2, 6 * 2 * 9 + 6 * 2 * 8 + 8),
        ("tucker", (3, 5), 6 * 3 + 3 * 5 * 9 + 5 * 8 + 8),
        ("flattened", 1, 8 * (6 + 3 + 3) + 8),
        ("flattened", 2, 2 * 8 * (6 + 3 + 3 + 1) + 8),
        ("cp", 5, 5 * (6 + 3 + 3 + 8) + 8),
    ],
)
def test_parameters_and_macs_are_what_summarize_counts(kind, rank, params):
    conv = nn.Conv2d(6, 8, 3, padding=1)
    told = factorise(conv, kind, rank=rank)
    both = [convscope.summarize(convscope.record(m, torch.zeros(1, 6, 10, 12))).total for m in (told.layer, conv)]
    assert told.rank == rank
    assert (told.params, told.dense_params) == (params, 6 * 8 * 9 + 8) == (both[0].params, both[1].params)
    assert (told.macs * 120, told.dense_macs * 120) == (both[0].macs, both[1].macs)
    assert told.macs_ratio == both[0].macs / both[1].macs


def test_a_stride_makes_the_layers_before_it_work_on_more_places():
    conv = nn.Conv2d(6, 8, 3, stride=2, padding=1)
    told = factorise(conv, "spatial", rank=4)
    total = convscope.summarize(convscope.record(told.layer, torch.zeros(1, 6, 16, 16))).total
    assert told.macs * 64 == total.macs


def test_mode_device_and_the_convolution_itself_are_left_alone():
    conv = nn.Conv2d(2, 2, 3).eval()
    before = conv.weight.clone()
    told = factorise(conv, "spatial", rank=1)
    assert not told.layer.training
    assert torch.equal(conv.weight, before)
    assert torch.equal(told.layer[-1].bias, conv.bias)
    assert told.layer[-1].bias is not conv.bias
    assert all(p.requires_grad and p.grad is None for p in told.layer.parameters())


def test_a_convolution_of_zeros_has_no_error():
    conv = nn.Conv2d(2, 3, 3)
    nn.init.zeros_(conv.weight)
    assert [factorise(conv, kind).error for kind in KINDS] == [0] * 5


def not_finite() -> nn.Conv2d:
    conv = nn.Conv2d(1, 1, 1)
    nn.init.constant_(conv.weight, float("nan"))
    return conv


@pytest.mark.parametrize(
    ("conv", "kind", "rank", "message"),
    [
        (
            nn.Conv2d(2, 4, 3),
            "spatial",
            7,
            "factorise: rank is 7 but 'spatial' of this convolution takes 1 to 6",
        ),
        (nn.Conv2d(2, 4, 3), "depthwise", 0, "factorise: rank is 0 but 'depthwise' of this convolution takes 1 to 4"),
        (nn.Conv2d(2, 4, 3), "flattened", 7, "factorise: rank is 7 but 'flattened' of this convolution takes 1 to 6"),
        (nn.Conv2d(2, 4, 1), "flattened", 3, "factorise: rank is 3 but 'flattened' of this convolution takes 1"),
        (nn.Conv2d(2, 4, 3), "cp", 19, "factorise: rank is 19 but 'cp' of this convolution takes 1 to 18"),
        (
            nn.Conv2d(2, 4, 3),
            "spatial",
            (1, 2),
            "factorise: rank is (1, 2) but 'spatial' of this convolution takes 1 to 6",
        ),
        (
            nn.Conv2d(2, 4, 3),
            "tucker",
            (3, 4),
            "factorise: rank is (3, 4) but 'tucker' of this convolution takes (1 to 2, 1 to 4), or one number for both",
        ),
        (
            nn.Conv2d(2, 4, 3),
            "tucker",
            (1, 1, 1),
            "factorise: rank is (1, 1, 1) but 'tucker' of this convolution takes (1 to 2, 1 to 4), "
            "or one number for both",
        ),
        (nn.Conv2d(2, 4, 3), "tuker", 1, "factorise: no kind is called 'tuker'; did you mean 'tucker'?"),
        (
            nn.Conv2d(4, 4, 3, groups=2),
            "spatial",
            1,
            "factorise: conv has groups=2; use a dense one, expand(conv, ndim=2) gives it",
        ),
        (
            nn.Conv2d(4, 4, 3, padding=1, padding_mode="circular"),
            "spatial",
            1,
            "factorise: conv has padding_mode='circular'; only 'zeros' carries over to a stack",
        ),
        (
            nn.Conv2d(4, 4, 2, padding="same"),
            "spatial",
            1,
            "factorise: conv has padding='same' with kernel_size=(2, 2), which pads unequal ends; "
            "use an odd size or padding in numbers",
        ),
        (nn.Conv1d(4, 4, 3), "spatial", 1, "factorise: conv is Conv1d; give a torch.nn.Conv2d"),
        (not_finite(), "spatial", 1, "factorise: conv has weights that are not finite; train or load it again"),
    ],
)
def test_bad_input_names_what_was_found_and_what_fits(conv, kind, rank, message):
    with pytest.raises(InputError) as caught:
        factorise(conv, kind, rank=rank)
    assert str(caught.value) == message
