"""A run folder: what a training run leaves on disk, and how it is read back.

    config.toml         the settings
    manifest.json       classes, the data's numbers for them, picture shape, normalisation, and the SHA-256 of
                        every file that may be loaded
    metrics.jsonl       one line an epoch
    model.safetensors   the weights to use: those of the last step
    last.ckpt           weights, optimiser and position, to resume from
    last-1.ckpt         the checkpoint before it
    run.lock            held while a run writes here

The manifest names a file's digest before the file takes its name, so that a crash at any moment leaves a folder
in which every file is vouched for.
"""

import hashlib
import io
import json
import os
import pickle
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError
from torch import nn

from convscope import files
from convscope.data.sets import Normalisation
from convscope.errors import CheckpointError, DataError, InputError
from convscope.models import network
from convscope.runs.config import TrainConfig, resolve, to_toml

CONFIG, MANIFEST, METRICS = "config.toml", "manifest.json", "metrics.jsonl"
MODEL, LAST, BEFORE, NEXT, LOCK = "model.safetensors", "last.ckpt", "last-1.ckpt", "next.ckpt", "run.lock"
FORMAT = 1  # of the manifest
KEPT_DIGESTS = 64  # of each kind of file; at most three are on disk at once


class _Facts(BaseModel):
    """What a manifest holds."""

    model_config = ConfigDict(strict=True)
    format: int = FORMAT
    classes: list[str] = Field(min_length=1)
    shape: list[Annotated[int, Field(gt=0, le=2**16)]] = Field(min_length=1)
    normalisation: list[list[FiniteFloat]] = Field(min_length=2, max_length=2)
    sha256: dict[str, list[str]]
    categories: dict[str, int] = {}


@dataclass(frozen=True, slots=True)
class Run:
    """A run folder's facts; `shape` is (C, H, W) of its pictures. The weights are read by `model()`.

    `categories` are the numbers that the data's own files give the classes, where they do.
    """

    folder: Path
    config: TrainConfig
    classes: tuple[str, ...]
    shape: tuple[int, ...]
    normalisation: Normalisation
    categories: Mapping[str, int] = field(default_factory=dict)

    def model(self) -> nn.Module:
        """The trained network on the CPU, in evaluation mode.

        Raises: CheckpointError if the weights are missing, damaged, or of another network.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load

        path = self.folder / MODEL
        if not path.is_file():
            raise CheckpointError(f"{path}: is missing, so the run was not finished; resume it")
        try:
            weights = load(_verified(path))
        except SafetensorError as error:
            raise CheckpointError(f"{path}: is not a safetensors file ({error}); train again") from None
        model = network(self.config.model, num_classes=len(self.classes), task=self.config.task)
        load_weights(model, weights, source=str(path))
        return model.eval()

    def metrics(self) -> list[dict[str, Any]]:
        """What was logged, one dict an epoch.

        Raises: CheckpointError if a line is none of an epoch's.
        """
        path = self.folder / METRICS
        try:
            rows = [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []
            if not all(isinstance(row, dict) and isinstance(row.get("epoch"), int) for row in rows):
                raise ValueError("a line tells of no epoch")
        except ValueError as error:
            raise CheckpointError(f"{path}: is damaged ({error}); remove the line that is cut") from None
        return rows


def open_run(folder: Path | str) -> Run:
    """The run in a folder.

    Raises: CheckpointError if there is none, or its manifest is damaged.
    """
    folder = Path(folder)
    if not (folder / CONFIG).is_file():
        raise CheckpointError(f"{folder}: holds no run ({CONFIG} is missing); give the folder that training wrote")
    facts, config = _manifest(folder), resolve(file=folder / CONFIG)
    mean, std = map(tuple, facts["normalisation"])
    try:
        normalisation = Normalisation(mean, std)
    except DataError as error:
        raise CheckpointError(f"{folder / MANIFEST}: is damaged ({error}); restore it or train again") from None
    return Run(folder, config, tuple(facts["classes"]), tuple(facts["shape"]), normalisation, facts["categories"])


def load_run_model(folder: Path | str) -> tuple[nn.Module, TrainConfig]:
    """The trained network of a run folder, in evaluation mode, and the run's settings.

    Raises: CheckpointError.
    """
    run = open_run(folder)
    return run.model(), run.config


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the folder for one run; the system lets go of it when the process ends, however it ends.

    A folder in which nothing was written is left as empty as it was.
    Raises: InputError if another run holds it.
    """
    import fcntl

    path = folder / LOCK
    with path.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise InputError(f"{folder}: another run is writing there; wait for it, or give another --out") from None
        if not path.exists() or not os.path.samestat(path.stat(), os.fstat(file.fileno())):
            raise InputError(f"{folder}: another run was ending there just now; start this one again")
        try:
            yield
        finally:
            if [p.name for p in folder.iterdir()] == [LOCK]:
                path.unlink()


def start(run: Run) -> None:
    """Write the settings and facts of a run that begins."""
    files.write_whole(run.folder / CONFIG, to_toml(run.config))
    normalisation = [list(run.normalisation.mean), list(run.normalisation.std)]
    known = _manifest(run.folder)["sha256"] if (run.folder / MANIFEST).is_file() else {}
    facts = {"format": FORMAT, "classes": list(run.classes), "shape": list(run.shape)}
    facts |= {"normalisation": normalisation, "sha256": known}
    facts |= {"categories": dict(run.categories)} if run.categories else {}
    files.write_whole(run.folder / MANIFEST, json.dumps(facts, indent=1))


def is_begun(folder: Path) -> bool:
    """Whether a run has left a checkpoint or weights in the folder."""
    return any((folder / name).exists() for name in (LAST, BEFORE, MODEL))


def save_checkpoint(folder: Path, state: dict[str, Any]) -> None:
    """Make `state` the last checkpoint and keep the one before it.

    Raises: RunError if the disk refuses; both old checkpoints are kept.
    """
    buffer = io.BytesIO()
    torch.save(state, buffer)
    _vouch(folder, "checkpoint", content := buffer.getvalue())
    files.write_whole(folder / NEXT, content)
    if (folder / LAST).exists():
        (folder / LAST).replace(folder / BEFORE)
    (folder / NEXT).replace(folder / LAST)


def load_checkpoint(folder: Path) -> dict[str, Any] | None:
    """The last checkpoint, or None if a run began and left none.

    Raises: CheckpointError if it is damaged, naming the one before it where that is sound.
    """
    path = folder / LAST if (folder / LAST).exists() else folder / BEFORE
    if not path.exists():
        return None
    try:
        return _read_checkpoint(path)
    except CheckpointError as error:
        other = folder / BEFORE
        raise CheckpointError(f"{error}; {_advice(other) if other != path else 'train again'}") from None


def save_model(folder: Path, model: nn.Module) -> None:
    """Write the weights to use."""
    from safetensors.torch import save

    weights = {key: value.detach().cpu().contiguous().clone() for key, value in model.state_dict().items()}
    _vouch(folder, "model", content := save(weights))
    files.write_whole(folder / MODEL, content)


def load_weights(model: nn.Module, weights: dict[str, torch.Tensor], *, source: str) -> None:
    """Fill the network with weights that fit it exactly.

    Raises: CheckpointError that says which are missing, left over, or of another shape.
    """
    own = model.state_dict()
    extra = sorted(weights.keys() - own.keys())
    missing = [_with_nearest(key, extra) for key in sorted(own.keys() - weights.keys())]
    wrong = [
        f"{key} is {'x'.join(map(str, weights[key].shape))}, not {'x'.join(map(str, own[key].shape))}"
        for key in own.keys() & weights.keys()
        if own[key].shape != weights[key].shape
    ]
    lists = (("missing", missing), ("left over", extra), ("of another shape", sorted(wrong)))
    if any(names for _, names in lists):
        said = "; ".join(f"{len(n)} {what} ({', '.join(n[:3])}{', ...' * (len(n) > 3)})" for what, n in lists if n)
        raise CheckpointError(
            f"{source}: holds weights of another network: {said}; give the network that it was saved from"
        )
    model.load_state_dict(weights)


def _with_nearest(key: str, others: Sequence[str]) -> str:
    """The name, and the one of the others that may be meant by it."""
    close = get_close_matches(key, others, n=1)
    return f"{key}, perhaps {close[0]}" if close else key


def _vouch(folder: Path, kind: str, content: bytes) -> None:
    facts = _manifest(folder)
    digest = hashlib.sha256(content).hexdigest()
    known = [d for d in facts["sha256"].get(kind, []) if d != digest]
    facts["sha256"][kind] = [*known, digest][-KEPT_DIGESTS:]
    files.write_whole(folder / MANIFEST, json.dumps(facts, indent=1))


def _manifest(folder: Path) -> dict[str, Any]:
    path = folder / MANIFEST
    try:
        facts = json.loads(files.read_plain(path).decode())
        if isinstance(facts, dict) and (found := facts.get("format", FORMAT)) != FORMAT:
            raise CheckpointError(f"{path}: has format {found!r:.20}, which is not known here; upgrade convscope")
        return _Facts.model_validate(facts).model_dump()
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror}); restore it or train again") from None
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        said = f"{'.'.join(map(str, first['loc'])) or 'all of it'}: {first['msg']}"
        raise CheckpointError(f"{path}: is damaged ({said}); restore it or train again") from None
    except (ValueError, RecursionError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(f"{path}: is damaged ({error}); restore it or train again") from None


def _verified(path: Path) -> bytes:
    """The bytes of a file that the manifest vouches for."""
    try:
        content = files.read_plain(path)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror}); check its permissions") from None
    known = [digest for digests in _manifest(path.parent)["sha256"].values() for digest in digests]
    if hashlib.sha256(content).hexdigest() not in known:
        what = "is empty (0 bytes)" if not content else "is damaged (its SHA-256 is not in manifest.json)"
        raise CheckpointError(f"{path}: {what}")
    return content


def _read_checkpoint(path: Path) -> dict[str, Any]:
    content = _verified(path)
    try:
        return torch.load(io.BytesIO(content), weights_only=True, map_location="cpu")
    except Exception as error:  # damaged pickles make torch raise nearly any type
        raise CheckpointError(f"{path}: is not a checkpoint ({why_unread(error)})") from None


def why_unread(error: Exception) -> str:
    """What keeps a file of weights from being read, without torch's advice to let its code run."""
    if "TorchScript" in str(error):
        return "it is a TorchScript archive, which is code"
    if isinstance(error, pickle.UnpicklingError):
        return "it is no file of torch.save, or holds objects that are no tensors"
    lines = str(error).splitlines()
    return lines[0].removesuffix(".") if lines else type(error).__name__


def _advice(other: Path) -> str:
    try:
        _read_checkpoint(other)
    except CheckpointError:
        return f"{other.name} is missing or damaged too, so train again"
    return f"{other.name} is sound: rename it to {LAST} and resume"
