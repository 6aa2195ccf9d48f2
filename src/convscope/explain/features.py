"""The feature maps of a recording: what each kept operator made of one image."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isqrt
from pathlib import Path

import numpy as np
from PIL import Image

from convscope.explain.pictures import grid, png_bytes, save_png
from convscope.files import write_whole
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

    def picture(self) -> Image.Image:
        """The maps side by side; a flat layer's values row by row in a block as square as their number allows."""
        if self.maps.shape[:2] != (1, 1):
            return grid(self.maps, title=self.name)
        size = self.maps.size
        rows = max(r for r in range(1, isqrt(size) + 1) if size % r == 0)
        return grid(self.maps.reshape(1, rows, -1), title=f"{self.name}, {size} values row by row", scale=14)

    def _repr_png_(self) -> bytes:
        return png_bytes(self.picture())


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
        if out and out.id in recording.kept and len(out.shape) in (2, 4):
            values = recording.tensors[out.id][sample].float().cpu().numpy()
            found.append(FeatureMap(op, values if values.ndim == 3 else values[None, None, :]))
    return tuple(found)


def save_maps(maps: Sequence[FeatureMap], folder: Path) -> tuple[Path, ...]:
    """One PNG a layer, in their order, and last `features.npz` with the exact values under the same names.

    Raises: RunError if the disk refuses.
    """
    names = [f"{i:03d}-{m.name}-{m.op.name}" for i, m in enumerate(maps)]
    pictures = [save_png(m.picture(), folder / f"{n}.png") for n, m in zip(names, maps, strict=True)]
    values = {n: m.maps for n, m in zip(names, maps, strict=True)}
    numbers = write_whole(folder / "features.npz", lambda file: np.savez_compressed(file, **values))  # pyright: ignore[reportArgumentType]
    return (*pictures, numbers)
