"""The pixels that a unit depends on, and how much each of them moves it."""

from collections.abc import Callable
from typing import Any

import numpy as np

from convscope.errors import InputError
from convscope.graph import Op
from convscope.inspect import EffectiveField, fields, reach
from convscope.lab.session import Look

Measure = Callable[[str, tuple[int, ...]], EffectiveField]


def reached(
    look: Look, op: Op, unit: tuple[int, ...], *, measure: Measure | None = None
) -> tuple[dict[str, Any], np.ndarray]:
    """What is said of the pixels of a unit, and their values: 1 where it depends on the pixel, and 0 elsewhere.

    With `measure`, of a layer's name and a place, a second plane follows: the effective field, 0..1.
    Shapes: 1xHxW or 2xHxW. Raises: InputError if the unit does not exist, or what it sees is no picture.
    """
    field = fields(look.recording).get(op.outputs[0].id)
    if field is None or len(field.axes) != 2:
        raise InputError(f"{op.module or op.name}: sees no rows and columns of the picture; choose another layer")
    found = reach(look.recording, op, unit=unit)
    mask = found.mask(*field.axes)
    rows, columns = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
    held = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] if mask.any() else mask
    head: dict[str, Any] = {
        "depends_on": int(mask.sum()), "of": mask.size, "holes": int((~held).sum()) if mask.any() else 0,
        "bounded_by": found.bounded_by, "shape": mask.shape,
    }  # fmt: skip
    if measure is None:
        return head, mask[None].astype(np.float32)
    if not op.module or look.recording.find(op.module).index != op.index:
        raise InputError(f"{op.module or op.name}: is no whole module, so that no gradient is taken; choose the last "
                         "operator of one")  # fmt: skip
    told = measure(op.module, tuple(unit[a] for a in field.moves_with))
    head["effective"] = {"spread": told.spread, "share": told.share, "theoretical": told.theoretical}
    return head, np.stack([mask.astype(np.float32), told.map_HW.astype(np.float32)])
