"""What can be asked of a manipulation, and what is chosen where nothing was said."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from typing import Literal

import numpy as np

from lvae.evaluate.manipulation.loaded_run import InputImage
from lvae.evaluate.manipulation.operations import ChannelSweep, Route, Space
from lvae.evaluate.manipulation.rates import Rates
from lvae.manifests.errors import LvaeError
from lvae.train.network.choices import UNGUIDED, Guidance

ARC = 2.25  # how far figure 4 goes, in standard deviations


@dataclass(frozen=True)
class Draws:
    """How random numbers are drawn. mean: images stand for their posteriors' means, not for a draw from them."""

    seed: int = 0
    mean: bool = False
    guidance: Guidance = UNGUIDED


@dataclass(frozen=True)
class Traversal:
    """Two channels to sweep. index: which sample of the seed. image: whose low resolution an upsampler begins with."""

    across: ChannelSweep
    down: ChannelSweep
    index: int = 0
    label: int = -1
    image: InputImage | None = None
    temperature: float = 1.0


def space_values(steps: int) -> tuple[float, ...]:
    """Linearly from -2.25 to 2.25."""
    return tuple(float(value) for value in np.linspace(-ARC, ARC, steps))


def choose_channels(rates: Rates) -> tuple[tuple[int, int], tuple[int, int]]:
    """Group and channel with the largest rate, in each of the first two groups."""
    if len(rates.groups) < 2:
        raise LvaeError("this model has one group only", "name two of its channels, as in --channels 0:3,0:5")
    first, second = rates.groups[:2]
    return (0, first.most_informative), (1, second.most_informative)


@dataclass(frozen=True)
class Interpolation:
    """pairs: of images to join. steps: pictures between. space: None for what suits the model's prior."""

    pairs: Sequence[tuple[int, int]]
    steps: int
    space: Space | None = None
    route: Route = "linear"


def pair_images(count: int, which: Literal["chain", "all"]) -> list[tuple[int, int]]:
    """Which images are joined: each with the next, or every two."""
    if count < 2:
        raise LvaeError("", "an interpolation needs two images or more", "Name more of them.")
    return list(pairwise(range(count))) if which == "chain" else list(combinations(range(count), 2))
