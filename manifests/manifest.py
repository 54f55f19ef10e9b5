"""`manifest.json`: the description of a dataset."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from lvae.manifests import records
from lvae.manifests.errors import LvaeError
from lvae.manifests.parts.plan import (
    EARLIER,
    PLAN,
    AutoencoderRecord,
    ImageSettings,
    read_plan_if_whole,
    refuse_earlier_plan,
)
from lvae.manifests.parts.receipts import RECEIPTS
from lvae.manifests.shards.index import files_index_name, index_name, read_files_index, read_index
from lvae.manifests.shards.missing import explain_missing
from lvae.manifests.statistics import Normalization
from lvae.manifests.storage.folder import FileRecord, Folder
from lvae.manifests.storage.names import FileName, Sha256, SplitName, ViewName
from lvae.manifests.storage.open import folder_at, may_hold_a_dataset
from lvae.manifests.views.selection import Selection
from lvae.manifests.views.view import ViewSettings

MANIFEST = "manifest.json"
VERSION = "0.1.0"
WRITTEN_BY = f"latent-vae {VERSION}"
MOST = 1 << 48  # images, latents, or sides of something
INLINE_BYTES = {"classes": 32 << 10, "selection": 8 << 10}  # of JSON in the manifest itself


@dataclass(frozen=True)
class Source:
    kind: str
    images: int
    listing_sha256: Sha256


@dataclass(frozen=True)
class Counts:
    """latents = (images - rejected) x orientations; selected: latents in the view."""

    images: int
    rejected: int
    latents: int
    selected: int


@dataclass(frozen=True)
class View:
    name: ViewName
    seed: int
    selection: Selection
    dtype: Literal["float16", "float32", "uint8"]
    format: Literal["zarr", "webdataset"]
    shape: tuple[int, int, int]
    shard_size: int


@dataclass(frozen=True)
class Statistics:
    """Of the raw latents. `count` is in latents; the std is the population's. "constants": no data was seen."""

    over: str
    count: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    min: tuple[float, ...]
    max: tuple[float, ...]
    computed_from: Literal["raw", "shards", "constants"]


@dataclass(frozen=True)
class Split:
    """`count` latents in so many shards, which the index lists (manifests/shards/index.py)."""

    count: int
    shards: int
    index: FileRecord


@dataclass(frozen=True)
class FileEntry:
    bytes: int
    sha256: Sha256


@dataclass(frozen=True)
class Manifest:
    """What a dataset is. Field by field in docs/datasets.md.

    Of `classes` and `view.selection` a file of the view takes the place where they are large: see `large_fields`.
    """

    format: Literal["latent-vae-dataset"]
    version: Literal[1]
    written_by: str
    origin: Literal["images", "samples"]
    source: Source
    image: ImageSettings
    autoencoder: AutoencoderRecord
    classes: tuple[str, ...] | None
    id: Sha256
    counts: Counts
    raw: Literal["kept", "dropped"]
    view: View
    statistics: Statistics
    normalization: Normalization
    splits: dict[SplitName, Split]
    plan_sha256: Sha256
    files: dict[FileName, FileEntry]


def large_fields(view: str, classes: tuple[str, ...] | None, selection: Selection) -> dict[str, tuple[str, bytes]]:
    """The fields that do not stand in the manifest itself: by their name, the file that holds each and its bytes."""
    found: dict[str, tuple[str, bytes]] = {}
    for field, value in (("classes", classes), ("selection", selection)):
        data = records.dumps(value)
        if len(data) > INLINE_BYTES[field]:
            found[field] = (f"shards/{view}/{field}.json", data)
    return found


def dump_manifest(manifest: Manifest) -> bytes:
    content = records.plain(manifest)
    for field, (path, data) in large_fields(manifest.view.name, manifest.classes, manifest.view.selection).items():
        place = content if field == "classes" else content["view"]
        place[field] = {"path": path, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    return records.signed(content)


def no_dataset(folder: Folder, where: object, problem: str = "is not a dataset") -> LvaeError:
    """What to say of a folder without a dataset: perhaps a run stands where a dataset belongs."""
    if _is_run(folder):
        return LvaeError(
            where, "is a run, not a dataset", "Give a folder that 'lvae encode' made, or open it as a Run."
        )
    return LvaeError(where, problem, "Make one with 'lvae encode SOURCE DATASET'.")


def _is_run(folder: Folder) -> bool:
    return folder.exists("config.json") and folder.exists("metrics.jsonl")


def read_manifest(folder: Folder) -> Manifest | None:
    """The manifest of a folder, None where it has none; LvaeError where it is damaged or of a later version."""
    data = folder.read_if_there(MANIFEST)
    if data is None:
        return None
    where = folder.place(MANIFEST)
    content = records.loads(data, where)
    if not isinstance(content, dict) or content.get("format") != "latent-vae-dataset":
        raise LvaeError(where, "does not describe a latent-vae dataset")
    if content.get("version") != 1:
        raise LvaeError(where, f"has version {content.get('version')}, and this program reads 1", "Update latent-vae.")
    _refuse_earlier_format(content, where)
    advice = "Run 'lvae encode' again to make it anew."
    manifest = records.parse_signed(Manifest, data, where, advice, lambda content: _read_large_fields(folder, content))
    for split, entry in manifest.splits.items():
        if entry.index.path != index_name(manifest.view.name, split):
            raise records.FormError(where, f"splits.{split} names {entry.index.path!r}, which is no index of the view")
    _check_numbers(manifest, where)
    return manifest


def _check_numbers(manifest: Manifest, where: str) -> None:
    """LvaeError where numbers cannot be those of any dataset."""
    image, autoencoder, view = manifest.image, manifest.autoencoder, manifest.view
    sizes = (*view.shape, view.shard_size, image.size, autoencoder.downsampling_factor, autoencoder.latent_channels)
    counts = (*records.plain(manifest.counts).values(), *(split.count for split in manifest.splits.values()))
    if min(sizes) < 1 or min(counts) < 0 or max(*sizes, *counts) >= MOST:
        raise LvaeError(where, "has sizes or counts that no dataset has", "Do not use these files.")
    normalization, found = manifest.normalization, manifest.statistics
    lists = (normalization.shift, normalization.scale, found.mean, found.std, found.min, found.max)
    if {len(values) for values in lists} != {view.shape[0]} or min(normalization.scale) <= 0:
        problem = f"its normalization or statistics are not those of latents of {view.shape[0]} channels"
        raise LvaeError(where, problem, "Do not use these files.")


def _read_large_fields(folder: Folder, content: Any) -> None:
    """Put in what files of the view hold."""
    view = content.get("view")
    for field, place in (("classes", content), ("selection", view)):
        value = place.get(field) if isinstance(place, dict) else None
        if isinstance(place, dict) and isinstance(value, dict) and "path" in value:
            record = records.from_plain(FileRecord, value, f"{folder.place(MANIFEST)}.{field}")
            if record.path != f"shards/{view.get('name') if isinstance(view, dict) else None}/{field}.json":
                raise records.FormError(
                    folder.place(MANIFEST), f"{field} names {record.path!r}, not a file of the view"
                )
            data = folder.read_if_there(record.path) or b""
            if (len(data), hashlib.sha256(data).hexdigest()) != (record.bytes, record.sha256):
                advice = "Run 'lvae encode' again to make it anew."
                raise explain_missing(folder, record.path, "is missing or damaged", advice)
            place[field] = records.loads(data, folder.place(record.path))


def _refuse_earlier_format(content: Any, where: str) -> None:
    splits = content.get("splits") if isinstance(content, dict) else None
    if isinstance(splits, dict) and any(isinstance(one, dict) and "index" not in one for one in splits.values()):
        raise LvaeError(where, EARLIER, "Make the dataset anew with 'lvae encode', in another folder.")


def refuse_earlier_format(folder: Folder) -> None:
    """LvaeError where a folder holds a dataset as this program wrote it before its first release."""
    for name, refuse in ((MANIFEST, _refuse_earlier_format), (PLAN, refuse_earlier_plan)):
        data = folder.read_if_there(name)
        try:
            content = None if data is None else records.loads(data, name)
        except LvaeError:
            continue  # damaged: whoever reads it says so
        refuse(content, folder.place(name))


def every_file(folder: Folder, manifest: Manifest) -> Iterator[FileRecord]:
    """Every file that the manifest answers for, itself or through an index, but the raw parts and their receipts.

    LvaeError where an index is not the one that was written.
    """
    files_index = files_index_name(manifest.view.name)
    for name, entry in sorted(manifest.files.items()):
        record = FileRecord(name, entry.bytes, entry.sha256)
        if name != RECEIPTS:
            yield record
        if name == files_index:
            yield from read_files_index(folder, record)
    for split in manifest.splits.values():
        for shard in read_index(folder, split.index):
            yield from shard.files


def read_manifest_if_whole(folder: Folder) -> Manifest | None:
    """The manifest, None also where it is damaged."""
    try:
        return read_manifest(folder)
    except records.FormError:
        raise
    except LvaeError:
        return None


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


def unfinished_append(folder: Folder) -> int:
    """How many images are being added to a dataset, which is whole without them until its manifest names them."""
    manifest, plan = read_manifest_if_whole(folder), read_plan_if_whole(folder)
    before = plan.before_append(manifest.plan_sha256) if plan is not None and manifest is not None else None
    return plan.listing.images - before.listing.images if plan is not None and before is not None else 0


def is_dataset(path: str) -> bool:
    """Whether a dataset lies at a path or URL. Stores without conditional writes hold sources, never datasets."""
    return may_hold_a_dataset(path) and folder_at(path).exists(MANIFEST)
