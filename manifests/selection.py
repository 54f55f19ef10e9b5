"""Selections: which raw latents a view takes, on which side of a split each stands, and the statistics of them all.

`select` walks the parts in order and writes down every selected latent, with its place in the raw parts, its row,
label and orientation, in files that whoever writes shards maps. It takes memory for one part, whatever the number of
rows (and sixteen bytes an image where a number of images, not a share, was asked for).
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lvae.manifests import records
from lvae.manifests.errors import LvaeError
from lvae.manifests.parts import Receipt, moments_of_raw, raw_bytes, read_raw, receipt_name
from lvae.manifests.plan import Plan
from lvae.manifests.rows import UNLABELLED, RowReader
from lvae.manifests.statistics import ChannelMoments
from lvae.manifests.storage import TEMPORARY, Folder, Unfinished

ORDER = f"{TEMPORARY}/order"
OFFSETS = f"{ORDER}/offsets"  # int64: the first raw latent of every part, and the end
RAW_HASHES = f"{ORDER}/raw"  # eight characters a part: what its raw file's name carries
TRAIN = "train"
ESCAPED = {'"', "\\"}  # in JSON, of printable ASCII

# One selected latent: its index among all raw latents in part order, its image's row, its label and orientation.
ENTRY = np.dtype([("raw", "<i8"), ("row", "<i8"), ("label", "<i4"), ("mirrored", "?")])


def entries_file(split: str) -> str:
    """ENTRY records of one split, in source order."""
    return f"{ORDER}/{split}.entries"


@dataclass(frozen=True)
class Selection:
    """What a view takes of a dataset.

    only_classes: class names, renumbered in this order; class_map says which number each has. unlabelled: whether
        unlabelled images stay beside them.
    without_keys: hashes of the keys left out (see `key_hash`): the names themselves need not be kept.
    limit: so many images, a fair sample by a hash of the key.
    split: beside "train": so many images ("5000") or a share ("5%"), by a hash of the key.
    """

    only_classes: tuple[str, ...] | None = None
    class_map: dict[str, int] | None = None
    unlabelled: bool = False
    without_keys: tuple[str, ...] | None = None
    limit: int | None = None
    split: dict[str, str] | None = None

    @property
    def everything(self) -> bool:
        return self.only_classes is None and self.without_keys is None and self.limit is None


@dataclass(frozen=True)
class Selected:
    """What `select` found.

    counts: latents by split. entries_sha256: over row, label and orientation of every split's latents, in source order.
    unmatched_keys: how many of the keys to leave out no image has. rejected, latents: of the whole dataset.
    largest_label: -1 where nothing is labelled. longest_key: the one that takes most bytes as JSON. classes: as the
    view numbers them.
    """

    moments: ChannelMoments
    counts: dict[str, int]
    entries_sha256: dict[str, str]
    largest_label: int
    longest_key: str
    classes: tuple[str, ...] | None
    unmatched_keys: int
    rejected: int
    latents: int


def key_hash(key: str) -> str:
    """How `without_keys` names a key: the first 16 hexadecimal digits of its SHA-256."""
    return hashlib.sha256(key.encode()).hexdigest()[:16]


def resolve_selection(
    classes: tuple[str, ...] | None,
    only_classes: Iterable[str] | None = None,
    without_keys: Iterable[str] | None = None,
    limit: int | None = None,
    split: dict[str, str] | None = None,
    without_classes: Iterable[str] | None = None,
) -> Selection:
    """A selection checked against the classes there are."""
    if only_classes is not None and without_classes is not None:
        raise LvaeError("--only-classes and --without-classes: give one of them.")
    chosen = _known("--only-classes", only_classes, classes) if only_classes is not None else None
    if without_classes is not None:
        gone = _known("--without-classes", without_classes, classes)
        chosen = tuple(name for name in classes or () if name not in gone)
    for name, share in (split or {}).items():
        _check_split(name, share)
    if split and len({share.endswith("%") for share in split.values()}) > 1:
        raise LvaeError("--split: give numbers of images or shares, not both.")
    if limit is not None and limit < 1:
        raise LvaeError("--limit: must be at least 1.")
    hashes = tuple(sorted({key_hash(key) for key in without_keys})) if without_keys is not None else None
    class_map = {name: index for index, name in enumerate(chosen)} if chosen is not None else None
    unlabelled = without_classes is not None
    return Selection(chosen, class_map, unlabelled, hashes or None, limit, split or None)


def _known(option: str, chosen: Iterable[str], classes: tuple[str, ...] | None) -> tuple[str, ...]:
    names = tuple(chosen)
    if not names:
        raise LvaeError(f"{option}: names no class.")
    for name in names:
        if classes is None or name not in classes:
            known = ", ".join(classes[:20]) if classes else "none"
            raise LvaeError(f"{option}: there is no class {name!r}. The dataset's classes: {known}.")
    if len(set(names)) != len(names):
        raise LvaeError(f"{option}: a class is named twice.")
    return names


def _check_split(name: str, share: str) -> None:
    number = share.removesuffix("%")
    try:
        value = float(number) if share.endswith("%") else int(number)
    except ValueError:
        value = 0
    if not name.isidentifier() or name == TRAIN or not value > 0 or (share.endswith("%") and not value < 100):
        given = f"{name}={share}" if share else name
        raise LvaeError(f"--split: {given} cannot be read. Write val=5000 or val=5%.")


def _hashes(keys: Iterable[str], purpose: str) -> NDArray[np.uint64]:
    """64 bits a key, independent between purposes."""
    digests = b"".join(hashlib.sha256(f"{purpose}/{key}".encode()).digest()[:8] for key in keys)
    return np.frombuffer(digests, "<u8")


@dataclass(frozen=True)
class _PartRows:
    """The stored images of a part that pass the filters of classes and keys."""

    images: NDArray[np.int64]  # index among the part's stored images
    rows: NDArray[np.int64]
    labels: NDArray[np.int32]  # as the view numbers them
    keys: list[str]
    stored: int


class _Filter:
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

    def apply(self, part_keys: pa.ChunkedArray, labels: NDArray[np.int32], receipt: Receipt) -> _PartRows:
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
        return _PartRows(images, stored[images] + receipt.first_row, labels, keys, len(stored))


@dataclass(frozen=True)
class _Thresholds:
    """Of the key hashes: at most `limit` is in; the first split whose bound is not passed takes an image."""

    limit: np.uint64
    splits: tuple[tuple[str, np.uint64], ...]


def _thresholds(selection: Selection, parts: Iterable[_PartRows]) -> _Thresholds:
    """`parts` is walked only where a number of images asks for it."""
    everything = np.uint64(2**64 - 1)
    shares = sorted((selection.split or {}).items())  # a manifest keeps no other order
    by_count = bool(shares) and not shares[0][1].endswith("%")
    if selection.limit is None and not by_count:
        return _Thresholds(everything, _bounds_of_shares(shares))
    limits, splits = [np.empty(0, np.uint64)], [np.empty(0, np.uint64)]
    for part in parts:
        limits.append(_hashes(part.keys, "limit"))
        splits.append(_hashes(part.keys, "split"))
    of_limit, of_split = np.concatenate(limits), np.concatenate(splits)
    limit = everything
    if selection.limit is not None and selection.limit < len(of_limit):
        limit = np.partition(of_limit, selection.limit - 1)[selection.limit - 1]
    if not by_count:
        return _Thresholds(limit, _bounds_of_shares(shares))
    ranked = np.sort(of_split[of_limit <= limit])
    bounds, taken = [], 0
    for name, share in shares:
        taken += int(share)
        if taken >= len(ranked):
            raise LvaeError(f"--split: {name}={share} leaves nothing to train on; {len(ranked)} images are selected.")
        bounds.append((name, ranked[taken - 1]))
    return _Thresholds(limit, tuple(bounds))


def _bounds_of_shares(shares: list[tuple[str, str]]) -> tuple[tuple[str, np.uint64], ...]:
    """Shares of the hash space itself, so that an image never changes sides when others arrive."""
    bounds, taken = [], 0.0
    for name, share in shares:
        taken += float(share.removesuffix("%")) / 100
        if taken >= 1:
            raise LvaeError("--split: the shares leave nothing to train on.")
        bounds.append((name, np.uint64(int(taken * 2**64))))
    return tuple(bounds)


class _EntryFile:
    """The entries of one split, appended part by part: memory for one part, whatever the number of rows."""

    def __init__(self, unfinished: Unfinished):
        self.unfinished = unfinished
        self.count = 0
        self.sha256 = hashlib.sha256()  # of what a trainer sees: places in the raw parts may change

    def append(self, entries: NDArray[np.void]) -> None:
        self.unfinished.file.write(entries.tobytes())
        for name in ("row", "label", "mirrored"):
            self.sha256.update(np.ascontiguousarray(entries[name]).tobytes())
        self.count += len(entries)


Receipts = Callable[[], Iterable[Receipt]]  # of all parts, in order; called once for every walk


def _selected_parts(
    folder: Folder, plan: Plan, selection: Selection, receipts: Receipts
) -> tuple[_Filter, _Thresholds, Iterator[tuple[Receipt, _PartRows]]]:
    """Every part with its selected images."""
    reader = RowReader(folder, plan.listing)
    chosen = _Filter(plan, selection)

    def parts() -> Iterator[tuple[Receipt, _PartRows]]:
        for receipt in receipts():
            yield receipt, chosen.apply(*reader.keys_and_labels(receipt.part), receipt)

    thresholds = _thresholds(selection, (part for _, part in parts()))

    def within_limit() -> Iterator[tuple[Receipt, _PartRows]]:
        for receipt, part in parts():
            if selection.limit is None:
                yield receipt, part
            else:
                yield receipt, _only(part, _hashes(part.keys, "limit") <= thresholds.limit)

    return chosen, thresholds, within_limit()


def select(
    folder: Folder, plan: Plan, selection: Selection, receipts: Receipts, order: Folder | None = None, raw: bool = True
) -> Selected:
    """Walk the parts in order; write the order files, into `order` where given; fold the statistics.

    The moments are merged in part order: a part taken whole gives its receipt's, any other is read again. Without
    `raw` they are left out, as they have to be where raw parts are gone.
    """
    encoding, order = plan.encoded(), order or folder
    chosen, thresholds, parts = _selected_parts(folder, plan, selection, receipts)
    names = [name for name, _ in thresholds.splits] + [TRAIN]
    orientations = encoding.image.orientations
    moments = ChannelMoments.empty(encoding.autoencoder.latent_channels)
    longest_key, largest_label, offset, rejected = "", UNLABELLED, 0, 0
    with ExitStack() as stack:
        offsets, hashes = stack.enter_context(order.writer()), stack.enter_context(order.writer())
        files = {name: _EntryFile(stack.enter_context(order.writer())) for name in names}
        for receipt, part in parts:
            if raw:
                _check_size(folder, plan, receipt)
                moments = moments.merge(_part_moments(folder, plan, receipt, part))
            largest_label = int(part.labels.max(initial=largest_label))
            longest_key = max(longest_key, _longest(part.keys), key=_json_bytes)
            entries = _entries(part, offset, orientations)
            side = np.repeat(_sides(part.keys, thresholds.splits), orientations)
            for number, name in enumerate(names):
                files[name].append(entries[side == number])
            offsets.file.write(np.int64(offset).tobytes())
            hashes.file.write(receipt.raw.sha256[:8].encode())
            offset += receipt.latents
            rejected += len(receipt.rejected)
        offsets.file.write(np.int64(offset).tobytes())
        offsets.commit(OFFSETS)
        hashes.commit(RAW_HASHES)
        for name, file in files.items():
            file.unfinished.commit(entries_file(name))
        counts = {name: file.count for name, file in files.items()}
    _check_counts(counts, selection)
    classes = selection.only_classes if selection.only_classes is not None else plan.listing.classes
    return Selected(
        moments,
        counts,
        {name: file.sha256.hexdigest() for name, file in files.items()},
        largest_label,
        longest_key,
        classes,
        len(selection.without_keys or ()) - len(chosen.met),
        rejected,
        offset,
    )


def left_out(folder: Folder, plan: Plan, selection: Selection, receipts: Receipts) -> Iterator[int]:
    """The rows that have latents and that the selection's classes and keys leave out."""
    reader, chosen = RowReader(folder, plan.listing), _Filter(plan, selection)
    for receipt in receipts():
        part = chosen.apply(*reader.keys_and_labels(receipt.part), receipt)
        rejected = {rejection.row for rejection in receipt.rejected}
        stored = [row for row in range(receipt.first_row, receipt.first_row + receipt.rows) if row not in rejected]
        yield from sorted(set(stored) - set(part.rows.tolist()))


def regenerate(
    folder: Folder, plan: Plan, selection: Selection, receipts: Receipts
) -> tuple[ChannelMoments, dict[int, ChannelMoments]]:
    """The statistics of a selection from the raw latents themselves: all together, and by label of the view."""
    encoding = plan.encoded()
    empty = ChannelMoments.empty(encoding.autoencoder.latent_channels)
    total, by_label = empty, dict[int, ChannelMoments]()
    for receipt, part in _selected_parts(folder, plan, selection, receipts)[2]:
        raw = read_raw(folder, receipt, encoding)
        labels = np.repeat(part.labels, encoding.image.orientations)
        latents = _latents_of(part, encoding.image.orientations)
        for label in np.unique(labels):
            moments = moments_of_raw(encoding, raw[latents[labels == label]])
            by_label[int(label)] = by_label.get(int(label), empty).merge(moments)
        whole = len(latents) == receipt.latents
        total = total.merge(moments_of_raw(encoding, raw if whole else raw[latents]))
    return total, by_label


def _latents_of(part: _PartRows, orientations: int) -> NDArray[np.int64]:
    """The places of a part's selected latents in its raw file."""
    return (part.images[:, None] * orientations + np.arange(orientations)).ravel()


def _json_bytes(key: str) -> int:
    return len(json.dumps(key))


def _longest(keys: list[str]) -> str:
    """The first of those that take most bytes as JSON; "" of none."""
    text = "".join(keys)
    plain = text.isascii() and text.isprintable() and not ESCAPED & set(text)
    return max(keys, key=len if plain else _json_bytes, default="")


def _only(part: _PartRows, mask: NDArray[np.bool_]) -> _PartRows:
    keys = [key for key, keep in zip(part.keys, mask, strict=True) if keep]
    return _PartRows(part.images[mask], part.rows[mask], part.labels[mask], keys, part.stored)


def _entries(part: _PartRows, offset: int, orientations: int) -> NDArray[np.void]:
    """Image, mirror, image, mirror, ...: as they lie in the raw part."""
    entries = np.empty(len(part.images) * orientations, ENTRY)
    for orientation in range(orientations):
        view = entries[orientation::orientations]
        view["raw"] = offset + part.images * orientations + orientation
        view["row"], view["label"], view["mirrored"] = part.rows, part.labels, orientation == 1
    return entries


def _sides(keys: list[str], splits: tuple[tuple[str, np.uint64], ...]) -> NDArray[np.int64]:
    """The number of the split an image stands in; the last one is training."""
    if not splits:
        return np.zeros(len(keys), np.int64)
    bounds = np.array([bound for _, bound in splits], np.uint64)
    return np.searchsorted(bounds, _hashes(keys, "split"), side="left")


def _check_size(folder: Folder, plan: Plan, receipt: Receipt) -> None:
    """Whoever reads single rows takes them from where they lie in a file of this size."""
    size = raw_bytes(plan.encoded(), receipt.latents)
    if receipt.raw.bytes != size:
        raise LvaeError(
            f"{folder.place(receipt.raw.path)}: has {receipt.raw.bytes} bytes, and {receipt.latents} latents take "
            f"{size}. Remove {receipt_name(receipt.part)} and run 'lvae encode' again."
        )


def _part_moments(folder: Folder, plan: Plan, receipt: Receipt, part: _PartRows) -> ChannelMoments:
    encoding = plan.encoded()
    empty = ChannelMoments.empty(encoding.autoencoder.latent_channels)
    if len(part.images) == part.stored:
        return receipt.moments.to_moments() if receipt.moments else empty
    if not len(part.images):
        return empty
    raw = read_raw(folder, receipt, encoding)
    return moments_of_raw(encoding, raw[_latents_of(part, encoding.image.orientations)])


def _check_counts(counts: dict[str, int], selection: Selection) -> None:
    for name, count in counts.items():
        if count == 0:
            what = "nothing is selected" if sum(counts.values()) == 0 else f"the split {name!r} is empty"
            raise LvaeError(f"{what}. Widen the selection ({_sentence(selection)}).")


def _sentence(selection: Selection) -> str:
    told = {name: value for name, value in records.plain(selection).items() if value}
    told.pop("class_map", None)
    return json.dumps(told) if told else "no image of the dataset could be used"
