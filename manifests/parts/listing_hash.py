"""The hash of a listing: over every field of every row, whatever the parts or batches that rows come in."""

import hashlib
from collections.abc import Iterable, Iterator
from typing import TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

T = TypeVar("T")
HASHED_AT_ONCE = 1024  # rows

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


class ListingHash:
    """The hash of a listing's rows, whatever their batches."""

    def __init__(self) -> None:
        self._sha256 = hashlib.sha256()

    def update(self, rows: Iterable[tuple[str, str, int, int, str, int]]) -> None:
        for batch in in_batches(rows, HASHED_AT_ONCE):
            text = "".join(
                f"{key}\0{container}\0{offset}\0{length}\0{member}\0{label}\1"
                for key, container, offset, length, member, label in batch
            )
            self._sha256.update(text.encode("utf-8", "surrogateescape"))

    def update_table(self, rows: pa.Table) -> None:
        """The same of rows as they were listed, without making an object of each."""
        for batch in rows.to_batches(HASHED_AT_ONCE * 16):
            columns = [pc.cast(batch.column(name), pa.large_string()) for name in SCHEMA.names]
            text = pc.binary_join_element_wise(*columns, pa.scalar("\0", pa.large_string()))
            lines = pc.binary_join_element_wise(text, *(pa.scalar(end, pa.large_string()) for end in ("", "\1")))
            for chunk in [lines] if isinstance(lines, pa.Array) else lines.chunks:
                ends = np.frombuffer(chunk.buffers()[1], "<i8", len(chunk) + 1, chunk.offset * 8)
                self._sha256.update(memoryview(chunk.buffers()[2])[ends[0] : ends[-1]])

    def hexdigest(self) -> str:
        return self._sha256.hexdigest()


def in_batches(rows: Iterable[T], size: int) -> Iterator[list[T]]:
    batch: list[T] = []
    for row in rows:
        batch.append(row)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch
