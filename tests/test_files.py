"""A file is the old one or the new one, whatever happens in between."""

import os
import random
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from convscope.errors import InputError, RunError
from convscope.files import writable_folder, write_whole

WRITER = """
import itertools, sys
from convscope.files import write_whole
print("ready", flush=True)
for i in itertools.count():
    write_whole(sys.argv[1], bytes([i % 256]) * 3_000_000)
"""


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def test_a_killed_writer_leaves_a_whole_file(tmp_path):
    path, chance = tmp_path / "weights.bin", random.Random(0)
    write_whole(path, b"\xff" * 3_000_000)
    for _ in range(12):
        writer = subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE)
        assert writer.stdout is not None
        writer.stdout.readline()
        time.sleep(chance.uniform(0, 0.03))
        writer.send_signal(signal.SIGKILL)
        writer.communicate()
        content = path.read_bytes()
        assert len(content) == 3_000_000
        assert len(set(content)) == 1


@pytest.mark.parametrize(
    "write",
    [
        bytes(1_000_000),
        "x" * 1_000_000,
        lambda file: file.write(bytes(1_000_000)),
        lambda file: torch.save(torch.zeros(1_000_000), file),  # hides the disk's error below one of its own
    ],
    ids=["bytes", "text", "function", "torch.save"],
)
def test_a_full_disk_keeps_the_old_file(tmp_path, write):
    path = write_whole(tmp_path / "a.bin", "old")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        with pytest.raises(RunError, match=r"a\.bin: could not be written \(File too large\); nothing was replaced"):
            write_whole(path, write)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert path.read_text() == "old"
    assert names(tmp_path) == ["a.bin"]


def test_an_error_of_the_writer_passes_and_leaves_nothing(tmp_path):
    def broken(file):
        file.write(b"half")
        raise KeyError("weights")

    path = write_whole(tmp_path / "a.bin", "old")
    with pytest.raises(KeyError, match="weights"):
        write_whole(path, broken)
    assert path.read_text() == "old"
    assert names(tmp_path) == ["a.bin"]


def test_a_link_stays_and_its_target_is_replaced(tmp_path):
    write_whole(tmp_path / "target", "old")
    (tmp_path / "link").symlink_to("target")
    write_whole(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "target").read_text() == "new"


def test_a_pipe_is_written_not_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    reader = subprocess.Popen(["cat", str(tmp_path / "pipe")], stdout=subprocess.PIPE)
    write_whole(tmp_path / "pipe", "through")
    assert reader.communicate()[0] == b"through"
    assert (tmp_path / "pipe").is_fifo()


def test_the_mode_is_what_open_would_give(tmp_path):
    (tmp_path / "plain").touch()
    assert write_whole(tmp_path / "whole", "").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_the_longest_name_can_be_written(tmp_path):
    assert write_whole(tmp_path / ("n" * 255), "x").read_text() == "x"


@pytest.mark.parametrize(("name", "reason"), [("", "Is a directory"), ("no/a.bin", "No such file or directory")])
def test_a_place_that_cannot_be_written_is_said(tmp_path, name, reason):
    with pytest.raises(RunError, match=rf"could not be written \({reason}\)"):
        write_whole(tmp_path / name, "x")


def test_a_folder_is_made_with_its_parents(tmp_path):
    assert writable_folder(tmp_path / "a" / "b") == tmp_path / "a" / "b"
    assert writable_folder(str(tmp_path / "a" / "b")).is_dir()
    assert names(tmp_path / "a" / "b") == []


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("file", "is a file, but a folder is needed; give another --out"),
        ("file/below", "lies below a file, so it cannot be a folder; give another --out"),
        ("n" * 300, r"cannot be written \(File name too long\); give another --out"),
    ],
)
def test_what_cannot_be_a_folder_is_refused(tmp_path, name, words):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=words):
        writable_folder(tmp_path / name)


def test_a_read_only_folder_is_refused(tmp_path):
    code = (
        "import os, sys; os.getuid() or os.setuid(65534)\n"  # root may write everywhere
        "from convscope.files import writable_folder, write_whole\n"
        "for act in (writable_folder, lambda p: writable_folder(p + '/new'), lambda p: write_whole(p + '/a', 'x')):\n"
        "    try: act(sys.argv[1])\n"
        "    except Exception as error: print(type(error).__name__, str(error).removeprefix(sys.argv[1]))\n"
    )
    for folder in (tmp_path, *tmp_path.parents[:2]):
        folder.chmod(0o755)
    tmp_path.chmod(0o555)
    source = Path(__file__).parents[1] / "src"
    out = subprocess.run(
        [
            sys.executable,
            "-c",
            f"import sys; sys.path.insert(0, {str(source)!r})\nimport convscope.files\n{code}",
            tmp_path,
        ],
        capture_output=True,
        text=True,
    )
    tmp_path.chmod(0o755)
    assert out.stdout.splitlines() == [
        "InputError : cannot be written (Permission denied); give another --out",
        "InputError /new: cannot be written (Permission denied); give another --out",
        "RunError /a: could not be written (Permission denied); nothing was replaced",
    ], out.stderr
