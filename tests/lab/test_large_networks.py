"""The network page with networks that have many layers, channels or values."""

import numpy as np
import pytest
from torch import nn

pytestmark = pytest.mark.browser
HOVER = """async () => {
  const sheet = document.querySelector('.sheet');
  const box = sheet.getBoundingClientRect();
  const taken = [];
  for (let i = 0; i < 60; i++) {
    const at = { clientX: box.left + 20 + i % 50, clientY: box.top + 40 + (7 * i) % 40, bubbles: true };
    const start = performance.now();
    sheet.dispatchEvent(new PointerEvent('pointermove', at));
    taken.push(performance.now() - start);
    await new Promise(requestAnimationFrame);
  }
  return taken.sort((a, b) => a - b)[30];
}"""


def test_hovering_over_64_maps_fits_in_a_frame(lab_of_model, opened):
    with lab_of_model(nn.Conv2d(1, 64, 1), (1, 56, 56)) as lab, opened(lab, "/?zoom=1") as page:
        page.wait_for_timeout(300)
        asked = []
        page.on("request", lambda r: asked.append(r.url))
        assert page.evaluate(HOVER) < 16
        assert "[0, " in page.inner_text(".readout")
        assert asked == []


def test_many_layers_stay_usable(lab_of_model, opened):
    model = nn.Sequential(*(nn.ReLU() for _ in range(2000)))
    with lab_of_model(model, (1, 8, 8)) as lab, opened(lab, "/?layer=1999") as page:
        assert page.locator(".rows button[aria-current=true]").inner_text().startswith("1999")
        page.fill(".search", "relu")
        assert page.locator(".rows button").count() == 301
        page.click(".more")
        assert page.locator(".rows button").count() == 601


def test_many_channels_come_in_pages(lab_of_model, opened):
    model = nn.Sequential(nn.Conv2d(1, 4096, 1))
    with lab_of_model(model, (1, 4, 4)) as lab, opened(lab, "/?layer=0&page=63") as page:
        assert page.inner_text(".pager").replace("\n", " ").split() == ["\u2039", "64", "/", "64", "\u203a"]
        assert "4,096 maps" in page.inner_text(".readout")
        page.click("text=\u2039")
        page.settled()
        assert "page=62" in page.url


def test_a_large_map_is_thinned_and_its_values_stay_true(lab_of_model, opened):
    pixels = np.random.default_rng(0).random((1024, 16, 1)).astype(np.float32)
    with lab_of_model(nn.Sequential(nn.ReLU()), (1, 1024, 16), pixels=pixels) as lab, opened(lab, "/?layer=0") as page:
        assert "every 4th row" in page.inner_text(".readout")
        page.keyboard.press("Tab")
        unit = [int(i) for i in page.url.split("unit=")[1].split("&")[0].split(",")]
        assert unit[2] % 4 == unit[3] % 4 == 0
        value = page.inner_text(".equals .result")
        assert float(value) == pytest.approx(float(pixels[unit[2], unit[3], 0]), rel=1e-3)


def test_a_model_beyond_the_memory_is_recorded_layer_by_layer(lab_of_model):
    model = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1))
    with lab_of_model(model, (1, 32, 32), memory=100_000) as lab:
        for index in (0, 1, 2, 0):
            unit = lab.json(f"/api/pictures/given/layers/{index}/units/0,3,5,5")
            assert abs(unit["told"]["difference"]) < 1e-6
        assert sum(lab.session._sizes.values()) <= 100_000
