"""The runs page of detectors and segmenters: boxes, masks, thresholds, cells that open pictures, runs side by side."""

import json

import numpy as np
import pytest
import torch

from convscope import data as datasets
from convscope.evaluate import evaluate_run
from convscope.explain import attribute
from convscope.lab import open_lab
from convscope.predict import answer
from convscope.runs import TrainConfig
from convscope.train import train
from tiny import offer

pytestmark = pytest.mark.browser
TINY = {
    "data": "tiny",
    "image_size": 64,
    "epochs": 8,
    "batch_size": 8,
    "num_threads": 1,
    "device": "cpu",
    "lr": 0.004,
    "ema": 0.8,
}
STEPS = "async ([f, m, s, n]) => (await import('/static/matching.js')).judged(f, m, s, n)"


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    offer(datasets.DATASETS)  # pyright: ignore[reportArgumentType]
    base = tmp_path_factory.mktemp("here") / "runs"
    for task in ("detect", "segment"):
        train(TrainConfig(task=task, **TINY), out=base / task, progress=False)
    yield base
    for task in ("detect", "segment", "detect,segment"):
        del datasets.DATASETS[task]["tiny"]  # pyright: ignore[reportIndexIssue]


@pytest.fixture(scope="module")
def served(runs, lab_of_opened):
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(runs.parent)
        with lab_of_opened(*open_lab("LeNet5", "digits:0", port=0)) as lab:
            yield lab


@pytest.fixture(scope="module")
def detected(runs):
    return evaluate_run(runs / "detect")


@pytest.fixture(scope="module")
def segmented(runs):
    return evaluate_run(runs / "segment")


CELL = """all => all.map(c => Number((c.querySelector('button')?.ariaLabel ?? ': 0')
  .split(': ').pop().replaceAll(',', '')))"""


def cells(page):
    return page.eval_on_selector_all(".founds .confusion-table tbody td", CELL)


def packed(body):
    length = int.from_bytes(body[:4], "little")
    return json.loads(body[4 : 4 + length]), np.frombuffer(body[4 + length :], "<f4")


def test_the_matrix_at_the_usual_threshold_is_the_evaluations(served, opened, detected):
    with opened(served, "/runs") as page:
        page.until(lambda: page.locator(".seen").count() == 12)
        assert cells(page) == [n for row in detected.evaluation.confusion for n in row]
        assert f"{100 * detected.evaluation.map:.2f} %" in page.inner_text(".founds")
        first = page.get_attribute(".seen >> nth=0", "data-picture")
        assert int(first) == detected.evaluation.worst[0]


def test_boxes_are_judged_as_the_evaluation_judges(served, opened, detected):
    from convscope.evaluate.detection import _confusion

    images, found = detected.images, detected.evaluation.found
    true = images.batch(torch.arange(len(images)))[1]
    rows = served.json("/api/runs/0/detect/pictures")["pictures"]
    assert [r["index"] for r in rows] == list(detected.evaluation.worst)
    with opened(served, "/runs") as page:
        for row in rows:
            told = page.evaluate(STEPS, [row["found"], row["true"], 0.4, 2])
            counts, _ = _confusion([found[row["index"]]], [true.of(row["index"])], 2)
            mine = np.zeros((3, 3), int)
            for verdict in told:
                mine[int(verdict["meant"]), int(verdict["said"])] += 1
            assert mine.tolist() == counts.tolist()


def test_the_threshold_and_the_filters_by_mouse_and_keyboard(served, opened):
    with opened(served, "/runs") as page:
        page.until(lambda: page.locator(".seen").count() == 12)
        slider = page.locator("[data-set=threshold]")
        before = sum(cells(page)[6:8])
        slider.focus()
        for _ in range(35):
            page.keyboard.press("ArrowLeft")
        page.until(lambda: "5 %" in page.inner_text(".confusion .line output"))
        assert sum(cells(page)[6:8]) >= before
        slider.fill("100")
        page.click("text=Right")
        page.until(lambda: "No picture has this" in page.inner_text(".found"))
        page.focus("[data-value=missed]")
        page.keyboard.press("Enter")
        page.until(lambda: page.locator(".seen").count() == 12)
        assert "0 right, 0 wrong, 2 missed" in page.inner_text(".seen >> nth=0")


def test_a_cell_opens_its_pictures(served, opened, detected):
    with opened(served, "/runs") as page:
        page.until(lambda: page.locator(".seen").count() == 12)
        page.click(".confusion-table tbody tr:nth-child(1) td:nth-of-type(1) button")
        page.until(lambda: "Pictures with square named square" in page.inner_text(".founds"))
        count = int(page.inner_text(".confusion .pager .soft").split()[0])
        assert 0 < count <= 12
        page.click("text=Show all pictures")
        page.until(lambda: "12 pictures" in page.inner_text(".founds"))


def test_masks_are_the_networks(served, opened, segmented):
    index = segmented.evaluation.worst[0]
    head, values = packed(served.ask(f"/api/runs/1/segment/pictures/{index}")[2])
    _, height, width = head["shape"]
    true, said, sure = values[3 * height * width :].reshape(3, height, width)
    sample = segmented.images.samples[index]
    assert np.array_equal(true, sample.mask.numpy())
    with torch.no_grad():
        shares = segmented.model(segmented.images.batch(torch.tensor([index]))[0]).softmax(1)[0]
    assert (said == shares.argmax(0).numpy()).mean() > 0.999
    assert np.allclose(sure, shares.max(0).values.numpy(), atol=1e-4)
    with opened(served, "/runs?run=1") as page:
        page.until(lambda: page.locator(".seen").count() == 12)
        assert cells(page) == [n for row in segmented.evaluation.confusion for n in row]
        assert int(page.get_attribute(".seen >> nth=0", "data-picture")) == index
        seen = page.evaluate("document.querySelector('.seen canvas').toDataURL()")
        page.click("text=What is true")
        page.until(lambda: page.evaluate("document.querySelector('.seen canvas').toDataURL()") != seen)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("run", [0, 1])
def test_axe_finds_nothing_on_boxes_and_masks(served, opened, violations, run, scheme):
    with opened(served, f"/runs?run={run}", color_scheme=scheme, bypass_csp=True) as page:
        page.until(lambda: page.locator(".seen").count())
        assert violations(page) == []


def test_runs_are_compared_and_cells_opened_by_keyboard(served, opened):
    with opened(served, "/runs?run=1") as page:
        page.until(lambda: page.locator(".seen").count())
        page.focus(".rows .check input")
        page.keyboard.press("Space")
        page.until(lambda: page.locator(".compared tbody tr").count() == 2)
        assert "with=0" in page.url
        assert page.evaluate("document.activeElement.type") == "checkbox"
        page.until(lambda: page.locator(".confusion-table button").count())
        page.focus(".confusion-table button >> nth=0")
        page.keyboard.press("Enter")
        page.until(lambda: "Show all pictures" in page.inner_text(".founds"))
        assert page.evaluate("document.activeElement.closest('.confusion-table') !== null")


def test_runs_are_laid_over_each_other(served, opened, runs):
    with opened(served, "/runs") as page:
        page.until(lambda: page.locator(".curves svg").count())
        page.check(".left .check input")
        page.until(lambda: page.locator(".compared tbody tr").count() == 2)
        assert page.locator(".curves path[stroke-dasharray='5 3']").count() > 0
        assert "with=1" in page.url
        rows = [json.loads(line) for line in (runs / "detect" / "metrics.jsonl").read_text().splitlines()]
        best = max(r["val_map"] for r in rows)
        assert f"{best:.4g}" in page.inner_text("[data-run='0']")


@pytest.mark.parametrize("path", ["runs/0/segment/pictures", "runs/0/detect/pictures/12", "runs/0/detect/pictures/-1",
                                  "runs/0/cells/0/0", "runs/9/detect/pictures", "runs/1/predictions/0"])  # fmt: skip
def test_what_a_run_has_not_is_refused(served, path):
    assert served.ask(f"/api/{path}")[0] in (400, 404)


@pytest.mark.parametrize("task", ["detect", "segment"])
def test_an_attribution_is_of_the_best_box_or_of_a_class_over_all_pixels(runs, lab_of_opened, opened, task):
    with lab_of_opened(*open_lab(str(runs / task), "scenes:0", port=0)) as lab:
        loaded, x = lab.session.loaded, lab.session.given.x
        for label, name in ((None, None), (1, loaded.classes[1])):
            asked = "" if label is None else f"?class={label}"
            head, values = packed(lab.ask(f"/api/pictures/given/attributions/grad-cam{asked}")[2])
            told = answer(loaded, x, target=name)
            found = attribute(loaded.model, x, "grad-cam", target=told.target, layer=told.layer)
            assert values.reshape(head["shape"]) == pytest.approx(found.map, abs=1e-6)
            assert (head["class"], head["score"]) == (told.name, pytest.approx(found.score))
            assert head.get("box") == (pytest.approx(list(told.box)) if task == "detect" else None)
        with opened(lab, "/?field=why") as page:
            page.until(lambda: page.inner_text(".says").startswith("Box of class" if task == "detect" else "Class"))
            page.select_option(".overlay select >> nth=1", "1")
            page.until(lambda: f"lass {loaded.classes[1]}, score" in page.inner_text(".says"))
