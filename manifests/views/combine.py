"""The order of a view: every selected latent, with its place in the raw parts, and the statistics of them all.

Groups of parts are folded by whoever is free (`group.py`), then put in a row. Nothing is held for all rows at a time.
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from lvae.manifests import records
from lvae.manifests.errors import LvaeError
from lvae.manifests.parts.plan import Plan
from lvae.manifests.parts.receipts import RECEIPTS, moments_of_raw, read_raw
from lvae.manifests.parts.rows import UNLABELLED
from lvae.manifests.statistics import ChannelMoments, MomentsRecord
from lvae.manifests.storage.folder import FileRecord, Folder
from lvae.manifests.storage.names import Sha256, SplitName
from lvae.manifests.views.group import fold_group, latents_of, longest, rank_group, write_thresholds
from lvae.manifests.views.order import OFFSETS, RAW_HASHES, STARTS
from lvae.manifests.views.order_files import (
    ENTRY,
    FOLD,
    ORDER,
    Fold,
    GroupReceipt,
    entries_file,
    groups_of,
    part_facts,
    parts_file,
    read_group,
)
from lvae.manifests.views.selected_rows import Receipts, needs_ranks, selected_parts
from lvae.manifests.views.selection import Selection

TOTALS = f"{ORDER}/totals.json"


@dataclass(frozen=True)
class Totals:
    """What all groups together give.

    entries_sha256: over row, label and orientation of every split's latents, in source order. receipts: as one file.
    """

    format: Literal["latent-vae-totals"]
    version: Literal[1]
    fold_sha256: Sha256
    counts: dict[SplitName, int]
    entries_sha256: dict[SplitName, Sha256]
    moments: MomentsRecord | None
    receipts: FileRecord


@dataclass(frozen=True)
class Selected:
    """What folding found.

    counts, entries_sha256, receipts: see `Totals`. unmatched_keys: how many of the keys to leave out no image has.
    rejected, latents: of the whole dataset. largest_label: -1 where nothing is labelled. longest_key: the one that
    takes most bytes as JSON. classes: as the view numbers them. rows: the files of rows/. orphans: raw files that no
    receipt names.
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
    receipts: FileRecord
    rows: tuple[FileRecord, ...]
    orphans: tuple[str, ...]


class UnfinishedPartsError(LvaeError):
    """Parts whose receipts are missing, damaged or of another plan."""

    def __init__(self, folder: Folder, parts: tuple[int, ...]):
        super().__init__(folder, f"part {parts[0]} is not finished or damaged", "Run 'lvae encode' again to go on.")
        self.parts = parts


def combine(plan: Plan, fold: Fold, order: Folder) -> Totals:
    """Put the groups in a row. The moments are merged part by part, in order, whoever has folded the groups.

    Some microseconds a part, and the order once through SHA-256: one task, which takes a minute at 10^9 rows.
    """
    splits, groups = fold.splits, groups_of(plan)
    digests, counts = {name: hashlib.sha256() for name in splits}, dict.fromkeys(splits, 0)
    moments = ChannelMoments.empty(plan.encoded().autoencoder.latent_channels)
    kind, starts = part_facts(plan, len(splits)), np.zeros((1 + len(splits), groups + 1), "<i8")
    receipts, receipt_bytes = list[NDArray[np.bytes_]](), 0
    with order.writer() as offsets, order.writer() as hashes:
        for group in range(groups):
            facts = np.frombuffer(order.read(parts_file(group)), kind)
            first = starts[0, group] + np.cumsum(facts["latents"]) - facts["latents"]
            offsets.file.write(first.astype("<i8").tobytes())
            hashes.file.write(facts["raw"].tobytes())
            receipts.append(np.array(facts["receipt"]))
            receipt_bytes += int(facts["receipt_bytes"].sum())
            for fact in facts if fold.statistics else ():
                moments = moments.merge(ChannelMoments(int(fact["values"]), *fact["moments"]))
            for number, name in enumerate(splits):
                selected = facts["selected"][:, number]
                _hash_entries(digests[name], order, entries_file(group, name), selected.tolist())
                counts[name] += int(selected.sum())
                starts[1 + number, group + 1] = counts[name]
            starts[0, group + 1] = starts[0, group] + facts["latents"].sum()
        offsets.file.write(starts[0, groups].tobytes())
        offsets.commit(OFFSETS)
        hashes.commit(RAW_HASHES)
    order.write(STARTS, starts.tobytes())
    every = np.sort(np.concatenate([*receipts, np.empty(0, "S64")]))
    totals = Totals(
        format="latent-vae-totals",
        version=1,
        fold_sha256=fold.sha256,
        counts=counts,
        entries_sha256={name: digest.hexdigest() for name, digest in digests.items()},
        moments=moments.to_record() if moments.count else None,
        receipts=FileRecord(RECEIPTS, receipt_bytes, hashlib.sha256(every.tobytes()).hexdigest()),
    )
    order.write(TOTALS, records.dumps(totals))
    return totals


def _hash_entries(digest: Any, order: Folder, name: str, counts: list[int]) -> None:
    """What a trainer sees of them, part by part: places in the raw parts may change."""
    path, first = order.local(name), 0
    entries = np.memmap(path, ENTRY, "r") if sum(counts) else np.empty(0, ENTRY)
    for count in counts:
        here = entries[first : first + count]
        for field in ("row", "label", "mirrored"):
            digest.update(np.ascontiguousarray(here[field]).tobytes())
        first += count


def read_totals(order: Folder, fold: Fold) -> Totals | None:
    data = order.read_if_there(TOTALS)
    found = None if data is None else records.parse(Totals, data, TOTALS)
    return found if found is not None and found.fold_sha256 == fold.sha256 else None


def require_groups(folder: Folder, plan: Plan, fold: Fold, order: Folder) -> Iterator[GroupReceipt]:
    """The receipts of all groups. UnfinishedPartsError names all parts that are not finished."""
    found = list(order.each(lambda group: read_group(order, fold, group), range(groups_of(plan))))
    whole = [receipt for receipt in found if receipt is not None]
    if len(whole) < len(found):
        raise LvaeError(order, "the order of the view is not finished", "Run the same command again.")
    unfinished = tuple(part for receipt in whole for part in receipt.unfinished)
    if unfinished:
        raise UnfinishedPartsError(folder, unfinished)
    return iter(whole)


def gather_selected(folder: Folder, plan: Plan, fold: Fold, order: Folder) -> Selected:
    """What the groups and their totals say together."""
    totals, selection = read_totals(order, fold), fold.selection
    assert totals is not None
    largest_label, longest_key, rejected, latents = UNLABELLED, "", 0, 0
    met, rows, orphans = set[str](), list[FileRecord](), list[str]()
    for group in require_groups(folder, plan, fold, order):
        largest_label = max(largest_label, group.largest_label)
        longest_key = longest([longest_key, group.longest_key])
        rejected, latents = rejected + group.rejected, latents + group.latents
        met |= set(group.met)
        rows += group.rows
        orphans += group.orphans
    empty = ChannelMoments.empty(plan.encoded().autoencoder.latent_channels)
    return Selected(
        moments=empty if totals.moments is None else totals.moments.to_moments(),
        counts=totals.counts,
        entries_sha256=totals.entries_sha256,
        largest_label=largest_label,
        longest_key=longest_key,
        classes=selection.only_classes if selection.only_classes is not None else plan.listing.classes,
        unmatched_keys=len(selection.without_keys or ()) - len(met),
        rejected=rejected,
        latents=latents,
        receipts=totals.receipts,
        rows=tuple(rows),
        orphans=tuple(orphans),
    )


def begin_fold(fold: Fold, order: Folder) -> Fold:
    """Make way for another order: whatever is there of one goes."""
    order.remove(ORDER)
    order.write(FOLD, records.dumps(fold))
    return fold


def select(
    folder: Folder, plan: Plan, selection: Selection, order: Folder | None = None, statistics: bool = True
) -> Selected:
    """All of it in this process: fold the groups, put them in a row, into `order` where given.

    Without `statistics` raw latents are not asked for, as has to be where they are gone.
    """
    order = order or folder
    fold = begin_fold(Fold(plan.whole_sha256, selection, statistics), order)
    count = groups_of(plan)
    for group in range(count if needs_ranks(selection) else 0):
        rank_group(folder, plan, fold, group, order)
    thresholds = write_thresholds(plan, fold, order)
    for group in range(count):
        fold_group(folder, plan, fold, thresholds, group, order)
    require_groups(folder, plan, fold, order)
    combine(plan, fold, order)
    selected = gather_selected(folder, plan, fold, order)
    check_counts(selected.counts, selection)
    return selected


def regenerate(
    folder: Folder, plan: Plan, selection: Selection, receipts: Receipts
) -> tuple[ChannelMoments, dict[int, ChannelMoments]]:
    """The statistics of a selection from the raw latents themselves: all together, and by label of the view."""
    encoding = plan.encoded()
    empty = ChannelMoments.empty(encoding.autoencoder.latent_channels)
    total, by_label = empty, dict[int, ChannelMoments]()
    for receipt, part in selected_parts(folder, plan, selection, receipts)[1]:
        raw = read_raw(folder, receipt, encoding)
        labels = np.repeat(part.labels, encoding.image.orientations)
        latents = latents_of(part, encoding.image.orientations)
        for label in np.unique(labels):
            moments = moments_of_raw(encoding, raw[latents[labels == label]])
            by_label[int(label)] = by_label.get(int(label), empty).merge(moments)
        whole = len(latents) == receipt.latents
        total = total.merge(moments_of_raw(encoding, raw if whole else raw[latents]))
    return total, by_label


def check_counts(counts: dict[str, int], selection: Selection) -> None:
    for name, count in counts.items():
        if count == 0:
            what = "nothing is selected" if sum(counts.values()) == 0 else f"the split {name!r} is empty"
            raise LvaeError("", str(what), f"Widen the selection ({_sentence(selection)}).")


def _sentence(selection: Selection) -> str:
    told = {name: value for name, value in records.plain(selection).items() if value}
    told.pop("class_map", None)
    return json.dumps(told) if told else "no image of the dataset could be used"
