"""Pictures against pictures by a network's features."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lvae.encode.networks.base import Autoencoder
from lvae.evaluate import metrics
from lvae.evaluate.corrected_frechet import RowMoments, corrected_distance
from lvae.evaluate.features.compute import compute_features
from lvae.evaluate.features.feature_files import StoredFeatures
from lvae.evaluate.features.feature_network import FeatureNetwork, PictureFeatures
from lvae.evaluate.features.moments import FeatureMoments
from lvae.evaluate.features.reference_files import Reference
from lvae.evaluate.pictures.decode import DecodeSettings, decode
from lvae.evaluate.pictures.labels import labels_if_any
from lvae.evaluate.pictures.streams import ImageStack, decoded_stack, latents_stack
from lvae.evaluate.scores.class_agreement import class_agreement, explain_missing
from lvae.evaluate.scores.latent_scores import (
    READ_ROWS,
    channel_noise,
    few_rows,
    gaussian_labels,
    gaussian_samples,
    latents_of,
)
from lvae.evaluate.scores.metric_names import METRICS, OWN_METRICS
from lvae.evaluate.scores.real_level import RIVAL_SETS, Rows, real_line
from lvae.evaluate.scores.score_table import CORRECTED, FEW, Figures, Line, Scores, several
from lvae.manifests.dataset import Dataset
from lvae.manifests.errors import LvaeError
from lvae.manifests.seeds import derive

LEAST_REAL = 8  # pictures of a reference that real ones can be compared within
DUPLICATES = 0.01  # share of equal pictures that is worth a warning
Progress = Callable[[int], None]
PictureSet = ImageStack | StoredFeatures


@dataclass(frozen=True)
class Measure:
    """What is computed. network: of the features, None for pairs of pictures alone. metrics: names, None for all."""

    network: FeatureNetwork | None
    metrics: tuple[str, ...] | None = None
    seed: int = 0
    extrapolate: bool = False

    @property
    def own(self) -> bool:
        """Whether the network is not Inception: then figures bear names of their own."""
        return self.network is not None and self.network.name != "inception"

    @property
    def agreement(self) -> str:
        """The name of the class agreement."""
        return "network_class_agreement" if self.own else "class_agreement"

    @property
    def wanted(self) -> tuple[str, ...]:
        return self.metrics or (OWN_METRICS if self.own else METRICS)


@dataclass(frozen=True)
class Rival:
    """Sets that stand beside the samples. what: in words, for a person."""

    name: str
    what: str
    sets: Sequence[PictureSet]


@dataclass(frozen=True)
class ReferenceFeatures:
    """What samples are compared with: features of pictures, or moments from a file, with whatever pictures it keeps."""

    where: str
    features: PictureFeatures | None
    stored: Reference | None

    @property
    def count(self) -> int | None:
        if self.stored is not None:
            return self.stored.n
        return None if self.features is None else len(self.features.pooled)

    @cached_property
    def row_moments(self) -> RowMoments | None:
        """Of the pooled features, for corrected distances; of a file of statistics none can be had."""
        return None if self.stored is not None or self.features is None else RowMoments.of(self.features.pooled)


def features_of(
    stack: PictureSet, network: FeatureNetwork, progress: Progress = lambda _: None
) -> tuple[PictureFeatures, list[str]]:
    """Return the features of all pictures of a set, in their order, and warnings about the pictures.

    LvaeError where features were stored that are of another network, or of pictures prepared in another mode.
    """
    if isinstance(stack, StoredFeatures):
        refuse_others(stack.where, stack.record.mode, stack.record.weights_sha256, network)
        progress(stack.count)
        return stack.features, []
    found: list[PictureFeatures] = []
    seen: set[bytes] = set()
    for images, features in compute_features(stack, network):
        found.append(features)
        seen.update(hashlib.sha256(np.ascontiguousarray(image).data).digest()[:16] for image in images)
        progress(len(images))
    notes, again = list(stack.notes), stack.count - len(seen)
    if again > DUPLICATES * stack.count:
        notes.append(f"{again} of {stack.count} {stack.what} are there more than once, pixel by pixel")
    pooled = np.concatenate([one.pooled for one in found])
    if found[0].spatial is None or found[0].logits is None:
        return PictureFeatures(pooled, None, None, stack.labels), notes
    spatial, logits = ([getattr(one, name) for one in found] for name in ("spatial", "logits"))
    return PictureFeatures(pooled, np.concatenate(spatial), np.concatenate(logits), stack.labels), notes


def compute_figures(x: PictureFeatures, where: str, reference: ReferenceFeatures, measure: Measure) -> Figures:
    """Return the figures of a set's features; None where the reference holds too little.

    where: the set, as the user named it. LvaeError naming both sets where a figure is not a finite number.
    """
    try:
        with np.errstate(over="ignore", invalid="ignore"):
            found = _figures(x, reference, measure)
    except LvaeError as error:
        if error.where:
            raise
        raise LvaeError(f"{where} against {reference.where}", error.problem, error.advice) from error
    for name, value in found.items():
        if value is not None and not np.isfinite(value):
            raise LvaeError(f"{where} against {reference.where}", f"{name} is not finite", "Check both for damage.")
    return found


def _figures(x: PictureFeatures, reference: ReferenceFeatures, measure: Measure) -> dict[str, float | None]:
    own, wanted, seed = measure.own, measure.wanted, measure.seed
    stored, y = reference.stored, reference.features
    found: dict[str, float | None] = {}
    if "fid" in wanted or "frechet" in wanted:
        key = "network_frechet_distance" if own else "fid"
        mu, sigma = _moments(reference)
        found[key] = metrics.frechet_distance_to_moments(x.pooled, mu, sigma) if stored else _frechet(x, y, "pooled")
        if min(len(x.pooled), reference.count or FEW) < FEW:
            y_moments = reference.row_moments
            corrected = None if y_moments is None else corrected_distance(RowMoments.of(x.pooled), y_moments)
            found[f"{key}{CORRECTED}"] = corrected
        if measure.extrapolate:
            found[f"{key}_infinite"] = metrics.frechet_at_counts(x.pooled, mu, sigma, seed=seed).infinite
    if "sfid" in wanted:
        found["sfid"] = None
        if stored is None:
            found["sfid"] = _frechet(x, y, "spatial")
        elif stored.mu_s is not None and stored.sigma_s is not None and x.spatial is not None:
            found["sfid"] = metrics.frechet_distance_to_moments(x.spatial, stored.mu_s, stored.sigma_s)
    if "is" in wanted and x.logits is not None:
        order = np.random.default_rng(derive(seed, "inception order", 0)).permutation(len(x.logits))
        inception = metrics.inception_score(x.logits[order])
        found |= {"inception_score": inception.mean, "inception_score_std_over_splits": inception.std}
    if "kid" in wanted or "kernel" in wanted:
        key = "network_kernel_distance" if own else "kid"
        kernel = None if y is None else metrics.kernel_distance(x.pooled, y.pooled, seed=seed)
        found |= {key: kernel and kernel.mean, f"{key}_std_over_subsets": kernel and kernel.std}
    if "pr" in wanted:
        covered = None if y is None else metrics.precision_recall(x.pooled, y.pooled)
        keys = ("network_precision", "network_recall") if own else ("precision", "recall")
        found |= {keys[0]: covered and covered.precision, keys[1]: covered and covered.recall}
    if "agreement" in wanted and measure.network is not None:
        agreement = None if y is None else class_agreement(x, y, measure.network)
        if agreement is not None or measure.metrics is not None:
            found[measure.agreement] = agreement
    return found


def _moments(reference: ReferenceFeatures) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    if reference.stored is not None:
        return reference.stored.mu, reference.stored.sigma
    assert reference.features is not None
    moments = FeatureMoments.of_many(reference.features.pooled)
    return moments.mean, moments.covariance


def _frechet(x: PictureFeatures, y: PictureFeatures | None, what: str) -> float | None:
    one, other = getattr(x, what), None if y is None else getattr(y, what)
    return None if one is None or other is None else metrics.frechet_distance_from_features(one, other)


def image_scores(
    samples: Sequence[PictureSet],
    reference: ReferenceFeatures,
    measure: Measure,
    rivals: Sequence[Rival] = (),
    notes: Sequence[str] = (),
    progress: Progress = lambda _: None,
) -> Scores:
    """FID and its kin of sets of other seeds. notes: warnings about the reference.

    Where the reference is pictures, the level of real ones stands beside.
    """
    network = measure.network
    assert network is not None
    warnings, lines = list(notes), list[Line]()
    for rival in (Rival("samples", f"{samples[0].what} that are scored", samples), *rivals):
        sets = []
        for stack in rival.sets:
            x, said = features_of(stack, network, progress)
            warnings += [note for note in said if note not in warnings]
            if x.logits is not None and "is" in measure.wanted and metrics.is_sorted_by_class(x.logits.argmax(axis=1)):
                warnings.append(f"{rival.name}: in the order of their classes; shuffled for the inception score")
            sets.append(compute_figures(x, stack.where, reference, measure))
            if rival.name == "samples" and len(sets) == 1 and _lacks_agreement(sets[0], x, measure):
                warnings.append(explain_missing(x, reference.features, network))
        lines.append(several(rival.name, rival.what, sets))
    if reference.features is not None and len(reference.features.pooled) >= LEAST_REAL:
        count = min(stack.count for stack in samples)
        lines.append(level_of_real_features(reference.where, reference.features, count, measure))
    counts = [stack.count for stack in samples] + ([] if reference.count is None else [reference.count])
    settings: dict[str, Any] = {
        "samples": samples[0].count,
        "sample_sets": len(samples),
        "samples_are": samples[0].what,
        "reference": reference.count,
        "reference_pictures": 0 if reference.features is None else len(reference.features.pooled),
        "mode": network.mode,
        "weights_sha256": network.sha256,
        "device": network.device,
        "seed": measure.seed,
    }
    return Scores(tuple(lines), settings, (*warnings, *few_rows(lines[0], *counts)))


def _lacks_agreement(figures: Figures, x: PictureFeatures, measure: Measure) -> bool:
    """Whether there is no class agreement where a person asked for it, or labels let expect one.

    Files of statistics for Inception have no labels, which everybody knows: not a word of it unless asked.
    """
    expected = measure.metrics is not None or (measure.own and x.labels is not None)
    return expected and "agreement" in measure.wanted and figures.get(measure.agreement) is None


def level_of_real_features(where: str, y: PictureFeatures, count: int, measure: Measure) -> Line:
    """The level of real pictures: as many of these as there are samples, against the others."""
    alone = replace(measure, extrapolate=False)

    def figures(few: Rows, others: Rows, _: int) -> Figures:
        return compute_figures(y.rows(few), where, ReferenceFeatures(where, y.rows(others), None), alone)

    return real_line(len(y.pooled), count, measure.seed, figures)


def rivals_of(dataset: Dataset, decoder: Autoencoder, count: int, seed: int, device: str) -> list[Rival]:
    """What stands around a score of decoded samples: the ceiling, the linear baseline and the bottom."""
    size, shape = dataset.manifest.image.size, dataset.manifest.view.shape
    latents = latents_of(dataset, dataset)
    draws = [derive(seed, "rival", number) for number in range(RIVAL_SETS)]

    def decode_draws(what: str, drawn: NDArray[np.float32], numbers: NDArray[np.int32] | None = None) -> ImageStack:
        def raw() -> Iterator[NDArray[np.float32]]:
            for start in range(0, len(drawn), READ_ROWS // 16):
                yield dataset.normalization.denormalize(drawn[start : start + READ_ROWS // 16].reshape(-1, *shape))

        labels = None if numbers is None else labels_if_any(numbers, dataset.classes)
        settings = DecodeSettings(device)
        return latents_stack(what, raw, len(drawn), size, lambda some: decode(decoder, some, settings), labels)

    ceiling = decoded_stack(dataset, decoder, min(count, len(dataset)), seed, device)
    gaussian = [
        decode_draws(
            "draws",
            gaussian_samples(latents, dataset.labels, count, one),
            gaussian_labels(dataset.labels, count, one),
        )
        for one in draws
    ]
    noise = decode_draws("noise", channel_noise(latents, shape, count, draws[0]))
    return [
        Rival("ceiling", "reconstructions of the dataset's images", [ceiling]),
        Rival("linear", "decoded draws of a Gaussian of full covariance fitted to the latents of each class", gaussian),
        Rival("bottom", "decoded noise with the mean and deviation of each channel", [noise]),
    ]


def reference_of(
    where: str, stored: Reference | None, stack: PictureSet | None, network: FeatureNetwork, progress: Progress
) -> tuple[ReferenceFeatures, list[str]]:
    """A file of statistics (with its pictures, if it keeps some), or pictures.

    LvaeError where the file was made in another mode or by another network.
    """
    if stored is not None:
        refuse_others(where, stored.mode, stored.weights_sha256, network)
    features, notes = (None, []) if stack is None else features_of(stack, network, progress)
    if stored is not None and features is not None and features.pooled.shape[1] != len(stored.mu):
        raise LvaeError(where, f"statistics of {len(stored.mu)} features, and this network has other ones")
    return ReferenceFeatures(where, features, stored), notes


def refuse_others(where: str, mode: str | None, weights_sha256: str | None, network: FeatureNetwork) -> None:
    """LvaeError where statistics or features were made in another mode or by another network."""
    if mode is not None and mode != network.mode:
        raise LvaeError(where, f"made with mode {mode}, and this is {network.mode}", "Score in one mode.")
    if weights_sha256 is not None and weights_sha256 != network.sha256:
        raise LvaeError(where, "made with other weights than those given", "Make it again with these.")


def check_sizes(samples: PictureSet, reference: PictureSet | None, where: Path | str) -> None:
    """LvaeError where pictures of unlike sizes would be compared in silence."""
    if reference is not None and reference.size != samples.size:
        (height, width), (rows, columns) = reference.size, samples.size
        raise LvaeError(
            where,
            f"pictures of {width}x{height}, and the samples have {columns}x{rows}",
            f"Score equal sizes: --size {rows} crops pictures of a source.",
        )
