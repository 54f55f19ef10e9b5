"""Which rows a selection takes, part by part, and on which side of a split each stands.

Memory for one part, whatever the number of rows; sixteen bytes an image where a number of images, not a share, was
asked for.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lvae.manifests.errors import LvaeError
from lvae.manifests.parts.plan import Plan
from lvae.manifests.parts.receipts import Receipt
from lvae.manifests.parts.rows import UNLABELLED, RowReader
from lvae.manifests.storage.folder import Folder
from lvae.manifests.storage.names import SplitName
from lvae.manifests.views.selection import Selection, key_hash

EVERYTHING = 2**64 - 1  # no hash of a key is above it


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

    limit: int
    splits: tuple[tuple[SplitName, int], ...]


class Ranks(NamedTuple):
    """Key hashes of all images that pass the filters: (n,) uint64 each."""

    limit: NDArray[np.uint64]
    split: NDArray[np.uint64]


def needs_ranks(selection: Selection) -> bool:
    """Whether a selection names a number of images, not a share."""
    return selection.limit is not None or any(not share.endswith("%") for share in (selection.split or {}).values())


def find_thresholds(selection: Selection, rank: Callable[[], Ranks]) -> Thresholds:
    """`rank` is called only where a number of images asks for it."""
    shares = sorted((selection.split or {}).items())  # a manifest keeps no other order
    if not needs_ranks(selection):
        return Thresholds(EVERYTHING, _bound_shares(shares))
    of_limit, of_split = rank()
    limit = EVERYTHING
    if selection.limit is not None and selection.limit < len(of_limit):
        limit = int(np.partition(of_limit, selection.limit - 1)[selection.limit - 1])
    if not shares or shares[0][1].endswith("%"):
        return Thresholds(limit, _bound_shares(shares))
    ranked = np.sort(of_split[of_limit <= limit])
    bounds, taken = [], 0
    for name, share in shares:
        taken += int(share)
        if taken >= len(ranked):
            raise LvaeError("--split", f"{name}={share} leaves nothing to train on; {len(ranked)} images are selected")
        bounds.append((name, int(ranked[taken - 1])))
    return Thresholds(limit, tuple(bounds))


def _bound_shares(shares: list[tuple[str, str]]) -> tuple[tuple[str, int], ...]:
    """Shares of the hash space itself, so that an image never changes sides when others arrive."""
    bounds, taken = [], 0.0
    for name, share in shares:
        taken += float(share.removesuffix("%")) / 100
        if taken >= 1:
            raise LvaeError("--split", "the shares leave nothing to train on")
        bounds.append((name, int(taken * 2**64)))
    return tuple(bounds)


Receipts = Callable[[], Iterable[Receipt]]  # of all parts, in order; called once for every walk


def selected_parts(
    folder: Folder, plan: Plan, selection: Selection, receipts: Receipts
) -> tuple[Thresholds, Iterator[tuple[Receipt, PartRows]]]:
    """The bounds of limit and splits, and every part with its selected images."""
    reader = RowReader(folder, plan.listing)
    chosen = Filter(plan, selection)

    def parts() -> Iterator[tuple[Receipt, PartRows]]:
        for receipt in receipts():
            yield receipt, chosen.apply(*reader.keys_and_labels(receipt.part), receipt)

    def rank() -> Ranks:
        limits, splits = [np.empty(0, np.uint64)], [np.empty(0, np.uint64)]
        for _, part in parts():
            limits.append(hash_keys(part.keys, "limit"))
            splits.append(hash_keys(part.keys, "split"))
        return Ranks(np.concatenate(limits), np.concatenate(splits))

    thresholds = find_thresholds(selection, rank)
    return thresholds, ((receipt, keep_within(part, selection, thresholds)) for receipt, part in parts())


def keep_within(part: PartRows, selection: Selection, thresholds: Thresholds) -> PartRows:
    """What the selection's limit leaves of a part."""
    if selection.limit is None:
        return part
    return _keep_only(part, hash_keys(part.keys, "limit") <= np.uint64(thresholds.limit))


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


def sides_of(keys: list[str], splits: tuple[tuple[str, int], ...]) -> NDArray[np.int64]:
    """The number of the split an image stands in; the last one is training."""
    if not splits:
        return np.zeros(len(keys), np.int64)
    bounds = np.array([bound for _, bound in splits], np.uint64)
    return np.searchsorted(bounds, hash_keys(keys, "split"), side="left")


def hash_keys(keys: Iterable[str], purpose: str) -> NDArray[np.uint64]:
    """64 bits a key, independent between purposes."""
    digests = b"".join(hashlib.sha256(f"{purpose}/{key}".encode()).digest()[:8] for key in keys)
    return np.frombuffer(digests, "<u8")
