"""Draws docs/pictures by the commands that the pages show: `python docs/pictures_of_networks.py [NAME ...]`.

A run of the demo is trained for it, so other machines may draw other digits.
"""

import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from PIL import Image

from convscope.cli import app

FOLDER = Path(__file__).parent / "pictures"
LITE = "imagenet:efficientnet_lite0"
SMALL = ("visualise", LITE, "--input", "3x128x128")
DRAWN: Mapping[str, Sequence[Sequence[str]]] = {
    "attribute": [("attribute", LITE, "coffee")],
    "patches": [("patches", "DEMO", "--layer", "C3", "--channel", "5")],
    "visualise": [
        (*SMALL, "--layer", "blocks.3.1", "--channel", "5"),
        (*SMALL, "--layer", "blocks.3.2", "--channel", "20"),
        (*SMALL, "--layer", "blocks.4.2", "--channel", "30"),
    ],
}


def draw(name: str, *more: str, epochs: int = 60) -> Image.Image:
    """What a page's commands draw, side by side, in few enough colours to be small; `more` goes to each command."""
    with tempfile.TemporaryDirectory() as scratch:
        made = [_made(Path(scratch) / str(i), (*words, *more), epochs) for i, words in enumerate(DRAWN[name])]
    page = Image.new("RGB", (sum(m.width for m in made), max(m.height for m in made)), "white")
    for index, part in enumerate(made):
        page.paste(part, (sum(m.width for m in made[:index]), 0))
    few = page.quantize(96, kmeans=2, dither=Image.Dither.NONE)
    return few if len(made) > 1 else page.quantize(palette=page.quantize(256, kmeans=2))  # dithered: maps are smooth


def _made(folder: Path, words: Sequence[str], epochs: int) -> Image.Image:
    """The one picture that a command writes."""
    if "DEMO" in words:
        run = folder.with_name("demo")
        _call("demo", "--out", str(run), "--epochs", str(epochs))
        words = [str(run) if w == "DEMO" else w for w in words]
    folder.mkdir()
    _call(*words, "--out", str(folder if words[0] == "patches" else folder / "made.png"))
    (path,) = folder.glob("*.png")
    with Image.open(path) as image:
        return image.convert("RGB")


def _call(*words: str) -> None:
    app(words, standalone_mode=False)


if __name__ == "__main__":
    for name in sys.argv[1:] or DRAWN:
        draw(name).save(FOLDER / f"{name}.png", optimize=True)
