"""From finished parts and shards to a dataset: the manifest, swapped in last."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from lvae.manifests import records
from lvae.manifests.errors import LvaeError
from lvae.manifests.manifest import (
    MANIFEST,
    WRITTEN_BY,
    Counts,
    FileEntry,
    Manifest,
    Source,
    Split,
    Statistics,
    View,
    dump_manifest,
    large_fields,
    read_manifest,
)
from lvae.manifests.messages import RESUME
from lvae.manifests.parts.erased_rows import ERASED
from lvae.manifests.parts.plan import Plan, read_plan_file, read_plan_if_whole
from lvae.manifests.parts.receipts import REJECTED, beyond, orphans
from lvae.manifests.shards.index import files_index_name, write_index
from lvae.manifests.statistics import ChannelMoments
from lvae.manifests.storage.folder import CHUNK_BYTES, TEMPORARY, FileRecord, Folder
from lvae.manifests.views.combine import Selected
from lvae.manifests.views.order_files import rejected_file
from lvae.manifests.views.selection import Selection
from lvae.manifests.views.view import (
    ViewPlan,
    ViewSettings,
    view_file,
    view_id,
)

BESIDE = ("checks", "mixing")  # what a job that was stopped leaves for the next one
INLINE_FILES = 32  # of rows/ in the manifest itself


def write_rejected(folder: Folder, order: Folder, groups: int) -> None:
    """Every image that could not be used, in row order, as the groups of an order tell it; there even where empty."""
    folder.write(REJECTED, (piece for group in range(groups) for piece in _pieces_of(order, rejected_file(group))))


def _pieces_of(folder: Folder, name: str) -> Iterator[bytes]:
    """A file of any size, a piece at a time."""
    with folder.local(name).open("rb") as file:
        while piece := file.read(CHUNK_BYTES):
            yield piece


def statistics_record(moments: ChannelMoments, latents: int) -> Statistics:
    """What the manifest says of moments over raw latents."""
    return Statistics(
        over="selected rows, all splits",
        count=latents,
        mean=tuple(map(float, moments.mean)),
        std=tuple(map(float, moments.std)),
        min=tuple(map(float, moments.minimum)),
        max=tuple(map(float, moments.maximum)),
        computed_from="raw",
    )


@dataclass(frozen=True)
class WrittenView:
    """A view whose shards are all there. metadata: names of its files beside them. indices: the lists of them."""

    plan: ViewPlan
    metadata: list[str]
    indices: dict[str, FileRecord]


def describe(folder: Folder, plan: Plan, settings: ViewSettings, selected: Selected, written: WrittenView) -> Manifest:
    """The manifest of a dataset whose parts and shards are all there."""
    view = written.plan
    encoding, rejected, latents = plan.encoded(), selected.rejected, selected.latents
    _check_total(folder, plan.listing.images - rejected, encoding.image.orientations, latents)
    splits = {
        split: Split(layout.count, layout.shards, written.indices[split]) for split, layout in view.layouts.items()
    }
    records_ = [
        *_files(folder, plan, selected, view, written.metadata),
        *write_large_fields(folder, view.name, selected.classes, settings.selection),
        *(split.index for split in splits.values()),
        *_erased_file(folder),
    ]
    return Manifest(
        format="latent-vae-dataset",
        version=1,
        written_by=WRITTEN_BY,
        origin="images",
        source=Source(plan.listing.kind, plan.listing.images, plan.listing.sha256),
        image=encoding.image,
        autoencoder=encoding.autoencoder,
        classes=selected.classes,
        id=view_id(plan, settings, selected, view.normalization),
        counts=Counts(plan.listing.images, rejected, latents, sum(selected.counts.values())),
        raw="kept",
        view=View(
            view.name,
            settings.seed,
            settings.selection,
            settings.dtype,
            settings.format,
            encoding.latent_shape,
            settings.shard_size,
        ),
        statistics=statistics_record(selected.moments, sum(selected.counts.values())),
        normalization=view.normalization,
        splits=splits,
        plan_sha256=plan.sha256,
        files={record.path: FileEntry(record.bytes, record.sha256) for record in records_},
    )


def _check_total(folder: Folder, used: int, orientations: int, latents: int) -> None:
    if latents != used * orientations:
        raise LvaeError(
            folder, f"{used} images in {orientations} orientations gave {latents} latents; please report it"
        )


def write_large_fields(
    folder: Folder, view: str, classes: tuple[str, ...] | None, selection: Selection
) -> Iterator[FileRecord]:
    """The files of what is too large for the manifest."""
    for path, data in large_fields(view, classes, selection).values():
        yield folder.write(path, data)


def _erased_file(folder: Folder) -> list[FileRecord]:
    """What the plan of a dataset names, if it names one."""
    plan = read_plan_file(folder)
    return [] if plan is None or plan.erased is None else [plan.erased]


def _files(
    folder: Folder, plan: Plan, selected: Selected, view: ViewPlan, metadata: Iterable[str]
) -> Iterator[FileRecord]:
    """Every file of the dataset beside the manifest, plan.json and what the shards' receipts name."""
    names = [REJECTED, view_file(view.name), *metadata]
    if plan.encoded().autoencoder.weights_file is not None:
        names.append(str(plan.encoded().autoencoder.weights_file))
    if len(selected.rows) > INLINE_FILES:
        yield write_index(folder, files_index_name(view.name), selected.rows)
    else:
        yield from selected.rows
    yield from folder.each(folder.record, names)
    yield selected.receipts


def swap(folder: Folder, manifest: Manifest, keep_old: bool = False) -> None:
    """Make a view the dataset's own: the manifest in one step, then the old view goes (unless it is kept)."""
    data = dump_manifest(manifest)
    if folder.read_if_there(MANIFEST) != data:
        folder.swap(MANIFEST, data)
    needed = [record.path for record in _erased_file(folder)]
    for name in folder.names(ERASED):
        if name not in needed:
            folder.remove(name)
    if not keep_old:
        for name in unused_views(folder, manifest):
            folder.remove(f"shards/{name}")


def unused_views(folder: Folder, manifest: Manifest) -> list[str]:
    """Folders under shards/ that the manifest does not name."""
    found = {name.split("/")[1] for name in folder.names("shards")} | folder.subfolders("shards")
    return sorted(found - {manifest.view.name})


def drop_raw(folder: Folder) -> None:
    """Remove the raw parts of a dataset; receipts stay, and the manifest says so first."""
    manifest = read_manifest(folder)
    if manifest is None:
        raise LvaeError(folder, "is not finished", RESUME)
    if manifest.raw == "kept":
        folder.swap(MANIFEST, dump_manifest(_without_raw(manifest)))
    for name in folder.names("raw"):
        if "/part-" in name and name.endswith(".npy"):
            folder.remove(name)


def _without_raw(manifest: Manifest) -> Manifest:
    return records.from_plain(Manifest, {**records.plain(manifest), "raw": "dropped"}, MANIFEST)


def leftovers(folder: Folder, manifest: Manifest) -> list[str]:
    """What no longer belongs to a finished dataset: unfinished files, orphaned raw files, old views, other plans'."""
    names = {*folder.names(TEMPORARY), *orphans(folder)}
    for view in unused_views(folder, manifest):
        names |= set(folder.names(f"shards/{view}"))
    for beside in BESIDE:
        names |= set(folder.names(beside))
    plan = read_plan_if_whole(folder)
    if plan is not None and plan.before_append(manifest.plan_sha256) is not None:
        weights = plan.encoded().autoencoder.weights_file
        needed = {*plan.listing.files, *([weights] if weights is not None else [])}
        names |= {*beyond(folder, plan)} | ({*folder.names("rows"), *folder.names("weights")} - needed)
    return sorted(names)
