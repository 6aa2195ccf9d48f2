"""What comes with the package is what it says: held to the packages that it was taken from."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skimage.data
import sklearn.datasets
from PIL import Image
from sklearn.model_selection import train_test_split

from convscope.data.embedded import DIGITS, FOLDER, PHOTOGRAPHS

SAMPLES = Path(sklearn.datasets.__file__).parent / "images"


def test_the_digits_are_those_of_scikit_learn_in_its_stratified_parts() -> None:
    raw: Any = sklearn.datasets.load_digits()
    everything = np.arange(len(raw.target))
    rest, test = train_test_split(everything, test_size=0.2, random_state=0, stratify=raw.target)
    rest = np.sort(rest)
    _, val = train_test_split(rest, test_size=0.1, random_state=0, stratify=raw.target[rest])
    part = np.zeros(len(everything))
    part[test], part[val] = 2, 1
    with np.load(DIGITS) as found:
        assert np.array_equal(found["images"], raw.images)
        assert np.array_equal(found["labels"], raw.target)
        assert np.array_equal(found["part"], part)


@pytest.mark.parametrize("name", PHOTOGRAPHS)
def test_a_photograph_is_the_one_of_its_source(name: str) -> None:
    path = PHOTOGRAPHS[name]
    if (SAMPLES / path.name).exists():
        assert path.read_bytes() == (SAMPLES / path.name).read_bytes()
    else:
        assert np.array_equal(np.asarray(Image.open(path)), getattr(skimage.data, name)())


def test_every_file_says_whose_it_is() -> None:
    told = (FOLDER / "LICENSES.md").read_text()
    files = {path.name for path in FOLDER.iterdir() if path.suffix in {".npz", ".png", ".jpg"}}
    assert files == {DIGITS.name, *(path.name for path in PHOTOGRAPHS.values())}
    assert all(f"| {name} |" in told for name in files)
