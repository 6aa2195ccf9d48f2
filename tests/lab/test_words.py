"""What the page's modules share with the package: number formats, colours, words."""

import re
from pathlib import Path

import numpy as np
import pytest

from convscope import lab as lab_package
from convscope.explain.pictures import ANCHORS, colour_table
from convscope.lab.guard import PAGES
from convscope.table import number

STATIC = Path(lab_package.__file__).parent / "static"
MODULES = sorted(STATIC.glob("*.js"))


@pytest.fixture
def page(lab, opened):
    with opened(lab) as page:
        yield page


@pytest.mark.browser
def test_numbers_are_written_as_in_the_tables(page):
    rng = np.random.default_rng(0)
    values = [0.0, -0.0, 1.0, -12.3456, 0.01567, 1e-9, 99995.0, 9999.5, 9999.4, 0.00009999, -1e300, 123456.0, 0.1 + 0.2]
    values += (rng.standard_normal(300) * 10.0 ** rng.integers(-12, 12, 300)).tolist()
    shown = page.evaluate(
        "async values => { const f = await import('/static/format.js'); return values.map(f.number); }", values
    )
    assert shown == [number(v) for v in values]


@pytest.mark.browser
def test_colours_are_those_of_the_pictures(page):
    for name, diverging in (("diverging", True), ("sequential", False)):
        shown = page.evaluate("async d => [...(await import('/static/colour.js')).table(d, false)]", diverging)
        assert np.abs(np.array(shown).reshape(257, 3) - colour_table(name).astype(int)).max() <= 1
    known = page.evaluate("async () => { const c = await import('/static/colour.js'); return [c.LIGHT, c.DARK]; }")
    anchors = {name: list(colours) for name, colours in ANCHORS.items()}
    light = {name: anchors[name] for name in ("diverging", "sequential")}
    assert known == [light, light | {"diverging": anchors["diverging-dark"]}]


@pytest.mark.browser
def test_a_sequential_scale_is_monotone_and_the_neutral_is_the_page(page):
    for dark in (False, True):
        table = np.array(page.evaluate("async d => [...(await import('/static/colour.js')).table(false, d)]", dark))
        light = table.reshape(257, 3) @ [0.2126, 0.7152, 0.0722]
        assert (np.diff(light) >= -0.5).all()
    for theme in ("light", "dark"):
        page.evaluate("theme => { document.documentElement.dataset.theme = theme; }", theme)
        back = page.evaluate("getComputedStyle(document.body).backgroundColor")
        neutral = page.evaluate(
            "async () => (await import('/static/colour.js')).swatch(0, {limit: 1, signed: true}).back"
        )
        assert re.findall(r"\d+", back)[:3] == re.findall(r"\d+", neutral)


def words(language):
    text = (STATIC / f"words.{language}.js").read_text()
    return dict(re.findall(r'"?([\w-]+)"?: "((?:[^"\\]|\\.)*)"', text))


def test_both_languages_have_the_same_words_and_blanks():
    en, zh = words("en"), words("zh")
    assert len(en) > 80
    assert en.keys() == zh.keys()
    for key, text in en.items():
        assert set(re.findall(r"\{\w+\}", text)) == set(re.findall(r"\{\w+\}", zh[key])), key


def test_every_word_that_is_asked_for_is_there_and_none_is_left_over():
    code = "".join(p.read_text() for p in MODULES if not p.name.startswith("words."))
    asked = set(re.findall(r'\bt\("([\w-]+)"', code))
    assert asked <= words("en").keys()
    spoken = set(re.findall(r'"([\w-]+)"', code))  # also those that are put together: by-max, view-slide, set-kernel
    spoken |= {
        f"{kind}-{name}" for kind in ("by", "view", "set", "field", "col", "found", "mark", "curve") for name in spoken
    }
    assert words("en").keys() <= spoken


def test_modules_are_checked_short_and_ask_nobody_else():
    assert len(MODULES) > 10
    for path in MODULES:
        text = path.read_text()
        assert text.startswith("// @ts-check\n"), path.name
        assert len(text.splitlines()) <= 400, path.name
        assert not re.search(r"innerHTML|outerHTML|insertAdjacent|document\.write|eval\(|new Function", text), path.name
        urls = set(re.findall(r"https?://[^\"'\s]+", text))
        assert urls <= {"http://www.w3.org/2000/svg"}, path.name
        assert set(re.findall(r'from "([^"]+)"', text)) <= {f"./{p.name}" for p in MODULES}, path.name


def test_pages_know_their_modules():
    main = (STATIC / "main.js").read_text()
    for page in PAGES:
        assert f'"{page}"' in main


@pytest.mark.browser
def test_the_language_is_the_browsers_and_can_be_changed(lab, opened, page):
    assert page.inner_text("nav a >> nth=0") == "Network"
    page.select_option(".top select >> nth=0", "zh")
    assert page.inner_text("nav a >> nth=0") == "网络"
    assert page.evaluate("document.documentElement.lang") == "zh-Hans"
    page.reload()
    page.settled()
    assert page.inner_text("nav a >> nth=0") == "网络"
    assert page.title() == "网络 · convscope lab"
