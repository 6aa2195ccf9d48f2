"""Pictures decoded in another process: the same pixels, and what ends that process ends nothing else."""

import io
import json
import os
import resource
import signal
from contextlib import closing
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from convscope.data import check
from convscope.data.decoding import LARGEST, MEMORY, MOST, Decoder, aside
from convscope.data.images import decode_image, decode_values
from convscope.data.moving import stored_frames
from convscope.errors import ImageError
from convscope.runs import TrainConfig
from convscope.train import train


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


def test_a_decoder_that_the_system_kills_is_told_apart(decoder):
    os.kill(decoder.start().pid, signal.SIGKILL)
    with pytest.raises(
        ImageError, match=r"^a\.png: its decoder was killed by the system, often because memory ran out; "
    ):
        decoder.decode(b"any", source="a.png")


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.bool_])
def test_values_are_those_that_are_read_here(decoder, dtype):
    content = _bytes(np.arange(24).reshape(4, 6).astype(dtype))
    here, there = decode_values(io.BytesIO(content), source="m.png"), decoder.values(content, source="m.png")
    np.testing.assert_array_equal(there, here, strict=True)


def test_a_file_that_is_too_large_is_refused_unread(decoder, tmp_path):
    with (tmp_path / "a.png").open("wb") as file:
        file.truncate(LARGEST + 1)
    with pytest.raises(ImageError, match=r"a\.png: has 536,870,913 bytes; the limit is 536,870,912"):
        decoder.read(tmp_path / "a.png")


def test_pieces_of_work_come_back_in_their_order_and_leave_no_process():
    before = _children()
    content = _bytes(np.zeros((4, 6), np.uint8))
    with closing(aside([partial(_named, content, str(i)) for i in range(40)])) as pictures:
        assert [next(pictures).source for _ in range(30)] == [str(i) for i in range(30)]
        assert 1 <= len(_children() - before) <= MOST
    assert _children() == before


def _named(content, source, decoder):
    return decoder.decode(content, source=source)


def _children():
    return {int(p) for p in Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split()} | {
        int(p) for t in Path(f"/proc/{os.getpid()}/task").iterdir() for p in _text(t / "children").split()
    }


def _text(path):
    try:
        return path.read_text()
    except OSError:  # the thread has just ended
        return ""


# A data set with a picture on which the decoder dies: the process that reads it and trains says so, and lives.

DIES = """
import os, signal
from PIL import ImageFile
whole = ImageFile.ImageFile.load
def load(self):
    if self.size == (13, 7):
        os.kill(os.getpid(), signal.SIGSEGV)
    return whole(self)
ImageFile.ImageFile.load = load
"""


@pytest.fixture
def deadly(tmp_path, monkeypatch):
    """A folder with such a picture, `cat/5.png`."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(DIES)
    monkeypatch.setenv(
        "PYTHONPATH", os.pathsep.join(filter(None, (str(tmp_path / "site"), os.environ.get("PYTHONPATH"))))
    )
    for name in ("cat", "dog"):
        (tmp_path / "set" / name).mkdir(parents=True)
        for index in range(10):
            size = (7, 13) if (name, index) == ("cat", 5) else (8, 8)
            Image.fromarray(np.full(size, 20 * index, np.uint8)).save(tmp_path / "set" / name / f"{index}.png")
    return tmp_path / "set"


def test_a_picture_that_kills_its_decoder_is_named_by_the_run_that_meets_it(deadly, tmp_path):
    with pytest.raises(ImageError, match=r"cat/5\.png: made the decoder crash \(SIGSEGV\); save it anew with another"):
        train(TrainConfig(data=str(deadly), epochs=1, device="cpu"), out=tmp_path / "run", progress=False)
    report = check(deadly)
    assert [f.where for f in report.findings if f.stops] == ["cat/5.png"]
    (deadly / "cat" / "5.png").unlink()
    assert check(deadly).clean


def test_a_run_that_is_resumed_onto_such_a_picture_keeps_its_checkpoints(deadly, tmp_path):
    bad = deadly / "cat" / "5.png"
    content = bad.read_bytes()
    bad.write_bytes((deadly / "cat" / "4.png").read_bytes())
    config = TrainConfig(data=str(deadly), epochs=2, batch_size=4, device="cpu", save_every_steps=1)
    train(config, out=tmp_path / "run", progress=False)
    before = {p.name: p.read_bytes() for p in (tmp_path / "run").iterdir()}
    bad.write_bytes(content)
    with pytest.raises(ImageError, match=r"cat/5\.png: made the decoder crash"):
        train(config.model_copy(update={"epochs": 3}), out=tmp_path / "run", resume=True, override=True, progress=False)
    after = {p.name: p.read_bytes() for p in (tmp_path / "run").iterdir() if p.suffix == ".ckpt"}
    assert after
    assert after.items() <= before.items()


def test_a_picture_that_kills_its_decoder_does_not_lose_what_is_said_of_the_others(deadly, tmp_path, call):
    folder, out = deadly / "cat", tmp_path / "told"
    bad = "cat/5.png: made the decoder crash (SIGSEGV); save it anew with another program"
    (folder / "6.png").write_bytes((folder / "6.png").read_bytes()[:40])
    code, said, err = call("predict", "LeNet5", folder, "--json", "--out", out)
    assert code == 2
    rows = json.loads(said)
    assert sorted({Path(r["image"]).name for r in rows["predictions"]}) == [
        f"{at}.png" for at in (0, 1, 2, 3, 4, 7, 8, 9)
    ]
    assert [e.startswith(str(folder / n)) for e, n in zip(rows["damaged"], ("5.png", "6.png"), strict=True)] == [
        True,
        True,
    ]
    assert rows["damaged"][0].endswith(bad)
    assert err.strip().splitlines()[-2:] == [f"convscope: {e}" for e in rows["damaged"]]
    assert json.loads((out / "predictions.json").read_text())["predictions"] == rows["predictions"]


@pytest.mark.parametrize("every", [1, 3])
@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "one", "mp4"])
def test_frames_are_the_same_as_in_this_process(decoder, kind, every, tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (8, 24, 32, 3), dtype=np.uint8)
    images, path = [Image.fromarray(pixels) for pixels in noise], tmp_path / f"clip.{kind.lower()}"
    if kind == "mp4":
        _video(path, noise)
    elif kind == "one":
        images[0].save(path := tmp_path / "one.tif")
    else:
        images[0].save(path, kind, save_all=True, append_images=images[1:])
    here, there = (list(f(path, source="größe", every=every)) for f in (stored_frames, decoder.frames))
    assert [f.at for f in here] == ([None] if kind == "one" else list(range(0, 8, every)))
    for own, other in zip(here, there, strict=True):
        assert (own.at, own.mode, own.notes) == (other.at, other.mode, other.notes)
        np.testing.assert_array_equal(own.pixels, other.pixels)


def _video(path, frames):
    av = pytest.importorskip("av", reason="the video extra is not installed")
    with av.open(str(path), "w") as made:
        stream = made.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = frames.shape[2], frames.shape[1], "yuv420p"
        for pixels in frames:
            made.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        made.mux(stream.encode())


def test_frames_that_nobody_reads_to_their_end_are_not_the_next_answer(decoder, tmp_path):
    images = [Image.fromarray(np.full((8, 8), 20 * at, np.uint8)) for at in range(9)]
    images[0].save(tmp_path / "a.gif", save_all=True, append_images=images[1:])
    with closing(decoder.frames(tmp_path / "a.gif", source="a.gif")) as frames:
        next(frames)
    content = _bytes(np.full((4, 6), 7, np.uint8))
    assert (decoder.decode(content, source="b.png").pixels * 255).round().tolist() == np.full((4, 6, 1), 7).tolist()
    (tmp_path / "bad.gif").write_bytes((tmp_path / "a.gif").read_bytes()[:-60])
    seen = []
    with pytest.raises(ImageError, match=r"bad\.gif: frame \d+ is cut short or damaged"):
        seen.extend(f.at for f in decoder.frames(tmp_path / "bad.gif", source="bad.gif"))
    assert seen
    assert decoder.decode(content, source="b.png").shape == (4, 6, 1)


def test_names_of_any_bytes_come_back(decoder):
    for name in ("\udcff.png", "\ud83d.png", "a\nb.png"):
        with pytest.raises(ImageError) as caught:
            decoder.decode(b"", source=name)
        assert str(caught.value) == f"{name}: is empty (0 bytes); get a whole copy"


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
