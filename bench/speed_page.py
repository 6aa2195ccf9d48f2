"""The results of `bench/speed.py` as a table of Markdown, put into a page between its two marks.

for model in resnet18 resnet50; do python bench/speed.py --models $model --out out/$model.json; done
python bench/speed_page.py out docs/optimize.md
"""

import argparse
import json
import math
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from convscope.files import write_whole

BEGIN, END = "<!-- measured: bench/speed_page.py writes what follows -->\n", "<!-- measured until here -->"
STOCK = "stock PyTorch"
LOSSLESS = ("fused convolutions", "torch.compile, frozen", "ONNX Runtime", "ONNX Runtime, one thread", "OpenVINO")
NUMERIC = ("PyTorch, bfloat16", "fused convolutions, bfloat16", "torch.compile, bfloat16", "OpenVINO, bfloat16",
           "fused convolutions, int8", "OpenVINO, int8", "ONNX Runtime, int8")  # fmt: skip
ORDER = ("LeNet5", "resnet18", "resnet50", "mobilenet_v2", "efficientnet_b0", "convnext_tiny", "fcn_resnet50")
Found = Mapping[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="of the files that `--out` wrote")
    parser.add_argument("page", type=Path)
    asked = parser.parse_args()
    files = [json.loads(path.read_text()) for path in sorted(asked.folder.glob("*.json"))]
    before, rest = asked.page.read_text().split(BEGIN)
    write_whole(asked.page, before + BEGIN + page(files) + rest[rest.index(END) :])


def page(files: Iterable[Found]) -> str:
    files = [*files]
    found = sorted((f for file in files for f in file["found"]), key=lambda f: (ORDER.index(f["model"]), f["batch"]))
    said = {f"{file['title']}; {' '.join(file['instructions'])}" for file in files}
    words = [f"\nOn {'; '.join(sorted(said))}. Times as fast as stock PyTorch, within 0.0001 of its outputs:\n"]
    words += [table(found, LOSSLESS), "\nIn bfloat16 and int8:\n", table(found, NUMERIC), "\n", *summary(found), "\n"]
    return "".join(words)


def table(found: Iterable[Found], sides: tuple[str, ...]) -> str:
    lines = ["| network | batch | stock, ms | " + " | ".join(sides) + " |", "|---" * (len(sides) + 3) + "|"]
    for f in found:
        over = ratios(f)
        best = max((over[s] for s in sides if s in over), default=0)
        cells = [shown(over.get(s), best) for s in sides]
        stock = next(r["ms"] for r in f["rows"] if r["side"] == STOCK)
        lines.append(f"| {f['model']} | {f['batch']} | {stock:.3g} | " + " | ".join(cells) + " |")
    return "\n" + "\n".join(lines) + "\n"


def shown(ratio: float | None, best: float) -> str:
    if ratio is None:
        return "-"
    return f"**{ratio:.2f}**" if ratio == best else f"{ratio:.2f}"


def ratios(f: Found) -> dict[str, float]:
    return {r["side"]: r["over"] for r in f["rows"]}


def summary(found: Iterable[Found]) -> list[str]:
    """The best of each stage beside stock, and ours beside the best of the others."""
    lines = []
    for words, sides in (("lossless form", LOSSLESS), ("form in bfloat16 or int8", NUMERIC)):
        best = [
            max(over[s] for s in sides if s in over) for over in map(ratios, found) if any(s in over for s in sides)
        ]
        if best:
            lines.append(f"- the best {words} is {mean(best):.2f} times as fast as stock in the geometric mean\n")
    beside_ours = {"fused convolutions": (LOSSLESS, "lossless forms")}
    for kind in ("bfloat16", "int8"):
        beside_ours[f"fused convolutions, {kind}"] = tuple(s for s in NUMERIC if kind in s), f"forms in {kind}"
    for own, (sides, words) in beside_ours.items():
        ours = {(f["model"], f["batch"]): beside(ratios(f), own, sides) for f in found}
        told = ", ".join(f"{name} {batch}: {r:.2f}" for (name, batch), r in ours.items() if r)
        lines.append(f"- {own}, times as fast as the best of the other {words} (network, batch): {told}\n")
    return ["\n", *lines]


def beside(over: Mapping[str, float], own: str, sides: tuple[str, ...]) -> float:
    others = [over[s] for s in sides if s in over and s != own]
    return over[own] / max(others) if others and own in over else 0


def mean(values: list[float]) -> float:
    return math.exp(sum(map(math.log, values)) / len(values))


if __name__ == "__main__":
    sys.exit(main())
