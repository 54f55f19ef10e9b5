"""Are the shards what the manifest says, and what the raw parts give?"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from tempfile import TemporaryDirectory

import numpy as np

from lvae.manifests import records
from lvae.manifests.dataset import Dataset
from lvae.manifests.errors import Fault, LvaeError
from lvae.manifests.manifest import MANIFEST, FileEntry, Manifest, view_settings
from lvae.manifests.parts.plan import Plan
from lvae.manifests.parts.receipts import RECEIPTS, REJECTED
from lvae.manifests.parts.rows import ListingHash, RowReader
from lvae.manifests.publishing.publish import INLINE_FILES, statistics_record
from lvae.manifests.shards.formats import codec
from lvae.manifests.shards.index import Shard, files_index_name, read_files_index, read_index
from lvae.manifests.shards.layout import SplitLayout, SplitReader
from lvae.manifests.statistics import Normalization
from lvae.manifests.storage.folder import FileRecord, Folder
from lvae.manifests.verify.shard_statistics import blocks, moments_from_shards, shard_tolerance
from lvae.manifests.views.combine import Selected, select
from lvae.manifests.views.gather import shard_content
from lvae.manifests.views.view import (
    ShardReceipt,
    ViewPlan,
    ViewSettings,
    plan_view,
    read_view,
    shard_entry,
    shard_receipt_name,
    view_file,
    view_id,
)


def shard_faults(folder: Folder, manifest: Manifest, deep: bool, progress: Callable[[str], None]) -> Iterator[Fault]:
    try:
        view = read_view(folder, manifest.view.name)
    except LvaeError as error:
        yield Fault(f"shards/{manifest.view.name}/view.json", error.problem)
        return
    entry_name = view_file(manifest.view.name)
    entry = manifest.files.get(entry_name)
    if entry is not None and folder.sha256(entry_name) != entry.sha256:
        if not deep:  # the deep look has named it
            yield Fault(
                f"shards/{manifest.view.name}/view.json", "its bytes are not those that were written (checksum)"
            )
        return  # what it says of the shards is not to be trusted
    if (view.name, view.settings) != (manifest.view.name, view_settings(manifest)):
        yield Fault(MANIFEST, "view is not what the view says")
        return
    if set(view.layouts) != set(manifest.splits):
        yield Fault(MANIFEST, "its splits are not those of the view")
        return
    for split, layout in view.layouts.items():
        progress(f"shards of {split}")
        claimed = manifest.splits[split]
        if layout.count != claimed.count:
            yield Fault(MANIFEST, f"splits.{split}.count is not what the view says")
        if layout.shards != claimed.shards:
            yield Fault(MANIFEST, f"splits.{split}.shards is {claimed.shards}, and the view says {layout.shards}")
        if manifest.files.get(claimed.index.path) != FileEntry(claimed.index.bytes, claimed.index.sha256):
            yield Fault(MANIFEST, f"files does not name {claimed.index.path} as splits.{split} does")
        yield from _listed_shards(folder, manifest, layout, deep)
        for problem in codec(view.settings.format).check(folder, view.name, layout):
            yield Fault(f"shards/{view.name}", problem)
    if view.normalization != manifest.normalization:
        yield Fault(MANIFEST, "normalization is not what the view was written with")
    if deep:
        yield from _labels_and_numbers(folder, manifest, view)


def _listed_shards(folder: Folder, manifest: Manifest, layout: SplitLayout, deep: bool) -> Iterator[Fault]:
    """Every file of a split's shards against the index, and the index against the shards' receipts.

    Where the index is damaged, what the receipts say takes its place.
    """
    index = manifest.splits[layout.split].index
    listed: Iterator[Shard] | None = None
    try:
        listed = read_index(folder, index)
    except LvaeError as error:
        yield Fault(index.path, error.problem)
    for number in range(layout.shards):
        told, problem = _told_by_receipt(folder, manifest, layout, number)
        try:
            entry = told if listed is None else next(listed, None)
        except LvaeError as error:
            yield Fault(index.path, error.problem)
            return
        if listed is not None and entry is None:
            yield Fault(index.path, f"lists {number} of {layout.shards} shards")
            return
        if problem:
            name = shard_receipt_name(manifest.view.name, layout.split, number)
            yield Fault(name, problem, split=layout.split, shard=number)
        for record in entry.files if entry is not None else ():
            for fault in file_faults(folder, record, deep):
                yield replace(fault, split=layout.split, shard=number)
        if told is not None and entry != told:
            yield Fault(index.path, f"line {number + 1} is not what the receipt of the shard says")
    if listed is not None and next(listed, None) is not None:
        yield Fault(index.path, f"lists more than {layout.shards} shards")


def _told_by_receipt(folder: Folder, manifest: Manifest, layout: SplitLayout, number: int) -> tuple[Shard | None, str]:
    """What the receipt of a shard says, or what is wrong with it."""
    name = shard_receipt_name(manifest.view.name, layout.split, number)
    data = folder.read_if_there(name)
    if data is None:
        return None, "is missing"
    try:
        receipt = records.parse(ShardReceipt, data, name)
    except LvaeError as error:
        return None, error.problem
    if (receipt.split, receipt.number, receipt.count) != (layout.split, number, layout.rows_of(number)[1]):
        return None, "is the receipt of another shard"
    return shard_entry(manifest.view.name, receipt), ""


def file_faults(folder: Folder, record: FileRecord, deep: bool) -> Iterator[Fault]:
    size = folder.size(record.path)
    if size is None:
        yield Fault(record.path, "is missing")
    elif size != record.bytes:
        yield Fault(record.path, f"has {size} bytes instead of {record.bytes}")
    elif deep and folder.sha256(record.path) != record.sha256:
        yield Fault(record.path, "its bytes are not those that were written (checksum)")


def _labels_and_numbers(folder: Folder, manifest: Manifest, view: ViewPlan) -> Iterator[Fault]:
    classes = len(manifest.classes) if manifest.classes is not None else None
    where = f"shards/{manifest.view.name}"
    for split, layout in view.layouts.items():
        dataset = Dataset(folder, manifest, split)
        try:
            if manifest.view.dtype != "uint8" and not all(np.isfinite(block).all() for block in blocks(dataset)):
                yield Fault(where, f"{split}: latents that are not finite")
            shards = range(layout.shards)
            if classes is not None and not all(_labels_within(dataset.reader, number, classes) for number in shards):
                yield Fault(where, f"{split}: labels outside of the {classes} classes")
        except LvaeError as error:
            yield Fault(where, error.problem)
        dataset.close()


def _labels_within(reader: SplitReader, shard: int, classes: int) -> bool:
    labels = reader.facts(shard).labels
    reader.close()
    return not len(labels) or bool(labels.min() >= -1 and labels.max() < classes)


def content_faults(folder: Folder, manifest: Manifest, plan: Plan, progress: Callable[[str], None]) -> Iterator[Fault]:
    """With everything in place: the listing, the selection, the statistics and every shard, from the raw parts."""
    progress("listing")
    for number, segment in enumerate(plan.listing.segments):
        listing = ListingHash()
        listing.update(RowReader(folder, plan.listing).segment(number))
        if listing.hexdigest() != segment.sha256:
            yield Fault(
                plan.listing.segment_files(number)[0], "does not hold the listing that the dataset was made from"
            )
            return
    settings = view_settings(manifest)
    kept = manifest.raw == "kept"

    with TemporaryDirectory() as order:  # not in the dataset: it may be read-only, or another command's to write
        selected = select(folder, plan, settings.selection, Folder(order), statistics=kept)
        yield from _names(folder, manifest, plan, settings, selected)
        if not kept:
            yield from _statistics_from_shards(folder, manifest)
            return
        yield from _manifest_numbers(manifest, settings, selected)
        view = plan_view(plan, settings, selected, manifest.files[RECEIPTS].sha256)
        if view != read_view(folder, manifest.view.name):
            yield Fault(f"shards/{manifest.view.name}/view.json", "is not what the settings and the raw parts give")
            return
        yield from _shard_contents(folder, manifest, plan, view, Folder(order), progress)


def _names(
    folder: Folder, manifest: Manifest, plan: Plan, settings: ViewSettings, selected: Selected
) -> Iterator[Fault]:
    """What follows from the plan and the selection without a look at the latents."""
    if manifest.classes != selected.classes:
        yield Fault(MANIFEST, "classes are not those of the source")
    if manifest.id != view_id(plan, settings, selected, manifest.normalization):
        yield Fault(MANIFEST, "id is not that of its rows and settings")
    if manifest.view.name != settings.name(plan):
        yield Fault(MANIFEST, "view.name is not that of its settings")
    if selected.counts != {name: split.count for name, split in manifest.splits.items()}:
        yield Fault(MANIFEST, "splits are not what the selection gives")
    needed = [REJECTED, view_file(manifest.view.name)]
    many = len(plan.listing.files) > INLINE_FILES
    needed += [files_index_name(manifest.view.name)] if many else plan.listing.files
    needed += [name for name in [manifest.autoencoder.weights_file] if name is not None]
    for name in needed:
        if name not in manifest.files:
            yield Fault(MANIFEST, f"files does not name {name}")
    if many and needed[2] in manifest.files:
        entry = manifest.files[needed[2]]
        listed = read_files_index(folder, FileRecord(needed[2], entry.bytes, entry.sha256))
        if [record.path for record in listed] != plan.listing.files:
            yield Fault(needed[2], "does not list the files of rows/")


def _manifest_numbers(manifest: Manifest, settings: ViewSettings, selected: Selected) -> Iterator[Fault]:
    right = statistics_record(selected.moments, sum(selected.counts.values()))
    for name in ("over", "count", "mean", "std", "min", "max", "computed_from"):
        if getattr(manifest.statistics, name) != getattr(right, name):
            yield Fault(MANIFEST, f"statistics.{name} is not that of the raw parts")
    computed = None if settings.normalization == "given" else Normalization.of(settings.normalization, selected.moments)
    if computed is not None and manifest.normalization != computed:
        yield Fault(MANIFEST, "normalization is not what the statistics give")


def _shard_contents(
    folder: Folder, manifest: Manifest, plan: Plan, view: ViewPlan, order: Folder, progress: Callable[[str], None]
) -> Iterator[Fault]:
    for split, layout in view.layouts.items():
        reader = Dataset(folder, manifest, split).reader
        for number in range(layout.shards):
            progress(f"shard {number + 1} of {layout.shards} of {split}")
            first, count = layout.rows_of(number)
            right = shard_content(folder, plan, view, split, number, order)
            here = slice(first, first + count)
            facts = reader.facts(number)
            same = (
                np.array_equal(np.asarray(reader.latents[here]), right.latents)
                and np.array_equal(facts.labels, right.labels)
                and np.array_equal(facts.rows, right.rows)
                and np.array_equal(facts.mirrored, right.mirrored)
            )
            if same and right.log_variances is not None and reader.log_variances is not None:
                same = np.array_equal(np.asarray(reader.log_variances[here]), right.log_variances)
            reader.close()
            if not same:
                name = shard_receipt_name(view.name, split, number)
                yield Fault(name, "it does not hold what the raw parts give, in order", split=split, shard=number)


def _statistics_from_shards(folder: Folder, manifest: Manifest) -> Iterator[Fault]:
    moments, _ = moments_from_shards(folder, manifest)
    tolerance = shard_tolerance(manifest)
    if (np.abs(moments.mean - manifest.statistics.mean) > tolerance).any():
        yield Fault(MANIFEST, "statistics.mean is not that of the shards")
    if (np.abs(moments.std - manifest.statistics.std) > tolerance).any():
        yield Fault(MANIFEST, "statistics.std is not that of the shards")
