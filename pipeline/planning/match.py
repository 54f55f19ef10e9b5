"""Which of a dataset's images a source still holds, and which of the source's images are new to the dataset."""

from collections import deque
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from lvae.manifests.errors import LvaeError
from lvae.manifests.parts.plan import Plan
from lvae.manifests.parts.rows import UNLABELLED, ImageRow, RowReader
from lvae.manifests.storage.folder import Folder
from lvae.pipeline.planning.scan import Scan


class Match:
    """A source beside the segments of a dataset, walked together in their orders.

    A source holds a segment as a whole or not at all; erased images may be gone from it. Anything in between means
    that the images are not those that were encoded, and is refused with the first difference.

    held: for every segment, whether the source holds it. seen: what the source's `seen` says of every held segment's
    files. Both are known once `new_rows` is through.
    """

    def __init__(self, folder: Folder, plan: Plan, found: Scan, labels_given: bool, without: int | None = None):
        """`without`: a segment to be taken for unknown, so that its rows come out as new."""
        self._plan, self._found = plan, found
        self._reader = RowReader(folder, plan.listing)
        self._segments = [number for number in range(len(plan.listing.segments)) if number != without]
        self._waiting = {number: _Waiting(self._reader, plan, number) for number in self._segments}
        self._compare_labels = {
            number: labels_given or plan.origins[number].labels_from == "source" for number in self._segments
        }
        self._labels: dict[tuple[int, int, int], str] = {}  # segment, label then, label now -> the first such key
        self.seen = dict.fromkeys(self._segments, 0)
        self.new_seen = 0

    @property
    def held(self) -> list[int]:
        return [number for number, waiting in self._waiting.items() if waiting.taken]

    def new_rows(self) -> Iterator[ImageRow]:
        """The source's rows that no segment has. Raises LvaeError where a segment is held in part or changed."""
        known: NDArray[np.int64] | None = None
        for now, seen in self._found.rows_and_seen():
            for number, waiting in self._waiting.items():
                before = waiting.take(now.key)
                if before is not None:
                    self._compare(number, before, now)
                    self.seen[number] += seen
                    break
            else:
                known = self._hashes() if known is None else known
                if _contains(known, hash(now.key)):
                    raise LvaeError("", self._out_of_order(now))
                self.new_seen += seen
                yield now
        for waiting in self._waiting.values():
            gone = waiting.next_needed() if waiting.taken else None
            if gone is not None:
                raise LvaeError("", f"{gone.key} is gone")
        self._check_labels()

    def _compare(self, number: int, before: ImageRow, now: ImageRow) -> None:
        if before != now and before != now._replace(label=before.label):
            raise LvaeError("", f"{now.key} has changed")
        if self._compare_labels[number]:
            self._labels.setdefault((number, before.label, now.label), now.key)

    def _check_labels(self) -> None:
        """By name, once the source's classes are known: another scan may number them otherwise."""
        for (number, before, now), key in self._labels.items():
            then = _name_label(self._plan.listing.segments[number].classes, before)
            here = _name_label(self._found.classes, now)
            if then != here:
                raise LvaeError("", f"{key} has label {here} instead of {then}")

    def _hashes(self) -> NDArray[np.int64]:
        """Of all keys, sorted."""
        keys = (key for part in self._parts() for key in self._reader.keys(part).to_pylist())
        return np.sort(np.fromiter(map(hash, keys), np.int64))

    def _parts(self) -> Iterator[int]:
        for number in self._segments:
            yield from self._plan.listing.segment_parts(number)

    def _out_of_order(self, now: ImageRow) -> str:
        heads = [row.key for waiting in self._waiting.values() if (row := waiting.next_needed()) is not None]
        return f"{now.key} stands where {heads[0]} was" if heads else f"{now.key} stands there twice"


class _Waiting:
    """The rows of a segment that the source has not shown yet."""

    def __init__(self, reader: RowReader, plan: Plan, number: int):
        self._rows = enumerate(reader.segment(number), plan.listing.segment_rows(number).start)
        self._plan = plan
        self._erased: tuple[int, dict[int, str]] = (-1, {})
        self._head: deque[tuple[ImageRow, bool]] = deque()  # erased rows, then one that is not
        self.taken = 0

    def take(self, key: str) -> ImageRow | None:
        """The row of this key where it is the next one, erased ones left aside."""
        self._fill()
        for position, (row, erased) in enumerate(self._head):
            if row.key == key:
                for _ in range(position + 1):
                    self._head.popleft()
                self.taken += not erased
                return row
        return None

    def next_needed(self) -> ImageRow | None:
        """The next row that is not erased."""
        self._fill()
        return next((row for row, erased in self._head if not erased), None)

    def _fill(self) -> None:
        while not self._head or self._head[-1][1]:
            number, row = next(self._rows, (-1, None))
            if row is None:
                return
            self._head.append((row, self._is_erased(number)))

    def _is_erased(self, number: int) -> bool:
        if not self._plan.erased:
            return False
        part = int(self._plan.listing.parts_of(np.array([number]))[0])
        if self._erased[0] != part:
            self._erased = part, self._plan.erased_rows(part)
        return number in self._erased[1]


def _name_label(classes: tuple[str, ...] | None, label: int) -> str:
    if label == UNLABELLED:
        return "none"
    return str(label) if classes is None else classes[label]


def _contains(values: NDArray[np.int64], value: int) -> bool:
    place = int(np.searchsorted(values, value))
    return place < len(values) and int(values[place]) == value
