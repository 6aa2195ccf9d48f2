"""What a run is made of before its first step: data, network, weights to begin with, optimiser, average."""

import copy
import io
import math
import warnings
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from convscope import data, files, models, tasks
from convscope.data.augment import mixed, order
from convscope.data.sets import DataSet, ImageSet, Splits
from convscope.data.streamed import unread
from convscope.errors import CheckpointError, InputError, ModelError
from convscope.graph import record
from convscope.inspect import summarize
from convscope.layers.fast.quick import Quick
from convscope.runs.config import TrainConfig
from convscope.runs.folder import why_unread
from convscope.tasks import Task
from convscope.train.flat import Flat, FlatOptimizer

DEFAULT_SHAPE = (3, 224, 224)


class Average(nn.Module):
    """Weights that follow those of another network, each step by the part `1 - decay`, faster in the beginning.

    Source: Polyak & Juditsky 1992; the beginning as in TensorFlow's ExponentialMovingAverage, (1 + n) / (10 + n).

    >>> net = nn.Linear(1, 1)
    >>> average = Average(net, decay=0.5)
    >>> all(torch.equal(a, b) for a, b in zip(average.inner.parameters(), net.parameters()))
    True
    """

    def __init__(self, model: nn.Module, *, decay: float, flats: Sequence[Flat] = ()) -> None:
        super().__init__()
        self.inner, self.decay = copy.deepcopy(model).requires_grad_(False), decay
        mine = dict(zip(model.parameters(), self.inner.parameters(), strict=True))
        together = [(Flat([mine[w] for w in flat.weights]).values.detach(), flat.values.detach()) for flat in flats]
        inside = {w.data_ptr() for flat in flats for w in flat.weights}
        own, other = self.inner.state_dict(), model.state_dict()
        pairs = together + [(own[key], other[key]) for key in own if other[key].data_ptr() not in inside]
        self.floats = [(a, b) for a, b in pairs if a.is_floating_point()]
        self.counters = [(a, b) for a, b in pairs if not a.is_floating_point()]

    @torch.no_grad()
    def follow(self, step: int) -> None:
        """One step, the `step`th (from 1), towards the other network; counters are copied."""
        part = 1 - min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(  # pyright: ignore[reportPrivateImportUsage]
            [a for a, _ in self.floats], [b for _, b in self.floats], part
        )
        for a, b in self.counters:
            a.copy_(b)


def learning_rate(config: TrainConfig, *, done: float) -> float:
    """The learning rate when the part `done` (0..1) of a run is over: a linear rise, then a cosine to zero.

    >>> c = TrainConfig(lr=1.0, warmup=0.5)
    >>> [round(learning_rate(c, done=d), 6) for d in (0.25, 0.5, 0.75, 1.0)]
    [0.5, 1.0, 0.5, 0.0]
    """
    if done < config.warmup:
        return config.lr * done / config.warmup
    return config.lr * 0.5 * (1 + math.cos(math.pi * (done - config.warmup) / (1 - config.warmup)))


def load_data(model: nn.Module, config: TrainConfig) -> Splits[Any]:
    """The pictures, as large as the settings or the network say."""
    shape = models.input_shape(model, config.model) or DEFAULT_SHAPE
    if config.image_size:
        shape = (shape[0], config.image_size, config.image_size)
    splits = data.load(
        config.data,
        shape=shape,
        seed=config.seed,
        task=config.task,
        allow_empty=config.allow_empty,
        memory=config.memory,
    )
    if config.batch_size > len(splits.train):
        raise InputError(f"batch_size: is {config.batch_size}, but there are {len(splits.train)} training pictures; "
                         f"use {len(splits.train)} or less")  # fmt: skip
    known = "affine" if isinstance(splits.train, ImageSet) else "crop"
    if config.augment not in (known, "none") or (config.flip and known != "crop"):
        raise InputError(f"augment: is {config.augment!r}{' with flip' * config.flip}, but to {config.task} it can be "
                         f"{known!r}{' (without flip)' * (known != 'crop')} or 'none'; use one of them")  # fmt: skip
    return replace(splits, train=replace(splits.train, flip=True)) if config.flip else splits


def check_room(folder: Path, model: nn.Module, config: TrainConfig, *, resumed: bool) -> None:
    """That the disk has room for what the run will save: two checkpoints, the next one beside them, the weights.

    Raises: InputError if it has not.
    """
    copies = 2 + (config.optimizer == "adamw") + bool(config.ema)  # weights, moments, and their average
    size = sum(t.nbytes for t in model.state_dict().values())
    files.check_room(folder, size * (copies if resumed else 3 * copies + 1), what="its checkpoints need about")


def check_readable(splits: Splits[Any], *, rank: int, num_processes: int) -> None:
    """Read what is not held once, each process its share, so that a damaged picture stops a run before its first step.

    Raises: DataError, ImageError.
    """
    for part in (splits.train, splits.val):
        if (samples := unread(part)) is not None:
            mine = range(rank, len(samples), num_processes)
            samples.expect(mine)
            for at in mine:
                _ = samples[at]


def batches(train: Any, *, seed: int, epoch: int, number: int) -> tuple[Tensor, ...]:
    """An epoch's samples in its order, cut into batches; those of shards that are not held stay near each other."""
    held = unread(train)
    in_turn = mixed if held is not None and held.in_order else order
    return in_turn(len(train), seed=seed, epoch=epoch).tensor_split(number)


def check_shares(splits: Splits[Any], *, num_batches: int, num_processes: int) -> None:
    """That every process has at least one picture of every batch, and of the validation part."""
    smallest = min(len(splits.train) // num_batches, len(splits.val))
    if smallest < num_processes:
        raise InputError(f"train: {num_processes} processes cannot share {smallest} pictures of a batch, or of the "
                         f"validation part; start {smallest}, or use a larger batch_size")  # fmt: skip


def make_task(config: TrainConfig, train: DataSet) -> Task:
    """The task with its options; `balanced` weighs a class by one over how often it occurs, `root` by the root of it.

    Raises: InputError if the task has no such option.
    """
    num_classes = len(train.classes)
    options: dict[str, Any] = {}
    if config.task_weights:
        if "," not in config.task:
            raise InputError(f"task_weights: are for several tasks, but {config.task} is one; leave them out")
        options["weights"] = config.task_weights
    if config.label_smoothing or config.class_weights != "none":
        if config.task not in ("classify", "segment"):
            raise InputError("label_smoothing and class_weights: are for classify and segment; leave them out")
        options["label_smoothing"] = config.label_smoothing
    if config.class_weights != "none":
        counts = train.class_counts().float().clamp(min=1)
        options["class_weights"] = (counts.mean() / counts).pow(0.5 if config.class_weights == "root" else 1.0)
    return tasks.make(config.task, num_classes, **options)


def check_fits(model: nn.Module, splits: Splits[Any], task: Task) -> int:
    """The MACs of one picture, once it is known that the network takes it and gives what the task needs."""
    x, _ = splits.val.batch(torch.tensor([0]))
    recording = record(model, x)
    found = tuple(v.shape for v in recording.outputs)
    if not task.serves(found, splits.val.shape):
        given = ", ".join("x".join(map(str, shape)) for shape in found)
        raise ModelError(f"model: gives {given} for one picture, but {task.wanted(splits.val.shape)} are needed; "
                         f"give a network for {len(splits.val.classes)} classes")  # fmt: skip
    return summarize(recording).total.macs


def begin_with(model: nn.Module, file: Path | str) -> list[str]:
    """Load what fits of a file of weights (safetensors, or a state_dict); the names that were left as they are.

    A file of a whole network, or of a backbone alone.
    Raises: CheckpointError if it cannot be read, or nothing in it fits.
    """
    weights, own = _read_weights(Path(file)), model.state_dict()
    whole = {k: v for k, v in weights.items() if k in own and v.shape == own[k].shape}
    inner = {f"backbone.{k}": v for k, v in weights.items()}
    part = {k: v for k, v in inner.items() if k in own and v.shape == own[k].shape}
    fitting = max(whole, part, key=len)
    if not fitting:
        raise CheckpointError(f"{file}: holds {len(weights)} tensors, of which none has the name and shape of one of "
                              f"the network's {len(own)}; give weights of the same network or backbone")  # fmt: skip
    model.load_state_dict(fitting, strict=False)
    return sorted(own.keys() - fitting.keys())


def _read_weights(file: Path) -> dict[str, Tensor]:
    from safetensors.torch import load

    try:
        content = files.read_plain(file)
        if file.suffix == ".safetensors":
            return load(content)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            loaded = torch.load(io.BytesIO(content), weights_only=True, map_location="cpu")
    except OSError as error:
        raise CheckpointError(f"{file}: cannot be read ({error.strerror}); check the path") from None
    except Exception as error:  # damaged pickles make torch raise nearly any type
        raise CheckpointError(f"{file}: holds no plain weights ({why_unread(error)}); save them with safetensors, "
                              "or torch.save(model.state_dict())") from None  # fmt: skip
    if not isinstance(loaded, dict) or not all(isinstance(v, Tensor) for v in loaded.values()):
        raise CheckpointError(f"{file}: is no state_dict of tensors; save one with torch.save(model.state_dict())")
    return loaded


def frozen(model: nn.Module) -> list[nn.Module]:
    """The part that `freeze` keeps as it is, once its weights ask for no gradient.

    Raises: InputError if the network has no part called backbone or features.
    """
    kept = [m for m in (getattr(model, "backbone", None), getattr(model, "features", None)) if isinstance(m, nn.Module)]
    if not kept:
        raise InputError("freeze: the network has no part called backbone or features; train it whole")
    kept[0].requires_grad_(False)
    return kept[:1]


def optimizer(model: nn.Module, config: TrainConfig) -> FlatOptimizer:
    """AdamW or SGD over what is to be learnt; each group's `share` is its part of the learning rate."""
    learnt = [[p for p in layer if p.requires_grad] for layer in layers(model)]
    learnt = [layer for layer in learnt if layer]
    if config.layer_decay == 1:
        learnt = [[p for layer in learnt for p in layer]]
    shares = [config.layer_decay**below for below in reversed(range(len(learnt)))]
    groups = [{"params": layer, "share": share} for layer, share in zip(learnt, shares, strict=True)]
    options = {"lr": config.lr, "weight_decay": config.weight_decay, "fused": True}
    if config.optimizer == "sgd":
        return FlatOptimizer(torch.optim.SGD, groups, momentum=0.9, nesterov=True, **options)
    return FlatOptimizer(torch.optim.AdamW, groups, **options)


def layers(model: nn.Module) -> list[list[nn.Parameter]]:
    """The weights of a network from its input to its head: the parts of its backbone (or features) apart, in order.

    >>> [sum(p.numel() for p in layer) for layer in layers(models.build("LeNet5"))]
    [156, 2416, 59134]
    """
    found = [list(model.parameters(recurse=False))]
    inner = [(name, child) for name, child in model.named_children() if next(child.parameters(), None) is not None]
    for name, child in inner:
        opened = len(inner) == 1 or name in ("backbone", "features")
        found += layers(child) if opened else [list(child.parameters())]
    seen: set[nn.Parameter] = set()
    alone = [[p for p in layer if p not in seen and not seen.add(p)] for layer in found]  # weights may be shared
    return [layer for layer in alone if layer]


def quick(model: nn.Module, *, precision: str, device: torch.device) -> AbstractContextManager[Any]:
    """In here what the network's modules call is computed by our kernels; our own blocks call them themselves.

    In float32 they gain less than it takes to ask.
    """
    own = isinstance(getattr(model, "backbone", None), models.SmallBackbone)
    return Quick() if precision == "bfloat16" and device.type == "cpu" and not own else nullcontext()


def fits(optimizer: FlatOptimizer, state: dict[str, Any]) -> bool:
    """Whether the state of another optimiser is of as many weights, in the same groups."""
    here, there = [len(flat.weights) for flat in optimizer.flats], [len(g["params"]) for g in state["param_groups"]]
    return bool(state["state"]) and here == there


def seed(number: int, *, device: torch.device) -> None:
    """`torch.manual_seed` for the device in use alone: the whole takes 0.8 ms, a tenth of a step of LeNet5."""
    torch.default_generator.manual_seed(number)
    if device.type == "cuda":
        torch.cuda.manual_seed(number)
