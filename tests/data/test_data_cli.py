"""`convscope data`: exit codes, JSON, and sheets whose pixels are those of the samples."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

import folders
from convscope import data
from convscope.cli import app
from convscope.data import ImageSet
from convscope.data.augment import affine, draws
from convscope.data.images import Picture, read_image
from convscope.data.likeness import difference_hash, near_pairs
from convscope.predict.drawing import colours
from convscope.predict.sheet import CAPTION, GAP, sheet


def _run(*words: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["data", *words])
    return result.exit_code, result.output


def test_check_exits_with_0_when_clean_and_2_when_not(tmp_path: Path) -> None:
    root = folders.yolo(tmp_path)
    code, text = _run("check", str(root))
    assert (code, text.splitlines()[-1]) == (0, "nothing stops training")
    (root / "labels" / "3.txt").write_text("0 0.5 0.5 2 0.1\n")
    code, text = _run("check", str(root))
    assert code == 2
    assert "labels/3.txt:1  '2' is not within 0 to 1" in text
    code, text = _run("check", str(root), "--json")
    told = json.loads(text)
    assert (code, told["clean"], told["format"], told["parts"]) == (2, False, "YOLO", {"train": 6})
    assert told["findings"][0]["where"] == "labels/3.txt:1"


@pytest.mark.parametrize("task", ["detect", "segment"])
def test_show_draws_a_folder(tmp_path: Path, task: str) -> None:
    root = folders.coco(tmp_path)
    code, text = _run("show", str(root), "--task", task, "--out", str(tmp_path / "s.png"), "--count", "5")
    assert code == 0, text
    assert f"COCO JSON, to {task}" in text
    cell = 384
    with Image.open(tmp_path / "s.png") as drawn:
        assert drawn.size == (GAP + 4 * (cell + GAP), GAP + 2 * (cell + CAPTION + GAP))


def test_show_leaves_out_what_cannot_be_read_and_says_so(tmp_path: Path) -> None:
    root = folders.classes(tmp_path, count=3)
    (root / "cat" / "1.png").write_bytes(b"")
    code, text = _run("show", str(root), "--out", str(tmp_path / "s.png"))
    assert code == 0
    assert "1 could not be shown, and `convscope data check" in text


def test_a_sheet_holds_the_pictures_and_the_colours_of_their_masks(tmp_path: Path) -> None:
    samples = data.some(str(folders.pairs(tmp_path)), shape=(3, 30, 40), count=1)[0]
    drawn = np.asarray(sheet(samples)).astype(int)
    zoom = 13  # of 30 pixels to 384 and more
    at = drawn[GAP + zoom * 10 + 6, GAP + zoom * 10 + 6], drawn[GAP + 6, GAP + 6]
    inside, outside = (samples.samples[0].image[:, i, i].tolist() for i in (10, 0))
    assert at[1].tolist() == outside
    mixed = 0.45 * np.array(inside) + 0.55 * np.array(colours(2)[1])
    assert np.abs(at[0] - mixed).max() <= 1


def test_augmented_samples_are_those_of_the_first_epoch() -> None:
    one = ImageSet(torch.rand(2, 1, 384, 384), torch.tensor([0, 1]), ("cat", "dog"))
    wanted = affine(one.images, draws(2, seed=3, epoch=1)).mul(255).round()[0, 0]
    drawn = np.asarray(sheet(one, augmented=True, seed=3))[GAP : GAP + 384, GAP : GAP + 384, 0]
    assert np.array_equal(drawn, wanted.numpy())


def test_hashes_know_a_picture_again_and_tell_others_apart(tmp_path: Path) -> None:
    for i in range(20):
        with Image.open(folders.picture(tmp_path / f"{i}.png", seed=i, size=(9, 9))) as small:
            image = small.resize((300, 200), Image.Resampling.BICUBIC)
        image.save(tmp_path / f"{i}.png")
        image.resize((150, 100)).save(tmp_path / f"{i}.jpg", quality=75)
    names = [[tmp_path / f"{i}.{end}" for i in range(20)] for end in ("png", "jpg")]
    one, other = (np.stack([difference_hash(read_image(name)) for name in some]) for some in names)
    assert list(near_pairs(one, other)) == [(i, i) for i in range(20)]
    even = np.stack([difference_hash(Picture(np.full((8, 8, 1), 0.5, np.float32), "L", ""))] * 2)
    assert list(near_pairs(even, even)) == []
