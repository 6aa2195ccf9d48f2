"""Networks of another structure that do nearly the same with less work: factorised convolutions, fewer channels."""

import copy
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from convscope.clock import Timing
from convscope.engines import named_outputs, need, quiet
from convscope.errors import InputError, ModelError, first_line
from convscope.layers.factorise import factorise
from convscope.layers.fast.forms import ChannelsLast
from convscope.optimize.result import GAIN

KINDS = ("spatial", "depthwise", "tucker")  # whose best factors need no search
DENSE = "dense"

Compare = Callable[..., Mapping[str, Timing]]


@dataclass(frozen=True, slots=True)
class Change:
    """A change of structure: its words, what makes the changed network of a network and a batch, and the change that
    does the same to a lesser degree.

    Raises: `make` raises ModelError or InputError where the change cannot be had.
    """

    name: str
    make: Callable[[nn.Module, Tensor, Compare], nn.Module]
    less: str = ""


def factorised(model: nn.Module, batch: Tensor, clock: Compare, *, error: float) -> nn.Module:
    """The network with its convolutions as stacks of the family, each where the clock says that it is faster.

    For every dense kernel the stacks of least rank with at most that relative error take turns with the convolution, on
    an input of the size that it has in the network; the fastest stays. So ranks follow time, not MACs.
    Raises: ModelError if no stack is faster.
    """
    made, chosen = copy.deepcopy(model), 0
    with torch.inference_mode():
        inputs = {name: x for name, x in _inputs(made, batch) if _is_dense(made.get_submodule(name))}
        for name, x in inputs.items():
            conv = made.get_submodule(name)
            stacks = {kind: _stack(conv, kind, error) for kind in KINDS}
            found = _fastest(conv, {k: s for k, s in stacks.items() if s is not None}, x, clock)
            if found is not None:
                made.set_submodule(name, found)
                chosen += 1
    if not chosen:
        raise ModelError(f"no stack within an error of {error:g} is faster than its convolution")
    return made


def narrowed(model: nn.Module, batch: Tensor, clock: Compare, *, keep: float) -> nn.Module:
    """The network with so large a share of its channels: those of the smallest weights go, but none of its outputs.

    Raises: InputError if torch-pruning is not installed; ModelError if it cannot follow the network's channels.
    Source: Fang et al. 2023, DepGraph (arXiv:2301.12900).
    """
    need("torch_pruning", extra="optimize")
    import torch_pruning

    made, x = copy.deepcopy(model), batch[:1].clone()
    before = _shapes(made, x)
    try:
        with torch.enable_grad(), quiet():
            torch_pruning.pruner.BasePruner(
                made,
                x,
                importance=torch_pruning.importance.GroupMagnitudeImportance(p=2),
                pruning_ratio=1 - keep,
                ignored_layers=list(last_layers(made, x)),
                output_transform=lambda given: sum(t.float().sum() for t in named_outputs(given).values()),
            ).step()
        after = _shapes(made, x)
    except Exception as error:
        raise ModelError(
            f"torch-pruning cannot follow the network's channels ({first_line(error, most=120)})"
        ) from error
    if before != after:
        raise ModelError("torch-pruning takes channels from what the network gives")
    return made


def last_layers(model: nn.Module, x: Tensor) -> set[nn.Module]:
    """The layers with weights that nothing but arithmetic without weights stands behind: they make the outputs.

    >>> net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 1), nn.Sigmoid())
    >>> last_layers(net, torch.zeros(1, 1, 5, 5)) == {net[2]}
    True
    """
    owner = {id(p): m for m in model.modules() for p in m.parameters(recurse=False)}
    with torch.enable_grad():
        outputs = named_outputs(model(x)).values()
    todo: list[Any] = [t.grad_fn for t in outputs if t.grad_fn is not None]
    seen, found = set(), set()
    while todo:
        node = todo.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        here = {owner[id(v)] for v in _variables(node) if id(v) in owner}
        found |= here
        weighted = any(isinstance(m, nn.Linear | nn.modules.conv._ConvNd) for m in here)
        todo += [] if weighted else [n for n, _ in node.next_functions]
    return found


CHANGES = (
    Change("factorised, error 0.25", lambda *given: factorised(*given, error=0.25)),
    Change("factorised, error 0.5", lambda *given: factorised(*given, error=0.5), less="factorised, error 0.25"),
    Change("3/4 of the channels", lambda *given: narrowed(*given, keep=0.75)),
    Change("1/2 of the channels", lambda *given: narrowed(*given, keep=0.5), less="3/4 of the channels"),
    Change("1/4 of the channels", lambda *given: narrowed(*given, keep=0.25), less="1/2 of the channels"),
)


def _variables(node: Any) -> Iterator[Tensor]:
    """The parameters that enter an operator, also through a transposition."""
    for before, _ in node.next_functions:
        while before is not None and before.name() == "TBackward0":
            before = before.next_functions[0][0]
        if before is not None and hasattr(before, "variable"):
            yield before.variable


def _shapes(model: nn.Module, x: Tensor) -> dict[str, tuple[int, ...]]:
    with torch.no_grad():
        return {name: tuple(t.shape) for name, t in named_outputs(model(x)).items()}


def _is_dense(module: nn.Module) -> bool:
    if not isinstance(module, nn.Conv2d) or module.groups > 1 or module.padding_mode != "zeros":
        return False
    return max(module.kernel_size) > 1


def _inputs(model: nn.Module, batch: Tensor) -> list[tuple[str, Tensor]]:
    """The largest input that each convolution gets."""
    found: dict[str, Tensor] = {}

    def watch(name: str) -> Callable[..., None]:
        def keep(module: nn.Module, given: tuple[Tensor, ...], output: Tensor) -> None:
            if name not in found or given[0].numel() > found[name].numel():
                found[name] = torch.randn_like(given[0])

        return keep

    hooks = [m.register_forward_hook(watch(n)) for n, m in model.named_modules() if isinstance(m, nn.Conv2d)]
    try:
        model(batch)
    finally:
        for hook in hooks:
            hook.remove()
    return [*found.items()]


def _stack(conv: Any, kind: str, error: float) -> nn.Module | None:
    with torch.inference_mode(mode=False):
        try:
            return factorise(conv, kind, error=error).layer.eval()
        except InputError:
            return None


def _fastest(conv: nn.Module, stacks: Mapping[str, nn.Module], x: Tensor, clock: Compare) -> nn.Module | None:
    """The stack that takes least, unless the convolution takes hardly longer."""
    forms = {name: ChannelsLast(copy.deepcopy(m)) for name, m in {DENSE: conv, **stacks}.items()}
    runs = {name: lambda form=form: form(x) for name, form in forms.items()}
    times = clock(runs, rounds=9, at_least=1e-3, at_most=0.5)
    best = min(stacks, key=lambda name: times[name].over(times[DENSE]), default=DENSE)
    return stacks[best] if best != DENSE and times[best].over(times[DENSE]) < GAIN else None
