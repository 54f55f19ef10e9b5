"""Feature statistics in the field's layout: `mu`, `sigma`, `mu_s`, `sigma_s`, and what they were made with.

Files of ADM (with `arr_0`) and of pytorch-fid (`mu`, `sigma` only) are read, too.
"""

import hashlib
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lvae.evaluate.moments import FeatureMoments
from lvae.evaluate.stacks import ImageStack
from lvae.manifests.errors import LvaeError

if TYPE_CHECKING:
    from lvae.evaluate.networks import FeatureNetwork

KEPT_IMAGES = 10_000  # in a reference file, for precision, recall and kernel distance
Array = NDArray[np.float64]


@dataclass(frozen=True)
class Reference:
    """Stored statistics. None where a file does not say: of ADM and pytorch-fid neither count, mode nor hash."""

    mu: Array
    sigma: Array
    mu_s: Array | None
    sigma_s: Array | None
    n: int | None
    mode: str | None
    weights_sha256: str | None
    has_images: bool


def read_reference(path: Path) -> Reference | None:
    """None where the file holds no statistics (then it may hold images)."""
    try:
        with np.load(path, allow_pickle=False) as file:
            names = set(file.files)
            if "mu" not in names:
                return None
            if "sigma" not in names:
                raise LvaeError(f"{path}: has mu but no sigma. Make the statistics again with 'lvae reference'.")
            stored: dict[str, Any] = {name: file[name] for name in names & set(FIELDS)}
    except FileNotFoundError:
        raise LvaeError(f"{path}: no such file.") from None
    except (ValueError, zipfile.BadZipFile, EOFError, KeyError, OSError) as error:
        raise LvaeError(f"{path}: not a whole .npz file ({error}). Fetch or write it again.") from None
    arrays = {name: np.asarray(stored[name], np.float64) if name in stored else None for name in FIELDS[:4]}
    mu, sigma = arrays["mu"], arrays["sigma"]
    assert mu is not None and sigma is not None
    return Reference(
        mu,
        sigma,
        arrays["mu_s"],
        arrays["sigma_s"],
        int(stored["n"]) if "n" in stored else None,
        str(stored["mode"]) if "mode" in stored else None,
        str(stored["weights_sha256"]) if "weights_sha256" in stored else None,
        "arr_0" in names,
    )


FIELDS = ("mu", "sigma", "mu_s", "sigma_s", "n", "mode", "weights_sha256")


def write_reference(
    out: Path, stack: ImageStack, network: "FeatureNetwork", progress: Callable[[int], None] = lambda _: None
) -> int:
    """Statistics of all images of a stack, and the first 10,000 of the images; how many there were."""
    moments: dict[str, FeatureMoments] = {}
    kept, count = [], 0
    for images in stack.batches():
        found = network(images)
        for name, values in (("", found.pooled), ("_s", found.spatial)):
            if values is not None:
                here = FeatureMoments.of(values)
                moments[name] = moments[name].merge(here) if name in moments else here
        if count < KEPT_IMAGES:
            kept.append(images[: KEPT_IMAGES - count])
        count += len(images)
        progress(len(images))
    arrays: dict[str, Any] = {f"mu{name}": one.mean for name, one in moments.items()}
    arrays |= {f"sigma{name}": one.covariance for name, one in moments.items()}
    out.parent.mkdir(parents=True, exist_ok=True)
    unfinished = out.with_name(f".{out.name}.unfinished.npz")
    try:
        np.savez(
            unfinished,
            n=np.array(count),
            mode=np.array(network.mode),
            weights_sha256=np.array(network.sha256),
            arr_0=np.concatenate(kept),
            **arrays,
        )
        unfinished.replace(out)
    finally:
        unfinished.unlink(missing_ok=True)
    return count


def file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
