"""A picture as a person names it: a file, `digits:17`, or a photograph that comes with a package."""

from importlib.util import find_spec
from pathlib import Path
from typing import Literal, cast

from convscope.data.digits import digits
from convscope.data.images import Picture, photograph, read_image
from convscope.errors import ImageError

PHOTOGRAPHS = ("china", "flower")
SCIKIT_IMAGE = ("astronaut", "camera", "chelsea", "coffee", "coins", "rocket")  # in its wheel: no download


def open_picture(name: str) -> Picture:
    """The picture called `name`: `digits:N` is the Nth test digit, `flower`, `coffee` and others are photographs.

    A file of that name comes before a photograph of scikit-image.
    Raises: ImageError if the file cannot be read, there is no such digit, or scikit-image is not installed.

    >>> open_picture("digits:0").shape
    (32, 32, 1)
    """
    if name in PHOTOGRAPHS:
        return photograph(cast(Literal["china", "flower"], name))
    if name in SCIKIT_IMAGE and not Path(name).exists():
        return _of_scikit_image(name)
    if name.startswith("digits:"):
        return _digit(name)
    return read_image(name)


def _of_scikit_image(name: str) -> Picture:
    package = find_spec("skimage")
    if package is None or package.origin is None:
        raise ImageError(f"{name}: comes with scikit-image, which is not installed; pip install 'convscope[imagenet]'")
    path = next(Path(package.origin).parent.joinpath("data").glob(f"{name}.*"))
    picture = read_image(path)
    return Picture(picture.pixels, picture.mode, f"{path.name} (scikit-image's sample photograph)", picture.notes)


def _digit(name: str) -> Picture:
    images, index = digits().test.images, name.partition(":")[2]
    if not index.isdecimal() or int(index) >= len(images):
        raise ImageError(f"{name}: there is no such digit; use digits:0 to digits:{len(images) - 1}")
    return Picture(images[int(index)].permute(1, 2, 0).numpy(), mode="L", source=name)
