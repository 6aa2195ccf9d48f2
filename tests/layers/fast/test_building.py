"""Kernels are compiled by one process at a time, which says so to who waits, and leaves nothing behind when stopped."""

import ctypes
import os
import platform
import pty
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from convscope.layers.fast.building import built

BUILD = """
import sys
from pathlib import Path
from convscope.layers.fast.building import built
library, why = built([Path(p) for p in sys.argv[1:]], lambda path: str(path))
print(library, why)
"""
pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="there is no compiler")


@pytest.fixture
def sources(tmp_path, monkeypatch):
    """Two files, a compiler that takes its time and writes down each call, and an empty cache."""
    slow = tmp_path / "slow"
    slow.write_text(f'#!/bin/sh\necho $$ >> {tmp_path}/calls\nsleep "$NAP"\nexec g++ "$@"\n')
    slow.chmod(0o755)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("CXX", str(slow))
    monkeypatch.setenv("NAP", "0")
    monkeypatch.delenv("CONVSCOPE_COMPILE", raising=False)
    files = [tmp_path / "one.cpp", tmp_path / "two.cpp"]
    for number, file in enumerate(files, 1):
        file.write_text(f'extern "C" int {file.stem}() {{ return {number}; }}\n')
    return files


def _calls(sources) -> list[int]:
    file = sources[0].with_name("calls")
    return [int(line) for line in file.read_text().split()] if file.exists() else []


def _lives(group: int) -> bool:
    """Whether a process of the group runs: one that was ended may still wait to be counted."""
    told = subprocess.run(["ps", "-eo", "pgid=,stat="], capture_output=True, text=True, check=True).stdout
    return any(int(of) == group and state[0] != "Z" for of, state in map(str.split, told.splitlines()))


def test_of_two_processes_one_compiles_and_a_person_at_a_terminal_is_told(sources, monkeypatch):
    monkeypatch.setenv("NAP", "1.3")
    command = [sys.executable, "-c", BUILD, *map(str, sources)]
    watched, end = pty.openpty()
    one = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=end, text=True)
    other = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    os.close(end)
    (built_by_one, _), (built_by_other, said) = (process.communicate(timeout=100) for process in (one, other))
    shown = os.read(watched, 100_000).decode()
    os.close(watched)
    assert built_by_one == built_by_other
    assert Path(built_by_one.split()[0]).is_file()
    assert len(_calls(sources)) == 3  # two files, and the library of them
    assert said == ""
    line = r"convscope: compiling kernels for this processor, once \((\d of 2 files|by another process), \d+ s\) *"
    assert re.fullmatch(rf"(\r{line})+\r\n", shown)


def test_ctrl_c_ends_the_compiler_and_leaves_nothing(sources, monkeypatch):
    def when_it_compiles():
        while not _calls(sources):
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setenv("NAP", "60")
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # in the background of a shell it is ignored
    threading.Thread(target=when_it_compiles, daemon=True).start()
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        built(sources, ctypes.CDLL)
    signal.signal(signal.SIGINT, before)
    assert time.monotonic() - began < 20
    assert _calls(sources)
    assert not [process for process in _calls(sources) if _lives(process)]
    monkeypatch.setenv("NAP", "0")
    library, why = built(sources, ctypes.CDLL)
    assert why == ""
    assert (library.one(), library.two()) == (1, 2)


def test_a_cache_that_cannot_be_written_is_said(sources, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "one.cpp"))
    library, why = built(sources, ctypes.CDLL)
    assert library is None
    assert "could not build them" in why


def test_a_damaged_library_is_built_anew(sources, tmp_path):
    assert built(sources, ctypes.CDLL)[1] == ""
    (library,) = (tmp_path / "convscope").glob("kernels-*.so")
    half = library.read_bytes()[: library.stat().st_size // 2]
    library.unlink()  # this process has it in its memory
    library.write_bytes(half)
    assert built(sources, ctypes.CDLL)[0].two() == 2
    assert len(_calls(sources)) == 6


def test_a_new_library_takes_the_place_of_those_that_nobody_reads(sources, tmp_path):
    built(sources, ctypes.CDLL)
    (first,) = (tmp_path / "convscope").glob("kernels-*.so")
    os.utime(first, (0, 0))
    built(sources, ctypes.CDLL)
    assert time.time() - first.stat().st_mtime < 600  # it was read
    for days in (0, 61):
        assert first.exists()
        os.utime(first, (time.time() - 86400 * days,) * 2)
        sources[0].write_text(sources[0].read_text() + "extern int more;\n")
        built(sources, ctypes.CDLL)
    assert not first.exists()
    assert len([*(tmp_path / "convscope").glob("kernels-*.so")]) == 2


def test_options_that_distributions_compile_with_change_nothing(tmp_path):
    """They move what lies on the stack: vectors that a template took for aligned once ended the process there."""
    compiler = tmp_path / "hardened"
    options = "-fstack-protector-strong -fstack-clash-protection -fcf-protection -D_FORTIFY_SOURCE=2"
    compiler.write_text(f'#!/bin/sh\nexec g++ {options if platform.machine() == "x86_64" else options[:24]} "$@"\n')
    compiler.chmod(0o755)
    place = os.environ | {"CXX": str(compiler), "XDG_CACHE_HOME": str(tmp_path)}
    tests = ("tests/layers/fast/test_forms.py::test_changed_weights_are_seen", "tests/layers/fast/test_normed.py")
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-p", "no:cov", *tests]
    done = subprocess.run(command, env=place, capture_output=True, text=True, cwd=Path(__file__).parents[3])
    assert done.returncode == 0, done.stdout + done.stderr
    assert len([*(tmp_path / "convscope").glob("kernels-*.so")]) == 2
