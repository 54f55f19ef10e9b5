"""Features of a stream of pictures, batch by batch."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray

from lvae.evaluate.features.feature_network import FeatureNetwork, PictureFeatures
from lvae.evaluate.pictures.streams import ImageStack
from lvae.manifests.concurrency import concurrently
from lvae.manifests.statistics import require_finite

ADVICE = "Look at this picture and at the network, or leave the picture out."
MOST_LANES = 8  # of a CPU; each holds the activations of a batch


def compute_features(stack: ImageStack, network: FeatureNetwork) -> Iterator[tuple[NDArray[np.uint8], PictureFeatures]]:
    """Yield every batch of pictures with its features. LvaeError naming the picture whose features are not finite.

    On a CPU several batches are computed side by side, each on its share of the threads, which is faster than one after
    another on all of them, and gives the same bits on one thread and on two.
    """
    done, lanes = 0, _lanes(network)
    with _sharing_threads(lanes) as threads:
        begin = partial(torch.set_num_threads, threads)
        for images, features in concurrently(
            lambda images: (images, network(images)), stack.batches(), lanes, lanes, begin
        ):
            require_finite_features(features, stack.where, stack.keys[done : done + len(images)])
            yield images, features
            done += len(images)


def _lanes(network: FeatureNetwork) -> int:
    """Batches at a time; a user's own program is not asked to compute two at once."""
    return 1 if network.device != "cpu" or network.name == "own" else min(torch.get_num_threads(), MOST_LANES)


@contextmanager
def _sharing_threads(lanes: int) -> Iterator[int]:
    """How many threads an operation has inside, where so many lanes share them."""
    before = torch.get_num_threads()
    threads = max(1, before // lanes)
    torch.set_num_threads(threads)
    try:
        yield threads
    finally:
        torch.set_num_threads(before)


def require_finite_features(features: PictureFeatures, where: object, keys: Sequence[object]) -> None:
    """LvaeError naming by its key the first picture whose features are not finite."""
    for name in features.arrays:
        require_finite(getattr(features, name), where, "features of", keys, ADVICE)
