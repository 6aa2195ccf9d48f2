"""The tables of docs/optimize.md say what the bench measured."""

import json

import pytest

from benches import bench

INT8 = {"fused_convolutions,_int8": 10.0, "OpenVINO,_int8": 8.0}


@pytest.fixture(scope="module")
def speed_page():
    return bench("speed_page")


def file(model, batch, **over):
    rows = [{"side": name.replace("_", " "), "ms": 8 / ratio, "over": ratio} for name, ratio in over.items()]
    found = [{"model": model, "batch": batch, "rows": [{"side": "stock PyTorch", "ms": 8.0, "over": 1.0}, *rows]}]
    return {"title": "a machine", "instructions": ["avx2"], "found": found}


def test_the_best_of_each_row_is_bold_and_what_was_not_measured_a_dash(speed_page, tmp_path, monkeypatch):
    (tmp_path / "a.json").write_text(json.dumps(file("resnet18", 16, fused_convolutions=3.0, OpenVINO=2.0, **INT8)))
    (tmp_path / "b.json").write_text(json.dumps(file("LeNet5", 1, fused_convolutions=4.0, OpenVINO=12.0)))
    page = tmp_path / "page.md"
    page.write_text(f"before\n{speed_page.BEGIN}old\n{speed_page.END}\nafter\n")
    monkeypatch.setattr("sys.argv", ["speed_page.py", str(tmp_path), str(page)])
    speed_page.main()
    text = page.read_text()
    assert text.startswith("before\n")
    assert text.endswith("\nafter\n")
    assert "old" not in text
    lines = [line for line in text.splitlines() if line.startswith(("| LeNet5", "| resnet18"))]
    assert lines[:2] == [
        "| LeNet5 | 1 | 8 | 4.00 | - | - | - | **12.00** |",
        "| resnet18 | 16 | 8 | **3.00** | - | - | - | 2.00 |",
    ]
    assert "the best lossless form is 6.00 times as fast as stock" in text
    assert "LeNet5 1: 0.33, resnet18 16: 1.50" in text
    assert "int8, times as fast as the best of the other forms in int8 (network, batch): resnet18 16: 1.25" in text
