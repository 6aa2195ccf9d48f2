"""The processes of one run: this one by itself, or those that torchrun started, of which the first leads."""

import logging
import os
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from lightning_fabric import Fabric
from torch import Tensor, nn

from convscope import machine
from convscope.errors import ConvscopeError, InputError

PRECISIONS: Mapping[str, Any] = {"float32": "32-true", "bfloat16": "bf16-mixed"}
Made = TypeVar("Made")
Error = TypeVar("Error", bound=ConvscopeError)


class Team:
    """The processes, `size` in all; what one of them cannot know alone, they tell each other.

    Raises: InputError if there are fewer GPUs than processes, or hosts have different numbers of them.
    """

    def __init__(self, *, device: str) -> None:
        self.rank, self.size = machine.rank(), machine.number_of_processes()
        here = int(os.environ.get("LOCAL_WORLD_SIZE", "1")) if self.size > 1 else 1
        if self.size % here:
            raise InputError(f"train: {self.size} processes do not come {here} to a host; start as many on each")
        if device == "cuda" and torch.cuda.device_count() < here:
            raise InputError(
                f"train: {here} processes cannot share {torch.cuda.device_count()} GPUs; start one for each"
            )
        logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # it announces every process
        self.options: dict[str, Any] = {"accelerator": device, "devices": here, "num_nodes": self.size // here}
        self.precision = ""
        self.compute_in("float32")

    def compute_in(self, precision: str) -> None:
        """Set up what follows for products of this precision."""
        if precision != self.precision:
            strategy, inner = "ddp" if self.size > 1 else "auto", PRECISIONS[precision]
            self.fabric, self.precision = Fabric(**self.options, strategy=strategy, precision=inner), precision
            self.fabric.launch()

    def __enter__(self) -> "Team":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self.size > 1 and error is None:
            self.fabric.barrier()  # the group stays, for the next run of these processes

    @property
    def leads(self) -> bool:
        """Whether this process is the one that writes and speaks."""
        return self.rank == 0

    @property
    def gpus(self) -> list[torch.device]:
        """The GPU that this process computes on, if it is one."""
        return [self.fabric.device] if self.fabric.device.type == "cuda" else []

    def share(self, samples: Tensor) -> Tensor:
        """This process's part of a batch."""
        return samples.tensor_split(self.size)[self.rank]

    def added(self, values: Mapping[str, float]) -> dict[str, float]:
        """The sums over all processes."""
        if self.size == 1:
            return dict(values)
        own = torch.tensor(list(values.values()), dtype=torch.float64, device=self.fabric.device)
        dist.all_reduce(own)
        return dict(zip(values, own.tolist(), strict=True))

    def highest(self, value: int) -> int:
        """The highest of all processes."""
        if self.size == 1:
            return value
        own = torch.tensor(value, device=self.fabric.device)
        dist.all_reduce(own, dist.ReduceOp.MAX)
        return int(own)

    def as_the_leader(self, module: nn.Module) -> None:
        """Give every process the leader's buffers: each kept statistics of its own part of the batches."""
        for buffer in module.buffers() if self.size > 1 else ():
            dist.broadcast(buffer, 0)

    def led(self, work: Callable[[], Made]) -> Made:
        """What `work` gives in the leading process, or its error, in every process."""
        made, error = _tried(work) if self.leads else (None, None)
        told = self.fabric.broadcast((made, error and (str(error), error.exit_code)))
        return self._agreed(told[0], error, [told[1]])

    def together(self, work: Callable[[], Made]) -> Made:
        """What `work` gives; if it fails in one process, it has failed in all."""
        made, error = _tried(work)
        own: Any = error and (str(error), error.exit_code)
        told: list[Any] = [own] * self.size
        if self.size > 1:
            dist.all_gather_object(told, own)
        return self._agreed(made, error, told)

    def agreed(self, error: Error) -> Error:
        """An error that all processes raise, and one of them says."""
        error.quiet = not self.leads
        return error

    def _agreed(self, made: Any, error: ConvscopeError | None, told: list[tuple[str, int] | None]) -> Any:
        known = next((t for t in told if t is not None), None)
        if known is None:
            return made
        if error is None:
            error = ConvscopeError(known[0])
            error.exit_code = known[1]
        raise self.agreed(error)


def _tried(work: Callable[[], Made]) -> tuple[Made | None, ConvscopeError | None]:
    try:
        return work(), None
    except ConvscopeError as error:
        return None, error
