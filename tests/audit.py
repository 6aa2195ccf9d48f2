"""What `make audit` does: known holes in what is installed, in a sentence; `python tests/audit.py [FILE]`.

FILE lists packages as `pip freeze` does. Exit code 1 if there are holes, 2 if the database could not be asked.
"""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

COMMAND = ["--progress-spinner", "off", "--no-deps", "--disable-pip", "--format", "json"]
AGAIN = "try again where pypi.org can be reached"


def told(packages: Sequence[dict[str, Any]]) -> tuple[int, list[str]]:
    """The exit code, and the lines to print, of what pip-audit says of each package."""
    asked = [p for p in packages if "skip_reason" not in p]
    lines = [
        f"{p['name']} {p['version']}: {hole['id']}; "
        + (f"install {' or '.join(hole['fix_versions'])}" if hole["fix_versions"] else "there is no version without it")
        for p in asked
        for hole in p["vulns"]
    ]
    if lines:
        return 1, [*lines, f"audit: {len(lines)} known holes in {len(asked)} packages"]
    if len(asked) < len(packages):
        left = f"{len(packages) - len(asked)} of {len(packages)} packages"
        return 2, [f"audit: the database of holes knows nothing of {left}; {AGAIN}"]
    return 0, [f"audit: no known hole in {len(asked)} packages"]


def main() -> int:
    listed = Path(sys.argv[1]) if len(sys.argv) > 1 else Path("dist/installed.txt")
    tool = Path(sys.executable).with_name("pip-audit")
    done = subprocess.run([tool, *COMMAND, "-r", listed], capture_output=True, text=True)
    try:
        code, lines = told(json.loads(done.stdout)["dependencies"])
    except (ValueError, KeyError):
        why = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        code, lines = 2, [f"audit: the database of holes could not be asked ({why[:200]}); {AGAIN}"]
    print(*lines, sep="\n")
    return code


if __name__ == "__main__":
    sys.exit(main())
