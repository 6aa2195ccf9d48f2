"""torch.export: PyTorch's own archive, for programs in Python and for AOTInductor. It is written, not opened: reading
one unpickles, which can run code."""

import io
from typing import Any

import torch
from torch import Tensor, nn

from convscope.engines.card import KEY, Card
from convscope.engines.outputs import Flat, restored_outputs
from convscope.errors import ModelError, first_line


def exported_bytes(model: nn.Module, example_NCHW: Tensor, card: Card) -> bytes:
    """The network as a `torch.export` archive (.pt2), the card among its extra files.

    Raises: ModelError if PyTorch cannot export it, with its own words.
    """
    try:
        program = torch.export.export(
            Flat(model).eval(), (example_NCHW,), dynamic_shapes=({0: torch.export.Dim("batch")},)
        )
    except Exception as error:
        raise ModelError(
            f"export: the network cannot be exported by torch.export "
            f"({first_line(error)}); keep its path free of values"
        ) from error
    buffer = io.BytesIO()
    torch.export.save(program, buffer, extra_files={KEY: card.text()})
    return buffer.getvalue()


class ExportedModel(nn.Module):
    """An archive that this process has written, as a module: to see that it gives the same."""

    def __init__(self, content: bytes, *, source: str) -> None:
        super().__init__()
        extra: dict[str, str] = {KEY: ""}
        self.program = torch.export.load(io.BytesIO(content), extra_files=extra).module()
        self.card = Card.read(extra[KEY], source=source)

    def forward(self, x_NCHW: Tensor) -> Any:
        return restored_outputs(self.program(x_NCHW), self.card.outputs)

    def train(self, mode: bool = True) -> "ExportedModel":
        """An archive has the one mode that it was exported in."""
        return self
