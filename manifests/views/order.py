"""The order of a view: every selected latent, with its place in the raw parts, and the statistics of them all.

`select` walks the parts in order and writes what it finds into files that whoever writes shards maps. It takes memory
for one part, whatever the number of rows.
"""

import hashlib
import json
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lvae.manifests import records
from lvae.manifests.errors import LvaeError
from lvae.manifests.parts.plan import Plan
from lvae.manifests.parts.receipts import Receipt, moments_of_raw, raw_bytes, read_raw, receipt_name
from lvae.manifests.parts.rows import UNLABELLED
from lvae.manifests.statistics import ChannelMoments
from lvae.manifests.storage.folder import TEMPORARY, Folder, Unfinished
from lvae.manifests.views.selected_rows import PartRows, Receipts, selected_parts, sides_of
from lvae.manifests.views.selection import TRAIN, Selection

ORDER = f"{TEMPORARY}/order"
OFFSETS = f"{ORDER}/offsets"  # int64: the first raw latent of every part, and the end
RAW_HASHES = f"{ORDER}/raw"  # eight characters a part: what its raw file's name carries
ESCAPED = {'"', "\\"}  # in JSON, of printable ASCII

# One selected latent: its index among all raw latents in part order, its image's row, its label and orientation.
ENTRY = np.dtype([("raw", "<i8"), ("row", "<i8"), ("label", "<i4"), ("mirrored", "?")])


def entries_file(split: str) -> str:
    """ENTRY records of one split, in source order."""
    return f"{ORDER}/{split}.entries"


def keys_file(split: str) -> str:
    """The keys of a split's images in source order, UTF-8 one behind the other."""
    return f"{ORDER}/{split}.keys"


def key_ends_file(split: str) -> str:
    """int64: where each key ends in the file of keys."""
    return f"{ORDER}/{split}.key-ends"


@dataclass(frozen=True)
class Selected:
    """What `select` found.

    counts: latents by split. entries_sha256: over row, label and orientation of every split's latents, in source order.
    unmatched_keys: how many of the keys to leave out no image has. rejected, latents: of the whole dataset.
    largest_label: -1 where nothing is labelled. longest_key: the one that takes most bytes as JSON. classes: as the
    view numbers them.
    """

    moments: ChannelMoments
    counts: dict[str, int]
    entries_sha256: dict[str, str]
    largest_label: int
    longest_key: str
    classes: tuple[str, ...] | None
    unmatched_keys: int
    rejected: int
    latents: int


class _SplitFiles:
    """The entries and keys of one split, appended part by part: memory for one part, whatever the number of rows."""

    def __init__(self, entries: Unfinished, keys: Unfinished, ends: Unfinished):
        self._entries, self._keys, self._ends = entries, keys, ends
        self.count = 0
        self.sha256 = hashlib.sha256()  # of what a trainer sees: places in the raw parts may change

    def append(self, entries: NDArray[np.void], keys: list[str]) -> None:
        """The next entries, and the keys of their images."""
        self._entries.file.write(entries.tobytes())
        for name in ("row", "label", "mirrored"):
            self.sha256.update(np.ascontiguousarray(entries[name]).tobytes())
        self.count += len(entries)
        texts = [key.encode() for key in keys]
        ends = self._keys.file.bytes + np.cumsum([len(text) for text in texts], dtype="<i8")
        self._keys.file.write(b"".join(texts))
        self._ends.file.write(ends.tobytes())

    def commit(self, split: str) -> None:
        self._entries.commit(entries_file(split))
        self._keys.commit(keys_file(split))
        self._ends.commit(key_ends_file(split))


def select(
    folder: Folder, plan: Plan, selection: Selection, receipts: Receipts, order: Folder | None = None, raw: bool = True
) -> Selected:
    """Walk the parts in order; write the order files, into `order` where given; fold the statistics.

    The moments are merged in part order: a part taken whole gives its receipt's, any other is read again. Without
    `raw` they are left out, as they have to be where raw parts are gone.
    """
    encoding, order = plan.encoded(), order or folder
    chosen, thresholds, parts = selected_parts(folder, plan, selection, receipts)
    names = [name for name, _ in thresholds.splits] + [TRAIN]
    orientations = encoding.image.orientations
    moments = ChannelMoments.empty(encoding.autoencoder.latent_channels)
    longest_key, largest_label, offset, rejected = "", UNLABELLED, 0, 0
    with ExitStack() as stack:
        offsets, hashes = stack.enter_context(order.writer()), stack.enter_context(order.writer())
        files = {name: _SplitFiles(*(stack.enter_context(order.writer()) for _ in range(3))) for name in names}
        for receipt, part in parts:
            if raw:
                _check_size(folder, plan, receipt)
                moments = moments.merge(_part_moments(folder, plan, receipt, part))
            largest_label = int(part.labels.max(initial=largest_label))
            longest_key = max(longest_key, _longest(part.keys), key=_json_bytes)
            entries = _entries(part, offset, orientations)
            side = sides_of(part.keys, thresholds.splits)
            for number, name in enumerate(names):
                keys = [part.keys[image] for image in np.flatnonzero(side == number).tolist()]
                files[name].append(entries[np.repeat(side == number, orientations)], keys)
            offsets.file.write(np.int64(offset).tobytes())
            hashes.file.write(receipt.raw.sha256[:8].encode())
            offset += receipt.latents
            rejected += len(receipt.rejected)
        offsets.file.write(np.int64(offset).tobytes())
        offsets.commit(OFFSETS)
        hashes.commit(RAW_HASHES)
        for name, file in files.items():
            file.commit(name)
        counts = {name: file.count for name, file in files.items()}
    _check_counts(counts, selection)
    classes = selection.only_classes if selection.only_classes is not None else plan.listing.classes
    return Selected(
        moments,
        counts,
        {name: file.sha256.hexdigest() for name, file in files.items()},
        largest_label,
        longest_key,
        classes,
        len(selection.without_keys or ()) - len(chosen.met),
        rejected,
        offset,
    )


def regenerate(
    folder: Folder, plan: Plan, selection: Selection, receipts: Receipts
) -> tuple[ChannelMoments, dict[int, ChannelMoments]]:
    """The statistics of a selection from the raw latents themselves: all together, and by label of the view."""
    encoding = plan.encoded()
    empty = ChannelMoments.empty(encoding.autoencoder.latent_channels)
    total, by_label = empty, dict[int, ChannelMoments]()
    for receipt, part in selected_parts(folder, plan, selection, receipts)[2]:
        raw = read_raw(folder, receipt, encoding)
        labels = np.repeat(part.labels, encoding.image.orientations)
        latents = _latents_of(part, encoding.image.orientations)
        for label in np.unique(labels):
            moments = moments_of_raw(encoding, raw[latents[labels == label]])
            by_label[int(label)] = by_label.get(int(label), empty).merge(moments)
        whole = len(latents) == receipt.latents
        total = total.merge(moments_of_raw(encoding, raw if whole else raw[latents]))
    return total, by_label


def _latents_of(part: PartRows, orientations: int) -> NDArray[np.int64]:
    """The places of a part's selected latents in its raw file."""
    return (part.images[:, None] * orientations + np.arange(orientations)).ravel()


def _json_bytes(key: str) -> int:
    return len(json.dumps(key))


def _longest(keys: list[str]) -> str:
    """The first of those that take most bytes as JSON; "" of none."""
    text = "".join(keys)
    plain = text.isascii() and text.isprintable() and not ESCAPED & set(text)
    return max(keys, key=len if plain else _json_bytes, default="")


def _entries(part: PartRows, offset: int, orientations: int) -> NDArray[np.void]:
    """Image, mirror, image, mirror, ...: as they lie in the raw part."""
    entries = np.empty(len(part.images) * orientations, ENTRY)
    for orientation in range(orientations):
        view = entries[orientation::orientations]
        view["raw"] = offset + part.images * orientations + orientation
        view["row"], view["label"], view["mirrored"] = part.rows, part.labels, orientation == 1
    return entries


def _check_size(folder: Folder, plan: Plan, receipt: Receipt) -> None:
    """Whoever reads single rows takes them from where they lie in a file of this size."""
    size = raw_bytes(plan.encoded(), receipt.latents)
    if receipt.raw.bytes != size:
        raise LvaeError(
            f"{folder.place(receipt.raw.path)}",
            f"has {receipt.raw.bytes} bytes, and {receipt.latents} latents take {size}",
            f"Remove {receipt_name(receipt.part)} and run 'lvae encode' again.",
        )


def _part_moments(folder: Folder, plan: Plan, receipt: Receipt, part: PartRows) -> ChannelMoments:
    encoding = plan.encoded()
    empty = ChannelMoments.empty(encoding.autoencoder.latent_channels)
    if len(part.images) == part.stored:
        return receipt.moments.to_moments() if receipt.moments else empty
    if not len(part.images):
        return empty
    raw = read_raw(folder, receipt, encoding)
    return moments_of_raw(encoding, raw[_latents_of(part, encoding.image.orientations)])


def _check_counts(counts: dict[str, int], selection: Selection) -> None:
    for name, count in counts.items():
        if count == 0:
            what = "nothing is selected" if sum(counts.values()) == 0 else f"the split {name!r} is empty"
            raise LvaeError("", str(what), f"Widen the selection ({_sentence(selection)}).")


def _sentence(selection: Selection) -> str:
    told = {name: value for name, value in records.plain(selection).items() if value}
    told.pop("class_map", None)
    return json.dumps(told) if told else "no image of the dataset could be used"
