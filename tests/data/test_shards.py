"""Tar shards are read as the folder is that was packed into them."""

import io
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from convscope import data
from convscope.errors import DataError


def _png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def _pictures(count: int, seed: int = 0) -> list[np.ndarray]:
    g = np.random.default_rng(seed)
    return [g.integers(0, 256, (20, 24, 3)).astype(np.uint8) for _ in range(count)]


def _pack(path: Path, files: dict[str, bytes]) -> None:
    with tarfile.open(path, "w") as made:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            made.addfile(member, io.BytesIO(content))


def _shards(root: Path, *, labels: str = "cat dog") -> list[np.ndarray]:
    names, pictures = labels.split(), _pictures(12)
    for at, shard in enumerate(("train-000.tar", "train-001.tar", "val-000.tar", "test-000.tar")):
        files: dict[str, bytes] = {}
        for i in range(3 * at, 3 * at + 3):
            files |= {f"{i:04}.png": _png(pictures[i]), f"{i:04}.cls": names[i % 2].encode()}
        _pack(root / shard, files)
    return pictures


def test_shards_hold_what_was_packed(tmp_path: Path) -> None:
    pictures = _shards(tmp_path)
    splits = data.load(str(tmp_path), shape=(3, 20, 24))
    assert splits.train.classes == ("cat", "dog")
    assert [len(s) for s in (splits.train, splits.val, splits.test)] == [6, 3, 3]
    wanted = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2)
    assert torch.equal(torch.cat([s.images for s in (splits.train, splits.val, splits.test)]), wanted)
    assert splits.train.labels.tolist() == [0, 1] * 3
    report = data.check(tmp_path)
    assert not any(f.stops for f in report.findings)
    assert (report.format, report.classes) == ("WebDataset shards", {"cat": 6, "dog": 6})


def test_numbers_are_classes_in_their_order_and_classes_txt_names_them(tmp_path: Path) -> None:
    _shards(tmp_path, labels="10 2")
    splits = data.load(str(tmp_path), shape=(3, 20, 24))
    assert splits.train.classes == ("2", "10")
    assert splits.train.labels.tolist() == [1, 0] * 3
    _shards(tmp_path, labels="1 0")
    (tmp_path / "classes.txt").write_text("cat\ndog\n")
    splits = data.load(str(tmp_path), shape=(3, 20, 24))
    assert splits.train.classes == ("cat", "dog")
    assert splits.train.labels.tolist() == [1, 0] * 3


def test_masks_lie_beside_their_pictures(tmp_path: Path) -> None:
    pictures, masks = _pictures(5), [p[..., 0] % 3 for p in _pictures(5, seed=1)]
    files: dict[str, bytes] = {}
    for i, (picture, mask) in enumerate(zip(pictures, masks, strict=True)):
        files |= {f"a/{i}.png": _png(picture), f"a/{i}.seg.png": _png(mask)}
    _pack(tmp_path / "all.tar", files)
    (tmp_path / "classes.txt").write_text("ground\nroad\ncar\n")
    splits: Any = data.load(str(tmp_path), shape=(3, 20, 24), task="segment")
    found = {s.name: s for part in (splits.train, splits.val, splits.test) for s in part.samples}
    for i, mask in enumerate(masks):
        assert np.array_equal(found[f"all.tar/a/{i}.png"].mask.numpy(), mask)


def test_pictures_are_read_in_the_order_in_which_they_lie(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _shards(tmp_path)
    read: list[str] = []
    whole = data.tree.Tree.read
    monkeypatch.setattr(data.tree.Tree, "read", lambda tree, name: read.append(name) or whole(tree, name))
    data.load(str(tmp_path), shape=(3, 20, 24))
    pictures = [name for name in read if name.endswith(".png")]
    assert len(pictures) == len(set(pictures)) == 12
    for shard in ("train-000.tar", "train-001.tar", "val-000.tar", "test-000.tar"):
        own = [name for name in pictures if name.startswith(shard)]
        assert own == sorted(own)


def test_what_is_wrong_is_said(tmp_path: Path) -> None:
    _shards(tmp_path)
    whole = (tmp_path / "val-000.tar").read_bytes()
    (tmp_path / "val-000.tar").write_bytes(whole[:2500])
    with pytest.raises(DataError, match=r"val-000.tar: is (cut short in|no tar file, or cut short)"):
        data.load(str(tmp_path), shape=(3, 20, 24))
    (tmp_path / "val-000.tar").write_bytes(b"no tar at all" * 100)
    with pytest.raises(DataError, match=r"val-000.tar: is no tar file, or cut short"):
        data.load(str(tmp_path), shape=(3, 20, 24))
    _pack(tmp_path / "val-000.tar", {"x.png": _png(_pictures(1)[0]), "y.cls": b"cat"})
    told = {f.what for f in data.check(tmp_path).findings}
    assert "has a picture, but no class (.cls) or mask (.seg.png) to learn" in told
    assert "has a label, but no picture" in told


def test_links_in_a_shard_are_passed_over(tmp_path: Path) -> None:
    _shards(tmp_path)
    with tarfile.open(tmp_path / "train-002.tar", "w") as made:
        for name in ("z.png", "z.cls"):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"
            made.addfile(member)
    assert len(data.load(str(tmp_path), shape=(3, 20, 24)).train) == 6


def test_nothing_of_a_hostile_shard_leaves_it(tmp_path: Path) -> None:
    """Names that lead out are names and nothing else; devices and hard links are passed over; a bomb is cut short."""
    root = tmp_path / "set"
    root.mkdir()
    _shards(root)
    png = _png(_pictures(1)[0])
    _pack(root / "train-002.tar", {"../../out.png": png, "../../out.cls": b"cat", "/abs.png": png, "/abs.cls": b"dog"})
    with tarfile.open(root / "train-002.tar", "a") as made:
        for name, kind in (("d.png", tarfile.CHRTYPE), ("d.cls", tarfile.FIFOTYPE), ("h.png", tarfile.LNKTYPE)):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, "/etc/passwd"
            made.addfile(member)
    before = sorted(tmp_path.rglob("*"))
    assert len(data.load(str(root), shape=(3, 20, 24)).train) == 6 + 2
    assert data.check(root).clean
    assert sorted(tmp_path.rglob("*")) == before
    bomb = tarfile.TarInfo("bomb.png")
    bomb.size = 2**40
    (root / "train-003.tar").write_bytes(bomb.tobuf() + bytes(1024))
    with pytest.raises(DataError, match=r"train-003\.tar: is cut short in 'bomb.png'"):
        data.load(str(root), shape=(3, 20, 24))
