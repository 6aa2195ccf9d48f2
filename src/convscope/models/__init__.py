"""Networks by name: ours, torchvision's, timm's, or any function that returns a module."""

from convscope.models import imagenet
from convscope.models.classic import ConvNet3, LeNet5
from convscope.models.specs import MODELS, build, input_shape

__all__ = ["MODELS", "ConvNet3", "LeNet5", "build", "imagenet", "input_shape"]
