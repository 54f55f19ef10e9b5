"""Reading an order by position: a window is mapped at a time, or pieces are asked for where it lies on a store."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lvae.manifests.storage.folder import Folder
from lvae.manifests.views.order_files import ENTRY, ORDER, entries_file, key_ends_file, keys_file, read_fold

OFFSETS = f"{ORDER}/offsets"  # int64: the first raw latent of every part, and the end
RAW_HASHES = f"{ORDER}/raw"  # eight characters a part: what its raw file's name carries
STARTS = f"{ORDER}/starts"  # int64 (1 + splits, groups + 1): the first raw latent of every group, and of every split
WINDOW_ENTRIES = 1 << 19  # of the order, mapped at a time: 11 MB
GAP_BYTES = 64 << 10  # between two entries on a store, that cost less to read along than another request


class Order:
    """The order that lies in a folder, read by position."""

    def __init__(self, order: Folder, orientations: int):
        self._order, self._orientations = order, orientations
        self._splits = read_fold(order).splits
        starts = np.frombuffer(order.read(STARTS), "<i8").reshape(1 + len(self._splits), -1)
        self.latents: NDArray[np.int64] = starts[0]
        self._starts: dict[str, NDArray[np.int64]] = dict(zip(self._splits, starts[1:], strict=True))

    def starts(self, split: str) -> NDArray[np.int64]:
        """The first position of every group in a split, and the end."""
        return self._starts[split]

    def entries(self, split: str, positions: NDArray[np.int64]) -> NDArray[np.void]:
        """The entries at these positions of the source order: (n,) -> (n,) of ENTRY."""
        chosen = np.empty(len(positions), ENTRY)
        for group, here, rows in self._by_group(split, positions, 1):
            found = self._read(entries_file(group, split), ENTRY, rows, self._count(split, group))
            found["raw"] += self.latents[group]
            chosen[here] = found
        return chosen

    def keys(self, split: str, positions: NDArray[np.int64]) -> list[str]:
        """The keys of the images at these positions."""
        keys = [""] * len(positions)
        for group, here, images in self._by_group(split, positions, self._orientations):
            count = self._count(split, group) // self._orientations
            ends = self._read(key_ends_file(group, split), np.dtype("<i8"), images, count)
            before = self._read(key_ends_file(group, split), np.dtype("<i8"), np.maximum(images - 1, 0), count)
            starts = np.where(images > 0, before, 0)
            pieces = self._pieces(keys_file(group, split), starts.tolist(), ends.tolist())
            for place, piece in zip(here.tolist(), pieces, strict=True):
                keys[place] = piece.decode()
        return keys

    def _count(self, split: str, group: int) -> int:
        return int(self._starts[split][group + 1] - self._starts[split][group])

    def _by_group(
        self, split: str, positions: NDArray[np.int64], by: int
    ) -> Iterator[tuple[int, NDArray[np.int64], NDArray[np.int64]]]:
        """Group, where its positions stand among these, and what they are in it, ascending, divided by `by`."""
        ascending = np.argsort(positions, kind="stable")
        wanted, starts = positions[ascending], self._starts[split]
        bounds = np.searchsorted(wanted, starts)
        for group in np.flatnonzero(np.diff(bounds)).tolist():
            here = slice(bounds[group], bounds[group + 1])
            yield group, ascending[here], (wanted[here] - starts[group]) // by

    def _read(self, name: str, dtype: np.dtype[Any], rows: NDArray[np.int64], count: int) -> NDArray[Any]:
        """Ascending rows of a file of records."""
        if self._order.remote and count * dtype.itemsize > 2 * len(rows) * GAP_BYTES:
            return self._read_pieces(name, dtype, rows)
        path, found, start = self._order.local(name), np.empty(len(rows), dtype), 0
        while start < len(rows):  # a window at a time
            first = rows[start] // WINDOW_ENTRIES * WINDOW_ENTRIES
            stop = int(np.searchsorted(rows, first + WINDOW_ENTRIES))
            window = np.memmap(path, dtype, "r", first * dtype.itemsize, (min(WINDOW_ENTRIES, count - first),))
            found[start:stop] = window[rows[start:stop] - first]
            start = stop
        return found

    def _read_pieces(self, name: str, dtype: np.dtype[Any], rows: NDArray[np.int64]) -> NDArray[Any]:
        breaks = np.flatnonzero(np.diff(rows) * dtype.itemsize > GAP_BYTES) + 1
        runs = np.split(rows, breaks)
        found = list[NDArray[Any]]()
        pieces = self._order.read_pieces(
            [(name, int(run[0]) * dtype.itemsize, (int(run[-1]) + 1) * dtype.itemsize) for run in runs]
        )
        for run, piece in zip(runs, pieces, strict=True):
            found.append(np.frombuffer(piece, dtype)[run - run[0]])
        return np.concatenate(found)

    def _pieces(self, name: str, starts: list[int], stops: list[int]) -> Iterator[bytes]:
        """Ascending pieces of a file: asked for alone on a store, where they are few and far between."""
        if self._order.remote and stops[-1] - starts[0] > 2 * len(starts) * GAP_BYTES:
            pieces = zip(starts, stops, strict=True)
            yield from self._order.read_pieces([(name, start, stop) for start, stop in pieces])
            return
        with self._order.local(name).open("rb") as file:
            for start, stop in zip(starts, stops, strict=True):
                file.seek(start)
                yield file.read(stop - start)
