"""The convolution page: its JavaScript held to PyTorch, frame by frame."""

import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from convscope.geometry import Window, out_size, transposed_out_size
from convscope.layers import im2col

pytestmark = pytest.mark.browser

SETTINGS = [
    dict(zip(("size", "kernel", "stride", "padding", "dilation", "groups", "outpad"), row, strict=True))
    | {"inputs": 4, "outputs": 4}
    for row in itertools.product((4,), (1, 2, 3), (1, 2, 3), (0, 1, 2), (1, 2), (1, 2, 4), (0, 1))
]
FRAMES = """async all => {
  const s = await import('/static/slide.js');
  return all.map(one => {
    const refused = s.refusal(one);
    if (refused) return { refused };
    const { x, weights } = s.numbers(one, 7);
    const size = s.outSize(one), frames = size * size, last = Math.floor(frames * one.part);
    const made = { x, weights, size, output: one.output };
    if (!one.transposed) {
      made.slide = s.convolved(one, x, weights, one.output, last);
      made.columns = s.columns(one, x, weights, one.output);
    } else {
      const shown = Math.floor(one.size ** 2 * one.part);
      made.scatter = s.cropped(one, s.scattered(one, x, weights, one.output, shown));
      made.insert = s.inserted(one, x, weights, one.output, last);
      made.last = shown;
    }
    made.upto = last;
    return made;
  });
}"""


@pytest.fixture(scope="module")
def page(lab, opened):
    with opened(lab, "/convolution") as page:
        yield page


def conv_args(s):
    return {k: s[k] for k in ("stride", "padding", "dilation", "groups")}


def possible(s):
    w = Window(s["kernel"], s["stride"], s["padding"], s["dilation"])
    try:
        if s["transposed"]:
            return transposed_out_size(s["size"], w, output_padding=s["outpad"])
        return out_size(s["size"], w)
    except ValueError:
        return None


def test_every_frame_of_the_convolution_is_pytorchs(page):
    wanted = [s | {"transposed": False, "part": p, "output": 1} for s in SETTINGS if not s["outpad"] for p in (0.4, 1)]
    for s, made in zip(wanted, page.evaluate(FRAMES, wanted), strict=True):
        assert ("refused" in made) == (possible(s) is None), s
        if "refused" in made:
            continue
        x, w = torch.tensor(made["x"], dtype=torch.float64), torch.tensor(made["weights"], dtype=torch.float64)
        true = F.conv2d(x[None], w, **conv_args(s))[0, 1].flatten().tolist()
        shown = [v for row in made["slide"] for v in row]
        assert len(shown) == made["size"] ** 2 == len(true)
        assert shown[: made["upto"] + 1] == true[: made["upto"] + 1]
        assert all(v is None for v in shown[made["upto"] + 1 :])
        group = slice(4 // s["groups"] * (1 * s["groups"] // 4), None)
        read = x.numpy()[group][: 4 // s["groups"]]
        matrix = im2col(read[None], w.shape[2:], stride=s["stride"], padding=s["padding"], dilation=s["dilation"])[0]
        assert np.array_equal(matrix, made["columns"]["matrix"])
        assert (np.array(made["columns"]["kernel"]) @ matrix).tolist() == true


def test_every_frame_of_both_transposed_views_is_pytorchs(page):
    wanted = [s | {"transposed": True, "part": p, "output": 2} for s in SETTINGS for p in (0.4, 1)]
    possible_ones = 0
    for s, made in zip(wanted, page.evaluate(FRAMES, wanted), strict=True):
        assert ("refused" in made) == (possible(s) is None), s
        if "refused" in made:
            continue
        possible_ones += 1
        x, w = torch.tensor(made["x"], dtype=torch.float64), torch.tensor(made["weights"], dtype=torch.float64)
        args = conv_args(s) | {"output_padding": s["outpad"]}
        true = F.conv_transpose2d(x[None], w, **args)[0, 2]
        assert made["size"] == len(true)
        shown = [v for row in made["insert"] for v in row]
        assert shown[: made["upto"] + 1] == true.flatten().tolist()[: made["upto"] + 1]
        masked = x.flatten(1).clone()
        masked[:, made["last"] + 1 :] = 0
        partial = F.conv_transpose2d(masked.view_as(x)[None], w, **args)[0, 2]
        assert made["scatter"] == partial.tolist()
    assert possible_ones > 200


def test_what_cannot_be_is_struck_out_and_says_why(page, lab, opened):
    with opened(lab, "/convolution?size=3&padding=0&kernel=3") as page:
        page.click("[data-set=kernel-5]", force=True)
        assert page.get_attribute("[data-set=kernel-5]", "aria-disabled") == "true"
        assert page.inner_text(".why") == "kernel 5: the window spans 5 cells, but the padded input has 3"
        assert page.get_attribute("[data-set=kernel-3]", "aria-pressed") == "true"
        page.hover("[data-set=groups-2]", force=True)
        assert "2 groups must divide 1 input and 1 output channels" in page.inner_text(".why")
        page.click("text=Transposed")
        page.hover("[data-set=outpad-1]", force=True)
        assert "must be below the larger of stride and dilation: at most 0" in page.inner_text(".why")


def test_stepping_scrubbing_and_the_address(lab, opened):
    with opened(lab, "/convolution?size=4&padding=0&step=2") as page:
        assert page.inner_text(".player output") == "3 / 4"
        page.click("[aria-label='Step on']")
        assert page.inner_text(".player output") == "4 / 4"
        assert "step=3" in page.url
        page.click("[aria-label='Step on']")
        assert page.inner_text(".player output") == "1 / 4"
        page.fill(".player input", "1")
        assert page.inner_text(".player output") == "2 / 4"
        assert "= ⌊(4 + 2·0 − 1·(3 − 1) − 1) / 1⌋ + 1 = 2" in page.inner_text(".rule")
        page.click("text=Matrices")
        assert "view=matrix" in page.url


def test_it_plays_unless_less_motion_is_wanted(lab, opened):
    with opened(lab, "/convolution") as page:
        page.click(".play")
        page.wait_for_timeout(1200)
        assert int(page.inner_text(".player output").split()[0]) > 1
        page.click(".play")
    with opened(lab, "/convolution", reduced_motion="reduce") as page:
        assert page.is_disabled(".play")
        assert "less motion" in page.get_attribute(".play", "title")
        page.click("[aria-label='Step on']")
        assert page.inner_text(".player output") == "2 / 25"
