"""Pictures that are the same, or nearly: a difference hash of 256 bits.

Source: N. Krawetz 2013, "Kind of Like That" (dHash): each bit says whether a pixel of the shrunk grey picture is
darker than its right neighbour. A margin keeps noise in even areas out of it.
"""

from collections.abc import Iterator

import numpy as np
import torch

from convscope.data.folder import resize
from convscope.data.images import Picture, to_channels

SIDE, MARGIN = 16, 2 / 255
NEAR = 10  # bits of 256 in which pictures that are nearly the same may differ
PLAIN = 24  # bits set at least, or else there is too little in a picture to know it again by
_CHUNK = 64


def difference_hash(picture: Picture) -> np.ndarray:
    """The hash of a picture, uint64 [4]; of an even one it is all 0."""
    grey = resize(torch.from_numpy(to_channels(picture, 1).pixels), size=(SIDE, SIDE + 1))[0].numpy()
    return np.packbits(grey[:, 1:] > grey[:, :-1] + MARGIN).view(np.uint64)


def near_pairs(one_N4: np.ndarray, other_M4: np.ndarray) -> Iterator[tuple[int, int]]:
    """(i, j) of pictures with nearly the same hash; plain ones are left out.

    >>> hashes = np.full((2, 4), 0b1111_0000_1111, np.uint64)
    >>> list(near_pairs(hashes[:1], hashes))
    [(0, 0), (0, 1)]
    """
    busy = np.bitwise_count(other_M4).sum(1) >= PLAIN
    for start in range(0, len(one_N4), _CHUNK):
        rows = one_N4[start : start + _CHUNK]
        apart = np.bitwise_count(rows[:, None] ^ other_M4[None]).sum(2, dtype=np.uint16)
        close = (apart <= NEAR) & busy & (np.bitwise_count(rows).sum(1) >= PLAIN)[:, None]
        yield from ((start + int(i), int(j)) for i, j in zip(*close.nonzero(), strict=True))
