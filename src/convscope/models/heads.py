"""Heads: from a backbone's feature maps to what a task asks for. One backbone may feed several.

Shape suffixes: N pictures, C classes, H rows, W columns, L places of all maps together.
"""

import functools
import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from convscope.errors import ModelError
from convscope.layers import ConvNormAct
from convscope.layers.fast.convolved import convolved
from convscope.layers.fast.fields import laid_out, together
from convscope.layers.fast.normed import batch_normed, field_normed, served
from convscope.layers.fast.returning import returned

Size = tuple[int, int]
PRIOR = 0.01  # of a place to hold an object, before anything is learnt
DETECTED_STRIDES = (8, 16, 32)
FINE_WIDTHS = {4: 32, 2: 16}  # stride -> channels of the maps that draw outlines: each costs a lot there


class Candidates(NamedTuple):
    """A detector's raw output: at each place a logit a class and one box.

    Shapes: logits [N, L, C], boxes [N, L, 4] (x1 y1 x2 y2, pixels), points [L, 2] (x y of each place), strides [L].
    """

    logits: Tensor
    boxes: Tensor
    points: Tensor
    strides: Tensor


@final
class Classifier(nn.Module):
    """The mean of the coarsest map, and one linear layer: logits [N, num_classes]."""

    def __init__(self, channels: Sequence[int], strides: Sequence[int], *, num_classes: int) -> None:
        super().__init__()
        self.output = nn.Linear(channels[-1], num_classes)

    def forward(self, maps: Sequence[Tensor], size: Size) -> Tensor:
        return self.output(maps[-1].mean((2, 3)))


@final
class TopDown(nn.Module):
    """Every map brought to `width` channels, with the coarser ones enlarged and added to the finer ones.

    A map of half the finest stride, of `finer` channels, is read too, in blocks of 2x2: it knows best where edges lie,
    and answers cost a quarter where the finest map is.
    Source: Lin et al. 2017, Feature pyramid networks (arXiv:1612.03144); the blocks are those of Redmon & Farhadi 2017,
    YOLO9000 (arXiv:1612.08242).
    """

    def __init__(self, channels: Sequence[int], width: int, *, finer: int = 0) -> None:
        super().__init__()
        self.lateral = nn.ModuleList([ConvNormAct(c, width, 1, act=None) for c in channels])
        self.smooth = nn.ModuleList([ConvNormAct(width, width, 3) for _ in channels])
        self.detail = nn.Sequential(nn.Conv2d(finer, width, 2, 2, bias=False), nn.BatchNorm2d(width)) if finer else None

    def forward(self, maps: Sequence[Tensor], finer: Tensor | None = None) -> list[Tensor]:
        given: list[Tensor] = []
        above: Tensor | None = None
        for at in reversed(range(len(maps))):
            size = maps[at].shape[2:]
            other = None if above is None else F.interpolate(above, size, mode="nearest")
            if at == 0 and self.detail is not None and finer is not None:
                rows, columns = (2 * n for n in size)
                edged = F.pad(finer, (0, columns - finer.shape[3], 0, rows - finer.shape[2]))
                other = batch_normed(self.detail[1], self.detail[0](edged), other=other, relu=False)
            conv, norm = self.lateral[at].children()
            above = x = self.smooth[at](batch_normed(norm, convolved(conv, maps[at]), other=other))
            given.insert(0, x)
        return given


@final
class Detector(nn.Module):
    """At every place of the maps of stride 8 to 32: a logit a class, and the distances to the four sides of a box.

    Source: Tian et al. 2019, FCOS (arXiv:1904.01355), without its centre-ness branch: scores learn the box's overlap.
    """

    def __init__(
        self, channels: Sequence[int], strides: Sequence[int], *, num_classes: int, width: int = 64, depth: int = 2
    ) -> None:
        super().__init__()
        self.used = [i for i, s in enumerate(strides) if s in DETECTED_STRIDES]
        if not self.used:
            raise ModelError(f"detector: needs maps of stride 8, 16 or 32, but the backbone has {tuple(strides)}")
        self.strides = [strides[i] for i in self.used]
        self.finer = next((i for i, s in enumerate(strides) if 2 * s == self.strides[0]), None)
        finer = 0 if self.finer is None else channels[self.finer]
        self.neck = TopDown([channels[i] for i in self.used], width, finer=finer)
        self.classify, self.place = (nn.Sequential(*(_Normed(width) for _ in range(depth))) for _ in range(2))
        self.logits = nn.Conv2d(width, num_classes, 3, padding=1)
        self.distances = nn.Conv2d(width, 4, 3, padding=1)
        self.scales = nn.Parameter(torch.ones(len(self.used)))
        nn.init.normal_(self.logits.weight, std=0.01)
        nn.init.constant_(self.logits.bias, -math.log((1 - PRIOR) / PRIOR))  # pyright: ignore[reportArgumentType]
        nn.init.normal_(self.distances.weight, std=0.01)
        nn.init.constant_(self.distances.bias, math.log(2))  # pyright: ignore[reportArgumentType]

    def forward(self, maps: Sequence[Tensor], size: Size) -> Candidates:
        levels = self.neck([maps[i] for i in self.used], None if self.finer is None else maps[self.finer])
        sizes = tuple((x.shape[2], x.shape[3]) for x in levels)
        if self.training and served(levels[0]) and self._alike(levels[0].shape[1]):
            logits, distances = self._together(levels, sizes)
            points, strides = _known_points(sizes, tuple(self.strides), levels[0].device)
        else:
            logits = torch.cat([_listed(self.logits(self.classify(x))) for x in levels], 1)
            distances = torch.cat([_listed(self.distances(self.place(x))) for x in levels], 1)
            points, strides = _all_points(sizes, self.strides, levels[0].device)
        scale = torch.cat([scale.expand(h * w) for scale, (h, w) in zip(self.scales, sizes, strict=True)])
        there, cell = torch.cat([points, points], 1), strides[:, None]
        reach = (scale[:, None] * distances).clamp(max=8).exp()
        boxes = there + torch.cat([-cell, -cell, cell, cell], 1) * reach
        return Candidates(logits, boxes, points, strides)

    def _alike(self, width: int) -> bool:
        """Whether both towers are as they were made: pruned or factorised ones, and bfloat16, go level by level."""
        parts = [[*stage.children()] for tower in (self.classify, self.place) for stage in tower.children()]
        plain = all(
            type(conv) is nn.Conv2d and conv.weight.shape == (width, width, 3, 3) and conv.weight.dtype == torch.float32
            and type(norm) is nn.GroupNorm for conv, norm, *_ in parts
        )  # fmt: skip
        return plain and type(self.logits) is type(self.distances) is nn.Conv2d

    def _together(self, levels: Sequence[Tensor], sizes: tuple[Size, ...]) -> tuple[Tensor, Tensor]:
        """Logits and distances in one pass over one map of all levels, both towers side by side: for training."""
        laid = laid_out(sizes)
        x, width = together(levels, laid), levels[0].shape[1]
        for at, stages in enumerate(zip(self.classify.children(), self.place.children(), strict=True)):
            convs, norms, _ = zip(*(stage.children() for stage in stages), strict=True)
            weight = torch.cat([conv.weight for conv in convs])
            x = F.conv2d(x, weight, padding=1, groups=2 if at else 1)
            scales, shifts = (torch.cat([getattr(norm, name) for norm in norms]) for name in ("weight", "bias"))
            x = field_normed(x, scales, shifts, laid.fields, groups=2 * norms[0].num_groups, eps=norms[0].eps)
        first, second = self.logits, self.distances
        weight = torch.cat([F.pad(first.weight, (0, 0, 0, 0, 0, width)), F.pad(second.weight, (0, 0, 0, 0, width, 0))])
        y = F.conv2d(x, weight, torch.cat([first.bias, second.bias]), padding=1)  # pyright: ignore
        found = y.permute(0, 2, 3, 1).flatten(1, 2).index_select(1, laid.places.to(x.device)).float()
        logits, distances = found.split([first.out_channels, 4], -1)
        return logits, distances


@final
class Segmenter(nn.Module):
    """Classes told from the coarse maps, their outlines from the fine ones, both returned to the picture's size.

    The finest map is returned by a transposed convolution, whose kernel is twice its stride, so that every pixel is
    reached by as many taps (no checkerboard); the coarse logits are interpolated and added.
    Raises: ModelError unless there is a map of stride 2 or 4, and one above.
    Source: Long et al. 2015 (arXiv:1411.4038) for the sum over strides; Odena et al. 2016
    (doi:10.23915/distill.00003) for the kernel.
    """

    def __init__(self, channels: Sequence[int], strides: Sequence[int], *, num_classes: int, width: int = 64) -> None:
        super().__init__()
        self.coarse = [i for i, s in enumerate(strides) if s > max(FINE_WIDTHS)]
        self.fine = [i for i, s in reversed([*enumerate(strides)]) if s in FINE_WIDTHS]
        if not self.coarse or not self.fine:
            raise ModelError(f"segmenter: needs maps of stride 2 or 4 and above 4, but the backbone has {(*strides,)}")
        self.neck = TopDown([channels[i] for i in self.coarse], width)
        self.context = nn.Sequential(ConvNormAct(width, width, 3), ConvNormAct(width, width, 3))
        self.score = nn.Conv2d(width, num_classes, 1)
        self.enter, self.join, self.refine = (nn.ModuleList() for _ in range(3))
        for i in self.fine:
            narrow = FINE_WIDTHS[strides[i]]
            self.enter.append(ConvNormAct(channels[i], narrow, 1, act=None))
            self.join.append(ConvNormAct(width, narrow, 1, act=None))
            self.refine.append(ConvNormAct(narrow, narrow, 3))
            width = narrow
        stride = strides[self.fine[-1]]
        self.up = nn.ConvTranspose2d(width, num_classes, 2 * stride, stride, stride // 2)

    def forward(self, maps: Sequence[Tensor], size: Size) -> Tensor:
        context = x = self.context(self.neck([maps[i] for i in self.coarse])[0])
        for i, enter, join, refine in zip(self.fine, self.enter, self.join, self.refine, strict=True):
            conv, norm = enter.children()
            coarse = F.interpolate(join(x), maps[i].shape[2:], mode="nearest")
            x = refine(batch_normed(norm, convolved(conv, maps[i]), other=coarse))
        logits = returned(self.up, x, self.score(context), training=self.training)
        return logits[..., : size[0], : size[1]]


@final
class HeadedNetwork(nn.Module):
    """A backbone and its heads; one head gives its output, several give a dict of theirs.

    >>> from convscope.models.backbone import backbone
    >>> HeadedNetwork(backbone("small"), {"segment": 11})(torch.zeros(1, 3, 64, 96)).shape
    torch.Size([1, 11, 64, 96])
    """

    def __init__(self, backbone: nn.Module, num_classes: Mapping[str, int]) -> None:
        super().__init__()
        self.input_shape = (3, 128, 128)
        self.backbone = backbone
        channels, strides = backbone.channels, backbone.strides
        made = {task: HEADS[task](channels, strides, num_classes=n) for task, n in num_classes.items()}  # pyright: ignore[reportArgumentType]
        self.heads = nn.ModuleDict(made)

    def forward(self, x_NCHW: Tensor) -> Tensor | Candidates | dict[str, Tensor | Candidates]:
        maps = self.backbone(x_NCHW)
        outputs = {task: head(maps, tuple(x_NCHW.shape[2:])) for task, head in self.heads.items()}
        return outputs if len(outputs) > 1 else next(iter(outputs.values()))


@final
class OneHead(nn.Module):
    """What one head of a network says: the network as if it had learnt that task alone."""

    def __init__(self, model: nn.Module, task: str) -> None:
        super().__init__()
        self.model, self.task = model, task

    def forward(self, x_NCHW: Tensor) -> Tensor | Candidates:
        """The output called `task`."""
        return self.model(x_NCHW)[self.task]


def classes_of_heads(task: str, num_classes: int) -> dict[str, range]:
    """Which of a data set's classes each head of a task tells apart.

    Where there are masks, the classes are theirs; the first, the background, is none of a box or of a picture.

    >>> classes_of_heads("detect,segment", 11)
    {'detect': range(1, 11), 'segment': range(0, 11)}
    """
    heads = task.split(",")
    return {head: range(int(head != "segment" and "segment" in heads), num_classes) for head in heads}


HEADS = {"classify": Classifier, "detect": Detector, "segment": Segmenter}


class _Normed(nn.Sequential):
    """Group normalisation: the same weights meet maps of several strides, whose statistics differ."""

    def __init__(self, width: int) -> None:
        super().__init__(nn.Conv2d(width, width, 3, padding=1, bias=False), nn.GroupNorm(8, width), nn.ReLU())

    def forward(self, input: Tensor) -> Tensor:
        conv, norm, act = self
        x = conv(input)
        return act(norm(x.float()).to(x.dtype))  # on a CPU twice as fast as in bfloat16


def _listed(x_NCHW: Tensor) -> Tensor:
    """Place by place: [N, H * W, C]."""
    return x_NCHW.permute(0, 2, 3, 1).flatten(1, 2).float()


def _all_points(sizes: Sequence[Size], strides: Sequence[int], device: torch.device) -> tuple[Tensor, Tensor]:
    """The points [L, 2] and strides [L] of all levels."""
    points = [_points(*size, stride, device=device) for size, stride in zip(sizes, strides, strict=True)]
    each = [torch.full((len(p),), float(stride), device=device) for p, stride in zip(points, strides, strict=True)]
    return torch.cat(points), torch.cat(each)


_known_points = functools.lru_cache(maxsize=16)(_all_points)


def _points(rows: int, columns: int, stride: int, *, device: torch.device) -> Tensor:
    """The centres (x, y) of the cells of a map, in pixels of the picture: [rows * columns, 2]."""
    ys, xs = (stride * (torch.arange(n, device=device) + 0.5) for n in (rows, columns))
    return torch.stack(torch.meshgrid(xs, ys, indexing="xy"), -1).view(-1, 2)
