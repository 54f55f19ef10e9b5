"""Whether a network takes pictures for what their labels say: the nearest class centre of its logits."""

import numpy as np
from numpy.typing import NDArray

from lvae.evaluate.features.feature_network import FeatureNetwork, PictureFeatures

FEWEST_CLASSES = 2


def class_agreement(x: PictureFeatures, y: PictureFeatures, network: FeatureNetwork) -> float | None:
    """Share of the pictures x whose logits are nearest to the mean logits of their own class of y, of all classes of y.

    Classes are matched as `PictureLabels.numbered_as` says; pictures without a label, or of a class that y has not, do
    not count. None where nothing can be said: without labels on both sides, without logits, or with a single class.
    """
    if x.labels is None or y.labels is None:
        return None
    theirs = y.labels.numbers
    classes = np.unique(theirs[theirs >= 0])
    own = x.labels.numbered_as(y.labels)
    counted = np.flatnonzero(np.isin(own, classes))
    logits, others = network.logits(x), network.logits(y)
    if len(classes) < FEWEST_CLASSES or not len(counted) or logits is None or others is None:
        return None
    centres = np.stack([others[theirs == label].mean(axis=0, dtype=np.float64) for label in classes])
    return float((classes[_nearest(logits[counted], centres)] == own[counted]).mean())


def _nearest(logits: NDArray[np.float32], centres: NDArray[np.float64]) -> NDArray[np.int64]:
    """(n, d) to (k, d): the number of the centre at the least distance, (n,); the first one where several are."""
    lengths = (centres**2).sum(axis=1)  # |a - c|^2 = |a|^2 - 2 a c + |c|^2, of which |a|^2 is the same for all
    found: NDArray[np.int64] = (lengths - 2 * (logits.astype(np.float64) @ centres.T)).argmin(axis=1)
    return found


def explain_missing(x: PictureFeatures, y: PictureFeatures | None, network: FeatureNetwork) -> str:
    """Why there is no class agreement between x and y."""
    if x.labels is None:
        return "no class agreement: the samples have no labels"
    if y is None or y.labels is None:
        return "no class agreement: the reference has no labels. Give labelled pictures, or features of them"
    if network.logits(x) is None:
        why = "needs pip install 'latent-vae[features]'" if network.name == "efficientnet-lite0" else "has no logits"
        return f"no class agreement: the {network.name} network {why}"
    return "no class agreement: it needs two classes, and samples of them"
