"""Networks by name: ours, torchvision's, timm's, or any function that returns a module."""

from torch import nn

from convscope.models import imagenet
from convscope.models.backbone import BACKBONES, Backbone, SmallBackbone, backbone
from convscope.models.classic import ConvNet3, LeNet5
from convscope.models.heads import HEADS, Candidates, HeadedNetwork, OneHead, classes_of_heads
from convscope.models.specs import MODELS, build, input_shape, num_inputs, ready

__all__ = [
    "BACKBONES",
    "HEADS",
    "MODELS",
    "Backbone",
    "Candidates",
    "ConvNet3",
    "HeadedNetwork",
    "LeNet5",
    "OneHead",
    "SmallBackbone",
    "backbone",
    "build",
    "classes_of_heads",
    "imagenet",
    "input_shape",
    "network",
    "num_inputs",
    "ready",
]


def network(spec: str, *, num_classes: int, task: str = "classify") -> nn.Module:
    """The network that learns a task, with fresh weights, in evaluation mode.

    A classifier is what `build` takes, or a backbone with a head; for the other tasks `spec` names the backbone.
    Raises: ModelError if there is no such network, or it cannot serve.

    >>> sorted(network("small", num_classes=10, task="detect").heads)
    ['detect']
    """
    if task == "classify" and spec not in BACKBONES:
        return build(spec, num_classes=num_classes)
    heads = {head: len(classes) for head, classes in classes_of_heads(task, num_classes).items()}
    return HeadedNetwork(backbone(spec), heads).eval()
