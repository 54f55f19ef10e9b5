"""Rows of an .npy file on an object store, without fetching the rest of it."""

import io
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lvae.manifests.errors import LvaeError
from lvae.manifests.storage import Folder

HEADER_BYTES = 1024  # more than the header of our arrays
GAP_BYTES = 64 << 10  # between two rows, that cost less to read along than another request


class RemoteRows:
    """As a mapped array, for ascending rows."""

    def __init__(self, folder: Folder, name: str):
        self._folder, self._name = folder, name
        (head,) = folder.read_pieces(name, [(0, HEADER_BYTES)])
        start = io.BytesIO(head)
        try:
            if np.lib.format.read_magic(start) != (1, 0):
                raise ValueError("another version of the format than ours")
            self.shape, fortran, self.dtype = np.lib.format.read_array_header_1_0(start)
        except ValueError as error:
            raise LvaeError(f"{folder.place(name)}: cannot be read ({error}). Run 'lvae encode' again.") from error
        if fortran or self.dtype.hasobject:
            raise LvaeError(f"{folder.place(name)}: is no array of latents. Run 'lvae encode' again.")
        self._first = start.tell()
        self._row_bytes = math.prod(self.shape[1:]) * self.dtype.itemsize

    def __getitem__(self, rows: NDArray[np.int64]) -> NDArray[Any]:
        """(n, C, h, w) of ascending rows; near ones come with one request."""
        runs: list[list[int]] = []
        for row in rows.tolist():
            if runs and (row - runs[-1][1]) * self._row_bytes <= GAP_BYTES:
                runs[-1][1] = row
            else:
                runs.append([row, row])
        pieces = [
            (self._first + first * self._row_bytes, self._first + (last + 1) * self._row_bytes) for first, last in runs
        ]
        found = np.empty((len(rows), *self.shape[1:]), self.dtype)
        position = 0
        for (first, last), data in zip(runs, self._folder.read_pieces(self._name, pieces), strict=True):
            if len(data) != (last + 1 - first) * self._row_bytes:
                raise LvaeError(f"{self._folder.place(self._name)}: is cut short. Run 'lvae encode' again.")
            block = np.frombuffer(data, self.dtype).reshape(-1, *self.shape[1:])
            taken = int(np.searchsorted(rows[position:], last, side="right"))
            found[position : position + taken] = block[rows[position : position + taken] - first]
            position += taken
        return found
