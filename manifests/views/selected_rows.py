"""Which rows a selection takes, part by part, and on which side of a split each stands.

Memory for one part, whatever the number of rows; sixteen bytes an image where a number of images, not a share, was
asked for.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lvae.manifests.errors import LvaeError
from lvae.manifests.parts.plan import Plan
from lvae.manifests.parts.receipts import Receipt
from lvae.manifests.parts.rows import UNLABELLED, RowReader
from lvae.manifests.storage.folder import Folder
from lvae.manifests.views.selection import Selection, key_hash


@dataclass(frozen=True)
class PartRows:
    """The stored images of a part that pass the filters of classes and keys."""

    images: NDArray[np.int64]  # index among the part's stored images
    rows: NDArray[np.int64]
    labels: NDArray[np.int32]  # as the view numbers them
    keys: list[str]
    stored: int


class Filter:
    """Which images a selection takes, apart from the limit."""

    def __init__(self, plan: Plan, selection: Selection):
        self._without = frozenset(selection.without_keys or ())
        self._unlabelled = selection.unlabelled
        self.met: set[str] = set()  # of the keys to leave out
        classes = plan.listing.classes
        self._labels: NDArray[np.int32] | None = None
        if selection.only_classes is not None and classes is not None:
            self._labels = np.full(len(classes) + 1, UNLABELLED, np.int32)  # the last entry stands for label -1
            for new, name in enumerate(selection.only_classes):
                self._labels[classes.index(name)] = new
        self._everything = selection.only_classes is None and not self._without

    def apply(self, part_keys: pa.ChunkedArray, labels: NDArray[np.int32], receipt: Receipt) -> PartRows:
        keep = np.ones(len(labels), bool)
        keep[[rejection.row - receipt.first_row for rejection in receipt.rejected]] = False
        stored = np.flatnonzero(keep)
        labels = labels[stored]
        keys = part_keys.take(pa.array(stored)).to_pylist()
        images = np.arange(len(stored))
        if not self._everything:
            passes = np.ones(len(stored), bool)
            if self._labels is not None:
                before, labels = labels, self._labels[labels]
                passes &= (labels != UNLABELLED) | ((before == UNLABELLED) & self._unlabelled)
            if self._without:
                self.met |= self._without.intersection(map(key_hash, part_keys.to_pylist()))
                passes &= np.array([key_hash(key) not in self._without for key in keys], bool)
            images = np.flatnonzero(passes)
            labels, keys = labels[images], [keys[index] for index in images]
        return PartRows(images, stored[images] + receipt.first_row, labels, keys, len(stored))


@dataclass(frozen=True)
class Thresholds:
    """Of the key hashes: at most `limit` is in; the first split whose bound is not passed takes an image."""

    limit: np.uint64
    splits: tuple[tuple[str, np.uint64], ...]


def _find_thresholds(selection: Selection, parts: Iterable[PartRows]) -> Thresholds:
    """`parts` is walked only where a number of images asks for it."""
    everything = np.uint64(2**64 - 1)
    shares = sorted((selection.split or {}).items())  # a manifest keeps no other order
    by_count = bool(shares) and not shares[0][1].endswith("%")
    if selection.limit is None and not by_count:
        return Thresholds(everything, _bound_shares(shares))
    limits, splits = [np.empty(0, np.uint64)], [np.empty(0, np.uint64)]
    for part in parts:
        limits.append(_hashes(part.keys, "limit"))
        splits.append(_hashes(part.keys, "split"))
    of_limit, of_split = np.concatenate(limits), np.concatenate(splits)
    limit = everything
    if selection.limit is not None and selection.limit < len(of_limit):
        limit = np.partition(of_limit, selection.limit - 1)[selection.limit - 1]
    if not by_count:
        return Thresholds(limit, _bound_shares(shares))
    ranked = np.sort(of_split[of_limit <= limit])
    bounds, taken = [], 0
    for name, share in shares:
        taken += int(share)
        if taken >= len(ranked):
            raise LvaeError("--split", f"{name}={share} leaves nothing to train on; {len(ranked)} images are selected")
        bounds.append((name, ranked[taken - 1]))
    return Thresholds(limit, tuple(bounds))


def _bound_shares(shares: list[tuple[str, str]]) -> tuple[tuple[str, np.uint64], ...]:
    """Shares of the hash space itself, so that an image never changes sides when others arrive."""
    bounds, taken = [], 0.0
    for name, share in shares:
        taken += float(share.removesuffix("%")) / 100
        if taken >= 1:
            raise LvaeError("--split", "the shares leave nothing to train on")
        bounds.append((name, np.uint64(int(taken * 2**64))))
    return tuple(bounds)


Receipts = Callable[[], Iterable[Receipt]]  # of all parts, in order; called once for every walk


def selected_parts(
    folder: Folder, plan: Plan, selection: Selection, receipts: Receipts
) -> tuple[Filter, Thresholds, Iterator[tuple[Receipt, PartRows]]]:
    """Every part with its selected images."""
    reader = RowReader(folder, plan.listing)
    chosen = Filter(plan, selection)

    def parts() -> Iterator[tuple[Receipt, PartRows]]:
        for receipt in receipts():
            yield receipt, chosen.apply(*reader.keys_and_labels(receipt.part), receipt)

    thresholds = _find_thresholds(selection, (part for _, part in parts()))

    def within_limit() -> Iterator[tuple[Receipt, PartRows]]:
        for receipt, part in parts():
            if selection.limit is None:
                yield receipt, part
            else:
                yield receipt, _keep_only(part, _hashes(part.keys, "limit") <= thresholds.limit)

    return chosen, thresholds, within_limit()


def left_out(folder: Folder, plan: Plan, selection: Selection, receipts: Receipts) -> Iterator[int]:
    """The rows that have latents and that the selection's classes and keys leave out."""
    reader, chosen = RowReader(folder, plan.listing), Filter(plan, selection)
    for receipt in receipts():
        part = chosen.apply(*reader.keys_and_labels(receipt.part), receipt)
        rejected = {rejection.row for rejection in receipt.rejected}
        stored = [row for row in range(receipt.first_row, receipt.first_row + receipt.rows) if row not in rejected]
        yield from sorted(set(stored) - set(part.rows.tolist()))


def _keep_only(part: PartRows, mask: NDArray[np.bool_]) -> PartRows:
    keys = [key for key, keep in zip(part.keys, mask, strict=True) if keep]
    return PartRows(part.images[mask], part.rows[mask], part.labels[mask], keys, part.stored)


def sides_of(keys: list[str], splits: tuple[tuple[str, np.uint64], ...]) -> NDArray[np.int64]:
    """The number of the split an image stands in; the last one is training."""
    if not splits:
        return np.zeros(len(keys), np.int64)
    bounds = np.array([bound for _, bound in splits], np.uint64)
    return np.searchsorted(bounds, _hashes(keys, "split"), side="left")


def _hashes(keys: Iterable[str], purpose: str) -> NDArray[np.uint64]:
    """64 bits a key, independent between purposes."""
    digests = b"".join(hashlib.sha256(f"{purpose}/{key}".encode()).digest()[:8] for key in keys)
    return np.frombuffer(digests, "<u8")
