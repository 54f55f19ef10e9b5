"""The rows of a cache, written down as a segment of a dataset or found to be one that is there."""

from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lvae.encode.sources.labels import apply_labels, read_labels
from lvae.encode.sources.reading.random_access import Containers
from lvae.manifests.errors import LvaeError
from lvae.manifests.parts.listing_hash import ListingHash
from lvae.manifests.parts.plan import Plan
from lvae.manifests.parts.rows import ImageRow, RowReader, Segment, write_rows
from lvae.manifests.storage.folder import Folder
from lvae.pipeline.exchange.caches import arrays
from lvae.pipeline.exchange.caches.cache import Cache, Labelled

PART_BYTES = 32 << 20  # of stored numbers in one part


@dataclass(frozen=True)
class ListingOptions:
    """labels: a file of labels by key, or an .npy of one a row. prefix: of every key. append: to what is there."""

    labels: Path | None = None
    prefix: str = ""
    append: bool = False


class CacheRows:
    """The rows of a cache with labels and keys as asked; to be walked once. `classes` is final then."""

    def __init__(self, cache: Cache, options: ListingOptions):
        self._cache, self._options = cache, options
        self.classes: tuple[str, ...] | None = None
        self._hashes = array("q")

    def __iter__(self) -> Iterator[ImageRow]:
        rows, labels = self._cache.rows(), self._options.labels
        prefix = self._options.prefix
        if prefix:
            rows = (row._replace(key=prefix + row.key) for row in rows)
        if labels is None:
            yield from self._noted(rows)
            self.classes = self._cache.classes
        elif labels.suffix.lower() == ".npy":
            yield from self._noted(self._numbered(rows, labels))
        else:
            found = read_labels(labels)
            yield from self._noted(apply_labels(rows, found))
            largest = max(found.by_key.values(), default=-1)
            self.classes = found.classes or (tuple(map(str, range(largest + 1))) or None)

    def _numbered(self, rows: Iterator[ImageRow], path: Path) -> Iterator[ImageRow]:
        (labels,) = arrays.read_arrays(path, Containers(""))
        if not labels.is_label:
            raise LvaeError(path, "holds no labels")
        found = Labelled.of(arrays.read_labels(labels), labels.shape[0], str(path))
        self.classes, count = found.classes, 0
        for row in rows:
            if count >= len(found.labels):
                raise LvaeError(path, f"has {len(found.labels)} labels, and the cache more latents")
            yield row._replace(label=int(found.labels[count]))
            count += 1
        if count < len(found.labels):
            raise LvaeError(path, f"has {len(found.labels)} labels for {count} latents")

    def _noted(self, rows: Iterator[ImageRow]) -> Iterator[ImageRow]:
        for row in rows:
            if not row.key.isascii():
                self._check_text(row.key)
            self._hashes.append(hash(row.key))
            yield row

    def _check_text(self, key: str) -> None:
        try:
            key.encode()
        except UnicodeEncodeError:
            raise LvaeError(self._cache.location, f"{key!r:.200} is no UTF-8", "Rename the file.") from None

    def refuse_repeated(self, folder: Folder, plan: Plan | None) -> None:
        """LvaeError where a key stands twice, here or in the dataset."""
        hashes = [np.frombuffer(self._hashes, np.int64)]
        if plan is not None:
            reader = RowReader(folder, plan.listing)
            hashes += [
                np.fromiter(map(hash, reader.keys(part).to_pylist()), np.int64) for part in range(plan.listing.parts)
            ]
        every = np.concatenate(hashes)
        if len(np.unique(every)) != len(every):
            where = "in the dataset and the cache" if plan is not None else "in the cache"
            raise LvaeError(self._cache.location, f"keys stand twice {where}", "Say --prefix TEXT for the new ones.")


def part_size_for(cache: Cache) -> int:
    """Rows in a part: a power of two, so that a part stays small beside the memory of any machine."""
    channels, height, width = cache.shape
    size = PART_BYTES // (channels * height * width * 4 * cache.orientations)
    return 1 << max(0, size.bit_length() - 1)


def write_segment(folder: Folder, cache: Cache, kind: str, options: ListingOptions, plan: Plan | None) -> Segment:
    """List a cache behind what a dataset has. The plan is not yet written."""
    rows, part_size = CacheRows(cache, options), part_size_for(cache)
    first_file = 0 if plan is None else len(plan.listing.files)
    images, sha256 = write_rows(folder, rows, part_size, first_file)
    rows.refuse_repeated(folder, plan)
    return Segment(kind, images, sha256, part_size, rows.classes)


def find_segment(plan: Plan, cache: Cache, kind: str, options: ListingOptions) -> int | None:
    """Which segment of a dataset this cache is; None where it is none of them."""
    rows, digest, count = CacheRows(cache, options), ListingHash(), 0
    batch: list[ImageRow] = []
    for row in rows:
        batch.append(row)
        count += 1
        if len(batch) == 1024:
            digest.update(batch)
            batch = []
    digest.update(batch)
    wanted = (kind, count, digest.hexdigest(), rows.classes)
    for number, segment in enumerate(plan.listing.segments):
        if (segment.kind, segment.images, segment.sha256, segment.classes) == wanted:
            return number
    return None
