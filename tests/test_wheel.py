"""A wheel that is built from the source tree has every file of the package in it, and nothing else."""

import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BACKEND = "hatchling.build"


def test_a_wheel_has_every_file_of_the_package(tmp_path, monkeypatch):
    build = pytest.importorskip(BACKEND, reason="the build backend is not installed")
    monkeypatch.chdir(ROOT)
    wheel = zipfile.ZipFile(tmp_path / build.build_wheel(str(tmp_path)))
    package = ROOT / "src" / "convscope"
    files = {
        str(p.relative_to(ROOT / "src")) for p in package.rglob("*") if p.is_file() and "__pycache__" not in p.parts
    }
    assert {Path(f).suffix for f in files} >= {".py", ".cpp", ".h", ".js", ".html", ".css", ".typed"}
    packed = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert packed == files
    assert all(wheel.read(name) == (ROOT / "src" / name).read_bytes() for name in packed)
