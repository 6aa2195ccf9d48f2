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


class Depth(nn.Module):
    """Blocks of 2x2 become channels, which a product mixes."""

    def __init__(self):
        super().__init__()
        self.mix = nn.Conv2d(4, 1, 1)

    def forward(self, x):
        n, c, h, w = x.shape
        blocks = x[:, :, : h // 2 * 2, : w // 2 * 2].reshape(n, c, h // 2, 2, w // 2, 2)
        return self.mix(blocks.permute(0, 1, 3, 5, 2, 4).reshape(n, 4 * c, h // 2, w // 2))


class Windows(nn.Module):
    """Each window of 3x2 is seen whole by its units, as in window attention."""

    def forward(self, x):
        n, c, h, w = x.shape
        rows, columns = h // 3, w // 2
        cut = x[:, :, : 3 * rows, : 2 * columns].reshape(n, c, rows, 3, columns, 2).permute(0, 2, 4, 3, 5, 1)
        tokens = cut.reshape(n * rows * columns, 6, c)
        held = tokens + 1  # nothing is lost where a token is 0, as in padding
        seen = tokens + (held @ held.transpose(1, 2)) @ held
        back = seen.reshape(n, rows, columns, 3, 2, c).permute(0, 5, 1, 3, 2, 4)
        return back.reshape(n, c, 3 * rows, 2 * columns)


class Pasted(nn.Module):
    """The map written into a larger one, as detectors make batches."""

    def forward(self, x):
        n, c, h, w = x.shape
        batch = x.new_zeros(n + 1, c, h + 2, w + 3)
        batch[1, :, 1 : h + 1, :w].copy_(x[0])
        return batch[1:]


class Chosen(nn.Module):
    """Branches of two sizes, stacked and summed as selective kernels are."""

    def __init__(self):
        super().__init__()
        self.near, self.far = nn.Conv2d(1, 1, 3, padding=1), nn.Conv2d(1, 1, 3, padding=2, dilation=2)

    def forward(self, x):
        return torch.stack([self.near(x), self.far(x)], 1).sum(1)


WHOLE = {"view": View, "depth": Depth, "windows": Windows, "pasted": Pasted, "chosen": Chosen}


def layer(draw, *, padded=True):
    kinds = ["conv", "max", "mean", "transposed", "nearest", "view", "depth", "windows"]
    kinds += ["residual", "joined", "pad", "pasted", "chosen"] if padded else ["mirror"]
    kind = draw(st.sampled_from(kinds))
    return WHOLE[kind]() if kind in WHOLE else windowed(draw, kind, padded=padded)


def windowed(draw, kind, *, padded):
    size = draw(st.integers(1, 4))
    stride, dilation = draw(st.integers(1, 2)), draw(st.integers(1, 3))
    padding = draw(st.integers(0, size // 2 if padded else 0))
    match kind:
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
    return draw(st.sampled_from([nn.ReflectionPad2d, nn.ReplicationPad2d]))(1)


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
