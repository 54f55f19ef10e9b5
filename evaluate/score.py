"""Samples against a reference: by the Inception network where there is one, in latent space without."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lvae.evaluate import metrics
from lvae.evaluate.inception import Features, InceptionFID, Mode
from lvae.evaluate.reference_files import file_sha256, read_reference
from lvae.evaluate.stacks import ImageStack, open_stack
from lvae.manifests.dataset import Dataset
from lvae.manifests.errors import LvaeError
from lvae.manifests.seeds import derive

FEW = 10_000  # samples below which a Fréchet distance is mostly its bias
READ_ROWS = 1024

Values = dict[str, float | None]


@dataclass(frozen=True)
class Scores:
    """values: by name; None where the reference holds too little for it. settings: what they were computed from."""

    values: Values
    settings: dict[str, Any]
    warnings: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        return {**self.values, **self.settings, "warnings": list(self.warnings)}

    def table(self) -> str:
        shown = {name: "not available" if value is None else f"{value:.6g}" for name, value in self.values.items()}
        lines = [(name.replace("_", " "), str(text)) for name, text in (shown | self.settings).items()]
        width = max(len(name) for name, _ in lines)
        return "\n".join(f"{name:<{width}}  {text}" for name, text in lines)


def latent_scores(samples: Dataset, reference: Dataset, num: int | None, seed: int) -> Scores:
    """Distances between the latents themselves, flattened, in units of the reference's normalization.

    Beside them: a floor (one half of the reference against the other), a bottom (noise of every channel's mean and
    standard deviation) and a linear baseline (a Gaussian of full covariance, fitted to the reference class by class).
    """
    _expect_same(samples, reference)
    x, y = latents_of(samples, reference, num), latents_of(reference, reference, num)
    labels = np.asarray(reference.labels)[: len(y)]
    values: Values = dict(latent_metrics(x, y, seed))
    half = np.random.default_rng(derive(seed, "halves", 0)).permutation(len(y))
    first, second = y[half[: len(y) // 2]], y[half[len(y) // 2 :]]
    rivals = {
        "floor": (first, second),
        "linear": (gaussian_samples(y, labels, len(x), seed), y),
        "bottom": (channel_noise(y, samples.manifest.view.shape, len(x), seed), y),
    }
    for name, (one, other) in rivals.items():
        values |= {f"{name}_{metric}": value for metric, value in latent_metrics(one, other, seed).items()}
    settings = {
        "samples": len(x),
        "reference": len(y),
        "dimensions": x.shape[1],
        "samples_id": samples.manifest.id,
        "reference_id": reference.manifest.id,
        "seed": seed,
    }
    return Scores(values, settings, _few(len(x), len(y)))


def latent_metrics(x: NDArray[np.float32], y: NDArray[np.float32], seed: int) -> dict[str, float]:
    """Four figures between latents (n, d) and (m, d)."""
    kernel, covered = metrics.kernel_distance(x, y, seed=seed), metrics.precision_recall(x, y)
    return {
        "latent_frechet_distance": metrics.frechet_distance_from_features(x, y),
        "latent_kernel_distance": kernel.mean,
        "latent_kernel_distance_std": kernel.std,
        "latent_precision": covered.precision,
        "latent_recall": covered.recall,
    }


def latents_of(dataset: Dataset, reference: Dataset, num: int | None) -> NDArray[np.float32]:
    """The first latents, flattened (n, d), as the reference normalizes them."""
    count = len(dataset) if num is None else num
    if count > len(dataset):
        raise LvaeError(f"{dataset.folder}: holds {len(dataset)} latents, and --num asks for {num}. Ask for fewer.")
    if count < 10:
        raise LvaeError(f"{dataset.folder}: {count} latents are too few to score. Give at least 10.")
    result = np.empty((count, int(np.prod(dataset.manifest.view.shape))), np.float32)
    for start in range(0, count, READ_ROWS):
        rows = np.arange(start, min(start + READ_ROWS, count))
        stored, _ = dataset.read(rows)
        raw = dataset.denormalize(stored)
        result[rows] = reference.normalization.normalize(raw, "float32").reshape(len(rows), -1)
    return result


def _expect_same(samples: Dataset, reference: Dataset) -> None:
    one, other = samples.manifest, reference.manifest
    if one.autoencoder.weights_sha256 != other.autoencoder.weights_sha256 or one.view.shape != other.view.shape:
        raise LvaeError(
            f"{samples.folder}: latents {one.view.shape} of {one.autoencoder.name}, but {reference.folder} holds "
            f"{other.view.shape} of {other.autoencoder.name} with other weights or shape. Score against the dataset "
            "that the model was trained on."
        )


def _few(*counts: int) -> tuple[str, ...]:
    if min(counts) >= FEW:
        return ()
    return (f"{min(counts)} rows: Fréchet distances of so few are biased upwards; compare them at equal counts only.",)


def gaussian_samples(
    latents: NDArray[np.float32], labels: NDArray[np.int32], count: int, seed: int
) -> NDArray[np.float32]:
    """Draws from Gaussians of full covariance, one fitted to each class, classes in their own shares: (count, d).

    mean + X^T w / sqrt(n - 1) with w ~ N(0, I) has exactly the covariance of the n centred rows X.
    """
    random = np.random.default_rng(derive(seed, "linear baseline", 0))
    drawn = labels[random.integers(0, len(labels), count)]
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


def features_of(
    stack: ImageStack, network: InceptionFID, mode: Mode, progress: Callable[[int], None] = lambda _: None
) -> Features:
    """Of all pictures of a stack, in their order."""
    found = []
    for images in stack.batches():
        found.append(network(images, mode))
        progress(len(images))
    return Features(*(np.concatenate(parts) for parts in zip(*found, strict=True)))


def image_scores(
    samples: ImageStack,
    reference: ImageStack | Path,
    network: InceptionFID,
    mode: Mode,
    weights: Path,
    seed: int = 0,
    progress: Callable[[int], None] = lambda _: None,
) -> Scores:
    """FID and its kin; the reference is pictures, or a file of statistics."""
    sha256, warnings = file_sha256(weights), list[str]()
    stored = read_reference(reference) if isinstance(reference, Path) else None
    if isinstance(reference, Path) and stored is None:
        reference = open_stack(reference)
    if stored is not None:
        if stored.mode is not None and stored.mode != mode:
            raise LvaeError(
                f"{reference}: made with mode {stored.mode}, and this is {mode}. Give --mode {stored.mode}."
            )
        if stored.weights_sha256 is not None and stored.weights_sha256 != sha256:
            raise LvaeError(f"{reference}: made with other weights than {weights}. Make it again with these.")
        pictures = open_stack(Path(str(reference))) if stored.has_images else None
    else:
        assert isinstance(reference, ImageStack)
        pictures = reference
    if pictures is not None and pictures.size != samples.size:
        raise LvaeError(f"samples of {samples.size} and references of {pictures.size} pixels. Score equal sizes.")
    x = features_of(samples, network, mode, progress)
    y = None if pictures is None else features_of(pictures, network, mode)
    fid: float
    sfid: float | None = None
    if stored is not None:
        n = stored.n
        fid = metrics.frechet_distance_to_moments(x.pooled, stored.mu, stored.sigma)
        if stored.mu_s is not None and stored.sigma_s is not None:
            sfid = metrics.frechet_distance_to_moments(x.spatial, stored.mu_s, stored.sigma_s)
    else:
        assert y is not None
        n = len(y.pooled)
        fid = metrics.frechet_distance_from_features(x.pooled, y.pooled)
        sfid = metrics.frechet_distance_from_features(x.spatial, y.spatial)
    order = np.random.default_rng(derive(seed, "inception order", 0)).permutation(len(x.logits))
    if metrics.is_sorted_by_class(x.logits.argmax(axis=1)):
        warnings.append("samples stand in the order of their classes; they were shuffled for the inception score.")
    inception = metrics.inception_score(x.logits[order])
    values: Values = {
        "fid": fid,
        "sfid": sfid,
        "inception_score": inception.mean,
        "inception_score_std": inception.std,
        "kid": None,
        "kid_std": None,
        "precision": None,
        "recall": None,
    }
    if y is not None:
        kernel, covered = (
            metrics.kernel_distance(x.pooled, y.pooled, seed=seed),
            metrics.precision_recall(x.pooled, y.pooled),
        )
        values |= {"kid": kernel.mean, "kid_std": kernel.std}
        values |= {"precision": covered.precision, "recall": covered.recall}
    counts = [len(x.pooled)] + ([n] if n is not None else [])
    settings = {
        "samples": len(x.pooled),
        "samples_are": samples.what,
        "reference": n,
        "reference_pictures": 0 if y is None else len(y.pooled),
        "mode": mode,
        "weights_sha256": sha256,
        "seed": seed,
    }
    return Scores(values, settings, (*warnings, *_few(*counts)))
