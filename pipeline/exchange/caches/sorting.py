"""Sorting more than memory holds: sorted runs in temporary files, merged."""

import heapq
import json
import tempfile
from collections.abc import Iterable, Iterator
from typing import IO, TypeVar

Item = TypeVar("Item", bound=tuple[object, ...])
RUN = 1 << 16  # items sorted in memory


def sort_many(items: Iterable[Item]) -> Iterator[Item]:
    """Tuples of text and whole numbers, in ascending order."""
    batch: list[Item] = []
    runs: list[IO[str]] = []
    try:
        for item in items:
            batch.append(item)
            if len(batch) == RUN:
                runs.append(_write_run(sorted(batch)))
                batch.clear()
        batch.sort()
        yield from heapq.merge(*map(_read_run, runs), batch) if runs else batch
    finally:
        for run in runs:
            run.close()


def _write_run(batch: Iterable[tuple[object, ...]]) -> IO[str]:
    file = tempfile.TemporaryFile("w+", encoding="ascii")  # noqa: SIM115  closed by who merges it
    file.writelines(json.dumps(item) + "\n" for item in batch)
    file.seek(0)
    return file


def _read_run(file: IO[str]) -> Iterator[Item]:
    for line in file:
        yield tuple(json.loads(line))  # type: ignore[misc]
