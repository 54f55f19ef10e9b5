"""What our own export leaves beside the latents, and a cache read by it: export.json, and keys and labels by row."""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from json.encoder import encode_basestring
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from lvae.encode.files.locations import Seen
from lvae.encode.sources.label_values import MAX_LABEL, MAX_NAME
from lvae.manifests import records
from lvae.manifests.errors import LvaeError
from lvae.manifests.messages import counted
from lvae.manifests.parts.plan import Store
from lvae.manifests.parts.rows import UNLABELLED, ImageRow
from lvae.manifests.storage.names import WeightsHash
from lvae.pipeline.exchange.caches.cache import MAX_SIDE, Cache, Moments
from lvae.pipeline.exchange.caches.files import Files

Layout = Literal["edm2", "lightningdit", "dit", "npy", "safetensors"]
FORMAT, VERSION = "latent-vae-exported-latents", 2
RECORD, ROWS = "export.json", "export_rows.jsonl"
MIRRORED = " (mirrored)"  # what the key of a mirrored latent ends with, where it is a row of its own
MAX_LINE = 1 << 16  # bytes of a row's key and label
MAX_RECORD = 128 << 20
CALLED = {"safetensors": ("npy",), "edm2": ("edm2", "repa")}  # what the layout is when it is read, where not the same


@dataclass(frozen=True)
class LatentsRecord:
    """export.json: what was written, of which dataset.

    count: of rows in the layout; mean, std: of its numbers. store: what the dataset keeps of a posterior; holds: what
    the rows here do. classes: what the labels in export_rows.jsonl number.
    """

    format: Literal["latent-vae-exported-latents"]
    version: Literal[2]
    dataset: str
    layout: Layout
    split: str
    count: int
    orientations: int
    scale: float
    dtype: str
    store: Store
    holds: Store
    autoencoder: str
    architecture: dict[str, Any]
    downsampling_factor: int
    weights_sha256: WeightsHash
    input_range: tuple[float, float]
    crop: str
    exact: bool
    classes: tuple[str, ...] | None
    mean: tuple[float, ...]
    std: tuple[float, ...]


def row_line(key: str, label: int) -> bytes:
    """How a row stands in export_rows.jsonl, which has them in the order of the layout's files."""
    return f"[{encode_basestring(key)}, {label}]\n".encode()


def read_record(files: Files) -> LatentsRecord | None:
    """What an export of ours says of its latents; None where they are others', or of an earlier version."""
    pieces = files.read_if_there(RECORD)
    if pieces is None:
        return None
    where, data = f"{files.location}/{RECORD}", bytearray()
    for piece in pieces:
        data += piece
        if len(data) > MAX_RECORD:
            raise LvaeError(where, f"of more than {MAX_RECORD >> 20} MiB")
    try:
        content = records.loads(bytes(data), where)
    except LvaeError:
        return None  # some other tool's, until it says that it is ours
    if not isinstance(content, dict) or (content.get("format"), content.get("version")) != (FORMAT, VERSION):
        return None
    found = records.from_plain(LatentsRecord, content, where)
    classes = found.classes or ()
    if len(classes) > MAX_LABEL + 1 or len(set(classes)) != len(classes) or any(len(one) > MAX_NAME for one in classes):
        raise LvaeError(where, "its classes are too many, too long or not distinct")
    if found.orientations not in (1, 2) or not 1 <= found.downsampling_factor <= MAX_SIDE:
        raise LvaeError(where, "its orientations or its factor are none")
    return found


class ExportedCache:
    """A cache that an export of ours wrote, with the keys, labels and classes of the dataset; see Cache."""

    def __init__(self, cache: Cache, record: LatentsRecord, files: Files):
        self.record, self._cache, self._files = record, cache, files
        self.layout, self.location = cache.layout, cache.location
        where = f"{files.location}/{RECORD}"
        if cache.layout not in CALLED.get(record.layout, (record.layout,)):
            problem = f"describes {record.layout}, and these files are {cache.layout}"
            raise LvaeError(where, problem, "Remove it where it is not theirs.")
        channels, height, width = cache.shape
        if record.holds == "moments" and channels % 2:
            raise LvaeError(where, f"speaks of means and deviations, and there are {counted(channels, 'channel')}")
        if record.holds == "moments":
            self.moments: Moments | None = cache.moments or "log-variance"
        else:
            self.moments = None
            channels //= 2 if record.layout == "edm2" else 1  # whose deviations are 0 then
        if record.orientations > cache.orientations:
            raise LvaeError(where, "speaks of mirrored latents, which are not there")
        self.shape, self.orientations = (channels, height, width), record.orientations
        self.classes = record.classes
        self.notes: list[str] = []
        self.seen = Seen()

    def rows(self) -> Iterator[ImageRow]:
        where, number = f"{self._files.location}/{ROWS}", 0
        for row, said in itertools.zip_longest(self._cache.rows(), self._read_rows(where)):
            if row is None or said is None:
                raise LvaeError(where, "has not as many rows as there are latents", "Export them again.")
            key, label = said
            if UNLABELLED not in (label, row.label) and label != row.label:
                raise LvaeError(f"{where}: {key!r:.100}", f"has label {label}, and its latent {row.label}")
            yield row._replace(key=key, label=label, member="")
            number += 1
        if number != self.record.count:
            raise LvaeError(where, f"has {counted(number, 'row')}, and {RECORD} speaks of {self.record.count}")
        self.seen = self._cache.seen
        self.notes[:] = [f"keys, labels and settings are those of {RECORD}"]

    def _read_rows(self, where: str) -> Iterator[tuple[str, int]]:
        pieces = self._files.read_if_there(ROWS)
        if pieces is None:
            raise LvaeError(where, "is missing", f"Without {RECORD} these are latents of anybody.")
        classes = MAX_LABEL + 1 if self.classes is None else len(self.classes)
        for number, line in enumerate(_lines(pieces, where), 1):
            here = f"{where}, line {number}"
            found = records.loads(line, here)
            if not (isinstance(found, list) and list(map(type, found)) == [str, int]):
                raise LvaeError(here, 'is not ["key", label]')
            key, label = found
            if not key or not UNLABELLED <= label < classes:
                raise LvaeError(here, f"the label {label} is out of range, or the key is empty")
            yield key, label

    def read(self, rows: Sequence[ImageRow], out: NDArray[np.float32]) -> dict[int, str]:
        stored = (self._cache.orientations, *self._cache.shape)
        if out.shape[1:] == stored:
            return self._cache.read(rows, out)
        found = np.empty((len(rows), *stored), np.float32)
        reasons = self._cache.read(rows, found)
        out[...] = found[:, : out.shape[1], : out.shape[2]]
        return reasons


def _lines(pieces: Iterator[bytes], where: str) -> Iterator[bytes]:
    rest = b""
    for piece in pieces:
        *whole, rest = (rest + piece).split(b"\n")
        if len(rest) > MAX_LINE or any(len(line) > MAX_LINE for line in whole):
            raise LvaeError(where, f"a line of more than {MAX_LINE >> 10} KiB")
        yield from whole
    if rest:
        raise LvaeError(where, "ends within a line", "Export the latents again.")
