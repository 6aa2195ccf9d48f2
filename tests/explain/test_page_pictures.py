"""The pictures of the pages can be drawn again by the commands that the pages show."""

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("pictures_of_networks", DOCS / "pictures_of_networks.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_picture_is_drawn_by_a_command_of_its_page_and_small(script: ModuleType) -> None:
    assert {p.stem for p in (DOCS / "pictures").glob("*.png")} == script.DRAWN.keys()
    for name, commands in script.DRAWN.items():
        page = (DOCS / f"{name}.md").read_text()
        assert f"(pictures/{name}.png)" in page
        for words in commands:
            assert f"$ convscope {' '.join(words).replace('DEMO', 'runs/demo')}" in page
        assert (DOCS / "pictures" / f"{name}.png").stat().st_size < 70_000


def test_the_map_of_the_page_is_the_one_that_is_drawn_now(script: ModuleType) -> None:
    """If not: python docs/pictures_of_networks.py attribute."""
    drawn = script.draw("attribute").convert("RGB")
    with Image.open(DOCS / "pictures" / "attribute.png") as kept:
        difference = np.abs(np.asarray(drawn, dtype=float) - np.asarray(kept.convert("RGB"), dtype=float))
    assert difference.mean() < 4


@pytest.mark.parametrize(("name", "more"), [("patches", ("--top", "4")), ("visualise", ("--steps", "2"))])
def test_the_others_can_be_drawn(name: str, more: tuple[str, ...], script: ModuleType) -> None:
    drawn = np.asarray(script.draw(name, *more, epochs=1).convert("RGB"), dtype=float)
    assert drawn.std() > 10
