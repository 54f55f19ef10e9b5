"""Is what the manifest says of rows, selection and statistics what rows and raw parts give?"""

from collections.abc import Iterable, Iterator

import numpy as np

from lvae.manifests.errors import Fault
from lvae.manifests.manifest import MANIFEST, Manifest, view_settings
from lvae.manifests.parts.listing_hash import ListingHash
from lvae.manifests.parts.plan import Plan
from lvae.manifests.parts.receipts import RECEIPTS, REJECTED
from lvae.manifests.parts.rows import RowReader
from lvae.manifests.publishing.publish import INLINE_FILES, statistics_record
from lvae.manifests.shards.index import files_index_name, read_files_index
from lvae.manifests.statistics import ChannelMoments, Normalization
from lvae.manifests.storage.folder import FileRecord, Folder
from lvae.manifests.verify.shard_statistics import shard_tolerance
from lvae.manifests.views.combine import Selected
from lvae.manifests.views.view import ViewSettings, plan_view, read_view, view_file, view_id


def listing_faults(plan: Plan, hashes: Iterable[str]) -> Iterator[Fault]:
    """Whether rows/ holds the listing that the plan names. hashes: of its segments, see `segment_sha256`."""
    for number, (segment, sha256) in enumerate(zip(plan.listing.segments, hashes, strict=True)):
        if sha256 != segment.sha256:
            name = plan.listing.segment_files(number)[0]
            yield Fault(name, "does not hold the listing that the dataset was made from")


def segment_sha256(folder: Folder, plan: Plan, number: int) -> str:
    """The hash of a segment's rows, from rows/."""
    listing, reader = ListingHash(), RowReader(folder, plan.listing)
    for part in plan.listing.segment_parts(number):
        listing.update_table(reader.listed(part))
    return listing.hexdigest()


def selection_faults(folder: Folder, manifest: Manifest, plan: Plan, selected: Selected) -> Iterator[Fault]:
    """What follows from the rows, the selection and the statistics of the raw parts."""
    settings = view_settings(manifest)
    yield from _names(folder, manifest, plan, settings, selected)
    if manifest.raw != "kept":
        return
    yield from _manifest_numbers(manifest, settings, selected)
    view = plan_view(plan, settings, selected, manifest.files[RECEIPTS].sha256)
    if view != read_view(folder, manifest.view.name):
        yield Fault(view_file(view.name), "is not what the settings and the raw parts give")


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


def statistics_faults(manifest: Manifest, moments: ChannelMoments) -> Iterator[Fault]:
    """moments: of the shards' latents, before normalization."""
    tolerance = shard_tolerance(manifest)
    if (np.abs(moments.mean - manifest.statistics.mean) > tolerance).any():
        yield Fault(MANIFEST, "statistics.mean is not that of the shards")
    if (np.abs(moments.std - manifest.statistics.std) > tolerance).any():
        yield Fault(MANIFEST, "statistics.std is not that of the shards")
