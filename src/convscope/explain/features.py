"""The feature maps of a recording: what each kept operator made of one image."""

from dataclasses import dataclass

import numpy as np

from convscope.graph import Op, Recording


@dataclass(frozen=True, slots=True)
class FeatureMap:
    """The output of one operator for one image. Shapes: maps channels x height x width (1 x 1 x features if flat)."""

    op: Op
    maps: np.ndarray

    @property
    def name(self) -> str:
        """The layer's module path, or the operator where no module ran it."""
        return self.op.module or self.op.name


def feature_maps(recording: Recording, *, sample: int = 0) -> tuple[FeatureMap, ...]:
    """One FeatureMap for each kept operator that makes an image or a vector from the input.

    The recording must have been made with `keep=`; operators that only prepare weights have no map.
    """
    sources = {v.id for v in recording.inputs}
    found = []
    for op in recording.ops:
        if not any(v.id in sources for v in op.inputs):
            continue
        sources |= {v.id for v in op.outputs}
        out = op.outputs[0] if op.outputs else None
        if out and out.id in recording.tensors and len(out.shape) in (2, 4):
            values = recording.tensors[out.id][sample].float().cpu().numpy()
            found.append(FeatureMap(op, values if values.ndim == 3 else values[None, None, :]))
    return tuple(found)
