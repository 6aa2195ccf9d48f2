"""The log as TensorBoard reads it, for those who look at runs there."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from convscope.errors import InputError

NAME = "tensorboard"


def board(folder: Path, *, after: int) -> Callable[[Mapping[str, Any]], None]:
    """A function that adds a row of `metrics.jsonl` to `folder/tensorboard`; what was logged after step `after` goes.

    Raises: InputError if TensorBoard is not installed.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise InputError("tensorboard: is not installed; pip install 'convscope[tensorboard]', or leave it out: "
                         "metrics.jsonl holds the same log") from None  # fmt: skip
    writer = SummaryWriter(str(folder / NAME), purge_step=after + 1)

    def add(row: Mapping[str, Any]) -> None:
        for key, value in row.items():
            if key not in ("epoch", "step"):
                writer.add_scalar(key.replace("_", "/", 1) if key[:4] in ("trai", "val_") else key, value, row["step"])
        writer.flush()

    return add
