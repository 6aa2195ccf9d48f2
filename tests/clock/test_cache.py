"""What nobody reads for long leaves the cache folder; what is read, is young, is a link or is not ours stays."""

import os
import time
from pathlib import Path

import pytest

from convscope.clock import cache

DAY = 86400


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    cache.folder().mkdir()
    return cache.folder()


def _put(path: Path, days: float) -> Path:
    path.write_text("content")
    return _aged(path, days)


def _aged(path: Path, days: float) -> Path:
    os.utime(path, (time.time() - days * DAY,) * 2)
    return path


def test_what_was_not_read_for_sixty_days_goes(folder):
    names = ("fused-0123456789abcdef.json", "one-or-steps-0123456789abcdef.json", "kernels-0123456789abcdef.so")
    old = [_put(folder / name, 61) for name in names]
    young = [_put(folder / name.replace("0", "1"), 59) for name in names]
    cache.remove_unread()
    assert not any(path.exists() for path in old)
    assert all(path.exists() for path in young)


def test_nothing_else_is_touched(folder, tmp_path):
    others = (
        "compiling.lock",
        "fused-0123.json",
        "notes.json",
        "kernels-0123456789abcdef.so.bak",
        "a-0123456789abcdef.so ",
    )
    kept = [_put(folder / name, 100) for name in others]
    (folder / "deeper-0123456789abcdef.json").mkdir()
    kept.append(_put(folder / "deeper-0123456789abcdef.json" / "fused-0123456789abcdef.json", 100))
    target = _put(tmp_path / "fused-0123456789abcdef.json", 100)
    link = folder / target.name
    link.symlink_to(target)
    os.utime(link, (0, 0), follow_symlinks=False)
    cache.remove_unread()
    assert all(path.exists() for path in [*kept, target, link])


def test_what_is_read_stays_for_as_long_aged(folder):
    assert cache.save("limits", {"a": 1}, 7)
    (path,) = folder.iterdir()
    _aged(path, 59)
    assert cache.load("limits", {"a": 1}) == 7
    assert time.time() - path.stat().st_mtime < DAY
    _aged(path, 0.5)
    before = path.stat().st_mtime
    assert cache.load("limits", {"a": 1}) == 7
    assert path.stat().st_mtime == before  # a file is not written to for every process that reads it
    _aged(path, 61)
    cache.remove_unread()
    assert cache.load("limits", {"a": 1}) is None


def test_failures_are_silent(folder, tmp_path, monkeypatch):
    path = _put(folder / "fused-0123456789abcdef.json", 100)

    def refuse(*_, **__):
        raise PermissionError

    monkeypatch.setattr(os, "unlink", refuse)
    monkeypatch.setattr(os, "utime", refuse)
    cache.remove_unread()
    cache.was_read(path)
    assert path.exists()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "missing"))
    cache.remove_unread()
    cache.was_read(tmp_path / "missing" / "file")
