"""Draws docs/lab.png, the network page of a trained run: `python docs/picture_of_lab.py`.

A run of the demo is trained for it, so other machines may draw other maps. It needs chromium.
"""

import shutil
import sys
import tempfile
import threading
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

from convscope.cli import app
from convscope.lab import open_lab, server_of

PLACE = Path(__file__).parent / "lab.png"
VIEW = "layer=features.C3&unit=0,14,3,4&"


def draw(run: Path) -> Image.Image:
    """The page of a run, in few enough colours to be small."""
    sock, door, opening = open_lab(str(run), "digits:3", port=0)
    opening()
    server = server_of(opening, door)
    threading.Thread(target=server.run, kwargs={"sockets": [sock]}, daemon=True).start()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 800}, locale="en-GB")
        page.goto(door.url.replace("/?", f"/?{VIEW}"))
        while page.evaluate("document.body.dataset.state") != "ready":
            page.wait_for_timeout(50)
        page.wait_for_timeout(300)
        page.screenshot(path=PLACE)
        browser.close()
    server.should_exit = True
    with Image.open(PLACE) as image:
        return image.convert("RGB").quantize(256, kmeans=2, dither=Image.Dither.NONE)


def main() -> None:
    with tempfile.TemporaryDirectory() as scratch:
        run = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(scratch) / "demo"
        if not run.is_dir():
            app(["demo", "--out", str(run)], standalone_mode=False)
        draw(run).save(PLACE, optimize=True)


if __name__ == "__main__":
    main()
