"""What `predict --out` leaves: pictures with what was found drawn on them, and the rows as JSON, CSV and COCO."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from convscope.data.images import Picture, to_channels
from convscope.explain.pictures import save_png
from convscope.files import writable_folder, write_whole
from convscope.predict.classification import Predictions
from convscope.predict.joint import Together
from convscope.predict.objects import Objects, Regions
from convscope.table import to_json

Told = Predictions | Objects | Regions | Together


def save_predictions(told: Told, pictures: Sequence[Picture], *, out: Path) -> list[Path]:
    """Write all that there is to write into the folder `out`; the files that were written.

    Raises: InputError if it cannot be written in; RunError if the disk refuses.
    """
    folder = writable_folder(out)
    written, rows = [write_whole(folder / "predictions.json", to_json(told.data()))], told.data()
    for name in rows:
        written.append(write_whole(folder / f"{'predictions' if len(rows) == 1 else name}.csv", _csv(rows[name])))
    objects = told.objects if isinstance(told, Together) else told
    if isinstance(objects, Objects):
        written.append(write_whole(folder / "coco.json", to_json(objects.coco())))
    if not isinstance(told, Predictions):
        drawn = (told.drawn(i, _pixels(p)) for i, p in enumerate(pictures))
        names = _file_names(told.names)
        written += [
            save_png(Image.fromarray(d.permute(1, 2, 0).numpy()), folder / n) for d, n in zip(drawn, names, strict=True)
        ]
    return written


def _csv(rows: Sequence[dict[str, Any]]) -> str:
    buffer = io.StringIO()
    if rows:
        writer = csv.DictWriter(buffer, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return buffer.getvalue()


def _pixels(picture: Picture) -> Tensor:
    rgb = torch.from_numpy(to_channels(picture, 3).pixels)
    return rgb.mul(255).round().to(torch.uint8).permute(2, 0, 1)


def _file_names(sources: Sequence[str]) -> list[str]:
    """A name for each drawing that no other has: cat.png, and cat-2.png for the next cat.

    >>> _file_names(["a/cat.jpg", "b/cat.png", "digits:3"])
    ['cat.png', 'cat-2.png', 'digits-3.png']
    """
    names: list[str] = []
    for source in sources:
        stem = Path(source.replace(":", "-")).stem or "picture"
        count = 1
        while (name := f"{stem}.png" if count == 1 else f"{stem}-{count}.png") in names:
            count += 1
        names.append(name)
    return names
