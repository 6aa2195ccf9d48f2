"""Backbones: from pictures to a list of feature maps, each of a coarser stride than the one before.

One backbone serves every head of `heads.py`. Ours is small and leaves full resolution at once; any CNN of torchvision
or timm serves as well.
"""

from collections.abc import Callable, Mapping
from typing import Protocol, cast, final, runtime_checkable

import torch
from torch import Tensor, nn

from convscope.errors import ModelError, first_line
from convscope.layers import ConvNormAct, DepthwiseSeparableConv, ShuffledGroupConv
from convscope.layers.fast.convolved import convolved
from convscope.layers.fast.normed import batch_normed, normed
from convscope.models.specs import build_any

Block = Callable[[int, int, int], nn.Module]  # (in_channels, out_channels, stride) -> a convolution


@runtime_checkable
class Backbone(Protocol):
    """A module from [N, C, H, W] to feature maps [N, channels[i], H / strides[i], W / strides[i]]."""

    channels: tuple[int, ...]
    strides: tuple[int, ...]

    def __call__(self, x_NCHW: Tensor) -> list[Tensor]: ...


def _standard(in_channels: int, out_channels: int, stride: int) -> nn.Module:
    return nn.Conv2d(in_channels, out_channels, 3, stride, 1, bias=False)


def _separable(in_channels: int, out_channels: int, stride: int) -> nn.Module:
    return DepthwiseSeparableConv(in_channels, out_channels, 3, stride=stride, padding=1, bias=False)


def _shuffled(in_channels: int, out_channels: int, stride: int) -> nn.Module:
    return ShuffledGroupConv(in_channels, out_channels, 3, stride=stride, padding=1, groups=4, bias=False)


KINDS: Mapping[str, Block] = {
    "standard": _standard,
    "depthwise-separable": _separable,
    "shuffled-grouped": _shuffled,
}


@final
class SmallBackbone(nn.Module):
    """Residual stages at strides 2, 4, 8, 16 and 32; the convolutions are of one kind of the family.

    The first stage is a single convolution of stride 2: work at full resolution costs the most and tells the least.
    Shapes: [N, in_channels, H, W] -> five maps of `widths` channels.
    Raises: ModelError for an unknown kind.
    Source: He et al. 2016 (arXiv:1603.05027) for the blocks.

    >>> [tuple(m.shape) for m in SmallBackbone()(torch.zeros(1, 3, 64, 64))[:2]]
    [(1, 16, 32, 32), (1, 32, 16, 16)]
    """

    def __init__(
        self,
        *,
        kind: str = "standard",
        widths: tuple[int, ...] = (16, 32, 64, 128, 160),
        depths: tuple[int, ...] = (0, 1, 1, 1, 1),
        in_channels: int = 3,
    ) -> None:
        super().__init__()
        if kind not in KINDS:
            raise ModelError(f"backbone: kind is {kind!r}; use {', '.join(KINDS)}")
        self.channels, self.strides = widths, tuple(2 ** (i + 1) for i in range(len(widths)))
        self.stages = nn.ModuleList()
        for at, (width, depth) in enumerate(zip(widths, depths, strict=True)):
            first = ConvNormAct(in_channels, width, 3, stride=2) if at == 0 else _Down(in_channels, width, KINDS[kind])
            self.stages.append(nn.Sequential(first, *(_Residual(width, KINDS[kind]) for _ in range(depth))))
            in_channels = width

    def forward(self, x_NCHW: Tensor) -> list[Tensor]:
        """The maps, finest first."""
        maps = []
        for stage in self.stages:
            x_NCHW = stage(x_NCHW)
            maps.append(x_NCHW)
        return maps


class _Down(nn.Sequential):
    def __init__(self, in_channels: int, out_channels: int, conv: Block) -> None:
        super().__init__(conv(in_channels, out_channels, 2), nn.BatchNorm2d(out_channels), nn.ReLU())

    def forward(self, input: Tensor) -> Tensor:
        conv, norm, act = self
        return normed(norm, convolved(conv, input), act)


class _Residual(nn.Module):
    def __init__(self, channels: int, conv: Block) -> None:
        super().__init__()
        self.inner = nn.Sequential(
            conv(channels, channels, 1), nn.BatchNorm2d(channels), nn.ReLU(),
            conv(channels, channels, 1), nn.BatchNorm2d(channels),
        )  # fmt: skip

    def forward(self, x_NCHW: Tensor) -> Tensor:
        first, norm, act, second, last = self.inner
        inner = normed(norm, convolved(first, x_NCHW), act)
        return batch_normed(last, convolved(second, inner), other=x_NCHW)


@final
class TapBackbone(nn.Module):
    """The last map of each resolution inside somebody's classifier, without its head.

    Shapes: [N, 3, H, W] -> as many maps as the network has resolutions of stride 2 to 32.
    Raises: ModelError if it has no such maps, or cannot be cut.
    """

    def __init__(self, model: nn.Module, *, name: str) -> None:
        from torchvision.models.feature_extraction import create_feature_extractor

        super().__init__()
        found = _last_of_each_size(model)
        if len(found) < 2:
            raise ModelError(f"model {name!r}: has {len(found)} resolutions of feature maps, but a head needs two")
        try:
            self.body = create_feature_extractor(model, [node for node, _, _ in found])
        except Exception as error:  # symbolic tracing raises what the model's code raises
            raise ModelError(
                f"model {name!r}: cannot be cut into a backbone ({type(error).__name__}: {error}); use another"
            ) from error
        self.strides, self.channels = tuple(s for _, s, _ in found), tuple(c for _, _, c in found)

    def forward(self, x_NCHW: Tensor) -> list[Tensor]:
        """The maps, finest first."""
        return list(self.body(x_NCHW).values())


@final
class TimmBackbone(nn.Module):
    """A network that timm made with `features_only=True`."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body
        info = cast("object", body.feature_info)
        self.channels, self.strides = tuple(info.channels()), tuple(info.reduction())  # pyright: ignore[reportAttributeAccessIssue]

    def forward(self, x_NCHW: Tensor) -> list[Tensor]:
        """The maps, finest first."""
        return self.body(x_NCHW)


BACKBONES: Mapping[str, Callable[[], nn.Module]] = {
    "small": SmallBackbone,
    "small-separable": lambda: SmallBackbone(kind="depthwise-separable"),
    "small-shuffled": lambda: SmallBackbone(kind="shuffled-grouped"),
}


def backbone(spec: str) -> nn.Module:
    """The backbone that `spec` names: one of BACKBONES, `torchvision:NAME`, `timm:NAME` or `package.module:function`.

    Raises: ModelError if there is none, or the network cannot serve as one.

    >>> backbone("small").strides
    (2, 4, 8, 16, 32)
    """
    if spec in BACKBONES:
        return BACKBONES[spec]()
    if spec.startswith("timm:"):
        return TimmBackbone(build_any(spec, {"features_only": True}))
    model = build_any(spec, {}, known=BACKBONES)
    return model if isinstance(model, Backbone) else TapBackbone(model, name=spec)


def _last_of_each_size(model: nn.Module, *, size: int = 64) -> list[tuple[str, int, int]]:
    """(node, stride, channels) of the last child that gives maps of each stride from 2 to 32."""
    from torchvision.models.feature_extraction import get_graph_node_names

    features = getattr(model, "features", None)
    inside = features.named_children() if isinstance(features, nn.Module) else model.named_children()
    prefix = "features." if isinstance(features, nn.Module) else ""
    seen: dict[int, tuple[str, int]] = {}

    def note(name: str, given: object) -> None:
        if isinstance(given, Tensor) and given.dim() == 4 and size % given.shape[2] == 0:
            seen.pop(size // given.shape[2], None)
            seen[size // given.shape[2]] = (name, given.shape[1])

    hooks = [
        module.register_forward_hook(lambda _, __, given, name=prefix + name: note(name, given))
        for name, module in inside
    ]
    try:
        with torch.no_grad():
            model.eval()(torch.zeros(1, 3, size, size))
    except RuntimeError as error:
        raise ModelError(f"model: does not take 1x3x{size}x{size} ({first_line(error)}); use another") from error
    finally:
        for hook in hooks:
            hook.remove()
    nodes = get_graph_node_names(model)[1]
    found = [(_node(name, nodes), stride, channels) for stride, (name, channels) in sorted(seen.items())]
    return [entry for entry in found if 2 <= entry[1] <= 32]


def _node(module: str, nodes: list[str]) -> str:
    """The last graph node inside a module."""
    return next(node for node in reversed(nodes) if node == module or node.startswith(f"{module}."))
