"""The training kernels for networks that know nothing of them: what their modules call goes there where these serve."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from convscope.layers.fast.convolved import conv2d
from convscope.layers.fast.normed import LAST, batch_norm

_WAYS: Mapping[Any, Callable[..., Any]] = {F.conv2d: conv2d, F.batch_norm: batch_norm}


class Quick(TorchFunctionMode):
    """In here convolutions and batch normalisations of whatever network are computed by the kernels where they serve.

    Neither modules nor their hooks are touched: it is the functions that modules call which take another way.

    >>> conv, x = torch.nn.Conv2d(16, 16, 3, padding=1, bias=False), torch.rand(2, 16, 5, 5).to(memory_format=LAST)
    >>> with Quick(), torch.autocast("cpu", torch.bfloat16):
    ...     y = conv(x)
    >>> torch.allclose(y.float(), conv(x), atol=0.02)
    True
    """

    def __torch_function__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Whatever is called while it is on; where PyTorch computes a part anew on the way back, both are its own."""
        words = kwargs or {}
        if func in _WAYS and _last(args[0] if args else words["input"]):
            hooks = torch._C._autograd._top_saved_tensors_default_hooks(True)  # pyright: ignore[reportAttributeAccessIssue]
            func = func if hooks is not None else _WAYS[func]
        return func(*args, **words)


def _last(x: Tensor) -> bool:
    """Whether the channels of a pixel lie side by side, which the kernels would else lay there for every layer."""
    return x.dim() == 4 and x.is_contiguous(memory_format=LAST)
