"""The shuffle in two passes, for storage where every read is a request.

The first pass reads a *window* of neighbouring parts as a whole, normalizes it, and writes its latents as one file,
in blocks: one for each *bundle* of neighbouring shards. The second reads a bundle's blocks of all windows, and puts
them in order in memory. Both are sized by memory: of N bytes there are N / 1 GiB windows, as many files, and the square
of that requests in the second pass, instead of one a latent. Shards hold the bytes that `gather.py` would write.

Everything lies under mixing/VIEW/, until the view is written. A window's receipt is created when its files are there; a
window that is finished is not made again, as long as the view is this one.
"""

import math
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from lvae.manifests import records
from lvae.manifests.errors import LvaeError
from lvae.manifests.parts.plan import Plan
from lvae.manifests.parts.receipts import group_of
from lvae.manifests.seeds import permute, unpermute
from lvae.manifests.shards.formats import codec
from lvae.manifests.shards.layout import ShardContent, SplitLayout
from lvae.manifests.storage.folder import FileRecord, Folder
from lvae.manifests.storage.names import Sha256
from lvae.manifests.views.gather import RawLatents, order_purpose
from lvae.manifests.views.order import OFFSETS, Order
from lvae.manifests.views.order_files import ENTRY, part_facts, parts_file, parts_of_group, read_fold
from lvae.manifests.views.view import ShardReceipt, ViewPlan, create_shard_receipt, finished_shard

MIXING = "mixing"
MEMORY_BYTES = 1 << 30  # of normalized latents, that either pass holds at a time
WINDOWS_PER_FOLDER = 256  # of three files each
READ_BYTES = 64 << 20  # of blocks, asked for at a time
TABLE_ROW = 24  # bytes: three int64, see `_window_name`


@dataclass(frozen=True)
class Mixing:
    """How a view is mixed. firsts: the first part of every window, and the end. memory: bytes of a window or bundle."""

    format: Literal["latent-vae-mixing"]
    version: Literal[1]
    view_sha256: Sha256
    memory: int
    firsts: tuple[int, ...]

    @property
    def windows(self) -> int:
        return len(self.firsts) - 1


@dataclass(frozen=True)
class WindowReceipt:
    """A finished window: its blocks, and the table of where each begins."""

    format: Literal["latent-vae-window"]
    version: Literal[1]
    view_sha256: Sha256
    window: int
    blocks: FileRecord
    table: FileRecord


@dataclass(frozen=True)
class Bundle:
    """Neighbouring shards of a split, and the positions that they hold."""

    split: str
    shards: range
    first: int
    stop: int


def row_bytes(layout: SplitLayout) -> int:
    """Bytes of one latent and what is kept beside it."""
    return layout.latent_bytes * (2 if layout.log_variances else 1)


def plan_mixing(view: ViewPlan, order: Folder) -> Mixing:
    memory, offsets = MEMORY_BYTES, np.fromfile(order.local(OFFSETS), "<i8")
    largest = max(map(row_bytes, view.layouts.values()))
    numbers = offsets[:-1] * largest // memory
    firsts = np.flatnonzero(np.diff(numbers, prepend=-1))
    return Mixing("latent-vae-mixing", 1, view.sha256, memory, (*firsts.tolist(), len(offsets) - 1))


def mixing_name(view: ViewPlan) -> str:
    return f"{MIXING}/{view.name}/mixing.json"


def read_mixing(folder: Folder, view: ViewPlan) -> Mixing:
    name = mixing_name(view)
    found = records.parse(Mixing, folder.read(name), folder.place(name))
    if found.view_sha256 != view.sha256:
        raise LvaeError(folder.place(name), "is of another view", "Run the same command again to go on.")
    return found


def begin_mixing(folder: Folder, view: ViewPlan, mixing: Mixing) -> None:
    """Make way: what was mixed for another view, or in other windows, goes. For the holder of the lock."""
    there = folder.read_if_there(mixing_name(view))
    if there != records.dumps(mixing):
        folder.remove(MIXING)
        folder.write(mixing_name(view), records.dumps(mixing))


def bundles_of(view: ViewPlan, mixing: Mixing) -> list[Bundle]:
    found = []
    for split, layout in view.layouts.items():
        each = max(1, mixing.memory // (layout.rows_per_shard * row_bytes(layout)))
        for first in range(0, layout.shards, each):
            shards = range(first, min(first + each, layout.shards))
            stop = min(shards.stop * layout.rows_per_shard, layout.count)
            found.append(Bundle(split, shards, first * layout.rows_per_shard, stop))
    return found


def _window_name(view: ViewPlan, window: int, what: str) -> str:
    """blocks: one behind the other. table: int64 (bundles + 1, 3): where a block begins, its first row, its CRC-32."""
    return f"{MIXING}/{view.name}/{window // WINDOWS_PER_FOLDER:06d}/window-{window:06d}.{what}"


def finished_window(folder: Folder, view: ViewPlan, window: int) -> WindowReceipt | None:
    name = _window_name(view, window, "json")
    data = folder.read_if_there(name)
    receipt = None if data is None else records.parse(WindowReceipt, data, name)
    return receipt if receipt is not None and (receipt.view_sha256, receipt.window) == (view.sha256, window) else None


def bundle_is_written(folder: Folder, view: ViewPlan, bundle: Bundle) -> bool:
    return all(finished_shard(folder, view, bundle.split, shard) is not None for shard in bundle.shards)


# --- the first pass --------------------------------------------------------------------------------------------------


def mix_window(folder: Folder, plan: Plan, view: ViewPlan, mixing: Mixing, window: int) -> None:
    """Write a window's blocks, then its receipt. Two attempts write the same bytes."""
    if finished_window(folder, view, window) is not None:
        return
    bundles = bundles_of(view, mixing)
    parts = range(mixing.firsts[window], mixing.firsts[window + 1])
    found, of_bundle = _window_entries(folder, plan, view, bundles, parts)
    ascending = np.argsort(of_bundle, kind="stable")
    entries, splits = found.entries[ascending], found.keys
    layout = next(iter(view.layouts.values()))
    latents, log_variances = RawLatents(folder, plan.encoded(), folder).normalized(
        entries["raw"], view.normalization, layout.dtype
    )
    bounds = np.searchsorted(of_bundle[ascending], np.arange(len(bundles) + 1))
    table = np.zeros((len(bundles) + 1, 3), "<i8")
    with folder.writer() as unfinished:
        for number, (start, stop) in enumerate(zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True)):
            table[number, :2] = unfinished.file.bytes, start
            if stop == start:
                continue
            pieces = [latents[start:stop].tobytes()]
            if log_variances is not None:
                pieces.append(log_variances[start:stop].tobytes())
            pieces.append(entries[start:stop].tobytes())
            if layout.json_width:
                keys = [splits[place].encode() for place in ascending[start:stop].tolist()]
                pieces += [np.array([len(key) for key in keys], "<i4").tobytes(), *keys]
            block = b"".join(pieces)
            unfinished.file.write(block)
            table[number, 2] = zlib.crc32(block)
        table[-1, :2] = unfinished.file.bytes, bounds[-1]
        blocks = unfinished.commit(_window_name(view, window, "blocks"))
    record = folder.write(_window_name(view, window, "table"), table.tobytes())
    receipt = WindowReceipt("latent-vae-window", 1, view.sha256, window, blocks, record)
    folder.create(_window_name(view, window, "json"), records.dumps(receipt))


@dataclass(frozen=True)
class _Found:
    """Selected latents in source order, those of all splits one behind the other; keys where a format keeps them."""

    entries: NDArray[np.void]
    keys: list[str]


def _window_entries(
    folder: Folder, plan: Plan, view: ViewPlan, bundles: list[Bundle], parts: range
) -> tuple[_Found, NDArray[np.int64]]:
    """What is selected of some parts, and the bundle in which each latent stands."""
    order = Order(folder, plan.encoded().image.orientations)
    entries, keys, numbers = [np.empty(0, ENTRY)], list[str](), [np.empty(0, np.int64)]
    for split, layout in view.layouts.items():
        first, count = _selected_of(folder, plan, order, split, parts)
        places = np.arange(first, first + count)
        positions = unpermute(places, layout.count, view.settings.seed, order_purpose(split))
        mine = [number for number, bundle in enumerate(bundles) if bundle.split == split]
        starts = [bundles[number].first for number in mine]
        numbers.append(mine[0] + np.searchsorted(starts, positions, side="right") - 1)
        entries.append(order.entries(split, places))
        keys += order.keys(split, places) if layout.json_width else []
    return _Found(np.concatenate(entries), keys), np.concatenate(numbers)


def _selected_of(folder: Folder, plan: Plan, order: Order, split: str, parts: range) -> tuple[int, int]:
    """The first place in a split's source order of what is selected of some parts, and how many there are."""
    splits = read_fold(folder).splits
    number, kind = splits.index(split), part_facts(plan, len(splits))
    bounds = []
    for part in (parts.start, parts.stop):
        group = group_of(part)
        before = int(order.starts(split)[group])
        if part > group * len(parts_of_group(plan, 0)):
            facts = np.frombuffer(folder.read(parts_file(group)), kind)
            before += int(facts["selected"][: part - parts_of_group(plan, group).start, number].sum())
        bounds.append(before)
    return bounds[0], bounds[1] - bounds[0]


# --- the second pass -------------------------------------------------------------------------------------------------


def write_mixed_shards(folder: Folder, plan: Plan, view: ViewPlan, mixing: Mixing, number: int) -> None:
    """Write the shards of a bundle, each with its receipt."""
    bundle = bundles_of(view, mixing)[number]
    if bundle_is_written(folder, view, bundle):
        return
    layout, format_ = view.layouts[bundle.split], codec(view.settings.format)
    content = _bundle_content(folder, view, mixing, number, bundle)
    for shard in bundle.shards:
        first, count = layout.rows_of(shard)
        here = slice(first - bundle.first, first - bundle.first + count)
        files = format_.write_shard(folder, view.name, layout, shard, _slice(content, here))
        receipt = ShardReceipt("latent-vae-shard", 1, view.sha256, bundle.split, shard, count, tuple(files))
        create_shard_receipt(folder, view, receipt)


def _slice(content: ShardContent, here: slice) -> ShardContent:
    log_variances = None if content.log_variances is None else content.log_variances[here]
    facts = content.labels[here], content.rows[here], content.mirrored[here]
    return ShardContent(content.latents[here], log_variances, *facts, content.keys[here])


def _bundle_content(folder: Folder, view: ViewPlan, mixing: Mixing, number: int, bundle: Bundle) -> ShardContent:
    """What all shards of a bundle hold, in order.

    Blocks come in source order, window after window: so the row with the j-th smallest place in that order is the j-th
    to arrive.
    """
    layout, count = view.layouts[bundle.split], bundle.stop - bundle.first
    positions = np.arange(bundle.first, bundle.stop)
    arriving = np.argsort(permute(positions, layout.count, view.settings.seed, order_purpose(bundle.split)))
    latents = np.empty((count, *layout.shape), layout.dtype)
    log_variances = np.empty_like(latents) if layout.log_variances else None
    entries, keys, done = np.empty(count, ENTRY), [""] * count, 0
    for rows, block in _blocks(folder, view, mixing, number):
        here = arriving[done : done + rows]
        done += rows
        if len(here) < rows:
            break
        latents[here], block = _take(block, (rows, *layout.shape), layout.dtype)
        if log_variances is not None:
            log_variances[here], block = _take(block, (rows, *layout.shape), layout.dtype)
        entries[here], block = _take(block, (rows,), ENTRY)
        if layout.json_width:
            lengths, block = _take(block, (rows,), np.dtype("<i4"))
            ends = np.cumsum(lengths).tolist()
            for place, start, end in zip(here.tolist(), [0, *ends[:-1]], ends, strict=True):
                keys[place] = bytes(block[start:end]).decode()
    if done != count:
        raise _damaged(folder, view, f"holds {done} latents for {count} places")
    labels, rows_, mirrored = (np.ascontiguousarray(entries[name]) for name in ("label", "row", "mirrored"))
    return ShardContent(latents, log_variances, labels, rows_, mirrored, keys if layout.json_width else [])


def _take(block: memoryview, shape: tuple[int, ...], dtype: Any) -> tuple[NDArray[Any], memoryview]:
    """The first array in a block, and the rest of it."""
    size = math.prod(shape) * np.dtype(dtype).itemsize
    return np.frombuffer(block[:size], dtype).reshape(shape), block[size:]


def _blocks(folder: Folder, view: ViewPlan, mixing: Mixing, number: int) -> Iterator[tuple[int, memoryview]]:
    """Rows and bytes of a bundle's block of every window."""
    wanted = list[tuple[str, int, int]]()
    facts, size = list[tuple[int, int]](), 0
    tables = [
        (_window_name(view, window, "table"), number * TABLE_ROW, (number + 2) * TABLE_ROW)
        for window in range(mixing.windows)
    ]
    for window, data in enumerate(folder.read_pieces(tables)):
        if len(data) != 2 * TABLE_ROW:
            raise _damaged(folder, view, f"has a table of window {window} that is cut short")
        (start, first, sum_), (stop, last, _) = np.frombuffer(data, "<i8").reshape(2, 3).tolist()
        if stop > start:
            wanted.append((_window_name(view, window, "blocks"), start, stop))
            facts.append((last - first, sum_))
            size += stop - start
        if size >= READ_BYTES or window == mixing.windows - 1:
            for (rows, right), block in zip(facts, folder.read_pieces(wanted), strict=True):
                if zlib.crc32(block) != right:
                    raise _damaged(folder, view, "holds other bytes than were written")
                yield rows, memoryview(block)
            wanted, facts, size = [], [], 0


def _damaged(folder: Folder, view: ViewPlan, problem: str) -> LvaeError:
    advice = "Remove that folder and run the same command again."
    return LvaeError(folder.place(f"{MIXING}/{view.name}"), problem, advice)
