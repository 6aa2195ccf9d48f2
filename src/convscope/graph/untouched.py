"""A model as it was before, whatever its forward pass does to its attributes and to the random state."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from torch import nn

from convscope.machine import same_randomness

_OWN = set(nn.Module().__dict__) - {"_parameters", "_buffers", "_modules"}  # what a forward pass leaves alone


@contextmanager
def untouched(model: nn.Module) -> Iterator[None]:
    """Attributes, the lists and dicts that they hold, training flags and random states, as they were."""
    attributes = [(m.__dict__, dict(m.__dict__)) for m in model.modules()]
    held = [(v, v.copy()) for _, old in attributes for name, v in old.items() if _may_grow(name, v)]
    state = random.getstate(), np.random.get_state()
    try:
        with same_randomness((*model.parameters(), *model.buffers())):
            yield
    finally:
        random.setstate(state[0])
        np.random.set_state(state[1])
        for now, old in (*attributes, *held):  # such as anchors that a detector remembers
            now.clear()
            now.extend(old) if isinstance(now, list) else now.update(old)


def _may_grow(name: str, value: Any) -> bool:
    return name not in _OWN and isinstance(value, dict | list | set)
