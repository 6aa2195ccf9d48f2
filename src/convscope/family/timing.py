"""The members on the clock: what they take on this machine, beside the least that its limits allow."""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor, nn

from convscope.clock import Limits, compare, limits
from convscope.errors import InputError
from convscope.family.counting import Family, Member, Times
from convscope.family.setting import MEMBERS, Setting
from convscope.layers.fast import fastest

MOST_VALUES = 2**28  # of one map: 1 GiB of float32


def clocked(told: Family, *, rounds: int = 8, at_most: float = 20.0, on: Limits | None = None) -> Family:
    """The same family with times: all members take turns in one run, forward first, then with the backward pass.

    They are run as PyTorch runs them, in float32 and channels_last (two axes; else as they are), with random values;
    and, forward, in the way that `layers.fast.fastest` finds, in the same turns.
    Units: `at_most` seconds for each of the two runs, after three rounds. `on`: the machine's limits, if not those
    that `limits()` gives.
    Raises: InputError if a map would hold more than 2**28 values.
    """
    largest = max(torch.Size(m.output_shape).numel() for m in told.members)
    largest = max(largest, torch.Size(told.setting.shape).numel())
    if largest > MOST_VALUES:
        raise InputError(
            f"clocked: a map of {largest:,} values would need {largest * 4 / 2**30:.1f} GiB; "
            "use a smaller batch or input, or do not time it"
        )
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        x = _laid_out(torch.rand(told.setting.shape))
        layers = {m.name: _layer(m.name, told.setting) for m in told.members}
        best = {name: fastest(layer, x) for name, layer in layers.items()}
    runs = {n: _forward(layer, x) for n, layer in layers.items()}
    runs |= {f"{n}, fastest": _forward(b.module, x.contiguous(memory_format=b.memory_format)) for n, b in best.items()}
    forward = compare(runs, rounds=rounds, at_most=at_most)
    training = compare({n: _training(layer, x) for n, layer in layers.items()}, rounds=rounds, at_most=at_most)
    machine = on or limits()
    members = tuple(
        replace(
            m,
            times=Times(
                forward[m.name],
                training[m.name],
                fastest=forward[f"{m.name}, fastest"],
                way=best[m.name].way,
                limit=_limit(m, machine),
            ),
        )
        for m in told.members
    )
    layout = "channels_last" if x.dim() == 4 else "contiguous"
    return replace(
        told,
        members=members,
        notes=(
            f"medians of {len(forward['dense'].seconds)} rounds, {machine.threads} threads, {layout}, PyTorch eager",
        ),
    )


def _layer(name: str, s: Setting) -> nn.Module:
    layer = MEMBERS[name](s)
    return layer.to(memory_format=torch.channels_last) if s.ndim == 2 else layer


def _laid_out(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last) if x.dim() == 4 else x


def _forward(layer: nn.Module, x: Tensor) -> Callable[[], object]:
    return torch.inference_mode()(lambda: layer(x))


def _training(layer: nn.Module, x: Tensor) -> Callable[[], object]:
    source = x.clone().requires_grad_()
    wanted = (source, *layer.parameters())
    with torch.no_grad():
        slope = torch.ones_like(layer(x))

    def run() -> object:
        return torch.autograd.grad(layer(source), wanted, slope)

    return run


def _limit(member: Member, machine: Limits) -> float:
    """The operators one after the other, each as quick as its MACs, its bytes and a call allow."""
    return sum(machine.least_seconds(macs=macs, bytes=moved) for macs, moved in member.work)
