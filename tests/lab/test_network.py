"""The network page, as a person uses it, held to what the package itself says."""

import io
import json

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from convscope.explain import explain
from convscope.explain.pictures import Scale
from convscope.inspect import receptive_field

pytestmark = pytest.mark.browser
C3 = 3  # the operator's number in LeNet5
PIXEL = """([x, y]) => {
  const pen = new OffscreenCanvas(1, 1).getContext('2d');
  pen.drawImage(document.querySelector('.sheet canvas'), -x, -y);
  return [...pen.getImageData(0, 0, 1, 1).data];
}"""


def look_of(lab, index=C3):
    look = lab.session.look("given", index)
    return look, look.recording.ops[index]


def plain(text):
    return text.replace("\u2212", "-").replace("\u00d7", "x").replace(",", "")


def corner(page, slot=0):
    """Where a map begins on the page, and how large one of its values is."""
    return page.evaluate(
        """slot => { const sheet = document.querySelector('.sheet').getBoundingClientRect();
        return [sheet.left, sheet.top]; }""",
        slot,
    )


def click_unit(page, *, slot, row, column, across, zoom, side):
    """Click one value of a map: the grid's gap is 10, a label 16 px high."""
    left, top = corner(page)
    cell = max(36, side * zoom)
    x = left + 10 + (slot % across) * (cell + 10) + (column + 0.5) * zoom
    y = top + 26 + (slot // across) * (side * zoom + 26) + (row + 0.5) * zoom
    page.mouse.click(x, y)
    page.settled()


@pytest.fixture
def page(lab, opened):
    with opened(lab, "/?layer=features.C3&unit=0,5,3,4&zoom=8") as page:
        yield page


def test_the_token_leaves_the_address(page):
    assert "token" not in page.url
    page.reload()
    page.settled()


def test_the_layers_are_those_of_the_summary(lab, page):
    look, _ = look_of(lab)
    shown = page.eval_on_selector_all(".rows button", "all => all.map(b => b.innerText)")
    rows = [o for o in look.summary.operators if o.receptive_field or o.params or o.macs]
    assert len(shown) == len(rows)
    for text, row in zip(shown, rows, strict=True):
        assert row.module.rpartition(".")[2] in text
        assert "x".join(map(str, row.output_shape[1:])) in plain(text)
        assert (f"{row.params} params" in plain(text)) == bool(row.params)
    assert "61706 params" in plain(page.inner_text(".layers .total"))


@pytest.mark.parametrize(("words", "found"), [("c3", 1), ("pool", 2), ("16x5", 1), ("16\u00d75", 1), ("relu 84", 1)])
def test_layers_are_found_by_name_type_and_shape(page, words, found):
    page.fill(".search", words)
    assert page.locator(".rows button").count() == found
    page.fill(".search", "nothing at all")
    assert "No such layer" in page.text_content(".rows")


def test_the_maps_have_the_colours_of_their_values(lab, page):
    look, op = look_of(lab)
    values = look.recording.tensors[op.outputs[0].id][0].numpy()
    scale = Scale.of(values)
    across = page.evaluate("Math.floor((document.querySelector('.maps').clientWidth - 26) / 90)")
    rng = np.random.default_rng(0)
    for _ in range(40):
        slot, row, column = rng.integers(16), rng.integers(10), rng.integers(10)
        x, y = 10 + (slot % across) * 90 + column * 8 + 4, 26 + (slot // across) * 106 + row * 8 + 4
        pixel = page.evaluate(
            PIXEL,
            [int(x), int(y)],
        )
        wanted = scale.paint(values[slot, row, column][None])[0]
        assert np.abs(np.array(pixel[:3], int) - wanted.astype(int)).max() <= 1


def test_a_click_shows_field_and_arithmetic(lab, page):
    across = page.evaluate("Math.floor((document.querySelector('.maps').clientWidth - 26) / 90)")
    click_unit(page, slot=11, row=7, column=2, across=across, zoom=8, side=10)
    unit = (0, 11, 7, 2)
    assert f"unit={','.join(map(str, unit))}" in page.url
    look, op = look_of(lab)
    told, box = explain(look.recording, op, unit=unit), receptive_field(look.recording, op, unit=unit)
    assert box is not None
    (y0, y1), (x0, x1) = box[2:]
    assert page.inner_text(".says") == f"{x1 - x0 + 1} \u00d7 {y1 - y0 + 1} px, x {x0}..{x1}, y {y0}..{y1}"
    text = page.inner_text(".arithmetic")
    assert "[0, 11, 7, 2]" in text
    strongest = int(np.argmax(np.abs(told.channel_sums)))
    cells = page.eval_on_selector_all(".cells td", "all => all.map(c => c.title)")
    wanted = np.concatenate([m[strongest].reshape(-1) for m in (told.x_CK, told.w_CK, told.products)])
    assert np.array([float(plain(c)) for c in cells]) == pytest.approx(wanted, rel=1e-3, abs=1e-12)
    sums = page.eval_on_selector_all(".sum .figure", "all => all.map(c => c.textContent)")
    assert float(plain(sums[-1])) == pytest.approx(told.total, rel=1e-3)
    assert sum(float(plain(s)) for s in sums[:-1]) == pytest.approx(told.total, abs=2e-3)
    assert "the model says" in text


def test_padding_is_dashed_and_counted(lab_of_model, opened):
    model = nn.Sequential(nn.Conv2d(1, 2, 7, padding=3))
    with lab_of_model(model, (1, 32, 32)) as lab, opened(lab, "/?layer=0&unit=0,1,0,10") as page:
        assert page.inner_text(".says") == "7 \u00d7 7 px, x 7..13, y \u22123..3; 21 of 49 px in padding"
        assert page.locator(".matrix:first-child td.pad").count() == 21
        assert page.eval_on_selector(".cells td.pad", "c => getComputedStyle(c).borderStyle") == "dashed"
        wide = page.eval_on_selector_all(".cells td", "all => all.map(c => c.offsetWidth)")
        assert max(wide) <= min(wide) + 4


def test_pixels_are_shown_raw_or_normalised(lab, opened):
    with opened(lab, "/?layer=features.C1&unit=0,1,10,12") as page:
        page.check(".check input")
        look, op = look_of(lab, 0)
        told = explain(look.recording, op, unit=(0, 1, 10, 12))
        cells = page.eval_on_selector_all(".matrix:first-child td", "all => all.map(c => Number(c.textContent))")
        assert cells == np.rint(255 * (told.x_CK[0] * 0.32 + 0.3)).reshape(-1).tolist()


def test_every_layer_of_lenet_is_taken_apart(lab, opened):
    rows = lab.json("/api/pictures/given/layers")["rows"]
    assert len(rows) > 10
    for row in rows:
        look, op = look_of(lab, row["index"])
        unit = tuple(n // 2 for n in op.outputs[0].shape)
        with opened(lab, f"/?layer={row['index']}&unit={','.join(map(str, unit))}") as page:
            says = plain(page.inner_text(".equals")).split("says ")[1].split()[0]
            assert float(says) == pytest.approx(float(look.recording.tensors[op.outputs[0].id][unit]), rel=1e-3)


def test_the_keyboard_moves_the_unit_and_the_map(page):
    def unit_after(key):
        before = page.url
        page.keyboard.press(key)
        page.until(lambda: page.url != before)
        return page.url.split("unit=")[1].split("&")[0]

    page.focus(".sheet")
    assert unit_after("ArrowRight") == "0,5,3,5"
    assert unit_after("ArrowDown") == "0,5,4,5"
    assert unit_after("Shift+ArrowLeft") == "0,5,4,0"
    assert unit_after("Shift+ArrowDown") == "0,5,9,0"
    assert unit_after("PageDown") == "0,6,9,0"
    assert unit_after("PageUp") == "0,5,9,0"
    page.until(lambda: "14 \u00d7 14 px" in page.inner_text("#speech"))


def test_hovering_needs_no_server(lab, page):
    page.until(lambda: page.evaluate("performance.getEntriesByType('resource').some(e => e.name.endsWith('/reach'))"))
    asked = []
    page.on("request", lambda r: asked.append(r.url))
    left, top = corner(page)
    look, op = look_of(lab)
    values = look.recording.tensors[op.outputs[0].id][0].numpy()
    page.mouse.move(left + 10 + 6 * 8 + 4, top + 26 + 2 * 8 + 4)
    assert "[0, 0, 2, 6]" in page.inner_text(".readout")
    assert float(plain(page.inner_text(".readout strong"))) == pytest.approx(float(values[0, 2, 6]), rel=1e-3)
    assert asked == []


def test_the_linked_place_is_the_receptive_field(lab, opened):
    with opened(lab) as page:
        rows = lab.json("/api/pictures/given/layers")["rows"]
        look, _ = look_of(lab, 0)
        for row in rows:
            op = look.recording.ops[row["index"]]
            if len(op.outputs[0].shape) != 4:
                continue
            for r, c in ((0, 0), (1, 3), tuple(n - 1 for n in op.outputs[0].shape[2:])):
                box = receptive_field(look.recording, op, unit=(0, 0, r, c))
                seen = page.evaluate(
                    "async ([row, r, c]) => (await import('/static/picture.js')).looksAt(row, r, c, [32, 32])",
                    [row, r, c],
                )
                assert box is not None
                assert [list(axis) for axis in box[2:]] == seen


def test_the_address_brings_back_what_was_shown(lab, opened):
    with opened(lab, "/?layer=features.S2&unit=0,2,1,1&picture=digits:7&by=max&scale=map&zoom=3") as page:
        assert "[0, 2, 1, 1]" in page.inner_text(".arithmetic h2")
        assert page.input_value(".tools select") == "max"
        assert page.inner_text(".zoom output") == "3\u00d7"
        assert page.inner_text(".segments [aria-pressed=true] >> nth=0") == "Each map"
        assert page.input_value(".line input") == "7"
        assert "largest of 4" in page.inner_text(".arithmetic").replace("The ", "")
        assert page.locator("td.winner").count() == 1


class Odd(nn.Module):
    """Map 0 is dead, map 1 holds a NaN and an infinity, map 2 is alive."""

    def forward(self, x):
        y = x.repeat(1, 3, 1, 1)
        y[:, 0] = 0
        y[0, 1, 0, 0], y[0, 1, 1, 1] = float("nan"), float("inf")
        return torch.relu(y)


def test_dead_maps_and_nan_are_shown_and_counted(lab_of_model, opened):
    with lab_of_model(Odd(), (1, 8, 8)) as lab:
        answer = lab.ask("/api/pictures/given/layers")
        index = json.loads(answer[2])["rows"][-1]["index"]
        _, _, body = lab.ask(f"/api/pictures/given/layers/{index}/maps?by=variance")
        head = json.loads(body[4 : 4 + int.from_bytes(body[:4], "little")])
        facts = dict(zip(head["index"], zip(head["dead"], head["bad"], strict=True), strict=True))
        assert facts == {0: (True, 0), 1: (False, 2), 2: (False, 0)}
        assert head["not_finite"] == 2
        unit = lab.json(f"/api/pictures/given/layers/{index}/units/0,1,0,0")
        assert unit["value"] is None
        with opened(lab, f"/?layer={index}&zoom=8&unit=0,1,0,0") as page:
            assert "2 values are NaN or infinite" in page.inner_text(".readout")
            pixel = page.evaluate(PIXEL, [10 + 74 + 4, 30])
            assert pixel[:3] == [255, 0, 255]


# The reader's own pictures


def test_a_picture_is_taken_in_and_its_name_is_text(page, tmp_path):
    file = tmp_path / "<img src=x onerror=alert(1)>.png"
    Image.fromarray(np.arange(1024, dtype=np.uint8).reshape(32, 32)).save(file)
    page.click("text=Your own")
    page.set_input_files("#file", file)
    page.until(lambda: file.name in page.get_attribute(".picture canvas", "aria-label"))
    page.click("text=By name")
    assert page.inner_text(".line select option >> nth=0") == file.name
    assert page.locator("img").count() == 0


def test_a_file_that_is_no_picture_is_refused_and_the_view_stays(page, tmp_path):
    file = tmp_path / "cat.png"
    file.write_text("version https://git-lfs.github.com/spec/v1")
    page.click("text=Your own")
    page.set_input_files("#file", file)
    page.until(lambda: "cat.png: looks like a Git LFS pointer" in page.inner_text("#problem"))
    assert page.locator(".cells").count() == 3
    assert page.trouble.pop().startswith("console: Failed to load resource: the server responded with a status of 400")


def test_a_drawn_digit_is_classified_at_once(page):
    before = page.inner_text(".top5")
    page.click("text=Draw")
    box = page.locator(".sketch").bounding_box()
    page.mouse.move(box["x"] + 84, box["y"] + 20)
    page.mouse.down()
    page.mouse.move(box["x"] + 84, box["y"] + 150, steps=5)
    page.until(lambda: page.inner_text(".top5") != before)
    assert page.locator(".bar").count() == 5


# What is taken away


def test_maps_and_numbers_can_be_saved(lab, page):
    def saved(entry):
        page.click(".menu summary")
        with page.expect_download() as waited:
            page.click(f"text={entry}")
        return waited.value

    png = saved("Maps as PNG")
    assert png.suggested_filename == "features.C3.png"
    assert Image.open(io.BytesIO(png.path().read_bytes())).width > 300
    numbers = json.loads(saved("Numbers as JSON").path().read_text())
    assert numbers["unit"]["unit"] == [0, 5, 3, 4]
    look, op = look_of(lab)
    with np.load(saved("All values as NPZ").path()) as stored:
        assert np.array_equal(stored["values"], look.recording.tensors[op.outputs[0].id].numpy())


@pytest.mark.parametrize(("width", "height"), [(1024, 768), (1440, 900)])
def test_the_arithmetic_stays_on_the_screen(lab_of_model, opened, width, height):
    model = nn.Sequential(nn.Conv2d(1, 64, 5, padding=2))
    with lab_of_model(model, (1, 56, 56)) as lab, opened(lab, "/?layer=0", width=width, height=height) as page:
        assert page.evaluate("document.documentElement.scrollHeight") <= height
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        box = page.locator(".cells").last.bounding_box()
        assert box["y"] + box["height"] <= height
        assert box["x"] + box["width"] <= width
        total = page.locator(".sum.total").bounding_box()
        assert total["x"] + total["width"] <= width


class Volume(nn.Module):
    def __init__(self):
        super().__init__()
        self.cube, self.line = nn.Conv3d(1, 4, 3, padding=1), nn.Conv1d(4, 4, 3)

    def forward(self, x):
        return {"line": self.line(self.cube(x[:, None]).mean((3, 4))), "sum": x.sum()}


def test_a_network_without_an_operator_says_so(lab_of_model, opened):
    with lab_of_model(nn.Identity(), (3, 8, 8)) as served, opened(served) as page:
        assert "no operator" in page.inner_text(".readout")
        page.select_option(".top select >> nth=0", "zh")
        assert "没有可查看的算子" in page.inner_text(".readout")


def test_other_axes_than_rows_and_columns_and_outputs_by_name(lab_of_model, opened):
    with lab_of_model(Volume(), (3, 12, 12)) as served, opened(served) as page:
        assert not served.json("/api/session")["can"]["why"]
        for name in ("cube", "line"):
            page.click(f'.rows button[title="{name}"]')
            page.settled()
            page.wait_for_timeout(300)  # the pixels of the unit are asked for once the keys rest
            assert page.is_hidden("#problem")
            assert page.locator(".equals .model").count() == 1
        page.trouble.clear()  # the browser says that the pixels of a line are refused


class Twice(nn.Module):
    """Several operators in one module, and modules whose names are numbers of other operators."""

    def __init__(self):
        super().__init__()
        self.parts = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU(), nn.Conv2d(2, 2, 3))

    def forward(self, x):
        return torch.relu(self.parts[3](self.parts[2](torch.tanh(self.parts[0](x))) * 2).sigmoid())


@pytest.mark.parametrize("model", [Twice(), nn.Sequential(Twice(), nn.ReLU(), nn.Conv2d(2, 1, 1), nn.Tanh())])
def test_every_address_leads_back_to_its_operator(lab_of_model, opened, model):
    with lab_of_model(model, (1, 12, 12)) as served, opened(served) as page:
        for i in range(page.locator(".rows button[title]").count()):
            page.click(f".rows button[title] >> nth={i}")
            page.settled()
            said = page.inner_text(".arithmetic h2")
            page.reload()
            page.settled()
            assert page.inner_text(".arithmetic h2") == said
            assert page.locator(".rows button[title]").nth(i).get_attribute("aria-current") == "true"
