"""A recording in a notebook: the kernel's answers, the frame in a browser, and what is shown without a kernel."""

import base64
import json
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import convscope
from convscope.errors import InputError
from convscope.lab import widget as home
from convscope.lab.app import answerer
from convscope.lab.bundle import static
from convscope.lab.recorded import Recorded


@pytest.fixture(scope="module")
def recorded():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 6, 3))
    x = torch.rand(1, 1, 10, 10)
    return convscope.record(net, x, keep=lambda op: True), x[0]


def test_the_kernel_answers_as_the_server_does(recorded):
    recording, pixels = recorded
    made = convscope.widget(recording, pixels)
    sent = []
    made.send = lambda content, buffers=None: sent.append((content, buffers))
    made._asked(made, {"id": 7, "path": "pictures/given/layers/2/units/0,3,2,1"}, [])
    (head, (body,)) = sent[0]
    assert head == {"id": 7, "status": 200}
    told = json.loads(body)
    assert told["value"] == pytest.approx(float(recording.tensors[recording.ops[2].outputs[0].id][0, 3, 2, 1]))
    assert abs(told["told"]["difference"]) < 1e-6
    for path, status in (("pictures/own-1", 404), ("pictures/given/layers/9/maps", 404), ("no/such", 404), ("", 404),
                         ("pictures/given/layers/2/units/0,9,9,9", 400), ("runs", 200)):  # fmt: skip
        made._asked(made, {"id": 1, "path": path}, [])
        assert sent[-1][0]["status"] == status, path


def test_without_a_kernel_the_notebook_has_a_page(recorded):
    data, _ = convscope.widget(*recorded)._repr_mimebundle_()
    assert "application/vnd.jupyter.widget-view+json" in data
    assert data["text/html"].startswith('<iframe title="convscope" sandbox="allow-scripts allow-downloads" srcdoc="')


def test_of_a_large_network_it_has_the_table(recorded, monkeypatch):
    monkeypatch.setattr(home, "MOST_STATIC", 100)
    data, _ = convscope.widget(*recorded)._repr_mimebundle_()
    assert data["text/html"].startswith("<table")


def test_pictures_of_every_kind_are_taken(recorded):
    recording, pixels = recorded
    grey = np.rint(255 * pixels[0].numpy()).astype(np.uint8)
    for image in (pixels, pixels[None], pixels[0], grey, grey[..., None], Image.fromarray(grey)):
        shown = Recorded(recording, image).picture("given").pixels
        assert np.abs(shown - pixels.numpy()).max() < 0.003


@pytest.mark.parametrize(("image", "told"), [
    (torch.rand(1, 8, 8), "the picture is 8x8, but the network read 10x10"),
    (torch.randn(1, 10, 10) - 3, "give pixels in 0..1 or 0..255"),
    (torch.rand(7, 10, 10), "7x10x10 is no picture"),
    ("no/such.png", "does not exist"),
])  # fmt: skip
def test_other_pictures_are_refused_in_a_sentence(recorded, image, told):
    with pytest.raises(InputError, match=told):
        convscope.widget(recorded[0], image)


def test_a_recording_without_values_or_of_no_picture_is_refused(recorded):
    with pytest.raises(InputError, match="kept no values; make it by record"):
        convscope.widget(convscope.record(nn.ReLU(), torch.zeros(1, 1, 4, 4)), torch.zeros(4, 4))
    with pytest.raises(InputError, match="the recording read 2x3, but one picture"):
        convscope.widget(convscope.record(nn.ReLU(), torch.zeros(2, 3), keep=lambda op: True), torch.zeros(4, 4))


def test_without_anywidget_it_says_what_to_install(recorded, monkeypatch):
    home._kind.cache_clear()
    monkeypatch.setitem(sys.modules, "anywidget", None)
    with pytest.raises(
        InputError, match=r"needs anywidget, which is not installed; pip install 'convscope\[notebook\]'"
    ):
        convscope.widget(*recorded)
    monkeypatch.undo()
    home._kind.cache_clear()


FAKE = """async (page) => {
  const { default: widget } = await import(URL.createObjectURL(new Blob([window.esm], { type: 'text/javascript' })));
  const heard = {};
  window.model = {
    get: (key) => ({ page, height: 700 })[key],
    on: (event, act) => { heard[event] = act; },
    off: () => {},
    send: async ({ id, path }) => {
      const { status, body } = await window.kernel(path);
      const bytes = Uint8Array.from(atob(body), (c) => c.charCodeAt(0));
      heard['msg:custom']({ id, status }, [new DataView(bytes.buffer)]);
    },
  };
  window.end = widget.render({ model: window.model, el: document.body });
}"""


@pytest.mark.browser
def test_the_module_shows_what_the_kernel_says(chromium, recorded):
    recording, pixels = recorded
    answer, asked = answerer(Recorded(recording, pixels)), []

    def kernel(path):
        asked.append(path)
        told = answer(path)
        return {"status": told.status_code, "body": base64.b64encode(told.body).decode()}

    page, trouble = chromium.new_page(viewport={"width": 1300, "height": 800}, locale="en-GB"), []
    page.on("console", lambda m: trouble.append(m.text))
    page.on("pageerror", lambda e: trouble.append(str(e)))
    page.expose_function("kernel", kernel)
    page.evaluate("text => { window.esm = text; }", static("widget.js"))
    page.evaluate(FAKE, convscope.widget(recording, pixels).page)
    frame = page.frame_locator("iframe")
    frame.locator(".equals .result").wait_for(timeout=120_000)
    assert "session" in asked
    frame.locator(".sheet").focus()
    before = frame.locator(".arithmetic h2").inner_text()
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowUp")
    for _ in range(100):
        page.wait_for_timeout(50)
        if frame.locator(".arithmetic h2").inner_text() != before:
            break
    unit = [int(i) for i in asked[-1].partition("/units/")[2].partition("/")[0].split(",")]
    page.wait_for_timeout(300)
    says = frame.locator(".equals .result").inner_text().replace("\u2212", "-")
    value = float(recording.tensors[recording.ops[2].outputs[0].id][tuple(unit)])
    assert float(says) == pytest.approx(value, rel=1e-3)
    assert trouble == []
    page.evaluate("window.end()")
    page.close()
