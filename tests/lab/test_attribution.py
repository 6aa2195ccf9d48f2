"""Which pixels an answer rests on, on the page: by mouse and by keyboard, held to what the package itself says."""

import numpy as np
import pytest

from convscope.explain import attribute

pytestmark = pytest.mark.browser
AT = "/?layer=features.C3&unit=0,5,3,4&mix=100"
PIXELS = """async ([side, values, scale]) => {
  const { swatch } = await import('/static/colour.js');
  const canvas = document.querySelector('.picture canvas');
  const [wide, ratio] = [canvas.clientWidth, canvas.width / canvas.clientWidth];
  const zoom = Math.floor(wide * .82 / side);
  const [left, top] = [(wide - side * zoom) / 2, wide * .09];
  const pen = new OffscreenCanvas(canvas.width, canvas.height).getContext('2d', { willReadFrequently: true });
  pen.drawImage(canvas, 0, 0);
  const at = i => pen.getImageData(Math.round((left + (i % side + .5) * zoom) * ratio),
    Math.round((top + (Math.floor(i / side) + .5) * zoom) * ratio), 1, 1).data;
  return values.map((v, i) => [`rgb(${[...at(i)].slice(0, 3).join(' ')})`, swatch(v, scale).back]);
}"""


def told(lab, method, label, key="given"):
    return attribute(lab.session.loaded.model, lab.session.picture(key).x, method, target=label)


def drawn(page, found):
    scale = {"limit": float(np.abs(found.map).max()), "signed": found.signed}
    pairs = page.evaluate(PIXELS, [32, found.map.ravel().tolist(), scale])
    return np.mean([one == other for one, other in pairs])


def test_methods_and_classes_by_mouse_and_what_is_drawn(lab, opened):
    with opened(lab, AT) as page:
        top = lab.json("/api/pictures/given")["top"]
        page.click('[data-value="why"]')
        likeliest = int(top[0]["label"])
        page.until(lambda: page.inner_text(".says").startswith(f"Class {likeliest}, score"))
        page.settled()
        assert drawn(page, told(lab, "grad-cam", likeliest)) > 0.98
        assert page.get_attribute(".top5 button >> nth=0", "aria-pressed") == "true"
        page.select_option(".overlay select >> nth=0", "integrated-gradients")
        page.until(lambda: "adds up to the score" in page.inner_text(".says"))
        other = int(top[3]["label"])
        page.click(".top5 button >> nth=3")
        page.until(lambda: page.inner_text(".says").startswith(f"Class {other}, score"))
        page.settled()
        found = told(lab, "integrated-gradients", other)
        assert drawn(page, found) > 0.98
        assert page.inner_text(".overlay .scalebar .figure >> nth=1") == f"{np.abs(found.map).max():.4g}"
        assert page.inner_text(".says").split("score ")[1].split(";")[0] == f"{found.score:.4g}".replace("-", "\u2212")
        assert "field=why" in page.url
        assert f"method=integrated-gradients&class={other}" in page.url
        page.reload()
        page.settled()
        page.until(lambda: page.inner_text(".says").startswith(f"Class {other}, score"))
        assert drawn(page, found) > 0.98
        page.click('[data-value="box"]')
        page.until(lambda: page.inner_text(".says").startswith("14 \u00d7 14 px"))
        assert "class=" not in page.url


def test_the_same_by_keyboard_and_it_follows_the_picture(lab, opened):
    with opened(lab, AT) as page:
        page.focus('[data-value="why"]')
        page.keyboard.press("Space")
        page.until(lambda: "score" in page.inner_text(".says"))
        page.focus(".overlay select >> nth=0")
        page.keyboard.press("Home")
        page.until(lambda: "method=saliency" in page.url)
        page.settled()
        page.focus(".top5 button >> nth=4")
        page.keyboard.press("Enter")
        page.settled()
        label = int(page.evaluate("new URLSearchParams(location.search).get('class')"))
        assert drawn(page, told(lab, "saliency", label)) > 0.98
        page.focus('[data-set="mix"]')
        page.keyboard.press("Home")
        assert "mix=0" in page.url
        page.keyboard.press("End")
        page.select_option(".source select", "digits")
        page.until(lambda: "picture=digits:0" in page.url)
        page.settled()
        page.fill('input[type="number"]', "7")
        page.keyboard.press("Enter")
        page.until(lambda: "picture=digits:7" in page.url)
        page.settled()
        page.until(lambda: drawn(page, told(lab, "saliency", label, "digits:7")) > 0.98)


def test_back_and_forward_lead_through_layers_and_other_pages(lab, opened):
    with opened(lab, AT) as page:
        page.click('.rows button[title="features.C1"]')
        page.settled()
        page.click('.rows button[title="features.S2"]')
        page.settled()
        page.go_back()
        page.until(lambda: page.inner_text(".arithmetic h2").startswith("features.C1"))
        page.go_back()
        page.until(lambda: "features.C3 [0, 5, 3, 4]" in page.inner_text(".arithmetic h2"))
        assert page.get_attribute(".rows [aria-current=true]", "title") == "features.C3"
        page.go_forward()
        page.until(lambda: page.inner_text(".arithmetic h2").startswith("features.C1"))
        page.click("nav a >> nth=1")
        page.settled()
        page.click("[data-set=stride-2]")
        page.click("nav a >> nth=0")
        page.until(
            lambda: (
                page.locator(".arithmetic h2").count() and page.inner_text(".arithmetic h2").startswith("features.C1")
            )
        )
        page.go_back()
        page.until(
            lambda: "stride=2" in page.url and page.get_attribute("[data-set=stride-2]", "aria-pressed") == "true"
        )


def test_the_address_holds_the_channel_and_how_pixels_are_written(lab, opened):
    with opened(lab, "/?layer=features.C3&unit=0,5,3,4") as page:
        page.click("button.sum >> nth=3")
        page.settled()
        channel = page.inner_text(".matrices p")
        page.reload()
        page.settled()
        assert page.inner_text(".matrices p") == channel
        page.click('.rows button[title="features.C1"]')
        page.settled()
        page.check(".matrices input")
        assert page.url.endswith("pixels=raw")
        page.reload()
        page.settled()
        assert page.is_checked(".matrices input")
