"""What goes over the wire: JSON without NaN, float32 behind a JSON head, a unit with its arithmetic and field."""

import io
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from starlette.responses import Response

from convscope.errors import InputError
from convscope.explain import Attribution, Explanation, explain
from convscope.explain.terms import Term, place
from convscope.graph import Op, Recording
from convscope.inspect import receptive_field
from convscope.lab.session import Look, Shown
from convscope.predict import Answer
from convscope.table import to_json

SIDE = 12  # of the largest kernel that is shown as a matrix
CHANNELS, TERMS = 4, 16  # shown of one value; the rest is summed


class Json(Response):
    """JSON in which NaN and infinity are null."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        """The text, in UTF-8."""
        return compact(content).encode()


def packed(head: Mapping[str, Any], values: np.ndarray) -> Response:
    """Length of the head (uint32), the head as JSON padded to whole words, the values as float32; little-endian."""
    text = compact(dict(head)).encode()
    text += b" " * (-len(text) % 4)
    data = np.ascontiguousarray(values, "<f4").tobytes()
    return Response(len(text).to_bytes(4, "little") + text + data, media_type="application/octet-stream")


def compact(content: Any) -> str:
    """JSON on one line, NaN and infinity as null."""
    try:
        return json.dumps(content, allow_nan=False, separators=(",", ":"))
    except ValueError:
        return to_json(content)


def npz(op: Op, recording: Recording) -> Response:
    """The exact values of an operator's first output, as NumPy keeps them."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, values=recording.tensors[op.outputs[0].id].cpu().numpy())
    return Response(buffer.getvalue(), media_type="application/zip")


def session_facts(session: Any, *, version: str) -> dict[str, Any]:
    """What the page must know before it shows anything; `can` names what it may ask for."""
    return {"version": version, **session.facts()}


def picture_facts(session: Any, shown: Shown) -> dict[str, Any]:
    """A picture's id, what was done to it, what the model says of it, and which layers ran on it."""
    told = session.predictions(shown.id)
    rows = [] if told is None else [{"label": r.label, "probability": r.probability} for r in told.rows]
    return {
        "id": shown.id, "name": shown.name, "notes": shown.notes, "shape": shown.pixels.shape, "top": rows,
        "layers": session.look(shown.id).layers,
    }  # fmt: skip


def layer_rows(look: Look) -> dict[str, Any]:
    """The rows of `summarize` that a person looks for, and the totals."""
    keys = ("index", "module", "op", "output_shape", "params", "macs", "receptive_field")
    rows = [
        {k: getattr(o, k) for k in keys}
        for o in look.summary.operators
        if o.receptive_field or o.params or o.macs
    ]  # fmt: skip
    total = look.summary.total
    return {
        "layers": look.layers, "rows": rows, "notes": look.summary.notes,
        "total": {"params": total.params, "macs": total.macs, "unknown": total.unknown},
    }  # fmt: skip


def unit_facts(look: Look, op: Op, unit: tuple[int, ...], *, channel: int | None = None) -> dict[str, Any]:
    """One value: what it is, the box of the picture that it depends on, and the terms that made it.

    Raises: InputError if the unit lies outside.
    """
    out = op.outputs[0]
    if len(unit) != len(out.shape) or not all(0 <= i < n for i, n in zip(unit, out.shape, strict=False)):
        ranges = ", ".join(f"0..{n - 1}" for n in out.shape)
        raise InputError(f"unit {','.join(map(str, unit))}: is outside of {op.module or op.name}; use {ranges}")
    box = receptive_field(look.recording, op, unit=unit)
    facts = {
        "layer": op.module or op.name, "index": op.index, "op": op.name, "unit": unit,
        "value": float(look.recording.tensors[out.id][unit]), "box": box,
    }  # fmt: skip
    try:
        return facts | {"told": _told(explain(look.recording, op, unit=unit), channel)}
    except InputError as error:
        return facts | {"told": None, "why": str(error)}


def attribution(told: Answer, found: Attribution) -> tuple[dict[str, Any], np.ndarray]:
    """What an attribution is of, with the scale of its map, and the map."""
    limit = float(np.abs(found.map[np.isfinite(found.map)]).max(initial=0))
    label = told.target if isinstance(told.target, int) else None
    return found.data() | told.data() | {"label": label, "limit": limit}, found.map


def _told(told: Explanation, channel: int | None) -> dict[str, Any]:
    facts = {
        "combine": told.combine, "formula": told.formula, "total": told.total, "says": told.model_value,
        "difference": told.difference, "bias": told.bias if told.index_CKD is not None else None,
        "named": [_term(t) for t in told.named[:TERMS]], "more_named": max(0, len(told.named) - TERMS),
    }  # fmt: skip
    if told.index_CKD is None:
        return facts
    shape = told.x_CK.shape
    facts |= {"channels": shape[0], "elements": told.x_CK.size, "from_input": _is_input(told)}
    if len(shape) == 3 and max(shape[1:]) <= SIDE:
        return facts | {"matrices": _matrices(told, channel), "channel_sums": told.channel_sums.tolist()}
    largest = [t for t in told.largest(TERMS + len(told.named)) if t not in told.named][:TERMS]
    rest = float(told.contributions.sum()) - sum(t.contribution for t in largest)
    return facts | {"largest": [_term(t) for t in largest], "rest": rest, "others": told.x_CK.size - len(largest)}


def _matrices(told: Explanation, channel: int | None) -> list[dict[str, Any]]:
    """The channel that was asked for, and those that contribute most, each as patch, kernel and products."""
    strongest = np.argsort(-np.nan_to_num(np.abs(told.channel_sums), nan=np.inf), kind="stable")[:CHANNELS].tolist()
    if channel is not None and 0 <= channel < len(told.x_CK):
        strongest = [channel, *(c for c in strongest if c != channel)]
    index = told.index_CKD
    assert index is not None
    return [
        {
            "channel": c, "patch": told.x_CK[c].tolist(), "kernel": told.w_CK[c].tolist(),
            "products": told.products[c].tolist(), "inside": told.inside[c].tolist(),
            "at": index[c, 0, 0].tolist(), "winner": list(told.winner[1:]) if told.winner[0] == c else None,
        }
        for c in strongest
    ]  # fmt: skip


def _term(term: Term) -> dict[str, Any]:
    return {
        "label": term.label, "from": place(term.source, term.index), "value": term.value, "weight": term.weight,
        "part": term.contribution,
    }  # fmt: skip


def _is_input(told: Explanation) -> bool:
    return told.source is not None and told.source.role == "input"
