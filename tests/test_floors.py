"""Lower bounds of what is installed leave out the versions whose holes are known. `make audit` asks a database anew."""

import re
import tomllib
from pathlib import Path

import pytest

# package -> the first version without the hole, and the hole's name
HOLES = {
    "h11": ("0.16.0", "CVE-2025-43859"),
    "jinja2": ("3.1.6", "CVE-2025-27516"),
    "onnx": ("1.21.0", "CVE-2026-34445"),
    "pillow": ("12.1.1", "CVE-2026-25990"),
    "pyyaml": ("5.4", "CVE-2020-14343"),
    "ray": ("2.55.0", "CVE-2026-41486"),
    "scikit-learn": ("1.5.0", "CVE-2024-5206"),
    "starlette": ("0.49.1", "CVE-2025-62727"),
    "torch": ("2.6.0", "CVE-2025-32434"),
}


def _floors() -> dict[str, tuple[int, ...]]:
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
    lines = [*project["dependencies"], *(x for extra in project["optional-dependencies"].values() for x in extra)]
    found = [re.match(r"([\w-]+)(?:\[[\w,]+\])?>=([\d.]+)", line) for line in lines]
    return {m[1]: _numbers(m[2]) for m in found if m}


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")))


@pytest.mark.parametrize("package", HOLES)
def test_a_version_with_a_known_hole_is_not_installed(package: str) -> None:
    version, hole = HOLES[package]
    assert _floors()[package] >= _numbers(version.removesuffix(".0")), hole
