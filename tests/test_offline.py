"""Every task from data to export, where there is no network at all, and none of the packages that only some need.

Nothing is downloaded, installed or reported.
"""

import html
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import folders

ALONE = ("unshare", "--map-root-user", "--net")  # no network but a loopback that is down
HARNESS = """
import importlib.metadata, json, socket, sys

asked, distribution = [], importlib.metadata.distribution
absent = ("matplotlib", "captum", "scipy", "sklearn", "scikit-learn", "skimage", "pandas")

def installed(name):
    if name.lower() in absent:
        raise importlib.metadata.PackageNotFoundError(name)
    return distribution(name)

importlib.metadata.distribution = installed
sys.modules.update(dict.fromkeys(absent))

def hear(event, given):
    if event in ("socket.getaddrinfo", "socket.gethostbyname", "urllib.Request"):
        asked.append([event, str(given[0])])
    elif event in ("socket.connect", "socket.sendto") and not isinstance(given[1], (str, bytes)):
        asked.append([event, str(given[1])])

sys.addaudithook(hear)
from convscope.cli import app
from convscope.errors import ConvscopeError

done, refused = [], []
for words in json.loads(sys.argv[1]):
    try:
        app(words, standalone_mode=False)
    except SystemExit as end:
        if end.code != 2 * (words[0] in ("attribute", "profile")):
            raise
    except ConvscopeError as error:
        refused.append(str(error))
    done.append(words[0])
told = {"asked": [*asked], "done": done, "refused": refused}
try:
    socket.create_connection(("convscope.invalid", 80), timeout=1)
except OSError:
    told["heard"] = asked[len(told["asked"]):]
json.dump(told, open("told.json", "w"))
"""


def _commands(pictures: Path) -> list[list[str]]:
    small = ["--epochs", "1", "--set", "batch_size=4", "--set", "image_size=64", "--set", "num_threads=1"]
    found: list[list[str]] = [["inspect", "torchvision:resnet18"]]
    for task, folder in (("classify", "classes"), ("detect", "coco"), ("segment", "pairs")):
        more = ["--model", "small"] if task == "classify" else []
        found += [
            ["data", "check", folder],
            ["train", task, "--data", folder, "--out", task, *small, *more],
            ["evaluate", task],
            ["predict", task, str(pictures), "--out", f"{task}-told"],
            ["export", task, "--out", f"{task}.onnx"],
            ["predict", f"{task}.onnx", str(pictures)],
        ]
    picture = ["classify", str(pictures)]
    found += [["attribute", *picture, "--method", "saliency"], ["attribute", *picture, "--out", "why.png"],
              ["profile", "classify", "--flame", "flame.svg"]]  # fmt: skip
    return found


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    root = tmp_path_factory.mktemp("offline")
    folders.classes(root / "classes", count=20)
    folders.coco(root / "coco", count=20)
    folders.pairs(root / "pairs", count=20)
    commands = _commands(root / "coco" / "images" / "0.png")
    usable = subprocess.run([*ALONE, "true"], capture_output=True, check=False).returncode == 0
    environment = os.environ | {"HOME": str(root), "XDG_CACHE_HOME": str(root / "cache"), "OMP_NUM_THREADS": "1"}
    words = [*(ALONE if usable else ()), sys.executable, "-c", HARNESS, json.dumps(commands)]
    ended = subprocess.run(words, cwd=root, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert ended.returncode == 0, ended.stderr[-3000:]
    return json.loads((root / "told.json").read_text()) | {"root": root, "wanted": [c[0] for c in commands]}


def test_every_task_works_without_a_network(told: dict[str, Any]) -> None:
    assert told["done"] == told["wanted"]
    assert all((told["root"] / f"{task}.onnx").exists() for task in ("classify", "detect", "segment"))


def test_nobody_is_asked_for_anything(told: dict[str, Any]) -> None:
    assert told["heard"]  # an address that was asked for would be known
    assert told["asked"] == []


def test_what_needs_a_package_that_is_missing_says_so(told: dict[str, Any]) -> None:
    sentences = [f"{name}: not installed; pip install 'convscope[pictures]'" for name in ("captum", "matplotlib")]
    assert told["refused"] == sentences
    for task in ("classify", "detect", "segment"):
        assert f"No curves: {sentences[1]}." in html.unescape((told["root"] / task / "report.html").read_text())
    assert (told["root"] / "why.png").exists()
