"""Pictures decoded in another process: the same pixels, and what ends that process ends nothing else."""

import io
import os
import resource
import signal
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from convscope.data.decoding import MEMORY, Decoder
from convscope.data.images import decode_image
from convscope.errors import ImageError


@pytest.fixture
def decoder():
    made = Decoder()
    yield made
    made.close()


def _bytes(array: np.ndarray, format: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, format)
    return buffer.getvalue()


@pytest.mark.parametrize("channels", [0, 2, 3, 4])
def test_the_picture_is_the_one_that_is_decoded_here(decoder, channels):
    shape = (30, 50, channels) if channels else (30, 50)
    content = _bytes(np.random.default_rng(channels).integers(0, 256, shape, dtype=np.uint8))
    here, there = decode_image(io.BytesIO(content), source="größe.png"), decoder.decode(content, source="größe.png")
    np.testing.assert_array_equal(there.pixels, here.pixels)
    assert (there.pixels.dtype, there.mode, there.source, there.notes) == (
        np.float32,
        here.mode,
        here.source,
        here.notes,
    )


def test_refusals_are_the_same_sentences(decoder):
    for content in (b"", b"version https://git-lfs", _bytes(np.zeros((64, 64), np.uint8))[:-30]):
        with pytest.raises(ImageError) as here:
            decode_image(io.BytesIO(content), source="a.png")
        with pytest.raises(ImageError) as there:
            decoder.decode(content, source="a.png")
        assert str(there.value) == str(here.value)


def test_a_crash_ends_one_process(decoder):
    os.kill(decoder.start().pid, signal.SIGSEGV)
    with pytest.raises(
        ImageError, match=r"^a\.png: made the decoder crash \(SIGSEGV\); save it anew with another program$"
    ):
        decoder.decode(b"any", source="a.png")
    assert decoder.decode(_bytes(np.zeros((4, 6), np.uint8)), source="b.png").shape == (4, 6, 1)


def test_a_decoder_that_hangs_is_ended():
    decoder = Decoder(seconds=0.2)
    os.kill(decoder.start().pid, signal.SIGSTOP)
    with pytest.raises(ImageError, match=r"^a\.png: takes longer than 0.2 s to decode; make it smaller first$"):
        decoder.decode(b"any", source="a.png")


def test_memory_files_and_cores_are_limited(decoder):
    with pytest.raises(ImageError):
        decoder.decode(b"any", source="a.png")  # it has begun to work
    limits = {k: resource.prlimit(decoder.start().pid, k) for k in (resource.RLIMIT_AS, resource.RLIMIT_FSIZE)}
    assert limits == {resource.RLIMIT_AS: (MEMORY, MEMORY), resource.RLIMIT_FSIZE: (0, 0)}
    assert "torch" not in Path(f"/proc/{decoder.start().pid}/maps").read_text(), "decoding needs no torch"
