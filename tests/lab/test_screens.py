"""What the pages look like, compared with stored pictures. `CONVSCOPE_SCREENS=renew pytest tests/lab/test_screens.py`
draws these anew.

Each is a quarter of the screen's size, so that how a letter is smoothed does not matter, and where things stand does.
"""

import io
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from convscope import models
from convscope.data.named import open_picture

pytestmark = pytest.mark.browser
HERE = Path(__file__).parent / "screens"
VIEWS = {
    "network": "/?layer=features.C3&unit=0,5,3,4",
    "effective": "/?layer=features.C3&unit=0,5,3,4&field=effective",
    "pool": "/?layer=features.S2&unit=0,2,4,6",
    "slide": "/convolution?step=7",
    "transposed": "/convolution?view=transposed&stride=2&step=5",
    "grouped": "/convolution?inputs=4&outputs=4&groups=2&size=6&channel=2&step=8",
    "matrix": "/convolution?view=matrix&step=3",
    "family": "/family",
    "runs": "/runs",
}
DOCS = Path(__file__).parents[2] / "docs"
MEAN, SHARE = 3.0, 0.04  # of 255: how far pixels may lie apart on average; the share that may be quite another colour


@pytest.fixture(scope="module")
def seeded(lab_of_model, run, tmp_path_factory):
    """LeNet5 with the same weights every time, beside a run."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = models.build("LeNet5")
    here = tmp_path_factory.mktemp("here")
    shutil.copytree(run, here / "runs" / "digits")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(here)
        with lab_of_model(model, (1, 32, 32), pixels=open_picture("digits:0").pixels) as served:
            yield served


def shot(page):
    page.wait_for_timeout(150)
    image = Image.open(io.BytesIO(page.screenshot(animations="disabled"))).convert("RGB")
    return image.resize((image.width // 4, image.height // 4), Image.Resampling.BOX)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", VIEWS)
def test_the_page_looks_as_it_did(seeded, opened, name, scheme):
    stored = HERE / f"{name}-{scheme}.png"
    with opened(seeded, VIEWS[name], color_scheme=scheme) as page:
        if name == "runs":
            page.until(lambda: page.locator(".confusion-table").count())
        drawn = shot(page)
    if os.environ.get("CONVSCOPE_SCREENS") == "renew":
        HERE.mkdir(exist_ok=True)
        drawn.quantize(256).save(stored, optimize=True)
    with Image.open(stored) as before:
        alike(drawn, before, stored.name)


def alike(drawn, stored, what):
    apart = np.abs(np.asarray(drawn, int) - np.asarray(stored.convert("RGB"), int)).max(2)
    assert apart.mean() < MEAN, what
    assert (apart > 60).mean() < SHARE, what


@pytest.mark.parametrize("part", [(0, 0, 880, 40), (0, 0, 250, 800)])
def test_the_picture_of_the_pages_has_the_tabs_and_layers_of_today(seeded, opened, part):
    """If not: python docs/picture_of_lab.py."""
    with Image.open(DOCS / "lab.png") as stored, opened(seeded, "/?layer=features.C3", width=1280, height=800) as page:
        page.wait_for_timeout(150)
        with Image.open(io.BytesIO(page.screenshot(animations="disabled"))) as drawn:
            assert stored.size == drawn.size
            small = ((part[2] - part[0]) // 4, (part[3] - part[1]) // 4)
            halves = [i.convert("RGB").crop(part).resize(small, Image.Resampling.BOX) for i in (drawn, stored)]
    alike(*halves, part)


def test_another_page_is_told_apart():
    one, other = (np.asarray(Image.open(HERE / f"{n}-light.png").convert("RGB"), int) for n in ("network", "pool"))
    assert np.abs(one - other).max(2).mean() > MEAN
