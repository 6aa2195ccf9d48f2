"""Networks in one call, for the tests of both types that they run in."""

from collections.abc import Callable, Mapping

import pytest
from torch import Tensor, nn

from convscope.engines.fused import program_of
from convscope.engines.fused.calls import calls, one_call
from convscope.engines.fused.fusing import OWN, shapes_of
from convscope.engines.fused.onecall import How, OneCall
from convscope.engines.fused.simplify import fold

STEP = 2.0**-8  # half of what lies between 1 and the next bfloat16
HOWS = (How(False), How(False, 2**12), How(False, float("inf")), How(True), How(False, 0, 1), How(False, 0, 2, 2),
        How(True, 0, 1, 2))  # fmt: skip


def untime(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is timed: the first way that can be had is taken."""
    monkeypatch.setattr("convscope.engines.fused.fusing._fastest", lambda runs, conv, *, added: next(iter(runs)))
    monkeypatch.setattr("convscope.engines.fused.onecall.OneCall._quickest", lambda self, batch: How(False))
    monkeypatch.setattr("convscope.engines.fused.calls.quickest", lambda found: found[0])


def made(net: nn.Module, x: Tensor, *, half: bool = False, peaks: Mapping[str, float] | None = None) -> OneCall | None:
    """The network in one call, in bfloat16 or float32; None if it holds something that no kernel does. With
    `peaks`, the largest values behind nodes by their names, it is in bytes where it can be."""
    program = program_of(net.eval(), x)
    fold(program)
    return one_call(program, shapes_of(program, x), half=half or peaks is not None, peaks=peaks)


def all_made(net: nn.Module, x: Tensor) -> list[OneCall]:
    """All ways to have it in one call in float32; the first of them has no more channels than vectors need."""
    program = program_of(net.eval(), x)
    fold(program)
    return calls(program, shapes_of(program, x), ways=OWN, half=False, peaks={})


class Unlike(nn.Module):
    """A convolution, and behind it perhaps something that no kernel of ours does."""

    def __init__(self, what: Callable[[Tensor], Tensor], *, channels: int = 16) -> None:
        super().__init__()
        self.conv, self.what = nn.Conv2d(3, channels, 3, padding=1), what

    def forward(self, x: Tensor) -> Tensor:
        return self.what(self.conv(x))
