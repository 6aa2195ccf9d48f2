"""Very many pictures on a cluster of two nodes, in a network that leads nowhere: what one process says of them."""

import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from convscope import data
from convscope.errors import InputError
from convscope.predict import Wish, predict_files, predict_on_cluster
from convscope.runs import TrainConfig
from convscope.runs.loaded import load_model
from convscope.train import train
from tiny import SIZE, offer, tiny

pyarrow = pytest.importorskip("pyarrow", reason="the ray extra is not installed")
pytest.importorskip("ray", reason="the ray extra is not installed")

from pyarrow import parquet  # noqa: E402

HERE = Path(__file__).parent
COUNT = 70
ENDLESS = 3000  # times all pictures, for a job that is stopped
OFFLINE = [  # a network that leads nowhere, and processes that end with the first of them
    *("unshare", "--map-root-user", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"),
    *("sh", "-c", 'ip link set lo up; "$@"', "sh"),
]
HARNESS = """
import json, os, signal, subprocess, sys, time

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
from ray.cluster_utils import Cluster

cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
cluster.add_node(num_cpus=1)
os.environ["RAY_ADDRESS"] = cluster.address
command, told = [sys.executable, "-m", "convscope.cli", "predict", "run", "--engine", "ray", "--threshold", "0.05"], {}

def job(name, *words, stop=False):
    running = subprocess.Popen([*command, *words, "--out", name, "--json"], text=True, stdout=-1, stderr=-1)
    if stop:
        while not os.path.exists(name) and running.poll() is None:
            time.sleep(0.1)
        time.sleep(6)
        running.send_signal(signal.SIGINT)
    said, complained = running.communicate(timeout=400)
    told[name] = {"code": running.returncode, "said": said, "complained": complained}

job("whole", "pictures", "frames.gif", "shard.tar")
job("stopped", *["pictures/000.png"] * int(sys.argv[1]), stop=True)
cluster.shutdown()
json.dump(told, open("told.json", "w"))
"""


@pytest.fixture(scope="module")
def jobs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, dict[str, Any]]]:
    """A run of two heads, pictures of all kinds, two of them damaged, and what became of two jobs on them."""
    before = {task: dict(known) for task, known in data.DATASETS.items()}
    offer(data.DATASETS)  # pyright: ignore[reportArgumentType]
    root = tmp_path_factory.mktemp("cluster")
    options: dict[str, Any] = {"image_size": SIZE, "epochs": 8, "batch_size": 8, "num_threads": 1, "device": "cpu"}
    options |= {"lr": 0.004, "ema": 0.8}
    train(TrainConfig(task="detect,segment", data="tiny", **options), out=root / "run", progress=False)
    data.DATASETS.update(before)  # pyright: ignore[reportAttributeAccessIssue]
    _pictures(root)
    (root / "harness.py").write_text(HARNESS)
    home = Path(tempfile.mkdtemp(prefix="r"))  # Ray's sockets have short paths
    path = os.pathsep.join([str(HERE.parents[1] / "src"), os.environ.get("PYTHONPATH", "")])
    environment = os.environ | {"PYTHONPATH": path, "HOME": str(home), "RAY_TMPDIR": str(home)}
    environment |= {"OMP_NUM_THREADS": "1", "RAY_DATA_DEFAULT_WAIT_FOR_MIN_ACTORS_S": "300"}  # so that both work
    offline = subprocess.run([*OFFLINE, "true"], capture_output=True, check=False).returncode == 0
    try:
        done = subprocess.run([*(OFFLINE if offline else ()), sys.executable, "harness.py", str(ENDLESS)], check=False,
                              cwd=root, env=environment, capture_output=True, text=True, timeout=600)  # fmt: skip
        assert (root / "told.json").exists(), done.stderr[-3000:]
        yield root, json.loads((root / "told.json").read_text())
    finally:
        shutil.rmtree(home, ignore_errors=True)


def _pictures(root: Path) -> None:
    (root / "pictures").mkdir()
    test = tiny("detect").test.samples
    images = [Image.fromarray(np.roll(test[at % len(test)].image.permute(1, 2, 0).numpy(), at // len(test), 0))
              for at in range(COUNT)]  # fmt: skip
    for at, image in enumerate(images):
        image.save(root / "pictures" / f"{at:03}.png")
    whole = (root / "pictures" / "033.png").read_bytes()
    (root / "pictures" / "033.png").write_bytes(whole[: len(whole) // 2])
    images[0].save(root / "frames.gif", save_all=True, append_images=images[1:4])
    with tarfile.open(root / "shard.tar", "w") as shard:
        for at in (1, 33, 2):  # the second is damaged
            shard.add(root / "pictures" / f"{at:03}.png", f"{at}.png")


def _table(root: Path, name: str) -> list[dict[str, Any]]:
    return [row for file in sorted(root.glob(f"{name}-*.parquet")) for row in parquet.read_table(file).to_pylist()]


def _nearly(row: dict[str, Any]) -> dict[str, Any]:
    """One process has two cores, those of a cluster one each: their sums differ in the last digits."""
    return {key: pytest.approx(value, abs=2e-3) if isinstance(value, float) else value for key, value in row.items()}


def test_two_nodes_say_what_one_process_says(jobs: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    root, told = jobs
    assert told["whole"]["code"] == 0, told["whole"]["complained"]
    monkeypatch.chdir(root)
    whole = sorted(str(p) for p in Path("pictures").iterdir() if p.name != "033.png")
    (root / "two.tar").unlink(missing_ok=True)
    with tarfile.open("two.tar", "w") as shard:
        for at in (1, 2):
            shard.add(f"pictures/{at:03}.png", f"{at}.png")
    alone, _, written, _ = predict_files(load_model("run"), [*whole, "frames.gif", "two.tar"], threshold=0.05,
                                      out=Path("alone.parquet"))  # fmt: skip
    assert [p.name for p in written] == ["alone-objects.parquet", "alone-regions.parquet"]
    for name, rows in alone.data().items():
        found = _table(root / "whole", name)
        assert len(found) > COUNT
        assert parquet.read_table(f"alone-{name}.parquet").to_pylist() == rows
        for own, other in zip(rows, found, strict=True):
            assert own | {"image": own["image"].replace("two.tar", "shard.tar")} == _nearly(other)


def test_damaged_pictures_are_told_and_the_job_goes_on(jobs: Any) -> None:
    root, told = jobs
    summary = json.loads(told["whole"]["said"])
    assert (summary["pictures"], summary["damaged"], summary["nodes"]) == (COUNT + 4 + 3, 2, 2)
    damaged = _table(root / "whole", "damaged")
    assert [row["image"] for row in damaged] == ["pictures/033.png", "shard.tar/33.png"]
    for row in damaged:
        assert row["error"].startswith(f"{row['image']}: is cut short or damaged")
    assert summary["named"] == [row["error"] for row in damaged]


def test_nothing_but_results_is_said_and_written(jobs: Any) -> None:
    root, told = jobs
    assert "Traceback" not in told["whole"]["complained"]
    assert "ray" not in told["whole"]["complained"].lower()
    names = sorted(p.name for p in (root / "whole").iterdir())
    assert names == ["damaged-00000.parquet", "objects-00000.parquet", "regions-00000.parquet"]


def test_ctrl_c_ends_a_job_cleanly(jobs: Any) -> None:
    root, told = jobs
    stopped = told["stopped"]
    assert (stopped["code"], stopped["said"]) == (130, "")
    assert stopped["complained"] == "stopped; the files in stopped are whole, and lack what was still to come\n"
    for file in (root / "stopped").iterdir() if (root / "stopped").exists() else ():
        assert not file.name.endswith(".part")
        parquet.read_table(file)  # is whole


def test_what_cannot_be_is_said_before_anything_is_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = load_model("LeNet5")
    (tmp_path / "objects-00000.parquet").write_bytes(b"")
    with pytest.raises(InputError, match=r"holds objects-00000.parquet already; remove the results in it"):
        predict_on_cluster(loaded, ["digits:0"], out=tmp_path, wish=Wish())
    monkeypatch.setattr(sys.modules["convscope.errors"], "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"ray and pyarrow and pandas: not installed; pip install 'convscope\[ray\]'"):
        predict_on_cluster(loaded, ["digits:0"], out=tmp_path / "new", wish=Wish())
