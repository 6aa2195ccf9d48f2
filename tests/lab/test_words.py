"""What the page's modules share with the package: number formats, colours, words."""

import re
from pathlib import Path

import numpy as np
import pytest

from convscope import lab as lab_package
from convscope.explain import METHODS
from convscope.explain.pictures import ANCHORS, colour_table
from convscope.family import MEMBERS
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
    return dict(re.findall(r'"?([\w+-]+)"?: "((?:[^"\\]|\\.)*)"', text))


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
        f"{kind}-{name}"
        for kind in ("by", "view", "set", "field", "col", "found", "mark", "curve", "term")
        for name in spoken
    }
    named = [("why", METHODS), ("member", MEMBERS)]  # what the server names
    spoken |= {f"{kind}-{name.replace(' ', '-')}" for kind, names in named for name in names}
    assert {f"why-{name}" for name in METHODS} <= words("en").keys()
    assert {f"member-{name.replace(' ', '-')}" for name in MEMBERS} <= words("en").keys()
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


SPOKEN = """() => { const said = [];
  for (const e of document.body.querySelectorAll('*')) {
    for (const n of e.childNodes) if (n.nodeType === 3 && n.textContent.trim()) said.push(n.textContent.trim());
    for (const a of ['aria-label', 'title', 'placeholder']) if (e.getAttribute(a)) said.push(e.getAttribute(a));
  }
  return said; }"""
# names of layers and operators, units, formats, methods and tasks that are called so in Chinese texts too
KEPT = r"""convscope|lab|LeNet5|English|features|head|runs|digits|digit|small|train|demo|C1|S2|C3|S4|F5|F6|relu\d
|flatten|output|convolution|relu|max|pool2d|view|addmm|MACs?|KiB|MiB|px|Grad-CAM(?:\+\+)?|SmoothGrad|PNG|SVG|JSON|NPZ|CSV|HTML|NaN|IoU
|Page|Up|Down|Shift|x|exp|weight|bias|activation|input"""


@pytest.mark.browser
@pytest.mark.parametrize("path", ["/?layer=features.C3", "/?layer=features.S2", "/?layer=head.F5&field=why",
                                  "/?layer=features.relu1&field=effective", "/convolution",
                                  "/convolution?view=transposed&stride=2", "/convolution?view=matrix", "/family",
                                  "/family?scale=map", "/runs"])  # fmt: skip
def test_no_english_is_left_in_the_chinese_page(lab_of_run, opened, path):
    kept = re.compile(rf"\b(?:{KEPT})\b".replace("\n", ""))
    with opened(lab_of_run, path, locale="zh-CN") as page:
        page.wait_for_timeout(300)
        said = [text for text in page.evaluate(SPOKEN) if not text.startswith(lab_of_run.session.loaded.spec)]
        assert sum(bool(re.search(r"[\u4e00-\u9fff]", text)) for text in said) > 15
        assert {text for text in said if re.search(r"[A-Za-z]{2,}", kept.sub("", text))} == set()
