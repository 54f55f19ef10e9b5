"""Complete little datasets, made in this process from seeded raw latents.

By default 95 images in parts of 20, each with its mirror: five parts, the last one short, part 2 wholly rejected, three
images rejected elsewhere; three classes and some unlabelled images; 144 latents of four unlike channels.
"""

import hashlib
import io
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lvae.manifests import records
from lvae.manifests.dataset import Dataset
from lvae.manifests.manifest import Manifest, dump_manifest, read_manifest
from lvae.manifests.parts.erased_rows import ErasedRows
from lvae.manifests.parts.plan import AutoencoderRecord, Encoding, ImageSettings, Origin, Plan, write_plan
from lvae.manifests.parts.receipts import (
    RECEIPTS,
    Receipt,
    Rejection,
    raw_name,
    read_receipt,
    receipt_name,
    receipts,
    write_part,
)
from lvae.manifests.parts.rows import ImageRow, Listing, Segment, write_rows
from lvae.manifests.publishing.publish import WrittenView, describe, swap
from lvae.manifests.shards.formats import codec
from lvae.manifests.shards.index import Shard, write_index
from lvae.manifests.storage.folder import FileRecord, Folder
from lvae.manifests.verify.verify import verify
from lvae.manifests.views.combine import Selected, select
from lvae.manifests.views.gather import write_shard
from lvae.manifests.views.index_pieces import join_index, write_index_piece
from lvae.manifests.views.selection import Selection, resolve_selection
from lvae.manifests.views.view import (
    ShardReceipt,
    ViewPlan,
    ViewSettings,
    finished_shard,
    plan_view,
    remove_unfinished_shards,
    write_view,
)

CLASSES = ("cat", "dog", "猫")
OFFSETS = np.array([0.5, -3.0, 20.0, 0.0])
SCALES = np.array([1.0, 4.0, 0.5, 0.02])
REJECTED = frozenset({3, 7, *range(40, 60), 81})


@dataclass(frozen=True)
class Contents:
    """What a dataset is made of. `rejected`: rows. `scales`: of every channel's seeded normal values."""

    images: int = 95
    part_size: int = 20
    rejected: frozenset[int] = REJECTED
    classes: tuple[str, ...] | None = CLASSES
    mirrored: bool = True
    store: str = "mode"
    pixels: bool = False
    seed: int = 0
    offsets: tuple[float, ...] = tuple(OFFSETS)
    scales: tuple[float, ...] = tuple(SCALES)

    @property
    def orientations(self) -> int:
        return 2 if self.mirrored else 1

    @property
    def parts(self) -> int:
        return -(-self.images // self.part_size)


@dataclass(frozen=True)
class Example:
    """A dataset, and what it was made of: the raw latents of every part, as they are kept."""

    root: Path
    contents: Contents
    plan: Plan
    settings: ViewSettings
    rows: list[ImageRow]
    raw: list[NDArray[Any]]

    @property
    def folder(self) -> Folder:
        return Folder(self.root)

    @property
    def manifest(self) -> Manifest:
        manifest = read_manifest(self.folder)
        assert manifest is not None
        return manifest

    @property
    def stored_rows(self) -> list[int]:
        """The row of every raw latent, in part order."""
        good = (row for row in range(self.contents.images) if row not in self.contents.rejected)
        return [row for row in good for _ in range(self.contents.orientations)]

    @property
    def means(self) -> NDArray[Any]:
        """All raw latents in part order, without log-variances: (n, C, h, w)."""
        return np.concatenate(self.raw)[:, : self.plan.encoded().latent_shape[0]]

    def open(self, split: str = "train") -> Dataset:
        return Dataset.open(self.root, split)


def receipts_record(folder: Folder, parts: int) -> FileRecord:
    """All receipts as one file: their bytes together, and the hash of their sorted hashes."""
    hashes, total = [], 0
    for record in folder.each(folder.record, map(receipt_name, range(parts))):
        hashes.append(record.sha256)
        total += record.bytes
    return FileRecord(RECEIPTS, total, hashlib.sha256("".join(sorted(hashes)).encode()).hexdigest())


def rows_of(contents: Contents) -> list[ImageRow]:
    """Every third image or so is of each class, every seventh is unlabelled."""
    labels = [-1 if contents.classes is None or row % 7 == 6 else row % 3 for row in range(contents.images)]
    return [ImageRow(f"{row % 3}/ü{row:05d}.png", "", 0, 100 + row, "", label) for row, label in enumerate(labels)]


def encoding_of(contents: Contents) -> Encoding:
    return Encoding(
        image=ImageSettings(4 if contents.pixels else 16, "adm", "box, bicubic", contents.mirrored, (-1.0, 1.0)),
        autoencoder=AutoencoderRecord(
            name="pixels" if contents.pixels else "kl-f8",
            architecture={"kind": "pixels" if contents.pixels else "kl"},
            weights_sha256=None if contents.pixels else "5" * 64,
            downsampling_factor=1 if contents.pixels else 8,
            latent_channels=3 if contents.pixels else 4,
            store=contents.store,  # type: ignore[arg-type]
        ),
        seed=0,
        batch=8,
        precision="float32",
        threads=1,
    )


def plan_of(folder: Folder, contents: Contents, source: str = "images") -> Plan:
    """Writes the rows and the plan."""
    images, sha256 = write_rows(folder, rows_of(contents), contents.part_size)
    listing = Listing((Segment("folder", images, sha256, contents.part_size, contents.classes),))
    plan = Plan(
        format="latent-vae-plan",
        version=1,
        origins=(Origin(source, None, "source"),),
        listing=listing,
        erased=ErasedRows(),
        encoding=encoding_of(contents),
    )
    write_plan(folder, plan)
    return plan


def raw_of(contents: Contents, plan: Plan, part: int) -> NDArray[Any]:
    """The raw latents of one part: (n, C, h, w), means then log-variances where both are kept."""
    place = plan.listing.place(part)
    rows = range(place.first_row, place.first_row + place.rows)
    count = sum(row not in contents.rejected for row in rows) * contents.orientations
    random = np.random.default_rng([contents.seed, part])
    channels, height, width = plan.encoded().latent_shape
    if contents.pixels:
        return random.integers(0, 256, (count, channels, height, width), np.uint8)
    offsets, scales = (np.array(values)[:, None, None] for values in (contents.offsets, contents.scales))
    means = random.standard_normal((count, channels, height, width)) * scales + offsets
    if contents.store != "moments":
        return means.astype(np.float32)
    return np.concatenate([means, random.uniform(-6, 0, means.shape)], axis=1).astype(np.float32)


def rewrite_raw(folder: Folder, contents: Contents, plan: Plan, part: int, raw: NDArray[Any]) -> Receipt:
    """Other raw latents of a part that may be finished."""
    folder.remove(receipt_name(part))
    return write_raw(folder, contents, plan, part, raw)


def write_raw(folder: Folder, contents: Contents, plan: Plan, part: int, raw: NDArray[Any]) -> Receipt:
    """One attempt at a part."""
    place = plan.listing.place(part)
    first = place.first_row
    rows = rows_of(contents)[first : first + place.rows]
    rejected = [
        Rejection(number, row.key, "not an image")
        for number, row in enumerate(rows, first)
        if number in contents.rejected
    ]
    return write_part(folder, plan, part, raw, rejected, f"{part:064x}")


def encode(root: Path, contents: Contents | None = None, **changes: Any) -> Example:
    """A dataset whose parts are finished, without a view."""
    contents = replace(contents or Contents(), **changes)
    folder = Folder(root)
    plan = plan_of(folder, contents)
    if plan.encoded().autoencoder.weights_file is not None:
        folder.write(str(plan.encoded().autoencoder.weights_file), b"weights")
    raw = [raw_of(contents, plan, part) for part in range(contents.parts)]
    for part, latents in enumerate(raw):
        rewrite_raw(folder, contents, plan, part, latents)
    folder.write(
        "rejected.jsonl", b"".join(records.line(one) for part in receipts(folder, plan) for one in part.rejected)
    )
    return Example(root, contents, plan, ViewSettings(), rows_of(contents), raw)


def planned(example: Example, settings: ViewSettings) -> tuple[Selected, ViewPlan]:
    """What `write_shard` needs: the order files are in place afterwards."""
    folder, plan = example.folder, example.plan
    selected = select(folder, plan, settings.selection)
    assert selected.receipts == receipts_record(folder, plan.listing.parts)
    return selected, plan_view(plan, settings, selected, selected.receipts.sha256)


def settings_of(example: Example, **changes: Any) -> ViewSettings:
    """View settings; what `resolve_selection` takes is given to it."""
    selecting = {
        name: changes.pop(name)
        for name in ("only_classes", "without_classes", "without_keys", "limit", "split") & changes.keys()
    }
    selection = resolve_selection(example.contents.classes, **selecting) if selecting else Selection()
    return ViewSettings(**({"selection": selection, "shard_size": 64} | changes))


def shard(example: Example, keep_old: bool = False, **changes: Any) -> Example:
    """Write a view as `lvae shard` does, and make it the dataset's own."""
    folder, plan, settings = example.folder, example.plan, settings_of(example, **changes)
    selected, view = planned(example, settings)
    write_view(folder, view)
    remove_unfinished_shards(folder, view)
    metadata = [
        record.path
        for layout in view.layouts.values()
        for record in codec(view.settings.format).prepare(folder, view.name, layout)
    ]
    for split, number in pending_shards(folder, view):
        write_shard(folder, plan, view, split, number)
    for split in view.layouts:
        write_index_piece(folder, view, split, 0)
    indices = {split: join_index(folder, view, split) for split in view.layouts}
    swap(folder, describe(folder, plan, settings, selected, WrittenView(view, metadata, indices)), keep_old)
    folder.sweep()
    return replace(example, settings=settings)


def pending_shards(folder: Folder, view: ViewPlan) -> list[tuple[str, int]]:
    """(split, number) of every shard that has no receipt of this view."""
    shards = [(split, number) for split, layout in view.layouts.items() for number in range(layout.shards)]
    return [shard for shard in shards if finished_shard(folder, view, *shard) is None]


def build(root: Path, contents: Contents | None = None, **settings: Any) -> Example:
    """A whole dataset. `settings` are those of its view."""
    return shard(encode(root, contents), **settings)


def shards_of(root: Path, split: str = "train") -> list[Shard]:
    """What the index of a split lists, true or not."""
    manifest = read_manifest(Folder(root))
    assert manifest is not None
    lines = (root / manifest.splits[split].index.path).read_bytes().splitlines()
    return [records.parse(Shard, line, "index") for line in lines]


def files_of(root: Path) -> dict[str, bytes]:
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def flip(path: Path, byte: int, bit: int) -> None:
    data = bytearray(path.read_bytes())
    data[byte] ^= 1 << bit
    path.write_bytes(data)


def problems(root: Path, deep: bool = True) -> list[str]:
    return [f"{fault.where}: {fault.problem}" for fault in verify(Folder(root), deep)]


# --- forging: changes that every checksum agrees with ----------------------------------------------------------------


def resign(root: Path, change: Callable[[dict[str, Any]], None] = lambda _: None) -> None:
    """Change the manifest, and give it the hashes of the files as they are now and a self_sha256 that is right."""
    folder = Folder(root)
    manifest = read_manifest(folder)
    assert manifest is not None
    content = records.plain(manifest)
    for name, split in manifest.splits.items():
        shards = [replace(shard, **_now(folder, shard)) for shard in shards_of(root, name)]
        content["splits"][name]["index"] = records.plain(write_index(folder, split.index.path, shards))
    parts = len(list((root / "raw").glob("*/part-*.json")))
    for name in content["files"]:
        record = receipts_record(folder, parts) if "*" in name else folder.record(name)
        content["files"][name] = {"bytes": record.bytes, "sha256": record.sha256}
    change(content)
    (root / "manifest.json").write_bytes(dump_manifest(records.from_plain(Manifest, content, "forged")))


def _now(folder: Folder, shard: Shard) -> dict[str, Any]:
    """Size and hash of a shard's files."""
    latents, *beside = (folder.record(file.path) for file in shard.files)
    return {"bytes": latents.bytes, "sha256": latents.sha256, "beside": tuple(beside)}


def forge_raw(root: Path, part: int, raw: NDArray[Any]) -> None:
    """Other raw latents under the receipt of a part, whose hash is right; its moments stay."""
    folder = Folder(root)
    receipt = read_receipt(folder, part)
    assert receipt is not None
    file = io.BytesIO()
    np.save(file, raw)
    folder.remove(receipt.raw.path)
    record = folder.write("raw/forged", file.getvalue())
    name = raw_name(part, record.sha256)
    (root / "raw/forged").rename(root / name)
    content = json.loads(folder.read(receipt_name(part))) | {"raw": records.plain(replace(record, path=name))}
    if content.pop("self_sha256", None) is not None:
        content["self_sha256"] = records.sha256_of(content)
    folder.write(receipt_name(part), records.dumps(content))
    resign(root)


def forge_shard(root: Path, name: str, data: bytes) -> None:
    """Another file of a shard, with a receipt and a manifest that say it is right."""
    folder = Folder(root)
    record = folder.write(name, data)
    for path in (root / "shards").glob("*/shard-*.json"):
        receipt = records.parse(ShardReceipt, path.read_bytes(), path.name)
        if any(file.path == name for file in receipt.files):
            files = tuple(record if file.path == name else file for file in receipt.files)
            path.write_bytes(records.dumps(replace(receipt, files=files)))
    resign(root)
