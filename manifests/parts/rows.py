"""The images of a dataset, in source order: rows/*.parquet, one row group per part."""

import bisect
import hashlib
import itertools
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple
from urllib.parse import unquote

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from lvae.manifests.errors import LvaeError
from lvae.manifests.parts.listing_hash import SCHEMA, ListingHash, in_batches
from lvae.manifests.storage.folder import Folder
from lvae.manifests.storage.retry import raise_outage

PARTS_PER_FILE = 1024
UNLABELLED = -1
_NUMBER = r"(0|[1-9]\d{0,17})"
MEMBERS = {  # by kind of source, where a member is no name
    "parquet": re.compile(f"{_NUMBER}:{_NUMBER}", re.ASCII),
    **dict.fromkeys(("npz", "npy", "synthetic"), re.compile(_NUMBER, re.ASCII)),
}


class DamagedRowsError(LvaeError):
    """rows/*.parquet cannot be read; listing the source again makes them anew."""


class ImageRow(NamedTuple):
    """One image of a source.

    key: what names the image to a person, relative to the source, with forward slashes; unique within it.
    container: the file that holds its bytes, relative to the source's base ("" where that is the file `key`).
    offset, length: where the bytes lie in the container; offset -1 where the container has to be asked for `member`
        (a deflated zip entry, say), length -1 where that is not known before (Parquet).
    member: the name inside the container ("" for plain files).
    label: an index into the source's classes, or -1.
    """

    key: str
    container: str
    offset: int
    length: int
    member: str
    label: int


@dataclass(frozen=True)
class Segment:
    """What one scan found: enough to recognize the same images again, wherever they lie.

    Rows are labelled by the segment's own `classes`; the dataset numbers them by `Listing.classes`.
    """

    kind: str
    images: int
    sha256: str
    part_size: int
    classes: tuple[str, ...] | None

    @property
    def parts(self) -> int:
        return -(-self.images // self.part_size)

    @property
    def files(self) -> int:
        """How many Parquet files hold its rows."""
        return -(-self.parts // PARTS_PER_FILE)


@dataclass(frozen=True)
class PartPlace:
    """Where a part stands: its rows over the whole dataset, its segment, and its row group."""

    segment: int
    first_row: int
    rows: int
    file: str
    group: int


@dataclass(frozen=True)
class Listing:
    """The images of a dataset: segments one behind the other, the first scan and what was appended or merged since.

    Parts, rows and Parquet files are numbered through all segments; each segment begins a part and a file of its own,
    so that nothing of the earlier ones is touched when another arrives.
    """

    segments: tuple[Segment, ...]

    @property
    def images(self) -> int:
        return sum(segment.images for segment in self.segments)

    @property
    def parts(self) -> int:
        return sum(segment.parts for segment in self.segments)

    @property
    def kind(self) -> str:
        """What kind of source, "several" where segments differ."""
        kinds = {segment.kind for segment in self.segments}
        return kinds.pop() if len(kinds) == 1 else "several"

    @property
    def sha256(self) -> str:
        """That of the only segment, or of the hashes of all."""
        hashes = [segment.sha256 for segment in self.segments]
        return hashes[0] if len(hashes) == 1 else hashlib.sha256("".join(hashes).encode()).hexdigest()

    @cached_property
    def classes(self) -> tuple[str, ...] | None:
        """Those of all segments, by name: sorted where every segment's are, else in the order of their arrival."""
        named = [segment.classes for segment in self.segments if segment.classes is not None]
        if not named:
            return None
        united = tuple(dict.fromkeys(name for classes in named for name in classes))
        return tuple(sorted(united)) if all(list(classes) == sorted(classes) for classes in named) else united

    @cached_property
    def _first_parts(self) -> list[int]:
        """The first part of every segment, and the end."""
        return [0, *itertools.accumulate(segment.parts for segment in self.segments)]

    @cached_property
    def _first_rows(self) -> list[int]:
        return [0, *itertools.accumulate(segment.images for segment in self.segments)]

    @cached_property
    def _first_files(self) -> list[int]:
        return [0, *itertools.accumulate(segment.files for segment in self.segments)]

    def place(self, part: int) -> PartPlace:
        if not 0 <= part < self.parts:
            raise IndexError(f"there is no part {part}")
        number = bisect.bisect_right(self._first_parts, part) - 1
        segment, local = self.segments[number], part - self._first_parts[number]
        first = local * segment.part_size
        return PartPlace(
            segment=number,
            first_row=self._first_rows[number] + first,
            rows=min(segment.part_size, segment.images - first),
            file=rows_file(self._first_files[number] + local // PARTS_PER_FILE),
            group=local % PARTS_PER_FILE,
        )

    def segment_parts(self, number: int) -> range:
        """The parts of a segment."""
        return range(self._first_parts[number], self._first_parts[number + 1])

    def segment_rows(self, number: int) -> range:
        """The rows of a segment."""
        return range(self._first_rows[number], self._first_rows[number + 1])

    def segment_files(self, number: int) -> list[str]:
        """The Parquet files of a segment."""
        return [rows_file(file) for file in range(self._first_files[number], self._first_files[number + 1])]

    @property
    def files(self) -> list[str]:
        """All Parquet files."""
        return [rows_file(file) for file in range(self._first_files[-1])]

    def parts_of(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """The part of each of these rows: (n,) -> (n,)."""
        segments = np.searchsorted(self._first_rows, rows, side="right") - 1
        sizes = np.array([segment.part_size for segment in self.segments])
        firsts, parts = np.array(self._first_rows), np.array(self._first_parts)
        result: NDArray[np.int64] = parts[segments] + (rows - firsts[segments]) // sizes[segments]
        return result

    def labels(self, segment: int) -> NDArray[np.int32] | None:
        """From a segment's labels to the dataset's: (classes + 1,); the last entry stands for unlabelled.

        None where labels are plain numbers without names, which are everywhere the same.
        """
        classes, all_classes = self.segments[segment].classes, self.classes
        if all_classes is None:
            return None
        if classes is None:
            return np.array([UNLABELLED], np.int32)
        numbers = {name: number for number, name in enumerate(all_classes)}
        return np.array([*(numbers[name] for name in classes), UNLABELLED], np.int32)


def rows_file(number: int) -> str:
    """The name of a Parquet file."""
    return f"rows/{number:06d}.parquet"


def write_rows(folder: Folder, rows: Iterable[ImageRow], part_size: int, first_file: int = 0) -> tuple[int, str]:
    """Write the rows of a segment; returns how many images, and the hash of the listing.

    Takes memory for one part, whatever the number of rows. The hash covers every field of every row, so it says
    whether another scan found the same images; it does not depend on the part size.
    """
    digest = ListingHash()
    images, file = 0, first_file
    batches = in_batches(rows, part_size)
    pending = next(batches, None)
    while pending is not None:
        with folder.writer() as unfinished:
            with pq.ParquetWriter(pa.PythonFile(unfinished.file, "w"), SCHEMA, compression="zstd") as writer:
                for _ in range(PARTS_PER_FILE):
                    writer.write_table(_table(pending), row_group_size=part_size)
                    digest.update(pending)
                    images += len(pending)
                    pending = next(batches, None)
                    if pending is None:
                        break
            unfinished.commit(rows_file(file))
        file += 1
    return images, digest.hexdigest()


def _table(rows: list[ImageRow]) -> pa.Table:
    return pa.table(dict(zip(SCHEMA.names, map(list, zip(*rows, strict=True)), strict=True)), schema=SCHEMA)


def _leads_out(name: str) -> bool:
    """Whether the name of a file may lie outside of the source that it is relative to."""
    return name.startswith("/") or "://" in name or (".." in name and ".." in name.split("/"))


class RowReader:
    """The rows of a dataset, part by part. Keeps one Parquet file open."""

    def __init__(self, folder: Folder, listing: Listing):
        self._folder, self.listing = folder, listing
        self._labels = [listing.labels(number) for number in range(len(listing.segments))]
        self._opened: tuple[str, pq.ParquetFile] | None = None

    def _file(self, name: str) -> pq.ParquetFile:
        if self._opened is None or self._opened[0] != name:
            self._opened = name, pq.ParquetFile(pa.OSFile(str(self._folder.local(name))))
        return self._opened[1]

    def listed(self, part: int, columns: list[str] | None = None) -> pa.Table:
        """The row group of one part as it was scanned: labels are the segment's own."""
        wanted, place = columns or SCHEMA.names, self.listing.place(part)
        try:
            table = self._file(place.file).read_row_group(place.group, wanted, use_threads=False).select(wanted)
            table.validate(full=True)  # what a flipped bit makes of compressed text need not be text
            if table.schema != pa.schema([SCHEMA.field(name) for name in wanted]):
                raise pa.ArrowInvalid("other columns than rows have")
            if any(column.null_count for column in table.columns):
                raise pa.ArrowInvalid("values are missing")
            if len(table) != place.rows:
                raise pa.ArrowInvalid("another number of rows than were listed")
            return table
        except (OSError, ValueError, pa.ArrowException, IndexError, KeyError) as error:
            raise_outage(error)
            problem = f"cannot be read ({str(error).splitlines()[0]})"
            raise DamagedRowsError(self._folder.place(place.file), problem, "Run 'lvae encode' again.") from error

    def keys(self, part: int) -> pa.ChunkedArray:
        return self.listed(part, ["key"])["key"]

    def keys_and_labels(self, part: int) -> tuple[pa.ChunkedArray, NDArray[np.int32]]:
        """Keys and labels of one part, as the whole dataset numbers its classes."""
        table = self.listed(part, ["key", "label"])
        labels: NDArray[np.int32] = table["label"].to_numpy()
        names = self._labels[self.listing.place(part).segment]
        if names is None:
            return table["key"], labels
        if len(labels) and not (labels.min() >= UNLABELLED and labels.max() < len(names) - 1):
            raise DamagedRowsError(
                f"{self._folder.place(self.listing.place(part).file)}",
                "has labels that stand for no class",
                "Run 'lvae encode' again.",
            )
        return table["key"], names[labels]

    def part(self, part: int) -> list[ImageRow]:
        """The rows of one part as they were scanned."""
        table, place = self.listed(part), self.listing.place(part)
        rows = list(map(ImageRow._make, zip(*(table[name].to_pylist() for name in SCHEMA.names), strict=True)))
        kind = self.listing.segments[place.segment].kind
        member, where = MEMBERS.get(kind), self._folder.place(place.file)
        for row in rows:
            names = [row.container or row.key] if kind != "folder" else [row.container, row.key, unquote(row.member)]
            damaged = any("\0" in name for name in names)  # no scan writes such names; a flipped bit may
            if damaged or (kind != "list" and any(map(_leads_out, names))):
                wrong = DamagedRowsError if damaged else LvaeError
                raise wrong(where, f"{row.key!r:.200} leads out of its source", "Do not use these files.")
            if member is not None and member.fullmatch(row.member) is None:
                raise LvaeError(where, f"{row.key!r:.200} has no place in its source", "Do not use these files.")
        return rows

    def segment(self, number: int) -> Iterator[ImageRow]:
        """The rows of one segment as they were scanned, in order."""
        for part in self.listing.segment_parts(number):
            yield from self.part(part)
