"""The fastest exact way to run a layer on this machine, found by measuring: `fastest`."""

from convscope.layers.fast.choose import TOLERANCE, Choice, fastest

__all__ = ["TOLERANCE", "Choice", "fastest"]
