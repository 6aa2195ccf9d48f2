"""The pictures of the pages are those that docs/pictures.py draws now, and every page shows its own."""

import importlib.util
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"


def pictures():
    spec = importlib.util.spec_from_file_location("pictures", DOCS / "pictures.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.PICTURES


@pytest.mark.parametrize("name", pictures())
def test_a_picture_is_current_and_on_its_page(name):
    """If not: python docs/pictures.py."""
    drawn = pictures()[name]().svg(name.replace("-", " "))
    assert (DOCS / "layers" / f"{name}.svg").read_text() == drawn
    assert len(drawn) < 20_000
    assert ET.fromstring(drawn).tag == "{http://www.w3.org/2000/svg}svg"
    assert f"({name}.svg)" in (DOCS / "layers" / f"{name}.md").read_text()


def test_no_picture_is_left_over():
    assert {p.stem for p in (DOCS / "layers").glob("*.svg")} == pictures().keys()
