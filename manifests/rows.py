"""The images of a dataset, in source order: rows/*.parquet, one row group per part."""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from lvae.manifests.errors import LvaeError
from lvae.manifests.storage import Folder

PARTS_PER_FILE = 1024
UNLABELLED = -1

SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        ("container", pa.string()),
        ("offset", pa.int64()),
        ("length", pa.int64()),
        ("member", pa.string()),
        ("label", pa.int32()),
    ]
)


class DamagedRowsError(LvaeError):
    """rows/*.parquet cannot be read; listing the source again makes them anew."""


@dataclass(frozen=True)
class ImageRow:
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
class Listing:
    """What a scan found: enough to recognize the same images again, wherever they lie."""

    kind: str
    images: int
    sha256: str
    parts: int
    part_size: int
    classes: tuple[str, ...] | None


def rows_file(part: int) -> str:
    return f"rows/{part // PARTS_PER_FILE:06d}.parquet"


def write_rows(folder: Folder, rows: Iterable[ImageRow], part_size: int) -> tuple[int, int, str]:
    """Write the rows of a source; returns how many images, how many parts, and the hash of the listing.

    Takes memory for one part, whatever the number of rows. The hash covers every field of every row, so it says
    whether another scan found the same images; it does not depend on the part size.
    """
    digest = ListingHash()
    images = parts = 0
    batches = _batches(rows, part_size)
    pending = next(batches, None)
    while pending is not None:
        with folder.writer() as unfinished:
            name = rows_file(parts)
            with pq.ParquetWriter(pa.PythonFile(unfinished.file, "w"), SCHEMA, compression="zstd") as writer:
                while pending is not None and rows_file(parts) == name:
                    writer.write_table(_table(pending), row_group_size=part_size)
                    digest.update(pending)
                    images, parts = images + len(pending), parts + 1
                    pending = next(batches, None)
            unfinished.commit(name)
    return images, parts, digest.hexdigest()


class ListingHash:
    """The hash of a listing, row by row."""

    def __init__(self) -> None:
        self._sha256 = hashlib.sha256()

    def update(self, rows: Iterable[ImageRow]) -> None:
        for row in rows:
            fields = (row.key, row.container, str(row.offset), str(row.length), row.member, str(row.label))
            self._sha256.update(("\0".join(fields) + "\1").encode("utf-8", "surrogateescape"))

    def hexdigest(self) -> str:
        return self._sha256.hexdigest()


def _batches(rows: Iterable[ImageRow], size: int) -> Iterator[list[ImageRow]]:
    batch: list[ImageRow] = []
    for row in rows:
        batch.append(row)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def _table(rows: list[ImageRow]) -> pa.Table:
    columns = {name: [getattr(row, name) for row in rows] for name in SCHEMA.names}
    return pa.table(columns, schema=SCHEMA)


class RowReader:
    """The rows of a dataset, part by part. Keeps one Parquet file open."""

    def __init__(self, folder: Folder, parts: int):
        self._folder, self.parts = folder, parts
        self._opened: tuple[str, pq.ParquetFile] | None = None

    def _file(self, name: str) -> pq.ParquetFile:
        if self._opened is None or self._opened[0] != name:
            self._opened = name, pq.ParquetFile(pa.memory_map(str(self._folder.local(name))))
        return self._opened[1]

    def table(self, part: int, columns: list[str] | None = None) -> pa.Table:
        """The row group of one part."""
        wanted = columns or SCHEMA.names
        try:
            table = self._file(rows_file(part)).read_row_group(part % PARTS_PER_FILE, columns=wanted).select(wanted)
            table.validate(full=True)  # what a flipped bit makes of compressed text need not be text
            if table.schema != pa.schema([SCHEMA.field(name) for name in wanted]):
                raise pa.ArrowInvalid("other columns than rows have")
            if any(column.null_count for column in table.columns):
                raise pa.ArrowInvalid("values are missing")
            return table
        except (OSError, ValueError, pa.ArrowException, IndexError, KeyError) as error:
            name = self._folder.local(rows_file(part))
            reason = str(error).splitlines()[0]
            raise DamagedRowsError(f"{name}: cannot be read ({reason}). Run 'lvae encode' again.") from error

    def part(self, part: int) -> list[ImageRow]:
        table = self.table(part)
        return [ImageRow(*values) for values in zip(*(table[name].to_pylist() for name in SCHEMA.names), strict=True)]

    def __iter__(self) -> Iterator[ImageRow]:
        for part in range(self.parts):
            yield from self.part(part)
