"""Moving pictures: as many frames as steps, the numbers of each on it, and an SVG that is nothing but a picture."""

import re
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image, ImageColor

from convscope.errors import InputError
from convscope.explain.pictures import colour_table
from convscope.steps import Case, Wish, frames, save_movie
from convscope.steps.page import Box, Words
from convscope.steps.raster import draw, fill, on
from convscope.steps.scene import lay_out
from convscope.steps.svg import write_svg
from convscope.steps.text import figure

CASES = {
    "window": Wish(input=(2, 3, 4), stride=2, padding=1, out_channels=2),
    "dilated": Wish(input=(6, 7), dilation=2),
    "grouped": Wish(input=(2, 3, 3), kernel="2", groups=2),
    "scatter": Wish(input=(2, 2), stride=2, padding=1, transposed=True),
    "one axis": Wish(ndim=1, input=(2, 5), padding=1, dilation=2, bias="3"),
    "volume": Wish(ndim=3, input=(2, 3, 3), kernel="2", padding=(1, 0, 0)),
    "fractions": Wish(input=(4, 4), kernel="box-blur"),
}
BOARDS = {name: frames(wish.case()) for name, wish in CASES.items()}
BOARDS["insert"] = frames(CASES["scatter"].case(), view="insert")
BOARDS["stamped volume"] = frames(
    Wish(ndim=3, input=(2, 1, 2), kernel="2", padding=(1, 0, 0), transposed=True, bias="1").case()
)

every_board = pytest.mark.parametrize("name", BOARDS)


def there(scene, kind, frame):
    return [i for i in scene.items if isinstance(i, kind) and i.life[0] <= frame <= i.life[1]]


@every_board
def test_every_frame_shows_its_products_its_sum_and_all_outputs_so_far(name):
    board = BOARDS[name]
    scene = lay_out(board)
    for frame in board.frames:
        words = [w.text for w in there(scene, Words, frame.number)]
        written = frame.output[~np.isnan(frame.output)].tolist()
        for value in [*written, *frame.products.flat, *frame.kernel.flat, *board.field.flat]:
            assert figure(value) in words
        numbers = len(written) + frame.products.size + frame.kernel.size + board.field.size
        assert sum(re.fullmatch(r"−?\d[\d.e−-]*", w) is not None for w in words) == numbers
        assert frame.sum is None or any(
            w.endswith((f"= {figure(frame.sum)}", f"add up to {figure(frame.sum)}", "channel by channel"))
            for w in words
        )


@every_board
def test_the_window_stands_over_what_it_reads(name):
    board = BOARDS[name]
    scene = lay_out(board)
    cells = [i for i in scene.items if isinstance(i, Box) and not i.path and i.edge in ("line", "dashed")]
    for frame in board.frames:
        strong = [b for b in there(scene, Box, frame.number) if b.edge == "strong"]
        slices = len(frame.taps[0]) if board.case.ndim == 3 else 1
        assert len(strong) == len(frame.channels) * slices + 1 if board.view != "scatter" else slices + 1
        for box in strong:
            assert any(c.at == box.path[frame.number - box.life[0]] for c in cells)
        taps = [b for b in there(scene, Box, frame.number) if b.edge == "tap"]
        assert len(taps) == (frame.kernel.size if name in ("dilated", "one axis") else 0)


@every_board
def test_nothing_leaves_the_page(name):
    scene = lay_out(BOARDS[name])
    for item in scene.items:
        for x, y in item.path if isinstance(item, Box) and item.path else (item.at,):
            width, height = item.size if isinstance(item, Box) else (0, 0)
            assert 0 <= x <= x + width <= scene.size[0]
            assert 0 <= y <= y + height <= scene.size[1]


@pytest.mark.parametrize("ending", [".gif", ".png"])
@pytest.mark.parametrize("name", ["scatter", "fractions"])
def test_a_gif_and_a_png_have_a_picture_for_each_step(name, ending, tmp_path):
    board = BOARDS[name]
    with Image.open(save_movie(board, tmp_path / f"conv{ending}")) as movie:
        assert movie.n_frames == len(board.frames)  # pyright: ignore[reportAttributeAccessIssue]
        assert movie.info["loop"] == 0
        size, scene = movie.size, lay_out(board)
        assert size == (2 * scene.size[0], 2 * scene.size[1])
        movie.seek(len(board.frames) - 1)
        assert movie.info["duration"] == 3200
        shown = np.asarray(movie.convert("RGB")).astype(int)
    drawn = np.asarray(draw(lay_out(board), len(board.frames) - 1, zoom=2)).astype(int)
    far = np.abs(shown - drawn).max(axis=2)
    assert far.max() < 48  # the edges of letters: 256 colours in place of all
    for colour in {(255, 255, 255)} | {
        fill(b.level) for b in scene.items if isinstance(b, Box) and b.level is not None
    }:
        assert far[(drawn == colour).all(axis=2)].max(initial=0) == 0


@every_board
def test_an_svg_is_well_formed_and_holds_no_script(name):
    text = write_svg(lay_out(BOARDS[name]))
    root = ElementTree.fromstring(text)
    tags = {element.tag.rpartition("}")[2] for element in root.iter()}
    assert tags <= {"svg", "title", "style", "rect", "text", "g"}
    names = {n for element in root.iter() for n in element.attrib}
    assert names <= {"viewBox", "width", "height", "role", "aria-label", "class", "x", "y", "font-size"}
    assert "url(" not in text
    assert "@import" not in text
    assert "@media (prefers-color-scheme: dark)" in text
    assert text.index("@media (prefers-reduced-motion: no-preference)") < text.index("@keyframes")


@every_board
def test_an_svg_at_rest_shows_the_last_frame(name):
    scene = lay_out(BOARDS[name])
    root = ElementTree.fromstring(write_svg(scene))
    texts = [e for e in root.iter("{http://www.w3.org/2000/svg}text") if "gone" not in e.attrib["class"].split()]
    assert [e.text for e in texts] == [w.text for w in there(scene, Words, scene.count - 1)]


def test_every_animation_that_is_used_is_defined_once():
    text = write_svg(lay_out(BOARDS["grouped"]))
    used = {n for names in re.findall(r'class="([^"]*)"', text) for n in names.split() if re.match(r"[ap]\d", n)}
    defined = re.findall(r"@keyframes (\S+?)\{", text)
    assert len(set(defined)) == len(defined)
    assert set(defined) == used


def test_a_moved_box_ends_each_step_where_its_frame_says():
    scene = lay_out(BOARDS["window"])
    text = write_svg(scene)
    box = next(b for b in scene.items if isinstance(b, Box) and b.edge == "strong" and len(b.path) == scene.count)
    keyframes = re.search(r"@keyframes p0\{(.*)\}", text)
    assert keyframes
    stops = re.findall(r"([\d.]+)%,([\d.]+)%\{transform:translate\((-?[\d.]+)px,(-?[\d.]+)px\)", keyframes[1])
    assert len(stops) == scene.count
    assert float(stops[-1][1]) == 100
    for (x, y), (_, _, dx, dy) in zip(box.path, stops, strict=True):
        assert (box.path[-1][0] + float(dx), box.path[-1][1] + float(dy)) == pytest.approx((x, y), abs=1e-2)


def luminance(colour) -> float:
    share = np.array(colour) / 255
    return float(np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4) @ [0.2126, 0.7152, 0.0722])


@pytest.mark.parametrize("scale", ["diverging", "diverging-dark"])
def test_numbers_stand_out_from_every_colour_that_a_cell_can_have(scale):
    """WCAG 2.2 asks for a contrast of 4.5; a cell's colour ends at two thirds of the scale."""
    for level in range(-11, 12):
        colour = colour_table(scale)[128 + 8 * level].tolist()
        low, high = sorted((luminance(colour), luminance(ImageColor.getrgb(on(tuple(colour))))))
        assert (high + 0.05) / (low + 0.05) >= 4.5


def test_what_cannot_be_drawn_is_refused_in_a_sentence(tmp_path):
    many = frames(Case(np.ones((5, 3, 3)), np.ones((1, 5, 3, 3))))
    with pytest.raises(InputError, match="a picture shows 4 channels at most, but the input has 5"):
        save_movie(many, tmp_path / "conv.svg")
    wide = frames(Case(np.ones((1, 3, 200)), np.ones((1, 1, 3, 3))))
    with pytest.raises(InputError, match="at most 2400 each way are drawn, so use a smaller input"):
        save_movie(wide, tmp_path / "conv.svg")
    with pytest.raises(InputError, match=r"ends in .mp4, but the moving picture is \.svg, \.gif or \.png"):
        save_movie(BOARDS["window"], tmp_path / "conv.mp4")
    assert list(tmp_path.iterdir()) == []
