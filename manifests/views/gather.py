"""The content of one shard, gathered from the raw parts."""

import math
import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from lvae.manifests.errors import LvaeError
from lvae.manifests.parts.plan import Encoding, Plan
from lvae.manifests.parts.receipts import array_header, load_array, raw_name
from lvae.manifests.seeds import permute
from lvae.manifests.shards.formats import codec
from lvae.manifests.shards.layout import ShardContent
from lvae.manifests.statistics import Normalization
from lvae.manifests.storage.folder import Folder
from lvae.manifests.views.order import OFFSETS, RAW_HASHES, Order
from lvae.manifests.views.view import ShardReceipt, ViewPlan, create_shard_receipt

NORMALIZE_ROWS = 256  # latents whose float64 copy is held at a time


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
            for start in range(0, len(of), NORMALIZE_ROWS):
                yield self._rows(part, of[start : start + NORMALIZE_ROWS])

    def _name(self, part: int) -> str:
        return raw_name(part, bytes(self._hashes[part]).decode())

    def _count(self, part: int) -> int:
        return int(self._offsets[part + 1] - self._offsets[part])

    def _rows(self, part: int, rows: NDArray[np.int64]) -> NDArray[Any]:
        """Ascending rows of a part: a few among many, so that mapping it would take longer than reading them."""
        shape, dtype = (self._count(part), *self._encoding.raw_shape), np.dtype(self._encoding.raw_dtype)
        header, wanted = array_header(shape, dtype), WantedRows(self._name(part), shape[0], rows)
        row_bytes = math.prod(shape[1:]) * dtype.itemsize
        found = np.empty((len(rows), *shape[1:]), dtype)
        with suppress(OSError), self._folder.local(wanted.name).open("rb", 0) as file:
            whole = os.fstat(file.fileno()).st_size == len(header) + shape[0] * row_bytes
            if whole and os.pread(file.fileno(), len(header), 0) == header:
                position = 0
                for first, last in wanted.runs(row_bytes):
                    piece = np.empty((last + 1 - first, *shape[1:]), dtype)
                    read = os.preadv(file.fileno(), [piece.data], len(header) + first * row_bytes)
                    if read != piece.nbytes:
                        break
                    here = rows[position : np.searchsorted(rows, last, side="right")]
                    found[position : position + len(here)] = piece[here - first]
                    position += len(here)
                else:
                    return found
        mapped: NDArray[Any] = self._mapped(part)[rows]  # or what is wrong with the file
        return mapped

    def _mapped(self, part: int) -> NDArray[Any]:
        raw = load_array(self._folder.local(self._name(part)), True)
        if raw.shape != (self._count(part), *self._encoding.raw_shape):
            raise LvaeError(
                f"{self._folder.place(self._name(part))}",
                f"holds an array of shape {raw.shape}",
                "Run 'lvae encode' again to make it anew.",
            )
        return raw


def order_purpose(split: str) -> str:
    """What the order of a split is drawn for, see `seeds.permute`."""
    return f"order/{split}"


def shard_content(
    folder: Folder,
    plan: Plan,
    view: ViewPlan,
    split: str,
    number: int,
    order: Folder | None = None,
    rows: NDArray[np.int64] | None = None,
) -> ShardContent:
    """What a shard holds, gathered from the raw parts. `order`: where its files are. `rows`: some of the shard's."""
    order = order or folder
    layout = view.layouts[split]
    first, count = layout.rows_of(number)
    here = np.arange(first, first + count) if rows is None else first + rows
    positions = permute(here, layout.count, view.settings.seed, order_purpose(split))
    reader = Order(order, plan.encoded().image.orientations)
    chosen = reader.entries(split, positions)
    raw = RawLatents(folder, plan.encoded(), order)
    latents, log_variances = raw.normalized(chosen["raw"], view.normalization, layout.dtype)
    keys = reader.keys(split, positions) if layout.json_width else []
    labels, rows, mirrored = (np.ascontiguousarray(chosen[name]) for name in ("label", "row", "mirrored"))
    return ShardContent(latents, log_variances, labels, rows, mirrored, keys)


def write_shard(folder: Folder, plan: Plan, view: ViewPlan, split: str, number: int) -> ShardReceipt:
    """Gather, write and sign for one shard."""
    content = shard_content(folder, plan, view, split, number)
    files = codec(view.settings.format).write_shard(folder, view.name, view.layouts[split], number, content)
    receipt = ShardReceipt("latent-vae-shard", 1, view.sha256, split, number, len(content.rows), tuple(files))
    return create_shard_receipt(folder, view, receipt)


GAP_BYTES = 64 << 10  # between two rows, that cost less to read along than another request


WINDOW_BYTES = 64 << 20  # asked for at the same time, and then held


@dataclass(frozen=True)
class WantedRows:
    """Ascending rows of an array of `count` rows."""

    name: str
    count: int
    rows: NDArray[np.int64]

    def runs(self, row_bytes: int) -> list[tuple[int, int]]:
        """First and last row of what is read in one piece."""
        ends = np.flatnonzero(np.diff(self.rows) * row_bytes > GAP_BYTES)
        firsts, lasts = self.rows[np.append(0, ends + 1)], self.rows[np.append(ends, -1)]
        return list(zip(firsts.tolist(), lasts.tolist(), strict=True))


def read_rows(
    folder: Folder, wanted: Iterable[WantedRows], shape: tuple[int, ...], dtype: DTypeLike
) -> Iterator[NDArray[Any]]:
    """The rows one after the other, (n, *shape) at a time."""
    row_bytes = math.prod(shape) * np.dtype(dtype).itemsize
    window: list[tuple[WantedRows, list[tuple[int, int]]]] = []
    size = 0
    for file in wanted:
        runs = file.runs(row_bytes)
        window.append((file, runs))
        size += sum(last + 1 - first for first, last in runs) * row_bytes
        if size >= WINDOW_BYTES:
            yield _read(folder, window, shape, np.dtype(dtype))
            window, size = [], 0
    if window:
        yield _read(folder, window, shape, np.dtype(dtype))


def _read(
    folder: Folder,
    window: list[tuple[WantedRows, list[tuple[int, int]]]],
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
) -> NDArray[Any]:
    row_bytes = math.prod(shape) * dtype.itemsize
    pieces = []
    for file, runs in window:
        start = len(array_header((file.count, *shape), dtype))
        pieces += [(file.name, start + first * row_bytes, start + (last + 1) * row_bytes) for first, last in runs]
    data = iter(folder.read_pieces(pieces))
    found = np.empty((sum(len(file.rows) for file, _ in window), *shape), dtype)
    position = 0
    for file, runs in window:
        for first, last in runs:
            piece = next(data)
            if len(piece) != (last + 1 - first) * row_bytes:
                raise LvaeError(f"{folder.place(file.name)}", "is cut short", "Run 'lvae encode' again.")
            rows = file.rows[np.searchsorted(file.rows, first) : np.searchsorted(file.rows, last, side="right")]
            found[position : position + len(rows)] = np.frombuffer(piece, dtype).reshape(-1, *shape)[rows - first]
            position += len(rows)
    return found
