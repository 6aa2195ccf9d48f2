"""Pictures from files that other people made: decoded by Pillow alone, checked before they are decoded.

Nothing of Pillow's global state is changed, so that other readers in the process are not affected.
"""

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from stat import S_ISDIR, S_ISREG
from threading import Lock
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
from PIL import Image

from convscope.data.embedded import PHOTOGRAPHS
from convscope.data.strangers import what_it_is
from convscope.errors import ImageError, InputError

if TYPE_CHECKING:
    from torch import Tensor

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")
MAX_PIXELS = 40_000_000
WHITE = (1.0, 1.0, 1.0)
LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, as Pillow's "L"

_WARNINGS = Lock()  # Python keeps its warning filters per process, so threads take turns in changing them


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """A picture in memory.

    `pixels`: HxWxC float32 in 0..1, C = 1 grey, 2 grey + alpha, 3 RGB, 4 RGB + alpha (not premultiplied).
    `mode`: Pillow's name of what the file held, such as "RGB", "P" or "I;16".
    `source`: where it came from. `notes`: a sentence for each thing that was done to it on the way.
    """

    pixels: np.ndarray
    mode: str
    source: str
    notes: tuple[str, ...] = ()

    @property
    def shape(self) -> tuple[int, int, int]:
        """Height, width, channels."""
        height, width, channels = self.pixels.shape
        return height, width, channels

    def tensor(self) -> "Tensor":
        """The pixels as a new tensor of shape 1xCxHxW, as a model takes them.

        >>> photograph().tensor().shape
        torch.Size([1, 3, 427, 640])
        """
        import torch  # not above: the process that decodes pictures from outside needs none

        return torch.tensor(self.pixels.transpose(2, 0, 1)[None])


def read_image(path: Path | str, *, allow_truncated: bool = False) -> Picture:
    """The picture in a file: PNG, JPEG, WebP, GIF, BMP, TIFF or AVIF, whatever the file is called.

    EXIF orientation is applied, 16-bit grey is divided by 65535, palettes and CMYK become RGB, transparency is
    kept as a channel, and the first frame of several is taken; `notes` tells which of these happened.
    `allow_truncated`: show what can be decoded of a cut or damaged file.
    Shapes: result HxWxC, values in 0..1.
    Raises: ImageError if there is no such picture, it is damaged, or has more than 40 million pixels.

    >>> read_image("no/such/cat.png")
    Traceback (most recent call last):
    convscope.errors.ImageError: no/such/cat.png: does not exist; check the path
    """
    with open_file(path) as file:
        return decode_image(file, source=str(path), allow_truncated=allow_truncated)


@contextmanager
def open_file(path: Path | str) -> Iterator[BinaryIO]:
    """A picture's file, open to be read.

    Raises: ImageError if it is missing, no file, or may not be read.
    """
    source = str(path)
    try:
        status = Path(path).stat()
        if S_ISDIR(status.st_mode):
            raise ImageError(f"{source}: is a folder; give one picture in it")
        if not S_ISREG(status.st_mode):
            raise ImageError(f"{source}: is a device or a pipe; give a picture file")
        with Path(path).open("rb") as file:
            yield file
    except ImageError:
        raise
    except (FileNotFoundError, NotADirectoryError):
        raise ImageError(f"{source}: does not exist; check the path") from None
    except PermissionError:
        raise ImageError(f"{source}: no permission to read it; change its permissions or copy it") from None
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the path
        reason = getattr(error, "strerror", None) or error
        raise ImageError(f"{source!r}: cannot be opened ({reason}); check the path") from None


def decode_image(file: BinaryIO, *, source: str, allow_truncated: bool = False) -> Picture:
    """The picture in an open binary file that can seek; as `read_image`, for uploads and archives.

    Shapes: result HxWxC, values in 0..1.
    Raises: ImageError as `read_image` does, with `source` as the name.

    >>> import io
    >>> decode_image(io.BytesIO(), source="cat.jpg")
    Traceback (most recent call last):
    convscope.errors.ImageError: cat.jpg: is empty (0 bytes); get a whole copy
    """
    pixels, mode, notes = decode_stored(file, source=source, allow_truncated=allow_truncated)
    return Picture(in_range(pixels), mode, source, notes)


def in_range(pixels: np.ndarray) -> np.ndarray:
    """Float32 in 0..1 of what `decode_stored` gives: bytes are divided by 255."""
    return pixels.astype(np.float32) / np.float32(255) if pixels.dtype == np.uint8 else pixels


def decode_stored(
    file: BinaryIO, *, source: str, allow_truncated: bool = False
) -> tuple[np.ndarray, str, tuple[str, ...]]:
    """As `decode_image`: pixels HxWxC, but uint8 where the file has 8 bits a channel; mode and notes.

    Raises: ImageError as `decode_image` does.
    """
    head = file.read(2048)
    if not head:
        raise ImageError(f"{source}: is empty (0 bytes); get a whole copy")
    with _plain_errors(source, head), _WARNINGS, warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        image = _open(file, source)
        notes = _load(image, file, allow_truncated=allow_truncated)
        mode = image.mode
        image = _upright(image, notes)
        pixels = _pixels(image, notes, source=source)
        notes += [f"Pillow warns: {w.message}" for w in heard]
    return pixels, mode, tuple(notes)


def decode_values(file: BinaryIO, *, source: str) -> np.ndarray:
    """The numbers of a picture as they are stored, as masks of classes need them: nothing is converted or turned.

    Shapes: HxW integers (indices of a palette, grey, black and white as 0 and 1), or HxWx3 uint8.
    Raises: ImageError as `decode_image` does, and if the numbers are no integers.
    """
    head = file.read(2048)
    if not head:
        raise ImageError(f"{source}: is empty (0 bytes); get a whole copy")
    with _plain_errors(source, head), _WARNINGS, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        image = _open(file, source)
        _load(image, file, allow_truncated=False)
        if image.mode in ("P", "L", "1", "I") or image.mode.startswith("I;16"):
            return np.asarray(image).astype(np.int64 if image.mode == "I" else np.uint16)
        if image.mode in ("LA", "PA"):
            return np.asarray(image)[..., 0].astype(np.uint16)
        if image.mode in ("RGB", "RGBA"):
            return np.asarray(image)[..., :3]
    raise ImageError(f"{source}: is stored as {image.mode}, not as classes; save it as PNG with indices or colours")


def to_channels(picture: Picture, channels: int, *, background: tuple[float, float, float] = WHITE) -> Picture:
    """The picture with 1, 2, 3 or 4 channels (grey, grey + alpha, RGB, RGBA), and a note of what was done.

    Transparent pixels are composited on `background` (RGB in 0..1; white) when alpha is dropped, grey is
    repeated to make RGB, and RGB becomes its luma (0.299, 0.587, 0.114) to make grey.
    Shapes: HxWxC -> HxWx`channels`.
    Raises: InputError for any other number of channels.
    Source: ITU-R BT.601 (luma); Porter & Duff 1984 ("over").

    >>> to_channels(photograph(), 1).notes
    ('RGB became grey: 0.299 R + 0.587 G + 0.114 B',)
    """
    if channels not in (1, 2, 3, 4):
        raise InputError(f"{picture.source}: {channels} channels were asked for; use 1, 2, 3 or 4")
    have = picture.shape[2]
    if have == channels:
        return picture
    notes = list(picture.notes)
    colour, alpha = (picture.pixels, None) if have in (1, 3) else (picture.pixels[..., :-1], picture.pixels[..., -1:])
    keep_alpha = channels in (2, 4)
    if alpha is not None and not keep_alpha:
        back = np.array(background[:1] if len(set(background)) == 1 else background, dtype=np.float32)
        colour = colour * alpha + back * (1 - alpha)
        notes.append(f"transparency was composited on {_named(background)}")
    colour = _grey(colour, notes) if channels < 3 else _rgb(colour, notes)
    if keep_alpha:
        if alpha is None:
            notes.append("an opaque alpha channel was added")
            alpha = np.ones_like(colour[..., :1])
        colour = np.concatenate([colour, alpha], axis=2)
    return replace(picture, pixels=np.ascontiguousarray(colour, dtype=np.float32), notes=tuple(notes))


def photograph(name: str = "flower") -> Picture:
    """A photograph that is always at hand: those of `convscope.data.embedded`.

    Shapes: HxWx3, HxWx1 where it is grey; values in 0..1.
    Raises: InputError for another name.

    >>> photograph("china").shape
    (427, 640, 3)
    """
    if name not in PHOTOGRAPHS:
        raise InputError(f"photograph: there is none called {name!r}; use {', '.join(PHOTOGRAPHS)}")
    picture = read_image(PHOTOGRAPHS[name])
    return replace(picture, source=f"{PHOTOGRAPHS[name].name} (a photograph of the package)")


@contextmanager
def _plain_errors(source: str, head: bytes) -> Iterator[None]:
    """Whatever a decoder throws becomes one sentence: damaged files make Pillow raise nearly any type."""
    try:
        yield
    except ImageError:
        raise
    except Image.UnidentifiedImageError:
        raise ImageError(f"{source}: {what_it_is(head, FORMATS)}") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise _too_large(source, str(error)) from None
    except Exception as error:
        reason = str(error).strip().rstrip(".") or type(error).__name__
        raise ImageError(
            f"{source}: is cut short or damaged ({reason}); get a whole copy, or see what is left: "
            "commands that show one picture take --allow-truncated"
        ) from error


def _open(file: BinaryIO, source: str) -> Image.Image:
    """The header only; the size is checked before anything is decoded."""
    file.seek(0)
    image = Image.open(file, formats=FORMATS)
    if image.width * image.height > MAX_PIXELS:
        raise _too_large(source, f"{image.width} x {image.height}")
    return image


def _load(image: Image.Image, file: BinaryIO, *, allow_truncated: bool) -> list[str]:
    """Decode the first frame; the notes are about frames and damage."""
    notes = []
    try:
        _verify(image, file)
        if (frames := getattr(image, "n_frames", 1)) > 1:
            notes.append(f"the first of {frames} frames was taken")
        image.load()
    except Exception as error:
        if not allow_truncated:
            raise
        notes.append(f"the file is damaged ({error}): what could be decoded is shown")
        _salvage(image)
    return notes


def _verify(image: Image.Image, file: BinaryIO) -> None:
    """Check the checksums of a PNG, which decoding alone skips; the file is left where it was."""
    if image.format == "PNG":
        place = file.tell()
        file.seek(0)
        Image.open(file, formats=("PNG",)).verify()
        file.seek(place)


def _salvage(image: Image.Image) -> None:
    """Keep the rows that the decoder wrote; Pillow's own switch for this is global to the process."""
    try:
        image.load()
    except Exception:
        image.tile = []  # pyright: ignore[reportAttributeAccessIssue]
        image.load()  # raises if there is nothing to show


_TURNS = {  # EXIF orientation -> what brings the picture upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def _upright(image: Image.Image, notes: list[str]) -> Image.Image:
    """As `ImageOps.exif_transpose`, which fails where it writes damaged EXIF data anew."""
    orientation = image.getexif().get(0x0112, 1)
    if orientation not in _TURNS:
        return image
    notes.append(f"turned upright (EXIF orientation {orientation})")
    return image.transpose(_TURNS[orientation])


def _pixels(image: Image.Image, notes: list[str], *, source: str) -> np.ndarray:
    """HxWxC: uint8, or float32 in 0..1."""
    if image.mode.startswith("I;16"):
        notes.append("16-bit grey was divided by 65535")
        return np.asarray(image).astype(np.float32)[..., None] / np.float32(65535)
    if image.mode in ("I", "F"):
        return _ranged(np.asarray(image, dtype=np.float64), notes, source=source)[..., None]
    wanted = _plain_mode(image)
    if wanted != image.mode:
        notes.append(f"{_MODE_NAMES.get(image.mode, image.mode)} became {_MODE_NAMES[wanted]}")
        image = image.convert(wanted)
    pixels = np.asarray(image)
    return pixels[..., None] if pixels.ndim == 2 else pixels


_MODE_NAMES = {
    "1": "black and white",
    "L": "grey",
    "LA": "grey + alpha",
    "RGB": "RGB",
    "RGBA": "RGBA",
    "P": "a palette",
    "PA": "a palette",
}


def _plain_mode(image: Image.Image) -> str:
    """The mode of 8 bits a channel that holds all that the picture has."""
    grey = image.mode in ("1", "L", "LA", "La")
    if image.has_transparency_data:
        return "LA" if grey else "RGBA"
    return "L" if grey else "RGB"


def _ranged(values: np.ndarray, notes: list[str], *, source: str) -> np.ndarray:
    """Numbers without a known range (32-bit integers, floats), brought to 0..1."""
    if not np.isfinite(values).all():
        raise ImageError(f"{source}: holds {int((~np.isfinite(values)).sum())} NaN or infinite values; replace them")
    low, high = float(values.min()), float(values.max())
    if low >= 0 and high <= 1:
        return values.astype(np.float32)
    notes.append(f"values from {low:g} to {high:g} were brought to 0..1")
    return ((values - low) / ((high - low) or 1.0)).astype(np.float32)


def _grey(colour: np.ndarray, notes: list[str]) -> np.ndarray:
    if colour.shape[2] == 1:
        return colour
    notes.append("RGB became grey: 0.299 R + 0.587 G + 0.114 B")
    return np.clip(colour @ np.array(LUMA, dtype=np.float32)[:, None], 0, 1)


def _rgb(colour: np.ndarray, notes: list[str]) -> np.ndarray:
    if colour.shape[2] == 3:
        return colour
    notes.append("the grey channel was repeated three times")
    return np.repeat(colour, 3, axis=2)


def _named(background: tuple[float, float, float]) -> str:
    names = {WHITE: "white", (0.0, 0.0, 0.0): "black"}
    return names.get(background, "rgb({:g}, {:g}, {:g})".format(*background))


def _too_large(source: str, size: str) -> ImageError:
    """`size` is "W x H", or Pillow's sentence with the number of pixels."""
    numbers = [int(n) for n in re.findall(r"\d+", size)]
    count = numbers[0] * numbers[1] if " x " in size else numbers[0]
    shown = f"{size} = {count:,} pixels" if " x " in size else f"{count:,} pixels"
    return ImageError(f"{source}: has {shown}; the limit is {MAX_PIXELS:,}, so make it smaller first")
