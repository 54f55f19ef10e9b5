"""A group: 1,024 parts whose receipts are folded together by whoever is free, for `combine.py` to put in a row.

What a group gives is a function of its parts, the plan and the selection alone. Its receipt is written last, and only
where there is none: the first complete one stays.
"""

import json
from contextlib import ExitStack
from functools import partial

import numpy as np
from numpy.typing import NDArray

from lvae.manifests import records
from lvae.manifests.errors import LvaeError
from lvae.manifests.parts.plan import Plan
from lvae.manifests.parts.receipts import (
    Receipt,
    finished_with_record,
    group_of,
    moments_of_raw,
    orphans_of_group,
    raw_bytes,
    read_raw,
    receipt_name,
)
from lvae.manifests.parts.rows import UNLABELLED, RowReader
from lvae.manifests.statistics import ChannelMoments
from lvae.manifests.storage.folder import FileRecord, Folder, Unfinished
from lvae.manifests.views.order_files import (
    ENTRY,
    THRESHOLDS,
    Fold,
    GroupReceipt,
    entries_file,
    group_receipt_name,
    groups_of,
    key_ends_file,
    keys_file,
    part_facts,
    parts_file,
    parts_of_group,
    ranks_file,
    rejected_file,
)
from lvae.manifests.views.selected_rows import (
    Filter,
    PartRows,
    Ranks,
    Thresholds,
    find_thresholds,
    hash_keys,
    keep_within,
    sides_of,
)

ESCAPED = {'"', "\\"}  # in JSON, of printable ASCII


def rank_group(folder: Folder, plan: Plan, fold: Fold, group: int, order: Folder) -> None:
    """Hashes of the keys that pass the filters, where the selection names a number of images."""
    reader, chosen = RowReader(folder, plan.listing), Filter(plan, fold.selection)
    limits, splits = [np.empty(0, np.uint64)], [np.empty(0, np.uint64)]
    for part in parts_of_group(plan, group):
        found = finished_with_record(folder, plan, part, fold.statistics)
        if found is None:
            continue  # told by `fold_group`
        rows = chosen.apply(*reader.keys_and_labels(part), found[0])
        limits.append(hash_keys(rows.keys, "limit"))
        splits.append(hash_keys(rows.keys, "split"))
    order.write(ranks_file(group), np.stack([np.concatenate(limits), np.concatenate(splits)]).tobytes())


def read_ranks(order: Folder, groups: int) -> Ranks:
    found = [np.frombuffer(order.read(ranks_file(group)), "<u8").reshape(2, -1) for group in range(groups)]
    both = np.concatenate(found, axis=1)
    return Ranks(both[0], both[1])


def write_thresholds(plan: Plan, fold: Fold, order: Folder) -> Thresholds:
    """Which hashes of keys are in: from the ranks of all groups, where the selection asks for them."""
    found = find_thresholds(fold.selection, lambda: read_ranks(order, groups_of(plan)))
    order.write(THRESHOLDS, records.dumps(found))
    return found


class _SplitFiles:
    """The entries and keys of one split, appended part by part: memory for one part, whatever the number of rows."""

    def __init__(self, entries: Unfinished, keys: Unfinished, ends: Unfinished):
        self._entries, self._keys, self._ends = entries, keys, ends
        self.count = 0

    def append(self, entries: NDArray[np.void], keys: list[str]) -> None:
        """The next entries, and the keys of their images."""
        self._entries.file.write(entries.tobytes())
        self.count += len(entries)
        texts = [key.encode() for key in keys]
        ends = self._keys.file.bytes + np.cumsum([len(text) for text in texts], dtype="<i8")
        self._keys.file.write(b"".join(texts))
        self._ends.file.write(ends.tobytes())

    def commit(self, group: int, split: str) -> None:
        self._entries.commit(entries_file(group, split))
        self._keys.commit(keys_file(group, split))
        self._ends.commit(key_ends_file(group, split))


def fold_group(
    folder: Folder, plan: Plan, fold: Fold, thresholds: Thresholds, group: int, order: Folder
) -> GroupReceipt:
    """Walk a group's parts in order; write its files, then its receipt.

    A part that is taken whole gives the moments of its receipt; of any other the raw latents are read again.
    """
    parts = parts_of_group(plan, group)
    found = list(folder.each(partial(_look, folder, plan, fold.statistics), parts))
    there = [one for one in found if one is not None]
    if len(there) < len(parts):
        missing = tuple(part for part, one in zip(parts, found, strict=True) if one is None)
        return _sign(order, GroupReceipt("latent-vae-group", 1, fold.sha256, group, missing))
    reader, chosen = RowReader(folder, plan.listing), Filter(plan, fold.selection)
    splits, orientations = fold.splits, plan.encoded().image.orientations
    facts = np.zeros(len(parts), part_facts(plan, len(splits)))
    longest_key, largest_label, offset, rejected = "", UNLABELLED, 0, 0
    with ExitStack() as stack:
        lines = stack.enter_context(order.writer())
        files = {name: _SplitFiles(*(stack.enter_context(order.writer()) for _ in range(3))) for name in splits}
        for fact, (receipt, record) in zip(facts, there, strict=True):
            rows = chosen.apply(*reader.keys_and_labels(receipt.part), receipt)
            rows = keep_within(rows, fold.selection, thresholds)
            if fold.statistics:
                _check_size(folder, plan, receipt)
                moments = _part_moments(folder, plan, receipt, rows)
                fact["values"], fact["moments"] = moments.count, moments.arrays
            fact["latents"], fact["raw"] = receipt.latents, receipt.raw.sha256[:8]
            fact["receipt_bytes"], fact["receipt"] = record.bytes, record.sha256
            largest_label = int(rows.labels.max(initial=largest_label))
            longest_key = longest([longest_key, longest(rows.keys)])
            entries, side = _entries(rows, offset, orientations), sides_of(rows.keys, thresholds.splits)
            for number, name in enumerate(splits):
                mine = side == number
                keys = rows.keys if mine.all() else [rows.keys[image] for image in np.flatnonzero(mine).tolist()]
                files[name].append(entries[np.repeat(mine, orientations)], keys)
                fact["selected"][number] = len(keys) * orientations
            for rejection in receipt.rejected:
                lines.file.write(records.line(rejection))
            offset += receipt.latents
            rejected += len(receipt.rejected)
        for name, file in files.items():
            file.commit(group, name)
        lines.commit(rejected_file(group))
    order.write(parts_file(group), facts.tobytes())
    signed = GroupReceipt(
        format="latent-vae-group",
        version=1,
        fold_sha256=fold.sha256,
        group=group,
        unfinished=(),
        latents=offset,
        rejected=rejected,
        counts={name: file.count for name, file in files.items()},
        met=tuple(sorted(chosen.met)),
        largest_label=largest_label,
        longest_key=longest_key,
        rows=tuple(folder.each(folder.record, _row_files(plan, group))),
        orphans=tuple(orphans_of_group(folder, plan, group, {one.raw.path for one, _ in there})),
    )
    return _sign(order, signed)


def _look(folder: Folder, plan: Plan, raw: bool, part: int) -> tuple[Receipt, FileRecord] | None:
    return finished_with_record(folder, plan, part, raw)


def _sign(order: Folder, receipt: GroupReceipt) -> GroupReceipt:
    """The first receipt stays; whoever comes later has left the same files."""
    name, data = group_receipt_name(receipt.group), records.dumps(receipt)
    if not order.create(name, data):
        there = order.read(name)
        if records.parse(GroupReceipt, there, name).fold_sha256 != receipt.fold_sha256:
            raise LvaeError(order.place(name), "is of another job", "Run the same command again to go on.")
    return receipt


def _row_files(plan: Plan, group: int) -> list[str]:
    """The Parquet files whose first part is in this group: each is of exactly one."""
    listing = plan.listing
    places = ((part, listing.place(part)) for part in parts_of_group(plan, group))
    return [place.file for part, place in places if place.group == 0 and group_of(part) == group]


def latents_of(part: PartRows, orientations: int) -> NDArray[np.int64]:
    """The places of a part's selected latents in its raw file."""
    return (part.images[:, None] * orientations + np.arange(orientations)).ravel()


def json_bytes(key: str) -> int:
    return len(json.dumps(key))


def longest(keys: list[str]) -> str:
    """The first of those that take most bytes as JSON; "" of none."""
    text = "".join(keys)
    plain = text.isascii() and text.isprintable() and not ESCAPED & set(text)
    return max(keys, key=len if plain else json_bytes, default="")


def _entries(part: PartRows, offset: int, orientations: int) -> NDArray[np.void]:
    """Image, mirror, image, mirror, ...: as they lie in the raw part."""
    entries = np.empty(len(part.images) * orientations, ENTRY)
    for orientation in range(orientations):
        view = entries[orientation::orientations]
        view["raw"] = offset + part.images * orientations + orientation
        view["row"], view["label"], view["mirrored"] = part.rows, part.labels, orientation == 1
    return entries


def _check_size(folder: Folder, plan: Plan, receipt: Receipt) -> None:
    """Whoever reads single rows takes them from where they lie in a file of this size."""
    size = raw_bytes(plan.encoded(), receipt.latents)
    if receipt.raw.bytes != size:
        raise LvaeError(
            f"{folder.place(receipt.raw.path)}",
            f"has {receipt.raw.bytes} bytes, and {receipt.latents} latents take {size}",
            f"Remove {receipt_name(receipt.part)} and run 'lvae encode' again.",
        )


def _part_moments(folder: Folder, plan: Plan, receipt: Receipt, part: PartRows) -> ChannelMoments:
    encoding = plan.encoded()
    empty = ChannelMoments.empty(encoding.autoencoder.latent_channels)
    if len(part.images) == part.stored:
        return receipt.moments.to_moments() if receipt.moments else empty
    if not len(part.images):
        return empty
    raw = read_raw(folder, receipt, encoding)
    return moments_of_raw(encoding, raw[latents_of(part, encoding.image.orientations)])
