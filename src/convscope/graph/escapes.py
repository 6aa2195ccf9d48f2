"""What leaves PyTorch while a model runs, as arrays and Python numbers, and what comes back of it.

The dispatcher does not see an array being taken from a tensor; a function mode does, as it sees `Tensor.numpy`.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from convscope.graph.values import Op, tensors_of

TAKEN = "convscope.taken.default"  # no operator: a tensor's values left as an array, or as Python numbers
RETURNED = "convscope.returned.default"  # no operator: a tensor made of values that may be those that left
_DOORS = {Tensor.numpy, Tensor.tolist, Tensor.__array__, Tensor.__dlpack__, Tensor.__array_wrap__}


class _Doors(TorchFunctionMode):
    def __init__(self, leaves: Callable[[Tensor], None]) -> None:
        super().__init__()
        self._leaves = leaves

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in _DOORS:
            self._leaves(args[0])
        return func(*args, **(kwargs or {}))


@contextmanager
def watched(leaves: Callable[[Tensor], None]) -> Iterator[None]:
    """Meanwhile, `leaves` is told of each tensor whose values are taken out of PyTorch at once."""
    with _Doors(leaves):
        yield


def held_by(model: nn.Module) -> list[Tensor]:
    """The tensors that a model's modules hold as attributes: constants that were there before it ran."""
    return [t for module in model.modules() for held in vars(module).values() for t in tensors_of(held)]


def left(ops: tuple[Op, ...]) -> tuple[str, ...]:
    """What a reader should know of the values that left while these operators ran."""
    count = sum(op.name == "_local_scalar_dense" or op.target == TAKEN for op in ops)
    if not count:
        return ()
    values = "1 value" if count == 1 else f"{count:,} values"
    return (f"{values} left PyTorch as numbers or arrays: tensors that come back are followed, branches are not",)
