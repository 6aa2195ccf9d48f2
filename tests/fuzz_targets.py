"""Whatever bytes come in, only documented errors come out: one function of bytes for each kind of input.

Hypothesis tries them in `test_fuzz_targets.py`, Atheris, guided by coverage, in `fuzz.py`.
"""

import io
import shutil
import tempfile
from collections.abc import Callable
from contextlib import suppress
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import nn

import folders
from convscope import models
from convscope.data.findings import Findings
from convscope.data.formats import read
from convscope.data.images import decode_image, decode_values
from convscope.data.loading import check_layout
from convscope.data.tree import walk
from convscope.engines.card import Card
from convscope.errors import ConvscopeError, ImageError, InputError
from convscope.lab.app import answerer
from convscope.lab.session import Session
from convscope.layers.kernels import parse_kernel
from convscope.runs import resolve
from convscope.runs.loaded import load_model
from convscope.train.parts import begin_with

HELD = Path(tempfile.mkdtemp(prefix="fuzz-"))


def picture(content: bytes) -> None:
    """A picture, whole and with what is left of it."""
    for truncated in (False, True):
        with suppress(ImageError):
            pixels = decode_image(io.BytesIO(content), source="a", allow_truncated=truncated).pixels
            assert pixels.ndim == 3
            assert 0 <= pixels.min() <= pixels.max() <= 1


def mask(content: bytes) -> None:
    """A mask of classes."""
    with suppress(ImageError):
        assert decode_values(io.BytesIO(content), source="a").ndim in (2, 3)


def weights(suffix: str, content: bytes) -> None:
    """Weights to begin with."""
    file = HELD / f"w{suffix}"
    file.write_bytes(content)
    with suppress(ConvscopeError):
        begin_with(nn.Linear(3, 2), file)


def settings(content: bytes) -> None:
    """A TOML file of settings."""
    file = HELD / "c.toml"
    file.write_bytes(content)
    with suppress(InputError):
        resolve(file=file)


def specification(content: bytes) -> None:
    """A model's name, a kernel by hand, a card; no name that imports a module of others."""
    text = content.decode("utf-8", "replace")
    with suppress(InputError):
        parse_kernel(text)
    with suppress(InputError):
        Card.read(text, source="m.onnx")
    if ":" not in text:
        with suppress(InputError):
            models.build(text)


def labels(make: Callable[..., Any], file: str, task: str, content: bytes) -> None:
    """A file of labels in a folder that is right without it."""
    root = _folder(make)
    whole = (root / file).read_bytes() if (root / file).exists() else None
    (root / file).write_bytes(content)
    try:
        with suppress(InputError):
            found = Findings(root)
            check_layout(read(walk(root), task, found), found)
    finally:
        (root / file).unlink() if whole is None else (root / file).write_bytes(whole)


def request(content: bytes) -> None:
    """A question to the lab."""
    answer = _lab()(content.decode("utf-8", "replace"))
    assert 200 <= answer.status_code < 500


@cache
def _folder(make: Callable[..., Any]) -> Path:
    root = Path(tempfile.mkdtemp(dir=HELD))
    make(root, count=4)
    return root


@cache
def _lab() -> Callable[[str], Any]:
    from convscope.data.named import open_picture

    return answerer(Session(load_model("LeNet5"), open_picture("flower"), "flower"))


def seed(name: str) -> bytes:
    """What a target takes as it should be, to begin with."""
    target = TARGETS[name]
    if name in ("picture", "mask"):
        return folders.picture(HELD / "a.png").read_bytes()
    if name in ("weights", "safetensors"):
        buffer, state = io.BytesIO(), nn.Linear(3, 2).state_dict()
        torch.save(state, buffer)
        return buffer.getvalue() if name == "weights" else save(state)
    if isinstance(target, partial) and name != "csv":
        make, file, _ = target.args
        return (_folder(make) / file).read_bytes()
    return {
        "csv": b"file,label\nimages/0.png,cat\nimages/1.png,dog\n",
        "settings": b'task = "classify"\nepochs = 3\nlr = 0.1\n',
        "specification": b"1 0 -1; 2 0 -2; 1 0 -1",
        "request": b"pictures/given/layers/0/units/0,0,3,4?channel=0",
    }[name]


def clean() -> None:
    """Take away what was written."""
    shutil.rmtree(HELD, ignore_errors=True)


def _table(root: Path, *, count: int) -> None:
    folders.pairs(root, count=count)
    shutil.rmtree(root / "masks")


TARGETS: dict[str, Callable[[bytes], None]] = {
    "picture": picture,
    "mask": mask,
    "weights": partial(weights, ".pt"),
    "safetensors": partial(weights, ".safetensors"),
    "settings": settings,
    "specification": specification,
    "coco": partial(labels, folders.coco, "instances.json", "segment"),
    "yolo": partial(labels, folders.yolo, "labels/0.txt", "detect"),
    "yaml": partial(labels, folders.yolo, "data.yaml", "detect"),
    "voc": partial(labels, folders.voc, "Annotations/0.xml", "detect"),
    "csv": partial(labels, _table, "labels.csv", "classify"),
    "request": request,
}
