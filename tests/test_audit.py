"""`make audit` ends in a sentence, whatever the database says or does not say."""

import os
import subprocess
import sys
from pathlib import Path

from audit import told

HOLE = {"id": "CVE-2026-25990", "fix_versions": ["12.1.1"]}


def test_holes_are_listed_with_what_mends_them():
    packages = [{"name": "pillow", "version": "11.0", "vulns": [HOLE]}, {"name": "a", "version": "1", "vulns": []}]
    code, lines = told(packages)
    assert code == 1
    assert lines == ["pillow 11.0: CVE-2026-25990; install 12.1.1", "audit: 1 known holes in 2 packages"]
    packages[0]["vulns"] = [HOLE | {"fix_versions": []}]
    assert told(packages)[1][0].endswith("there is no version without it")


def test_none_is_said_only_where_all_were_asked():
    whole = {"name": "a", "version": "1", "vulns": []}
    assert told([whole]) == (0, ["audit: no known hole in 1 packages"])
    code, lines = told([whole, {"name": "b", "skip_reason": "not found"}])
    assert (code, len(lines)) == (2, 1)
    assert lines[0].startswith("audit: the database of holes knows nothing of 1 of 2 packages; try again")


def test_a_database_that_cannot_be_reached_is_one_sentence(tmp_path: Path):
    (tmp_path / "installed.txt").write_text("pillow==12.1.1\n")
    nowhere = dict.fromkeys(
        ("HTTPS_PROXY", "HTTP_PROXY", "https_proxy", "http_proxy", "ALL_PROXY"), "http://127.0.0.1:9"
    )
    environment = os.environ | nowhere | {"NO_PROXY": "", "no_proxy": ""}
    command = [sys.executable, Path(__file__).with_name("audit.py"), tmp_path / "installed.txt"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert done.stderr == ""
    assert len(done.stdout.splitlines()) == 1
    assert done.stdout.startswith("audit: the database of holes ")
