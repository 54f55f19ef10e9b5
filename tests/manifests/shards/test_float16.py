import numpy as np
import pytest

from lvae.manifests.shards.float16 import BLOCK, cast, widen

EVERY_HALF = np.arange(65536, dtype=np.uint16).view(np.float16)


def test_every_half_becomes_the_float_that_a_cast_gives() -> None:
    np.testing.assert_array_equal(widen(EVERY_HALF).view(np.uint32), EVERY_HALF.astype(np.float32).view(np.uint32))


@pytest.mark.parametrize("size", [0, 1, 7, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK + 5])
def test_any_number_of_values_is_widened(size: int) -> None:
    halves = np.random.default_rng(size).standard_normal(size).astype(np.float16)
    np.testing.assert_array_equal(widen(halves), halves.astype(np.float32))


def test_strided_halves_keep_their_shape() -> None:
    halves = EVERY_HALF[:1200].reshape(20, 3, 20).transpose(2, 0, 1)[::2]
    found = widen(halves)
    assert found.flags.c_contiguous
    np.testing.assert_array_equal(found, halves.astype(np.float32))


@pytest.mark.parametrize("source", ["float16", "float32", "uint8"])
@pytest.mark.parametrize("target", ["float16", "float32", "float64", "uint8"])
def test_casting_is_numpys_cast(source: str, target: str) -> None:
    values = np.arange(200).reshape(10, 20).astype(source)
    found = cast(values, target)
    assert found.dtype == target
    np.testing.assert_array_equal(found, values.astype(target))
    assert cast(values, None) is values
