"""Rows of .npy files on an object store, without fetching the rest of them.

A request takes as long as some hundred kilobytes. So near rows come with one, and what several files hold is asked for
at the same time. The headers are not read: they are those that `write_part` gives, and the receipts' sizes say so.
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from lvae.manifests.errors import LvaeError
from lvae.manifests.parts.receipts import array_header
from lvae.manifests.storage.folder import Folder

GAP_BYTES = 64 << 10  # between two rows, that cost less to read along than another request
WINDOW_BYTES = 64 << 20  # asked for at the same time, and then held


@dataclass(frozen=True)
class WantedRows:
    """Ascending rows of an array of `count` rows."""

    name: str
    count: int
    rows: NDArray[np.int64]

    def runs(self, row_bytes: int) -> list[tuple[int, int]]:
        """First and last row of what is read in one piece."""
        ends = np.flatnonzero(np.diff(self.rows) * row_bytes > GAP_BYTES)
        firsts, lasts = self.rows[np.append(0, ends + 1)], self.rows[np.append(ends, -1)]
        return list(zip(firsts.tolist(), lasts.tolist(), strict=True))


def read_rows(
    folder: Folder, wanted: Iterable[WantedRows], shape: tuple[int, ...], dtype: DTypeLike
) -> Iterator[NDArray[Any]]:
    """The rows one after the other, (n, *shape) at a time."""
    row_bytes = math.prod(shape) * np.dtype(dtype).itemsize
    window: list[tuple[WantedRows, list[tuple[int, int]]]] = []
    size = 0
    for file in wanted:
        runs = file.runs(row_bytes)
        window.append((file, runs))
        size += sum(last + 1 - first for first, last in runs) * row_bytes
        if size >= WINDOW_BYTES:
            yield _read(folder, window, shape, np.dtype(dtype))
            window, size = [], 0
    if window:
        yield _read(folder, window, shape, np.dtype(dtype))


def _read(
    folder: Folder,
    window: list[tuple[WantedRows, list[tuple[int, int]]]],
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
) -> NDArray[Any]:
    row_bytes = math.prod(shape) * dtype.itemsize
    pieces = []
    for file, runs in window:
        start = len(array_header((file.count, *shape), dtype))
        pieces += [(file.name, start + first * row_bytes, start + (last + 1) * row_bytes) for first, last in runs]
    data = iter(folder.read_pieces(pieces))
    found = np.empty((sum(len(file.rows) for file, _ in window), *shape), dtype)
    position = 0
    for file, runs in window:
        for first, last in runs:
            piece = next(data)
            if len(piece) != (last + 1 - first) * row_bytes:
                raise LvaeError(f"{folder.place(file.name)}: is cut short. Run 'lvae encode' again.")
            rows = file.rows[np.searchsorted(file.rows, first) : np.searchsorted(file.rows, last, side="right")]
            found[position : position + len(rows)] = np.frombuffer(piece, dtype).reshape(-1, *shape)[rows - first]
            position += len(rows)
    return found
