"""The pictures' geometry: spans tile the time, a module above what ran in it."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch import nn

from convscope.clock import Limits
from convscope.errors import InputError
from convscope.files import write_figure
from convscope.profile import flame, profile, roofline
from convscope.profile.pictures import _spans

LIMITS = Limits("a machine", 1, "1.0", {"float32": 1e11}, ((2**18, 1e11), (2**28, 3e10)), 1e-6)
names = st.lists(st.sampled_from("abc"), max_size=3).map(lambda path: (*path, "op"))


@given(st.lists(st.tuples(names, st.integers(1, 9)), min_size=1, max_size=12))
def test_spans_of_one_depth_do_not_overlap_and_hold_what_is_below(timed):
    paths, seconds = zip(*timed, strict=True)
    found = list(_spans(list(paths), list(seconds), 0, 0))
    top = [s for s in found if s.depth == 0]
    assert sum(s.seconds for s in top) == pytest.approx(sum(seconds))
    leaves = [s for s in found if s.name == "op"]
    assert [s.seconds for s in leaves] == pytest.approx(list(seconds))
    for span in found:
        below = [s for s in found if s.depth == span.depth + 1 and span.start <= s.start < span.start + span.seconds]
        if span.name != "op":
            assert sum(s.seconds for s in below) == pytest.approx(span.seconds)
    for depth in {s.depth for s in found}:
        row = [s for s in found if s.depth == depth]
        for left, right in pairwise(row):
            assert left.start + left.seconds <= right.start


@pytest.fixture(scope="module")
def small():
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Sequential(nn.Conv2d(8, 8, 3), nn.MaxPool2d(2)))
    return profile(model, torch.zeros(1, 3, 16, 16), limits=LIMITS, rounds=3)


@pytest.mark.parametrize("draw", [roofline, flame])
def test_pictures_are_written_whole_in_the_format_of_their_name(small, draw, tmp_path):
    with Image.open(write_figure(draw(small), tmp_path / "p.png")) as picture:
        assert picture.width > 1000
    once = write_figure(draw(small), tmp_path / "p.svg").read_text()
    assert once.count("<svg") == 1
    assert write_figure(draw(small), tmp_path / "p.pdf").read_bytes().startswith(b"%PDF")


def test_an_unknown_format_is_refused(small, tmp_path):
    with pytest.raises(InputError, match=r"p\.bmp: a figure is png, svg, pdf; let the name end"):
        write_figure(flame(small), tmp_path / "p.bmp")


def test_a_network_without_macs_can_be_drawn(tmp_path):
    found = profile(nn.ReLU(), torch.zeros(1, 4), limits=LIMITS, rounds=3)
    assert write_figure(roofline(found), tmp_path / "r.svg").exists()
