"""The pictures in one file: one, or the frames of a GIF, APNG, WebP or AVIF by Pillow, of a video by PyAV.

It needs no torch: the process that decodes pictures from outside has none.
"""

import warnings
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from PIL import Image

from convscope.data.images import MAX_PIXELS, decode_stored, open_file
from convscope.errors import ImageError

MOVING = frozenset({".gif", ".png", ".apng", ".webp", ".avif"})
FORMATS = ("GIF", "PNG", "WEBP", "AVIF")
VIDEOS = frozenset({".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi"})


class Frame(NamedTuple):
    """One picture of a file: its number (None if there is one alone), and what `decode_stored` gives of it."""

    at: int | None
    pixels: np.ndarray
    mode: str
    notes: tuple[str, ...]


def stored_frames(path: Path, *, source: str, every: int = 1) -> Iterator[Frame]:
    """The picture in a file, or every so-many-th frame of a moving one; one is decoded at a time.

    Raises: ImageError, with `source` as the name, if it is missing, damaged or too large, or a video and PyAV is not
    installed.
    """
    ending = path.suffix.lower()
    with open_file(path) as file:
        if ending in VIDEOS:
            frames = _of_video(file, source)
        elif ending in MOVING and _count(file) > 1:
            frames = _of_picture(file, source)
        else:
            file.seek(0)
            yield Frame(None, *decode_stored(file, source=source))
            return
        for at, pixels in islice(enumerate(frames), 0, None, every):
            yield Frame(at, pixels, "RGBA" if pixels.shape[2] == 4 else "RGB", ())


def _count(file: BinaryIO) -> int:
    """How many frames; 1 for what is not moving, or no picture, of which `decode_stored` says what is wrong."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image = Image.open(file, formats=FORMATS)
            return getattr(image, "n_frames", 1) if image.width * image.height <= MAX_PIXELS else 1
    except Exception:
        return 1


def _of_picture(file: BinaryIO, source: str) -> Iterator[np.ndarray]:
    file.seek(0)
    image = Image.open(file, formats=FORMATS)
    for at in range(getattr(image, "n_frames", 1)):
        try:
            image.seek(at)
            pixels = np.asarray(image.convert("RGBA"))
        except Exception as error:  # damaged files make Pillow raise nearly any type
            raise ImageError(f"{source}: frame {at} is cut short or damaged ({error}); get a whole copy") from error
        yield pixels if (pixels[..., 3] < 255).any() else pixels[..., :3]


def _of_video(file: BinaryIO, source: str) -> Iterator[np.ndarray]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import av
            from av.error import FFmpegError
    except ImportError:
        raise ImageError(f"{source}: is a video, and PyAV is not installed; pip install 'convscope[video]'") from None
    errors: Any = FFmpegError
    try:
        with av.open(file, mode="r") as container:
            if not container.streams.video:
                raise ImageError(f"{source}: holds no moving picture; give a video")
            for frame in container.decode(video=0):
                if frame.width * frame.height > MAX_PIXELS:
                    raise ImageError(
                        f"{source}: has frames of {frame.width} x {frame.height}; the limit is {MAX_PIXELS:,} px"
                    )
                yield frame.to_ndarray(format="rgb24")
    except errors as error:
        raise ImageError(f"{source}: cannot be read as a video ({error.strerror}); convert it to MP4") from error
