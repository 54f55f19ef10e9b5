"""Features of a stream of pictures, batch by batch."""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from lvae.evaluate.features.feature_network import FeatureNetwork, PictureFeatures
from lvae.evaluate.pictures.streams import ImageStack
from lvae.manifests.statistics import require_finite

ADVICE = "Look at this picture and at the network, or leave the picture out."


def compute_features(stack: ImageStack, network: FeatureNetwork) -> Iterator[tuple[NDArray[np.uint8], PictureFeatures]]:
    """Yield every batch of pictures with its features. LvaeError naming the picture whose features are not finite."""
    done = 0
    for images in stack.batches():
        features = network(images)
        require_finite_features(features, stack.where, stack.keys[done : done + len(images)])
        yield images, features
        done += len(images)


def require_finite_features(features: PictureFeatures, where: object, keys: Sequence[object]) -> None:
    """LvaeError naming by its key the first picture whose features are not finite."""
    for name in features.arrays:
        require_finite(getattr(features, name), where, "features of", keys, ADVICE)
