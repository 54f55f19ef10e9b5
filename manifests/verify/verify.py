"""Is a dataset what its manifest says? Every fault is named, with what mends it."""

import hashlib
import re
import shlex
from collections.abc import Callable, Iterator, Sequence

from lvae.manifests.errors import Fault, LvaeError
from lvae.manifests.manifest import MANIFEST, FileEntry, Manifest, read_manifest, unfinished_append
from lvae.manifests.parts.plan import PLAN, Plan, read_plan
from lvae.manifests.parts.receipts import RECEIPTS
from lvae.manifests.publishing.publish import REJECTED
from lvae.manifests.storage.folder import Folder
from lvae.manifests.verify.parts import part_faults
from lvae.manifests.verify.shards import content_faults, shard_faults

SHARD_FILE = re.compile(
    r"shard-(?P<receipt>\w+)-(?P<n>\d+)\.json"
    r"|(?P<tar>\w+)-(?P<m>\d+)\.tar"
    r"|(?P<zarr>\w+)\.zarr/\w+/c/(?P<k>\d+)(/0/0/0)?"
)


def mend_command(plan: Plan | None, folder: Folder, faults: Sequence[Fault] = ()) -> str:
    """What to run against faults: the same encode command, whose settings the dataset remembers."""
    weights = " --weights FILE" if any(fault.where.startswith("weights/") for fault in faults) else ""
    source = shlex.quote(_source(plan, faults)) if plan else "SOURCE"
    again = "" if plan else ", with the options of the first run"
    return f"lvae encode {source} {shlex.quote(str(folder))}{weights}{again}"


def _source(plan: Plan, faults: Sequence[Fault]) -> str:
    """Where the images of the first damaged part lie; without one, where the last images came from."""
    part = next((fault.part for fault in faults if fault.part is not None), None)
    return plan.origins[-1 if part is None else plan.listing.place(part).segment].source


def verify(folder: Folder, deep: bool, progress: Callable[[str], None] = lambda _: None) -> list[Fault]:
    """All faults of a dataset: files, counts and sizes; with `deep` also checksums, statistics, order and NaN.

    `progress` is told what is being looked at. LvaeError where the folder holds no dataset at all.
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
            raise LvaeError(folder, "is not a dataset", "Make one with 'lvae encode SOURCE DATASET'.")
        return [Fault(MANIFEST, "is missing: the dataset is not finished")]
    if plan is None and not faults and not (manifest is not None and manifest.origin == "samples"):
        faults.append(Fault(PLAN, "is missing"))
    if manifest is None:
        return faults
    if plan is not None and (plan := plan.before_append(manifest.plan_sha256)) is None:
        faults.append(Fault(PLAN, "belongs to another dataset than the manifest"))
    progress("files")
    faults += _files(folder, manifest, deep)
    if plan is not None and plan.encoding is not None:
        faults += _counts(manifest, plan)
        faults += part_faults(folder, manifest, plan, deep, progress)
    faults += shard_faults(folder, manifest, deep, progress)
    if deep and plan is not None and not faults:
        faults += content_faults(folder, manifest, plan, progress)
    return faults


def _files(folder: Folder, manifest: Manifest, deep: bool) -> Iterator[Fault]:
    for name, entry in sorted(manifest.files.items()):
        if name == RECEIPTS:
            continue
        split, shard = _shard_of(manifest, name)
        size = folder.size(name)
        if name == REJECTED and size is not None and size > entry.bytes and _appended_to(folder, name, entry):
            continue
        if size is None:
            yield Fault(name, "is missing", split=split, shard=shard)
        elif size != entry.bytes:
            yield Fault(name, f"has {size} bytes instead of {entry.bytes}", split=split, shard=shard)
        elif deep and folder.sha256(name) != entry.sha256:
            yield Fault(name, "its bytes are not those that were written (checksum)", split=split, shard=shard)


def _appended_to(folder: Folder, name: str, entry: FileEntry) -> bool:
    """Whether a file is what the manifest says with more behind it, while images are being added."""
    same = hashlib.sha256(folder.read(name)[: entry.bytes]).hexdigest() == entry.sha256
    return same and unfinished_append(folder) > 0


def _shard_of(manifest: Manifest, name: str) -> tuple[str | None, int | None]:
    """Which shard a file under shards/ belongs to: that of its receipt, its tar, or its number in a Zarr array."""
    prefix = f"shards/{manifest.view.name}/"
    if not name.startswith(prefix) or name.endswith(("view.json", "zarr.json")):
        return None, None
    found = SHARD_FILE.fullmatch(name.removeprefix(prefix))
    if found is None:
        return None, None
    split = next(found[group] for group in ("receipt", "tar", "zarr") if found[group])
    number = next(int(found[group]) for group in ("n", "m", "k") if found[group])
    return (split, number) if split in manifest.splits else (None, None)


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
    for name, split in manifest.splits.items():
        claims.append((f"splits.{name}.count", split.count, sum(shard.count for shard in split.shards)))
    for name, claimed, right in claims:
        if claimed != right:
            yield Fault(MANIFEST, f"{name} is {claimed}, and should be {right}")
