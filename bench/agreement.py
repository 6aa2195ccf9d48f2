"""How often the forms of a network with ImageNet weights name the class that it names, and how much faster they are.

efficientnet_lite0 sees 300 crops of photographs; int8 finds its ranges on 100 others. All forms that `optimize` knows
take turns with PyTorch as it is installed, one picture at a time.

    python bench/agreement.py [seconds]
"""

import sys

from convscope import machine

machine.tune()

import torch
from torch import Tensor
from torchvision.transforms import v2

from convscope.clock import compare
from convscope.data import ImageSet
from convscope.data.embedded import PHOTOGRAPHS
from convscope.data.images import photograph
from convscope.models.imagenet import efficientnet_lite0
from convscope.table import Column, Table
from speed import STOCK, made

SIZE, MEAN, STD = 224, 0.498, 0.502  # as the network was trained
SEEN, CALIBRATED, CLOSE = 300, 100, 0.02


@torch.no_grad()
def main(seconds: float = 60) -> None:
    model, x = efficientnet_lite0().eval(), crops(SEEN, seed=0)
    others = ImageSet(crops(CALIBRATED, seed=1), torch.zeros(CALIBRATED, dtype=torch.int64), ("a photograph",))
    sides, notes = made(model, x[:1], ["PyTorch", "fused", "OpenVINO", "ONNX", "compile"], training=others)
    times = compare(
        {side: lambda m=m: m(x[:1]) for side, m in sides.items()}, rounds=25, at_least=50e-3, at_most=seconds
    )
    own = torch.cat([model(one) for one in x.split(1)])
    rows = []
    for side, form in sides.items():
        found = torch.cat([form(one) for one in x.split(1)])
        same = float((found.argmax(1) == own.argmax(1)).double().mean())
        rows.append({"side": side, "over": 1 / times[side].over(times[STOCK]), "same": same})
    first, second = own.softmax(1).topk(2).values.T
    near = float((first - second < CLOSE).double().mean())
    notes.append(f"of {100 * near:.1f} % of the crops the network itself holds two classes for about as likely")
    columns = (Column("side", "form"), Column("over", "times as fast"), Column("same", "same class", "share"))
    print(Table(columns, tuple(rows), title=f"efficientnet_lite0, {SEEN} crops of photographs", notes=tuple(notes)))


def crops(count: int, *, seed: int) -> Tensor:
    """Parts of photographs, from a tenth of one on, as the network takes them: [count, 3, 224, 224]."""
    pictures = [photograph(name).tensor()[0] for name in sorted(PHOTOGRAPHS) if photograph(name).shape[2] == 3]
    cut = v2.RandomResizedCrop(SIZE, scale=(0.1, 1.0), antialias=True)
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        found = torch.stack([cut(pictures[i % len(pictures)]) for i in range(count)])
    return (found - MEAN) / STD


if __name__ == "__main__":
    main(*map(float, sys.argv[1:]))
