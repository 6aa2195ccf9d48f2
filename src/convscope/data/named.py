"""A picture as a person names it: a file, `digits:17`, `scenes:17`, or a photograph of the package."""

from collections.abc import Iterable
from glob import glob
from pathlib import Path

import numpy as np

from convscope.data.digits import digits
from convscope.data.embedded import PHOTOGRAPHS
from convscope.data.folder import SUFFIXES
from convscope.data.images import Picture, photograph, read_image
from convscope.data.scenes import NUM_SCENES, scene
from convscope.errors import ImageError

ARCHIVES = frozenset({".tar"})


def open_picture(name: str, *, allow_truncated: bool = False) -> Picture:
    """The picture called `name`: `digits:N` and `scenes:N` are the Nth of the test part, others are photographs.

    `allow_truncated`: show what can be decoded of a cut or damaged file.
    Raises: ImageError if the file cannot be read, or there is no such digit or scene.

    >>> open_picture("digits:0").shape
    (32, 32, 1)
    """
    if is_file(name):
        return read_image(name, allow_truncated=allow_truncated)
    if name in PHOTOGRAPHS:
        return photograph(name)
    return _digit(name) if name.startswith("digits:") else _scene(name)


def is_file(name: str) -> bool:
    """Whether a name is that of a file, there or not, and of no picture that comes with the package.

    >>> is_file("cat.jpg"), is_file("digits:0")
    (True, False)
    """
    return name not in PHOTOGRAPHS and not name.startswith(("digits:", "scenes:"))


def expand(names: Iterable[str]) -> list[str]:
    """Names of single files: a folder stands for its pictures, or its shards, a pattern (`*`, `?`) for those it fits.

    Raises: ImageError if a folder or a pattern holds no picture.

    >>> expand(["flower", "digits:0"])
    ['flower', 'digits:0']
    """
    found: list[str] = []
    for name in names:
        path, pattern = Path(name), any(c in name for c in "*?[") and not Path(name).exists()
        if not path.is_dir() and not pattern:
            found.append(name)
            continue
        inside = glob(name) if pattern else [str(p) for p in path.iterdir()]  # noqa: PTH207 - patterns may be absolute
        files = sorted(p for p in inside if Path(p).suffix.lower() in SUFFIXES | ARCHIVES and Path(p).is_file())
        pictures = [p for p in files if Path(p).suffix.lower() in SUFFIXES] or files
        if not pictures:
            raise ImageError(f"{name}: holds no pictures ({', '.join(sorted(SUFFIXES))}); check the path")
        found += pictures
    return found


def _digit(name: str) -> Picture:
    images, index = digits().test.images, name.partition(":")[2]
    if not index.isdecimal() or int(index) >= len(images):
        raise ImageError(f"{name}: there is no such digit; use digits:0 to digits:{len(images) - 1}")
    return Picture(images[int(index)].permute(1, 2, 0).numpy(), mode="L", source=name)


def _scene(name: str) -> Picture:
    index, count = name.partition(":")[2], NUM_SCENES["test"]
    if not index.isdecimal() or int(index) >= count:
        raise ImageError(f"{name}: there is no such scene; use scenes:0 to scenes:{count - 1}")
    pixels = scene("test", int(index)).image.permute(1, 2, 0).numpy()
    return Picture(pixels.astype(np.float32) / np.float32(255), mode="RGB", source=name)
