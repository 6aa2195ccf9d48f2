"""timm's networks against PyTorch's own counter of operations: recorded, every operator known, the same MACs."""

import pytest
import timm
import torch
from torch.utils.flop_counter import FlopCounterMode

from convscope import record, summarize

# one or two a family; the side in px is the least that the family takes, or the only one
NETWORKS = {
    **dict.fromkeys(
        [
            "resnet26d", "resnetv2_50", "seresnet18", "ecaresnet50t", "skresnet18", "resnest14d", "res2net50_26w_4s",
            "cs3darknet_s", "ese_vovnet19b_dw", "dla34", "dpn48b", "regnety_002", "efficientnet_b0",
            "mobilenetv3_small_050", "mobilenetv4_conv_small", "mixnet_s", "ghostnetv2_100", "hrnet_w18_small",
            "selecsls42", "rexnet_100", "repvgg_a0", "convnextv2_atto", "convmixer_768_32",
            "inception_v3", "xception41", "fastvit_t8", "efficientvit_b0", "focalnet_tiny_srf", "poolformer_s12",
            "starnet_s1", "hgnetv2_b0", "repvit_m0_9", "nf_resnet26", "lambda_resnet26t", "mobilevit_xxs", "tresnet_m",
            "mambaout_femto", "davit_tiny", "edgenext_xx_small",
        ], 96),
    **dict.fromkeys(["levit_128s", "visformer_tiny", "coatnet_pico_rw_224"], 224),
    **dict.fromkeys(["bat_resnext26ts", "halonet26t", "botnet26t_256"], 256),
    "crossvit_9_240": 240,
}  # fmt: skip


@pytest.mark.parametrize("name", NETWORKS)
def test_parameters_and_macs(name):
    with torch.device("meta"):
        model = timm.create_model(name).eval()
    x = torch.zeros(1, 3, NETWORKS[name], NETWORKS[name], device="meta")
    total = summarize(record(model, x)).total
    assert total.unknown == ()
    assert total.params == sum(p.numel() for p in model.parameters())
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(x)
    assert 2 * total.macs == counter.get_total_flops()
