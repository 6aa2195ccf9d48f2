"""torchvision's models against what torchvision publishes for its weights: `num_params`, and `_ops` in 10^9 MACs."""

import pytest
import torch
from torch import nn
from torchvision import models

from convscope import record, summarize

CLASSIFIERS = sorted(set(models.list_models(module=models)))
SEGMENTERS = sorted(set(models.list_models(module=models.segmentation)))
VIDEOS = sorted(set(models.list_models(module=models.video)))
# of one stage: what those of two stages compute depends on what the first one finds, see below
DETECTORS = {"ssd300_vgg16": (3, 300, 300), "ssdlite320_mobilenet_v3_large": (3, 320, 320)}


@pytest.fixture(autouse=True, scope="module")
def without_initialisation():
    """Weights are left as they lie in memory: nothing here depends on them, and drawing them takes minutes."""
    with pytest.MonkeyPatch.context() as patch:
        for name in dir(nn.init):
            if name.endswith("_") and not name.startswith("_"):
                patch.setattr(nn.init, name, lambda tensor, *args, **kwargs: tensor)
        yield


def published(name):
    return next(iter(models.get_model_weights(name)))


def summary_of(name, *inputs, **options):
    return summarize(record(models.get_model(name, weights=None, **options).eval(), *inputs))


def agrees(summary, name):
    facts = published(name).meta
    assert summary.total.unknown == ()
    assert summary.total.params == facts["num_params"]
    assert summary.total.macs / 1e9 == pytest.approx(facts["_ops"], rel=0.001, abs=0.0006)  # published with 3 decimals


@pytest.mark.parametrize("name", [n for n in CLASSIFIERS if n != "googlenet"])
def test_classification(name):
    size = published(name).transforms().crop_size[0]
    options = {"init_weights": False} if name == "inception_v3" else {}
    options |= {"image_size": size} if name.startswith("vit") else {}
    agrees(summary_of(name, torch.zeros(1, 3, size, size), **options), name)


def test_googlenet_is_published_without_the_classifiers_that_only_training_reads():
    options = {"init_weights": False, "aux_logits": False}
    agrees(summary_of("googlenet", torch.zeros(1, 3, 224, 224), **options), "googlenet")


@pytest.mark.parametrize("name", SEGMENTERS)
def test_segmentation(name):
    options = {} if name.startswith("lraspp") else {"aux_loss": True}
    agrees(summary_of(name, torch.zeros(1, 3, 520, 520), weights_backbone=None, **options), name)


@pytest.mark.parametrize("name", VIDEOS)
def test_video(name):
    height, width = published(name).transforms().crop_size
    agrees(summary_of(name, torch.zeros(1, 3, 16, height, width)), name)


@pytest.mark.parametrize("name", DETECTORS)
def test_detection_takes_a_list_of_images_on_real_tensors(name):
    summary = summary_of(name, [torch.rand(DETECTORS[name])], weights_backbone=None)
    agrees(summary, name)
    assert any("recorded on real tensors" in note for note in summary.notes)


# of one stage, too: published on squares, with the scales and shifts of the backbone's norms frozen (no parameters)
FROZEN = 53_120  # scales and shifts of ResNet-50
ON_SQUARES = ["retinanet_resnet50_fpn", "fcos_resnet50_fpn"]


@pytest.mark.parametrize("name", ON_SQUARES)
def test_detectors_bring_a_square_to_800x800(name):
    summary = summary_of(name, [torch.rand(3, 64, 64)], weights_backbone=None)
    facts = published(name).meta
    assert summary.total.params - FROZEN == facts["num_params"]
    assert summary.total.macs / 1e9 == pytest.approx(facts["_ops"], rel=0.001)


# of two stages, with as many proposals as they are published with: all that the second stage takes, or none; the others
# of their kind (Faster and Mask R-CNN, the larger MobileNet) agree as well, but take long
TWO_STAGES = {"fasterrcnn_mobilenet_v3_large_320_fpn": 0, "keypointrcnn_resnet50_fpn": 1000}


@pytest.mark.parametrize("name", TWO_STAGES)
def test_detectors_of_two_stages_with_the_proposals_that_they_are_published_with(name):
    model = models.get_model(name, weights=None, weights_backbone=None).eval()
    for parameter in model.parameters():
        parameter.data.zero_()
    model.rpn.score_thresh, model.rpn.nms_thresh = (-1, 1.1) if TWO_STAGES[name] else (1.1, 0.7)
    model.roi_heads.score_thresh = 1.1  # nothing is found in the end
    recording = record(model, [torch.rand(3, 800, 800)])
    pooled = [op.outputs[0].shape[0] for op in recording.ops if op.name == "roi_align" and op.outputs[0].shape[2] == 7]
    assert sum(pooled) == TWO_STAGES[name]
    total, facts = summarize(recording).total, published(name).meta
    norms = [m for m in model.backbone.body.modules() if isinstance(m, nn.BatchNorm2d)]  # published frozen
    assert total.unknown == ()
    assert total.params == facts["num_params"] + sum(p.numel() for m in norms for p in m.parameters())
    assert total.macs / 1e9 == pytest.approx(facts["_ops"], rel=0.001)


@pytest.mark.parametrize("name", sorted(models.list_models(module=models.optical_flow)))
def test_optical_flow_is_published_on_two_pictures_of_512x512(name):
    picture = torch.zeros(1, 3, 512, 512)
    agrees(summary_of(name, picture, picture), name)
