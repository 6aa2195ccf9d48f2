"""visualise(): a picture made to make one channel fire, by gradient ascent.

Shape suffixes: C channels, H rows, W columns.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from convscope.errors import InputError, ModelError
from convscope.explain.capture import as_model, called, capturing, find_layer, undisturbed
from convscope.explain.pictures import png_bytes
from convscope.explain.sheets import Panel, as_rgb, page, zoomed
from convscope.table import number

LEARNING_RATE = 0.05  # of Adam
SPREAD = 0.01  # of the random spectrum that the ascent starts from
DECAY = 0.02  # how much a mean squared distance of 1 from mid-grey costs, in units of the channel's first gradient


@dataclass(frozen=True, slots=True, eq=False)
class Visualisation:
    """What one channel of a layer looks for.

    `pixels` is HxWxC in 0..1; `activation` the mean of the channel over its places for it, `activations` those of
    all steps so far: before the first step, and after each.
    """

    layer: str
    channel: int
    pixels: np.ndarray
    activations: tuple[float, ...]

    @property
    def activation(self) -> float:
        """The channel's mean for the picture."""
        return self.activations[-1]

    @property
    def steps(self) -> int:
        """Steps that were taken."""
        return len(self.activations) - 1

    def picture(self) -> Image.Image:
        """The picture, enlarged by a whole number."""
        first, last = number(self.activations[0]), number(self.activation)
        line = f"mean activation {first} at first, {last} after {self.steps} steps"
        panel = Panel(zoomed(as_rgb(self.pixels), 320))
        return page([[panel]], title=self.layer, shape=f"channel {self.channel}", lines=(line,))

    def data(self) -> dict[str, Any]:
        """Plain data for JSON, without the pixels."""
        return {
            "layer": self.layer, "channel": self.channel, "steps": self.steps, "activation": self.activation,
            "first_activation": self.activations[0], "shape": self.pixels.shape,
        }  # fmt: skip

    def _repr_png_(self) -> bytes:
        return png_bytes(self.picture())


def visualise(
    model: nn.Module, *, layer: str, channel: int, shape: tuple[int, ...], steps: int = 256, **options: Any
) -> Visualisation:
    """The picture after `steps` steps of `ascent`, which takes the same arguments.

    >>> model = nn.Sequential(nn.Conv2d(1, 2, 3))
    >>> made = visualise(model, layer="0", channel=1, shape=(1, 8, 8), steps=20)
    >>> made.activation > made.activations[0]
    True
    """
    *_, last = ascent(model, layer=layer, channel=channel, shape=shape, steps=steps, **options)
    return last


def ascent(
    model: nn.Module,
    *,
    layer: str,
    channel: int,
    shape: tuple[int, ...],
    steps: int = 256,
    **options: Any,
) -> Iterator[Visualisation]:
    """The picture before the first step and after each, so that whoever watches can stop.

    shape: C, H, W of the model's input. options: `seed` of the first picture and the jitter (0), and `normalise`,
    which brings pixels in 0..1 to what the model takes (unchanged). The picture is the sigmoid of an inverse Fourier
    transform with amplitudes that fall as 1 / frequency; each step sees it moved by a few pixels, and what strays
    from mid-grey costs a little. What is maximised is the mean of the channel over its places.
    Raises: InputError if layer, channel or steps do not fit; ModelError if the layer has no gradient.
    Source: Olah, Mordvintsev & Schubert 2017, "Feature Visualization", Distill (doi:10.23915/distill.00007).
    """
    if steps < 1 or len(shape) != 3:
        raise InputError(f"visualise: needs steps >= 1 and a shape C, H, W; got {steps} steps and {tuple(shape)}")
    normalise = options.pop("normalise", lambda x: x)
    return _ascent(_Wanted(model, find_layer(model, layer), channel, normalise), shape=shape, steps=steps, **options)


@dataclass(frozen=True, slots=True)
class _Wanted:
    """One channel of one layer, and how pixels enter the model."""

    model: nn.Module
    path: str
    channel: int
    normalise: Callable[[Tensor], Tensor]

    def activation(self, pixels_NCHW: Tensor) -> Tensor:
        """The mean of the channel over its places."""
        with capturing(self.model, self.path, graph="whole") as found:
            called(self.model, as_model(self.model, self.normalise(pixels_NCHW)))
        if not found or found[0].ndim < 2:
            raise InputError(f"layer {self.path!r}: gives no N x channels output; choose another layer")
        have = found[0].shape[1]
        if not 0 <= self.channel < have:
            raise InputError(
                f"channel {self.channel}: layer {self.path!r} has channels 0 to {have - 1}; choose one of them"
            )
        return found[0][:, self.channel].float().mean()


def _ascent(wanted: _Wanted, *, shape: tuple[int, ...], steps: int, seed: int = 0) -> Iterator[Visualisation]:
    source = torch.Generator().manual_seed(seed)
    spectrum, frequencies = _spectrum(shape, source)
    spectrum.requires_grad_()
    climb = torch.optim.Adam([spectrum], lr=LEARNING_RATE)
    reach = max(1, min(shape[1:]) // 16)
    activations: list[float] = []
    for step in range(steps + 1):
        # the model is brought back between the steps, so that nothing stays changed when nobody asks for the next
        with undisturbed(wanted.model), torch.enable_grad():
            pixels = _pixels(spectrum, frequencies, shape)
            with torch.no_grad():
                activations.append(wanted.activation(pixels).item())
            state = Visualisation(
                wanted.path, wanted.channel, pixels[0].detach().movedim(0, -1).numpy().copy(), tuple(activations)
            )
            if step < steps:
                moved = _jitter(pixels, reach, source)
                height = wanted.activation(moved)
                if not height.requires_grad:
                    raise ModelError(
                        f"visualise: layer {wanted.path!r} has no gradient by the picture; choose another layer"
                    )
                climb.zero_grad()
                (DECAY * (pixels - 0.5).square().mean() - height / max(1.0, abs(activations[0]))).backward()
                climb.step()
        yield state


def _spectrum(shape: tuple[int, ...], source: torch.Generator) -> tuple[Tensor, Tensor]:
    """A random start Cx Hx(W/2+1) x2 (real and imaginary), and the amplitude of each frequency."""
    channels, high, wide = shape
    rows, columns = torch.fft.fftfreq(high)[:, None], torch.fft.rfftfreq(wide)[None]
    frequency = (rows**2 + columns**2).sqrt().clamp(min=1 / max(high, wide))
    amplitude = (high * wide) ** 0.5 / frequency / 4
    return SPREAD * torch.randn(channels, *amplitude.shape, 2, generator=source), amplitude


def _pixels(spectrum: Tensor, amplitude: Tensor, shape: tuple[int, ...]) -> Tensor:
    """1xCxHxW in 0..1."""
    scaled = torch.view_as_complex(spectrum) * amplitude
    return torch.fft.irfft2(scaled, s=shape[1:]).sigmoid()[None]


def _jitter(pixels_NCHW: Tensor, reach: int, source: torch.Generator) -> Tensor:
    """The picture moved by up to `reach` pixels, mid-grey where nothing came from."""
    y, x = torch.randint(0, 2 * reach + 1, (2,), generator=source).tolist()
    high, wide = pixels_NCHW.shape[2:]
    return F.pad(pixels_NCHW, (reach,) * 4, value=0.5)[..., y : y + high, x : x + wide]
