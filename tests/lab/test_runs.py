"""The runs page: the log as curves, the confusion matrix and its pictures."""

import csv
import io
import json
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from convscope.evaluate import evaluate_run
from convscope.lab import open_lab
from convscope.lab.runs_known import RunsKnown
from convscope.runs.folder import METRICS

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def measured(run):
    return evaluate_run(run)


def test_the_matrix_is_the_evaluations_and_its_cells_open(lab_of_run, opened, measured):
    evaluation, images = measured.evaluation, measured.images
    with opened(lab_of_run, "/runs") as page:
        page.until(lambda: page.locator(".confusion-table").count())
        cells = page.eval_on_selector_all(
            ".confusion-table tbody td", "all => all.map(c => parseInt(c.textContent) || 0)"
        )
        assert cells == [n for row in evaluation.confusion for n in row]
        assert f"Accuracy {100 * evaluation.accuracy:.2f} %" in page.inner_text(".confusion")
        wrong = evaluation.wrong[0]
        true, said = int(images.labels[wrong]), int(evaluation.predictions[wrong])
        page.click(f".confusion-table tbody tr:nth-child({true + 1}) td:nth-of-type({said + 1}) button")
        page.until(lambda: page.locator(".thumb").count() == evaluation.confusion[true][said])
        page.click(f"[aria-label='test picture {wrong}']")
        page.until(lambda: page.locator(".opened .bar").count() == 5)
        assert page.inner_text(".opened .bar .label >> nth=0") == images.classes[said]
        assert f"truly {images.classes[true]}" in page.inner_text(".opened")


def test_the_pictures_of_a_cell_are_the_sets(lab_of_run, measured):
    true, said = np.argwhere(np.asarray(measured.evaluation.confusion) > 2)[0]
    _, _, body = lab_of_run.ask(f"/api/runs/0/cells/{true}/{said}")
    length = int.from_bytes(body[:4], "little")
    head = json.loads(body[4 : 4 + length])
    values = np.frombuffer(body[4 + length :], "<f4").reshape(-1, *head["shape"])
    assert np.array_equal(values, measured.images.images[head["index"]].numpy())
    for path in ("runs/1/metrics", "runs/0/cells/0/99", "runs/0/predictions/360", "runs/x/metrics", "runs/-1/metrics"):
        assert lab_of_run.ask(f"/api/{path}")[0] in (400, 404)


def test_the_curves_can_be_smoothed_hidden_and_saved(lab_of_run, opened, run):
    with opened(lab_of_run, "/runs") as page:
        page.until(lambda: page.locator(".curves svg").count() == 3)
        assert page.locator("[data-line=train_loss]").count() == 1
        page.click(".legend.train")
        assert page.locator("[data-line=train_loss]").count() == 0
        assert "hide=train" in page.url
        page.click(".legend.train")
        page.fill(".runs .tools input[type=range]", "60")
        assert page.locator(".curves path[stroke-width='2']").count() == 4
        with page.expect_download() as waited:
            page.click("text=Save CSV")
        rows = list(csv.DictReader(io.StringIO(waited.value.path().read_text())))
        logged = [json.loads(line) for line in (run / METRICS).read_text().splitlines()]
        assert [{k: float(v) for k, v in row.items()} for row in rows] == logged
        with page.expect_download() as waited:
            page.click("text=Save SVG")
        assert waited.value.path().read_text().startswith('<svg xmlns="http://www.w3.org/2000/svg"')


def test_legend_smoothing_axis_and_cells_by_keyboard(lab_of_run, opened, measured):
    with opened(lab_of_run, "/runs") as page:
        page.until(lambda: page.locator(".confusion-table").count())
        page.focus(".legend.train")
        page.keyboard.press("Space")
        assert page.locator("[data-line=train_loss]").count() == 0
        assert page.locator(".legend.train").get_attribute("aria-pressed") == "false"
        assert "legend train" in page.evaluate("document.activeElement.className")
        page.focus(".runs .tools input[type=range]")
        for _ in range(4):
            page.keyboard.press("ArrowRight")
        assert "smooth=20" in page.url
        page.focus(".runs .tools input[type=checkbox]")
        page.keyboard.press("Space")
        page.until(lambda: "axis=linear" in page.url)
        right = int(np.argmax(np.diag(measured.evaluation.confusion)))
        page.focus(f".confusion-table tbody tr:nth-child({right + 1}) td:nth-of-type({right + 1}) button")
        page.keyboard.press("Enter")
        page.until(lambda: page.locator(".thumb").count())
        page.focus(".thumb >> nth=0")
        page.keyboard.press("Enter")
        page.until(lambda: page.locator(".opened .bar").count() == 5)


def test_many_classes_become_a_list_of_confusions(lab_of_run, opened):
    with opened(lab_of_run, "/runs") as page:
        shown = page.evaluate(
            """async () => {
              const { Confusion } = await import('/static/confusion.js');
              const host = document.createElement('div');
              const classes = Array.from({ length: 100 }, (_, i) => `<b>${i}</b>`);
              const confusion = classes.map((_, r) => classes.map((_, c) => (r === c ? 9 : r === 1 && c < 50 ? c : 0)));
              new Confusion(host).show(0, { classes, confusion, images: 1, accuracy: 1, interval: [0, 1] });
              return [...host.querySelectorAll('.pairs button')].map(b => b.textContent);
            }"""
        )
        assert len(shown) == 40
        assert shown[0] == "True <b>1</b>, named <b>49</b>: 49"


def test_smoothing_and_ticks_are_right(lab_of_run, opened):
    with opened(lab_of_run, "/runs") as page:
        raw = [1.0, 4.0, None, 2.0, 8.0]
        shown = page.evaluate("async v => (await import('/static/curves.js')).smoothed(v, 0.5)", raw)
        seen, wanted = [], []
        for value in raw:
            seen += [] if value is None else [value]
            weights = 0.5 ** np.arange(len(seen))[::-1]
            wanted.append(None if value is None else float(weights @ seen / weights.sum()))
        assert shown == pytest.approx(wanted)
        ask = "async a => (await import('/static/curves.js')).ticks(...a)"
        assert page.evaluate(ask, [0, 1, False]) == [0, 0.2, 0.4, 0.6, 0.8, 1]
        assert page.evaluate(ask, [0.01, 10, True]) == [0.01, 0.1, 1, 10]
        assert page.evaluate(ask, [0.26, 0.45, True]) == [0.3, 0.35, 0.4, 0.45]


def test_a_run_grows_on_the_page_and_nan_is_a_marked_gap(run, lab_of_opened, opened, tmp_path):
    import shutil

    growing = tmp_path / "growing"
    shutil.copytree(run, growing)
    config = (growing / "config.toml").read_text().replace("epochs = 3", "epochs = 5")
    (growing / "config.toml").write_text(config)
    with lab_of_opened(*open_lab(str(growing), "digits:0", port=0)) as lab, opened(lab, "/runs") as page:
        assert "3 / 5 epochs" in page.inner_text(".left")
        assert "not finished" in page.inner_text(".left")
        assert page.locator(".gap").count() == 0
        last = json.loads((growing / METRICS).read_text().splitlines()[-1])
        with (growing / METRICS).open("a") as log:
            log.write(json.dumps(last | {"epoch": 4, "val_loss": float("nan")}) + "\n")
        page.until(lambda: page.locator(".gap").count() == 1)
        assert "4 / 5 epochs" in page.inner_text(".left")


def test_without_runs_the_page_says_what_to_do(lab, opened, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with opened(lab, "/runs") as page:
        assert "Train one: convscope demo" in page.inner_text(".curves")


def test_a_run_is_opened_on_the_network_page(lab_of_run, opened):
    with opened(lab_of_run, "/") as page:
        assert "random weights" not in page.inner_text(".facts")
        assert page.inner_text(".top5 .figure >> nth=0").endswith("%")


def test_the_list_of_runs_does_not_wait_for_a_measurement(run):
    known = RunsKnown([run], base=None)
    with known._running, ThreadPoolExecutor(1) as other:
        assert other.submit(known.facts).result(timeout=5)[0]["done"] == 3
