"""Pictures as a person names them: folders, patterns, and those that come with the package."""

from pathlib import Path

import pytest
import torch
from PIL import Image

from convscope.data.named import expand, open_picture
from convscope.data.scenes import scene
from convscope.errors import ImageError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("b.png", "a.JPG", "c.txt", "d [1].png"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "inner.png").mkdir()
    Image.new("RGB", (4, 4)).save(tmp_path / "b.png")
    return tmp_path


def test_folders_and_patterns_stand_for_their_pictures_in_order(folder: Path) -> None:
    inside = [str(folder / n) for n in ("a.JPG", "b.png", "d [1].png")]
    assert expand([str(folder)]) == inside
    assert expand([str(folder / "*.png")]) == inside[1:]
    assert expand([str(folder / "d [1].png"), "digits:3", "no/such.png"]) == [inside[2], "digits:3", "no/such.png"]


def test_a_folder_or_a_pattern_without_pictures_is_refused(tmp_path: Path) -> None:
    for name in (str(tmp_path), str(tmp_path / "*.png")):
        with pytest.raises(ImageError, match=r"holds no pictures \(\.avif, .*\); check the path"):
            expand([name])


def test_a_scene_is_the_one_of_the_test_part() -> None:
    picture = open_picture("scenes:7")
    assert torch.equal((picture.tensor()[0] * 255).round().byte(), scene("test", 7).image.as_subclass(torch.Tensor))
    for name in ("scenes:300", "scenes:x", "scenes:"):
        with pytest.raises(ImageError, match="there is no such scene; use scenes:0 to scenes:299"):
            open_picture(name)
