"""Maps and arithmetic as SVG: the exact numbers, and how many there may be."""

from xml.etree import ElementTree

import numpy as np
import pytest
from torch import nn

pytestmark = pytest.mark.browser
SVG = "{http://www.w3.org/2000/svg}"


def saved(page, entry):
    page.click(".menu summary")
    with page.expect_download() as waited:
        page.click(f"text={entry}")
    return ElementTree.fromstring(waited.value.path().read_text())


def test_maps_are_saved_with_their_exact_values(lab, opened):
    look = lab.session.look("given", 3)
    values = look.recording.tensors[look.recording.ops[3].outputs[0].id][0].numpy()
    with opened(lab, "/?layer=features.C3&unit=0,5,3,4") as page:
        drawn = saved(page, "Maps as SVG")
    groups = [g for g in drawn if g.get("data-map")]
    assert [int(g.get("data-map")) for g in groups] == list(range(16))
    told = [[float(s.find(f"{SVG}title").text) for s in g.iter(f"{SVG}rect")] for g in groups]
    np.testing.assert_array_equal(np.array(told, np.float32), values.reshape(16, 100))


def test_arithmetic_is_saved_with_its_exact_numbers(lab, opened):
    facts = lab.json("/api/pictures/given/layers/3/units/0,5,3,4")["told"]
    first = facts["matrices"][0]
    with opened(lab, "/?layer=features.C3&unit=0,5,3,4") as page:
        drawn = saved(page, "Arithmetic as SVG")
    matrices = {g.get("data-matrix"): g for g in drawn if g.get("data-matrix")}
    assert matrices.keys() == {"patch", "kernel", "products"}
    for name, group in matrices.items():
        told = [float(title.text) for title in group.iter(f"{SVG}title")]
        assert told == np.ravel(first[name]).tolist()
    sums = [float(text.get("data-value")) for text in drawn if text.get("class") == "sum"]
    assert sums == [*facts["channel_sums"], facts["bias"], facts["total"]]


def test_too_many_values_are_not_offered_and_say_why(lab_of_model, opened):
    with lab_of_model(nn.Conv2d(1, 4, 1), (1, 80, 80)) as served, opened(served) as page:
        page.click(".menu summary")
        button = page.locator("text=Maps as SVG")
        assert button.is_disabled()
        assert "20000 values" in button.get_attribute("title")


OUTPUT = """async () => { const s = await import('/static/slide.js');
  const one = { size: 5, inputs: 1, outputs: 1, kernel: 3, stride: 2, padding: 1, dilation: 1, groups: 1, outpad: 0 };
  const { x, weights } = s.numbers({ ...one, transposed: false }, 1);
  const turned = { ...one, transposed: true };
  const other = s.numbers(turned, 1);
  return { slide: s.convolved(one, x, weights, 0, Infinity), x, kernel: weights[0][0],
    transposed: s.inserted(turned, other.x, other.weights, 0, Infinity) }; }"""


@pytest.mark.parametrize(("view", "step"), [("slide", 8), ("transposed", 80), ("matrix", 8)])
def test_the_sliding_kernel_is_saved_as_it_is_shown(lab, opened, view, step):
    with opened(lab, f"/convolution?view={view}&stride=2&step={step}") as page:
        told = page.evaluate(OUTPUT)
        before = page.eval_on_selector(".stage canvas", "c => c.toDataURL()")
        with page.expect_download() as waited:
            page.focus("text=Save SVG")
            page.keyboard.press("Enter")
        drawn = ElementTree.fromstring(waited.value.path().read_text())
        assert page.eval_on_selector(".stage canvas", "c => c.toDataURL()") == before
    texts = [t.text.replace("\u2212", "-") for t in drawn.iter(f"{SVG}text")]
    shown = "transposed" if view == "transposed" else "slide"
    output = [str(v) for v in np.ravel(told[shown])]
    assert texts[-len(output) :] == output
    assert [str(v) for v in np.ravel(told["kernel"])] == texts[1:10] or view != "matrix"
    assert float(drawn.get("width")) > 100
