"""factorise(): a trained dense convolution as a cheaper stack of the family, with the least error for its size.

Shape suffixes: O output channels, I input channels, Y and X a kernel's rows and columns, R ranks.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor, nn

from convscope.errors import InputError, nearest
from convscope.layers.cp import cp, most_terms
from convscope.layers.expand import expand, padding_in_numbers
from convscope.layers.family import DepthwiseSeparableConv, FlattenedConv, Options, SpatiallySeparableConv, maker
from convscope.layers.ranks import (
    Rank,
    depthwise_tables,
    least_rank,
    one_rank,
    spatial_table,
    svd_rank,
    tucker_ranks,
    two_ranks,
)

TUCKER_SWEEPS = 10  # of alternating refinement, none of which makes the error larger


@dataclass(frozen=True, slots=True)
class Factorised:
    """A stack that stands in for a dense convolution, and what that costs.

    Units: `error` is the relative Frobenius error of the dense kernel that the stack equals, 0 if exact; `params` are
    counts with biases; `macs` are multiply-accumulates for one output place of all channels, borders left aside.
    """

    kind: str
    rank: Rank
    layer: nn.Sequential
    error: float
    params: int
    dense_params: int
    macs: int
    dense_macs: int

    @property
    def macs_ratio(self) -> float:
        """MACs of the stack over those of the dense convolution: below 1, it is cheaper."""
        return self.macs / self.dense_macs


def factorise(
    conv: nn.Conv2d, kind: str, *, rank: Rank | None = None, error: float | None = None, seed: int = 0
) -> Factorised:
    """The convolution as a stack of `kind`, of that rank or for that error (of the full rank without), weights set.

    - "spatial": a column kernel to `rank` channels, then a row kernel. Truncated SVD: the least error there is.
    - "depthwise": `rank` kernels an input channel, then 1x1. An SVD for each input channel: the least error there is.
    - "tucker": 1x1 to the first rank, a small convolution, 1x1 from the second. HOSVD, then alternating refinement.
    - "flattened": every filter as the sum of `rank` triples of 1-D kernels. Alternating least squares.
    - "cp": 1x1 to `rank` channels, a column and a row kernel for each, 1x1. Alternating least squares.

    All are exact at full rank. `error` is the relative Frobenius error that is allowed, before rounding to the dtype:
    the least rank that keeps it is taken (for "tucker" the pair with the fewest MACs that the HOSVD is sure of).
    `seed` is that of the random starts of alternating least squares. The stack has the convolution's stride, padding,
    dilation, bias, dtype and device, and its own new parameters.
    Raises: InputError if the kind is unknown, rank or error is out of range or both are given, or the convolution has
    groups or pads with anything but zeros.
    Source: Jaderberg et al. 2014 (arXiv:1405.3866); Kim et al. 2015 (arXiv:1511.06530); Lebedev et al. 2014
    (arXiv:1412.6553); De Lathauwer et al. 2000.

    >>> _ = torch.manual_seed(0)
    >>> cheap = factorise(nn.Conv2d(16, 32, 3), "spatial", rank=8)
    >>> cheap.params, cheap.dense_params, 0 < cheap.error < 1
    (1184, 4640, True)
    >>> factorise(nn.Conv2d(16, 32, 3), "spatial", error=0.5).error <= 0.5
    True
    """
    weight = _checked(conv, kind, rank, error)
    if error is not None:
        rank = RANKS[kind](weight, error, seed)
    layer, used = KINDS[kind](conv, weight, rank, seed)
    if conv.bias is not None:
        with torch.no_grad():
            list(layer)[-1].get_parameter("bias").copy_(conv.bias)
    layer.train(conv.training)
    return Factorised(
        kind,
        used,
        layer,
        error=_error(layer, weight),
        params=sum(p.numel() for p in layer.parameters()),
        dense_params=sum(p.numel() for p in conv.parameters()),
        macs=_macs(layer),
        dense_macs=weight.numel(),
    )


def _checked(conv: nn.Conv2d, kind: str, rank: Rank | None, error: float | None) -> Tensor:
    """The weights to take apart, in float64."""
    if not isinstance(conv, nn.Conv2d):
        raise InputError(f"factorise: conv is {type(conv).__name__}; give a torch.nn.Conv2d")
    if kind not in KINDS:
        raise InputError(f"factorise: no kind is called {kind!r}; {nearest(kind, KINDS)}")
    if conv.groups != 1:
        raise InputError(f"factorise: conv has groups={conv.groups}; use a dense one, expand(conv, ndim=2) gives it")
    if conv.padding_mode != "zeros":
        raise InputError(
            f"factorise: conv has padding_mode={conv.padding_mode!r}; only 'zeros' carries over to a stack"
        )
    weight = conv.weight.detach().to("cpu", torch.float64)
    if not torch.isfinite(weight).all():
        raise InputError("factorise: conv has weights that are not finite; train or load it again")
    if error is not None and (rank is not None or not 0 <= error < 1):
        found = f"error is {error} and rank {rank}" if rank is not None else f"error is {error}"
        raise InputError(f"factorise: {found}; give either a rank, or an error from 0 to less than 1")
    return weight


def _spatial(conv: nn.Conv2d, w_OIYX: Tensor, rank: Rank | None, seed: int) -> tuple[nn.Sequential, Rank]:
    kernels, channels, rows, columns = w_OIYX.shape
    table = spatial_table(w_OIYX)
    r = one_rank("spatial", rank, min(table.shape))
    left, right = _truncated(table, r)
    size = (rows, columns)
    layer = SpatiallySeparableConv(channels, kernels, size, hidden_channels=r, **_options(conv))
    down = left.reshape(channels, rows, r).permute(2, 0, 1).unsqueeze(3)
    _fill(layer, down, right.reshape(r, kernels, columns).permute(1, 0, 2).unsqueeze(2))
    return layer, r


def _depthwise(conv: nn.Conv2d, w_OIYX: Tensor, rank: Rank | None, seed: int) -> tuple[nn.Sequential, Rank]:
    kernels, channels, rows, columns = w_OIYX.shape
    tables = depthwise_tables(w_OIYX)
    r = one_rank("depthwise", rank, min(tables.shape[1:]))
    left, right = _truncated(tables, r)
    layer = DepthwiseSeparableConv(channels, kernels, (rows, columns), depth_multiplier=r, **_options(conv))
    pointwise = left.permute(1, 0, 2).reshape(kernels, channels * r, 1, 1)
    _fill(layer, right.reshape(channels * r, 1, rows, columns), pointwise)
    return layer, r


def _tucker(conv: nn.Conv2d, w_OIYX: Tensor, rank: Rank | None, seed: int) -> tuple[nn.Sequential, Rank]:
    kernels, channels = w_OIYX.shape[:2]
    most = (min(channels, w_OIYX[:, 0].numel()), min(kernels, w_OIYX[0].numel()))
    r_in, r_out = two_ranks(rank, most)
    from_in, to_out = _leading(w_OIYX.transpose(0, 1), r_in), _leading(w_OIYX, r_out)
    for _ in range(TUCKER_SWEEPS):
        from_in = _leading(torch.einsum("oiyx,or->iryx", w_OIYX, to_out), r_in)
        to_out = _leading(torch.einsum("oiyx,ir->oryx", w_OIYX, from_in), r_out)
    core = torch.einsum("oiyx,ir,os->sryx", w_OIYX, from_in, to_out)
    factory = {"device": conv.weight.device, "dtype": conv.weight.dtype}
    window = (core.shape[2:], conv.stride, padding_in_numbers(conv, "factorise: conv"), conv.dilation)
    layer = nn.Sequential()
    layer.add_module("enter", maker(2)(channels, r_in, 1, bias=False, **factory))
    layer.add_module("core", maker(2)(r_in, r_out, *window, bias=False, **factory))
    layer.add_module("leave", maker(2)(r_out, kernels, 1, bias=conv.bias is not None, **factory))
    _fill(layer, from_in.T[:, :, None, None], core, to_out[:, :, None, None])
    return layer, (r_in, r_out)


def _flattened(conv: nn.Conv2d, w_OIYX: Tensor, rank: Rank | None, seed: int) -> tuple[nn.Sequential, Rank]:
    kernels, size = len(w_OIYX), tuple(w_OIYX.shape[1:])
    r = one_rank("flattened", rank, most_terms(size))
    across, down, along = cp(w_OIYX, r, seed=seed).factors  # OxNxR each: R channels a filter, side by side
    weights = [f.transpose(1, 2).flatten(0, 1) for f in (across, down, along)]
    if r == 1:
        layer = FlattenedConv(size[0], kernels, size[1:], **_options(conv))
        _fill(layer, *_as_kernels(*weights))
        return layer, r
    layer = _flat_to(conv, kernels * r, name="sum", groups=kernels)
    _fill(layer, *_as_kernels(*weights), torch.ones(kernels, r, 1, 1))
    return layer, r


def _cp(conv: nn.Conv2d, w_OIYX: Tensor, rank: Rank | None, seed: int) -> tuple[nn.Sequential, Rank]:
    r = one_rank("cp", rank, most_terms(tuple(w_OIYX.shape)))
    leave, across, down, along = (f[0] for f in cp(w_OIYX[None], r, seed=seed).factors)
    layer = _flat_to(conv, r, name="leave", groups=1)
    _fill(layer, *_as_kernels(across.T, down.T, along.T), leave[:, :, None, None])
    return layer, r


def _flat_to(conv: nn.Conv2d, channels: int, *, name: str, groups: int) -> nn.Sequential:
    """A flattened convolution to so many channels, and a 1x1 convolution from them to those of the whole."""
    options = _options(conv)
    factory = {"device": options.get("device"), "dtype": options.get("dtype")}
    size = (conv.kernel_size[0], conv.kernel_size[1])
    layer = nn.Sequential()
    for part, made in FlattenedConv(conv.in_channels, channels, size, **options | {"bias": False}).named_children():
        layer.add_module(part, made)
    last = maker(2)(channels, conv.out_channels, 1, groups=groups, bias=conv.bias is not None, **factory)
    layer.add_module(name, last)
    return layer


def _as_kernels(across_RC: Tensor, down_RY: Tensor, along_RX: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return across_RC[:, :, None, None], down_RY[:, None, :, None], along_RX[:, None, None, :]


KINDS: Mapping[str, Callable[[nn.Conv2d, Tensor, Rank | None, int], tuple[nn.Sequential, Rank]]] = {
    "spatial": _spatial,
    "depthwise": _depthwise,
    "tucker": _tucker,
    "flattened": _flattened,
    "cp": _cp,
}


def _flattened_rank(w_OIYX: Tensor, error: float, seed: int) -> int:
    sizes = w_OIYX.flatten(1).norm(dim=1)

    def error_at(rank: int) -> float:
        return ((cp(w_OIYX, rank, seed=seed).error * sizes).norm() / sizes.norm()).item()

    return least_rank(error_at, error, most_terms(tuple(w_OIYX.shape[1:])))


def _cp_rank(w_OIYX: Tensor, error: float, seed: int) -> int:
    most = most_terms(tuple(w_OIYX.shape))
    return least_rank(lambda rank: cp(w_OIYX[None], rank, seed=seed).error.item(), error, most)


RANKS: Mapping[str, Callable[[Tensor, float, int], Rank]] = {
    "spatial": lambda w, error, _: svd_rank(spatial_table(w), error),
    "depthwise": lambda w, error, _: svd_rank(depthwise_tables(w), error),
    "tucker": lambda w, error, _: tucker_ranks(w, error),
    "flattened": _flattened_rank,
    "cp": _cp_rank,
}


def _options(conv: nn.Conv2d) -> Options:
    return {
        "stride": conv.stride,
        "padding": padding_in_numbers(conv, "factorise: conv"),
        "dilation": conv.dilation,
        "bias": conv.bias is not None,
        "device": conv.weight.device,
        "dtype": conv.weight.dtype,
    }


def _truncated(table: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """The two factors of the nearest table of that rank, equally large (Eckart and Young 1936); may be a batch."""
    u, s, v = torch.linalg.svd(table, full_matrices=False)
    root = s[..., :rank].sqrt()
    return u[..., :rank] * root[..., None, :], root[..., :, None] * v[..., :rank, :]


def _leading(tensor: Tensor, rank: int) -> Tensor:
    """The `rank` orthonormal directions of the first axis that hold most of the tensor."""
    table = tensor.flatten(1)
    return torch.linalg.eigh(table @ table.T).eigenvectors[:, -rank:]  # in rising order; far faster than an SVD


def _fill(layer: nn.Sequential, *weights: Tensor) -> None:
    with torch.no_grad():
        for part, weight in zip(layer, weights, strict=True):
            part.get_parameter("weight").copy_(weight)


def _error(layer: nn.Sequential, weight: Tensor) -> float:
    """Relative Frobenius error, of what the layer really is: its weights as rounded to their dtype."""
    found = expand(layer, ndim=2).weight.detach().to("cpu", torch.float64)
    whole = weight.norm().item()
    return (found - weight).norm().item() / whole if whole else found.norm().item()


def _macs(layer: nn.Sequential) -> int:
    """For one place of the last output; a stride behind a layer makes it work on more places."""
    total, places = 0, 1
    for conv in reversed(list(layer)):
        if isinstance(conv, nn.Conv2d):
            total += conv.weight.numel() * places
            places *= prod(conv.stride)
    return total
