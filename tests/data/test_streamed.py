"""Sets that are larger than the memory they are given: the same numbers, each picture read when it is asked for."""

import io
import tarfile
import weakref
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import folders
from convscope import data
from convscope.data import loading
from convscope.data.augment import mixed
from convscope.data.streamed import AHEAD, Unread, expect
from convscope.errors import ConvscopeError
from convscope.evaluate import evaluate_run
from convscope.runs import TrainConfig
from convscope.train import train
from convscope.train.parts import batches

LITTLE = 1e-9  # GB
SHAPE = (3, 24, 32)
SETTINGS: dict[str, Any] = {"epochs": 2, "batch_size": 16, "num_threads": 1, "device": "cpu"}


def shards(root: Path, *, count: int = 60, size: int = 32, number: int = 3) -> Path:
    """Pictures of two classes, bright on the left or on the right, in parts with their own test shard."""
    root.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(0)
    for shard in range(number + 1):
        name = f"train-{shard:03}.tar" if shard < number else "test-000.tar"
        with tarfile.open(root / name, "w") as made:
            for at in range(count):
                pixels = noise.integers(0, 128, (size, size, 3), dtype=np.uint8)
                pixels[:, (at % 2) * size // 2 :][:, : size // 2] += 100
                buffer = io.BytesIO()
                Image.fromarray(pixels).save(buffer, "jpeg")
                for ending, content in (("jpg", buffer.getvalue()), ("cls", b"left right".split()[at % 2])):
                    member = tarfile.TarInfo(f"{at:05}.{ending}")
                    member.size = len(content)
                    made.addfile(member, io.BytesIO(content))
    return root


@pytest.mark.parametrize(("kind", "task"), [("coco", "detect"), ("coco", "segment"), ("classes", "classify"),
                                            ("shards", "classify")])  # fmt: skip
def test_a_set_that_is_read_anew_gives_what_a_held_one_gives(kind: str, task: Any, tmp_path: Path) -> None:
    {"coco": folders.coco, "classes": folders.classes, "shards": shards}[kind](tmp_path / "set")
    held, lazy = (data.load(str(tmp_path / "set"), shape=SHAPE, task=task, memory=m) for m in (1.0, LITTLE))
    for part in ("train", "val", "test"):
        one, other = getattr(held, part), getattr(lazy, part)
        assert (len(one), one.shape, one.classes, one.normalisation) == (
            len(other), other.shape, other.classes, other.normalisation,
        )  # fmt: skip
        assert torch.equal(one.class_counts(), other.class_counts())
        indices, draws = torch.arange(len(one)).flip(0), torch.linspace(-1, 1, 6 * len(one)).view(-1, 6)
        for mine, theirs in zip(one.batch(indices, draws=draws), other.batch(indices, draws=draws), strict=True):
            for a, b in zip(*(v if isinstance(v, tuple) else (v,) for v in (mine, theirs)), strict=True):
                assert torch.equal(a, b)
        assert torch.equal(one.thumbnail(0), other.thumbnail(0))
        some, same = (own.subset(indices[:1]).batch(torch.tensor([0]))[0] for own in (one, other))
        assert torch.equal(some, same)


def test_shards_are_learnt_from_and_measured_without_being_held(tmp_path: Path) -> None:
    source = str(shards(tmp_path / "set"))
    for name, memory in (("held", 1.0), ("lazy", LITTLE)):
        train(TrainConfig(data=source, model="LeNet5", memory=memory, **SETTINGS), out=tmp_path / name, progress=False)
    held, lazy = (evaluate_run(tmp_path / name, data=source).evaluation for name in ("held", "lazy"))
    assert held.num_images == lazy.num_images == 60
    assert held.accuracy > 0.9
    assert lazy.accuracy > 0.9


def test_pictures_in_files_of_their_own_are_learnt_bit_for_bit(tmp_path: Path) -> None:
    source = str(folders.classes(tmp_path / "set", count=30))
    for name, memory in (("held", 1.0), ("lazy", LITTLE)):
        train(TrainConfig(data=source, model="LeNet5", memory=memory, **SETTINGS), out=tmp_path / name, progress=False)
    one, other = (load_file(tmp_path / name / "model.safetensors") for name in ("held", "lazy"))
    assert all(torch.equal(value, other[key]) for key, value in one.items())


def test_each_rank_reads_its_own_pictures_once_an_epoch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    splits = data.load(str(shards(tmp_path)), shape=SHAPE, memory=LITTLE)
    read: list[str] = []
    whole = data.tree.Tree.read  # pyright: ignore[reportAttributeAccessIssue]
    monkeypatch.setattr(data.tree.Tree, "read", lambda tree, name: read.append(name) or whole(tree, name))  # pyright: ignore
    turn = batches(splits.train, seed=0, epoch=0, number=9)
    seen = []
    for rank in range(2):
        read.clear()
        mine = [batch.tensor_split(2)[rank] for batch in turn]
        splits.train.images.samples.expect(torch.cat(mine).tolist())
        for batch in mine:
            splits.train.batch(batch)
        seen.append([name for name in read if name.endswith(".jpg")])
        assert max(Counter(seen[-1]).values()) == 1
    assert not {*seen[0]} & {*seen[1]}
    assert len({*seen[0]} | {*seen[1]}) == len(splits.train)


def test_an_epoch_of_shards_stays_in_few_places_and_depends_on_seed_and_epoch() -> None:
    count = 80 * 256
    turn = mixed(count, seed=3, epoch=4)
    assert sorted(turn.tolist()) == list(range(count))
    for at in range(0, count, 2048):
        assert len((turn[at : at + 2048] // 256).unique()) == 8
    assert torch.equal(turn, mixed(count, seed=3, epoch=4))
    assert not torch.equal(turn, mixed(count, seed=3, epoch=5))
    assert not torch.equal(turn, mixed(count, seed=4, epoch=4))


def test_what_comes_next_is_read_ahead_and_no_further() -> None:
    asked: list[int] = []
    samples: Any = Unread(lambda at: asked.append(at) or at, 1000, shape=(1, 1, 1))
    samples.expect(range(0, 1000, 2))
    assert [samples[at] for at in range(0, 20, 2)] == list(range(0, 20, 2))
    assert samples[7] == 7  # was not expected
    assert len(asked) <= 10 + AHEAD + 1
    assert [at for at in asked if at != 7] == sorted(at for at in asked if at != 7)


def test_a_damaged_picture_stops_training_before_its_first_step(tmp_path: Path) -> None:
    root = folders.classes(tmp_path / "set", count=30)
    whole = (root / "dog" / "7.png").read_bytes()
    (root / "dog" / "7.png").write_bytes(whole[: len(whole) // 2])
    config = TrainConfig(data=str(root), model="LeNet5", memory=LITTLE, **SETTINGS)
    with pytest.raises(ConvscopeError, match=r"7.png: is cut short or damaged"):
        train(config, out=tmp_path / "run", progress=False)
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


def test_memory_does_not_grow_with_the_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of all pictures that were read, only those of the batch and those that come next are alive."""
    source, alive, most, every = shards(tmp_path, count=100), weakref.WeakSet[Any](), 0, 0
    whole = loading.sample

    def watched(*given: Any) -> Any:
        made = whole(*given)
        alive.add(made.image)
        return made

    monkeypatch.setattr(loading, "sample", watched)
    splits = data.load(str(source), shape=SHAPE, memory=LITTLE)
    for part in (splits.train, splits.val, splits.test):
        expect(part, torch.arange(len(part)))
        for at in torch.arange(len(part)).split(8):
            part.batch(at)
            most, every = max(most, len(alive)), every + len(at)
    assert every == 400
    assert most <= AHEAD + 8 + 2
