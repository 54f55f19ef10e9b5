"""Samples against a dataset in latent space, by no network at all: named so that nobody takes the figures for FID."""

from collections.abc import Callable, Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from lvae.evaluate import metrics
from lvae.evaluate.corrected_frechet import RowMoments, corrected_distance
from lvae.evaluate.pictures.decode import VERIFY
from lvae.evaluate.scores.metric_names import LATENT_METRICS
from lvae.evaluate.scores.real_level import RIVAL_SETS, real_line
from lvae.evaluate.scores.score_table import CORRECTED, FEW, Figures, Line, Scores, explain_few, several
from lvae.manifests.dataset import Dataset
from lvae.manifests.errors import LvaeError
from lvae.manifests.messages import counted
from lvae.manifests.seeds import chosen, derive
from lvae.manifests.statistics import require_finite

KERNEL_ROWS = 10_000  # of a set, at most, that the kernel distance is computed from
LEAST = 10
READ_ROWS = 1024

Latents = NDArray[np.float32]


def latent_scores(
    samples: Sequence[Dataset],
    reference: Dataset,
    num: int | None = None,
    seed: int = 0,
    wanted: Sequence[str] = LATENT_METRICS,
    reference_num: int | None = None,
    progress: Callable[[int], None] = lambda _: None,
) -> Scores:
    """Distances between the latents themselves, flattened, in units of the reference's normalization.

    samples: sets of other seeds, for the spread. Around them: the level of real data, a
    linear baseline (a Gaussian of full covariance, fitted to the reference class by class) and a bottom (noise of every
    channel's mean and standard deviation), three draws each. num: so many of each set, a seeded choice; reference_num:
    another number of the reference.
    """
    for one in samples:
        expect_same(one, reference)
    rows = reference_num or num
    y = latents_of(reference, reference, rows, seed)
    labels = reference.labels[chosen(len(reference), rows, str(reference.folder), seed)]
    against, shape = LatentReference(y), reference.manifest.view.shape
    count = min(len(one) if num is None else num for one in samples)

    def figures(latents: Latents, set_seed: int = 0) -> Figures:
        found = against.figures(latents, wanted, derive(seed, "kernel rows", set_seed))
        progress(1)
        return found

    seeds = range(RIVAL_SETS)
    draws = [derive(seed, "rival", number) for number in seeds]
    lines = (
        several("samples", _say_origin(samples), [figures(latents_of(one, reference, num, seed)) for one in samples]),
        level_of_real(y, count, seed, wanted, progress),
        several(
            "linear",
            "a Gaussian of full covariance fitted to each class; its Fréchet distance is small by construction",
            [figures(gaussian_samples(y, labels, count, s), set_seed=n) for n, s in enumerate(draws)],
        ),
        several(
            "bottom",
            "noise with the mean and deviation of each channel",
            [figures(channel_noise(y, shape, count, s), set_seed=n) for n, s in enumerate(draws)],
        ),
    )
    settings = {
        "samples": count,
        "sample_sets": len(samples),
        "reference": len(y),
        "dimensions": y.shape[1],
        "samples_id": [one.manifest.id for one in samples],
        "reference_id": reference.manifest.id,
        "seed": seed,
    }
    return Scores(lines, settings, few_rows(lines[0], count, len(y)))


def _say_origin(samples: Sequence[Dataset]) -> str:
    drawn = any(one.manifest.origin == "samples" for one in samples)
    return "drawn from the model" if drawn else "images, and not samples of a model"


def level_of_real(
    y: Latents,
    count: int,
    seed: int,
    wanted: Sequence[str] = LATENT_METRICS,
    progress: Callable[[int], None] = lambda _: None,
) -> Line:
    """The level of real data: as many of these latents (n, d) as there are samples, against the others."""

    def figures(few: NDArray[np.int64], others: NDArray[np.int64], number: int) -> Figures:
        found = LatentReference(y[others]).figures(y[few], wanted, derive(seed, "kernel rows", number))
        progress(1)
        return found

    return real_line(len(y), count, seed, figures)


class LatentReference:
    """Latents (n, d) to measure others by; what depends on them alone is computed once."""

    def __init__(self, latents: Latents):
        self.latents = latents
        self._neighbourhoods: metrics.Neighbourhoods | None = None

    @cached_property
    def _moments(self) -> RowMoments:
        return RowMoments.of(self.latents)

    def figures(self, latents: Latents, wanted: Sequence[str] = LATENT_METRICS, seed: int = 0) -> Figures:
        """Of latents (m, d) against these: latent_frechet_distance, latent_kernel_distance, latent_precision, _recall.

        Of fewer than 10,000 rows also latent_frechet_distance_corrected. The kernel distance is the unbiased squared
        MMD over all rows, at most 10,000 of each set: may be negative.
        """
        found: dict[str, float | None] = {}
        if "frechet" in wanted:
            found["latent_frechet_distance"] = metrics.frechet_distance_from_features(latents, self.latents)
            if min(len(latents), len(self.latents)) < FEW:
                corrected = corrected_distance(RowMoments.of(latents), self._moments)
                found[f"latent_frechet_distance{CORRECTED}"] = corrected
        if "kernel" in wanted:
            random = np.random.default_rng(seed)
            rows = (_some(random, latents), _some(random, self.latents))
            found["latent_kernel_distance"] = metrics.squared_mmd(*rows)
        if "pr" in wanted:
            if self._neighbourhoods is None:
                self._neighbourhoods = metrics.Neighbourhoods(self.latents)
            covered = self._neighbourhoods.precision_recall(latents)
            found |= {"latent_precision": covered.precision, "latent_recall": covered.recall}
        return found


def _some(random: np.random.Generator, latents: Latents) -> Latents:
    if len(latents) <= KERNEL_ROWS:
        return latents
    return latents[random.choice(len(latents), KERNEL_ROWS, replace=False)]


def latents_of(dataset: Dataset, reference: Dataset, num: int | None = None, seed: int = 0) -> Latents:
    """Latents, flattened (n, d), as the reference normalizes them."""
    where = chosen(len(dataset), num, str(dataset.folder), seed)
    if len(where) < LEAST:
        raise LvaeError(dataset.folder, f"{counted(len(where), 'latent')} cannot be scored", f"Give at least {LEAST}.")
    result = np.empty((len(where), int(np.prod(dataset.manifest.view.shape))), np.float32)
    for start in range(0, len(where), READ_ROWS):
        rows = where[start : start + READ_ROWS]
        stored, _ = dataset.read(rows)
        require_finite(stored, dataset.folder, "latents of position", rows, VERIFY)
        raw = dataset.denormalize(stored)
        result[start : start + len(rows)] = reference.normalization.normalize(raw, "float32").reshape(len(rows), -1)
    return result


def expect_same(samples: Dataset, reference: Dataset) -> None:
    """LvaeError where two sets of latents are not of one autoencoder."""
    one, other = samples.manifest, reference.manifest
    if one.autoencoder.weights_sha256 != other.autoencoder.weights_sha256 or one.view.shape != other.view.shape:
        raise LvaeError(
            samples.folder,
            (
                f"latents {one.view.shape} of {one.autoencoder.name}, but {reference.folder} holds "
                f"{other.view.shape} of {other.autoencoder.name} with other weights or shape"
            ),
            "Score against the dataset that the model was trained on.",
        )


def few_rows(line: Line, *counts: int) -> tuple[str, ...]:
    """The warning that belongs to samples of so few."""
    said = explain_few({metric: line.mean(metric) is not None for metric in line.metrics}, counts)
    corrected = [line.mean(metric) for metric in line.metrics if metric.endswith(CORRECTED)]
    if said is not None and any(value is not None and value < 0 for value in corrected):
        said += ", and one below zero is zero within its error"
    return () if said is None else (said,)


def refuse_repeats(sets: Sequence[Dataset]) -> None:
    """LvaeError where a set of samples is given twice, which would fake a spread."""
    ids = [one.manifest.id for one in sets]
    for number, one in enumerate(ids):
        if one in ids[:number]:
            raise LvaeError(
                sets[number].folder, f"the same samples as {sets[ids.index(one)].folder}", "Draw them with --seed."
            )


def gaussian_labels(labels: NDArray[np.int32], count: int, seed: int) -> NDArray[np.int32]:
    """The classes that `gaussian_samples` draws from: (count,)."""
    return _draw_labels(_baseline_generator(seed), labels, count)


def _baseline_generator(seed: int) -> np.random.Generator:
    return np.random.default_rng(derive(seed, "linear baseline", 0))


def _draw_labels(random: np.random.Generator, labels: NDArray[np.int32], count: int) -> NDArray[np.int32]:
    return labels[random.integers(0, len(labels), count)]


def gaussian_samples(
    latents: NDArray[np.float32], labels: NDArray[np.int32], count: int, seed: int
) -> NDArray[np.float32]:
    """Draws from Gaussians of full covariance, one fitted to each class, classes in their own shares: (count, d).

    mean + X^T w / sqrt(n - 1) with w ~ N(0, I) has exactly the covariance of the n centred rows X.
    """
    random = _baseline_generator(seed)
    drawn = _draw_labels(random, labels, count)
    result = np.empty((count, latents.shape[1]), np.float32)
    for label in np.unique(drawn):
        rows = latents[labels == label].astype(np.float64)
        here = np.flatnonzero(drawn == label)
        mean = rows.mean(axis=0)
        weights = random.standard_normal((len(here), len(rows))) / np.sqrt(max(len(rows) - 1, 1))
        result[here] = mean + weights @ (rows - mean)
    return result


def channel_noise(
    latents: NDArray[np.float32], shape: tuple[int, int, int], count: int, seed: int
) -> NDArray[np.float32]:
    """Independent noise with each channel's mean and standard deviation: (count, d)."""
    by_channel = latents.reshape(len(latents), shape[0], -1)
    mean, std = by_channel.mean((0, 2), np.float64), by_channel.std((0, 2), np.float64)
    random = np.random.default_rng(derive(seed, "bottom", 0))
    noise = random.standard_normal((count, shape[0], by_channel.shape[2]))
    return np.asarray((noise * std[:, None] + mean[:, None]).reshape(count, -1), np.float32)
