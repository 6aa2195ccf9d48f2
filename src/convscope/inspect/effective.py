"""The effective receptive field: how much each input pixel moves one unit, measured with gradients."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from convscope.errors import InputError
from convscope.graph import Op, Recording, record
from convscope.inspect.reach import check_unit, reach
from convscope.inspect.receptive_field import Unit, fields, space
from convscope.machine import same_randomness

ENERGY = 0.95


@dataclass(frozen=True, slots=True, eq=False)
class EffectiveField:
    """How much each place of the input moves the unit at `unit` of `layer`.

    Shapes: map_HW rows x columns of the input: the root mean square of the gradient over samples and channels, over
    its largest.
    `centre` and `spread`: mean and standard deviation along each axis, in px, with the map as weights. `theoretical`:
    the places that the unit depends on at all; `share`: the part of them that holds 95 % of the energy (squares of the
    map), the strongest first.
    """

    layer: str
    unit: Unit
    map_HW: np.ndarray
    theoretical: int
    share: float
    samples: int

    @property
    def centre(self) -> tuple[float, ...]:
        """Mean place along each axis, px."""
        return tuple(float((w * np.arange(len(w))).sum()) for w in self._weights())

    @property
    def spread(self) -> tuple[float, ...]:
        """Standard deviation along each axis, px."""
        pairs = zip(self._weights(), self.centre, strict=True)
        return tuple(float(np.sqrt((w * (np.arange(len(w)) - c) ** 2).sum())) for w, c in pairs)

    def _weights(self) -> Iterator[np.ndarray]:
        total = self.map_HW.sum() or 1.0
        for axis in range(self.map_HW.ndim):
            yield self.map_HW.sum(axis=tuple(a for a in range(self.map_HW.ndim) if a != axis)) / total

    def data(self) -> dict[str, Any]:
        """Plain data for JSON, without the map."""
        kept = ("layer", "unit", "theoretical", "share", "samples", "centre", "spread")
        return {name: getattr(self, name) for name in kept}


def effective_field(
    model: nn.Module,
    example: Tensor,
    *,
    layer: str,
    unit: tuple[int, ...] | None = None,
    samples: int | None = 16,
    seed: int = 0,
) -> EffectiveField:
    """Measure what moves one place of a layer: the gradient of its channels with random signs, to the input.

    example: pictures N x C x H x W. samples: how many standard normal inputs of that shape are drawn; None: the
    pictures themselves are used. unit: its place in space; the middle one if None. Nothing of the model changes.
    Raises: InputError if the layer or the unit does not exist, or nothing reaches the unit.
    Source: Luo, Li, Urtasun & Zemel 2016 (arXiv:1701.04128).

    >>> blur = nn.Sequential(*(nn.Conv2d(1, 1, 3, bias=False) for _ in range(8)))
    >>> for weight in blur.parameters():
    ...     _ = nn.init.constant_(weight, 1 / 9)
    >>> found = effective_field(blur, torch.zeros(1, 1, 17, 17), layer="7")
    >>> [round(s, 4) for s in found.spread], round((8 * (3**2 - 1) / 12) ** 0.5, 4)  # variances add up
    ([2.3094, 2.3094], 2.3094)
    >>> found.theoretical, round(found.share, 2)
    (289, 0.19)
    """
    with torch.inference_mode(False):  # where composite operators would be recorded whole
        recording = record(model, example[:1])
    op = recording.find(layer)
    if not op.module:
        raise InputError(f"layer {layer!r}: ran in no module, so that its gradient cannot be taken; name a module")
    axes = space(recording)
    full = whole_unit(recording, op, unit)
    draw = torch.Generator().manual_seed(seed)
    inputs = example if samples is None else _normal(example, samples, draw)
    inputs = inputs.to(next((p.device for p in model.parameters()), inputs.device))
    energies = torch.cat([_energy(model, x[None], op.module, full, draw) for x in inputs])
    energy = energies.sum(dim=[a for a in range(inputs.ndim) if a not in axes])
    theoretical = reach(recording, op, unit=full).mask(*axes)
    if not energy.max() > 0:
        raise InputError(f"{op.module}: no gradient of it reaches the input; choose another layer")
    strongest = energy.flatten().sort(descending=True).values.cumsum(0)
    needed = int((strongest < ENERGY * strongest[-1]).sum()) + 1
    reached = int(theoretical.sum())
    map_HW = (energy / energy.max()).sqrt().numpy()
    return EffectiveField(op.module, full, map_HW, reached, needed / reached, len(inputs))


def _normal(example: Tensor, samples: int, draw: torch.Generator) -> Tensor:
    if samples < 1:
        raise InputError(f"effective_field: samples is {samples}; use 1 or more, or None for the pictures themselves")
    return torch.randn(samples, *example.shape[1:], generator=draw).to(example)


def whole_unit(recording: Recording, op: Op, place: tuple[int, ...] | None = None) -> Unit:
    """An index for every axis of a layer's output: the place along the axes of space, all channels together.

    place: the middle one if None. Raises: InputError if it has not one index an axis, or does not exist.
    """
    shape, field = op.outputs[0].shape, fields(recording).get(op.outputs[0].id)
    if field is None:
        raise InputError(f"{op.module or op.name}: does not depend on the input; choose another layer")
    axes = field.moves_with
    if place is not None and len(place) != len(axes):
        raise InputError(
            f"{op.module or op.name}: a place in it has {len(axes)} indices, not {len(place)}; give as many"
        )
    chosen = dict(zip(axes, place or (shape[a] // 2 for a in axes), strict=True))
    unit = tuple(chosen.get(a, 0 if a == 0 else None) for a in range(len(shape)))
    check_unit(op, unit)
    return unit


def _energy(model: nn.Module, x: Tensor, layer: str, unit: Unit, draw: torch.Generator) -> Tensor:
    """The squared gradient of one place of a layer, its channels with random signs. Shapes: as x."""
    scores: list[Tensor] = []

    def take(module: nn.Module, given: Any, made: Any) -> None:
        out = made if isinstance(made, Tensor) else next(t for t in made if isinstance(t, Tensor))
        place = out[tuple(slice(None) if i is None else i for i in unit)]
        signs = torch.randint(0, 2, place.shape, generator=draw).to(place) * 2 - 1
        scores.append((place * signs).sum())

    handle = model.get_submodule(layer).register_forward_hook(take)
    try:
        with torch.inference_mode(False), torch.enable_grad(), _untouched(model) as state:
            asked = x.detach().clone().requires_grad_()
            torch.func.functional_call(model, state, (asked.clone(),))  # the copy may be changed in place
            gradient = (
                torch.autograd.grad(scores[-1], asked, allow_unused=True)[0] if scores[-1].requires_grad else None
            )
    finally:
        handle.remove()
    return (torch.zeros_like(x) if gradient is None else gradient).cpu().double() ** 2


@contextmanager
def _untouched(model: nn.Module) -> Iterator[dict[str, Tensor]]:
    """Copies of what a forward pass may write, to be used in place of the model's own; random state as it was."""
    state = {name: p.detach() for name, p in model.named_parameters()}
    state |= {name: b.detach().clone() for name, b in model.named_buffers()}
    with same_randomness(state.values()):
        yield state
