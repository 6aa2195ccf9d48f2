"""A network and a picture as one HTML file that needs no server: open it, click units.

The file holds the tensors and how each operator combines them; what is shown of a unit, the page works out itself.
"""

import base64
from collections.abc import Mapping
from functools import cache
from hashlib import sha256
from html import escape
from math import floor, prod
from pathlib import Path
from typing import Any

import numpy as np

from convscope import __version__
from convscope.errors import InputError
from convscope.files import write_whole
from convscope.graph import Op, Recording, Value
from convscope.inspect import reach, receptive_field
from convscope.lab.answers import compact, layer_rows, picture_facts, session_facts
from convscope.lab.bundle import bundle, static
from convscope.lab.maps import maps_of
from convscope.lab.recipes import recipe

MOST_BYTES = 128 * 2**20  # of a page


def write_page(session: Any, path: Path | str, *, key: str = "given") -> Path:
    """Write the page of a picture; the file appears whole or not at all.

    Raises: InputError if it would be larger than 128 MiB; RunError if it cannot be written.
    """
    return write_whole(path, page(session, key))


def page(session: Any, key: str = "given", *, most: int = MOST_BYTES) -> str:
    """The page of a network and one picture.

    Raises: InputError if it would be larger than `most` bytes.
    """
    _check(session, key, most)
    shown, look = session.picture(key), session.look(key)
    layers, needed = layer_rows(look), {}
    heads, recipes = {}, {}
    for row in layers["rows"]:
        op = look.recording.ops[row["index"]]
        heads[op.index] = _head(look.recording, op)
        recipes[op.index], used = recipe(look.recording, op)
        needed |= {v.id: v for v in (op.outputs[0], *used)}
        row |= {"holes": _holes(look.recording, op), "value": op.outputs[0].id}
        row["unknown"] = _by_channel(look.recording, op)
        row["boxes"] = _boxes(look.recording, op, row["receptive_field"])
    facts = {
        "session": session_facts(session, version=__version__) | {"can": {}},
        "picture": picture_facts(session, shown), "layers": layers, "maps": heads, "recipes": recipes,
        "tensors": {v.id: _about(v) for v in needed.values()},
    }  # fmt: skip
    blobs = {"pixels": shown.pixels, **{i: look.recording.tensors[i] for i in needed}}
    return html("alone", facts, blobs, title=f"{facts['session']['model']}, {shown.name}")


def html(entry: str, facts: Any, blobs: Mapping[Any, Any], *, title: str) -> str:
    """A page that runs the module `entry`: its policy names the script and the style by their hashes, and no host."""
    script, style = _parts(entry)
    policy = (
        f"default-src 'none'; script-src '{_hash(script)}'; style-src '{_hash(style)}'; img-src data: blob:; "
        "base-uri 'none'; form-action 'none'"
    )
    data = "".join(
        f'<script type="text/plain" id="blob-{name}">{_base64(values)}</script>\n' for name, values in blobs.items()
    )
    text = compact(facts).replace("<", "\\u003c")
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="content-security-policy" content="{policy}">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta name="color-scheme" content="light dark">\n<meta name="referrer" content="no-referrer">\n'
        f'<title>{escape(title)}</title>\n<link rel="icon" href="data:,">\n<style>{style}</style>\n</head>\n'
        f'<body data-state="loading">\n<script type="application/json" id="facts">{text}</script>\n{data}'
        f'<script type="module">{script}</script>\n</body>\n</html>\n'
    )


@cache
def _parts(entry: str) -> tuple[str, str]:
    return bundle(entry), static("lab.css")


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(sha256(text.encode()).digest()).decode()


def _base64(values: Any) -> str:
    data = np.ascontiguousarray(np.asarray(values.float() if hasattr(values, "float") else values), "<f4").tobytes()
    return base64.b64encode(data).decode()


def _check(session: Any, key: str, most: int) -> None:
    """Refuse what would be too large before it is made."""
    recording = session.look(key).recording
    made = sum(prod(v.shape) for op in recording.ops for v in op.outputs[:1])
    size = (made + sum(prod(v.shape) for v in recording.params)) * 4 * 4 // 3
    if size > most or not all(v.id in recording.tensors for op in recording.ops for v in op.outputs[:1]):
        raise InputError(
            f"export: a page of this network would take about {size / 2**20:,.0f} MiB, and {most // 2**20} MiB are "
            "the most; take a smaller network, or a smaller picture (--input)"
        )


def _head(recording: Recording, op: Op) -> dict[str, Any] | None:
    """What is said of the maps, all of them in order; None where there are none."""
    try:
        return maps_of(recording, op).head()
    except InputError:
        return None


def _about(value: Value) -> dict[str, Any]:
    return {"shape": value.shape, "name": value.name or value.role, "input": value.role == "input"}


def _holes(recording: Recording, op: Op) -> bool:
    """Whether pixels between those that a place sees do not count: the page has no sets, and says so."""
    shape = op.outputs[0].shape
    if len(shape) != 4:
        return False
    found = reach(recording, op, unit=tuple(n // 2 for n in shape))
    if len(found.shape) != 4 or not (mask := found.mask(2, 3)).any():
        return False
    rows, columns = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
    return not bool(mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all())


def _boxes(recording: Recording, op: Op, field: Mapping[str, Any] | None) -> list[list[tuple[int, int]]] | None:
    """What each row and each column of the output sees, where the layer's field does not say it."""
    shape = op.outputs[0].shape
    if field is None:
        return None
    if len(shape) != 4:
        box = receptive_field(recording, op, unit=(0,) * len(shape))
        return None if box is None or len(box) != 4 else [[box[2]], [box[3]]]
    high, wide = shape[2:]

    def seen(i: int) -> tuple[tuple[int, int], ...] | None:
        box = receptive_field(recording, op, unit=(0, 0, min(i, high - 1), min(i, wide - 1)))
        return None if box is None or len(box) != 4 else box[2:]

    tried = [*range(min(4, high, wide)), min(high, wide) // 2, min(high, wide) - 1]
    if not field["global_through"] and all(seen(i) == _line(field, i) for i in tried):
        return None
    boxes = [seen(i) for i in range(max(high, wide))]
    known = [b for b in boxes if b is not None]
    return [[b[0] for b in known[:high]], [b[1] for b in known[:wide]]] if len(known) == len(boxes) else None


def _line(field: Mapping[str, Any], i: int) -> tuple[tuple[int, int], ...] | None:
    """The same as the page works it out from the layer's field."""
    size, stride, padding = (field[k] for k in ("size", "stride", "padding"))
    if size is None or stride is None or padding is None:
        return None
    steps = zip(size, stride, padding, strict=True)
    return tuple((start := floor(i * float(s) - float(p) + 0.5), start + int(n) - 1) for n, s, p in steps)


def _by_channel(recording: Recording, op: Op) -> bool:
    """Whether channels of one place see different boxes, as behind joined branches, or places of an output without
    rows and columns do: the page then draws none."""
    shape = op.outputs[0].shape
    place = tuple(n // 2 for n in shape[2:]) if len(shape) == 4 else ()
    along = shape[: len(shape) - len(place)]
    units = [(*(share * (n - 1) // 2 for n in along), *place) for share in range(3)]
    boxes = [receptive_field(recording, op, unit=unit) for unit in units]
    return len({b and b[2:] for b in boxes}) > 1
