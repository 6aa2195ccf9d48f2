"""Valid files, damaged anywhere, and specifications of any letters: only documented errors come out.

`make fuzz` tries far more. What labels may hold is fuzzed in data/test_formats_fuzz.py, what requests may hold in
lab/test_load.py.
"""

import io
import json
import struct
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import save
from torch import nn

from convscope import models
from convscope.data.images import decode_image, decode_values
from convscope.engines.card import Card
from convscope.errors import ConfigError, ConvscopeError, ImageError, InputError
from convscope.layers.kernels import parse_kernel
from convscope.runs import TrainConfig, open_run, resolve
from convscope.runs import folder as runs
from convscope.train.parts import begin_with
from fuzzing import budget

PIXELS = np.random.default_rng(0).integers(0, 256, (9, 11, 3), dtype=np.uint8)
FORMATS = ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "AVIF")


@st.composite
def damages(draw: st.DrawFn) -> Callable[[bytes], bytes]:
    """What happens to a file on its way: bytes are changed, left out, doubled, cut off or put in."""
    steps = draw(st.lists(st.tuples(st.integers(0, 4), st.floats(0, 1), st.binary(min_size=1, max_size=8)), max_size=6))

    def damaged(content: bytes) -> bytes:
        for kind, place, noise in steps:
            at = int(place * len(content))
            content = [
                content[:at] + noise + content[at + len(noise) :],
                content[:at] + content[at + 4 * len(noise) :],
                content[:at] + content[max(0, at - 64) : at] + content[at:],
                content[:at],
                content[:at] + noise + content[at:],
            ][kind]
        return content

    return damaged


def _picture(kind: str) -> bytes:
    buffer = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(PIXELS).save(buffer, kind, **({"exif": exif} if kind in ("PNG", "JPEG", "WEBP", "TIFF") else {}))
    return buffer.getvalue()


PICTURES = {kind: _picture(kind) for kind in FORMATS}


@budget(100)
@given(kind=st.sampled_from(FORMATS), damage=damages(), truncated=st.booleans())
def test_damaged_pictures(kind: str, damage: Callable[[bytes], bytes], truncated: bool) -> None:
    content = damage(PICTURES[kind])
    with suppress(ImageError):
        pixels = decode_image(io.BytesIO(content), source="a", allow_truncated=truncated).pixels
        assert pixels.ndim == 3
        assert np.isfinite(pixels).all()
        assert 0 <= pixels.min() <= pixels.max() <= 1
    with suppress(ImageError):
        assert decode_values(io.BytesIO(content), source="a").ndim in (2, 3)


def _weights() -> dict[str, bytes]:
    state, pickled = nn.Linear(3, 2).state_dict(), io.BytesIO()
    torch.save(state, pickled)
    return {".pt": pickled.getvalue(), ".safetensors": save(state)}


WEIGHTS = _weights()


@budget(100)
@given(suffix=st.sampled_from(sorted(WEIGHTS)), damage=damages())
def test_damaged_weights(suffix: str, damage: Callable[[bytes], bytes]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / f"w{suffix}"
        file.write_bytes(damage(WEIGHTS[suffix]))
        with suppress(ConvscopeError):
            begin_with(nn.Linear(3, 2), file)


@budget(40)
@given(text=st.recursive(st.none() | st.integers() | st.text(max_size=4), lambda x: st.lists(x, max_size=3) |
       st.dictionaries(st.sampled_from(["a", "dtype", "shape", "data_offsets", "__metadata__"]), x)),
       size=st.integers(0, 40))  # fmt: skip
def test_headers_of_safetensors(text: Any, size: int) -> None:
    head = json.dumps(text).encode()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "w.safetensors"
        file.write_bytes(struct.pack("<Q", len(head)) + head + bytes(size))
        with suppress(ConvscopeError):
            begin_with(nn.Linear(3, 2), file)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    runs.start(runs.Run(folder, TrainConfig(), tuple("0123456789"), (1, 32, 32), runs.Normalisation()))
    runs.save_checkpoint(folder, {"step": 1, "model": {"w": torch.zeros(4)}})
    runs.save_model(folder, models.build("LeNet5"))
    return folder


@budget(60)
@given(name=st.sampled_from(["config.toml", "manifest.json", "metrics.jsonl", "last.ckpt"]), damage=damages())
def test_damaged_run_folders(run: Path, name: str, damage: Callable[[bytes], bytes]) -> None:
    file = run / name
    whole = file.read_bytes() if file.exists() else b'{"epoch": 1, "val_loss": 0.5}\n'
    file.write_bytes(damage(whole))
    try:
        with suppress(ConvscopeError):
            opened = open_run(run)
            opened.metrics()
            runs.load_checkpoint(run)
            opened.model()
    finally:
        file.write_bytes(whole)


@budget(60)
@given(text=st.text(max_size=30) | st.builds("{} = {}".format, st.sampled_from(list(TrainConfig.model_fields)),
       st.sampled_from(["1", "-1", "1e400", "nan", "'x'", "[]", "{}", "true", "2020-01-01", '"\\u0000"'])))  # fmt: skip
@example("task = []")
@example("task = {}")
def test_settings(text: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "c.toml").write_text(text, encoding="utf-8")
        with suppress(ConfigError):
            resolve(file=Path(folder) / "c.toml")
    with suppress(ConfigError):
        resolve(sets=[text])


names = st.text(max_size=12) | st.sampled_from(["", ":", "a:", ":b", "torchvision:", "timm:x", "imagenet:", "os:system",
                                                "..:x", "a.b:c", "LeNet5:", "torch.nn:Identity", "a\0b:c"])  # fmt: skip


@budget(60)
@given(spec=names)
def test_names_of_models(spec: str) -> None:
    with suppress(InputError):
        models.build(spec)


@budget(60)
@given(text=st.text("0123456789 ;/-.|enaif\n", max_size=20))
def test_kernels_by_hand(text: str) -> None:
    with suppress(InputError):
        parse_kernel(text)


@budget(60)
@given(damage=damages())
def test_cards(damage: Callable[[bytes], bytes]) -> None:
    text = Card("classify", ("a",), (1, 8, 8), (0.5,), (0.5,), ("output",)).text()
    with suppress(InputError):
        Card.read(damage(text.encode()).decode(errors="replace"), source="m.onnx")
