"""The family on the clock and as a picture."""

import xml.etree.ElementTree as ET
from dataclasses import replace

import pytest
import torch
from PIL import Image

from convscope.clock import Limits, Timing
from convscope.errors import InputError
from convscope.family import MEMBERS, Family, Setting, Times, clocked, family
from convscope.family.picture import AT_BEST, DELIVERED, PROMISED, draw
from convscope.files import write_figure

MACHINE = Limits("a processor", 2, "2.0", {"float32": 1e9}, ((1024, 1e9),), 1e-6)


def with_times(told: Family, seconds: dict[str, float]) -> Family:
    times = {
        name: Times(Timing((s,)), Timing((3 * s,)), Timing((s**0.5,)), "a way", s / 2) for name, s in seconds.items()
    }
    return replace(told, members=tuple(replace(m, times=times[m.name]) for m in told.members), notes=("by hand",))


@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_every_member_is_timed_with_its_backward_pass(ndim):
    state = torch.get_rng_state()
    told = clocked(family(Setting(4, 4, (6,) * ndim, batch=2)), rounds=3, on=MACHINE)
    assert torch.equal(torch.get_rng_state(), state)
    for m in told.members:
        assert m.times is not None
        assert len(m.times.forward.seconds) == len(m.times.training.seconds) == 3
        assert min(m.times.forward.seconds + m.times.fastest.seconds) > 0
        if ndim != 2:
            assert m.times.way == "PyTorch"
    layout = "channels_last" if ndim == 2 else "contiguous"
    assert told.notes == (f"medians of 3 rounds, 2 threads, {layout}, PyTorch eager",)
    assert "forward (ms)" in str(told)
    for member in told.data()["members"]:
        assert member["forward"]["repeats"] == member["fastest"]["repeats"] == 3
        assert member["way"] in str(told)


def test_the_limit_is_the_sum_over_the_operators_in_turn():
    told = clocked(family(Setting(2, 2, (8, 8), batch=1)), rounds=3, on=MACHINE)
    limits = {m.name: m.times.limit for m in told.members if m.times}
    assert limits["dense"] == 1e-6 + 2 * 2 * 9 * 64 / 1e9  # a call, and arithmetic
    assert limits["max pooling"] == 1e-6 + 2 * 2 * 64 * 4 / 1e9  # a call, and memory: the map in, the map out
    first, second = 2 * 9 * 64 / 1e9, 2 * 2 * 64 * 4 / 1e9  # arithmetic of the depthwise one, memory of the pointwise
    assert limits["depthwise separable"] == pytest.approx(2e-6 + first + second + 16 / 1e9)


def test_delivered_is_how_many_times_faster():
    told = with_times(family(Setting(8, 8, (6, 6))), {name: 1 + i for i, name in enumerate(MEMBERS)})
    assert [told.delivered(m) for m in told.members] == [1 / (1 + i) for i in range(len(MEMBERS))]
    row = told.data()["members"][1]
    assert (row["forward_ms"], row["training_ms"], row["limit_ms"], row["delivered"]) == (2000, 6000, 1000, 0.5)
    assert row["way"] == "a way"
    assert row["fastest_ms"] == pytest.approx(1000 * 2**0.5)
    assert row["delivered_at_best"] == pytest.approx(2**-0.5)  # the dense one takes a second


def test_maps_that_do_not_fit_into_memory_are_not_timed():
    with pytest.raises(InputError) as caught:
        clocked(family(Setting(8, 8, (8192, 8192), scale=1)))
    assert str(caught.value) == (
        "clocked: a map of 4,294,967,296 values would need 16.0 GiB; use a smaller batch or input, or do not time it"
    )


def bars(told: Family) -> dict[str, list[float]]:
    """The ends of the bars by colour."""
    found: dict[str, list[float]] = {}
    for container in draw(told).axes[0].containers:
        colour = "#" + "".join(f"{round(c * 255):02x}" for c in container[0].get_facecolor()[:3])
        found[colour] = [bar.get_x() + bar.get_width() for bar in container]
    return found


def test_the_bars_are_the_numbers_of_the_table():
    told = family(Setting(8, 8, (6, 6)))
    promised = [p for m in told.members if (p := told.promised(m))]
    assert bars(told) == {PROMISED: pytest.approx(promised)}
    timed = with_times(told, {name: 0.5 + i for i, name in enumerate(MEMBERS)})
    assert bars(timed) == {
        PROMISED: pytest.approx(promised),
        DELIVERED: pytest.approx([timed.delivered(m) for m in timed.members]),
        AT_BEST: pytest.approx([timed.delivered_at_best(m) for m in timed.members]),
    }


def test_a_picture_is_what_its_name_says(tmp_path):
    told = family(Setting(8, 8, (6, 6)))
    with Image.open(write_figure(draw(told), tmp_path / "family.png")) as image:
        assert image.format == "PNG"
    first = write_figure(draw(told), tmp_path / "family.svg").read_bytes()
    assert ET.fromstring(first).tag.endswith("svg")
    with pytest.raises(InputError) as caught:
        write_figure(draw(told), tmp_path / "family.bmp")
    assert str(caught.value).endswith("family.bmp: a figure is png, svg, pdf; let the name end in one of them")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["family.png", "family.svg"]
