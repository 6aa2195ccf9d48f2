"""The family page, held to the family itself and to torch."""

import json

import numpy as np
import pytest
import torch
from torch import nn

from convscope.family import Setting, family

pytestmark = pytest.mark.browser
ASKED = "channels=8&kernel=3&groups=2&dilation=3"


def plain(text):
    return text.replace("\u00d7", "x").replace(",", "")


def test_the_numbers_are_those_of_the_family(lab):
    told = lab.json(f"/api/family/given?{ASKED}")
    setting = Setting(8, 8, (32, 32), batch=1, kernel_size=3, groups=2, dilation=3)
    assert told == json.loads(json.dumps(family(setting).data()))


def test_the_maps_are_what_torch_makes_of_the_picture(lab):
    status, _, body = lab.ask(f"/api/family/given/maps?{ASKED}")
    assert status == 200, body
    length = int.from_bytes(body[:4], "little")
    head, values = json.loads(body[4 : 4 + length]), np.frombuffer(body[4 + length :], "<f4")
    sizes = [m["height"] * m["width"] for m in head["maps"]]
    assert sum(sizes) == len(values)
    maps = dict(zip([m["name"] for m in head["maps"]], np.split(values, np.cumsum(sizes)[:-1]), strict=True))
    x = lab.session.picture("given").x
    np.testing.assert_array_equal(maps[""], x[0, 0].numpy().ravel())
    repeated = x.repeat(1, 8, 1, 1)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        dense = nn.Conv2d(8, 8, 3, padding=1, bias=False)
        torch.manual_seed(0)
        dilated = nn.Conv2d(8, 8, 3, padding=3, dilation=3, bias=False)
    for name, layer in (("dense", dense), ("dilated", dilated), ("max pooling", nn.MaxPool2d(3, 1, 1))):
        made = layer(repeated)[0, 0].detach().numpy().ravel()
        np.testing.assert_allclose(maps[name], made, rtol=1e-5, atol=1e-6)


def test_a_large_picture_is_thinned_out(lab_of_model):
    with lab_of_model(nn.Conv2d(3, 4, 3), (3, 150, 100)) as served:
        told = served.json(f"/api/family/given?{ASKED}")
        assert told["setting"]["size"] == [50, 34]


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ("channels=0&kernel=3&groups=1&dilation=1", "channels 0: use 1 to 64"),
        ("channels=65&kernel=3&groups=1&dilation=1", "channels 65: use 1 to 64"),
        ("channels=8&kernel=3&groups=3&dilation=1", "family: groups is 3; 8 channels divide into 1, 2, 4, 8"),
        ("channels=8&kernel=x&groups=3&dilation=1", "kernel: 'x' is no whole number"),
    ],
)
def test_what_cannot_be_is_refused(lab, asked, told):
    for kind in ("", "/maps", "/times"):
        status, _, body = lab.ask(f"/api/family/given{kind}?{asked}")
        assert status == 400
        assert told in json.loads(body)["error"]


def test_the_page_shows_all_members_follows_the_sliders_and_says_why_not(lab, opened):
    with opened(lab, "/family") as page:
        names = [m.name for m in family(Setting(4, 4, (8, 8))).members]
        assert page.eval_on_selector_all(".member", "all => all.map(m => m.dataset.member)") == ["", *names]
        page.fill('[data-set="channels"]', "8")
        page.until(lambda: "576" in page.inner_text('[data-row="dense"]'))
        page.settled()
        row = plain(page.inner_text('[data-row="depthwise separable"]'))
        assert "8x32x32" in row
        assert "136" in row  # 8 x 9 + 8 x 8
        page.fill('[data-set="groups"]', "3")
        page.until(lambda: "8 channels divide into 1, 2, 4, 8" in page.inner_text(".why"))
        page.settled()
        assert "576" in page.inner_text('[data-row="dense"]')
        page.select_option(".top select >> nth=0", "zh")
        page.fill('[data-set="groups"]', "5")
        page.until(lambda: "8 个通道只能分成 1, 2, 4, 8 组" in page.inner_text(".why"))
        page.fill('[data-set="groups"]', "2")
        page.until(lambda: page.inner_text(".why") == "")
        page.settled()
        assert "channels=8" in page.url
        assert "groups=2" in page.url


def test_the_picture_of_the_network_page_comes_along_and_each_map_has_its_scale_on_request(lab, opened):
    with opened(lab, "/?picture=digits:7") as page:
        page.click("nav a >> nth=2")
        page.settled()
        assert page.url.endswith("/family?picture=digits:7")
        assert page.input_value(".left select") == "digits:7"
        low, high = (page.inner_text(f".scalebar .figure >> nth={i}") for i in (0, 1))
        assert low == f"\u2212{high}"
        page.focus("[data-value=map]")
        page.keyboard.press("Enter")
        assert page.inner_text(".scalebar .figure >> nth=1") == "largest"
        assert "scale=map" in page.url
        assert page.evaluate("document.activeElement.dataset.value") == "map"


def test_times_are_measured_on_request_and_can_be_cancelled(lab, opened):
    with opened(lab, "/family?channels=4") as page:
        assert "faster" not in page.inner_text(".costs")
        page.click(".measure .go")
        page.until(lambda: page.is_visible(".progress"))
        page.click(".progress button")
        page.until(lambda: not page.is_visible(".progress"))
        page.click(".measure .go")
        page.until(lambda: "median of 12 rounds" in page.inner_text(".measure"), seconds=100)
        assert "ms" in page.inner_text('[data-row="transposed"]')
        assert page.inner_text('[data-row="dense"] td:last-child') == "1\u00d7"
