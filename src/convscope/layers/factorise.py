"""factorise(): a trained dense convolution as a cheaper stack of the family, with the least error for its size.

Shape suffixes: O output channels, I input channels, Y and X a kernel's rows and columns, R ranks.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor, nn

from convscope.errors import InputError, nearest
from convscope.layers.expand import expand, padding_in_numbers
from convscope.layers.family import DepthwiseSeparableConv, FlattenedConv, Options, SpatiallySeparableConv, maker

Rank = int | tuple[int, int]
TUCKER_SWEEPS, FLATTENED_SWEEPS = 10, 50  # of alternating refinement, none of which makes the error larger


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


def factorise(conv: nn.Conv2d, kind: str, *, rank: Rank | None = None) -> Factorised:
    """The convolution as a stack of `kind`, of that rank (the full rank if not given), with its weights set.

    - "spatial": a column kernel to `rank` channels, then a row kernel. Truncated SVD: the least error there is.
    - "depthwise": `rank` kernels an input channel, then 1x1. An SVD for each input channel: the least error there is.
    - "tucker": 1x1 to the first rank, a small convolution, 1x1 from the second. HOSVD, then alternating refinement.
    - "flattened": every filter as three 1-D kernels (rank 1 only), alternating refinement from the HOSVD.

    The first three are exact at full rank. The stack has the convolution's stride, padding, dilation, bias, dtype and
    device, and its own new parameters.
    Raises: InputError if the kind is unknown, the rank is out of range, or the convolution has groups or pads with
    anything but zeros.
    Source: Jaderberg et al. 2014 (arXiv:1405.3866); Kim et al. 2015 (arXiv:1511.06530); De Lathauwer et al. 2000.

    >>> _ = torch.manual_seed(0)
    >>> cheap = factorise(nn.Conv2d(16, 32, 3), "spatial", rank=8)
    >>> cheap.params, cheap.dense_params, 0 < cheap.error < 1
    (1184, 4640, True)
    """
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
    layer, used = KINDS[kind](conv, weight, rank)
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


def _spatial(conv: nn.Conv2d, w_OIYX: Tensor, rank: Rank | None) -> tuple[nn.Sequential, Rank]:
    kernels, channels, rows, columns = w_OIYX.shape
    table = w_OIYX.permute(1, 2, 0, 3).reshape(channels * rows, kernels * columns)
    r = _one_rank("spatial", rank, min(table.shape))
    left, right = _truncated(table, r)
    size = (rows, columns)
    layer = SpatiallySeparableConv(channels, kernels, size, hidden_channels=r, **_options(conv))
    down = left.reshape(channels, rows, r).permute(2, 0, 1).unsqueeze(3)
    _fill(layer, down, right.reshape(r, kernels, columns).permute(1, 0, 2).unsqueeze(2))
    return layer, r


def _depthwise(conv: nn.Conv2d, w_OIYX: Tensor, rank: Rank | None) -> tuple[nn.Sequential, Rank]:
    kernels, channels, rows, columns = w_OIYX.shape
    tables = w_OIYX.permute(1, 0, 2, 3).reshape(channels, kernels, rows * columns)
    r = _one_rank("depthwise", rank, min(tables.shape[1:]))
    left, right = _truncated(tables, r)
    layer = DepthwiseSeparableConv(channels, kernels, (rows, columns), depth_multiplier=r, **_options(conv))
    pointwise = left.permute(1, 0, 2).reshape(kernels, channels * r, 1, 1)
    _fill(layer, right.reshape(channels * r, 1, rows, columns), pointwise)
    return layer, r


def _tucker(conv: nn.Conv2d, w_OIYX: Tensor, rank: Rank | None) -> tuple[nn.Sequential, Rank]:
    kernels, channels = w_OIYX.shape[:2]
    most = (min(channels, w_OIYX[:, 0].numel()), min(kernels, w_OIYX[0].numel()))
    r_in, r_out = _two_ranks(rank, most)
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


def _flattened(conv: nn.Conv2d, w_OIYX: Tensor, rank: Rank | None) -> tuple[nn.Sequential, Rank]:
    kernels, channels, rows, columns = w_OIYX.shape
    r = _one_rank("flattened", rank, 1)
    down = _first_direction(w_OIYX.permute(0, 2, 1, 3).flatten(2))
    along = _first_direction(w_OIYX.permute(0, 3, 1, 2).flatten(2))
    across = torch.einsum("oiyx,oy,ox->oi", w_OIYX, down, along)
    for _ in range(FLATTENED_SWEEPS):
        down = _unit(torch.einsum("oiyx,oi,ox->oy", w_OIYX, across, along))
        along = _unit(torch.einsum("oiyx,oi,oy->ox", w_OIYX, across, down))
        across = torch.einsum("oiyx,oy,ox->oi", w_OIYX, down, along)
    third = across.norm(dim=1, keepdim=True) ** (1 / 3)
    layer = FlattenedConv(channels, kernels, (rows, columns), **_options(conv))
    _fill(
        layer,
        (third * _unit(across))[:, :, None, None],
        (third * down)[:, None, :, None],
        (third * along)[:, None, None, :],
    )
    return layer, r


KINDS: Mapping[str, Callable[[nn.Conv2d, Tensor, Rank | None], tuple[nn.Sequential, Rank]]] = {
    "spatial": _spatial,
    "depthwise": _depthwise,
    "tucker": _tucker,
    "flattened": _flattened,
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


def _first_direction(tables: Tensor) -> Tensor:
    return torch.linalg.svd(tables, full_matrices=False)[0][..., 0]


def _unit(vectors: Tensor) -> Tensor:
    return vectors / vectors.norm(dim=1, keepdim=True).clamp_min(torch.finfo(vectors.dtype).tiny)


def _one_rank(kind: str, rank: Rank | None, most: int) -> int:
    r = most if rank is None else rank
    if not isinstance(r, int) or not 1 <= r <= most:
        fits = "1" if most == 1 else f"1 to {most}"
        raise InputError(f"factorise: rank is {rank} but {kind!r} of this convolution takes {fits}")
    return r


def _two_ranks(rank: Rank | None, most: tuple[int, int]) -> tuple[int, int]:
    pair = most if rank is None else (rank, rank) if isinstance(rank, int) else tuple(rank)
    if len(pair) != 2 or not all(1 <= r <= m for r, m in zip(pair, most, strict=True)):
        raise InputError(
            f"factorise: rank is {rank} but 'tucker' of this convolution takes (1 to {most[0]}, 1 to {most[1]}), "
            f"or one number for both"
        )
    return pair[0], pair[1]


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
