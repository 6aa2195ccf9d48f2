"""What convscope adds to an installation that has torch and torchvision: its dependencies stay small."""

import re
import tomllib
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PROJECT = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
PLOTS = {"matplotlib", "contourpy", "cycler", "fonttools", "kiwisolver", "pyparsing", "python-dateutil"}
README = (Path(__file__).parents[1] / "README.md").read_text()
ANYWAY = {"torch", "torchvision"}


def _needed(names: set[str]) -> dict[str, Distribution]:
    """These packages and all that they need here, as they are installed."""
    found: dict[str, Distribution] = {}
    left = [*names]
    while left:
        name = canonicalize_name(left.pop())
        if name in found:
            continue
        try:
            found[name] = distribution(name)
        except PackageNotFoundError:
            continue
        wanted = map(Requirement, found[name].requires or ())
        left += [r.name for r in wanted if r.marker is None or r.marker.evaluate({"extra": ""})]
    return found


def _bytes(package: Distribution) -> int:
    files = (Path(str(package.locate_file(f))) for f in package.files or () if f.suffix != ".pyc")
    return sum(f.stat().st_size for f in files if f.is_file())


def added() -> dict[str, int]:
    """The bytes of each package that convscope needs, and torch and torchvision do not."""
    base, there = _needed({Requirement(text).name for text in PROJECT["dependencies"]}), _needed(ANYWAY)
    return {name: _bytes(package) for name, package in base.items() if name not in there}


def test_what_is_added_to_torch_and_torchvision_is_what_the_readme_says() -> None:
    sizes = {name: size / 1e6 for name, size in added().items()}
    assert {"matplotlib", "lightning-fabric", "faster-coco-eval"} <= sizes.keys()
    assert not {"ray", "onnx", "openvino", "pyarrow", "pandas", "timm", "scipy", "scikit-learn"} & sizes.keys()
    told = re.search(r"add (\d+) MB to\s+torch and torchvision, (\d+) of them matplotlib", README)
    assert told
    plots = sum(sizes[name] for name in PLOTS & sizes.keys())
    assert (sum(sizes.values()), plots) == pytest.approx((int(told[1]), int(told[2])), rel=0.1), sizes
