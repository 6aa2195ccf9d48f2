"""What a network gives, as named tensors and back: engines know lists of tensors alone."""

import copy
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from convscope.errors import ModelError
from convscope.models.heads import Candidates

ONE = "output"


def named_outputs(outputs: Any) -> dict[str, Tensor]:
    """The tensors of a network's output by name: `output`, `logits`, or `detect.logits` where it has several heads.

    Raises: ModelError if it is neither a tensor nor what a detector gives, nor a dict of these.

    >>> list(named_outputs({"classify": torch.zeros(1), "segment": torch.zeros(1)}))
    ['classify.output', 'segment.output']
    """
    return dict(_walk(outputs, ""))


def restored_outputs(tensors: Sequence[Tensor], names: Sequence[str]) -> Any:
    """The output again, from tensors in the order of `names`."""
    return _restored(dict(zip(names, tensors, strict=True)))


def on_cpu(model: nn.Module) -> nn.Module:
    """The network, or a copy of it on the CPU if it lies elsewhere: there its files are made and measured."""
    here = all(t.is_cpu for t in (*model.parameters(), *model.buffers()))
    return model if here else copy.deepcopy(model).cpu()


@torch.no_grad()
def output_names(model: nn.Module, x_NCHW: Tensor) -> tuple[str, ...]:
    """The names of what the network gives for a batch."""
    return tuple(named_outputs(model(x_NCHW)))


class Flat(nn.Module):
    """The network, giving its tensors as a tuple: what an exporter takes."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return tuple(named_outputs(self.model(x)).values())


def _walk(outputs: Any, prefix: str) -> Iterator[tuple[str, Tensor]]:
    if isinstance(outputs, Tensor):
        yield prefix + ONE, outputs
    elif isinstance(outputs, Candidates):
        for name, tensor in outputs._asdict().items():
            yield prefix + name, tensor
    elif isinstance(outputs, Mapping) and not prefix:
        for key, value in outputs.items():
            yield from _walk(value, f"{key}.")
    else:
        raise ModelError(
            f"export: the network gives a {type(outputs).__name__}, which cannot be exported; give tensors, "
            "or a dict of them"
        )


def _restored(named: Mapping[str, Tensor]) -> Any:
    if set(named) == {ONE}:
        return named[ONE]
    if set(named) == set(Candidates._fields):
        return Candidates(**named)
    heads = dict.fromkeys(name.partition(".")[0] for name in named)
    return {h: _restored({n.partition(".")[2]: t for n, t in named.items() if n.startswith(f"{h}.")}) for h in heads}
