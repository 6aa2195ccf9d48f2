"""fuse(): a network in its fused form, held to what the network gives."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from convscope.engines import OWN, Card, FusedModel, Program, named_outputs, on_cpu, peaks_of, program_of
from convscope.errors import ModelError

CLOSE = 1e-4  # largest difference from the network, as a share of the largest value of an output


def fuse(model: nn.Module, example: Tensor, *, precision: str = "f32") -> FusedModel:
    """The network in its fused form, on the CPU and without gradients, with weights of its own; the model stays.

    Shapes: example NxCxHxW, the size that weights are laid out for; any number of pictures of that size is taken.
    `precision` is "f32", "bf16" for bfloat16 inside, or "int8" for eight bits where values are never negative, with the
    ranges that the example's pictures reach. `counts` says how many normalisations were folded, and how many
    layers run on oneDNN and on each own kernel.
    Raises: ModelError if torch.export cannot follow the network, or in float32 the result differs by more than 0.0001
    of the largest output.

    >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU()).eval()
    >>> counts = fuse(net, torch.zeros(1, 3, 8, 8)).counts
    >>> counts["folded"], counts["oneDNN"] + counts["own"]  # which of the two is faster differs between machines
    (1, 1)
    """
    model, example = on_cpu(model), example.cpu()
    with torch.no_grad():
        outputs = tuple(named_outputs(model.eval()(example[:1])))
    shape = tuple(example.shape[1:])
    card = Card("", None, shape, (0.0,) * shape[0], (1.0,) * shape[0], outputs, precision=precision)
    program = program_of(model, example)
    program.tensors = {name: tensor.detach().clone() for name, tensor in program.tensors.items()}
    return fused_of(program, model, example, card)


@torch.no_grad()
def fused_of(
    program: Program, model: nn.Module, example: Tensor, card: Card, *, pictures: Tensor | None = None
) -> FusedModel:
    """The fused form of a program that was made of the model. In int8, `pictures` (NxCxHxW; without them the example's)
    say how far values reach.

    Raises: ModelError if it differs by more than 0.0001 of the largest output, in float32.
    """
    peaks = peaks_of(program, example if pictures is None else pictures) if card.precision == "int8" else None
    found = FusedModel(program, card, batch=len(example), peaks=peaks)
    if card.precision != "f32":
        return found
    own, ways = named_outputs(model(example)), dict(OWN)
    off = difference(own, named_outputs(found(example)))
    for name in ("Winograd", "in tiles"):  # from the least exact on
        del ways[name]
        if found.counts[name] and not off <= CLOSE:
            found = FusedModel(program, card, batch=len(example), ways=ways)
            off = difference(own, named_outputs(found(example)))
    if not off <= CLOSE:
        raise ModelError(f"fusing: the fused form differs by {off:.2g} of the largest output; it is left out")
    return found


def difference(own: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> float:
    """The largest difference of any output, as a share of that output's largest value."""
    shares = [
        float((other[n].float() - t.float()).abs().max() / t.abs().max().clamp_min(1e-30)) for n, t in own.items()
    ]
    return max(shares, key=lambda s: s if s == s else float("inf"))  # NaN is the worst
