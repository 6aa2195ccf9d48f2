"""Moving pictures are told of frame by frame."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from convscope.cli import app
from convscope.data.frames import open_frames
from convscope.data.named import open_picture
from convscope.errors import ImageError
from convscope.predict import predict_files
from convscope.runs.loaded import load_model

COUNT = 40


def _digits() -> list[Image.Image]:
    pixels = (255 * open_picture(f"digits:{at}").pixels[..., 0] for at in range(COUNT))
    return [Image.fromarray(p.round().astype(np.uint8)).convert("RGB") for p in pixels]


@pytest.mark.parametrize("suffix", [".gif", ".png", ".webp"])
def test_each_frame_is_the_picture_that_was_put_in(suffix: str, tmp_path: Path) -> None:
    file, frames = tmp_path / f"clip{suffix}", _digits()
    options = {"lossless": True} if suffix == ".webp" else {}
    frames[0].save(file, save_all=True, append_images=frames[1:], duration=40, **options)
    found = dict(open_frames(str(file)))
    assert list(found) == [f"{file}:{at}" for at in range(COUNT)]
    for frame, picture in zip(frames, found.values(), strict=True):
        assert np.array_equal((255 * picture.pixels).round().astype(np.uint8), np.asarray(frame))
    assert [name for name, _ in open_frames(str(file), every=15)] == [f"{file}:{at}" for at in (0, 15, 30)]


def test_a_clip_is_told_of_as_its_frames_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    frames = _digits()
    frames[0].save("clip.png", save_all=True, append_images=frames[1:])
    loaded = load_model("LeNet5")
    told, *_ = predict_files(loaded, ["clip.png", "digits:3"], top=1)
    alone, *_ = predict_files(loaded, [f"digits:{at}" for at in (*range(COUNT), 3)], top=1)
    assert [r.image for r in told.rows] == [*(f"clip.png:{at}" for at in range(COUNT)), "digits:3"]
    assert [r.probability for r in told.rows] == pytest.approx(
        [r.probability for r in alone.rows], abs=1e-3
    )  # frames have 8 bits
    done = CliRunner().invoke(app, ["predict", "LeNet5", "clip.png", "--every", "20", "--out", "told"])
    assert done.exit_code == 0, done.output
    rows = json.loads(Path("told/predictions.json").read_text())["predictions"]
    assert {r["image"] for r in rows} == {"clip.png:0", "clip.png:20"}


def test_a_picture_with_one_frame_keeps_its_name(tmp_path: Path) -> None:
    _digits()[0].save(tmp_path / "one.gif")
    assert [name for name, _ in open_frames(str(tmp_path / "one.gif"))] == [str(tmp_path / "one.gif")]


def test_a_damaged_clip_names_the_frame(tmp_path: Path) -> None:
    frames = _digits()
    frames[0].save(tmp_path / "whole.gif", save_all=True, append_images=frames[1:])
    whole = (tmp_path / "whole.gif").read_bytes()
    (tmp_path / "cut.gif").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ImageError, match=r"cut.gif: frame \d+ is cut short or damaged"):
        list(open_frames(str(tmp_path / "cut.gif")))


def test_a_video_without_a_reader_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    (tmp_path / "clip.mp4").write_bytes(b"")
    with pytest.raises(
        ImageError, match=r"clip.mp4: is a video, and PyAV is not installed; pip install 'convscope\[vi"
    ):
        list(open_frames(str(tmp_path / "clip.mp4")))


def test_a_video_is_read_frame_by_frame(tmp_path: Path) -> None:
    av = pytest.importorskip("av", reason="the video extra is not installed")
    grey = [20, 120, 220]
    with av.open(str(tmp_path / "clip.mp4"), "w") as made:
        stream = made.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for value in grey:
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), value, np.uint8), format="rgb24")
            made.mux(stream.encode(frame))
        made.mux(stream.encode())
    found = dict(open_frames(str(tmp_path / "clip.mp4")))
    assert list(found) == [f"{tmp_path}/clip.mp4:{at}" for at in range(3)]
    for value, picture in zip(grey, found.values(), strict=True):
        assert picture.shape == (48, 64, 3)
        assert picture.pixels.mean() * 255 == pytest.approx(value, abs=6)
    (tmp_path / "bad.mp4").write_bytes(b"not a video at all")
    with pytest.raises(ImageError, match=r"bad.mp4: cannot be read as a video"):
        list(open_frames(str(tmp_path / "bad.mp4")))
