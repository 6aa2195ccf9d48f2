"""The members of the family on one picture: what each costs, what it makes, how long it takes."""

from collections.abc import Mapping
from threading import Lock
from typing import Any

import numpy as np
import torch

from convscope.errors import InputError
from convscope.family import MEMBERS, Setting, clocked, family
from convscope.lab.session import Session

SIDE = 64  # of a picture at most; a larger one is thinned out
MOST_CHANNELS = 64
ROUNDS = 2  # of one answer; the page asks as often as it wants to know better
_ALONE = Lock()  # who measures is not disturbed by another who measures


def thinned(session: Session, key: str) -> torch.Tensor:
    """A picture as the network takes it, every `step`-th row and column of a large one. Shape: 1xCxHxW."""
    x = session.picture(key).x
    step = -(-max(x.shape[2:]) // SIDE)
    return x[:, :, ::step, ::step]


def setting_of(x: torch.Tensor, asked: Mapping[str, int]) -> Setting:
    """What the members are given: one picture, as many channels out as in.

    Raises: InputError if there is no such member.
    """
    channels = asked["channels"]
    if not 1 <= channels <= MOST_CHANNELS:
        raise InputError(f"channels {channels}: use 1 to {MOST_CHANNELS}")
    return Setting(
        channels, channels, tuple(x.shape[2:]), batch=1, kernel_size=asked["kernel"], groups=asked["groups"],
        dilation=asked["dilation"],
    )  # fmt: skip


def outputs(x: torch.Tensor, setting: Setting, *, seed: int = 0) -> tuple[dict[str, Any], np.ndarray]:
    """Channel 0 of what each member makes of the picture, whose channels are repeated to those of the setting.

    All have fresh weights of one seed. The values of the picture and of the members follow each other.
    """
    channels = setting.in_channels
    repeated = x[:, torch.arange(channels) % x.shape[1]]
    maps = {"": repeated[0, 0].numpy()}
    for name, make in MEMBERS.items():
        with _ALONE, torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            layer = make(setting)
        with torch.no_grad():
            maps[name] = layer(repeated)[0, 0].numpy()
    head = {"maps": [{"name": n, "height": m.shape[0], "width": m.shape[1]} for n, m in maps.items()]}
    return head, np.concatenate([m.ravel() for m in maps.values()])


def times(setting: Setting) -> dict[str, Any]:
    """Seconds of two forward passes of each member, which take turns."""
    with _ALONE:
        told = clocked(family(setting), rounds=ROUNDS)
    return {
        "threads": torch.get_num_threads(),
        "seconds": {m.name: m.times.forward.seconds for m in told.members if m.times is not None},
    }
