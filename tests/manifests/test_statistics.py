import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from lvae.manifests import records
from lvae.manifests.errors import LvaeError
from lvae.manifests.statistics import BLOCK, PIXEL_VALUES, ChannelMoments, MomentsRecord, Normalization

# float32 values, as autoencoders give them: anything from subnormal to a million, of both signs.
FLOATS = st.floats(-1e6, 1e6, width=32)
LATENTS = hnp.arrays(np.float32, hnp.array_shapes(min_dims=4, max_dims=4, max_side=5), elements=FLOATS)


def assert_moments(found: ChannelMoments, values: NDArray[Any]) -> None:
    """`found` are those of values (N, C, ...) by one float64 pass of numpy: 1e-9 is what the design promises."""
    values = np.moveaxis(values.astype(np.float64), 1, 0).reshape(values.shape[1], -1)
    assert found.count == values.shape[1]
    mean, std = values.mean(axis=1), values.std(axis=1)
    size = np.abs(values).max(axis=1)
    # Where the std is nothing beside the values, both sides are off by rounding: some 1e-16 of the values.
    assert (np.abs(found.mean - mean) <= 1e-9 * std + 1e-15 * size).all()
    assert (np.abs(found.std - std) <= 1e-9 * std + 1e-15 * size).all()
    np.testing.assert_array_equal(found.minimum, values.min(axis=1))
    np.testing.assert_array_equal(found.maximum, values.max(axis=1))


def in_pieces(latents: NDArray[Any], cuts: Sequence[int]) -> list[ChannelMoments]:
    return [ChannelMoments.of(piece) for piece in np.split(latents, sorted(cuts))]


def folded(pieces: Sequence[ChannelMoments]) -> ChannelMoments:
    total = ChannelMoments.empty(len(pieces[0].mean))
    for piece in pieces:
        total = total.merge(piece)
    return total


@settings(deadline=None)
@given(LATENTS)
def test_moments_are_those_of_one_pass_in_float64(latents: NDArray[np.float32]) -> None:
    assert_moments(ChannelMoments.of(latents), latents)


@settings(deadline=None)
@given(LATENTS, st.data())
def test_merging_undoes_splitting_in_any_order(latents: NDArray[np.float32], data: st.DataObject) -> None:
    cuts = data.draw(st.lists(st.integers(0, len(latents)), max_size=4))
    pieces = data.draw(st.permutations(in_pieces(latents, cuts)))
    assert_moments(folded(pieces), latents)


@pytest.mark.parametrize("count", [1, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK + 5])
@pytest.mark.parametrize(("offset", "scale"), [(0, 1), (1e6, 1), (-1e6, 1e-3), (1e-6, 1e3)])
def test_part_size_does_not_matter_even_with_huge_offsets(count: int, offset: float, scale: float) -> None:
    latents = np.random.default_rng(count).standard_normal((count, 2, 3, 4)) * scale + offset
    values = latents.astype(np.float64)
    for size in (1, 7, 50, 10**6):
        assert_moments(folded(in_pieces(latents, range(size, count, size))), values)


def test_merging_as_a_tree_equals_merging_in_a_row() -> None:
    latents = np.random.default_rng(0).standard_normal((64, 3, 2, 2)) + 1000
    pieces = in_pieces(latents, range(1, 64))
    while len(pieces) > 1:
        pieces = [left.merge(right) for left, right in zip(pieces[::2], pieces[1::2], strict=True)]
    assert_moments(pieces[0], latents)


def test_merging_changes_neither_side() -> None:
    a, b = in_pieces(np.random.default_rng(0).standard_normal((8, 3, 2, 2)), [3])
    before = (a.to_record(), b.to_record())
    a.merge(b)
    assert (a.to_record(), b.to_record()) == before


def test_a_single_value_has_no_spread() -> None:
    moments = ChannelMoments.of(np.array([[[[2.5]], [[-1.0]]]], np.float32))
    assert moments.count == 1
    assert moments.mean.tolist() == moments.minimum.tolist() == moments.maximum.tolist() == [2.5, -1.0]
    assert moments.std.tolist() == [0.0, 0.0]


@pytest.mark.parametrize("dtype", [np.float32, np.uint8])
def test_merging_with_nothing_changes_nothing(dtype: type) -> None:
    some = ChannelMoments.of(np.arange(24).reshape(2, 3, 2, 2).astype(dtype))
    for nothing in (ChannelMoments.empty(3), ChannelMoments.of(np.empty((0, 3, 2, 2), dtype))):
        assert nothing.count == 0 and nothing.std.tolist() == [0, 0, 0]
        assert some.merge(nothing).to_record() == nothing.merge(some).to_record() == some.to_record()


def test_the_std_is_that_of_the_population() -> None:
    latents = np.array([1.0, 3.0]).reshape(2, 1, 1, 1)
    assert ChannelMoments.of(latents).std.tolist() == [1.0]  # divided by 2; by 1 it would be 1.41


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_every_float_dtype_is_summed_in_float64(dtype: str) -> None:
    latents = (np.random.default_rng(0).standard_normal((100, 2, 8, 8)) + 300).astype(dtype)
    assert_moments(ChannelMoments.of(latents), latents)


@settings(deadline=None)
@given(hnp.arrays(np.uint8, hnp.array_shapes(min_dims=4, max_dims=4, max_side=5)), st.data())
def test_a_byte_counts_as_its_pixel_value(pixels: NDArray[np.uint8], data: st.DataObject) -> None:
    cuts = data.draw(st.lists(st.integers(0, len(pixels)), max_size=4))
    assert_moments(folded(in_pieces(pixels, cuts)), pixels / 127.5 - 1)


def test_pixel_values_are_exactly_a_byte_over_half_of_255_less_one() -> None:
    assert PIXEL_VALUES.tolist() == [u / 127.5 - 1 for u in range(256)]
    assert (PIXEL_VALUES[0], PIXEL_VALUES[255]) == (-1, 1)


def test_every_byte_alone_is_a_constant_channel() -> None:
    wrong = [
        (byte, count, kind)
        for byte in range(256)
        for count in (1, 3, 5, 33)
        for kind in ("channel", "scalar")
        if Normalization.of(kind, ChannelMoments.of(np.full((count, 3, 2, 2), byte, np.uint8))).scale != (1, 1, 1)
    ]
    assert wrong == []


# --- posteriors ------------------------------------------------------------------------------------------------------


@settings(deadline=None)
@given(LATENTS, st.data())
def test_posteriors_obey_the_law_of_total_variance(means: NDArray[np.float32], data: st.DataObject) -> None:
    log_variances = data.draw(hnp.arrays(np.float32, means.shape, elements=st.floats(-30, 20, width=32)))
    cut = data.draw(st.integers(0, len(means)))
    halves = [ChannelMoments.of_posterior(means[part], log_variances[part]) for part in (slice(cut), slice(cut, None))]
    found = halves[0].merge(halves[1])
    axes = (0, 2, 3)
    wide = means.astype(np.float64)
    variance = wide.var(axis=axes) + np.exp(log_variances.astype(np.float64)).mean(axis=axes)
    # 1e-15 of the values is what float64 leaves of a variance of means that is nothing beside them.
    slack = (1e-15 * np.abs(wide).max(axis=axes)) ** 2
    np.testing.assert_array_less(np.abs(found.std**2 - variance), 1e-9 * variance + slack + 1e-300)
    assert_moments(
        ChannelMoments(found.count, found.mean, wide.var(axis=axes) * found.count, found.minimum, found.maximum), means
    )


def test_draws_from_a_posterior_have_its_moments() -> None:
    random = np.random.default_rng(0)
    means = random.standard_normal((500, 2, 8, 8))
    log_variances = random.uniform(-3, 1, means.shape)
    draws = means + np.exp(log_variances / 2) * random.standard_normal(means.shape)
    exact, sampled = ChannelMoments.of_posterior(means, log_variances), ChannelMoments.of(draws)
    # 32,000 draws a channel: five standard errors of a mean and of a std
    assert (np.abs(exact.mean - sampled.mean) < 5 * exact.std / 32000**0.5).all()
    assert (np.abs(exact.std - sampled.std) < 5 * exact.std / 64000**0.5).all()


# --- records ---------------------------------------------------------------------------------------------------------


@settings(deadline=None)
@given(LATENTS)
def test_moments_survive_json_to_the_last_bit(latents: NDArray[np.float32]) -> None:
    record = ChannelMoments.of(latents).to_record()
    again = records.parse(MomentsRecord, records.dumps(record), "receipt")
    assert again == record and again.to_moments().to_record() == record


# --- normalization ---------------------------------------------------------------------------------------------------

EPSILON = {"float16": 2.0**-11, "float32": 2.0**-24}  # rounding to nearest, relative
SMALLEST = {"float16": 2.0**-25, "float32": 2.0**-150}  # and half of the smallest subnormal


def normalization_of(kind: str, latents: NDArray[Any]) -> Normalization:
    if kind == "given":
        return Normalization.given([1.0, -2.0], 0.5, 2)
    return Normalization.of(kind, ChannelMoments.of(latents))  # type: ignore[arg-type]


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("kind", ["channel", "scalar", "none", "given"])
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), offset=st.floats(-50, 50), scale=st.floats(0.01, 20))
def test_denormalizing_gives_back_the_raw_latents(
    kind: str, dtype: str, seed: int, offset: float, scale: float
) -> None:
    raw = np.random.default_rng(seed).standard_normal((5, 2, 3, 4)) * [[[[scale]], [[1]]]] + [[[[offset]], [[0]]]]
    raw = raw.astype(np.float32)
    normalization = normalization_of(kind, raw)
    stored = normalization.normalize(raw, dtype)
    assert stored.dtype == dtype
    scales = np.array(normalization.scale)[:, None, None]
    rounding = np.maximum(np.abs(stored.astype(np.float64)) * EPSILON[dtype], SMALLEST[dtype]) * scales
    final = np.abs(raw.astype(np.float64)) * 2.0**-23  # denormalize answers in float32
    assert (np.abs(normalization.denormalize(stored) - raw.astype(np.float64)) <= rounding * 1.001 + final).all()


def test_stored_latents_are_rounded_once_from_float64() -> None:
    raw = np.random.default_rng(0).standard_normal((20, 2, 8, 8)).astype(np.float32) * 3 + 1
    normalization = Normalization.of("channel", ChannelMoments.of(raw))
    shift, scale = (np.array(values)[:, None, None] for values in (normalization.shift, normalization.scale))
    for dtype in ("float16", "float32"):
        expected = ((raw.astype(np.float64) - shift) / scale).astype(dtype)
        np.testing.assert_array_equal(normalization.normalize(raw, dtype), expected)


@pytest.mark.parametrize(("dtype", "tolerance"), [("float16", 2e-5), ("float32", 1e-8)])
def test_normalized_latents_have_mean_zero_and_std_one(dtype: str, tolerance: float) -> None:
    """25,600 roundings of 2^-11 at most average out to some 1e-6; the square of one is 2e-7."""
    raw = (np.random.default_rng(0).standard_normal((100, 3, 16, 16)) * 7 - 30).astype(np.float32)
    stored = Normalization.of("channel", ChannelMoments.of(raw)).normalize(raw, dtype)
    again = ChannelMoments.of(stored)
    assert (np.abs(again.mean) < tolerance).all() and (np.abs(again.std - 1) < tolerance).all()


def test_scalar_normalization_takes_all_channels_together() -> None:
    raw = np.random.default_rng(0).standard_normal((50, 3, 4, 4)) * [[[[1]], [[5]], [[0.1]]]] + [[[[3]], [[0]], [[-2]]]]
    normalization = Normalization.of("scalar", ChannelMoments.of(raw))
    assert len(set(normalization.shift)) == len(set(normalization.scale)) == 1 and len(normalization.scale) == 3
    np.testing.assert_allclose([normalization.shift[0], normalization.scale[0]], [raw.mean(), raw.std()], rtol=1e-12)


def test_normalization_none_keeps_raw_latents() -> None:
    raw = np.random.default_rng(0).standard_normal((4, 2, 3, 3)).astype(np.float32)
    normalization = Normalization.of("none", ChannelMoments.of(raw))
    np.testing.assert_array_equal(normalization.normalize(raw, "float32"), raw)
    np.testing.assert_array_equal(normalization.denormalize(raw), raw)


@settings(deadline=None)
@given(FLOATS, st.integers(1, 200), st.integers(1, 3))
def test_a_channel_that_never_changes_is_only_shifted(value: float, count: int, pieces: int) -> None:
    latents = np.full((count, 3, 2, 2), value, np.float32)
    moments = folded(in_pieces(latents, range(0, count, -(-count // pieces))))
    for kind in ("channel", "scalar"):
        normalization = Normalization.of(kind, moments)  # type: ignore[arg-type]
        assert normalization.scale == (1, 1, 1)
        assert not normalization.normalize(latents, "float16").any()


def test_pixels_are_normalized_by_what_they_mean() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (20, 3, 4, 4), np.uint8)
    normalization = Normalization.of("channel", ChannelMoments.of(pixels))
    as_floats = Normalization.of("channel", ChannelMoments.of(pixels / 127.5 - 1))
    np.testing.assert_allclose(normalization.scale, as_floats.scale, rtol=1e-12)
    np.testing.assert_array_equal(
        normalization.normalize(pixels, "float32"), normalization.normalize(pixels / 127.5 - 1, "float32")
    )


def test_log_variances_move_by_twice_the_logarithm_of_the_scale() -> None:
    random = np.random.default_rng(0)
    means, log_variances = random.standard_normal((2, 50, 2, 4, 4)) * 5
    log_variances = np.clip(log_variances, -10, 3)
    normalization = Normalization.of("channel", ChannelMoments.of_posterior(means, log_variances))
    again = ChannelMoments.of_posterior(
        normalization.normalize(means, "float32"), normalization.normalize_log_variances(log_variances, "float32")
    )
    # float32 rounding of 1,600 values, in exponents of up to ten
    np.testing.assert_allclose(again.std, 1, rtol=1e-6)


@pytest.mark.parametrize("value", [7e4, -1e30])
def test_what_does_not_fit_half_precision_is_refused(value: float) -> None:
    raw = np.full((1, 2, 1, 1), value, np.float32)
    normalization = Normalization.given(0, 1, 2)
    with pytest.raises(LvaeError, match=r"do not fit float16\. Use --dtype float32"):
        normalization.normalize(raw, "float16")
    np.testing.assert_array_equal(normalization.normalize(raw, "float32"), raw)


@pytest.mark.parametrize(
    ("shift", "scale"),
    [
        (0, 0),
        (0, -1),
        (float("nan"), 1),
        (0, float("inf")),
        ([1, 2, 3], 1),
        (0, [1, 2, 3]),
        ("a", 1),
        (None, [[1], []]),
        ({}, 1),
        ((), ()),
    ],
)
def test_numbers_that_cannot_normalize_are_refused(shift: Any, scale: Any) -> None:
    with pytest.raises(LvaeError, match="normalization: shift"):
        Normalization.given(shift, scale, 2)


def test_given_numbers_stand_for_every_channel_or_one_each() -> None:
    assert Normalization.given(1, [2, 3], 2) == Normalization("given", (1.0, 1.0), (2.0, 3.0))


def test_a_normalization_that_needs_numbers_is_not_computed() -> None:
    with pytest.raises(LvaeError, match="channel, scalar or none"):
        Normalization.of("given", ChannelMoments.empty(1))


def test_one_latent_denormalizes_like_a_batch() -> None:
    latents = np.random.default_rng(0).standard_normal((3, 2, 4, 4)).astype(np.float16)
    normalization = Normalization.given([1, 2], [3, 4], 2)
    found = normalization.denormalize(latents)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(normalization.denormalize(latents[1]), found[1])
    assert json.loads(records.dumps(normalization))["kind"] == "given"
