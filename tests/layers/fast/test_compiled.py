"""The compiled kernels: built once, found again, and absent in words where they cannot be built."""

import os
import shutil
import subprocess

import pytest

from convscope.layers.fast import building, compiled, training

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


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A cache folder in which they were built, some seconds ago."""
    if GCC is None:
        pytest.skip("there is no compiler")
    root = tmp_path_factory.mktemp("built")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(root))
        patch.delenv("CXX", raising=False)
        compiled._built.cache_clear()
        assert compiled.kernels() is not None
        compiled._built.cache_clear()
    return root / "convscope"


@pytest.fixture
def built(made, unbuilt):
    """A copy of it."""
    shutil.copytree(made, unbuilt)
    return unbuilt


def test_they_are_built_once(built, monkeypatch):
    assert len(list(built.glob("kernels-*.so"))) == 1
    monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: pytest.fail("compiled again"))
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


def _put(library, content):
    """As another file: this process has the old one in its memory."""
    library.unlink()
    library.write_bytes(content)


def test_a_library_that_is_not_what_was_built_is_never_loaded(built, monkeypatch):
    """One that is cut would end the process when it is used, and one of another user may hold anything."""
    (library,) = built.glob("kernels-*.so")
    content, loaded = library.read_bytes(), []
    monkeypatch.setattr(building, "_compile", lambda compiler, path, *_: _put(path, b"built anew"))

    def load():
        building._loaded("g++", library, (), lambda path: loaded.append(path.read_bytes()))

    flipped = bytearray(content)
    flipped[len(content) // 2] ^= 1
    for damaged in (b"", b"not a library", content[: len(content) // 2], bytes(flipped), content + b"more"):
        _put(library, damaged)
        load()
        assert loaded[-1] == b"built anew"
    _put(library, content)
    load()
    assert loaded[-1] == content
    monkeypatch.setattr(building.os, "geteuid", lambda: 4321)
    monkeypatch.setattr(building.Path, "stat", lambda path: os.stat_result((0o100644, 1, 1, 1, 1234, 0, 9, 0, 0, 0)))
    load()
    assert loaded[-1] == b"built anew"


def test_the_source_is_shipped():
    assert all(path.is_file() for path in (*compiled.SOURCES, *training.SOURCES))
