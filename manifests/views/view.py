"""Views: selected latents, normalized, in seeded order, in shards.

`plan_view` decides everything in the process that submits the job. `write_shard` runs anywhere: shard s of a split
holds the entries at permutation[s*S : (s+1)*S], so every shard is a fair sample of the whole.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lvae.manifests import records
from lvae.manifests.errors import LvaeError
from lvae.manifests.parts.plan import Encoding, Plan
from lvae.manifests.parts.receipts import load_array, raw_name
from lvae.manifests.parts.rows import UNLABELLED, RowReader
from lvae.manifests.remote_rows import WantedRows, read_rows
from lvae.manifests.seeds import permute
from lvae.manifests.shards.layout import ShardContent, SplitLayout, codec
from lvae.manifests.statistics import Kind, Normalization
from lvae.manifests.storage.folder import FileRecord, Folder
from lvae.manifests.views.order import ENTRY, OFFSETS, RAW_HASHES, Selected, entries_file
from lvae.manifests.views.selection import Selection

WINDOW_ENTRIES = 1 << 19  # of the order, mapped at a time: 11 MB
NORMALIZE_ROWS = 256  # latents whose float64 copy is held at a time


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

    name: str
    settings: ViewSettings
    normalization: Normalization
    layouts: dict[str, SplitLayout]
    sha256: str


@dataclass(frozen=True)
class ShardReceipt:
    """What became of one shard; the file of its latents comes first."""

    format: Literal["latent-vae-shard"]
    version: Literal[1]
    view_sha256: str
    split: str
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
        raise LvaeError("--dtype uint8: only pixels are stored as bytes. Choose float16 or float32.")
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
        raise LvaeError(f"{path}: is missing. Run 'lvae encode' again to make it anew.")
    return records.parse(ViewPlan, data, path)


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


class RawLatents:
    """All raw latents of a dataset as one run of numbers, read from the parts as needed."""

    def __init__(self, folder: Folder, encoding: Encoding, order: Folder):
        self._folder, self._encoding = folder, encoding
        self._offsets = np.memmap(order.local(OFFSETS), "<i8", "r")
        self._hashes = np.memmap(order.local(RAW_HASHES), "S8", "r")

    def normalized(
        self, indices: NDArray[np.int64], normalization: Normalization, dtype: str
    ) -> tuple[NDArray[Any], NDArray[Any] | None]:
        """Latents (n, C, h, w) in this order, and log-variances where they are kept.

        Each part is read once, forwards.
        """
        channels, height, width = self._encoding.latent_shape
        moments = self._encoding.autoencoder.store == "moments"
        latents = np.empty((len(indices), channels, height, width), dtype)
        log_variances = np.empty_like(latents) if moments else None
        order = np.argsort(indices, kind="stable")
        start = 0
        for block in self._blocks(indices[order]):
            here = order[start : start + len(block)]
            start += len(block)
            if log_variances is not None:
                log_variances[here] = normalization.normalize_log_variances(block[:, channels:], dtype)
                block = block[:, :channels]
            latents[here] = block if dtype == "uint8" else normalization.normalize(block, dtype)
        return latents, log_variances

    def _blocks(self, ascending: NDArray[np.int64]) -> Iterator[NDArray[Any]]:
        """Raw latents in this order, NORMALIZE_ROWS at most at a time."""
        bounds = np.searchsorted(ascending, self._offsets)
        parts = np.flatnonzero(np.diff(bounds)).tolist()
        rows = (ascending[bounds[part] : bounds[part + 1]] - self._offsets[part] for part in parts)
        if self._folder.remote:
            wanted = (WantedRows(self._name(part), self._count(part), of) for part, of in zip(parts, rows, strict=True))
            for block in read_rows(self._folder, wanted, self._encoding.raw_shape, self._encoding.raw_dtype):
                for start in range(0, len(block), NORMALIZE_ROWS):
                    yield block[start : start + NORMALIZE_ROWS]
            return
        for part, of in zip(parts, rows, strict=True):
            raw = self._mapped(part)
            for start in range(0, len(of), NORMALIZE_ROWS):
                yield raw[of[start : start + NORMALIZE_ROWS]]

    def _name(self, part: int) -> str:
        return raw_name(part, bytes(self._hashes[part]).decode())

    def _count(self, part: int) -> int:
        return int(self._offsets[part + 1] - self._offsets[part])

    def _mapped(self, part: int) -> NDArray[Any]:
        raw = load_array(self._folder.local(self._name(part)), True)
        if raw.shape != (self._count(part), *self._encoding.raw_shape):
            raise LvaeError(
                f"{self._folder.place(self._name(part))}: holds an array of shape {raw.shape}. "
                "Run 'lvae encode' again to make it anew."
            )
        return raw


def shard_content(
    folder: Folder, plan: Plan, view: ViewPlan, split: str, number: int, order: Folder | None = None
) -> ShardContent:
    """What a shard holds, gathered from the raw parts. `order`: where `select` put the order files."""
    order = order or folder
    layout = view.layouts[split]
    first, count = layout.rows_of(number)
    positions = permute(np.arange(first, first + count), layout.count, view.settings.seed, f"order/{split}")
    chosen = _entries(order.local(entries_file(split)), positions)
    raw = RawLatents(folder, plan.encoded(), order)
    latents, log_variances = raw.normalized(chosen["raw"], view.normalization, layout.dtype)
    keys = _keys(folder, plan, chosen["row"]) if layout.json_width else []
    labels, rows, mirrored = (np.ascontiguousarray(chosen[name]) for name in ("label", "row", "mirrored"))
    return ShardContent(latents, log_variances, labels, rows, mirrored, keys)


def _entries(path: Path, positions: NDArray[np.int64]) -> NDArray[np.void]:
    """The entries at these positions, in this order. The file is mapped a window at a time."""
    chosen = np.empty(len(positions), ENTRY)
    order = np.argsort(positions)
    ascending = positions[order]
    start = 0
    while start < len(order):
        first = ascending[start] // WINDOW_ENTRIES * WINDOW_ENTRIES
        stop = int(np.searchsorted(ascending, first + WINDOW_ENTRIES))
        size = min(WINDOW_ENTRIES, path.stat().st_size // ENTRY.itemsize - first)
        window = np.memmap(path, ENTRY, "r", first * ENTRY.itemsize, (size,))
        chosen[order[start:stop]] = window[ascending[start:stop] - first]
        start = stop
    return chosen


def _keys(folder: Folder, plan: Plan, rows: NDArray[np.int64]) -> list[str]:
    reader = RowReader(folder, plan.listing)
    keys = [""] * len(rows)
    order = np.argsort(rows, kind="stable")
    parts = plan.listing.parts_of(rows[order])
    for part in np.unique(parts):
        wanted = order[parts == part]
        local = rows[wanted] - plan.listing.place(int(part)).first_row
        for position, key in zip(wanted, reader.keys(int(part)).take(pa.array(local)).to_pylist(), strict=True):
            keys[position] = key
    return keys


def shard_receipt_name(view: str, split: str, number: int) -> str:
    return f"shards/{view}/shard-{split}-{number:06d}.json"


def write_shard(folder: Folder, plan: Plan, view: ViewPlan, split: str, number: int) -> ShardReceipt:
    """Gather, write and sign for one shard."""
    content = shard_content(folder, plan, view, split, number)
    files = codec(view.settings.format).write_shard(folder, view.name, view.layouts[split], number, content)
    receipt = ShardReceipt("latent-vae-shard", 1, view.sha256, split, number, len(content.rows), tuple(files))
    folder.write(shard_receipt_name(view.name, split, number), records.dumps(receipt))
    return receipt


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
    return receipt if all(folder.size(file.path) == file.bytes for file in receipt.files) else None
