"""The compiled kernels: built once, found again, and absent in words where they cannot be built."""

import shutil
import subprocess

import pytest

from convscope.layers.fast import compiled

GCC = shutil.which("g++")


@pytest.fixture
def unbuilt(tmp_path, monkeypatch):
    """An empty cache folder, and nothing built in this process yet."""
    compiled._built.cache_clear()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("CONVSCOPE_COMPILE", raising=False)
    monkeypatch.delenv("CXX", raising=False)
    yield tmp_path / "convscope"
    compiled._built.cache_clear()


@pytest.mark.skipif(GCC is None, reason="there is no compiler")
def test_they_are_built_once(unbuilt, monkeypatch):
    assert compiled.kernels() is not None
    assert compiled.why_absent() == ""
    assert len(list(unbuilt.glob("kernels-*.so"))) == 1
    compiled._built.cache_clear()
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: pytest.fail("compiled again"))
    assert compiled.kernels() is not None


def test_the_switch_turns_them_off(unbuilt, monkeypatch):
    monkeypatch.setenv("CONVSCOPE_COMPILE", "0")
    assert (compiled.kernels(), compiled.why_absent(), compiled.digest()) == (None, "CONVSCOPE_COMPILE=0", "none")


def test_no_compiler_is_said(unbuilt, monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert compiled.why_absent() == "there is no no-such-compiler"


def test_a_compiler_that_fails_is_quoted(unbuilt, monkeypatch, tmp_path):
    broken = tmp_path / "broken"
    broken.write_text("#!/bin/sh\necho 'error: cannot' >&2\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setenv("CXX", str(broken))
    assert compiled.why_absent() == f"{broken} could not build them: error: cannot"
    assert not list(unbuilt.glob("kernels-*"))


@pytest.mark.skipif(GCC is None, reason="there is no compiler")
def test_a_damaged_library_is_built_anew(unbuilt):
    assert compiled.kernels() is not None
    (library,) = unbuilt.glob("kernels-*.so")
    library.unlink()
    library.write_bytes(b"not a library")
    compiled._built.cache_clear()
    assert compiled.why_absent() == ""
    assert compiled.kernels() is not None


def test_the_source_is_shipped():
    assert all(path.is_file() for path in compiled.SOURCES)
