"""Is a dataset what its manifest says? Every fault is named, with what mends it."""

import hashlib
import re
import shlex
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lvae.manifests import records
from lvae.manifests.dataset import (
    MANIFEST,
    Dataset,
    FileEntry,
    Manifest,
    Shard,
    read_manifest,
    read_manifest_if_whole,
)
from lvae.manifests.errors import LvaeError
from lvae.manifests.parts import (
    RECEIPTS,
    Receipt,
    fits,
    moments_of_raw,
    raw_name,
    read_raw,
    read_receipt,
    receipt_name,
    receipts_record,
    to_erase,
)
from lvae.manifests.plan import PLAN, Plan, read_plan, read_plan_if_whole
from lvae.manifests.publish import REJECTED, statistics_record
from lvae.manifests.rows import ListingHash, RowReader
from lvae.manifests.selection import Selected, select
from lvae.manifests.shards import SplitLayout, codec
from lvae.manifests.statistics import ChannelMoments, Normalization
from lvae.manifests.storage import Folder
from lvae.manifests.views import (
    ShardReceipt,
    ViewPlan,
    ViewSettings,
    plan_view,
    read_view,
    shard_content,
    shard_receipt_name,
    view_file,
    view_id,
)

STD_TOLERANCE = 1e-12  # relative; statistics folded again from the same numbers differ by less
SHARD_FILE = re.compile(
    r"shard-(?P<receipt>\w+)-(?P<n>\d+)\.json"
    r"|(?P<tar>\w+)-(?P<m>\d+)\.tar"
    r"|(?P<zarr>\w+)\.zarr/\w+/c/(?P<k>\d+)(/0/0/0)?"
)
READ_ROWS = 1024  # latents of a shard looked at together


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong. `part` or (`split`, `shard`): what has to be made again to mend it."""

    where: str
    problem: str
    part: int | None = None
    split: str | None = None
    shard: int | None = None


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


def unfinished_append(folder: Folder) -> int:
    """How many images are being added to a dataset, which is whole without them until its manifest names them."""
    manifest, plan = read_manifest_if_whole(folder), read_plan_if_whole(folder)
    before = plan.before_append(manifest.plan_sha256) if plan is not None and manifest is not None else None
    return plan.listing.images - before.listing.images if plan is not None and before is not None else 0


def verify(folder: Folder, deep: bool, progress: Callable[[str], None] = lambda _: None) -> list[Fault]:
    """All faults of a dataset: files, counts and sizes; with `deep` also checksums, statistics, order and NaN.

    `progress` is told what is being looked at. LvaeError where the folder holds no dataset at all.
    """
    faults: list[Fault] = []
    try:
        manifest = read_manifest(folder)
    except LvaeError as error:
        faults.append(Fault(MANIFEST, _without_advice(error)))
        manifest = None
    try:
        plan = read_plan(folder)
    except LvaeError as error:
        faults.append(Fault(PLAN, _without_advice(error)))
        plan = None
    if manifest is None and not faults:
        if plan is None:
            raise LvaeError(f"{folder}: is not a dataset. Make one with 'lvae encode SOURCE DATASET'.")
        return [Fault(MANIFEST, "is missing: the dataset is not finished")]
    if plan is None and not faults:
        faults.append(Fault(PLAN, "is missing"))
    if manifest is None:
        return faults
    if plan is not None and (plan := plan.before_append(manifest.plan_sha256)) is None:
        faults.append(Fault(PLAN, "belongs to another dataset than the manifest"))
    progress("files")
    faults += _files(folder, manifest, deep)
    if plan is not None and plan.encoding is not None:
        faults += _counts(manifest, plan)
        faults += _parts(folder, manifest, plan, deep, progress)
    faults += _shards(folder, manifest, deep, progress)
    if deep and plan is not None and not faults:
        faults += _recomputed(folder, manifest, plan, progress)
    return faults


def _without_advice(error: LvaeError) -> str:
    return str(error).split(": ", 1)[-1].split(". Run ")[0].split(". Remove ")[0].removesuffix(".")


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


def _parts(
    folder: Folder, manifest: Manifest, plan: Plan, deep: bool, progress: Callable[[str], None]
) -> Iterator[Fault]:
    encoding = plan.encoded()
    kept = manifest.raw == "kept"
    latents = rejected = 0
    whole = True
    lines = []
    for part in range(plan.listing.parts):
        progress(f"part {part + 1} of {plan.listing.parts}")
        receipt, problem = _receipt(folder, plan, part)
        if receipt is None:
            whole = False
            yield Fault(receipt_name(part), problem, part=part)
            continue
        latents += receipt.latents
        rejected += len(receipt.rejected)
        lines += [records.line(rejection) for rejection in receipt.rejected]
        if (receipt.rows - len(receipt.rejected)) * encoding.image.orientations != receipt.latents:
            yield Fault(receipt_name(part), "its counts do not add up", part=part)
        if kept:
            yield from _raw(folder, plan, receipt, deep)
    if not whole:
        return
    entry, record = manifest.files.get(RECEIPTS), receipts_record(folder, plan.listing.parts)
    if entry is None or (entry.bytes, entry.sha256) != (record.bytes, record.sha256):
        yield Fault(RECEIPTS, "the receipts are not those that the manifest was made from (checksum)")
    for name, claimed, right in [
        ("counts.latents", manifest.counts.latents, latents),
        ("counts.rejected", manifest.counts.rejected, rejected),
    ]:
        if claimed != right:
            yield Fault(MANIFEST, f"{name} is {claimed}, and the receipts say {right}")
    found, right_lines = folder.read_if_there(REJECTED), b"".join(lines)
    if found is not None and found != right_lines and not (found.startswith(right_lines) and unfinished_append(folder)):
        yield Fault(REJECTED, "does not list what the receipts say was rejected")


def _receipt(folder: Folder, plan: Plan, part: int) -> tuple[Receipt | None, str]:
    try:
        receipt = read_receipt(folder, part)
    except LvaeError as error:
        return None, _without_advice(error)
    if receipt is None:
        return None, "is missing"
    if not fits(receipt, plan, part):
        return None, "is the receipt of another part or of another dataset"
    if to_erase(receipt, plan):
        return None, "its part still holds images that are to be erased"
    return receipt, ""


def _raw(folder: Folder, plan: Plan, receipt: Receipt, deep: bool) -> Iterator[Fault]:
    name, part = receipt.raw.path, receipt.part
    size = folder.size(name)
    if name != raw_name(part, receipt.raw.sha256):
        yield Fault(receipt_name(part), "names the raw file of another part", part=part)
    elif size is None:
        yield Fault(name, "is missing", part=part)
    elif size != receipt.raw.bytes:
        yield Fault(name, f"has {size} bytes instead of {receipt.raw.bytes}", part=part)
    elif deep and folder.sha256(name) != receipt.raw.sha256:
        yield Fault(name, "its bytes are not those that were written (checksum)", part=part)
    elif deep:
        try:
            raw = read_raw(folder, receipt, plan.encoded())
        except LvaeError as error:
            yield Fault(name, _without_advice(error), part=part)
            return
        if raw.dtype.kind == "f" and not all(
            np.isfinite(raw[start : start + READ_ROWS]).all() for start in range(0, len(raw), READ_ROWS)
        ):
            yield Fault(name, "holds numbers that are not finite", part=part)
            return
        moments = moments_of_raw(plan.encoded(), raw).to_record() if len(raw) else None
        if (moments is None) != (receipt.moments is None) or (
            moments is not None
            and (receipt.moments is None or not _moments_agree(moments.to_moments(), receipt.moments.to_moments()))
        ):
            yield Fault(receipt_name(part), "its moments are not those of its raw file", part=part)


def _moments_agree(a: ChannelMoments, b: ChannelMoments) -> bool:
    scale = np.maximum(a.std, np.finfo(np.float64).tiny)
    return (
        a.count == b.count
        and a.mean.shape == b.mean.shape == b.m2.shape
        and bool((np.abs(a.mean - b.mean) <= STD_TOLERANCE * np.maximum(scale, np.abs(a.mean))).all())
        and bool((np.abs(a.std - b.std) <= STD_TOLERANCE * scale).all())
        and np.array_equal(a.minimum, b.minimum)
        and np.array_equal(a.maximum, b.maximum)
    )


def _shards(folder: Folder, manifest: Manifest, deep: bool, progress: Callable[[str], None]) -> Iterator[Fault]:
    try:
        view = read_view(folder, manifest.view.name)
    except LvaeError as error:
        yield Fault(f"shards/{manifest.view.name}/view.json", _without_advice(error))
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
        yield from _labels_and_numbers(folder, manifest)


def _shard_entry(folder: Folder, manifest: Manifest, split: str, number: int, layout: SplitLayout) -> Iterator[Fault]:
    """What the manifest says of one shard, against its receipt."""
    name = shard_receipt_name(manifest.view.name, split, number)
    data = folder.read_if_there(name)
    if data is None or number >= len(manifest.splits[split].shards):
        return  # named elsewhere
    try:
        receipt = records.parse(ShardReceipt, data, name)
    except LvaeError as error:
        yield Fault(name, _without_advice(error), split=split, shard=number)
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


def _labels_and_numbers(folder: Folder, manifest: Manifest) -> Iterator[Fault]:
    classes = len(manifest.classes) if manifest.classes is not None else None
    where = f"shards/{manifest.view.name}"
    for split in manifest.splits:
        dataset = Dataset(folder, manifest, split)
        try:
            if manifest.view.dtype != "uint8" and not all(np.isfinite(block).all() for block in blocks(dataset)):
                yield Fault(where, f"{split}: latents that are not finite")
            labels = dataset.labels
            if classes is not None and len(labels) and not (labels.min() >= -1 and labels.max() < classes):
                yield Fault(where, f"{split}: labels outside of the {classes} classes")
        except LvaeError as error:
            yield Fault(where, _without_advice(error))
        dataset.close()


def blocks(dataset: Dataset) -> Iterator[NDArray[Any]]:
    """All latents of a split in order, and their log-variances.

    Maps are let go now and then: what was read need not stay in memory.
    """
    for start in range(0, len(dataset), READ_ROWS):
        yield np.asarray(dataset.latents[start : start + READ_ROWS])
        if dataset.log_variances is not None:
            yield np.asarray(dataset.log_variances[start : start + READ_ROWS])
        if start % (READ_ROWS * 8) == 0:
            dataset.close()


def view_settings(manifest: Manifest) -> ViewSettings:
    """The settings that a dataset's view was made with."""
    given = manifest.normalization.kind == "given"
    return ViewSettings(
        normalization=manifest.normalization.kind,
        shift=manifest.normalization.shift if given else None,
        scale=manifest.normalization.scale if given else None,
        format=manifest.view.format,
        dtype=manifest.view.dtype,
        shard_size=manifest.view.shard_size,
        seed=manifest.view.seed,
        selection=manifest.view.selection,
    )


def _recomputed(folder: Folder, manifest: Manifest, plan: Plan, progress: Callable[[str], None]) -> Iterator[Fault]:
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
        for part in range(plan.listing.parts):
            receipt = read_receipt(folder, part)
            if receipt is not None:
                yield receipt

    with TemporaryDirectory() as order:  # not in the dataset: it may be read-only, or another command's to write
        selected = select(folder, plan, settings.selection, receipts, Folder(order), raw=kept)
        yield from _names(folder, manifest, plan, settings, selected)
        if not kept:
            yield from _statistics_from_shards(folder, manifest)
            return
        yield from _manifest_numbers(manifest, settings, selected)
        view = plan_view(plan, settings, selected, receipts_record(folder, plan.listing.parts).sha256)
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
        dataset = Dataset(folder, manifest, split)
        for number in range(layout.shards):
            progress(f"shard {number + 1} of {layout.shards} of {split}")
            first, count = layout.rows_of(number)
            right = shard_content(folder, plan, view, split, number, order)
            here = slice(first, first + count)
            same = (
                np.array_equal(np.asarray(dataset.latents[here]), right.latents)
                and np.array_equal(dataset.labels[here], right.labels)
                and np.array_equal(dataset.rows[here], right.rows)
                and np.array_equal(dataset.mirrored[here], right.mirrored)
            )
            if same and right.log_variances is not None and dataset.log_variances is not None:
                same = np.array_equal(np.asarray(dataset.log_variances[here]), right.log_variances)
            dataset.close()  # and with it what was read of the shard
            if not same:
                name = manifest.splits[split].shards[number].path
                yield Fault(name, "does not hold what the raw parts give, in order", split=split, shard=number)


def moments_from_shards(folder: Folder, manifest: Manifest) -> tuple[ChannelMoments, dict[int, ChannelMoments]]:
    """Statistics of the raw latents from the normalized ones, all together and by label.

    Exact up to the rounding of the stored dtype: see `shard_tolerance`.
    """
    empty = ChannelMoments.empty(manifest.view.shape[0])
    total, by_label = empty, dict[int, ChannelMoments]()
    for split in manifest.splits:
        dataset = Dataset(folder, manifest, split)
        labels = dataset.labels
        for start in range(0, len(dataset), READ_ROWS):
            raw, here = _raw_moments(dataset, slice(start, start + READ_ROWS)), labels[start : start + READ_ROWS]
            total = total.merge(raw(slice(None)))
            for label in np.unique(here):
                by_label[int(label)] = by_label.get(int(label), empty).merge(raw(here == label))
            if start % (READ_ROWS * 8) == 0:
                dataset.close()
        dataset.close()
    return total, by_label


def _raw_moments(dataset: Dataset, here: slice) -> Callable[[Any], ChannelMoments]:
    """The moments of some rows of a block, as they were before normalization."""
    stored = np.asarray(dataset.latents[here])
    raw = stored if stored.dtype == np.uint8 else dataset.denormalize(stored)
    if dataset.log_variances is None:
        return lambda rows: ChannelMoments.of(raw[rows])
    scale = np.array(dataset.normalization.scale)[:, None, None]
    log_variances = np.asarray(dataset.log_variances[here], np.float64) + 2 * np.log(scale)
    return lambda rows: ChannelMoments.of_posterior(raw[rows], log_variances[rows])


def _statistics_from_shards(folder: Folder, manifest: Manifest) -> Iterator[Fault]:
    moments, _ = moments_from_shards(folder, manifest)
    tolerance = shard_tolerance(manifest)
    if (np.abs(moments.mean - manifest.statistics.mean) > tolerance).any():
        yield Fault(MANIFEST, "statistics.mean is not that of the shards")
    if (np.abs(moments.std - manifest.statistics.std) > tolerance).any():
        yield Fault(MANIFEST, "statistics.std is not that of the shards")


def shard_tolerance(manifest: Manifest) -> NDArray[np.float64]:
    """How far mean and std from shards may be off, a channel: what rounding may have moved any one value by.

    Half a unit in the last place of the largest stored value, and of the raw one in float32. A log-variance that was
    clamped to [-30, 20] and rounded changes its standard deviation by half of its own rounding.
    """
    statistics, normalization = manifest.statistics, manifest.normalization
    std, scale = np.array(statistics.std), np.array(normalization.scale)
    exact = STD_TOLERANCE * np.maximum(std, np.maximum(np.abs(statistics.min), np.abs(statistics.max)))
    if manifest.view.dtype == "uint8":
        return np.asarray(exact)
    half_unit, smallest = {"float16": (2.0**-11, 2.0**-25), "float32": (2.0**-24, 2.0**-150)}[manifest.view.dtype]
    furthest = np.maximum(*(np.abs(np.array(v) - normalization.shift) for v in (statistics.min, statistics.max)))
    rounding = np.maximum(half_unit * furthest, smallest * scale)
    rounding += 2.0**-23 * np.maximum(np.abs(statistics.min), np.abs(statistics.max))
    if manifest.autoencoder.store == "moments":
        rounding += half_unit * (30 + 2 * np.abs(np.log(scale))) * std
    return np.asarray(1.01 * rounding + exact)
