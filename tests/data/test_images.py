"""Every file here is made for real; the oracle is the array that it was made from."""

import io
import os
import struct
import threading
import warnings
import zlib
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageFile, ImageOps

from convscope.data.images import Picture, decode_image, photograph, read_image
from convscope.errors import ImageError, InputError

RNG = np.random.default_rng(0)
RGB = RNG.integers(0, 256, (12, 17, 3), dtype=np.uint8)
RGBA = RNG.integers(0, 256, (12, 17, 4), dtype=np.uint8)
GREY = RNG.integers(0, 256, (12, 17), dtype=np.uint8)


def smooth(height: int = 96, width: int = 128) -> np.ndarray:
    """A picture that JPEG keeps well."""
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([x * 255 / width, y * 255 / height, 128 + 60 * np.sin(x / 20)], axis=2).astype(np.uint8)


def saved(path: Path, array: np.ndarray, *, mode: str | None = None, **options) -> Path:
    image = Image.fromarray(array)
    (image.convert(mode) if mode else image).save(path, **options)
    return path


def bytes_of(array: np.ndarray, format: str, **options) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, format, **options)
    return buffer.getvalue()


def refused(path: Path, *words: str, **options) -> None:
    """One sentence that begins with the file's name and holds the words."""
    with pytest.raises(ImageError) as caught:
        read_image(path, **options)
    message = str(caught.value)
    assert message.startswith(str(path))
    assert "\n" not in message
    for word in words:
        assert word in message


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_of_size(width: int, height: int, idat: bytes = b"") -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + png_chunk(b"IDAT", idat) + png_chunk(b"IEND", b"")


# What is read


@pytest.mark.parametrize("extension", ["png", "bmp", "tiff", "webp"])
def test_lossless_formats_give_the_pixels_back(tmp_path, extension):
    options = {"lossless": True} if extension == "webp" else {}
    picture = read_image(saved(tmp_path / f"a.{extension}", RGB, **options))
    assert picture.pixels.dtype == np.float32
    assert picture.mode == "RGB"
    assert picture.notes == ()
    np.testing.assert_array_equal(picture.pixels, RGB.astype(np.float32) / np.float32(255))


@pytest.mark.parametrize("extension", ["jpg", "avif"])
def test_lossy_formats_come_near(tmp_path, extension):
    array = smooth()
    picture = read_image(saved(tmp_path / f"a.{extension}", array, quality=95))
    assert np.abs(picture.pixels * 255 - array).mean() < 3


def test_the_content_decides_not_the_name(tmp_path):
    path = tmp_path / "a.jpg"
    path.write_bytes(bytes_of(RGB, "PNG"))
    np.testing.assert_array_equal(read_image(path).pixels * 255, RGB)


def test_rgba_keeps_its_four_channels(tmp_path):
    picture = read_image(saved(tmp_path / "a.png", RGBA))
    np.testing.assert_array_equal(np.rint(picture.pixels * 255), RGBA)


def test_grey_and_grey_alpha(tmp_path):
    assert read_image(saved(tmp_path / "l.png", GREY)).shape == (12, 17, 1)
    grey_alpha = read_image(saved(tmp_path / "la.png", RGBA[..., :2]))
    assert grey_alpha.mode == "LA"
    np.testing.assert_array_equal(np.rint(grey_alpha.pixels * 255), RGBA[..., :2])


@pytest.mark.parametrize("bit", [0, 5])
def test_whichever_byte_of_a_png_is_flipped_it_is_refused_or_the_same(bit):
    """Checksums cover all but the signature, the lengths and the checksum of the end, which holds nothing."""
    content = bytes_of(RGB, "PNG")
    for at in range(len(content)):
        flipped = bytearray(content)
        flipped[at] ^= 1 << bit
        with suppress(ImageError):
            read = decode_image(io.BytesIO(bytes(flipped)), source="a.png")
            assert at >= len(content) - 12, at
            np.testing.assert_array_equal(np.rint(read.pixels * 255), RGB)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody who may not read")
def test_a_picture_that_may_not_be_read(tmp_path):
    path = saved(tmp_path / "a.png", RGB)
    path.chmod(0)
    os.seteuid(65534)
    try:
        refused(path, "no permission to read it; change its permissions or copy it")
    finally:
        os.seteuid(0)


def test_one_bit(tmp_path):
    black_white = GREY > 127
    picture = read_image(saved(tmp_path / "a.png", black_white))
    np.testing.assert_array_equal(picture.pixels[..., 0], black_white)
    assert picture.notes == ("black and white became grey",)


@pytest.mark.parametrize("extension", ["png", "tiff"])
def test_sixteen_bit_grey_keeps_all_its_levels(tmp_path, extension):
    array = (np.arange(3072, dtype=np.uint16) * 21).reshape(48, 64)
    picture = read_image(saved(tmp_path / f"a.{extension}", array))
    assert len(np.unique(picture.pixels)) == 3072
    np.testing.assert_allclose(picture.pixels[..., 0], array / 65535, atol=1e-7)
    assert "16-bit grey was divided by 65535" in picture.notes


def test_big_endian_sixteen_bit_tiff(tmp_path):
    array = np.array([[0, 256, 65535]], dtype=np.uint16)
    path = tmp_path / "a.tif"
    Image.frombytes("I;16B", (3, 1), array.astype(">u2").tobytes()).save(path)
    np.testing.assert_allclose(read_image(path).pixels[0, :, 0], array[0] / 65535, atol=1e-7)


def test_floats_of_unknown_range_are_brought_to_0_1_and_said(tmp_path):
    picture = read_image(saved(tmp_path / "a.tif", np.array([[-1.0, 0.0, 3.0]], dtype=np.float32)))
    np.testing.assert_allclose(picture.pixels[0, :, 0], [0, 0.25, 1])
    assert picture.notes == ("values from -1 to 3 were brought to 0..1",)
    kept = np.array([[0.125, 0.5]], dtype=np.float32)
    np.testing.assert_array_equal(read_image(saved(tmp_path / "b.tif", kept)).pixels[..., 0], kept)


def test_nan_in_a_tiff_is_refused(tmp_path):
    refused(saved(tmp_path / "a.tif", np.array([[0, np.nan]], dtype=np.float32)), "1 NaN or infinite")


def test_palette(tmp_path):
    colours = np.array([[[255, 0, 0], [0, 128, 0]], [[0, 0, 255], [255, 255, 0]]], dtype=np.uint8)
    picture = read_image(saved(tmp_path / "a.png", colours, mode="P"))
    assert picture.mode == "P"
    expected = np.asarray(Image.open(tmp_path / "a.png").convert("RGB")) / 255
    np.testing.assert_allclose(picture.pixels, expected, atol=1e-7)


def palette_image() -> Image.Image:
    image = Image.new("P", (2, 1))
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.putdata([0, 1])
    return image


@pytest.mark.parametrize("transparency", [0, b"\x00\xff"])
def test_palette_with_transparency_becomes_rgba(tmp_path, transparency):
    palette_image().save(tmp_path / "a.png", transparency=transparency)
    picture = read_image(tmp_path / "a.png")
    np.testing.assert_array_equal(picture.pixels[0], [[1, 0, 0, 0], [0, 0, 1, 1]])
    assert picture.notes == ("a palette became RGBA",)


def test_cmyk_jpeg_of_adobe_has_the_right_colours(tmp_path):
    array = smooth()
    path = saved(tmp_path / "a.jpg", array, mode="CMYK", quality=100, subsampling=0)
    assert b"Adobe" in path.read_bytes()
    picture = read_image(path)
    assert picture.mode == "CMYK"
    assert np.abs(picture.pixels * 255 - array).max() <= 3
    assert "CMYK became RGB" in picture.notes


@pytest.mark.parametrize("extension", ["png", "tiff"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_exif_orientation_comes_upright(tmp_path, orientation, extension):
    turns = {  # how a camera stores the upright picture under each orientation
        1: RGB,
        2: RGB[:, ::-1],
        3: RGB[::-1, ::-1],
        4: RGB[::-1],
        5: RGB.transpose(1, 0, 2),
        6: np.rot90(RGB, 1),
        7: RGB[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(RGB, -1),
    }
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture = read_image(saved(tmp_path / f"a.{extension}", np.ascontiguousarray(turns[orientation]), exif=exif))
    np.testing.assert_array_equal(np.rint(picture.pixels * 255), RGB)
    if extension == "png":
        assert any("upright" in n for n in picture.notes) == (orientation > 1)


@pytest.mark.parametrize("extension", ["gif", "webp", "tiff", "png"])
def test_the_first_of_several_frames(tmp_path, extension):
    red, blue = (Image.new("RGB", (8, 6), c) for c in ("red", "blue"))
    options = {"lossless": True} if extension == "webp" else {}
    red.save(tmp_path / f"a.{extension}", save_all=True, append_images=[blue, red], **options)
    picture = read_image(tmp_path / f"a.{extension}")
    np.testing.assert_array_equal(picture.pixels[..., :3], np.broadcast_to([1.0, 0, 0], (6, 8, 3)))
    assert "the first of 3 frames was taken" in picture.notes


# What is refused


def test_missing_folder_and_pipe(tmp_path):
    refused(tmp_path / "none.png", "does not exist")
    refused(tmp_path, "is a folder")
    os.mkfifo(tmp_path / "pipe")
    refused(tmp_path / "pipe", "a pipe")
    with pytest.raises(ImageError, match="cannot be opened"):
        read_image("a\0b.png")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(ImageError, match="cannot be opened"):
        read_image(tmp_path / "loop")


def test_no_permission(tmp_path):
    path = saved(tmp_path / "a.png", RGB)
    path.chmod(0)
    user = os.geteuid()
    try:
        if user == 0:  # root may read everything
            os.seteuid(65534)
        refused(path, "no permission")
    finally:
        os.seteuid(user)


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 12345\n"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty (0 bytes)"),
        (LFS, "looks like a Git LFS pointer, not a picture; run `git lfs pull`"),
        (b"<!DOCTYPE html><html><body>404</body></html>", "looks like a web page"),
        (b"\xef\xbb\xbf\n<HTML>", "looks like a web page"),
        (b'<?xml version="1.0"?>\n<!-- x -->\n<svg xmlns="http://www.w3.org/2000/svg"/>', "looks like an SVG drawing"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "looks like a PostScript drawing"),
        (b"8BPS" + bytes(40), "looks like a Photoshop document"),
        (b"%PDF-1.7\n", "looks like a PDF document"),
        (b"\x00\x00\x00\x18ftypheic" + bytes(40), "looks like a HEIF photograph"),
        (b"name,label\ncat,1\n", "looks like text"),
        ("Grüße, 猫\n".encode() * 400, "looks like text"),
        (bytes(range(256)), "is no picture of a known format"),
        (b"P6 1 1 255 \xff\x00\x00", "is no picture of a known format"),
    ],
)
def test_what_is_no_picture_is_called_by_its_name(tmp_path, content, words):
    path = tmp_path / "cat.png"
    path.write_bytes(content)
    refused(path, words)


@pytest.mark.parametrize("extension", ["fli", "ppm", "ico", "tga", "eps"])
def test_formats_off_the_list_are_not_decoded(tmp_path, extension):
    path = tmp_path / "a.png"
    if extension == "fli":
        path.write_bytes(struct.pack("<IHHHHHH", 128, 0xAF12, 1, 8, 8, 8, 3) + bytes(112))
    else:
        path.write_bytes(bytes_of(RGB, extension))
    refused(path, "not a picture" if extension == "eps" else "no picture of a known format")


@pytest.mark.parametrize("extension", ["jpg", "png", "gif", "bmp", "tiff", "webp", "avif"])
def test_a_file_cut_in_half_is_refused(tmp_path, extension):
    path = saved(tmp_path / f"a.{extension}", smooth())
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    refused(path, "")
    if extension in ("jpg", "png"):
        refused(path, "is cut short or damaged", "--allow-truncated")


@pytest.mark.parametrize("extension", ["jpg", "png"])
def test_a_cut_file_is_shown_when_it_is_allowed(tmp_path, extension):
    array = RNG.integers(0, 256, (64, 64, 3), dtype=np.uint8) // 16 * 16
    path = saved(tmp_path / f"a.{extension}", array)
    whole = read_image(path).pixels
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    picture = read_image(path, allow_truncated=True)
    np.testing.assert_array_equal(picture.pixels[:8], whole[:8])
    assert not np.array_equal(picture.pixels[48:], whole[48:])
    assert any("damaged" in n for n in picture.notes)
    assert ImageFile.LOAD_TRUNCATED_IMAGES is False


def test_a_cut_header_is_refused_even_when_cuts_are_allowed(tmp_path):
    path = tmp_path / "a.jpg"
    path.write_bytes(bytes_of(smooth(), "JPEG")[:40])
    refused(path, "", allow_truncated=True)


@given(share=st.floats(0, 1, exclude_max=True), flip=st.integers(1, 255))
def test_one_flipped_byte_in_a_png_is_never_read_in_silence(share, flip):
    content = bytearray(bytes_of(RGB, "PNG"))
    start = content.index(b"IDAT") + 4
    length = struct.unpack(">I", content[start - 8 : start - 4])[0]
    content[start + int(share * length)] ^= flip
    with pytest.raises(ImageError, match="cut short or damaged"):
        decode_image(io.BytesIO(bytes(content)), source="a.png")


@given(noise=st.binary(max_size=300), beginning=st.sampled_from(["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "AVIF"]))
def test_any_damage_gives_a_picture_or_an_image_error(noise, beginning):
    content = bytes_of(RGB, beginning)[:60] + noise
    with suppress(ImageError):
        assert decode_image(io.BytesIO(content), source="a").pixels.ndim == 3


def test_a_bomb_is_refused_before_it_is_decoded(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(png_of_size(100_000, 100_000))
    refused(path, "has 10,000,000,000 pixels", "the limit is 40,000,000")


def test_a_real_bomb_is_refused(tmp_path):
    path = tmp_path / "a.png"
    packer = zlib.compressobj()
    row = bytes(1 + 40_000 // 8)
    path.write_bytes(png_of_size(40_000, 40_000, packer.compress(row * 40_000) + packer.flush()))
    assert path.stat().st_size < 300_000
    refused(path, "1,600,000,000 pixels")


@pytest.mark.parametrize("side", [6_400, 10_000])  # above our limit; above Pillow's warning
@pytest.mark.parametrize("action", ["error", "ignore"])
def test_sizes_that_pillow_lets_through_are_refused(tmp_path, side, action):
    path = tmp_path / "a.png"
    path.write_bytes(png_of_size(side, side))
    with warnings.catch_warnings():
        warnings.simplefilter(action)
        refused(path, f"{side * side:,} pixels")


def test_damaged_exif_is_a_note_and_not_an_end(tmp_path):
    path = saved(tmp_path / "a.jpg", smooth(), exif=b"Exif\0\0MM\0\x2a\0\0\0\x08\xff\xff\x01\x12")
    picture = read_image(path)
    assert picture.shape == (96, 128, 3)
    assert picture.notes[0].startswith("Pillow warns: ")


def test_damage_elsewhere_in_exif_leaves_the_orientation(tmp_path):
    tags = b"\x01\x12\0\x03\0\0\0\x01\0\x06\0\0"  # orientation 6
    tags += b"\x01\x1c\0\x05\0\0\0\x01\0\0\0\x26" + bytes(4) + b"\0\0\0\x03\0\0\0\x02"  # a fraction for a whole number
    path = saved(tmp_path / "a.jpg", smooth(), exif=b"Exif\0\0MM\0*\0\0\0\x08\0\x02" + tags)
    with Image.open(path) as image, pytest.raises(struct.error):
        ImageOps.exif_transpose(image)
    picture = read_image(path)
    assert picture.shape == (128, 96, 3)
    assert "turned upright (EXIF orientation 6)" in picture.notes


def test_reading_changes_nothing_in_the_process(tmp_path):
    path = saved(tmp_path / "a.png", RGB)
    before = (ImageFile.LOAD_TRUNCATED_IMAGES, Image.MAX_IMAGE_PIXELS, list(warnings.filters))
    results: list[Picture] = []
    threads = [threading.Thread(target=lambda: results.append(read_image(path))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 8
    assert (ImageFile.LOAD_TRUNCATED_IMAGES, Image.MAX_IMAGE_PIXELS, list(warnings.filters)) == before


def test_the_packaged_photograph():
    picture = photograph()
    assert picture.shape == (427, 640, 3)
    assert 0 <= picture.pixels.min() < 0.1
    assert 0.9 < picture.pixels.max() <= 1
    np.testing.assert_array_equal(picture.tensor()[0].permute(1, 2, 0).numpy(), picture.pixels)
    with pytest.raises(InputError, match="'cat'; use astronaut, brick, camera"):
        photograph("cat")
