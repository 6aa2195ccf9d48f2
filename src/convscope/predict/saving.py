"""What `predict --out` leaves: pictures with what was found drawn on them, and the rows as JSON, CSV and COCO."""

import csv
import io
import itertools
from collections.abc import Mapping, Sequence, Set
from dataclasses import fields
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from convscope.data.images import Picture, to_channels
from convscope.errors import InputError
from convscope.explain.pictures import save_png
from convscope.files import writable_folder, write_whole
from convscope.predict.classification import Prediction, Predictions
from convscope.predict.joint import Together
from convscope.predict.looking import Told
from convscope.predict.objects import ClassShare, FoundObject, Objects
from convscope.table import to_json

ROWS = {"predictions": Prediction, "objects": FoundObject, "regions": ClassShare}


def save_predictions(told: Told, *, out: Path, categories: Mapping[str, int]) -> list[Path]:
    """Write the rows into the folder `out`, as JSON and CSV, and objects as COCO has them; the files that were written.

    Raises: InputError if it cannot be written in; RunError if the disk refuses.
    """
    folder, rows = writable_folder(out), told.data()
    written = [write_whole(folder / "predictions.json", to_json(rows))]
    for name in rows:
        written.append(write_whole(folder / f"{'predictions' if len(rows) == 1 else name}.csv", _csv(rows[name])))
    objects = told.objects if isinstance(told, Together) else told
    if isinstance(objects, Objects):
        written.append(write_whole(folder / "coco.json", to_json(objects.coco(categories))))
    return written


def check_parquet(file: Path) -> Path:
    """The file, if it can be written.

    Raises: InputError if it is a folder, cannot be written, or pyarrow is not installed.
    """
    if find_spec("pyarrow") is None:
        raise InputError(f"{file}: needs pyarrow, which is not installed; pip install pyarrow, or give a folder")
    if file.is_dir():
        raise InputError(f"{file}: is a folder, but a file is to be written; give another --out")
    writable_folder(file.parent)
    return file


def save_as_parquet(told: Told, file: Path) -> list[Path]:
    """Write the rows into a file, or, of several heads, into one each: `results-objects.parquet`."""
    rows = told.data()
    one = len(rows) == 1
    return [save_parquet(name, rows[name], file if one else file.with_stem(f"{file.stem}-{name}")) for name in rows]


def save_parquet(name: str, rows: Sequence[Mapping[str, Any]], file: Path) -> Path:
    """Write rows of the table of that name, whole; the columns are the same where there is no row.

    Raises: RunError if the disk refuses.
    """
    import pyarrow
    from pyarrow import parquet

    kinds = {str: pyarrow.string(), int: pyarrow.int64(), float: pyarrow.float64()}
    columns = {f.name: f.type for f in fields(ROWS[name])} if name in ROWS else dict.fromkeys(("image", "error"), str)
    schema = pyarrow.schema([(column, kinds[kind]) for column, kind in columns.items()])  # pyright: ignore
    table = pyarrow.Table.from_pylist(list(rows), schema=schema)
    return write_whole(file, lambda opened: parquet.write_table(table, opened))


class Drawings:
    """Pictures with what was found drawn on them, written into a folder one by one, and never over one of the `files`
    that they were made of."""

    def __init__(self, out: Path, files: Sequence[str] = ()) -> None:
        self.folder = writable_folder(out)
        here = self.folder.resolve()
        self.taken = {path.name for path in map(Path, files) if path.parent.resolve() == here}

    def save(self, told: Told, pictures: Sequence[Picture]) -> list[Path]:
        """Draw all that was told of these pictures; nothing where only classes were."""
        if isinstance(told, Predictions):
            return []
        return [
            save_png(Image.fromarray(told.drawn(at, _pixels(picture)).permute(1, 2, 0).numpy()), self._file(name))
            for at, (name, picture) in enumerate(zip(told.names, pictures, strict=True))
        ]

    def _file(self, source: str) -> Path:
        name = file_name(source, self.taken)
        self.taken.add(name)
        return self.folder / name


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


def file_name(source: str, taken: Set[str]) -> str:
    """A name for a drawing that no other has: cat.png, and cat-2.png for the next cat.

    >>> file_name("a/cat.jpg", {"cat.png"}), file_name("clip.gif:12", {""}), file_name("digits:3", {""})
    ('cat-2.png', 'clip-12.png', 'digits-3.png')
    """
    path, _, frame = source.rpartition(":") if source.rpartition(":")[2].isdecimal() else (source, "", "")
    stem = (Path(path).stem or "picture") + f"-{frame}" * bool(frame)
    names = (f"{stem}.png" if count == 1 else f"{stem}-{count}.png" for count in itertools.count(1))
    return next(name for name in names if name not in taken)
