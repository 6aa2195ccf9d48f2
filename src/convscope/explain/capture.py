"""Layers of a model while it runs: found by name, their outputs caught, the model left as it was."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

from torch import Tensor, nn

from convscope.errors import InputError, ModelError, first_line, nearest
from convscope.graph import Op, Recording, Value
from convscope.machine import same_randomness


def find_layer(model: nn.Module, layer: str) -> str:
    """The path of the module called `layer`: its whole path, or the end of it ("C3").

    Raises: InputError with the nearest name if there is none, or with the candidates if there are several.

    >>> find_layer(nn.Sequential(nn.ReLU()), "0")
    '0'
    """
    paths = [path for path, _ in model.named_modules() if path]
    found = [p for p in paths if p == layer] or [p for p in paths if p.endswith(f".{layer}")]
    if len(found) > 1:
        raise InputError(f"layer {layer!r}: several modules end so: {', '.join(found)}; give the whole path")
    if not found:
        known = {*paths, *(p.rpartition(".")[2] for p in paths)} if "." not in layer else paths
        raise InputError(f"layer {layer!r}: the model has no module of that name; {nearest(layer, known)}")
    return found[0]


def op_of(recording: Recording, path: str) -> Op:
    """The operator that made a module's output: the last that ran in it.

    Raises: InputError if none did.
    """
    for op in reversed(recording.ops):
        if op.outputs and (op.module == path or op.module.startswith(f"{path}.")):
            return op
    raise InputError(f"layer {path!r}: ran no operator in the forward pass; choose a layer that takes part in it")


def spatial(value: Value | Tensor) -> bool:
    """Whether it is N x C x H x W with more than one place."""
    return len(value.shape) == 4 and value.shape[2] * value.shape[3] > 1


def as_model(model: nn.Module, x: Tensor) -> Tensor:
    """The input on the device and in the floating-point type of the model's first parameter."""
    first = next((p for p in model.parameters() if p.is_floating_point()), None)
    return x if first is None else x.to(first.device, first.dtype)


def called(model: nn.Module, x: Tensor) -> Any:
    """The model's outputs for a batch; what it raises is said as its own.

    Raises: ModelError.
    """
    try:
        return model(x)
    except (RuntimeError, TypeError, ValueError) as error:
        shape = "x".join(map(str, x.shape))
        raise ModelError(f"model: does not take a batch of {shape} ({first_line(error)}); check its input") from error


@contextmanager
def undisturbed(model: nn.Module) -> Iterator[None]:
    """The model in evaluation mode with its parameters held fixed; modes, flags and random state come back."""
    modes = [(m, m.training) for m in model.modules()]
    flags = [(p, p.requires_grad) for p in model.parameters()]
    try:
        model.eval()
        for p, _ in flags:
            p.requires_grad_(False)
        with same_randomness(model.parameters()):
            yield
    finally:
        for module, mode in modes:
            module.training = mode
        for p, flag in flags:
            p.requires_grad_(flag)


@contextmanager
def capturing(
    model: nn.Module, path: str, *, graph: Literal["none", "from here", "whole"] = "none"
) -> Iterator[list[Tensor]]:
    """A list that holds the module's output once the model has run: the last one, if it runs several times.

    graph: what gradients can follow: nothing; the network from this layer on; or all of it up to this layer.
    What follows the layer may write in place, so it works on a copy.
    Raises: InputError if the module gives something else than a tensor.
    """
    found: list[Tensor] = []

    def hook(module: nn.Module, given: Any, output: Any) -> Any:
        if not isinstance(output, Tensor):
            raise InputError(f"layer {path!r}: gives a {type(output).__name__}, not a tensor; choose a layer in it")
        found[:] = [output if graph == "whole" else output.detach()]
        if graph == "from here":
            found[0].requires_grad_()
        return found[0].clone()

    handle = model.get_submodule(path).register_forward_hook(hook)
    try:
        yield found
    finally:
        handle.remove()
