"""Caches of a file an image: edm2's and REPA's means with deviations, fast-DiT's pairs, MAR's moments."""

import io
import itertools
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lvae.encode.files.locations import Seen, Watched
from lvae.encode.files.naming import DATASET_JSON
from lvae.encode.sources.label_values import name_numbers
from lvae.encode.sources.npz import LABEL, read_header
from lvae.encode.sources.zip import DAMAGE
from lvae.manifests.errors import LvaeError
from lvae.manifests.messages import counted
from lvae.manifests.parts.rows import UNLABELLED, ImageRow
from lvae.pipeline.exchange.caches.cache import Labelled, Moments, Shape, refuse_empty
from lvae.pipeline.exchange.caches.dataset_json import read_label_pairs
from lvae.pipeline.exchange.caches.files import MAX_BYTES, Files, FolderFiles
from lvae.pipeline.exchange.caches.npy_bytes import NpyEntries

FLIP = "moments_flip"
MOMENTS = "moments"
LOOKED_AT = 16  # files, for one that says what all of them hold


class FileCache:
    """A file an image. `arrays`: the bytes of its latent, and of its mirror's, in the bytes of a file."""

    def __init__(self, layout: str, files: Files, moments: Moments | None, suffix: str = ".npy"):
        self.layout, self.location, self.moments = layout, files.location, moments
        self.classes: tuple[str, ...] | None = None
        self.notes: list[str] = []
        self.seen = Seen()
        self._files, self._suffix = files, suffix
        self.orientations, self._entries = self._open_first()
        self.shape: Shape = self._entries.shape
        if moments is not None and self.shape[0] % 2:
            raise LvaeError(self.location, f"{counted(self.shape[0], 'channel')} are no means with {moments}s")

    def _open_first(self) -> tuple[int, NpyEntries]:
        """How many arrays a file has, and their form: by the first whole file among a few."""
        failure: LvaeError | None = None
        for row in itertools.islice(self._files.some(self._suffix), LOOKED_AT):
            where = f"{self.location}/{row.key}"
            if row.length > MAX_BYTES:
                failure = failure or LvaeError(where, f"of more than {MAX_BYTES >> 20} MiB")
                continue
            try:
                arrays = self.arrays(self._files.read(row), 2)
                return len(arrays), NpyEntries(arrays[0], where)
            except LvaeError as error:
                failure = failure or LvaeError(where, error.problem, error.advice)
        if failure is not None:
            raise failure
        refuse_empty(0, self.location)
        raise AssertionError

    def arrays(self, data: bytes, most: int) -> list[bytes]:
        return [data]

    def rows(self) -> Iterator[ImageRow]:
        yield from self._listed()

    def _listed(self) -> Iterator[ImageRow]:
        """The files as they are found, sorted, without labels."""
        self.seen = Seen()
        yield from self._files.rows(self._suffix, self.seen)

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
        pieces = self._files.read_if_there(DATASET_JSON)
        where = f"{self.location}/{DATASET_JSON}"
        labels = None if pieces is None else read_label_pairs(pieces, where)
        if labels is None:
            yield from self._listed()
            return
        lost = unlabelled = 0
        largest = UNLABELLED
        named = next(labels, None)
        for row in self._listed():
            while named is not None and named[0] < row.key:
                lost, largest, named = lost + 1, max(largest, named[1]), next(labels, None)
            if named is None or named[0] != row.key:
                unlabelled += 1
                yield row
            else:
                yield row._replace(label=named[1])
                largest, named = max(largest, named[1]), next(labels, None)
        while named is not None:
            lost, largest, named = lost + 1, max(largest, named[1]), next(labels, None)
        self.classes = name_numbers(largest)
        self.notes.clear()
        if lost:
            self.notes.append(f"{DATASET_JSON} names {counted(lost, 'latent')} that are not there")
        if unlabelled:
            self.notes.append(f"{counted(unlabelled, 'latent')} not named by {DATASET_JSON}: unlabelled")


class DitCache(FileCache):
    """Two folders, of features and of labels: N.npy (1, C, h, w) beside N.npy (1,)."""

    def __init__(self, features: Path, labels: Path):
        super().__init__("dit", FolderFiles(str(features)), None)
        self.location = str(features.parent)
        self._labels = FolderFiles(str(labels))
        self.notes = ["fast-DiT's script mirrors every second image at random, and does not say which"]

    def rows(self) -> Iterator[ImageRow]:
        """Twice over the labels' folder: numbers are counted before rows are labelled."""
        values = np.fromiter((_read_label(self._labels, row) for row in self._labels.rows(".npy", Seen())), np.int64)
        found = Labelled.of(values, len(values), self._labels.location)
        self.classes = found.classes
        names = (row.key for row in self._labels.rows(".npy", Seen()))
        labels = iter(found.labels.tolist())
        for row, name in itertools.zip_longest(self._listed(), names):
            if row is None or row.key != name:
                alone = min(one for one in (name, None if row is None else row.key) if one is not None)
                advice = "Features and labels must have the same names."
                raise LvaeError(self.location, f"{alone} has no partner", advice)
            yield row._replace(label=next(labels))


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
        """Twice over the folders: classes are numbered before rows are labelled."""
        folders = {row.key.partition("/")[0] for row in self._files.rows(self._suffix, Seen()) if "/" in row.key}
        self.classes = tuple(sorted(folders)) or None
        numbers = {name: number for number, name in enumerate(self.classes or ())}
        for row in self._listed():
            folder, slash, _ = row.key.partition("/")
            yield row._replace(label=numbers.get(folder, UNLABELLED) if slash else UNLABELLED)


def _inflate(archive: zipfile.ZipFile, name: str) -> bytes:
    with archive.open(name) as member:
        data = member.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise LvaeError("", f"{name} has more than {MAX_BYTES >> 20} MiB")
    return data
