"""Networks of random layers, with what a gradient says of them: the truth that fields are held to."""

import torch
from hypothesis import strategies as st
from torch import nn

SIZE = (23, 29)


class Branches(nn.Module):
    """Branches that read the same map and are added, or joined as channels and mixed."""

    def __init__(self, *branches, mix=None):
        super().__init__()
        self.branches, self.mix = nn.ModuleList(branches), mix

    def forward(self, x):
        made = [b(x) for b in self.branches]
        return sum(made) if self.mix is None else self.mix(torch.cat(made, 1))


class Squeeze(nn.Module):
    """Squeeze-excitation in its barest form."""

    def __init__(self):
        super().__init__()
        self.weigh = nn.Conv2d(1, 1, 1)

    def forward(self, x):
        return x * self.weigh(x.mean((2, 3), keepdim=True))


class View(nn.Module):
    """Rows and columns flattened, moved, halved and put back."""

    def forward(self, x):
        n, c, h, w = x.shape
        return x.flatten(2).transpose(1, 2).reshape(n, h, w, c).permute(0, 3, 1, 2)


def layer(draw, *, padded=True):
    size = draw(st.integers(1, 4))
    stride, dilation = draw(st.integers(1, 2)), draw(st.integers(1, 3))
    padding = draw(st.integers(0, size // 2 if padded else 0))
    kinds = ["conv", "max", "mean", "view", "transposed", "nearest", *["residual", "joined", "pad"] * padded]
    match draw(st.sampled_from(kinds)):
        case "conv":
            return nn.Conv2d(1, 1, size, stride, padding, dilation)
        case "max":
            return nn.MaxPool2d(max(size, 2), stride, padding)
        case "mean":
            return nn.AvgPool2d(max(size, 2), stride, padding, ceil_mode=padded and draw(st.booleans()))
        case "transposed":
            return nn.ConvTranspose2d(1, 1, size, draw(st.integers(1, 3)), min(padding, 1), dilation=dilation)
        case "nearest":
            return nn.UpsamplingNearest2d(scale_factor=2)
        case "residual":
            k = draw(st.sampled_from([1, 3, 5]))
            return Branches(nn.Conv2d(1, 1, k, stride, k // 2), nn.Conv2d(1, 1, 3, stride, 1))
        case "joined":
            tall, wide = nn.Conv2d(1, 2, (5, 1), padding=(2, 0)), nn.Conv2d(1, 1, (1, 3), padding=(0, 1))
            return Branches(tall, wide, mix=nn.Conv2d(3, 1, 1))
        case "pad":
            return nn.ZeroPad2d((draw(st.integers(-1, 2)), 1, 0, draw(st.integers(-1, 2))))
    return View()


@st.composite
def networks(draw, **options):
    return nn.Sequential(*[layer(draw, **options) for _ in range(draw(st.integers(1, 5)))])


def positive(model):
    """A float64 copy whose weights are positive and whose maxima are means, so that nothing cancels."""
    layers = []
    for module in model:
        if isinstance(module, nn.MaxPool2d):
            module = nn.AvgPool2d(module.kernel_size, module.stride, module.padding)
        layers.append(module)
    copy = nn.Sequential(*layers).double()
    for p in copy.parameters():
        p.data = torch.rand_like(p) + 0.5
    return copy


def ones(channels=1, size=SIZE):
    return torch.ones(1, channels, *size, dtype=torch.float64)


def output(model, x):
    """What the model makes; None where the maps have shrunk to nothing."""
    try:
        with torch.no_grad():
            made = model(x)
    except RuntimeError:
        return None
    return made if made.numel() else None


def support(model, x, unit):
    """Where the input has a gradient of the unit."""
    x = x.clone().requires_grad_()
    made = model(x)[unit]
    return (torch.autograd.grad(made, x)[0] != 0).numpy()


def packed_count(model):
    """Elements of the weights and biases that the quantised layers give when they are asked."""
    count = 0
    for module in model.modules():
        if callable(getattr(module, "weight", None)) and callable(getattr(module, "bias", None)):
            count += module.weight().numel() + (0 if module.bias() is None else module.bias().numel())
    return count
