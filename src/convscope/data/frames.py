"""Files of many pictures, one by one: moving pictures and videos frame by frame, shards picture by picture."""

from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

from convscope.data.decoding import Decoder
from convscope.data.formats.shards import shard_pictures
from convscope.data.images import Picture, decode_image, in_range
from convscope.data.moving import VIDEOS, stored_frames
from convscope.data.named import ARCHIVES, is_file, open_picture
from convscope.errors import DataError, ImageError


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


def try_frames(
    name: str, *, every: int = 1, decoder: Decoder | None = None
) -> Iterator[tuple[str, Picture | ImageError]]:
    """As `open_frames`, with an error in the place of what cannot be read; the other pictures of a shard follow it.

    `decoder`: in its process files are decoded, so that one on which a library crashes is such an error too.
    """
    try:
        if not is_file(name):
            yield name, open_picture(name)
        elif Path(name).suffix.lower() in ARCHIVES and Path(name).is_file():
            yield from _of_shard(name, decoder)
        else:
            frames = decoder.frames if decoder else stored_frames
            for at, pixels, mode, notes in frames(Path(name), source=name, every=every):
                called = name if at is None else f"{name}:{at}"
                yield called, Picture(in_range(pixels), mode, called, notes)
    except (ImageError, DataError) as error:
        yield name, ImageError(str(error))


def are_many(names: list[str]) -> bool:
    """Whether more than one picture comes of them, so that a process of its own is worth its start."""
    return len(names) > 1 or Path(names[0]).suffix.lower() in VIDEOS | ARCHIVES


def _of_shard(name: str, decoder: Decoder | None) -> Iterator[tuple[str, Picture | ImageError]]:
    def decode(content: bytes, source: str) -> Picture:
        return decoder.decode(content, source=source) if decoder else decode_image(BytesIO(content), source=source)

    for member, content in shard_pictures(Path(name)):
        called = f"{name}/{member}"
        try:
            yield called, decode(content, called)
        except ImageError as error:
            yield called, error
