"""Caches of a file an image: edm2's and REPA's means with deviations, fast-DiT's pairs, MAR's moments."""

import io
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lvae.encode.files.locations import Watched
from lvae.encode.files.naming import DATASET_JSON
from lvae.encode.sources.label_values import name_numbers
from lvae.encode.sources.labels import parse_dataset_json
from lvae.encode.sources.npz import LABEL, read_header
from lvae.encode.sources.zip import DAMAGE
from lvae.manifests.errors import LvaeError
from lvae.manifests.messages import counted
from lvae.manifests.parts.rows import UNLABELLED, ImageRow
from lvae.pipeline.exchange.caches.cache import Labelled, Moments, Shape, refuse_empty
from lvae.pipeline.exchange.caches.files import MAX_BYTES, Files, FolderFiles
from lvae.pipeline.exchange.caches.npy_bytes import NpyEntries

FLIP = "moments_flip"
MOMENTS = "moments"


class FileCache:
    """A file an image. `arrays`: the bytes of its latent, and of its mirror's, in the bytes of a file."""

    def __init__(self, layout: str, files: Files, moments: Moments | None, suffix: str = ".npy"):
        self.layout, self.location, self.moments = layout, files.location, moments
        self.classes: tuple[str, ...] | None = None
        self.notes: list[str] = []
        self._files = files
        self._rows = files.rows(suffix)
        refuse_empty(len(self._rows), files.location)
        self.orientations, first = self._look_at_first()
        self._entries = NpyEntries(first[0], f"{files.location}/{self._rows[0].key}")
        self.shape: Shape = self._entries.shape
        if moments is not None and self.shape[0] % 2:
            raise LvaeError(self.location, f"{counted(self.shape[0], 'channel')} are no means with {moments}s")

    def _look_at_first(self) -> tuple[int, list[bytes]]:
        arrays = self.arrays(self._files.read(self._rows[0]), 2)
        return len(arrays), arrays

    def arrays(self, data: bytes, most: int) -> list[bytes]:
        return [data]

    def rows(self) -> Iterator[ImageRow]:
        yield from self._take_rows()

    def _take_rows(self) -> list[ImageRow]:
        """Handed out once, since they may be millions."""
        rows, self._rows = self._rows, []
        return rows

    def read(self, rows: Sequence[ImageRow], out: NDArray[np.float32]) -> dict[int, str]:
        reasons: dict[int, str] = {}
        for position, row in enumerate(rows):
            if row.length > MAX_BYTES:
                reasons[position] = f"of more than {MAX_BYTES >> 20} MiB"
                continue
            data = self._files.read(row)
            try:
                arrays = self.arrays(data, self.orientations)
            except LvaeError as error:
                reasons[position] = error.problem
                continue
            if len(arrays) != self.orientations:
                reasons[position] = f"{len(arrays)} arrays instead of {self.orientations}"
                continue
            for orientation, data in enumerate(arrays):
                reason = self._entries.fill(data, out[position, orientation])
                if reason is not None:
                    reasons[position] = reason
        return reasons


class Edm2Cache(FileCache):
    """A folder or zip of .npy files and dataset.json; means, then standard deviations (REPA's is alike)."""

    def __init__(self, layout: str, files: Files):
        super().__init__(layout, files, "deviation")

    def rows(self) -> Iterator[ImageRow]:
        text = self._files.read_if_there(DATASET_JSON)
        where = f"{self.location}/{DATASET_JSON}"
        labels = None if text is None else parse_dataset_json(text, where)
        del text
        rows = self._take_rows()
        if labels is None:
            yield from rows
            return
        self.classes = name_numbers(max(labels.values(), default=-1))
        used = 0
        for row in rows:
            used += row.key in labels
            yield row._replace(label=labels.get(row.key, UNLABELLED))
        if used < len(labels):
            self.notes.append(f"{DATASET_JSON} names {counted(len(labels) - used, 'latent')} that are not there")
        if used < len(rows):
            self.notes.append(f"{counted(len(rows) - used, 'latent')} not named by {DATASET_JSON}: unlabelled")


class DitCache(FileCache):
    """Two folders, of features and of labels: N.npy (1, C, h, w) beside N.npy (1,)."""

    def __init__(self, features: Path, labels: Path):
        super().__init__("dit", FolderFiles(str(features)), None)
        self.location = str(features.parent)
        self._labels = FolderFiles(str(labels))
        self.notes = ["fast-DiT's script mirrors every second image at random, and does not say which"]

    def rows(self) -> Iterator[ImageRow]:
        labels, rows = self._labels.rows(".npy"), self._take_rows()
        if [row.key for row in labels] != [row.key for row in rows]:
            name = min({row.key for row in labels} ^ {row.key for row in rows})
            raise LvaeError(self.location, f"{name} has no partner", "Features and labels must have the same names.")
        values = np.fromiter((_read_label(self._labels, row) for row in labels), np.int64, len(labels))
        found = Labelled.of(values, len(labels), self._labels.location)
        self.classes = found.classes
        for row, label in zip(rows, found.labels.tolist(), strict=True):
            yield row._replace(label=label)


def _read_label(files: FolderFiles, row: ImageRow) -> int:
    where, data = f"{files.location}/{row.key}", files.read(row)
    array = read_header(Watched(io.BytesIO(data)), where)
    dtype = np.dtype(array.dtype) if LABEL.fullmatch(array.dtype) else None
    if dtype is None or dtype.kind not in "iu" or array.items != 1 or len(data) != array.offset + dtype.itemsize:
        raise LvaeError(where, f"{array.dtype!r:.40} {array.shape} is not one label")
    return int(np.frombuffer(data, dtype, offset=array.offset)[0])


class MarCache(FileCache):
    """Folders of classes, an .npz an image: `moments` and `moments_flip`, means then log-variances."""

    def __init__(self, files: FolderFiles):
        super().__init__("mar", files, "log-variance", ".npz")

    def arrays(self, data: bytes, most: int) -> list[bytes]:
        try:
            with zipfile.ZipFile(io.BytesIO(data)) as archive:
                names = [name for name in (f"{MOMENTS}.npy", f"{FLIP}.npy") if name in archive.namelist()]
                if f"{MOMENTS}.npy" not in names:
                    raise LvaeError("", f"has no {MOMENTS}")
                return [_inflate(archive, name) for name in names[:most]]
        except (*DAMAGE, RuntimeError, OSError) as error:
            raise LvaeError("", f"not a whole .npz ({error!s:.100})") from error

    def rows(self) -> Iterator[ImageRow]:
        rows = self._take_rows()
        self.classes = tuple(sorted({row.key.partition("/")[0] for row in rows if "/" in row.key})) or None
        numbers = {name: number for number, name in enumerate(self.classes or ())}
        for row in rows:
            yield row._replace(
                label=numbers.get(row.key.partition("/")[0], UNLABELLED) if "/" in row.key else UNLABELLED
            )


def _inflate(archive: zipfile.ZipFile, name: str) -> bytes:
    with archive.open(name) as member:
        data = member.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise LvaeError("", f"{name} has more than {MAX_BYTES >> 20} MiB")
    return data
