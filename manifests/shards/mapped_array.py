"""Many shards read as one array, without loading them.

`ShardedArray` is indexed as a numpy array is, and always gives fresh arrays. A shard is opened when one of its rows is
first asked for, and is anything that hands out the bytes of a row.
"""

import errno
import mmap
import resource
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import DTypeLike, NDArray

from lvae.manifests.errors import LvaeError

Buffer = memoryview | bytes
Indices = Sequence[int] | NDArray[np.integer[Any]]


class ShardRows(Protocol):
    """The rows of one shard."""

    def row(self, row: int) -> Buffer:
        """The bytes of one row."""

    def array(self) -> NDArray[Any]:
        """All rows at once; may be a view."""


class Rows:
    """Rows that lie unchanged in a buffer, one at each offset."""

    def __init__(self, buffer: Buffer, offsets: Sequence[int], shape: tuple[int, ...], dtype: DTypeLike):
        self._buffer = memoryview(buffer)
        self._offsets = offsets
        self._shape, self._dtype = shape, np.dtype(dtype)
        self._bytes = int(np.prod(shape, dtype=np.int64)) * self._dtype.itemsize

    def row(self, row: int) -> Buffer:
        offset = self._offsets[row]
        return self._buffer[offset : offset + self._bytes]

    def array(self) -> NDArray[Any]:
        shape = (len(self._offsets), *self._shape)
        if isinstance(self._offsets, range):
            inner = np.empty((1, *self._shape), self._dtype).strides[1:]
            strides = (self._offsets.step, *inner)
            return np.ndarray(shape, self._dtype, self._buffer, self._offsets.start, strides)
        data = b"".join(self.row(row) for row in range(len(self._offsets)))
        return np.frombuffer(data, self._dtype).reshape(shape)


class ShardedArray:
    """(N, ...) rows in shards of `rows_per_shard`; `open_shard` gives those of one."""

    def __init__(
        self,
        count: int,
        shape: tuple[int, ...],
        dtype: DTypeLike,
        rows_per_shard: int,
        open_shard: Callable[[int], ShardRows],
    ):
        self.shape = (count, *shape)
        self.dtype = np.dtype(dtype)
        self._rows_per_shard = rows_per_shard
        self._shards = _Shards(open_shard)

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def ndim(self) -> int:
        return len(self.shape)

    def gather(self, positions: NDArray[np.int64]) -> NDArray[Any]:
        """(n,) positions in [0, N) -> (n, ...), a fresh contiguous array.

        One copy of bytes per row was measured to be faster than numpy's indexing of each shard, all the more so when
        a batch touches many shards.
        """
        result = np.empty((len(positions), *self.shape[1:]), self.dtype)
        target = result.reshape(-1).view(np.uint8).data
        row_bytes = len(target) // max(1, len(positions))
        numbers, rows = np.divmod(positions, self._rows_per_shard)
        shards, start = self._shards, 0
        for number, row in zip(numbers.tolist(), rows.tolist(), strict=True):
            target[start : start + row_bytes] = shards[number].row(row)
            start += row_bytes
        return result

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> NDArray[Any]:
        if copy is False:
            raise ValueError("shards cannot be read without a copy")
        result = np.empty(self.shape, self.dtype)
        for number, first in enumerate(range(0, len(self), self._rows_per_shard)):
            result[first : first + self._rows_per_shard] = self._shards[number].array()
        return result if dtype is None else result.astype(dtype, copy=False)

    def __getitem__(self, index: Any) -> Any:
        """As numpy indexes; only the rows asked for are read if the first index is about rows alone."""
        first, *rest = index if isinstance(index, tuple) and index else (index,)
        if isinstance(first, slice):
            return self.gather(np.arange(*first.indices(len(self))))[(slice(None), *rest)]
        if first is None or first is Ellipsis or isinstance(first, bool | np.bool_ | tuple):
            return np.asarray(self)[index]
        rows = np.asarray(first)
        if rows.dtype == bool:
            if rows.shape != (len(self),):
                return np.asarray(self)[index]
            rows = np.flatnonzero(rows)
        if rows.size == 0 and not isinstance(first, np.ndarray):
            rows = rows.astype(np.int64)
        if not np.issubdtype(rows.dtype, np.integer):
            raise IndexError(f"rows are chosen by integers, slices or booleans, not by {rows.dtype}")
        read = self.gather(positions(np.where(rows < 0, rows + len(self), rows).reshape(-1), len(self)))
        if rows.ndim == 0 and not isinstance(first, np.ndarray):
            return read[(0, *rest)]
        return read[(np.arange(rows.size).reshape(rows.shape), *rest)]

    def shard(self, number: int) -> NDArray[Any]:
        """All rows of one shard; may be a view."""
        return self._shards[number].array()

    def close(self) -> None:
        """Forget the shards that were opened; reading opens them again."""
        self._shards.clear()


class _Shards(dict[int, ShardRows]):
    """The shards opened so far; a missing one opens itself, so that reading a row costs one look-up."""

    def __init__(self, open_shard: Callable[[int], ShardRows]):
        super().__init__()
        self._open_shard = open_shard

    def __missing__(self, number: int) -> ShardRows:
        self[number] = rows = self._open_shard(number)
        return rows


def positions(indices: Indices, count: int) -> NDArray[np.int64]:
    """Checked row numbers: integers in [0, count), in any order, repeated or not; IndexError otherwise."""
    found = np.asarray(indices)
    if found.ndim != 1 or not (np.issubdtype(found.dtype, np.integer) or not found.size):
        raise IndexError(f"row numbers are a list of integers, not {found.dtype}{list(found.shape)}")
    if found.size and not (int(found.min()) >= 0 and int(found.max()) < count):
        raise IndexError(f"row numbers must lie in [0, {count})")
    return found.astype(np.int64)


def map_file(path: Path) -> memoryview:
    """A file's bytes, mapped. Python keeps a descriptor for every mapping: where they run out, the process's soft
    limit (often 1,024) is raised to the hard one, which every process may do.
    """
    try:
        return _map(path)
    except OSError as error:
        if error.errno != errno.EMFILE:
            raise
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    try:
        return _map(path)
    except OSError as error:
        if error.errno != errno.EMFILE:
            raise
        raise LvaeError(
            path, f"{most} files are open already", "Raise the limit (ulimit -n) or make larger shards."
        ) from error


def _map(path: Path) -> memoryview:
    with path.open("rb") as file:
        return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
