"""The corrected Fréchet distance: few real rows are near to real ones, and dull ones are not nearer."""

import numpy as np
import pytest
from numpy.typing import NDArray

from lvae.evaluate.corrected_frechet import RowMoments, corrected_distance, measure_reliability
from lvae.evaluate.metrics import frechet_distance_from_features

DIMENSIONS = 64


def draw(count: int, seed: int, spread: float = 1.0, kept: int = DIMENSIONS) -> NDArray[np.float64]:
    """Rows whose dimensions are ever narrower."""
    deviations = (1 + np.arange(DIMENSIONS)) ** -0.25
    rows = np.random.default_rng(seed).standard_normal((count, DIMENSIONS)) * deviations
    rows[:, kept:] = 0
    return spread * rows


def distance(rows: NDArray[np.float64], reference: NDArray[np.float64]) -> float:
    found = corrected_distance(RowMoments.of(rows), RowMoments.of(reference))
    assert found is not None
    return found


def test_few_real_rows_rank_ahead_of_dull_ones() -> None:
    reference = draw(2000, 0)
    total = float(reference.var(axis=0).sum())
    real, dull, flat = draw(64, 1), draw(64, 2, spread=0.8), draw(64, 3, kept=24)
    plain = [frechet_distance_from_features(rows, reference) for rows in (real, dull, flat)]
    assert plain[1] < plain[0]  # what a person must not be shown
    corrected = [distance(rows, reference) for rows in (real, dull, flat)]
    assert corrected[0] < min(corrected[1:])
    assert abs(corrected[0]) < 0.05 * total < 0.3 * plain[0]


def test_with_many_rows_it_is_the_frechet_distance() -> None:
    reference, rows = draw(20_000, 0), draw(20_000, 1, spread=0.8) + 0.2
    assert distance(rows, reference) == pytest.approx(frechet_distance_from_features(rows, reference), rel=0.02)


def test_of_too_few_there_is_none() -> None:
    reference = RowMoments.of(draw(500, 0))
    assert corrected_distance(RowMoments.of(draw(12, 1)), reference) is None
    assert corrected_distance(RowMoments.of(draw(4, 1)), reference) is None
    assert measure_reliability(draw(4, 1)) == 0
    assert 0.3 < measure_reliability(draw(64, 1)) < measure_reliability(draw(640, 1)) < 1
