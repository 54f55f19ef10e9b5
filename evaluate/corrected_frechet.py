"""The Fréchet distance of few samples, without most of what is owed to their number.

With few rows the term tr (sigma1 sigma2)^(1/2) comes out too small: the directions of two sampled covariances differ
even where the distributions are the same. The loss is the larger the more varied the rows are, so that dull samples
would be ranked ahead of real pictures. How large it is can be read off each set alone, from two halves of it. Their
overlap

    o = tr (sigma_a sigma_b)^(1/2) / (tr sigma_a tr sigma_b)^(1/2)

would be 1 of infinitely many rows. From n/2 to n rows it grows to 2 o / (1 + o), the set's reliability, and the overlap
of two sets is divided by the root of the product of theirs (Spearman's correction for attenuation, 1904; the step from
halves to the whole is that of Spearman and Brown, 1910). The distance of the means loses tr sigma / n of each set.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lvae.evaluate.metrics import Array, center_rows, nuclear_norm, shorten_factor
from lvae.manifests.seeds import derive

HALVINGS = 3  # random ways to part a set, averaged
RELIABLE = 0.7  # below, the correction is as large as what it corrects
LEAST = 8  # rows that can be parted
MOST = 20_000  # rows of a set that a reliability is read off; of more it is 1 to three digits in 2,048 dimensions


class RowMoments(NamedTuple):
    """A set of features: the mean (d,), A with A^T A the covariance, the number of rows, and the reliability."""

    mean: Array
    factor: Array
    rows: int
    reliability: float

    @classmethod
    def of(cls, rows: NDArray[Any], seed: int = 0) -> "RowMoments":
        """rows: (n, d)."""
        values = rows.astype(np.float64)
        mean, factor = center_rows(values)
        return cls(mean, shorten_factor(factor), len(rows), measure_reliability(values, seed))


def measure_reliability(rows: NDArray[Any], seed: int = 0) -> float:
    """How much of the overlap of covariances is left at this number of rows (n, d): 0 to 1."""
    if len(rows) < LEAST:
        return 0.0
    found = []
    for number in range(HALVINGS):
        order = np.random.default_rng(derive(seed, "reliability", number)).permutation(len(rows))[:MOST]
        (_, one), (_, other) = (center_rows(half) for half in np.array_split(rows[order].astype(np.float64), 2))
        total = float(np.sqrt((one**2).sum() * (other**2).sum()))
        found.append(nuclear_norm(one, other) / total if total else 0.0)
    overlap = float(np.mean(found))
    return 2 * overlap / (1 + overlap)


def corrected_distance(x: RowMoments, y: RowMoments) -> float | None:
    """The corrected Fréchet distance; may be a little below 0. y: the reference.

    None where the reference itself would not be reliable with as few rows as x has: what is available then depends on
    counts alone, and not on which samples are looked at.
    """
    if min(x.reliability, y.reliability) == 0 or 1 / (1 + (1 / y.reliability - 1) * y.rows / x.rows) < RELIABLE:
        return None
    trace_x, trace_y = (float((one.factor**2).sum()) for one in (x, y))
    means = float(((x.mean - y.mean) ** 2).sum()) - trace_x / x.rows - trace_y / y.rows
    overlap = nuclear_norm(x.factor, y.factor) / float(np.sqrt(x.reliability * y.reliability))
    return means + trace_x + trace_y - 2 * overlap
