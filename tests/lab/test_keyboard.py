"""All that can be done by mouse, by keyboard alone."""

import threading

import numpy as np
import pytest

from convscope.explain import explain
from convscope.lab import members

pytestmark = pytest.mark.browser


def press(page, selector, key="Enter"):
    page.focus(selector)
    page.keyboard.press(key)


def test_layers_are_searched_and_chosen(lab, opened):
    with opened(lab, "/") as page:
        page.focus(".search")
        page.keyboard.type("s2")
        assert page.locator(".rows button").count() == 1
        page.keyboard.press("Tab")
        page.keyboard.press("Enter")
        page.until(lambda: "features.S2" in page.inner_text(".arithmetic h2"))
        assert "layer=features.S2" in page.url


def test_the_maps_are_sorted_scaled_and_zoomed(lab, opened):
    with opened(lab, "/?layer=features.C3&zoom=4") as page:
        page.focus(".tools select")
        page.keyboard.press("ArrowDown")
        page.until(lambda: "by=max" in page.url)
        page.settled()
        press(page, "[data-value=map]", "Space")
        page.until(lambda: "scale=map" in page.url)
        press(page, "[aria-label=Larger]")
        assert page.inner_text(".zoom output") == "5\u00d7"


def test_a_unit_its_field_and_a_channel_are_chosen(lab, opened):
    with opened(lab, "/?layer=features.C3&unit=0,5,3,4") as page:
        page.focus(".sheet")
        page.keyboard.press("ArrowRight")
        page.until(lambda: "[0, 5, 3, 5]" in page.inner_text(".arithmetic h2"))
        page.settled()
        press(page, "[data-value=effective]", "Space")
        page.until(lambda: "95 % of the energy" in page.inner_text(".says"))
        page.settled()
        look = lab.session.look("given", 3)
        told = explain(look.recording, look.recording.ops[3], unit=(0, 5, 3, 5))
        weakest = int(np.argmin(np.abs(told.channel_sums)))
        press(page, f"button.sum:has-text('channel {weakest}')")
        page.until(lambda: f"input channel {weakest} of 6" in page.inner_text(".matrices"))
        cells = page.eval_on_selector_all(
            ".matrix:first-child td", "all => all.map(c => Number(c.title.replace('\u2212', '-')))"
        )
        assert cells == pytest.approx(told.x_CK[weakest].reshape(-1).tolist(), rel=1e-3)


def test_pixels_are_shown_raw(lab, opened):
    with opened(lab, "/?layer=features.C1&unit=0,1,10,12") as page:
        press(page, ".matrices .check input", "Space")
        assert "0..255" in page.inner_text(".matrix:first-child figcaption")


def test_the_kernel_slides_and_its_settings_change(lab, opened):
    with opened(lab, "/convolution") as page:
        press(page, "[aria-label='Step on']")
        assert page.inner_text(".player output") == "2 / 25"
        page.focus(".player input[type=range]")
        page.keyboard.press("End")
        assert page.inner_text(".player output") == "25 / 25"
        press(page, "[data-set=stride-2]")
        assert "stride=2" in page.url
        page.focus("[data-set=kernel-5]")
        press(page, "[data-value=transposed]")
        page.until(lambda: "view=transposed" in page.url)
        press(page, ".play")
        page.until(lambda: page.inner_text(".player output").split()[0] != "1")
        page.keyboard.press("Enter")


def test_the_family_follows_a_slider(lab, opened):
    with opened(lab, "/family") as page:
        page.focus("[data-set=dilation]")
        page.keyboard.press("ArrowRight")
        page.until(lambda: "dilation=3" in page.url)
        page.settled()


def test_times_are_measured_and_cancelled(lab, opened, monkeypatch):
    gone_on = threading.Event()  # until then nothing is measured
    monkeypatch.setattr(members, "times", lambda setting, own=members.times: gone_on.wait(60) and own(setting))
    with opened(lab, "/family?channels=4") as page:
        press(page, ".measure .go")
        page.until(lambda: page.locator(".progress button").is_visible())
        press(page, ".progress button", "Space")
        page.until(lambda: not page.locator(".progress").is_visible())
        assert "ms" not in page.inner_text(".family-table")
        gone_on.set()
        press(page, ".measure .go")
        page.until(lambda: "ms" in page.inner_text(".family-table"), seconds=60)


def test_saving_is_reached_and_gives_files(lab, opened):
    with opened(lab, "/?layer=features.C3") as page:
        for entry, ending in (("Picture and field as PNG", "-field.png"), ("This page as one HTML file", ".html"),
                              ("Maps as PNG", ".png")):  # fmt: skip
            press(page, ".menu summary")
            with page.expect_download() as waited:
                press(page, f".entries button:has-text('{entry}')")
            assert waited.value.suggested_filename.endswith(ending)
            assert waited.value.path().stat().st_size > 500
