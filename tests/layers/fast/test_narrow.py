"""The kernels in narrower vectors than this processor may have: AVX2's and SSE's, compiled and run."""

import platform
import shutil

import pytest
import torch
from torch import nn

from convscope.layers import DepthwiseSeparableConv, FlattenedConv
from convscope.layers.fast import building, compiled, operators
from sameness import same

NARROWER = {"AVX2": ("-mno-avx512f", 16), "SSE": ("-mno-avx", 8)}  # what the compiler is told, the floats of a panel
CASES = (
    (nn.Conv2d(32, 32, 3, padding=1), "own kernel, Winograd"),
    (nn.Conv2d(32, 64, 3, padding=2, dilation=2, groups=2), "own kernel, Winograd"),
    (nn.Conv2d(20, 20, 3, stride=2, padding=1, groups=20), "own kernel"),
    (nn.Conv2d(16, 16, 3, padding=1, groups=4), "own kernel"),
    (nn.Conv2d(32, 32, (9, 11), padding=5, groups=32), "own kernel"),
    (nn.MaxPool2d(3, 2, padding=1), "own kernel"),
    (nn.AvgPool2d(3, 1, padding=1), "own kernel"),
    (DepthwiseSeparableConv(32, 64, 3, padding=1), "own kernel, both in one pass"),
    (FlattenedConv(32, 64, 3, padding=1), "own kernel, all in one pass"),
)


@pytest.fixture(scope="module", params=list(NARROWER))
def panel(request, tmp_path_factory):
    """The floats of a panel, with kernels compiled for narrower vectors in the place of this machine's own."""
    flag, floats = NARROWER[request.param]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("narrow")))
        patch.delenv(building.SWITCH, raising=False)
        patch.setattr(building, "_FLAGS", (*building._FLAGS, flag))
        compiled._built.cache_clear()
        yield floats
    compiled._built.cache_clear()


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the flags are those of x86")
@pytest.mark.skipif(shutil.which("g++") is None, reason="there is no compiler")
def test_every_kernel_gives_what_pytorch_gives(panel):
    assert operators.there().panel == panel, compiled.why_absent()
    for layer, words in CASES:
        channels = next((m.in_channels for m in layer.modules() if isinstance(m, nn.Conv2d)), 20)
        for size in ((13, 18), (5, 40)):
            assert words in same(layer, torch.randn(2, channels, *size)), (layer, words)
