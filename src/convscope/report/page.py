"""From a finished run and its evaluation to the page."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jinja2 import Environment, PackageLoader, StrictUndefined

from convscope import __version__
from convscope.data import ImageSet
from convscope.data.sets import DataSet
from convscope.errors import InputError, need
from convscope.evaluate import Measured
from convscope.explain import Explanation, FeatureMap, explain, feature_maps
from convscope.explain.capture import as_model
from convscope.explain.pictures import Scale, data_uri
from convscope.files import write_whole
from convscope.graph import Recording, record
from convscope.inspect import Summary, receptive_field, summarize
from convscope.report.parts import PARTS, thumbnail
from convscope.runs import Run
from convscope.tasks import score_of


@dataclass(frozen=True, slots=True)
class Report:
    """The page that was written, and the two answers in it that a terminal can show as well."""

    path: Path
    summary: Summary
    explanation: Explanation | None


def write_report(folder: Path | str, measured: Measured) -> Report:
    """Write `report.html` into the run's folder: curves, what is confused, layers, feature maps, one explained value.

    The page needs no other file and no network.
    Raises: RunError if the disk refuses.
    """
    run, images = measured.run, measured.images
    if run is None:
        raise InputError(f"{folder}: an exported network has no run to report on; give the run folder")
    sample = _clearest(measured)
    x, _ = images.batch(torch.tensor([sample]))
    recording = record(measured.model, as_model(measured.model, x), keep=lambda op: True)
    summary = summarize(recording)
    told = _explained(recording)
    maps = feature_maps(recording)
    templates = Environment(loader=PackageLoader("convscope.report", "."), autoescape=True, undefined=StrictUndefined)
    page = templates.get_template("template.html").render(
        version=__version__,
        run=run,
        total=summary.total,
        curves=_curves(run),
        layers=summary.table().html(),
        sample=_sample(images, sample),
        maps=[_drawn(m) for m in a_few(maps)],
        num_maps=len(maps),
        told=told,
        terms=_terms(told) if told else [],
        place=_place(recording, told) if told else {},
        **PARTS[run.config.task](measured),
    )  # fmt: skip
    return Report(write_whole(Path(folder) / "report.html", page), summary, told)


def a_few(maps: Sequence[FeatureMap], *, most: int = 16) -> Sequence[FeatureMap]:
    """All maps, or as many as can be looked at, evenly spaced; the last is among them."""
    count = len(maps)
    return maps if count <= most else [maps[(i + 1) * count // most - 1] for i in range(most)]


def _curves(run: Run) -> str:
    try:
        need("matplotlib", extra="pictures")
    except InputError as error:
        return f"<p>No curves: {error}.</p>"
    from convscope.report.curves import curves_svg

    return curves_svg(run.metrics(), score=score_of(run.config.task))


def _sample(images: DataSet, index: int) -> dict[str, Any]:
    label = images.classes[int(images.labels[index])] if isinstance(images, ImageSet) else ""
    return {"index": index, "uri": thumbnail(images, index, max(1, 192 // images.shape[1])), "label": label}


def _drawn(layer: FeatureMap) -> dict[str, Any]:
    return {"name": layer.name, "op": layer.op.name, "uri": data_uri(layer.picture()), "wide": len(layer.maps) > 8}


def _clearest(measured: Measured) -> int:
    """The first test picture that was classified rightly (else the best), so that what is shown is what was learnt."""
    if parts := measured.parts():
        return _clearest(next(iter(parts.values())))
    wrong = getattr(measured.evaluation, "wrong", None)
    if wrong is None:
        return measured.evaluation.worst[-1]
    return next((i for i in range(len(measured.images)) if i not in wrong), 0)


def _explained(recording: Recording) -> Explanation | None:
    """The largest value of the last convolution (or matrix product): what the network saw most of."""
    named = {name: [op for op in recording.ops if op.name == name] for name in ("convolution", "addmm", "mm")}
    found = named["convolution"] or named["addmm"] or named["mm"]
    if not found:
        return None
    op = found[-1]
    values = recording.tensors[op.outputs[0].id][0]
    place = np.unravel_index(int(values.argmax()), values.shape)
    return explain(recording, op, unit=(0, *(int(i) for i in place)))


def _place(recording: Recording, told: Explanation) -> dict[str, Any]:
    """The receptive field of the explained value on the picture, in px and in % of it; {} if it has none."""
    box = receptive_field(recording, told.op, unit=told.unit)
    height, width = recording.inputs[0].shape[2:]
    if box is None:
        return {}
    (top, bottom), (left, right) = box[2:]
    return {
        "rows": (top, bottom), "columns": (left, right),
        "top": 100 * max(top, 0) / height, "left": 100 * max(left, 0) / width,
        "height": 100 * (min(bottom + 1, height) - max(top, 0)) / height,
        "width": 100 * (min(right + 1, width) - max(left, 0)) / width,
    }  # fmt: skip


def _terms(told: Explanation) -> list[dict[str, Any]]:
    """The three matrices of the strongest input channel, each cell with its value and colour."""
    strongest = int(np.argmax(np.abs(told.channel_sums)))
    blocks = []
    for name, values in (("patch", told.x_CK), ("kernel", told.w_CK), ("products", told.products)):
        shown = np.atleast_2d(values[strongest])
        colours = Scale(float(np.abs(values).max()), signed=True).paint(shown)
        inside = np.atleast_2d(told.inside[strongest])
        cells = [
            [{"text": f"{v:.2f}".replace("-", "\N{MINUS SIGN}"), "rgb": c.tolist(), "inside": bool(i)}
             for v, c, i in zip(*row, strict=True)]
            for row in zip(shown, colours, inside, strict=True)
        ]  # fmt: skip
        blocks.append({"name": name, "channel": strongest, "cells": cells})
    return blocks
