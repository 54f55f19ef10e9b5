"""encode_parts: the rows of parts, as one stream -> raw files and receipts, part by part.

The unit of storage is a part, the unit of computing a batch: on an accelerator batches run across the borders of parts,
the next images are opened meanwhile, and a thread writes what is done. Knows nothing of who asks for it.
"""

import hashlib
import itertools
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from lvae.encode.feeding.encoder import Pending
from lvae.encode.feeding.openers import Opener
from lvae.encode.feeding.opening import Chunk, Opened
from lvae.manifests.parts.enlarged import Enlarged, write_enlarged
from lvae.manifests.parts.phases import NO_PROGRESS, Progress
from lvae.manifests.parts.plan import Plan
from lvae.manifests.parts.receipts import Receipt, Rejection, finished, write_part
from lvae.manifests.parts.rows import RowReader
from lvae.manifests.storage.folder import Folder

WRITTEN_BEHIND = 1  # parts that are done and not yet written, while the next one is computed


class BatchEncoder(Protocol):
    """What computes: see `Encoder`. accelerated: beside the CPU, so that it must not be kept waiting."""

    @property
    def accelerated(self) -> bool: ...
    @property
    def batch(self) -> int: ...
    @property
    def in_flight(self) -> int: ...

    def submit(self, pixels: Sequence[NDArray[np.uint8]], keys: Sequence[str]) -> Pending: ...


def encode_parts(
    folder: Folder,
    plan: Plan,
    parts: Iterable[int],
    encoder: BatchEncoder,
    opener: Opener,
    progress: Progress = NO_PROGRESS,
) -> Iterator[Receipt]:
    """Encode parts and store them; yield the receipt of each, in their order, once it is written.

    Images are opened in row order, each once; those that cannot be used go into the receipt with a reason, as do those
    that the plan has erased, which are not opened. A part that is finished already is not encoded again. `progress` is
    told which part is the oldest under way, how many of its rows are done, and what is waited for.
    Raises OSError where bytes cannot be read at all, now or after a few tries.
    """
    for _, same in itertools.groupby(parts, key=lambda part: plan.listing.place(part).segment):
        with ExitStack() as stack:
            writer = stack.enter_context(ThreadPoolExecutor(1)) if encoder.accelerated else None
            stream = _Stream(folder, plan, encoder, progress, writer)
            yield from stream.run(same, opener)


@dataclass
class _Part:
    """A part under way. raw: (n, C, h, w), of which `stored` are there. left: rows of which nothing is known yet."""

    number: int
    raw: NDArray[Any]
    rejected: list[Rejection]
    left: int
    erased: bool
    stored: int = 0
    done: int = 0
    content: Any = field(default_factory=hashlib.sha256)
    receipt: Receipt | None = None
    enlarged: Enlarged | None = None

    def count_enlarged(self, shorter: int) -> None:
        before = self.enlarged or Enlarged(0, shorter)
        self.enlarged = Enlarged(before.count + 1, min(before.smallest, shorter))

    def reject(self, row: int, key: str, reason: str) -> None:
        self.rejected.append(Rejection(row, key, reason))
        self.settle()

    def store(self, latents: NDArray[Any]) -> None:
        """latents: (orientations, C, h, w) of the next image."""
        self.raw[self.stored : self.stored + len(latents)] = latents
        self.stored += len(latents)
        self.settle()

    def settle(self) -> None:
        self.left -= 1
        self.done += 1


@dataclass(frozen=True)
class _Item:
    """An image that waits for its latents."""

    part: _Part
    row: int
    key: str
    pixels: NDArray[np.uint8]


class _Stream:
    """Parts of one segment on their way from rows to receipts."""

    def __init__(
        self,
        folder: Folder,
        plan: Plan,
        encoder: BatchEncoder,
        progress: Progress,
        writer: ThreadPoolExecutor | None,
    ):
        self._folder, self._plan, self._encoder, self._progress = folder, plan, encoder, progress
        self._writer, self._reader = writer, RowReader(folder, plan.listing)
        self._parts = dict[int, _Part]()  # under way, oldest first
        self._batch = list[_Item]()
        self._computing = deque[tuple[list[_Item], Pending]]()
        self._writing = deque[Future[Receipt]]()
        self._told: int | None = None

    def run(self, parts: Iterable[int], opener: Opener) -> Iterator[Receipt]:
        """Where images cannot be opened any more, what was opened before is computed and written, then that raises."""
        answers, failure = opener.open(self._chunks(parts, opener.chunk)), None
        while True:
            self._progress.enter("reading")
            try:
                chunk, opened = next(answers)
            except StopIteration:
                break
            except Exception as error:
                failure = error
                break
            self._take(chunk, opened)
            yield from self._written()
        self._flush()
        yield from self._written()
        self._progress.enter("writing")
        while self._writing:
            yield self._writing.popleft().result()
        if failure is not None:
            raise failure

    def _chunks(self, parts: Iterable[int], size: int) -> Iterator[Chunk]:
        """Rows to be opened, with the parts that they belong to begun as they are asked for."""
        for number in parts:
            part, rows = self._begin(number)
            segment = self._plan.listing.place(number).segment
            self._parts[number] = part
            for start in range(0, len(rows), size):
                numbers, listed = zip(*rows[start : start + size], strict=True)
                yield Chunk(number, segment, numbers, listed)

    def _begin(self, number: int) -> tuple[_Part, list[tuple[int, Any]]]:
        receipt = finished(self._folder, self._plan, number)
        if receipt is not None:
            return _Part(number, np.empty(0), [], 0, False, receipt=receipt), []
        encoding, place = self._plan.encoded(), self._plan.listing.place(number)
        erased = self._plan.erased_rows(number)
        listed = list(enumerate(self._reader.part(number), place.first_row))
        rows = [(row, image) for row, image in listed if row not in erased]
        raw = np.empty((len(rows) * encoding.image.orientations, *encoding.raw_shape), encoding.raw_dtype)
        rejected = [Rejection(row, image.key, erased[row]) for row, image in listed if row in erased]
        return _Part(number, raw, rejected, len(rows), bool(erased), done=len(rejected)), rows

    def _take(self, chunk: Chunk, opened: list[Opened]) -> None:
        """Images as they come, into batches."""
        part = self._parts[chunk.part]
        for row, image, one in zip(chunk.numbers, chunk.rows, opened, strict=True):
            part.content.update(one.content)
            if one.pixels is None:
                part.reject(row, image.key, one.reason or "")
            else:
                if one.shorter and one.shorter < self._plan.encoded().image.size:
                    part.count_enlarged(one.shorter)
                self._batch.append(_Item(part, row, image.key, one.pixels))
            if len(self._batch) == self._encoder.batch:
                self._submit()
        if not self._encoder.accelerated and part.left == sum(item.part is part for item in self._batch):
            self._flush()  # a CPU gains nothing from images of the next part, and a part that is done is safe

    def _flush(self) -> None:
        """Compute what is there, and wait for it."""
        if self._batch:
            self._submit()
        while self._computing:
            self._collect()

    def _submit(self) -> None:
        self._progress.enter("computing")
        while len(self._computing) >= self._encoder.in_flight:
            self._collect()
        items, self._batch = self._batch, []
        pending = self._encoder.submit([item.pixels for item in items], [item.key for item in items])
        self._computing.append((items, pending))
        if not self._encoder.accelerated:
            self._collect()

    def _collect(self) -> None:
        """The latents of the oldest batch, into the parts that its images belong to."""
        items, pending = self._computing.popleft()
        for item, latents in zip(items, pending.result(), strict=True):
            if np.isfinite(latents).all():
                item.part.store(latents)
            else:
                item.part.reject(item.row, item.key, "the network's output is not finite")
        self._tell()

    def _tell(self) -> None:
        """Of the oldest part, which is the one at fault where this process dies: parts run alone are told apart."""
        oldest = next(iter(self._parts.values()))
        if oldest.number != self._told:
            self._told = oldest.number
            self._progress.begin(oldest.number)
        self._progress.working(oldest.done)

    def _written(self) -> Iterator[Receipt]:
        """Hand over the parts that are done, oldest first; yield what is written, and all but the last few."""
        while (part := next(iter(self._parts.values()), None)) is not None and part.left == 0:
            self._tell()
            del self._parts[part.number]
            self._writing.append(self._store(part))
        while self._writing and (len(self._writing) > WRITTEN_BEHIND or self._writing[0].done()):
            self._progress.enter("writing")
            yield self._writing.popleft().result()

    def _store(self, part: _Part) -> Future[Receipt]:
        if self._writer is not None and part.receipt is None:
            return self._writer.submit(self._write, part)
        self._progress.enter("writing")
        stored = Future[Receipt]()
        stored.set_result(part.receipt or self._write(part))
        return stored

    def _write(self, part: _Part) -> Receipt:
        there = finished(self._folder, self._plan, part.number)
        if there is not None:  # another attempt was faster; a job that has ended with it is not touched any more
            return there
        rejected = sorted(part.rejected, key=lambda rejection: rejection.row)
        content_sha256 = None if part.erased else part.content.hexdigest()
        if part.enlarged is not None:
            write_enlarged(self._folder, part.number, part.enlarged)
        return write_part(self._folder, self._plan, part.number, part.raw[: part.stored], rejected, content_sha256)
