"""convscope: build, see, train and speed up convolutional neural networks on PyTorch.

The names below are loaded when they are first used, so that the command line starts without torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from convscope.graph import RULES, Op, OpRule, Recording, Role, Value, record, replay
    from convscope.inspect import Summary, receptive_field, summarize
    from convscope.lab.widget import widget

__version__ = "0.1.0"
__all__ = [
    "RULES",
    "Op",
    "OpRule",
    "Recording",
    "Role",
    "Summary",
    "Value",
    "receptive_field",
    "record",
    "replay",
    "summarize",
    "widget",
]

_HOMES = {
    "convscope.graph": {"RULES", "Op", "OpRule", "Recording", "Role", "Value", "record", "replay"},
    "convscope.inspect": {"Summary", "receptive_field", "summarize"},
    "convscope.lab.widget": {"widget"},
}


def __getattr__(name: str) -> Any:
    for home, names in _HOMES.items():
        if name in names:
            return getattr(import_module(home), name)
    raise AttributeError(f"module 'convscope' has no attribute {name!r}")
