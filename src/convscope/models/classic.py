"""The two classic classifiers. `features` is the upstream, `head` the downstream; the output is logits."""

from collections import OrderedDict

from torch import Tensor, nn


class LeNet5(nn.Module):
    """LeNet-5 with ReLU and max pooling: 61,706 parameters and 416,520 MACs for ten classes.

    Shapes: N x in_channels x 32 x 32 -> N x num_classes logits.
    Source: LeCun et al. 1998, Gradient-based learning applied to document recognition.

    >>> sum(p.numel() for p in LeNet5().parameters())
    61706
    """

    def __init__(self, num_classes: int = 10, *, in_channels: int = 1) -> None:
        super().__init__()
        self.input_shape = (in_channels, 32, 32)
        self.features = nn.Sequential(
            OrderedDict(
                C1=nn.Conv2d(in_channels, 6, 5),
                relu1=nn.ReLU(),
                S2=nn.MaxPool2d(2, 2),
                C3=nn.Conv2d(6, 16, 5),
                relu3=nn.ReLU(),
                S4=nn.MaxPool2d(2, 2),
            )
        )
        self.head = nn.Sequential(
            OrderedDict(
                flatten=nn.Flatten(),
                F5=nn.Linear(400, 120),
                relu5=nn.ReLU(),
                F6=nn.Linear(120, 84),
                relu6=nn.ReLU(),
                output=nn.Linear(84, num_classes),
            )
        )

    def forward(self, x: Tensor) -> Tensor:
        """Logits of a batch of images."""
        return self.head(self.features(x))


class ConvNet3(nn.Module):
    """Three 3x3 convolutions without padding, then one fully connected layer.

    Shapes: N x in_channels x 32 x 32 -> N x num_classes logits; the maps are 30x30, 28x28 and 26x26.

    >>> sum(p.numel() for p in ConvNet3().parameters())
    4088778
    """

    def __init__(self, num_classes: int = 10, *, in_channels: int = 1) -> None:
        super().__init__()
        self.input_shape = (in_channels, 32, 32)
        self.features = nn.Sequential(
            OrderedDict(
                conv1=nn.Conv2d(in_channels, 32, 3),
                relu1=nn.ReLU(),
                conv2=nn.Conv2d(32, 128, 3),
                relu2=nn.ReLU(),
                conv3=nn.Conv2d(128, 512, 3),
                relu3=nn.ReLU(),
            )
        )
        self.head = nn.Sequential(OrderedDict(flatten=nn.Flatten(), output=nn.Linear(512 * 26 * 26, num_classes)))

    def forward(self, x: Tensor) -> Tensor:
        """Logits of a batch of images."""
        return self.head(self.features(x))
