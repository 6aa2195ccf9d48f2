"""FusedModel: a program in its fused form, as a module, and as a file that every machine fuses in its own way."""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import is_in_torch_dispatch_mode

from convscope.clock import cache, compare
from convscope.engines.card import Card
from convscope.engines.fused.calls import one_call
from convscope.engines.fused.fusing import COUNTED, OWN, rewrite, shapes_of
from convscope.engines.fused.layers import LAST
from convscope.engines.fused.onecall import OneCall
from convscope.engines.fused.program import Program, program_from
from convscope.engines.fused.simplify import MADE, fold
from convscope.engines.fused.steps import Steps
from convscope.engines.outputs import ONE as ONE_OUTPUT
from convscope.engines.outputs import restored_outputs
from convscope.errors import ConvscopeError, ModelError, first_line
from convscope.layers.fast.compiled import digest, kernels, why_absent
from convscope.layers.fast.operators import is_traced

ONE = "layers in one call"
MOST_SIZES = 64  # of batches that are held ready

DTYPES: Mapping[str, torch.dtype] = {"f32": torch.float32, "bf16": torch.bfloat16, "int8": torch.bfloat16}


class FusedModel(nn.Module):
    """A program brought into its fused form on this machine: float32 pictures NxCxHxW in, what the network gave out.

    `counts` says how many normalisations were folded, and how many layers run on oneDNN and on each own kernel; `notes`
    what this machine lacks. In int8, `peaks` say how far values behind an activation reach, by the node's name; what
    cannot be in bytes is in bfloat16, and on a processor without tiles of bytes all is in float32. It has no gradients.
    """

    @torch.no_grad()
    def __init__(
        self,
        program: Program,
        card: Card,
        *,
        batch: int,
        ways: Mapping[str, str] = OWN,
        peaks: Mapping[str, float] | None = None,
    ) -> None:
        super().__init__()
        self.program, self.card, self.batch, self.peaks = program, card, batch, peaks or {}
        found, is_int8 = kernels(), card.precision == "int8"
        lacks = is_int8 and not (found and found.half)
        self.dtype, self._is_one = torch.float32 if lacks else DTYPES[card.precision], card.outputs == (ONE_OUTPUT,)
        self.counts, self._steps = self._fused(ways)
        self._ready: dict[Any, Callable[[Tensor], Tensor] | None] = {}
        absent = why_absent() if ways and self.dtype is torch.float32 else ""
        self.notes = (f"without our own kernels ({absent}), somewhat slower than with them",) if absent else ()
        if lacks:
            self.notes += ("there are no tiles of bytes (AMX and a compiler): in float32, which is slower",)

    def _fused(self, ways: Mapping[str, str]) -> tuple[dict[str, int], OneCall | Steps]:
        example = torch.zeros(self.batch, *self.card.shape).contiguous(memory_format=LAST)
        half = self.dtype is torch.bfloat16
        try:
            own = self.program.copy()
            counts = {"folded": fold(own)}
            found = kernels() if ways else None
            possible = found is not None and (found.half or not half)
            one = one_call(own, shapes_of(own, example), ways=ways, half=half, peaks=self.peaks) if possible else None
            own.tensors = {name: self._typed(name, t) for name, t in own.tensors.items()}
            example = example.to(self.dtype)
            counts |= rewrite(own, example, ways={} if half else ways)
            steps = Steps(own)
            restored_outputs([t.float() for t in steps(example)], self.card.outputs)
        except ConvscopeError:
            raise
        except Exception as error:
            raise ModelError(
                f"fusing: the network does not run so in {self.card.precision} ({first_line(error)}); use another form"
            ) from error
        if one is None or not _quicker(one, steps, example):
            return counts, steps
        return {"folded": counts["folded"], **dict.fromkeys(COUNTED, 0), **one.counts, ONE: len(one.layers)}, one

    def _typed(self, name: str, tensor: Tensor) -> Tensor:
        """Weights are of the type that the network runs in; numbers, such as places in a picture, stay exact."""
        return tensor.to(self.dtype) if tensor.is_floating_point() and not name.startswith(MADE) else tensor

    def forward(self, x_NCHW: Tensor) -> Any:
        ready = self._ready.get(x_NCHW.shape)
        if (
            ready is not None
            and type(x_NCHW) is Tensor
            and x_NCHW.dtype is torch.float32
            and x_NCHW.is_cpu
            and not is_in_torch_dispatch_mode()
            and not is_traced()
        ):
            return ready(x_NCHW)
        if x_NCHW.shape[1:] != self.card.shape:
            raise ModelError(
                f"fused network: takes pictures of {'x'.join(map(str, self.card.shape))}, not "
                f"{'x'.join(map(str, x_NCHW.shape[1:]))}; make it anew for that size"
            )
        heard = type(x_NCHW) is not Tensor or is_in_torch_dispatch_mode() or is_traced()
        if heard or x_NCHW.is_meta or not len(x_NCHW):  # somebody listens, or there are no numbers
            with torch.no_grad():
                return restored_outputs(self.program.run(x_NCHW.contiguous()), self.card.outputs)
        if isinstance(self._steps, OneCall) and self._is_one and len(self._ready) < MOST_SIZES:
            self._ready[x_NCHW.shape] = self._steps.ready(len(x_NCHW))
        x = x_NCHW.to("cpu", torch.float32 if isinstance(self._steps, OneCall) else self.dtype)
        found = self._steps(x.contiguous(memory_format=LAST))
        if self.dtype is not torch.float32:
            found = [t.float() if t.dtype is self.dtype else t for t in found]
        return found[0] if self._is_one else restored_outputs(found, self.card.outputs)

    def content(self) -> bytes:
        """The file: the network as it was before it was fused, so that another machine fuses it in its own way.

        Raises: ModelError if it uses an operator that no such file holds.
        """
        settings = {"batch": self.batch} | ({"peaks": self.peaks} if self.peaks else {})
        return self.program.content(self.card, settings=settings)

    def train(self, mode: bool = True) -> "FusedModel":
        """It has the one mode that it was made in."""
        return self


def open_fused(path: Path) -> FusedModel:
    """The network in a file that `FusedModel.content` gave.

    Raises: ModelError if it is damaged, or was not written by convscope.
    """
    return fused_from(path.read_bytes(), source=str(path))


def fused_from(content: bytes, *, source: str) -> FusedModel:
    """The same, from the file's bytes."""
    program, card, settings = program_from(content, source=source)
    batch, peaks = settings.get("batch"), settings.get("peaks", {})
    if not isinstance(batch, int) or not 0 < batch < 2**16:
        raise ModelError(f"{source}: its list of operators is damaged (batch {batch!r}); optimize again")
    if not isinstance(peaks, dict) or not all(isinstance(p, float) and math.isfinite(p) for p in peaks.values()):
        raise ModelError(f"{source}: how far its values reach is damaged; optimize again")
    return FusedModel(program, card, batch=batch, peaks=peaks)


def _quicker(one: OneCall, steps: Steps, example: Tensor) -> bool:
    """Whether one call is quicker on this machine than a call an operator."""
    key = {**cache.here(), "kernels": digest(), "one": one.key(), "batch": len(example)}
    kept = cache.load("one-or-steps", key)
    if not isinstance(kept, bool):
        x = torch.randn(example.shape).to(example.dtype).contiguous(memory_format=LAST)
        runs = {"one": lambda: one(x.float()), "steps": lambda: steps(x)}
        times = compare(runs, rounds=15, at_least=2e-3, at_most=4.0)
        kept = times["one"].over(times["steps"]) < 1
        cache.save("one-or-steps", key, kept)
    return kept
