"""Rows whose latents were removed for good: ranges in a file beside the plan, which names it."""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from lvae.manifests.records import FormError
from lvae.manifests.storage.folder import FileRecord, Folder

ERASED = "erased"
SCHEMA = pa.schema([("first", pa.int64()), ("stop", pa.int64()), ("reason", pa.string())])
NO_ROWS = np.empty(0, np.int64)
RESTORE = "Restore it from a copy of the dataset: it says what must not be encoded again."


@dataclass(frozen=True)
class Erased:
    """Rows first <= row < stop, and why."""

    first: int
    stop: int
    reason: str


class ErasedRows:
    """Ranges in row order that do not overlap: their first rows, the ends, and a number among `reasons` each."""

    def __init__(
        self,
        firsts: NDArray[np.int64] = NO_ROWS,
        stops: NDArray[np.int64] = NO_ROWS,
        numbers: NDArray[np.int64] = NO_ROWS,
        reasons: tuple[str, ...] = (),
    ):
        self.firsts, self.stops, self.numbers, self.reasons = firsts, stops, numbers, reasons

    @classmethod
    def of(cls, rows: Iterable[int], reason: str) -> "ErasedRows":
        found = np.unique(np.fromiter(rows, np.int64))
        begins = np.flatnonzero(np.diff(found, prepend=-2) != 1)
        ends = np.append(begins[1:], len(found))[: len(begins)] - 1
        return cls(found[begins], found[ends] + 1, np.zeros(len(begins), np.int64), (reason,))

    def __len__(self) -> int:
        """How many ranges."""
        return len(self.firsts)

    @property
    def count(self) -> int:
        """How many rows."""
        return int((self.stops - self.firsts).sum())

    def __iter__(self) -> Iterator[Erased]:
        for first, stop, number in zip(*map(np.ndarray.tolist, (self.firsts, self.stops, self.numbers)), strict=True):
            yield Erased(first, stop, self.reasons[number])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ErasedRows) and len(self) == len(other) and all(map(Erased.__eq__, self, other))

    def __hash__(self) -> int:
        return hash((self.firsts.tobytes(), self.stops.tobytes()))

    @property
    def sha256(self) -> str:
        digest = hashlib.sha256("\0".join(self.reasons).encode())
        for array in (self.firsts, self.stops, self.numbers):
            digest.update(array.tobytes())
        return digest.hexdigest()

    def within(self, first: int, stop: int) -> dict[int, str]:
        """The rows from first to stop that are erased, each with its reason."""
        found: dict[int, str] = {}
        begin, end = np.searchsorted(self.stops, first, side="right"), np.searchsorted(self.firsts, stop)
        for number in range(int(begin), int(end)):
            rows = range(max(int(self.firsts[number]), first), min(int(self.stops[number]), stop))
            found |= dict.fromkeys(rows, self.reasons[self.numbers[number]])
        return found

    def before(self, stop: int) -> "ErasedRows":
        """Those ranges that begin before a row."""
        here = self.firsts < stop
        return ErasedRows(self.firsts[here], self.stops[here], self.numbers[here], self.reasons)

    def moved(self, rows: int) -> "ErasedRows":
        """The same so many rows further on."""
        return ErasedRows(self.firsts + rows, self.stops + rows, self.numbers, self.reasons)

    def joined(self, others: "ErasedRows") -> "ErasedRows":
        """Both together, which share no row."""
        firsts, stops = np.concatenate([self.firsts, others.firsts]), np.concatenate([self.stops, others.stops])
        reasons = tuple(dict.fromkeys((*self.reasons, *others.reasons)))
        known = np.array([reasons.index(reason) for reason in (*self.reasons, *others.reasons)], np.int64)
        numbers = known[np.concatenate([self.numbers, others.numbers + len(self.reasons)])] if len(firsts) else NO_ROWS
        order = np.argsort(firsts)
        firsts, stops, numbers = firsts[order], stops[order], numbers[order]
        begins = np.ones(len(firsts), bool)
        begins[1:] = (firsts[1:] != stops[:-1]) | (numbers[1:] != numbers[:-1])
        ends = np.append(begins[1:], True)[: len(firsts)]
        return ErasedRows(firsts[begins], stops[ends], numbers[begins], reasons)

    def adding(self, rows: Iterable[int], reason: str) -> "ErasedRows":
        """With more rows; those that are here already keep their reason."""
        found = np.unique(np.fromiter(rows, np.int64))
        at = np.searchsorted(self.firsts, found, side="right") - 1
        known = np.zeros(len(found), bool)
        known[at >= 0] = found[at >= 0] < self.stops[at[at >= 0]]
        return self.joined(ErasedRows.of(found[~known].tolist(), reason))


def write_erased_rows(folder: Folder, rows: ErasedRows) -> FileRecord | None:
    """The file of these rows, under a name made from its content; none where there are none."""
    if not len(rows):
        return None
    reasons = pa.array(rows.reasons).take(pa.array(rows.numbers))
    table = pa.table({"first": rows.firsts, "stop": rows.stops, "reason": reasons}, schema=SCHEMA)
    packed = dict.fromkeys(("first", "stop"), "DELTA_BINARY_PACKED")
    with folder.writer() as unfinished:
        with pa.PythonFile(unfinished.file, "w") as file:
            pq.write_table(table, file, compression="zstd", use_dictionary=["reason"], column_encoding=packed)
        return unfinished.commit(f"{ERASED}/{unfinished.file.sha256[:16]}.parquet")


def read_erased_rows(folder: Folder, record: FileRecord | None) -> ErasedRows:
    """FormError where the file is not the one that was written: without it nobody may go on."""
    if record is None:
        return ErasedRows()
    where = folder.place(record.path)
    if folder.size(record.path) != record.bytes or folder.sha256(record.path) != record.sha256:
        raise FormError(where, "is missing or damaged", RESTORE)
    try:
        # Not read_table: its threads may still be ending when the process does, which then aborts.
        table = pq.ParquetFile(pa.BufferReader(folder.read(record.path))).read(use_threads=False)
        if table.schema.remove_metadata() != SCHEMA or any(column.null_count for column in table.columns):
            raise pa.ArrowInvalid("other columns than erased rows have")
    except (pa.ArrowException, OSError, ValueError) as error:
        raise FormError(where, f"cannot be read ({str(error).splitlines()[0]})", RESTORE) from error
    firsts, stops = table["first"].to_numpy(), table["stop"].to_numpy()
    if not ((firsts < stops).all() and (firsts >= 0).all() and (stops[:-1] <= firsts[1:]).all()):
        raise FormError(where, "its ranges are not in order", RESTORE)
    named = table["reason"].combine_chunks().dictionary_encode()
    numbers = np.asarray(named.indices.to_numpy(), np.int64)
    return ErasedRows(firsts, stops, numbers, tuple(named.dictionary.to_pylist()))
