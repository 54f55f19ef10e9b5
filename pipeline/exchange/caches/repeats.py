"""Rows that a distributed sampler repeats so that every process has as many: how many there are."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

SAME = 0.1  # of the distance of two images: what two draws of one posterior stay below


def padding(heads: Sequence[NDArray[np.float32]], tails: Sequence[NDArray[np.float32]]) -> int:
    """How many of the last rows repeat the first ones: the largest k for which the last k tails are the first k heads.

    heads, tails: the first and the last row of every process, in the order of the processes. A sampler without
    shuffling deals rows out in turns, so that its padding stands at the ends of the last processes. Draws of one
    posterior differ a little, those of different images by as much as a latent varies.
    """
    for count in range(len(heads) - 1, 0, -1):
        pairs = zip(heads[:count], tails[len(tails) - count :], strict=True)
        if all(_alike(head, tail) for head, tail in pairs):
            return count
    return 0


def _alike(a: NDArray[np.float32], b: NDArray[np.float32]) -> bool:
    centre = (a.astype(np.float64) + b).mean(axis=(1, 2), keepdims=True) / 2
    spread = ((a - centre) ** 2).sum() + ((b - centre) ** 2).sum()
    return bool(((a.astype(np.float64) - b) ** 2).sum() <= SAME * spread)
