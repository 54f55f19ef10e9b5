"""Views: selected latents, normalized, in seeded order, in shards.

`plan_view` decides everything in the process that submits the job. `write_shard` runs anywhere: shard s of a split
holds the entries at permutation[s*S : (s+1)*S], so every shard is a fair sample of the whole.
"""

import hashlib
from dataclasses import dataclass, field
from typing import Literal

from lvae.manifests import records
from lvae.manifests.errors import LvaeError
from lvae.manifests.parts.plan import Plan
from lvae.manifests.parts.rows import UNLABELLED
from lvae.manifests.shards.formats import codec
from lvae.manifests.shards.index import Shard
from lvae.manifests.shards.layout import SplitLayout, shard_folder
from lvae.manifests.shards.missing import explain_missing
from lvae.manifests.statistics import Kind, Normalization
from lvae.manifests.storage.folder import FileRecord, Folder
from lvae.manifests.storage.names import Sha256, SplitName, ViewName
from lvae.manifests.views.combine import Selected
from lvae.manifests.views.selection import Selection


@dataclass(frozen=True)
class ViewSettings:
    """What a user decides of a view. `shift` and `scale` belong to the kind "given"."""

    normalization: Kind = "channel"
    shift: tuple[float, ...] | None = None
    scale: tuple[float, ...] | None = None
    format: Literal["zarr", "webdataset"] = "zarr"
    dtype: Literal["float16", "float32", "uint8"] = "float16"
    shard_size: int = 8192
    seed: int = 0
    selection: Selection = field(default_factory=Selection)

    def name(self, plan: Plan) -> str:
        """Made from the settings and the listing, so that another view never lies where this one does."""
        digest = records.sha256_of({"settings": self, "plan": plan.sha256})
        return f"{self.normalization}-{self.format}-{self.dtype}-{digest[:8]}"


@dataclass(frozen=True)
class ViewPlan:
    """A view about to be written: all that `write_shard` needs beside the order files.

    sha256: over everything that decides the shards' bytes; a shard's receipt repeats it.
    """

    name: ViewName
    settings: ViewSettings
    normalization: Normalization
    layouts: dict[SplitName, SplitLayout]
    sha256: Sha256


@dataclass(frozen=True)
class ShardReceipt:
    """What became of one shard; the file of its latents comes first."""

    format: Literal["latent-vae-shard"]
    version: Literal[1]
    view_sha256: Sha256
    split: SplitName
    number: int
    count: int
    files: tuple[FileRecord, ...]


def plan_view(plan: Plan, settings: ViewSettings, selected: Selected, raw_sha256: str) -> ViewPlan:
    """Everything that decides the shards, from the settings and what `select` found.

    raw_sha256: of the receipts. Shards made from other raw latents are never taken for these.
    """
    encoding = plan.encoded()
    shape = encoding.latent_shape
    if settings.dtype == "uint8" and not encoding.autoencoder.pixels:
        raise LvaeError("--dtype uint8", "only pixels are stored as bytes", "Choose float16 or float32.")
    if settings.normalization == "given":
        normalization = Normalization.given(settings.shift or (), settings.scale or (), shape[0])
    else:
        normalization = Normalization.of(settings.normalization, selected.moments)
    label_width = max(2, len(str(selected.largest_label)))  # two for -1
    json_width = codec(settings.format).json_width(plan.listing.images, [selected.longest_key])
    layouts = {
        split: SplitLayout(
            split=split,
            count=count,
            shape=shape,
            dtype=settings.dtype,
            shard_size=settings.shard_size,
            log_variances=encoding.autoencoder.store == "moments",
            labelled=selected.largest_label != UNLABELLED,
            label_width=label_width,
            json_width=json_width,
        )
        for split, count in selected.counts.items()
    }
    decided = {"settings": settings, "layouts": layouts, "normalization": normalization, "raw": raw_sha256}
    digest = records.sha256_of({**decided, "entries": selected.entries_sha256})
    return ViewPlan(settings.name(plan), settings, normalization, layouts, digest)


def view_file(name: str) -> str:
    return f"shards/{name}/view.json"


def write_view(folder: Folder, view: ViewPlan) -> None:
    folder.write(view_file(view.name), records.dumps(view))


def read_view(folder: Folder, name: str) -> ViewPlan:
    """How the shards of a view lie; LvaeError where that is missing or damaged."""
    path = folder.place(view_file(name))
    data = folder.read_if_there(view_file(name))
    if data is None:
        raise explain_missing(folder, view_file(name), "is missing", "Run 'lvae encode' again to make it anew.")
    view = records.parse(ViewPlan, data, path)
    if view.name != name or any(split != layout.split for split, layout in view.layouts.items()):
        raise LvaeError(path, "is the description of another view", "Run 'lvae encode' again to make it anew.")
    return view


def view_id(plan: Plan, settings: ViewSettings, selected: Selected, normalization: Normalization) -> str:
    """What a trainer sees: the rows and their order, how they were made and normalized; not the format or the place."""
    encoding = plan.encoded()
    return records.sha256_of(
        {
            "listing": plan.listing.sha256,
            "entries": selected.entries_sha256,
            "seed": settings.seed,
            "image": encoding.image,
            "autoencoder": encoding.autoencoder,
            "normalization": normalization,
            "dtype": settings.dtype,
            "classes": selected.classes,
        }
    )


def shard_entry(view: str, receipt: ShardReceipt) -> Shard:
    """What the index says of a finished shard."""
    latents, *others = receipt.files
    data = records.dumps(receipt)
    name = shard_receipt_name(view, receipt.split, receipt.number)
    own = FileRecord(name, len(data), hashlib.sha256(data).hexdigest())
    return Shard(latents.path, receipt.count, latents.bytes, latents.sha256, (*others, own))


def shard_receipt_name(view: str, split: str, number: int) -> str:
    return f"{shard_folder(view, split, number)}/shard-{split}-{number:06d}.json"


def finished_shard(folder: Folder, view: ViewPlan, split: str, number: int) -> ShardReceipt | None:
    """The receipt of a shard that need not be written again: made by this very plan, and its files have their sizes."""
    name = shard_receipt_name(view.name, split, number)
    data = folder.read_if_there(name)
    if data is None:
        return None
    try:
        receipt = records.parse(ShardReceipt, data, name)
    except LvaeError:
        return None  # a damaged receipt is no receipt: the shard is written again
    if (receipt.view_sha256, receipt.split, receipt.number) != (view.sha256, split, number):
        return None
    own = codec(view.settings.format).shard_files(view.name, view.layouts[split], number)
    if [file.path for file in receipt.files] != own:
        return None
    return receipt if all(folder.size(file.path) == file.bytes for file in receipt.files) else None


def create_shard_receipt(folder: Folder, view: ViewPlan, receipt: ShardReceipt) -> ShardReceipt:
    """Sign for a shard that is written; the first receipt stays."""
    name = shard_receipt_name(view.name, receipt.split, receipt.number)
    if folder.create(name, records.dumps(receipt)):
        return receipt
    first = finished_shard(folder, view, receipt.split, receipt.number)
    if first is None:
        raise LvaeError(folder.place(name), "is damaged, or of another view", "Run the same command again to go on.")
    return first


def has_shard_receipt(folder: Folder, view: ViewPlan, split: str, number: int) -> bool:
    """Whether a shard has a receipt, whatever that says: what does not count is removed before a job."""
    return folder.size(shard_receipt_name(view.name, split, number)) is not None


def shard_of(view: ViewPlan, number: int) -> tuple[str, int]:
    """Split and number of a shard; those of all splits are numbered one behind the other."""
    for split, layout in view.layouts.items():
        if number < layout.shards:
            return split, number
        number -= layout.shards
    raise IndexError("there is no such shard")


def remove_unfinished_shards(folder: Folder, view: ViewPlan) -> None:
    """Make way for the shards that are still to be written. For the holder of the lock, before a job."""
    there = set(folder.names(f"shards/{view.name}"))
    shards = [(split, number) for split, layout in view.layouts.items() for number in range(layout.shards)]
    signed = [shard for shard in shards if shard_receipt_name(view.name, *shard) in there]
    found = folder.each(lambda shard: finished_shard(folder, view, *shard), signed)
    finished = {shard for shard, receipt in zip(signed, found, strict=True) if receipt is not None}
    for split, number in shards if there else ():
        if (split, number) not in finished:
            own = codec(view.settings.format).shard_files(view.name, view.layouts[split], number)
            for name in there.intersection([shard_receipt_name(view.name, split, number), *own]):
                folder.remove(name)
