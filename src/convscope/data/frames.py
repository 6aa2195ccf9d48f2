"""Files of many pictures, one by one: GIF, APNG, WebP and AVIF by Pillow, videos by PyAV if it is installed, shards."""

import warnings
from collections.abc import Iterator
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from convscope.data.formats.shards import shard_pictures
from convscope.data.images import MAX_PIXELS, Picture, decode_image
from convscope.data.named import ARCHIVES, open_picture
from convscope.errors import DataError, ImageError

MOVING = frozenset({".gif", ".png", ".apng", ".webp", ".avif"})
FORMATS = ("GIF", "PNG", "WEBP", "AVIF")
VIDEOS = frozenset({".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi"})


def open_frames(name: str, *, every: int = 1) -> Iterator[tuple[str, Picture]]:
    """The picture of that name, every so-many-th frame of a moving one, or those of a shard, with what each is called.

    A frame is called by its number, from 0: `clip.gif:12`; a picture of a shard by its name: `a.tar/7.jpg`. One is
    decoded at a time.
    Raises: ImageError as `open_picture` does, and for a video if it cannot be read or PyAV is not installed.

    >>> [called for called, _ in open_frames("digits:0")]
    ['digits:0']
    """
    for called, picture in try_frames(name, every=every):
        if isinstance(picture, ImageError):
            raise picture
        yield called, picture


def try_frames(name: str, *, every: int = 1) -> Iterator[tuple[str, Picture | ImageError]]:
    """As `open_frames`, with an error in the place of what cannot be read; the other pictures of a shard follow it."""
    try:
        if Path(name).suffix.lower() in ARCHIVES and Path(name).is_file():
            yield from _of_shard(name)
        else:
            yield from _frames(name, every)
    except (ImageError, DataError) as error:
        yield name, ImageError(str(error))


def _of_shard(name: str) -> Iterator[tuple[str, Picture | ImageError]]:
    for member, content in shard_pictures(Path(name)):
        called = f"{name}/{member}"
        try:
            yield called, decode_image(BytesIO(content), source=called)
        except ImageError as error:
            yield called, error


def _frames(name: str, every: int) -> Iterator[tuple[str, Picture]]:
    path = Path(name)
    if path.suffix.lower() in VIDEOS and path.is_file():
        yield from _named(name, _of_video(name, path), every)
    elif path.suffix.lower() in MOVING and path.is_file() and _count(path) > 1:
        yield from _named(name, _of_picture(name, path), every)
    else:
        yield name, open_picture(name)


def _named(name: str, frames: Iterator[np.ndarray], every: int) -> Iterator[tuple[str, Picture]]:
    for at, pixels in islice(enumerate(frames), 0, None, every):
        called = f"{name}:{at}"
        yield called, Picture(pixels.astype(np.float32) / 255, "RGBA" if pixels.shape[2] == 4 else "RGB", called)


def _count(path: Path) -> int:
    """How many frames; 1 for what is not moving, or no picture, of which `open_picture` says what is wrong."""
    try:
        with Image.open(path, formats=FORMATS) as image:
            return getattr(image, "n_frames", 1) if image.width * image.height <= MAX_PIXELS else 1
    except Exception:
        return 1


def _of_picture(name: str, path: Path) -> Iterator[np.ndarray]:
    with Image.open(path, formats=FORMATS) as image:
        for at in range(getattr(image, "n_frames", 1)):
            try:
                image.seek(at)
                pixels = np.asarray(image.convert("RGBA"))
            except Exception as error:  # damaged files make Pillow raise nearly any type
                raise ImageError(f"{name}: frame {at} is cut short or damaged ({error}); get a whole copy") from error
            yield pixels if (pixels[..., 3] < 255).any() else pixels[..., :3]


def _of_video(name: str, path: Path) -> Iterator[np.ndarray]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import av
            from av.error import FFmpegError
    except ImportError:
        raise ImageError(f"{name}: is a video, and PyAV is not installed; pip install 'convscope[video]'") from None
    errors: Any = FFmpegError
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise ImageError(f"{name}: holds no moving picture; give a video")
            for frame in container.decode(video=0):
                if frame.width * frame.height > MAX_PIXELS:
                    raise ImageError(
                        f"{name}: has frames of {frame.width} x {frame.height}; the limit is {MAX_PIXELS:,} px"
                    )
                yield frame.to_ndarray(format="rgb24")
    except errors as error:
        raise ImageError(f"{name}: cannot be read as a video ({error.strerror}); convert it to MP4") from error
