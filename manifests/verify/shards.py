"""Are the shards what the manifest says, and what the raw parts give?"""

from collections.abc import Callable, Iterator
from functools import partial
from tempfile import TemporaryDirectory

import numpy as np

from lvae.manifests import records
from lvae.manifests.dataset import Dataset
from lvae.manifests.errors import Fault, LvaeError
from lvae.manifests.manifest import MANIFEST, FileEntry, Manifest, Shard, view_settings
from lvae.manifests.parts.plan import Plan
from lvae.manifests.parts.receipts import RECEIPTS, Receipt, read_receipt
from lvae.manifests.parts.rows import ListingHash, RowReader
from lvae.manifests.publishing.publish import REJECTED, statistics_record
from lvae.manifests.shards.formats import codec
from lvae.manifests.shards.layout import SplitLayout, SplitReader
from lvae.manifests.statistics import Normalization
from lvae.manifests.storage.folder import Folder
from lvae.manifests.verify.shard_statistics import blocks, moments_from_shards, shard_tolerance
from lvae.manifests.views.gather import shard_content
from lvae.manifests.views.order import Selected, select
from lvae.manifests.views.view import (
    ShardReceipt,
    ViewPlan,
    ViewSettings,
    plan_view,
    read_view,
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
        for number in range(min(layout.shards, len(claimed.shards))):
            yield from _shard_entry(folder, manifest, split, number, layout)
        if layout.shards != len(claimed.shards):
            yield Fault(MANIFEST, f"splits.{split} names {len(claimed.shards)} of {layout.shards} shards")
        for problem in codec(view.settings.format).check(folder, view.name, layout):
            yield Fault(f"shards/{view.name}", problem)
    if view.normalization != manifest.normalization:
        yield Fault(MANIFEST, "normalization is not what the view was written with")
    if deep:
        yield from _labels_and_numbers(folder, manifest, view)


def _shard_entry(folder: Folder, manifest: Manifest, split: str, number: int, layout: SplitLayout) -> Iterator[Fault]:
    """What the manifest says of one shard, against its receipt."""
    name = shard_receipt_name(manifest.view.name, split, number)
    data = folder.read_if_there(name)
    if data is None or number >= len(manifest.splits[split].shards):
        return  # named elsewhere
    try:
        receipt = records.parse(ShardReceipt, data, name)
    except LvaeError as error:
        yield Fault(name, error.problem, split=split, shard=number)
        return
    if (receipt.split, receipt.number, receipt.count) != (split, number, layout.rows_of(number)[1]):
        yield Fault(name, "is the receipt of another shard", split=split, shard=number)
        return
    claimed, latents = manifest.splits[split].shards[number], receipt.files[0]
    if claimed != Shard(latents.path, receipt.count, latents.bytes, latents.sha256):
        yield Fault(MANIFEST, f"splits.{split}.shards[{number}] is not what the shard's receipt says")
    for file in receipt.files:
        if manifest.files.get(file.path) != FileEntry(file.bytes, file.sha256):
            yield Fault(MANIFEST, f"files does not name {file.path} as the shard's receipt does")


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

    def receipts() -> Iterator[Receipt]:
        for receipt in folder.each(partial(read_receipt, folder), range(plan.listing.parts)):
            if receipt is not None:
                yield receipt

    with TemporaryDirectory() as order:  # not in the dataset: it may be read-only, or another command's to write
        selected = select(folder, plan, settings.selection, receipts, Folder(order), raw=kept)
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
    needed = {REJECTED, view_file(manifest.view.name)}
    needed.update(plan.listing.files)
    needed |= {name for name in [manifest.autoencoder.weights_file] if name is not None}
    needed |= {
        shard_receipt_name(manifest.view.name, split, number)
        for split, entry in manifest.splits.items()
        for number in range(len(entry.shards))
    }
    for name in sorted(needed - manifest.files.keys()):
        yield Fault(MANIFEST, f"files does not name {name}")


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
                name = manifest.splits[split].shards[number].path
                yield Fault(name, "does not hold what the raw parts give, in order", split=split, shard=number)


def _statistics_from_shards(folder: Folder, manifest: Manifest) -> Iterator[Fault]:
    moments, _ = moments_from_shards(folder, manifest)
    tolerance = shard_tolerance(manifest)
    if (np.abs(moments.mean - manifest.statistics.mean) > tolerance).any():
        yield Fault(MANIFEST, "statistics.mean is not that of the shards")
    if (np.abs(moments.std - manifest.statistics.std) > tolerance).any():
        yield Fault(MANIFEST, "statistics.std is not that of the shards")
