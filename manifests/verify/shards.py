"""Are the shards what the manifest says, and what the raw parts give?"""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import groupby
from typing import IO

import numpy as np
from numpy.typing import NDArray

from lvae.manifests import records
from lvae.manifests.errors import Fault, LvaeError
from lvae.manifests.manifest import MANIFEST, FileEntry, Manifest, view_settings
from lvae.manifests.messages import counted
from lvae.manifests.shards.formats import codec
from lvae.manifests.shards.index import Shard, read_index
from lvae.manifests.shards.layout import ShardContent, SplitLayout, SplitReader
from lvae.manifests.statistics import ChannelMoments, MomentsRecord
from lvae.manifests.storage.folder import FileRecord, Folder
from lvae.manifests.verify.parts import sha256_of_next
from lvae.manifests.verify.receipts import CheckedShards, shard_runs, shards_of_run, shards_subject
from lvae.manifests.verify.shard_statistics import READ_ROWS, moments_of_rows
from lvae.manifests.views.view import (
    ShardReceipt,
    ViewPlan,
    read_view,
    shard_entry,
    shard_receipt_name,
    view_file,
)

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Sought:
    """What a shard has to hold. rows: of the shard, ascending; None for all of them."""

    content: ShardContent
    rows: NDArray[np.int64] | None = None


Gather = Callable[[str, int], Sought]  # of a split and the number of a shard


def view_faults(folder: Folder, manifest: Manifest, deep: bool) -> tuple[ViewPlan | None, list[Fault]]:
    """How the shards lie, and what is wrong with what says so; None where it is not to be trusted."""
    name = view_file(manifest.view.name)
    try:
        view = read_view(folder, manifest.view.name)
    except LvaeError as error:
        return None, [Fault(name, error.problem)]
    entry = manifest.files.get(name)
    if entry is not None and folder.sha256(name) != entry.sha256:
        told = Fault(name, "its bytes are not those that were written (checksum)")
        return None, [] if deep else [told]  # the deep look has named it
    if (view.name, view.settings) != (manifest.view.name, view_settings(manifest)):
        return None, [Fault(MANIFEST, "view is not what the view says")]
    if set(view.layouts) != set(manifest.splits):
        return None, [Fault(MANIFEST, "its splits are not those of the view")]
    faults = list[Fault]()
    for split, layout in view.layouts.items():
        claimed = manifest.splits[split]
        if layout.count != claimed.count:
            faults.append(Fault(MANIFEST, f"splits.{split}.count is not what the view says"))
        if layout.shards != claimed.shards:
            problem = f"splits.{split}.shards is {claimed.shards}, and the view says {layout.shards}"
            faults.append(Fault(MANIFEST, problem))
        if manifest.files.get(claimed.index.path) != FileEntry(claimed.index.bytes, claimed.index.sha256):
            faults.append(Fault(MANIFEST, f"files does not name {claimed.index.path} as splits.{split} does"))
    if view.normalization != manifest.normalization:
        faults.append(Fault(MANIFEST, "normalization is not what the view was written with"))
    return view, faults


def shard_faults(folder: Folder, manifest: Manifest, view: ViewPlan, progress: Progress) -> Iterator[Fault]:
    """Files, counts and sizes, without a look at what is in them."""
    for split, layout in view.layouts.items():
        progress(f"shards of {split}")
        yield from _listed_shards(folder, manifest, layout, deep=False)
        for problem in codec(view.settings.format).check(folder, view.name, layout):
            yield Fault(f"shards/{view.name}", problem)


def check_shards(folder: Folder, manifest: Manifest, view: ViewPlan, run: int, gather: Gather | None) -> CheckedShards:
    """Look into a run of shards. gather: gives what a shard has to hold; None where that is not to be asked."""
    split, numbers = (place := shards_of_run(view.layouts, run)).split, place.shards
    layout, format_ = view.layouts[split], codec(view.settings.format)
    where, faults, lines = f"shards/{view.name}", list[Fault](), list[bytes]()
    for number in numbers:
        told, problem = _told_by_receipt(folder, manifest, layout, number)
        if told is None:
            name = shard_receipt_name(view.name, split, number)
            faults.append(Fault(name, problem, split=split, shard=number))
            continue
        lines.append(records.line(told))
        for record in told.files:
            faults += [replace(fault, split=split, shard=number) for fault in file_faults(folder, record, True)]
    faults += [Fault(where, problem) for problem in format_.check(folder, view.name, layout, numbers)]
    try:
        reader = format_.reader(folder, view.name, layout)
        for number in numbers:
            faults += _inside(manifest, view, reader, split, number)
            reader.close()
        for number in numbers if gather is not None and not faults else ():
            assert gather is not None
            if not _holds(reader, layout, number, gather(split, number)):
                name = shard_receipt_name(view.name, split, number)
                problem = "it does not hold what the raw parts give, in order"
                faults.append(Fault(name, problem, split=split, shard=number))
            reader.close()
        moments = _moments(manifest, reader, layout, numbers) if not faults else None
    except LvaeError as error:
        faults.append(Fault(where, error.problem))
        moments = None
    data = b"".join(lines)
    return CheckedShards(
        format="latent-vae-checked-shards",
        version=1,
        subject=shards_subject(view, run, gather is not None),
        faults=tuple(dict.fromkeys(faults)),
        lines_bytes=len(data),
        lines_sha256=hashlib.sha256(data).hexdigest(),
        moments=moments,
    )


def _moments(manifest: Manifest, reader: SplitReader, layout: SplitLayout, numbers: range) -> MomentsRecord | None:
    """Of the latents of some shards, where a dataset of images has no raw parts left."""
    if manifest.raw == "kept" or manifest.origin != "images":
        return None
    total = ChannelMoments.empty(manifest.view.shape[0])
    for number in numbers:
        first, count = layout.rows_of(number)
        total = total.merge(moments_of_rows(manifest, reader, range(first, first + count)))
        reader.close()
    return total.to_record()


def _inside(manifest: Manifest, view: ViewPlan, reader: SplitReader, split: str, number: int) -> Iterator[Fault]:
    """Numbers that are not finite, and labels that stand for no class."""
    first, count = view.layouts[split].rows_of(number)
    classes, where = manifest.classes, f"shards/{view.name}"
    arrays = [reader.latents, *([reader.log_variances] if reader.log_variances is not None else [])]
    if manifest.view.dtype != "uint8" and not all(
        np.isfinite(np.asarray(array[start : min(start + READ_ROWS, first + count)])).all()
        for array in arrays
        for start in range(first, first + count, READ_ROWS)
    ):
        yield Fault(where, f"{split}: latents that are not finite")
    labels = reader.facts(number).labels
    if classes is not None and len(labels) and not (labels.min() >= -1 and labels.max() < len(classes)):
        yield Fault(where, f"{split}: labels outside of the {counted(len(classes), 'class', 'classes')}")


def _holds(reader: SplitReader, layout: SplitLayout, number: int, right: Sought) -> bool:
    """Whether a shard holds these latents at these of its rows."""
    first, count = layout.rows_of(number)
    facts, content = reader.facts(number), right.content
    here = slice(None) if right.rows is None else right.rows
    found = [(reader.latents, content.latents), (reader.log_variances, content.log_variances)]
    return (
        np.array_equal(facts.labels[here], content.labels)
        and np.array_equal(facts.rows[here], content.rows)
        and np.array_equal(facts.mirrored[here], content.mirrored)
        and all(
            (array is None) == (expected is None)
            and (
                array is None
                or expected is None
                or np.array_equal(np.asarray(array[first : first + count])[here], expected)
            )
            for array, expected in found
        )
    )


def looked_into(
    folder: Folder, manifest: Manifest, view: ViewPlan, checked: Iterable[CheckedShards], progress: Progress
) -> Iterator[Fault]:
    """What is wrong with the shards, from what was found in every run of them, in order.

    An index whose lines are not those of the receipts is looked through line by line.
    """
    met, found = set[Fault](), iter(checked)
    runs = shard_runs(view.layouts)
    for split, of_split in groupby(range(runs), lambda run: shards_of_run(view.layouts, run).split):
        layout, index = view.layouts[split], manifest.splits[split].index
        agrees, faults = folder.size(index.path) == index.bytes, list[Fault]()
        with _open_index(folder, index) as lines:
            for run in of_split:
                numbers, here = shards_of_run(view.layouts, run).shards, next(found)
                progress(f"shard {numbers.stop} of {layout.shards} of {split}")
                faults += here.faults
                agrees = agrees and lines is not None and sha256_of_next(lines, here.lines_bytes) == here.lines_sha256
            agrees = agrees and lines is not None and not lines.read(1)
        if not agrees or folder.sha256(index.path) != index.sha256:
            faults += _listed_shards(folder, manifest, layout, deep=True)
        yield from (fault for fault in dict.fromkeys(faults) if fault not in met)
        met.update(faults)


@contextmanager
def _open_index(folder: Folder, index: FileRecord) -> Iterator[IO[bytes] | None]:
    if folder.size(index.path) is None:
        yield None
        return
    with folder.local(index.path).open("rb") as file:
        yield file


def _listed_shards(folder: Folder, manifest: Manifest, layout: SplitLayout, deep: bool) -> Iterator[Fault]:
    """Every file of a split's shards against the index, and the index against the shards' receipts.

    Where the index is damaged, what the receipts say takes its place.
    """
    index = manifest.splits[layout.split].index
    listed: Iterator[Shard] | None = None
    try:
        listed = read_index(folder, index)
    except LvaeError as error:
        yield Fault(index.path, error.problem)
    for number in range(layout.shards):
        told, problem = _told_by_receipt(folder, manifest, layout, number)
        try:
            entry = told if listed is None else next(listed, None)
        except LvaeError as error:
            yield Fault(index.path, error.problem)
            return
        if listed is not None and entry is None:
            yield Fault(index.path, f"lists {number} of {layout.shards} shards")
            return
        if problem:
            name = shard_receipt_name(manifest.view.name, layout.split, number)
            yield Fault(name, problem, split=layout.split, shard=number)
        for record in entry.files if entry is not None else ():
            for fault in file_faults(folder, record, deep):
                yield replace(fault, split=layout.split, shard=number)
        if told is not None and entry != told:
            yield Fault(index.path, f"line {number + 1} is not what the receipt of the shard says")
    if listed is not None and next(listed, None) is not None:
        yield Fault(index.path, f"lists more than {layout.shards} shards")


def _told_by_receipt(folder: Folder, manifest: Manifest, layout: SplitLayout, number: int) -> tuple[Shard | None, str]:
    """What the receipt of a shard says, or what is wrong with it."""
    name = shard_receipt_name(manifest.view.name, layout.split, number)
    data = folder.read_if_there(name)
    if data is None:
        return None, "is missing"
    try:
        receipt = records.parse(ShardReceipt, data, name)
    except LvaeError as error:
        return None, error.problem
    if (receipt.split, receipt.number, receipt.count) != (layout.split, number, layout.rows_of(number)[1]):
        return None, "is the receipt of another shard"
    return shard_entry(manifest.view.name, receipt), ""


def file_faults(folder: Folder, record: FileRecord, deep: bool) -> Iterator[Fault]:
    size = folder.size(record.path)
    if size is None:
        yield Fault(record.path, "is missing")
    elif size != record.bytes:
        yield Fault(record.path, f"has {size} bytes instead of {record.bytes}")
    elif deep and folder.sha256(record.path) != record.sha256:
        yield Fault(record.path, "its bytes are not those that were written (checksum)")
