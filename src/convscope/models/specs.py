"""From a MODEL as a person writes it to a module."""

import importlib
import inspect
import os
import sys
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import nn

from convscope.errors import ModelError, nearest
from convscope.models import imagenet
from convscope.models.classic import ConvNet3, LeNet5

MODELS: Mapping[str, Callable[..., nn.Module]] = {"ConvNet3": ConvNet3, "LeNet5": LeNet5}


def build(spec: str, *, num_classes: int | None = None) -> nn.Module:
    """The network that `spec` names, with fresh weights, in evaluation mode.

    spec: a name of MODELS, `torchvision:NAME`, `timm:NAME`, `imagenet:NAME` (whose weights are trained), or
    `package.module:function` (which is imported, so its code runs). num_classes: classes of the last layer,
    if other than the network's own.
    Raises: ModelError if there is no such network, with the nearest name.

    >>> type(build("LeNet5")).__name__
    'LeNet5'
    """
    return build_any(spec, {} if num_classes is None else {"num_classes": num_classes})


def build_any(
    spec: str, options: dict[str, Any], *, known: Mapping[str, Callable[..., nn.Module]] = MODELS
) -> nn.Module:
    """As `build`, with any options of the network's function and other names than those of MODELS."""
    source, _, name = spec.rpartition(":")
    if not source:
        make: Callable[..., Any] = _pick(spec, known)
    elif source == "torchvision":
        make = _torchvision(name)
    elif source == "timm":
        make = _timm(name)
    elif source == "imagenet":
        make = imagenet.pick(name)
    else:
        make = _function(source, name)
    model = _make(spec, make, options)
    if not isinstance(model, nn.Module):
        raise ModelError(
            f"model {spec!r}: gave a {type(model).__name__}, but a torch.nn.Module is needed; "
            "name a function that returns one"
        )
    return model.eval()


def input_shape(model: nn.Module, spec: str = "") -> tuple[int, ...] | None:
    """Channels, height and width that the network expects, where it or its library says so.

    >>> input_shape(build("LeNet5"))
    (1, 32, 32)
    """
    shape = getattr(model, "input_shape", None)
    if shape is None and spec.startswith("timm:"):
        shape = getattr(model, "default_cfg", {}).get("input_size")
    if shape is None and spec.startswith("imagenet:"):
        shape = imagenet.SIZE
    if shape is None and spec.startswith("torchvision:"):
        shape = _published_shape(model, spec.removeprefix("torchvision:"))
    return tuple(shape) if shape else None


def ready(spec: str, *, shape: tuple[int, ...] | None = None) -> tuple[nn.Module, tuple[int, ...]]:
    """The network, and the shape of its input: `shape`, or what the network or its library says.

    Raises: ModelError if there is no such network, or nobody says what it takes.

    >>> ready("LeNet5")[1]
    (1, 32, 32)
    """
    model = build(spec)
    known = shape or input_shape(model, spec)
    if known is None:
        raise ModelError(f"model {spec!r}: does not say what input it takes; give --input CxHxW, such as 3x224x224")
    return model, known


def num_inputs(spec: str) -> int:
    """How many pictures of that shape the network takes: two, where it finds the flow between them.

    >>> num_inputs("torchvision:raft_small"), num_inputs("LeNet5")
    (2, 1)
    """
    return 2 if spec.startswith("torchvision:raft_") else 1


def _published_shape(model: nn.Module, name: str) -> tuple[int, ...]:
    """The shape on which torchvision publishes the costs of its weights; a fixed one where the network has it."""
    from torchvision import models
    from torchvision.models.optical_flow import RAFT

    inside = getattr(model, "transform", None)  # of a detector: what it brings any picture to
    if inside is not None:
        least = inside.min_size[0]
        return (3, *(inside.fixed_size or (least, least)))
    if isinstance(model, RAFT):
        return 3, 512, 512
    if isinstance(fixed := getattr(model, "image_size", None), int):
        return 3, fixed, fixed
    preset: Any = next(iter(models.get_model_weights(name))).transforms()
    size = list(getattr(preset, "crop_size", None) or preset.resize_size)
    frames = [16] if name in models.list_models(module=models.video) else []
    return 3, *frames, *(size * 2)[:2]


def _make(spec: str, make: Callable[..., Any], options: dict[str, Any]) -> Any:
    try:
        return make(**options)
    except ModelError:
        raise
    except Exception as error:  # whatever somebody's function raises is theirs, and said as theirs
        given = options or "no arguments"
        raise ModelError(
            f"model {spec!r}: cannot be made with {given} ({type(error).__name__}: {error}); check its arguments"
        ) from error


def _pick(name: str, table: Mapping[str, Callable[..., nn.Module]]) -> Callable[..., nn.Module]:
    if name not in table and os.path.isfile(name):  # noqa: PTH113 - Path raises where a name is too long
        raise ModelError(
            f"model {name!r}: is a file, but no network that convscope exported (.onnx, .xml); name the network, "
            "or give a run folder"
        )
    if name not in table:
        raise ModelError(
            f"model {name!r}: no such name; {nearest(name, table)} "
            "(or torchvision:NAME, timm:NAME, package.module:function, a run folder)"
        )
    return table[name]


def _torchvision(name: str) -> Callable[..., nn.Module]:
    from torchvision import models

    if name not in models.list_models():
        raise ModelError(f"model 'torchvision:{name}': no such name; {nearest(name, models.list_models())}")
    bare: dict[str, Any] = {"weights": None}
    if "weights_backbone" in inspect.signature(models.get_model_builder(name)).parameters:
        bare["weights_backbone"] = None
    if name.endswith(("googlenet", "inception_v3")):
        bare["init_weights"] = False
    if name.startswith("quantized_"):
        return lambda **options: _quantised(name, bare | options)
    return lambda **options: models.get_model(name, **bare, **options)


def _quantised(name: str, options: dict[str, Any]) -> nn.Module:
    """torchvision's int8 network; PyTorch warns that it will move this kind of quantisation elsewhere."""
    from torchvision import models

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return models.get_model(name, quantize=True, **options)


def _timm(name: str) -> Callable[..., nn.Module]:
    try:
        import timm
    except ImportError:
        raise ModelError(f"model 'timm:{name}': timm is not installed; pip install 'convscope[timm]'") from None
    if name not in timm.list_models():
        raise ModelError(f"model 'timm:{name}': no such name; {nearest(name, timm.list_models())}")
    return lambda **options: timm.create_model(name, pretrained=False, **options)


def _function(module: str, name: str) -> Callable[..., Any]:
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.insert(0, here)
    try:
        home = importlib.import_module(module)
    except Exception as error:  # an import runs the module's own code
        raise ModelError(f"model '{module}:{name}': the module cannot be imported ({error}); check it") from error
    found = getattr(home, name, None)
    if not callable(found):
        known = [n for n, held in vars(home).items() if callable(held) and not n.startswith("_")]
        help = nearest(name, known) if known else "check the module's name"
        raise ModelError(f"model '{module}:{name}': the module has no function of that name; {help}")
    return found
