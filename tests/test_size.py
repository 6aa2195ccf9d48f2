"""What convscope adds to an installation that has torch and torchvision: its dependencies stay small."""

import re
import tomllib
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import convscope

PROJECT = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
PACKAGE = Path(convscope.__file__).parent
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


def _sizes(requirements: list[str]) -> dict[str, float]:
    """The MB of each package that these bring to an installation of torch and torchvision."""
    wanted, there = _needed({Requirement(text).name for text in requirements}), _needed(ANYWAY)
    return {name: _bytes(package) / 1e6 for name, package in wanted.items() if name not in there}


def test_what_is_added_to_torch_and_torchvision_is_little_and_what_the_readme_says() -> None:
    core = _sizes(PROJECT["dependencies"])
    assert {"lightning-fabric", "faster-coco-eval", "torchmetrics"} <= core.keys()
    more = {k: v for k, v in _sizes(PROJECT["optional-dependencies"]["pictures"]).items() if k not in core}
    assert {"matplotlib", "captum"} <= more.keys()
    own = sum(f.stat().st_size for f in PACKAGE.rglob("*") if f.is_file() and f.suffix != ".pyc") / 1e6
    told = re.search(
        r"what it needs add (\d+) MB to torch and torchvision.*by captum: (\d+) MB more", README, re.DOTALL
    )
    assert told
    found = (own + sum(core.values()), sum(more.values()))
    assert found == pytest.approx((int(told[1]), int(told[2])), rel=0.1), (core, more)
    assert found[0] < 60
