"""What the pages look like, compared with stored pictures. `CONVSCOPE_SCREENS=renew pytest tests/lab/test_screens.py`
draws these anew.

Each is a quarter of the screen's size, so that how a letter is smoothed does not matter, and where things stand does.
"""

import io
import os
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
    "matrix": "/convolution?view=matrix&step=3",
}
MEAN, SHARE = 3.0, 0.04  # of 255: how far pixels may lie apart on average; the share that may be quite another colour


@pytest.fixture(scope="module")
def seeded(lab_of_model):
    """LeNet5 with the same weights every time."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = models.build("LeNet5")
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
        drawn = shot(page)
    if os.environ.get("CONVSCOPE_SCREENS") == "renew":
        HERE.mkdir(exist_ok=True)
        drawn.quantize(256).save(stored, optimize=True)
    with Image.open(stored) as before:
        apart = np.abs(np.asarray(drawn, int) - np.asarray(before.convert("RGB"), int)).max(2)
    assert apart.mean() < MEAN, stored.name
    assert (apart > 60).mean() < SHARE, stored.name


def test_another_page_is_told_apart():
    one, other = (np.asarray(Image.open(HERE / f"{n}-light.png").convert("RGB"), int) for n in ("network", "pool"))
    assert np.abs(one - other).max(2).mean() > MEAN
