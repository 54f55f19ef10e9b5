"""Mean and covariance of features that pass by once, merged without loss."""

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from lvae.manifests.statistics import merge_means

Array = NDArray[np.float64]
BLOCK_ROWS = 16_384


@dataclass(frozen=True)
class FeatureMoments:
    """Count, mean (d,) and sum of products of deviations (d, d), float64."""

    count: int
    mean: Array
    products: Array

    @classmethod
    def empty(cls, dimensions: int) -> Self:
        return cls(0, np.zeros(dimensions), np.zeros((dimensions, dimensions)))

    @classmethod
    def of(cls, features: NDArray[Any]) -> Self:
        """Of features (n, d)."""
        if len(features) == 0:
            return cls.empty(features.shape[1])
        values = features.astype(np.float64)
        mean = values.mean(axis=0)
        values -= mean
        # The mean's own rounding is taken back, as in Chan, Golub and LeVeque (1983).
        rest = values.mean(axis=0)
        values -= rest
        return cls(len(values), mean + rest, values.T @ values)

    @classmethod
    def of_many(cls, features: NDArray[Any]) -> Self:
        """Of features (n, d), a block of rows at a time in float64."""
        found = cls.empty(features.shape[1])
        for start in range(0, len(features), BLOCK_ROWS):
            found = found.merge(cls.of(features[start : start + BLOCK_ROWS]))
        return found

    def merge(self, other: Self) -> Self:
        """Of both together. Neither is changed."""
        if other.count == 0:
            return self
        if self.count == 0:
            return other
        both = merge_means(self.count, self.mean, other.count, other.mean)
        products = self.products + other.products
        products += np.outer(both.delta, both.delta * both.weight)
        return type(self)(both.count, both.mean, products)

    @property
    def covariance(self) -> Array:
        """Divided by n - 1; of a single row it is zero."""
        return self.products / max(self.count - 1, 1)
