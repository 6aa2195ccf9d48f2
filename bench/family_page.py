"""The results of `bench/family.py` as tables of Markdown, put into a page between its marks; or, given the folder of
the members' pages, what each costs at one size on its own page.

for size in 16 56 112; do for batch in 1 8; do for how in "" --training; do
    python bench/family.py --size $size --batch $batch $how --out out/$size-$batch$how.json
done; done; done
python bench/family_page.py out docs/fast.md
python bench/family_page.py out docs/layers
"""

import argparse
import json
import math
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from convscope.files import write_whole
from family import SAVING, SHARE, slower, unkept

BEGIN, END = "<!-- measured: bench/family_page.py writes what follows -->\n", "<!-- measured until here -->"
SETTINGS = [(size, batch) for size in (16, 56, 112) for batch in (1, 8)]
COSTS, SHOWN = "<!-- measured: bench/family_page.py writes what follows, to the end -->\n", (56, 1)
PAGES = {  # of a page, the members whose cost it tells
    "dense": ["dense 3x3"],
    "dilated": ["dilated 3x3"],
    "spatially-separable": ["spatially separable"],
    "depthwise-separable": ["depthwise separable"],
    "flattened": ["flattened"],
    "grouped": ["grouped, 4", "grouped, 32"],
    "shuffled-grouped": ["grouped, shuffled"],
    "depthwise": ["depthwise 3x3", "depthwise 31x31"],
    "pointwise": ["pointwise"],
    "transposed": ["transposed 3x3, 2", "transposed 2x2, 2"],
    "pooling": ["max pool 2", "average pool 3, 1"],
}
Runs = dict[tuple[int, int], dict[str, Any]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="of the files that `--out` wrote: SIZE-BATCH.json, with --training")
    parser.add_argument("page", type=Path, help="or the folder of the members' pages")
    asked = parser.parse_args()
    if asked.page.is_dir():
        costs(asked.folder, asked.page)
        return
    forward, training = ({s: read(asked.folder, s, how) for s in SETTINGS} for how in ("", "--training"))
    text = asked.page.read_text()
    before, rest = text.split(BEGIN)
    after = rest[rest.index(END) :]
    write_whole(asked.page, before + BEGIN + page(forward, training) + after)


def costs(folder: Path, pages: Path) -> None:
    """A table at the end of each member's page."""
    run = read(folder, SHOWN, "")
    for name, members in PAGES.items():
        page = pages / f"{name}.md"
        kept = page.read_text().split(COSTS)[0].rstrip("\n")
        write_whole(page, f"{kept}\n\n{COSTS}{cost(members, run)}")


def read(folder: Path, setting: tuple[int, int], how: str) -> dict[str, Any]:
    size, batch = setting
    return json.loads((folder / f"{size}-{batch}{how}.json").read_text())


def page(forward: Runs, training: Runs) -> str:
    title = next(iter(forward.values()))["title"]
    parts = [
        f"\nOn {title.split('; ', 1)[1]}. Times as fast as PyTorch's best layout, forward, and behind it the "
        "share of the machine's limit:\n",
        table(forward, lambda r: f"{r['over_best']:.2f}, {r['share']:.2f}"),
        "\nForward and backward, times as fast as PyTorch's best layout:\n",
        table(training, lambda r: f"{r['over_best']:.2f}"),
        "\nWhat is promised (MACs of the dense 3x3 convolution over those of the member), and what is delivered, "
        "forward: PyTorch's best time for the dense one over ours for the member:\n",
        table(
            forward,
            lambda r: "" if r["promised"] is None else f"{r['promised']:.1f}: {r['direct']:.1f}",
            means=False,
        ),
        "\nShort of the goals:\n\n",
        *(f"- {line}\n" for line in short(forward, training)),
        "\n",
    ]
    return "".join(parts)


def cost(members: list[str], run: dict[str, Any]) -> str:
    """A table of milliseconds: PyTorch's default layout, its best one, and ours, of each member."""
    what, machine = run["title"].split("; ", 1)
    rows = {r["member"]: [f"{r[side]:.3g}" for side in ("default", "best", "ours")] for r in run["rows"]}
    lines = [f"| {' | '.join([name, *rows[name]])} |" for name in members if name in rows]
    head = ["| ms | PyTorch | its best layout | [at its fastest](../fast.md) |", "|---|---|---|---|"]
    return f"{what} ({machine.split(', torch', 1)[0]}):\n\n" + "\n".join([*head, *lines]) + "\n"


def table(runs: Runs, cell: Callable[[dict[str, Any]], str], *, means: bool = True) -> str:
    names = [r["member"] for r in next(iter(runs.values()))["rows"]]
    lines = ["| member | " + " | ".join(f"{s}x{s}, batch {b}" for s, b in runs) + " |", "|---" * (len(runs) + 1) + "|"]
    rows = {s: {r["member"]: r for r in run["rows"]} for s, run in runs.items()}
    for name in names:
        cells = [cell(by[name]) if name in by else "-" for by in rows.values()]
        if any(cells):
            lines.append(f"| {name} | " + " | ".join(cells) + " |")
    for key, words in (("over_best", "best"), ("over_default", "default")) if means else ():
        found = [f"**{mean([r[key] for r in by.values()]):.2f}**" for by in rows.values()]
        lines.append(f"| **mean, against the {words} layout** | " + " | ".join(found) + " |")
    return "\n" + "\n".join(lines) + "\n"


def mean(ratios: list[float]) -> float:
    return math.exp(sum(map(math.log, ratios)) / len(ratios))


def short(forward: Runs, training: Runs) -> list[str]:
    """Each goal that is missed, with the members and how often."""
    goals = {
        f"below {SHARE} of the limit, forward": missed(forward, lambda r: r["share"] < SHARE),
        "slower than PyTorch's best layout, forward": missed(forward, slower),
        "slower, forward and backward": missed(training, slower),
        f"below {SAVING} of the promised saving, forward": missed(forward, unkept),
        f"below {SAVING} of the promised saving, forward and backward": missed(training, unkept),
    }
    return [f"{goal}: {', '.join(places) or 'none'}" for goal, places in goals.items()]


def missed(runs: Runs, falls_short: Callable[[dict[str, Any]], bool]) -> list[str]:
    rows = [r for run in runs.values() for r in run["rows"]]
    count = Counter(r["member"] for r in rows if falls_short(r))
    measured = Counter(r["member"] for r in rows)
    return [f"{name} ({times} of {measured[name]})" for name, times in count.items()]


if __name__ == "__main__":
    sys.exit(main())
