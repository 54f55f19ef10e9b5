"""Scores of feature arrays: Fréchet and kernel distance, inception score, precision and recall. numpy and scipy only.

Features are (n, d), one row an image; whatever network they are of, the formulas are the same. Everything is computed
in float64.
"""

from typing import Any, NamedTuple

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from lvae.evaluate.features.moments import FeatureMoments
from lvae.evaluate.kernel_sums import mmd_of_subsets
from lvae.manifests.errors import LvaeError
from lvae.manifests.seeds import derive
from lvae.manifests.statistics import require_finite

Array = NDArray[np.float64]
BLOCK_BYTES = 64 << 20  # of distances held at a time
ROUNDING = 1e-6  # of the traces: a distance that far below 0 is rounding; further below is a fault
SPLIT = 5000  # rows of a split of the inception score, as in the original evaluator


class Spread(NamedTuple):
    """A figure over subsets or splits: its mean and its (population's) standard deviation."""

    mean: float
    std: float


class PrecisionRecall(NamedTuple):
    precision: float
    recall: float


class Extrapolation(NamedTuple):
    """The distance at several sample counts, and where a line in 1/count meets infinitely many."""

    counts: tuple[int, ...]
    distances: tuple[float, ...]
    infinite: float


def frechet_distance(mu1: NDArray[Any], sigma1: NDArray[Any], mu2: NDArray[Any], sigma2: NDArray[Any]) -> float:
    """Between Gaussians: |mu1 - mu2|^2 + tr sigma1 + tr sigma2 - 2 tr (sigma1 sigma2)^(1/2).

    mu: (d,). sigma: (d, d), divided by n - 1. Singular ones are welcome: the last trace is a sum of singular values
    then, in which a zero stays a zero.
    """
    (mean1, mean2), (one, other) = _check((mu1, sigma1), (mu2, sigma2))
    return _distance(mean1, mean2, float(np.trace(one)), float(np.trace(other)), _root_trace(one, other))


def frechet_distance_from_features(x: NDArray[Any], y: NDArray[Any]) -> float:
    """The same between features (n, d) and (m, d). Fewer rows than dimensions cost n x m, not d x d."""
    x, y = _check_features(x, 2), _check_features(y, 2)
    _same_width(x, y)
    if min(len(x), len(y)) > x.shape[1]:
        one, other = FeatureMoments.of_many(x), FeatureMoments.of_many(y)
        return frechet_distance(one.mean, one.covariance, other.mean, other.covariance)
    (mean_x, factor_x), (mean_y, factor_y) = center_rows(x), center_rows(y)
    trace = nuclear_norm(factor_x, factor_y)
    return _distance(mean_x, mean_y, float((factor_x**2).sum()), float((factor_y**2).sum()), trace)


def frechet_distance_to_moments(x: NDArray[Any], mu: NDArray[Any], sigma: NDArray[Any]) -> float:
    """Between features (n, d) and a stored Gaussian; with few rows the singular values of n x d numbers suffice."""
    x = _check_features(x, 2)
    if len(x) > x.shape[1]:
        moments = FeatureMoments.of_many(x)
        return frechet_distance(moments.mean, moments.covariance, mu, sigma)
    mean, factor = center_rows(x)
    (_, mu_), (_, sigma_) = _check((mean, sigma), (mu, sigma))
    return _distance(mean, mu_, float((factor**2).sum()), float(np.trace(sigma_)), nuclear_norm(factor, _root(sigma_)))


def _distance(mu1: Array, mu2: Array, trace1: float, trace2: float, root_trace: float) -> float:
    found = float(((mu1 - mu2) ** 2).sum()) + trace1 + trace2 - 2 * root_trace
    if not np.isfinite(found) or found < -ROUNDING * max(trace1 + trace2, 1e-300):
        raise LvaeError("", "the Fréchet distance of these statistics is no number", "Check them for damage.")
    return max(found, 0.0)


def _root_trace(sigma1: Array, sigma2: Array) -> float:
    """tr (sigma1 sigma2)^(1/2), the sum of the roots of the eigenvalues of the product.

    With sigma1 = L L^T these are the eigenvalues of the symmetric L^T sigma2 L. Where one is singular, a root of
    rounding would count instead of 0, so factors of both and their singular values take over.
    """
    if np.array_equal(sigma1, sigma2):
        return float(np.trace(sigma1))
    try:
        factor = scipy.linalg.cholesky(sigma1, lower=True)
        values = scipy.linalg.eigvalsh(factor.T @ sigma2 @ factor, driver="evd")
    except np.linalg.LinAlgError:  # not of full rank
        return nuclear_norm(_root(sigma1), _root(sigma2))
    if values[0] < len(values) * 1e-13 * values[-1]:
        return nuclear_norm(_root(sigma1), _root(sigma2))
    return float(np.sqrt(values).sum())


def _root(sigma: Array) -> Array:
    """A with A^T A = sigma, (rank, d); what is rounding beside the largest eigenvalue is left out."""
    values, vectors = scipy.linalg.eigh(sigma, driver="evd")
    kept = values > len(values) * np.finfo(np.float64).eps * max(float(values[-1]), 0.0)
    root: Array = np.sqrt(values[kept])[:, None] * vectors[:, kept].T
    return root


def nuclear_norm(a: Array, b: Array) -> float:
    """The sum of the singular values of a b^T, for a (n, d) and b (m, d)."""
    if len(a) == 0 or len(b) == 0:
        return 0.0
    return float(scipy.linalg.svdvals(shorten_factor(a) @ shorten_factor(b).T).sum())


def shorten_factor(factor: Array) -> Array:
    """A factor of the same product with no more rows than columns."""
    return factor if len(factor) <= factor.shape[1] else np.asarray(np.linalg.qr(factor, mode="r"))


def center_rows(x: Array) -> tuple[Array, Array]:
    """The mean, and rows whose products are the covariance: (d,), (n, d)."""
    mean = x.mean(axis=0)
    return mean, (x - mean) / np.sqrt(max(len(x) - 1, 1))


def frechet_at_counts(
    x: NDArray[Any], mu: NDArray[Any], sigma: NDArray[Any], smallest: int | None = None, points: int = 15, seed: int = 0
) -> Extrapolation:
    """The distance of random subsets of x from a fixed reference, and for infinitely many samples.

    A distance exceeds its limit by about c/n, so a line in 1/n has the limit as its intercept (Chong and Forsyth,
    2020). smallest: the least of `points` evenly spaced counts, min(5000, n/10) unless given.
    """
    x = _check_features(x, 2)
    least = max(2, min(SPLIT, len(x) // 10) if smallest is None else smallest)
    if least >= len(x):
        raise LvaeError(
            "", f"{len(x)} samples are too few to extrapolate from subsets of {least} on", "Take more samples."
        )
    counts = sorted({round(float(count)) for count in np.linspace(least, len(x), points)})
    found = []
    for count in counts:
        order = np.random.default_rng(derive(seed, "fréchet subset", count)).permutation(len(x))
        found.append(frechet_distance_to_moments(x[order[:count]], mu, sigma))
    _, intercept = np.polyfit(1 / np.array(counts), found, 1)
    return Extrapolation(tuple(counts), tuple(found), float(intercept))


def kernel_distance(
    x: NDArray[Any], y: NDArray[Any], subsets: int = 100, subset_size: int = 1000, seed: int = 0
) -> Spread:
    """Unbiased squared MMD with the kernel (x.y/d + 1)^3 (Binkowski et al., 2018) over random subsets.

    Subsets are drawn without replacement, and never larger than the smaller set. May be negative.
    """
    x, y = _check_features(x, 2), _check_features(y, 2)
    _same_width(x, y)
    size = min(subset_size, len(x), len(y))
    of_x, of_y = [], []
    for subset in range(subsets):
        random = np.random.default_rng(derive(seed, "kernel subset", subset))
        of_x.append(random.choice(len(x), size, replace=False))
        of_y.append(random.choice(len(y), size, replace=False))
    if len(x) ** 2 + len(y) ** 2 + len(x) * len(y) < 3 * subsets * size**2:  # pairs of rows
        found = mmd_of_subsets(x, y, of_x, of_y)
    else:
        found = np.array([squared_mmd(x[one], y[other]) for one, other in zip(of_x, of_y, strict=True)])
    return Spread(float(found.mean()), float(found.std()))


def squared_mmd(x: NDArray[Any], y: NDArray[Any]) -> float:
    """The unbiased estimate for (m, d) and (n, d) as they are, with the same kernel; may be negative."""
    return float(mmd_of_subsets(x, y, [np.arange(len(x))], [np.arange(len(y))])[0])


def inception_score(logits: NDArray[Any], split_size: int = SPLIT) -> Spread:
    """exp of the mean KL(p(class | image) || p(class)), over consecutive splits of rows (n, classes).

    Does not shuffle: images in the order of their classes score far too low, see `label_order`.
    """
    values = _check_features(logits, 1)
    scores = []
    for start in range(0, len(values), split_size):
        rows = values[start : start + split_size].astype(np.float64)
        rows = rows - rows.max(axis=1, keepdims=True)
        logs = rows - np.log(np.exp(rows).sum(axis=1, keepdims=True))
        p = np.exp(logs)
        marginal = p.mean(axis=0)
        with np.errstate(divide="ignore"):
            expected = np.where(marginal > 0, np.log(marginal), 0.0)
        scores.append(float(np.exp((p * (logs - expected)).sum(axis=1).mean())))
    return Spread(float(np.mean(scores)), float(np.std(scores)))


def is_sorted_by_class(predictions: NDArray[Any]) -> bool:
    """Whether neighbours in this order are of one class far more often than any two rows are. (n,) whole numbers."""
    if len(predictions) < 20:
        return False
    alike = float(np.mean(predictions[1:] == predictions[:-1]))
    shares = np.unique(predictions, return_counts=True)[1] / len(predictions)
    by_chance = float((shares**2).sum())
    return alike > by_chance + max(0.2, 6 * (by_chance / len(predictions)) ** 0.5) and by_chance < 0.9


def precision_recall(samples: NDArray[Any], reference: NDArray[Any], k: int = 3) -> PrecisionRecall:
    """Improved precision and recall (Kynkäänniemi et al., 2019) of features (n, d) and (m, d), both counts matter.

    Precision: the share of samples within the ball of some reference, whose radius reaches its k-th nearest other
    reference; recall the other way round. A boundary belongs to its ball.
    """
    return Neighbourhoods(reference, k).precision_recall(samples)


class Neighbourhoods:
    """The balls of a reference (m, d): found once, for any number of sets to be compared with it."""

    def __init__(self, reference: NDArray[Any], k: int = 3):
        reference = _check_features(reference, k + 1)
        self._k, self._middle = k, reference.mean(axis=0, dtype=np.float64)  # distances stay, digits are gained
        self._points = Points.of(reference, self._middle)
        self._radii = self._points.radii(k)

    def precision_recall(self, samples: NDArray[Any]) -> PrecisionRecall:
        """Of samples (n, d), as `precision_recall` gives it."""
        samples = _check_features(samples, self._k + 1)
        _same_width(samples, self._points.values)
        points = Points.of(samples, self._middle)
        radii = points.radii(self._k)
        in_some, covered = np.zeros(len(samples), bool), np.zeros(len(self._radii), bool)
        for start, distances in points.distances(self._points):
            stop = start + len(distances)
            in_some[start:stop] = (distances <= self._radii).any(axis=1)
            covered |= (distances <= radii[start:stop, None]).any(axis=0)
        return PrecisionRecall(float(in_some.mean()), float(covered.mean()))


class Points(NamedTuple):
    """Rows to measure between: values (n, d) less a common middle, and their squared lengths (n,). float64."""

    values: Array
    squares: Array

    @classmethod
    def of(cls, features: NDArray[Any], middle: Array) -> "Points":
        values = features - middle
        return cls(values, np.einsum("nd,nd->n", values, values))

    def distances(self, other: "Points") -> Any:
        """Yields (first row, squared distances (rows, m)) in blocks of BLOCK_BYTES."""
        rows = max(1, BLOCK_BYTES // (8 * max(len(other.values), 1)))
        for start in range(0, len(self.values), rows):
            block = self.values[start : start + rows] @ other.values.T
            block *= -2
            block += self.squares[start : start + rows, None]
            block += other.squares
            yield start, np.maximum(block, 0, out=block)

    def radii(self, k: int) -> Array:
        """The squared distance to the k-th nearest other point: entry k of the sorted row, itself being entry 0."""
        found = np.empty(len(self.values))
        for start, distances in self.distances(self):
            here = np.arange(len(distances))
            distances[here, start + here] = 0  # exactly, so that duplicates give a radius of nearly 0
            found[start : start + len(distances)] = np.partition(distances, k, axis=1)[:, k]
        return found

    def nearest(self, other: "Points", k: int) -> tuple[NDArray[np.int64], Array]:
        """Of every row the k nearest of the other set: indices and distances (n, k), nearest first."""
        indices, lengths = np.empty((len(self.values), k), np.int64), np.empty((len(self.values), k))
        for start, squared in self.distances(other):
            chosen = np.argpartition(squared, k - 1, axis=1)[:, :k]
            there = np.take_along_axis(squared, chosen, 1)
            order = np.argsort(there, axis=1, kind="stable")
            indices[start : start + len(squared)] = np.take_along_axis(chosen, order, 1)
            lengths[start : start + len(squared)] = np.sqrt(np.take_along_axis(there, order, 1))
        return indices, lengths


def _check(*gaussians: tuple[NDArray[Any], NDArray[Any]]) -> tuple[list[Array], list[Array]]:
    means = [np.asarray(mean, np.float64) for mean, _ in gaussians]
    covariances = [np.asarray(covariance, np.float64) for _, covariance in gaussians]
    for mean, covariance in zip(means, covariances, strict=True):
        if mean.ndim != 1 or covariance.shape != (len(mean), len(mean)) or len(mean) != len(means[0]):
            raise LvaeError(
                "",
                (
                    f"statistics of shapes {mean.shape} and {covariance.shape} do not belong together, "
                    "or to the other set's"
                ),
                "Both must be of one network and mode.",
            )
        if not (np.isfinite(mean).all() and np.isfinite(covariance).all()):
            raise LvaeError("", "statistics hold numbers that are not finite", "Make them again.")
    return means, covariances


def _check_features(features: NDArray[Any], least: int) -> NDArray[Any]:
    """(n, d), finite, float32 left as it is."""
    found = np.asarray(features)
    if found.dtype not in (np.float32, np.float64):
        found = found.astype(np.float64)
    if found.ndim != 2 or len(found) < least:
        raise LvaeError("", f"features of shape {found.shape}, where (n, d) with at least {least} rows belongs")
    require_finite(found, "", "features of row", range(len(found)), "Look for damaged images.")
    return found


def _same_width(x: NDArray[Any], y: NDArray[Any]) -> None:
    if x.shape[1] != y.shape[1]:
        raise LvaeError("", f"{x.shape[1]} and {y.shape[1]} features", "Both sets must be of one network.")
