"""`manifest.json`: the description of a dataset."""

from dataclasses import dataclass
from typing import Literal

from lvae.manifests import records
from lvae.manifests.errors import LvaeError
from lvae.manifests.parts.plan import AutoencoderRecord, ImageSettings, read_plan_if_whole
from lvae.manifests.statistics import Normalization
from lvae.manifests.storage.folder import Folder
from lvae.manifests.storage.names import FileName, Sha256, SplitName, ViewName
from lvae.manifests.storage.open import folder_at
from lvae.manifests.views.selection import Selection
from lvae.manifests.views.view import ViewSettings

MANIFEST = "manifest.json"


VERSION = "0.1.0"


WRITTEN_BY = f"latent-vae {VERSION}"


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
class Shard:
    """`path` and what follows are those of the file that holds the latents."""

    path: FileName
    count: int
    bytes: int
    sha256: Sha256


@dataclass(frozen=True)
class Split:
    count: int
    shards: tuple[Shard, ...]


@dataclass(frozen=True)
class FileEntry:
    bytes: int
    sha256: Sha256


@dataclass(frozen=True)
class Manifest:
    """What a dataset is. Field by field in docs/datasets.md."""

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


def dump_manifest(manifest: Manifest) -> bytes:
    return records.signed(manifest)


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
    return records.parse_signed(Manifest, data, where, "Run 'lvae encode' again to make it anew.")


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
    """Whether a dataset lies at a path or URL. Web servers hold sources, never datasets."""
    return not path.startswith(("http://", "https://")) and folder_at(path).exists(MANIFEST)
