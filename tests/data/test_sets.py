"""Image sets, the digits, and folders of pictures."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits

from convscope import data
from convscope.data import ImageSet, Normalisation, class_names, digits, folder, load
from convscope.errors import DataError, ImageError


def test_digits_are_the_whole_set_split_once() -> None:
    splits = digits()
    counts = np.bincount(load_digits().target)
    parts = (splits.train, splits.val, splits.test)
    assert sum(map(len, parts)) == 1797
    assert (sum(np.bincount(p.labels.numpy()) for p in parts) == counts).all()
    for part, share in zip(parts, (0.72, 0.08, 0.2), strict=True):
        assert np.abs(np.bincount(part.labels.numpy()) - share * counts).max() <= 2
    rows = {bytes(x.numpy().tobytes()) for p in parts for x in p.images}
    assert len(rows) == len({x.tobytes() for x in load_digits().images})  # no sample lies in two parts


def test_a_digit_is_the_bilinear_enlargement_of_its_source() -> None:
    splits, raw = digits((3, 32, 32)), load_digits()
    x = splits.test.images[7]
    assert x.shape == (3, 32, 32)
    assert torch.equal(x[0], x[2])
    small = x[0].reshape(8, 4, 8, 4).mean((1, 3)).numpy()  # linear between centres: the block mean is (s, 8-2s.., s)
    errors = np.abs(raw.images / 16 - small).mean((1, 2))
    assert raw.target[errors.argmin()] == splits.test.labels[7]
    assert errors.min() < 0.06 < np.sort(errors)[1]


def test_the_normalisation_of_the_digits_is_about_zero_mean_and_unit_deviation() -> None:
    x, _ = digits().train.batch(torch.arange(1293))
    assert abs(x.mean()) < 0.05
    assert abs(x.std() - 1) < 0.05


@pytest.mark.parametrize("shape", [(2, 32, 32), (1, 4, 4), (1, 32)])
def test_digits_refuse_a_shape_that_cannot_show_them(shape: tuple[int, ...]) -> None:
    with pytest.raises(DataError, match="digits: cannot be shown as"):
        digits(shape)


def test_a_batch_is_scaled_and_normalised() -> None:
    images = torch.tensor([0, 255, 51], dtype=torch.uint8).view(3, 1, 1, 1)
    s = ImageSet(images, torch.tensor([0, 1, 0]), ("a", "b"), Normalisation((0.5,), (0.25,)))
    x, y = s.batch(torch.tensor([2, 1]))
    assert x.flatten().tolist() == pytest.approx([(0.2 - 0.5) / 0.25, 2.0])
    assert y.tolist() == [0, 1]


@pytest.mark.parametrize(("label", "said"), [(7, "sample 1 has label 7"), (-1, "sample 1 has label -1")])
def test_a_label_outside_the_classes_is_found_at_the_start(label: int, said: str) -> None:
    with pytest.raises(DataError, match=said):
        ImageSet(torch.zeros(2, 1, 4, 4), torch.tensor([0, label]), ("a", "b", "c"))


def test_nan_pixels_and_empty_sets_are_refused() -> None:
    with pytest.raises(DataError, match="sample 1 holds NaN"):
        ImageSet(torch.tensor([0.0, float("nan")]).view(2, 1, 1, 1), torch.tensor([0, 0]), ("a",))
    with pytest.raises(DataError, match="at least one image"):
        ImageSet(torch.zeros(0, 1, 4, 4), torch.zeros(0, dtype=torch.int64), ("a",))
    with pytest.raises(DataError, match="positive std"):
        Normalisation((0.0,), (0.0,))


def _save(path: Path, level: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (12, 10), (level, 0, 255 - level)).save(path)


def _pictures(root: Path, counts: dict[str, int]) -> None:
    for at, (name, count) in enumerate(counts.items()):
        for i in range(count):
            _save(root / name / f"{i}.png", 40 * at + i)


def test_a_plain_folder_is_split_by_class_and_kept_as_bytes(tmp_path: Path) -> None:
    _pictures(tmp_path, {"cät 1": 20, "dog": 30})
    splits = load(str(tmp_path), shape=(3, 16, 16))
    assert class_names(str(tmp_path)) == ("cät 1", "dog") == splits.train.classes
    assert [p.labels.bincount().tolist() for p in (splits.train, splits.val, splits.test)] == [
        [14, 22],
        [2, 2],
        [4, 6],
    ]
    assert splits.train.images.dtype == torch.uint8
    assert splits.train.shape == (3, 16, 16)
    levels = {int(x[0, 8, 8]) for p in (splits.train, splits.val, splits.test) for x in p.images}
    assert levels == {*range(20), *range(40, 70)}  # every picture once, its red level unchanged
    pixels = splits.train.images.double() / 255
    assert splits.train.normalisation.mean == pytest.approx(pixels.mean((0, 2, 3)).tolist(), abs=1e-4)


def test_named_parts_are_taken_as_they_are(tmp_path: Path) -> None:
    for part, counts in (("train", {"a": 10, "b": 10}), ("val", {"a": 2, "b": 3}), ("test", {"a": 4, "b": 1})):
        _pictures(tmp_path / part, counts)
    splits = folder(tmp_path, shape=(1, 8, 8))
    assert [len(p) for p in (splits.train, splits.val, splits.test)] == [20, 5, 5]
    assert splits.test.shape == (1, 8, 8)


def test_links_and_strange_files_are_passed_over(tmp_path: Path) -> None:
    root = tmp_path / "set"
    _pictures(root, {"a": 10, "b": 10})
    (root / "a" / "loop").symlink_to(root)
    (root / "b" / "passwd.png").symlink_to("/etc/passwd")
    (root / "c").symlink_to(root / "a")
    (root / "a" / "._0.png").write_bytes(b"mac")
    (root / "a" / "Thumbs.db").write_bytes(b"windows")
    splits = folder(root, shape=(3, 8, 8))
    assert splits.train.classes == ("a", "b")
    assert sum(map(len, (splits.train, splits.val, splits.test))) == 20


def test_folders_that_are_no_data_set_say_why(tmp_path: Path) -> None:
    _pictures(tmp_path / "one", {"a": 2})
    with pytest.raises(DataError, match="has 1 class folders, but two are needed"):
        folder(tmp_path / "one", shape=(3, 8, 8))
    _pictures(tmp_path / "empty", {"a": 4, "b": 0})
    (tmp_path / "empty" / "b").mkdir()
    (tmp_path / "empty" / "c").mkdir()
    with pytest.raises(DataError, match="no pictures in the classes b, c"):
        folder(tmp_path / "empty", shape=(3, 8, 8))
    for part, classes in (("train", {"a": 9, "b": 9}), ("test", {"a": 1, "z": 1})):
        _pictures(tmp_path / "mixed" / part, classes)
    with pytest.raises(DataError, match="classes that the training part lacks: z"):
        folder(tmp_path / "mixed", shape=(3, 8, 8))
    _pictures(tmp_path / "few", {"a": 1, "b": 9})
    with pytest.raises(DataError, match="too few samples to hold out"):
        folder(tmp_path / "few", shape=(3, 8, 8))
    with pytest.raises(DataError, match="did you mean 'digits'"):
        load("digts", shape=(1, 32, 32))


def test_a_damaged_picture_stops_at_the_start_and_is_named(tmp_path: Path) -> None:
    _pictures(tmp_path, {"a": 9, "b": 9})
    (tmp_path / "a" / "3.png").write_bytes(b"")
    with pytest.raises(ImageError, match=r"3\.png"):
        folder(tmp_path, shape=(3, 8, 8))


def test_public_names() -> None:
    assert all(hasattr(data, name) for name in data.__all__)


@pytest.mark.parametrize("ask", [load, data.some, lambda spec, task, shape: class_names(spec, task=task)])
def test_a_task_that_is_none_is_refused(ask) -> None:
    with pytest.raises(DataError, match=r"task 'detcet': is none; did you mean 'detect'\?"):
        ask("scenes", task="detcet", shape=(3, 32, 32))
