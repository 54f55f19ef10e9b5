import os
import resource
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from lvae.manifests.errors import LvaeError
from lvae.manifests.shards.mapped_array import Rows, ShardedArray, map_file, positions

VALUES = np.arange(11 * 2 * 3, dtype=np.float32).reshape(11, 2, 3)
EVERY_SECOND_LINE = np.repeat(VALUES, 2, axis=0)  # rows at a stride of two


def sharded() -> ShardedArray:
    """VALUES in shards of 4 rows, alternately at a stride and at listed offsets."""

    def open_shard(number: int) -> Rows:
        data = np.ascontiguousarray(EVERY_SECOND_LINE[8 * number : 8 * number + 8]).tobytes()
        offsets = range(0, len(data), 48)
        return Rows(data, list(offsets) if number % 2 else offsets, (2, 3), np.float32)

    return ShardedArray(11, (2, 3), np.float32, 4, open_shard)


@settings(deadline=None)
@given(hnp.basic_indices(VALUES.shape, allow_newaxis=False, allow_ellipsis=True))
def test_slices_and_integers_index_as_in_numpy(index: Any) -> None:
    np.testing.assert_array_equal(sharded()[index], VALUES[index])


@settings(deadline=None)
@given(hnp.integer_array_indices(VALUES.shape[:1], result_shape=hnp.array_shapes(min_dims=0, max_dims=2)))
def test_integer_arrays_index_as_in_numpy(index: Any) -> None:
    np.testing.assert_array_equal(sharded()[index], VALUES[index])


@settings(deadline=None)
@given(hnp.arrays(bool, (11,)))
def test_masks_index_as_in_numpy(mask: np.ndarray) -> None:
    np.testing.assert_array_equal(sharded()[mask], VALUES[mask])
    np.testing.assert_array_equal(sharded()[mask.tolist()], VALUES[mask])
    np.testing.assert_array_equal(sharded()[mask, 1], VALUES[mask, 1])


@pytest.mark.parametrize(
    "index",
    [
        (3, 0),
        (-1,),
        (np.int64(5), slice(None), [2, 0]),
        ([1, 10, 1], [0, 1, 0]),
        ([1, -11], slice(None), [0, 2]),
        (slice(None, None, -3), 1, slice(0, 2)),
        (slice(2, 9, 4), [True, False]),
        ([0, 3], None, 1),
        np.array(4),
        np.array([[0, 1], [9, 3]], np.uint8),
        range(2, 8, 3),
        [],
        np.array([], np.int64),
        None,
        (None, 3),
        (),
        True,
        VALUES > 30,
        (Ellipsis, 2),
    ],
    ids=str,
)
def test_other_indices_are_numpys(index: Any) -> None:
    found, wanted = sharded()[index], VALUES[index]
    assert found.shape == wanted.shape and found.dtype == wanted.dtype
    np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("index", [11, -12, [0, 11], [-12], np.array([1.0]), [True] * 10, (0, 5), (slice(None), 2)])
def test_what_numpy_refuses_is_refused(index: Any) -> None:
    with pytest.raises(IndexError):
        VALUES[index]
    with pytest.raises(IndexError):
        sharded()[index]


def test_it_becomes_an_array_and_can_be_walked_over() -> None:
    array = sharded()
    np.testing.assert_array_equal(np.asarray(array), VALUES)
    assert np.asarray(array, np.float64).dtype == np.float64
    np.testing.assert_array_equal(np.stack(list(array)), VALUES)
    assert (array.shape, array.ndim, array.dtype, len(array)) == ((11, 2, 3), 3, np.float32, 11)
    with pytest.raises(ValueError, match="copy"):
        np.asarray(array, copy=False)


def test_what_was_read_can_be_written_to() -> None:
    array = sharded()
    for index in (2, slice(0, 8), [1, 2]):
        array[index][...] = -1
    np.testing.assert_array_equal(np.asarray(array), VALUES)


def test_a_shard_is_opened_when_it_is_first_read_and_again_after_closing() -> None:
    opened = []

    def open_shard(number: int) -> Rows:
        opened.append(number)
        return Rows(VALUES[4 * number :][:4].tobytes(), range(0, 96, 24), (2, 3), np.float32)

    array = ShardedArray(11, (2, 3), np.float32, 4, open_shard)
    assert opened == []
    array[[9, 8, 9, 0]]
    array[8]
    assert opened == [2, 0]
    array.close()
    np.testing.assert_array_equal(array[9], VALUES[9])
    assert opened == [2, 0, 2]


@settings(deadline=None)
@given(st.lists(st.integers(0, 10), max_size=20))
def test_positions_take_any_order_and_repetitions(wanted: list[int]) -> None:
    found = positions(wanted, 11)
    assert found.dtype == np.int64 and found.tolist() == wanted


@pytest.mark.parametrize("wanted", [[-1], [11], [0, 11], [0.5], [True, False], 3, [[1]]])
def test_positions_refuse_what_is_not_there(wanted: Any) -> None:
    with pytest.raises(IndexError):
        positions(wanted, 11)


def lowest_free_descriptor() -> int:
    """The number that the next open file gets: limits are on numbers, not on how many files are open."""
    os.close(number := os.open("/dev/null", os.O_RDONLY))
    return number


@pytest.fixture
def few_descriptors() -> Iterator[int]:
    """The soft limit of open files stands just above what this process uses."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = lowest_free_descriptor() + 8
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, before[1]))
    yield limit
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_more_files_are_mapped_than_the_soft_limit_allows(tmp_path: Path, few_descriptors: int) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"bytes")
    mapped = [map_file(path) for _ in range(few_descriptors)]
    assert all(bytes(file) == b"bytes" for file in mapped)


def test_a_hard_limit_of_open_files_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"bytes")
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = lowest_free_descriptor() + 4
    monkeypatch.setattr(resource, "getrlimit", lambda _: (limit, limit))
    monkeypatch.setattr(resource, "setrlimit", lambda kind, limits: None)
    resource.prlimit(0, resource.RLIMIT_NOFILE, (limit, before[1]))
    try:
        with pytest.raises(LvaeError, match="ulimit -n"):
            [map_file(path) for _ in range(50)]
    finally:
        resource.prlimit(0, resource.RLIMIT_NOFILE, before)
