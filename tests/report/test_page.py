"""The report as a reader opens it: in a browser, without a network."""

import os
import re
import shutil
from html import unescape

import pytest
from playwright.sync_api import sync_playwright

from convscope.evaluate import evaluate_run
from convscope.report import write_report
from convscope.runs import resolve
from convscope.train import train

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
QUIET = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "run"
    train(resolve({"epochs": 3}), out=folder, progress=False)
    measured = evaluate_run(folder)
    return write_report(folder, measured), measured


@pytest.fixture(scope="module")
def page(written):
    if CHROMIUM is None and "CI" not in os.environ:
        pytest.skip("chromium is not installed")
    asked = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        page = browser.new_page(viewport={"width": 1024, "height": 800})
        page.on("request", lambda r: asked.append(r.url))
        page.on("console", lambda m: asked.append(m.text))
        page.on("pageerror", lambda e: asked.append(str(e)))
        page.goto(written[0].path.as_uri())
        page.asked = asked
        yield page
        browser.close()


@pytest.mark.browser
def test_the_page_stands_alone_and_is_silent(page):
    assert [url for url in page.asked if not url.startswith("data:")] == [page.url]


@pytest.mark.browser
def test_every_picture_is_drawn(page):
    widths = page.eval_on_selector_all("img", "all => all.map(i => i.complete ? i.naturalWidth : 0)")
    assert len(widths) > 12
    assert min(widths) > 0
    assert all(page.eval_on_selector_all("img", "all => all.map(i => i.alt.length > 0)"))


@pytest.mark.browser
def test_nothing_hangs_over_the_edge(page):
    assert page.evaluate("document.documentElement.scrollWidth") <= 1024


@pytest.mark.browser
def test_the_confusion_matrix_shows_the_counts_and_the_wrong_digits(page, written):
    evaluation = written[1].evaluation
    cells = page.eval_on_selector_all(".confusion tbody td", "all => all.map(c => parseInt(c.textContent) || 0)")
    assert cells == [n for row in evaluation.confusion for n in row]
    pictures = page.eval_on_selector_all(".confusion img", "all => all.map(i => i.title)")
    shown = {int(re.search(r"test picture (\d+)", title)[1]) for title in pictures}
    assert shown <= set(evaluation.wrong)
    assert len(shown) >= min(6, len(evaluation.wrong))
    assert page.locator(".confusion td.right img").count() == 0


@pytest.mark.browser
def test_the_numbers_are_those_of_the_api(page, written):
    report, measured = written
    text = page.inner_text("main")
    assert f"{100 * measured.evaluation.accuracy:.2f} %" in text
    assert "61,706" in text
    assert "416,520" in text
    assert str(report.explanation.table().rows[0]["term"]) in text


def test_the_explained_value_is_the_largest_of_c3(written):
    told = written[0].explanation
    assert told.op.module == "features.C3"
    assert abs(told.difference) < 1e-4


def test_class_names_are_shown_as_text(written, tmp_path):
    from dataclasses import replace

    report, measured = written
    classes = ("<img src=x onerror=alert(1)>", 'größe "1" 100 %20 $x^{', "a\nb", *measured.images.classes[3:])
    told = measured.evaluation
    rows = tuple(replace(row, name=name) for row, name in zip(told.per_class, classes, strict=True))
    odd = replace(measured, images=replace(measured.images, classes=classes), evaluation=replace(told, per_class=rows))
    html = write_report(tmp_path, odd).path.read_text()
    assert "<img src=x" not in html
    assert "&lt;img src=x onerror=alert(1)&gt;" in html
    assert classes[1] not in html
    assert classes[1] in unescape(html)
    assert report.path.exists()


@pytest.mark.browser
def test_the_box_lies_where_the_receptive_field_says(page, written):
    told = written[0].explanation
    row, column = (2 * i for i in told.unit[2:])  # C3 of LeNet5: 14x14 px, 2 px apart, no padding
    picture = page.locator(".field img").bounding_box()
    box = page.locator(".field span").bounding_box()
    px = (picture["width"] - 2) / 32
    assert box["x"] - picture["x"] == pytest.approx(column * px, abs=2)
    assert box["y"] - picture["y"] == pytest.approx(row * px, abs=2)
    assert box["width"] == pytest.approx(14 * px, abs=3)
