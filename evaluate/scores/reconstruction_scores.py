"""Reconstructions against the very images that were encoded, pair by pair."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from lvae.encode.networks.base import Autoencoder
from lvae.encode.quality.fidelity import psnr, ssim
from lvae.evaluate import metrics
from lvae.evaluate.features.compute import require_finite_features
from lvae.evaluate.features.feature_network import PictureFeatures
from lvae.evaluate.pictures.originals import pairs
from lvae.evaluate.scores.image_scores import Measure
from lvae.evaluate.scores.metric_names import PAIRED_METRICS
from lvae.evaluate.scores.score_table import FEW, Scores, several
from lvae.manifests.dataset import Dataset
from lvae.manifests.seeds import chosen

Progress = Callable[[int], None]


def reconstruction_scores(
    dataset: Dataset,
    decoder: Autoencoder,
    measure: Measure,
    num: int | None,
    device: str = "cpu",
    progress: Progress = lambda _: None,
) -> Scores:
    """Reconstructions against the very images that were encoded, pair by pair: psnr_db, ssim and, by features, rfid."""
    positions = chosen(len(dataset), num, str(dataset.folder), measure.seed)
    keys = [f"row {row}" for row in sorted(dataset.rows[positions])]  # as the pairs come
    network, wanted = measure.network, measure.metrics or PAIRED_METRICS[: 3 if measure.network else 2]
    errors, likeness = list[float](), list[float]()
    features: tuple[list[PictureFeatures], list[PictureFeatures]] = ([], [])
    for originals, decoded in pairs(dataset, decoder, positions, device):
        for one, other in zip(originals, decoded, strict=True):
            errors.append(psnr(one, other))
            likeness.append(ssim(one, other))
        if network is not None and "rfid" in wanted:
            for images, found in ((originals, features[0]), (decoded, features[1])):
                found.append(network(images))
                require_finite_features(found[-1], dataset.folder, keys[len(errors) - len(images) : len(errors)])
        progress(len(originals))
    figures: dict[str, float | None] = {}
    if "psnr" in wanted:
        figures["psnr_db"] = float(np.mean(errors)) if np.isfinite(errors).all() else None
    if "ssim" in wanted:
        figures["ssim"] = float(np.mean(likeness))
    if "rfid" in wanted and network is not None:
        x, y = (np.concatenate([one.pooled for one in part]) for part in features)
        key = "network_frechet_distance" if measure.own else "rfid"
        figures[key] = metrics.frechet_distance_from_features(x, y)
    settings: dict[str, Any] = {"pairs": len(errors), "samples_are": "reconstructions", "seed": measure.seed}
    if network is not None:
        settings |= {"mode": network.mode, "weights_sha256": network.sha256, "device": network.device}
    line = several("reconstructions", "against the images that were encoded", [figures])
    few: tuple[str, ...] = ()
    if "rfid" in wanted and len(errors) < FEW:
        few = (f"{len(errors):,} pairs: an rFID of so few is biased upwards; compare it at equal counts only",)
    return Scores((replace(line, name="samples"),), settings, few)
