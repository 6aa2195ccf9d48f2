"""TrainConfig: every setting of a training run, from flags, `--set`, a TOML file and the defaults."""

import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from convscope.data.samples import TaskName
from convscope.errors import ConfigError, nearest
from convscope.files import read_plain

Count = Annotated[int, Field(ge=1, le=1_000_000_000)]
Weight = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Rate = Annotated[float, Field(ge=0, allow_inf_nan=False)]


SCENES: Mapping[str, Any] = {
    **{"data": "scenes", "model": "small", "epochs": 18, "batch_size": 8, "lr": 0.003, "weight_decay": 0.05},
    **{"augment": "crop", "ema": 0.99, "clip": 5.0},
}
TASK_DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    "classify": {},
    "detect": {**SCENES, "epochs": 24},
    "segment": {**SCENES, "epochs": 20, "batch_size": 4, "warmup": 0.05},
    **dict.fromkeys(("classify,detect", "classify,segment", "detect,segment", "classify,detect,segment"), SCENES),
}


class TrainConfig(BaseModel):
    """The settings of a training run; a run folder keeps them as `config.toml`. Each task has defaults of its own.

    >>> TrainConfig(epochs=3).model, TrainConfig(task="detect").data
    ('LeNet5', 'scenes')
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, protected_namespaces=())

    task: TaskName = Field("classify", description="what is learnt")
    task_weights: dict[Literal["classify", "detect", "segment"], Weight] = Field(
        {}, description="of the losses of several tasks; 1 if not given"
    )
    data: str = Field("digits", description="an embedded data set, or a folder")
    allow_empty: bool = Field(False, description="class folders without a picture are classes like others")
    model: str = Field("LeNet5", description="a model's name, or that of a backbone")
    weights: str = Field("", description="a file of weights to begin with; those that do not fit are left out")
    freeze: bool = Field(False, description="keep the backbone as it is, and train the head alone")
    image_size: int = Field(0, ge=0, le=8192, description="side of the pictures; 0: as the network says")
    epochs: Count = Field(60, description="passes over the training pictures")
    minutes: Rate = Field(0.0, description="as many epochs as fit, measured at the start; 0: epochs says")
    patience: int = Field(0, ge=0, description="stop after so many epochs without a better score; 0: never")
    batch_size: Count = Field(64, description="pictures a step, at most")
    accumulate: Count = Field(1, description="parts that a batch is computed in, to save memory")
    optimizer: Literal["adamw", "sgd"] = Field("adamw", description="sgd has a Nesterov momentum of 0.9")
    lr: Rate = Field(0.003, description="highest learning rate")
    layer_decay: float = Field(
        1.0, gt=0, le=1, description="each layer of the backbone learns so much slower than the next"
    )
    weight_decay: Rate = Field(0.01, description="pull of the weights towards zero")
    warmup: float = Field(0.1, ge=0, lt=1, description="part of the run in which the learning rate rises")
    clip: Rate = Field(0.0, description="longest gradient, in all weights together; 0: any")
    ema: float = Field(0.0, ge=0, lt=1, description="how slowly the weights to use follow; 0: at once")
    label_smoothing: float = Field(0.0, ge=0, lt=1, description="share of each target given to all classes alike")
    class_weights: Literal["none", "root", "balanced"] = Field("none", description="rare classes count for more")
    augment: Literal["affine", "crop", "none"] = Field("affine", description="how pictures vary; crop: boxes, masks")
    flip: bool = Field(False, description="crop may mirror pictures too")
    seed: int = Field(0, ge=0, lt=2**31, description="of the weights, the order and the augmentation")
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        "auto", description="of the products; auto: bfloat16 if steps are faster in it"
    )
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="auto: cuda if there is one")
    channels_last: bool = Field(False, description="keep pictures as NHWC in memory")
    memory: float = Field(4.0, gt=0, description="GB of pictures that are held; of larger sets each is read anew")
    num_threads: int = Field(0, ge=0, le=1024, description="CPU threads; 0: one for small networks, else all")
    nan: Literal["stop", "skip"] = Field("stop", description="when the loss is not finite: stop, or skip the batch")
    tensorboard: bool = Field(False, description="write the log for TensorBoard too")
    save_every_steps: int = Field(0, ge=0, description="checkpoint interval; 0: an epoch's end, 10 s apart")

    @model_validator(mode="before")
    @classmethod
    def _of_the_task(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        if not isinstance(given.get("task", ""), str):
            return given  # is refused as what it is
        if "task" in given:
            given = given | {"task": in_order(given["task"])}
        return {**TASK_DEFAULTS.get(given.get("task", ""), {}), **given}


def in_order(task: str) -> str:
    """One task, or several with commas between them, as the settings have it.

    >>> in_order("segment, detect")
    'detect,segment'
    """
    return ",".join(sorted(part.strip() for part in task.split(",")))


def resolve(
    flags: Mapping[str, Any] | None = None,
    sets: Sequence[str] = (),
    *,
    file: Path | str | None = None,
    defaults: Mapping[str, Any] | None = None,
) -> TrainConfig:
    """The settings by precedence: flags that are not None, then `key=value` of `sets`, then `file`, then defaults.

    `defaults` are those of this machine, such as its memory format, in place of the model's own.

    Raises: ConfigError in one sentence that says where the wrong setting came from.

    >>> resolve({"epochs": 2, "lr": None}, ["epochs=9", "lr=0.1"]).model_dump(include={"epochs", "lr"})
    {'epochs': 2, 'lr': 0.1}
    """
    values: dict[str, Any] = {}
    origin: dict[str, str] = {}
    given = {key: value for key, value in (flags or {}).items() if value is not None}
    layers = [
        ("defaults", dict(defaults or {})),
        (str(file), read_toml(file) if file is not None else {}),
        ("--set", dict(map(_pair, sets))),
    ]
    for where, layer in [*layers, ("options", given)]:
        values |= layer
        origin |= dict.fromkeys(layer, where)
    try:
        return TrainConfig.model_validate(values)
    except ValidationError as error:
        raise ConfigError(_sentence(error, origin)) from None


def read_toml(file: Path | str) -> dict[str, Any]:
    """The table in a TOML file.

    Raises: ConfigError if it cannot be read or is not TOML.
    """
    try:
        return tomllib.loads(read_plain(file).decode("utf-8-sig"))
    except OSError as error:
        raise ConfigError(f"{file}: cannot be read ({error.strerror}); give a TOML file") from None
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{file}: is not TOML ({error}); write lines such as epochs = 10") from None


def to_toml(config: TrainConfig) -> str:
    """The settings as TOML text; `read_toml` gives them back."""
    import tomli_w

    return tomli_w.dumps(config.model_dump())


def differences(old: TrainConfig, new: TrainConfig) -> dict[str, tuple[Any, Any]]:
    """The settings that differ and can change the result: name -> (old, new).

    >>> differences(TrainConfig(), TrainConfig(lr=0.1, save_every_steps=5))
    {'lr': (0.003, 0.1)}
    """
    before, after = (c.model_dump(exclude={"save_every_steps", "tensorboard"}) for c in (old, new))
    return {key: (before[key], after[key]) for key in before if before[key] != after[key]}


def _pair(text: str) -> tuple[str, Any]:
    """`key=value` with the value as TOML, or as the text itself where that is not TOML."""
    key, equals, value = (part.strip() for part in text.partition("="))
    if not equals or not key:
        raise ConfigError(f"--set {text!r}: is not key=value; write for instance --set epochs=10")
    try:
        table = tomllib.loads(f"x = {value}")
    except (ValueError, RecursionError):
        return key, value
    return key, table["x"] if set(table) == {"x"} else value


def _sentence(error: ValidationError, origin: Mapping[str, str]) -> str:
    first = error.errors(include_url=False)[0]
    key = str(first["loc"][0]) if first["loc"] else ""
    where = f"config: {key!r} (from {origin.get(key, 'options')})"
    if first["type"] == "extra_forbidden":
        return f"{where} is not a setting; {nearest(key, TrainConfig.model_fields)}"
    message = first["msg"][0].lower() + first["msg"][1:]
    return f"{where} is {first['input']!r}, but {message}"
