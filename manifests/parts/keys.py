"""The keys of images by row, read from rows/*.parquet as they are asked for."""

from collections.abc import Sequence
from typing import overload

import numpy as np
from numpy.typing import NDArray

from lvae.manifests.errors import LvaeError
from lvae.manifests.parts.plan import read_plan
from lvae.manifests.parts.rows import RowReader
from lvae.manifests.storage.folder import Folder


class Keys(Sequence[str]):
    """The keys of latents, one each: the path of the image within the SOURCE.

    An index gives a key, a slice a list of them. Only those parts of the listing are read that hold what is asked for.
    """

    def __init__(self, folder: Folder, rows: NDArray[np.int64]):
        self._folder, self._rows = folder, rows
        self._reader: RowReader | None = None

    def __len__(self) -> int:
        return len(self._rows)

    def __repr__(self) -> str:
        shown = ", ".join(map(repr, self[:3]))
        return f"<{len(self)} keys: {shown}{', ...' if len(self) > 3 else ''}>"

    @overload
    def __getitem__(self, index: int) -> str: ...

    @overload
    def __getitem__(self, index: slice) -> list[str]: ...

    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return self._read(self._rows[index])
        return self._read(self._rows[index][None])[0]

    def _read(self, rows: NDArray[np.int64]) -> list[str]:
        if not len(rows):
            return []
        if self._reader is None:
            plan = read_plan(self._folder)
            if plan is None:
                raise LvaeError(self._folder, "has no plan.json, which says what its rows are")
            self._reader = RowReader(self._folder, plan.listing)
        parts = self._reader.listing.parts_of(rows)
        found = np.empty(len(rows), object)
        for part in np.unique(parts):
            here = parts == part
            places = rows[here] - self._reader.listing.place(int(part)).first_row
            found[here] = self._reader.keys(int(part)).take(places).to_pylist()
        return list(found)
