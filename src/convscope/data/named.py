"""A picture as a person names it: a file, `digits:17`, or a photograph that comes with the package."""

from typing import Literal, cast

from convscope.data.digits import digits
from convscope.data.images import Picture, photograph, read_image
from convscope.errors import ImageError

PHOTOGRAPHS = ("china", "flower")


def open_picture(name: str) -> Picture:
    """The picture called `name`: `digits:N` is the Nth test digit, `flower` and `china` are photographs.

    Raises: ImageError if the file cannot be read, or there is no such digit.

    >>> open_picture("digits:0").shape
    (32, 32, 1)
    """
    if name in PHOTOGRAPHS:
        return photograph(cast(Literal["china", "flower"], name))
    if name.startswith("digits:"):
        return _digit(name)
    return read_image(name)


def _digit(name: str) -> Picture:
    images, index = digits().test.images, name.partition(":")[2]
    if not index.isdecimal() or int(index) >= len(images):
        raise ImageError(f"{name}: there is no such digit; use digits:0 to digits:{len(images) - 1}")
    return Picture(images[int(index)].permute(1, 2, 0).numpy(), mode="L", source=name)
