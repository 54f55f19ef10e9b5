"""Is a dataset what its manifest says? Every fault is named, with what mends it."""

import shlex
from collections.abc import Iterable, Iterator, Sequence

from lvae.manifests.errors import Fault, LvaeError
from lvae.manifests.manifest import (
    MANIFEST,
    FileEntry,
    Manifest,
    no_dataset,
    read_manifest,
    unfinished_append,
    view_settings,
)
from lvae.manifests.parts.plan import PLAN, Plan, read_plan
from lvae.manifests.parts.receipts import RECEIPTS, REJECTED
from lvae.manifests.shards.index import files_index_name, read_files_index
from lvae.manifests.statistics import ChannelMoments
from lvae.manifests.storage.folder import FileRecord, Folder
from lvae.manifests.verify.checker import Checker, Here, Subject
from lvae.manifests.verify.parts import check_parts, part_faults, sha256_of_start
from lvae.manifests.verify.receipts import CheckedShards, part_runs
from lvae.manifests.verify.selection import listing_faults, selection_faults, statistics_faults
from lvae.manifests.verify.shards import Progress, file_faults, looked_into, shard_faults, view_faults


def mend_command(plan: Plan | None, folder: Folder, faults: Sequence[Fault] = ()) -> str:
    """What to run against faults: the same encode or import command, whose settings the dataset remembers."""
    weights = " --weights FILE" if any(fault.where.startswith("weights/") for fault in faults) else ""
    source = shlex.quote(_source(plan, faults)) if plan else "SOURCE"
    again = "" if plan else ", with the options of the first run"
    command = "latents import" if plan is not None and plan.is_imported else "encode"
    return f"lvae {command} {source} {shlex.quote(str(folder))}{weights}{again}"


def _source(plan: Plan, faults: Sequence[Fault]) -> str:
    """Where the images of the first damaged part lie; without one, where the last images came from."""
    part = next((fault.part for fault in faults if fault.part is not None), None)
    return plan.origins[-1 if part is None else plan.listing.place(part).segment].source


def verify(
    folder: Folder, deep: bool, progress: Progress = lambda _: None, checker: Checker | None = None
) -> list[Fault]:
    """All faults of a dataset: files, counts and sizes; with `deep` also checksums, statistics, order and NaN.

    `progress` is told what is being looked at. checker: who looks deep, this process where none is given. LvaeError
    where the folder holds no dataset at all.
    """
    faults: list[Fault] = []
    try:
        manifest = read_manifest(folder)
    except LvaeError as error:
        faults.append(Fault(MANIFEST, error.problem))
        manifest = None
    try:
        plan = read_plan(folder)
    except LvaeError as error:
        faults.append(Fault(PLAN, error.problem))
        plan = None
    if manifest is None and not faults:
        if plan is None:
            raise no_dataset(folder, folder)
        return [Fault(MANIFEST, "is missing: the dataset is not finished")]
    if plan is None and not faults and not (manifest is not None and manifest.origin == "samples"):
        faults.append(Fault(PLAN, "is missing"))
    if manifest is None:
        return faults
    if plan is not None and (plan := plan.before_append(manifest.plan_sha256)) is None:
        faults.append(Fault(PLAN, "belongs to another dataset than the manifest"))
    progress("files")
    faults += _files(folder, manifest, deep)
    encoded = plan if plan is not None and plan.encoding is not None else None
    if encoded is not None:
        faults += _counts(manifest, encoded)
    if not deep:
        if encoded is not None:
            looks = (check_parts(folder, encoded, run, manifest.raw == "kept", False) for run in _runs(encoded))
            faults += part_faults(folder, manifest, encoded, looks, progress)
        view, wrong = view_faults(folder, manifest, deep)
        return faults + wrong + (list(shard_faults(folder, manifest, view, progress)) if view is not None else [])
    with Here() as here:
        return faults + _look_deep(folder, manifest, encoded, faults, checker or here, progress)


def _runs(plan: Plan) -> range:
    return range(part_runs(plan))


def _look_deep(
    folder: Folder,
    manifest: Manifest,
    plan: Plan | None,
    before: list[Fault],
    checker: Checker,
    progress: Progress,
) -> list[Fault]:
    """The faults of parts and shards. What they hold is compared only where all else is right."""
    faults = list[Fault]()
    if plan is not None:
        faults += part_faults(folder, manifest, plan, checker.parts(Subject(folder, manifest, plan)), progress)
    view, wrong = view_faults(folder, manifest, deep=True)
    faults += wrong
    whole = plan if not before and not faults and view is not None else None
    if whole is not None:
        faults += _from_rows(Subject(folder, manifest, whole), checker, progress)
    if view is not None:
        compared = whole if not faults and manifest.raw == "kept" else None
        merged = _Merged(manifest, checker.shards(folder, manifest, view, compared))
        faults += looked_into(folder, manifest, view, merged, progress)
        if whole is not None and not faults and manifest.raw != "kept":
            faults += statistics_faults(manifest, merged.moments)
    return faults


class _Merged:
    """Hands on what was found in shards, and merges their moments."""

    def __init__(self, manifest: Manifest, checked: Iterable[CheckedShards]):
        self._checked, self.moments = checked, ChannelMoments.empty(manifest.view.shape[0])

    def __iter__(self) -> Iterator[CheckedShards]:
        for found in self._checked:
            if found.moments is not None:
                self.moments = self.moments.merge(found.moments.to_moments())
            yield found


def _from_rows(subject: Subject, checker: Checker, progress: Progress) -> list[Fault]:
    progress("listing")
    faults = list(listing_faults(subject.plan, checker.segments(subject)))
    if not faults:
        selected = checker.select(subject, view_settings(subject.manifest).selection)
        faults += selection_faults(subject.folder, subject.manifest, subject.plan, selected)
    return faults


def _files(folder: Folder, manifest: Manifest, deep: bool) -> Iterator[Fault]:
    """Of the files that the manifest names, itself or through its index of files; `shard_faults` has the rest."""
    for name, entry in sorted(manifest.files.items()):
        if name == RECEIPTS or (name == REJECTED and _appended_to(folder, name, entry)):
            continue
        record = FileRecord(name, entry.bytes, entry.sha256)
        yield from file_faults(folder, record, deep)
        if name == files_index_name(manifest.view.name):
            try:
                for listed in read_files_index(folder, record):
                    yield from file_faults(folder, listed, deep)
            except LvaeError as error:
                yield Fault(name, error.problem)


def _appended_to(folder: Folder, name: str, entry: FileEntry) -> bool:
    """Whether a file is what the manifest says with more behind it, while images are being added."""
    size = folder.size(name)
    if size is None or size <= entry.bytes or not unfinished_append(folder):
        return False
    return sha256_of_start(folder, name, entry.bytes) == entry.sha256


def _counts(manifest: Manifest, plan: Plan) -> Iterator[Fault]:
    encoding = plan.encoded()
    claims = [
        ("source.images", manifest.source.images, plan.listing.images),
        ("counts.images", manifest.counts.images, plan.listing.images),
        ("source.listing_sha256", manifest.source.listing_sha256, plan.listing.sha256),
        ("source.kind", manifest.source.kind, plan.listing.kind),
        ("image", manifest.image, encoding.image),
        ("autoencoder", manifest.autoencoder, encoding.autoencoder),
        ("view.shape", manifest.view.shape, encoding.latent_shape),
        (
            "counts.latents",
            manifest.counts.latents,
            (manifest.counts.images - manifest.counts.rejected) * encoding.image.orientations,
        ),
        ("counts.selected", manifest.counts.selected, sum(split.count for split in manifest.splits.values())),
        ("statistics.count", manifest.statistics.count, manifest.counts.selected),
    ]
    for name, claimed, right in claims:
        if claimed != right:
            yield Fault(MANIFEST, f"{name} is {claimed}, and should be {right}")
