"""How near an explanation must come to what PyTorch computed."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from convscope.explain import Explanation

# The share of the summed magnitudes of the terms that rounding may take, by the type that PyTorch computed in.
TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 1.6e-2, torch.float16: 2e-3}


@pytest.fixture(scope="session")
def agrees() -> Callable[[Explanation], bool]:
    """Whether total and model agree, up to rounding in the type of the output."""

    def check(told: Explanation) -> bool:
        parts = np.abs(told.contributions).sum() + sum(abs(t.contribution) for t in told.named)
        return abs(told.difference) <= TOLERANCE[told.op.outputs[0].dtype] * (parts + 0.1)

    return check
