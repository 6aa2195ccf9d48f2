"""Recorded: what a session answers, from a recording alone: one picture, and no network to ask again."""

from pathlib import Path
from typing import Any

import numpy as np

from convscope.data.named import open_picture
from convscope.errors import InputError
from convscope.graph import Op, Recording
from convscope.inspect import summarize
from convscope.lab.session import GIVEN, Look, MissingError, Shown


class Recorded:
    """A recording that kept its tensors, and the picture that it was made on."""

    def __init__(self, recording: Recording, image: Any) -> None:
        size = recording.inputs[0].shape if recording.inputs else ()
        if len(size) != 4 or size[0] != 1:
            shape = "x".join(map(str, size)) or "nothing"
            raise InputError(f"widget: the recording read {shape}, but one picture can be shown; give 1xCxHxW")
        if not all(v.id in recording.tensors for op in recording.ops for v in op.outputs[:1]):
            raise InputError("widget: the recording kept no values; make it by record(model, x, keep=lambda op: True)")
        pixels = _pixels(image)
        if pixels.shape[1:] != size[2:]:
            shapes = ["x".join(map(str, s)) for s in (pixels.shape[1:], size[2:])]
            raise InputError(f"widget: the picture is {shapes[0]}, but the network read {shapes[1]}; give the picture "
                             "in the size that the network took")  # fmt: skip
        name = str(image) if isinstance(image, str | Path) else "picture"
        self.shape = size[1:]
        self._look = Look(recording, summarize(recording), "recorded")
        self._shown = Shown(GIVEN, name, pixels, recording.tensors[recording.inputs[0].id], ())

    def facts(self) -> dict[str, Any]:
        """What is known: neither the network's name nor how pixels were normalised."""
        return {
            "model": "recording", "trained": True, "shape": self.shape, "mean": None, "std": None, "classes": None,
            "given": self._shown.name, "digits": 0, "can": {},
        }  # fmt: skip

    def picture(self, key: str) -> Shown:
        """The picture.

        Raises: MissingError if another is asked for.
        """
        if key != GIVEN:
            raise MissingError(f"picture {key[:40]!r}: there are no others than {GIVEN!r}")
        return self._shown

    def look(self, key: str, index: int | None = None) -> Look:
        """The recording."""
        self.picture(key)
        return self._look

    def operator(self, look: Look, index: int) -> Op:
        """An operator by its number.

        Raises: MissingError with the valid range.
        """
        if not 0 <= index < len(look.recording.ops):
            raise MissingError(f"layer {index}: there are layers 0 to {len(look.recording.ops) - 1}")
        return look.recording.ops[index]

    def predictions(self, key: str) -> None:
        """A recording has no names of classes."""

    def effective(self, key: str, layer: str, place: tuple[int, ...]) -> Any:
        """Raises: InputError: no gradient without the network."""
        raise InputError("effective field: a recording has no network to ask; open the network in the lab")


def _pixels(image: Any) -> np.ndarray:
    """Pixels CxHxW in 0..1 of a name, a tensor ([1x]CxHxW or HxW), an array (HxW[xC]) or a Pillow picture.

    Raises: InputError if it is none of these.
    """
    if isinstance(image, str | Path):
        return open_picture(str(image)).pixels.transpose(2, 0, 1)
    first = hasattr(image, "detach")
    values = np.asarray(image.detach().cpu() if first else image)
    values = values[0] if values.ndim == 4 and len(values) == 1 else values
    if values.ndim == 2:
        values = values[None]
    elif values.ndim == 3 and not first:
        values = values.transpose(2, 0, 1)
    if values.ndim != 3 or values.shape[0] not in (1, 2, 3, 4):
        shape = "x".join(map(str, values.shape)) or "a single value"
        raise InputError(f"widget: {shape} is no picture; give a name, a tensor CxHxW or an array HxWxC")
    values = values.astype(np.float32) / (255 if values.dtype == np.uint8 else 1)
    if not (values.min() >= 0 and values.max() <= 1):
        raise InputError(f"widget: the picture has values from {values.min():.4g} to {values.max():.4g}; give pixels "
                         "in 0..1 or 0..255 (uint8), as they were before normalisation")  # fmt: skip
    return values
