"""attribute(): which places of a picture speak for an answer of the network, by six methods.

Shape suffixes: N samples, C channels, H rows, W columns. A is a layer's output, G the gradient of the score by it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from convscope.errors import InputError, ModelError, first_line, need
from convscope.explain.capture import as_model, called, capturing, find_layer, op_of, spatial, undisturbed
from convscope.explain.pictures import png_bytes
from convscope.explain.targets import Target, logit
from convscope.graph import Recording, record

STEPS = 64  # of integrated gradients, by Gauss-Legendre quadrature
DRAWS, NOISE = 25, 0.15  # of SmoothGrad; noise as a share of the input's range
AT_ONCE = 8  # copies of a picture that run through the network together


@dataclass(frozen=True, slots=True, eq=False)
class Attribution:
    """Where in one picture the score comes from.

    `map` is HxW float32: what each place adds (`signed`), or how strongly it bears on the score. `score` is that of
    the picture; `gap`, where the method promises that its map adds up to score less baseline score, by how much it
    fails to. `layer` is the one that Grad-CAM looked at, `cells` the map at that layer's own resolution.
    """

    method: str
    target: str
    map: np.ndarray
    signed: bool
    score: float
    gap: float | None = None
    layer: str | None = None
    cells: np.ndarray | None = None

    def picture(self) -> Image.Image:
        """The map with its colour scale."""
        from convscope.explain.sheets import sheet

        return sheet(None, (self,))

    def data(self) -> dict[str, Any]:
        """Plain data for JSON, without the map."""
        return {
            "method": self.method, "target": self.target, "score": self.score, "signed": self.signed,
            "gap": self.gap, "layer": self.layer, "shape": self.map.shape,
        }  # fmt: skip

    def _repr_png_(self) -> bytes:
        return png_bytes(self.picture())


@dataclass(frozen=True, slots=True)
class _Asked:
    """One question to one model: the input 1xCxHxW, and the score of a batch as one number a sample."""

    model: nn.Module
    x_NCHW: Tensor
    target: Target
    layer: str | None
    seed: int

    def score(self, x_NCHW: Tensor) -> Tensor:
        """Shapes: NxCxHxW -> N."""
        x = as_model(self.model, x_NCHW)  # captum makes float32 of other types
        return self.told(called(self.model, x.clone()), len(x))  # a copy, since the model may write in place

    def told(self, outputs: Any, num_samples: int) -> Tensor:
        """The scores of a batch whose outputs are known."""
        scores = self.target(outputs)
        if not isinstance(scores, Tensor) or scores.shape != (num_samples,):
            found = tuple(scores.shape) if isinstance(scores, Tensor) else type(scores).__name__
            raise InputError(f"target: gives {found} for {num_samples} samples; return one number a sample")
        return scores


def attribute(
    model: nn.Module,
    x: Tensor,
    method: str,
    *,
    target: int | Target | None = None,
    layer: str | None = None,
    seed: int = 0,
) -> Attribution:
    """Which places of one picture the model's answer rests on.

    x: 1xCxHxW, as the model takes it. target: a class of a classifier (its likeliest, if None), or a function of
    the model's outputs that gives one number a sample; `explain.targets` has some. layer: of Grad-CAM and
    Grad-CAM++; the last one with more than one place that a convolution feeds, if None. seed: of SmoothGrad's noise.
    The baseline of integrated gradients and occlusion is an input of zeros. Nothing of the model changes.
    Raises: InputError if method, target or layer do not fit; ModelError if the model refuses x, or gives no gradient.
    Source: saliency Simonyan et al. 2013 (arXiv:1312.6034); SmoothGrad Smilkov et al. 2017 (arXiv:1706.03825);
    integrated gradients Sundararajan et al. 2017 (arXiv:1703.01365); occlusion Zeiler & Fergus 2013 (arXiv:1311.2901);
    Grad-CAM Selvaraju et al. 2016 (arXiv:1610.02391); Grad-CAM++ Chattopadhay et al. 2017 (arXiv:1710.11063).

    >>> model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    >>> attribute(model, torch.rand(1, 1, 8, 8), "integrated-gradients", target=1).map.shape
    (8, 8)
    """
    _check(method)
    if x.ndim != 4 or len(x) != 1:
        raise InputError(f"attribute: the input is {'x'.join(map(str, x.shape))}; give one picture, 1xCxHxW")
    if layer is not None and "cam" not in method:
        raise InputError(f"attribute: {method} looks at no layer; leave the layer out, or use grad-cam")
    x = as_model(model, x.detach())
    with undisturbed(model):
        with torch.no_grad():
            outputs = called(model, x.clone())
            target, name = _target(outputs, target)
            asked = _Asked(model, x, target, layer, seed)
            score = asked.told(outputs, 1).item()
        try:
            made = METHODS[method](asked)
        except RuntimeError as error:
            reason = first_line(error)
            raise ModelError(f"attribute: the model gives no gradient for {method} ({reason}); use another") from error
    return replace(made, method=method, target=name, score=score)


def copies(method: str, shape: tuple[int, ...]) -> int:
    """How many pictures run through the network for a method, beside those that tell what it says: what takes time.

    shape: of the input, 1xCxHxW. Raises: InputError if there is no such method.

    >>> copies("integrated-gradients", (1, 3, 224, 224))
    64
    """
    _check(method)
    if method == "occlusion":
        return prod(-(-max(0, n - size) // step) + 1 for n, size, step in _windows(shape[2:]))
    return {"smooth-grad": DRAWS, "integrated-gradients": STEPS}.get(method, 1)


def default_layer(recording: Recording) -> str:
    """The last layer with more than one place that a convolution feeds; the model's output itself is left out.

    Raises: InputError if there is none.

    >>> model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    >>> default_layer(record(model, torch.zeros(1, 1, 8, 8)))
    '1'
    """
    fed: set[int] = set()
    last = ""
    results = {v.id for v in recording.outputs}
    for op in recording.ops:
        if op.name == "convolution" or any(v.id in fed for v in op.inputs):
            fed |= {v.id for v in op.outputs}
            if op.module and op.outputs and spatial(op.outputs[0]) and op.outputs[0].id not in results:
                last = op.module
    if not last:
        raise InputError("grad-cam: no layer has more than one place and is fed by a convolution; use another method")
    return last


def _check(method: str) -> None:
    if method not in METHODS:
        raise InputError(f"method {method!r}: there is none of that name; use one of {', '.join(METHODS)}")


def _target(outputs: Any, target: int | Target | None) -> tuple[Target, str]:
    """The score function, and what it is called."""
    if target is None:
        logit(0)(outputs)
        target = int(outputs[0].argmax())
    if isinstance(target, int):
        return logit(target), f"class {target}"
    return target, getattr(target, "__qualname__", type(target).__name__).partition(".")[0]


def _captum() -> Any:
    need("captum", extra="pictures")
    from captum import attr

    return attr


def _saliency(asked: _Asked) -> Attribution:
    """The largest magnitude over the channels of the gradient by the input."""
    gradient = _captum().Saliency(asked.score).attribute(_leaf(asked), abs=False)
    return _made(gradient.abs().amax(1)[0], signed=False)


def _smooth_grad(asked: _Asked) -> Attribution:
    """As saliency, of the mean gradient over noisy copies of the input."""
    x = asked.x_NCHW
    torch.manual_seed(asked.seed)  # inside `undisturbed`, which brings the random state back
    stdev = NOISE * float(x.max() - x.min())
    attr = _captum()
    tunnel = attr.NoiseTunnel(attr.Saliency(asked.score))
    gradient = tunnel.attribute(
        _leaf(asked), nt_type="smoothgrad", nt_samples=DRAWS, nt_samples_batch_size=AT_ONCE, stdevs=stdev, abs=False
    )
    return _made(cast(Tensor, gradient).abs().amax(1)[0], signed=False)


def _integrated_gradients(asked: _Asked) -> Attribution:
    """The gradient by the input along the line from zeros, times the input; the channels added."""
    parts = (
        _captum().IntegratedGradients(asked.score).attribute(_leaf(asked), n_steps=STEPS, internal_batch_size=AT_ONCE)
    )
    with torch.no_grad():
        risen = (asked.score(asked.x_NCHW) - asked.score(torch.zeros_like(asked.x_NCHW))).item()
    return _made(parts.sum(1)[0], signed=True, gap=float(parts.detach().double().sum()) - risen)


def _occlusion(asked: _Asked) -> Attribution:
    """How much the score falls when a window an eighth of the picture wide is set to 0, averaged over the windows."""
    channels, *sizes = asked.x_NCHW.shape[1:]
    _, window, strides = zip(*_windows(sizes), strict=True)
    with torch.no_grad():
        parts = (
            _captum()
            .Occlusion(asked.score)
            .attribute(
                asked.x_NCHW.clone(), (channels, *window), strides=(channels, *strides), perturbations_per_eval=AT_ONCE
            )
        )
    return _made(parts[0, 0], signed=True)


def _windows(sizes: Sequence[int]) -> list[tuple[int, int, int]]:
    """Of each axis its length, and of the window that hides a part its length and step."""
    return [(n, max(1, n // 8), max(1, n // 16)) for n in sizes]


def _grad_cam(asked: _Asked) -> Attribution:
    """The layer's maps added, each weighted by its mean gradient; negative sums are cut off."""
    return _cam(asked, lambda A, G: G.mean((2, 3), keepdim=True))


def _grad_cam_pp(asked: _Asked) -> Attribution:
    """As Grad-CAM, with positive gradients alone, each weighted by alpha of equation 19.

    The paper's score is exp(S), whose common positive factor in all weights scales the map alone; it is left out.
    """

    def weights(A: Tensor, G: Tensor) -> Tensor:
        below = 2 * G**2 + A.sum((2, 3), keepdim=True) * G**3
        alpha = torch.where(below != 0, G**2 / torch.where(below != 0, below, 1.0), 0.0)
        return (alpha * G.relu()).sum((2, 3), keepdim=True)

    return _cam(asked, weights)


def _cam(asked: _Asked, weights: Callable[[Tensor, Tensor], Tensor]) -> Attribution:
    model, x = asked.model, asked.x_NCHW
    path = default_layer(record(model, x)) if asked.layer is None else find_layer(model, asked.layer)
    with capturing(model, path, graph="from here") as found, torch.enable_grad():
        score = asked.score(x).sum()
        if not found:
            op_of(record(model, x), path)
            raise InputError(f"layer {path!r}: did not run; choose a layer that takes part in the forward pass")
        A = found[0]
        if not spatial(A):
            shape = "x".join(map(str, A.shape))
            raise InputError(f"layer {path!r}: its output {shape} has no places to tell apart; choose an earlier layer")
        (G,) = torch.autograd.grad(score, A, allow_unused=True) if score.requires_grad else (None,)
    if G is None:
        raise InputError(f"layer {path!r}: the score does not depend on it; choose another layer")
    with torch.no_grad():
        A = A.detach()
        cells = (weights(A, G) * A).sum(1, keepdim=True).relu()
        whole = F.interpolate(cells.float(), x.shape[2:], mode="bilinear", align_corners=False)
    return replace(_made(whole[0, 0], signed=False), layer=path, cells=cells[0, 0].float().cpu().numpy())


def _leaf(asked: _Asked) -> Tensor:
    return asked.x_NCHW.clone().requires_grad_()


def _made(map_HW: Tensor, *, signed: bool, gap: float | None = None) -> Attribution:
    return Attribution("", "", map_HW.detach().float().cpu().numpy(), signed, 0.0, gap)


METHODS: Mapping[str, Callable[[_Asked], Attribution]] = {
    "saliency": _saliency,
    "smooth-grad": _smooth_grad,
    "integrated-gradients": _integrated_gradients,
    "occlusion": _occlusion,
    "grad-cam": _grad_cam,
    "grad-cam++": _grad_cam_pp,
}
