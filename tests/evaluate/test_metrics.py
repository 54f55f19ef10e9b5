"""The scores against their definitions written out naively, and the laws that they obey."""

import numpy as np
import pytest
import scipy.linalg
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from lvae.evaluate import metrics
from lvae.evaluate.features.moments import FeatureMoments
from lvae.manifests.errors import LvaeError
from lvae.manifests.seeds import derive

Array = NDArray[np.float64]


def features(seed: int, n: int, d: int, shift: float = 0.0) -> Array:
    random = np.random.default_rng(seed)
    return random.standard_normal((n, d)) @ random.standard_normal((d, d)) + shift


def by_definition(x: Array, y: Array) -> float:
    """With the general matrix square root."""
    s1, s2 = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    root = scipy.linalg.sqrtm(s1 @ s2)
    return float(((x.mean(0) - y.mean(0)) ** 2).sum() + np.trace(s1 + s2) - 2 * np.trace(root).real)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000), d=st.integers(2, 24), shift=st.floats(-5, 5))
def test_the_frechet_distance_is_that_of_the_definition(seed: int, d: int, shift: float) -> None:
    x, y = features(seed, 5 * d, d), features(seed + 1, 6 * d, d, shift)
    found = metrics.frechet_distance_from_features(x, y)
    assert found == pytest.approx(by_definition(x, y), rel=1e-9)
    assert found == pytest.approx(metrics.frechet_distance_from_features(y, x), rel=1e-9)
    moments = FeatureMoments.of(y)
    assert metrics.frechet_distance_to_moments(x, moments.mean, moments.covariance) == pytest.approx(found, rel=1e-9)


@pytest.mark.parametrize(("n", "m", "d"), [(10, 12, 40), (10, 90, 40), (200, 15, 40)])
def test_fewer_rows_than_dimensions_agree_with_exact_singular_values(n: int, m: int, d: int) -> None:
    x, y = features(0, n, d), features(1, m, d, 0.5)
    a, b = (x - x.mean(0)) / np.sqrt(n - 1), (y - y.mean(0)) / np.sqrt(m - 1)
    exact = ((x.mean(0) - y.mean(0)) ** 2).sum() + (a**2).sum() + (b**2).sum()
    exact -= 2 * np.linalg.svd(a @ b.T, compute_uv=False).sum()
    one, other = FeatureMoments.of(x), FeatureMoments.of(y)
    for found in (
        metrics.frechet_distance_from_features(x, y),
        metrics.frechet_distance_to_moments(x, other.mean, other.covariance),
        metrics.frechet_distance(one.mean, one.covariance, other.mean, other.covariance),
    ):
        assert found == pytest.approx(exact, rel=1e-8)


@pytest.mark.parametrize("x", [features(0, 60, 8), features(0, 5, 30), np.ones((9, 4)), features(3, 40, 4)[:, [0, 0]]])
def test_a_set_is_at_no_distance_from_itself(x: Array) -> None:
    assert metrics.frechet_distance_from_features(x, x.copy()) <= 1e-6 * max(1.0, float((x**2).sum()) / len(x))
    one = FeatureMoments.of(x)
    assert metrics.frechet_distance(one.mean, one.covariance, one.mean, one.covariance) == 0


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 99), cut=st.integers(0, 50), mean=st.sampled_from([0.0, 1e4]))
def test_merged_moments_are_those_of_all(seed: int, cut: int, mean: float) -> None:
    x = features(seed, 50, 5, mean)
    merged, whole = FeatureMoments.of(x[:cut]).merge(FeatureMoments.of(x[cut:])), FeatureMoments.of(x)
    assert merged.count == 50
    np.testing.assert_allclose(merged.mean, x.mean(0), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(merged.covariance, whole.covariance, rtol=1e-10, atol=1e-11)
    np.testing.assert_allclose(whole.covariance, np.cov(x, rowvar=False), rtol=1e-9, atol=1e-10)


def naive_mmd(x: Array, y: Array) -> float:
    def kernel(a: Array, b: Array) -> float:
        return float((a @ b / len(a) + 1) ** 3)

    m, n = len(x), len(y)
    xx = sum(kernel(x[i], x[j]) for i in range(m) for j in range(m) if i != j) / (m * (m - 1))
    yy = sum(kernel(y[i], y[j]) for i in range(n) for j in range(n) if i != j) / (n * (n - 1))
    return xx + yy - 2 * sum(kernel(a, b) for a in x for b in y) / (m * n)


def test_the_kernel_distance_is_that_of_the_definition_and_repeats() -> None:
    x, y = features(0, 14, 6), features(1, 17, 6, 0.3)
    assert metrics.squared_mmd(x, y) == pytest.approx(naive_mmd(x, y), rel=1e-9)
    whole = metrics.kernel_distance(x[:14], y[:14], subsets=3, subset_size=1000)
    assert whole.mean == pytest.approx(naive_mmd(x, y[:14]), rel=1e-9)
    assert metrics.kernel_distance(x, y, subset_size=9) == metrics.kernel_distance(x, y, subset_size=9)


@pytest.mark.parametrize("subsets", [1, 60])  # few: each by itself; many: of the kernel of all pairs
def test_the_kernel_distance_is_the_mean_over_its_subsets(subsets: int) -> None:
    x, y = features(0, 14, 6), features(1, 17, 6, 0.3)
    found = []
    for subset in range(subsets):
        random = np.random.default_rng(derive(5, "kernel subset", subset))
        one, other = (s[random.choice(len(s), 9, replace=False)] for s in (x, y))
        found.append(naive_mmd(one, other))
    distance = metrics.kernel_distance(x, y, subsets=subsets, subset_size=9, seed=5)
    assert distance == pytest.approx((np.mean(found), np.std(found)), rel=1e-9, abs=1e-12)


def test_the_inception_score_is_that_of_the_definition() -> None:
    logits = features(0, 25, 7)
    scores = []
    for split in (logits[:10], logits[10:20], logits[20:]):
        p = scipy.special.softmax(split, axis=1)
        scores.append(np.exp(np.mean(np.sum(p * np.log(p / p.mean(0)), axis=1))))
    found = metrics.inception_score(logits, split_size=10)
    assert found == pytest.approx((np.mean(scores), np.std(scores)), rel=1e-9)
    certain = np.eye(5).repeat(4, axis=0) * 1e5
    assert metrics.inception_score(certain).mean == pytest.approx(5)  # probabilities that underflow are no NaN


def test_order_by_class_is_noticed() -> None:
    random = np.random.default_rng(0)
    predictions = random.integers(0, 10, 500)
    assert metrics.is_sorted_by_class(np.sort(predictions))
    assert not metrics.is_sorted_by_class(predictions)
    assert not metrics.is_sorted_by_class(np.zeros(500, int))


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000), k=st.integers(1, 4), n=st.integers(6, 40), m=st.integers(6, 40))
def test_precision_and_recall_are_those_of_exact_distances(seed: int, k: int, n: int, m: int) -> None:
    x, y = features(seed, n, 3), features(seed + 1, m, 3, 1000.0)
    x += 1000

    def distances(a: Array, b: Array) -> Array:
        return ((a[:, None] - b[None]) ** 2).sum(-1)

    radii_x, radii_y = (np.sort(distances(a, a), axis=1)[:, k] for a in (x, y))
    between = distances(x, y)
    expected = (between <= radii_y).any(1).mean(), (between <= radii_x[:, None]).any(0).mean()
    assert metrics.precision_recall(x, y, k) == pytest.approx(expected)


def test_blocks_of_distances_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = features(0, 30, 4), features(1, 50, 4)
    whole = metrics.precision_recall(x, y)
    monkeypatch.setattr(metrics, "BLOCK_BYTES", 8 * 70)
    assert metrics.precision_recall(x, y) == whole


def test_a_set_covers_itself_and_nothing_far_away() -> None:
    x = features(0, 40, 4)
    assert metrics.precision_recall(x, x) == (1, 1)
    assert metrics.precision_recall(x, x + 1e6) == (0, 0)


def test_extrapolation_takes_the_bias_of_small_sets_away() -> None:
    x, y = features(0, 4000, 12), features(0, 4000, 12)
    y = np.random.default_rng(5).permutation(y)
    moments = FeatureMoments.of(y)
    found = metrics.frechet_at_counts(x, moments.mean, moments.covariance, smallest=100)
    assert found.distances[0] > found.distances[-1]
    assert abs(found.infinite) < found.distances[0] / 3


@pytest.mark.parametrize("wrong", [np.full((9, 4), np.nan), np.ones(9), np.ones((1, 4)), np.ones((9, 5))])
def test_features_that_cannot_be_scored_are_refused(wrong: Array) -> None:
    with pytest.raises(LvaeError, match="features"):
        metrics.frechet_distance_from_features(features(0, 9, 4), wrong)
    with pytest.raises(LvaeError, match="features"):
        metrics.precision_recall(features(0, 9, 4), wrong)


def test_statistics_that_do_not_belong_together_are_refused() -> None:
    with pytest.raises(LvaeError, match="belong together"):
        metrics.frechet_distance(np.zeros(3), np.eye(3), np.zeros(4), np.eye(4))
    with pytest.raises(LvaeError, match="not finite"):
        metrics.frechet_distance(np.zeros(3), np.eye(3) * np.nan, np.zeros(3), np.eye(3))
