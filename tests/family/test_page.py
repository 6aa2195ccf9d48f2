"""The tables of the docs: what `bench/family.py` found, and which goals it missed."""

import json

import pytest

from benches import FOLDER, bench


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(FOLDER)
    return bench("family_page")


def row(member: str, **more):
    usual = {"over_best": 2.0, "over_default": 8.0, "share": 0.8, "promised": None, "direct": None, "way": "own kernel"}
    usual |= {"default": 8.0, "best": 2.0, "ours": 1.0}
    return usual | {"member": member} | more


def test_the_page_has_what_was_measured_and_what_falls_short(script, tmp_path):
    rows = [
        row("flattened", promised=8.0, direct=4.0),
        row("shuffle", share=0.5, over_best=0.5),
        row("pool", over_best=0.5, way="PyTorch"),
    ]
    for size, batch in script.SETTINGS:
        for how in ("", "--training"):
            data = {"title": "1x1x1x1 float32, forward; a machine, torch 1", "rows": rows}
            (tmp_path / f"{size}-{batch}{how}.json").write_text(json.dumps(data))
    page = tmp_path / "page.md"
    (tmp_path / "layers").mkdir()
    for name in script.PAGES:
        (tmp_path / "layers" / f"{name}.md").write_text(f"# {name}\n")
    page.write_text(f"before\n{script.BEGIN}old\n{script.END}\nafter\n")
    for to in (page, tmp_path / "layers") * 2:  # the second time it replaces what the first one wrote
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("sys.argv", ["family_page.py", str(tmp_path), str(to)])
            script.main()
    text = page.read_text()
    flattened = (tmp_path / "layers" / "flattened.md").read_text()
    assert flattened.startswith(f"# flattened\n\n{script.COSTS}1x1x1x1 float32, forward (a machine):\n")
    assert flattened.count("| flattened | 8 | 2 | 1 |\n") == 1
    assert text.startswith("before\n")
    assert text.endswith(f"{script.END}\nafter\n")
    assert "old" not in text
    assert "On a machine, torch 1." in text
    assert "| flattened |" + " 2.00, 0.80 |" * 6 in text
    assert "| flattened |" + " 8.0: 4.0 |" * 6 in text
    assert text.count("| **mean, against the best layout** |" + " **0.79** |" * 6) == 2  # (2 * 0.5 * 0.5)^(1/3)
    assert "- below 0.7 of the limit, forward: shuffle (6 of 6)\n" in text
    assert "- slower than PyTorch's best layout, forward: shuffle (6 of 6)\n" in text
    assert "- below 0.6 of the promised saving, forward: flattened (6 of 6)\n" in text
