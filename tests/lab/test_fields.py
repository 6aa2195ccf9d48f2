"""The pixels of a unit on the page: holes, and the effective field, held to what the package itself says."""

import numpy as np
import pytest
import torch
from torch import nn

from convscope.inspect import effective_field, reach

pytestmark = pytest.mark.browser
SCREEN = """([x, y]) => {
  const canvas = document.querySelector('.picture canvas');
  const ratio = canvas.width / parseFloat(canvas.style.width);
  const pen = new OffscreenCanvas(1, 1).getContext('2d');
  pen.drawImage(canvas, -Math.round(x * ratio), -Math.round(y * ratio));
  return [...pen.getImageData(0, 0, 1, 1).data];
}"""


def unpacked(body):
    length = int.from_bytes(body[:4], "little")
    return np.frombuffer(body[4 + length :], "<f4")


class Dilated(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(1, 2, 3, dilation=3)

    def forward(self, x):
        return self.conv(x)


@pytest.fixture(scope="module")
def dilated(lab_of_model):
    with lab_of_model(Dilated(), (1, 12, 12)) as served:
        yield served


def test_reach_and_effective_field_are_those_of_the_package(lab):
    look, unit = lab.session.look("given", 3), (0, 5, 3, 4)
    op = look.recording.ops[3]
    status, _, body = lab.ask("/api/pictures/given/layers/3/units/0,5,3,4/reach?effective=1")
    assert status == 200, body
    mask, gradient = unpacked(body).reshape(2, 32, 32)
    np.testing.assert_array_equal(mask, reach(look.recording, op, unit=unit).mask(2, 3))
    shown = lab.session.picture("given")
    told = effective_field(lab.session.loaded.model, shown.x, layer=op.module, unit=(3, 4), samples=None)
    np.testing.assert_allclose(gradient, told.map_HW, rtol=1e-5, atol=1e-7)
    assert not gradient[mask == 0].any()


def test_holes_are_drawn_where_nothing_is_seen(dilated, opened):
    with opened(dilated, "/?unit=0,1,0,0") as page:
        says = page.locator(".says")
        page.until(lambda: "It depends on 9 px: 40 px between them do not count" in says.inner_text())
        side = page.evaluate("parseFloat(document.querySelector('.picture canvas').style.width)")
        zoom = int(side * 0.82 / 12)
        left, top = (side - 12 * zoom) / 2, side * 0.09
        for row, column in np.ndindex(7, 7):
            middle = [left + (column + 0.5) * zoom, top + (row + 0.5) * zoom]
            assert (page.evaluate(SCREEN, middle)[0] == 255) == (row % 3 == column % 3 == 0)


def test_the_effective_field_is_shown_kept_in_the_address_and_said(lab, opened):
    with opened(lab, "/?layer=features.C3&unit=0,5,3,4") as page:
        plain = page.evaluate(SCREEN, [140, 140])
        page.click('.which [data-value="effective"]')
        page.until(lambda: "95 % of the energy" in page.inner_text(".says"))
        page.settled()
        assert "field=effective" in page.url
        shown = page.evaluate(SCREEN, [140, 140])
        page.reload()
        page.settled()
        page.until(lambda: "95 % of the energy" in page.inner_text(".says"))
        assert page.evaluate(SCREEN, [140, 140]) == shown
        page.click('.which [data-value="box"]')
        page.until(lambda: "energy" not in page.inner_text(".says"))
        page.settled()
        assert page.evaluate(SCREEN, [140, 140]) == plain


def test_what_sees_no_picture_is_said(lab_of_model):
    class Alone(nn.Module):
        def forward(self, x):
            return x + torch.ones(3, 3).cumsum(0)

    with lab_of_model(Alone(), (1, 3, 3)) as served:
        rows = [r["op"] for r in served.json("/api/pictures/given/layers")["rows"]]
        assert rows
        status, _, body = served.ask("/api/pictures/given/layers/1/units/0,0/reach")
        assert status == 400
        assert b"choose another layer" in body
