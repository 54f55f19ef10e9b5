"""Feature statistics in the field's layout: `mu`, `sigma`, `mu_s`, `sigma_s`, and what they were made with.

Files of ADM (with `arr_0`) and of pytorch-fid (`mu`, `sigma` only) are read, too.
"""

import zipfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lvae.evaluate.features.compute import compute_features
from lvae.evaluate.features.feature_files import FeaturesRecord, describe_features
from lvae.evaluate.features.feature_network import FeatureNetwork, PictureFeatures
from lvae.evaluate.features.moments import FeatureMoments
from lvae.evaluate.pictures.npz import stream_array, write_streamed
from lvae.evaluate.pictures.streams import ImageStack
from lvae.manifests.errors import LvaeError
from lvae.manifests.statistics import require_finite

AGAIN = "Make the statistics again with 'lvae reference'."
KEPT_IMAGES = 10_000  # in a reference file, for precision, recall and kernel distance
Array = NDArray[np.float64]


@dataclass(frozen=True)
class Reference:
    """Stored statistics. None where a file does not say: of ADM and pytorch-fid neither count, mode nor hash.

    has_pictures: whether it keeps some, or their features.
    """

    mu: Array
    sigma: Array
    mu_s: Array | None
    sigma_s: Array | None
    n: int | None
    mode: str | None
    weights_sha256: str | None
    has_pictures: bool


def read_reference(path: Path) -> Reference | None:
    """None where the file holds no statistics (then it may hold images)."""
    try:
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            names = set(file.files)
            if "mu" not in names:
                return None
            if "sigma" not in names:
                raise LvaeError(path, "has mu but no sigma", AGAIN)
            stored: dict[str, Any] = {name: file[name] for name in names & set(FIELDS)}
    except FileNotFoundError:
        raise LvaeError(path, "no such file") from None
    except (ValueError, zipfile.BadZipFile, EOFError, KeyError, OSError) as error:
        raise LvaeError(path, f"not a whole .npz file ({error})", "Fetch or write it again.") from None
    arrays = {name: np.asarray(stored[name], np.float64) if name in stored else None for name in FIELDS[:4]}
    mu, sigma = arrays["mu"], arrays["sigma"]
    assert mu is not None and sigma is not None
    for mean, covariance in ((mu, sigma), (arrays["mu_s"], arrays["sigma_s"])):
        _check(path, mean, covariance)
    return Reference(
        mu,
        sigma,
        arrays["mu_s"],
        arrays["sigma_s"],
        int(stored["n"]) if "n" in stored else None,
        str(stored["mode"]) if "mode" in stored else None,
        str(stored["weights_sha256"]) if "weights_sha256" in stored else None,
        bool({"arr_0", "pooled"} & names),
    )


def _check(path: Path, mean: Array | None, covariance: Array | None) -> None:
    """LvaeError where an array of statistics cannot belong to the other, or holds a number that is not finite."""
    if mean is None or covariance is None:
        return
    if mean.ndim != 1 or covariance.shape != (len(mean), len(mean)):
        raise LvaeError(path, f"statistics of shapes {mean.shape} and {covariance.shape} do not belong together", AGAIN)
    require_finite(mean, path, "means (mu, mu_s) of feature", range(len(mean)), AGAIN)
    require_finite(covariance, path, "covariances (sigma, sigma_s) of feature", range(len(mean)), AGAIN)


FIELDS = ("mu", "sigma", "mu_s", "sigma_s", "n", "mode", "weights_sha256")


def write_reference(
    out: Path, stack: ImageStack, network: FeatureNetwork, progress: Callable[[int], None] = lambda _: None
) -> int:
    """Statistics of all images of a stack, and the first 10,000 of the images; how many there were."""
    moments = _Moments()
    kept: list[NDArray[np.uint8]] = []
    for images, features in compute_features(stack, network):
        if moments.count < KEPT_IMAGES:
            kept.append(images[: KEPT_IMAGES - moments.count])
        moments.add(features)
        progress(len(images))
    said = {"mode": np.array(network.mode), "weights_sha256": np.array(network.sha256)}
    _write(out, moments, said | {"arr_0": np.concatenate(kept)})
    return moments.count


def write_reference_of_features(out: Path, pieces: Iterable[PictureFeatures], record: FeaturesRecord) -> int:
    """The same of features, a piece at a time in memory; those of the first 10,000 pictures stand for the images."""
    moments = _Moments()
    kept: list[PictureFeatures] = []
    for piece in pieces:
        if moments.count < KEPT_IMAGES:
            kept.append(piece.rows(np.arange(min(len(piece.pooled), KEPT_IMAGES - moments.count))))
        moments.add(piece)
    arrays = {name: np.concatenate([getattr(one, name) for one in kept]) for name in kept[0].arrays}
    _write(out, moments, describe_features(record) | arrays)
    return moments.count


class _Moments:
    """Of features that pass by once, under the names that a file gives them."""

    def __init__(self) -> None:
        self.count = 0
        self._found: dict[str, FeatureMoments] = {}

    def add(self, features: PictureFeatures) -> None:
        self.count += len(features.pooled)
        for name, values in (("", features.pooled), ("_s", features.spatial)):
            if values is not None:
                here = FeatureMoments.of(values)
                self._found[name] = self._found[name].merge(here) if name in self._found else here

    def arrays(self) -> dict[str, Any]:
        found: dict[str, Any] = {f"mu{name}": one.mean for name, one in self._found.items()}
        return found | {f"sigma{name}": one.covariance for name, one in self._found.items()}


def _write(out: Path, moments: _Moments, more: dict[str, NDArray[Any]]) -> None:
    arrays = {"n": np.array(moments.count), **more, **moments.arrays()}
    write_streamed(out, {name: stream_array(array) for name, array in arrays.items()})
