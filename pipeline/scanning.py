"""The scan of a source into a dataset's rows, and recognizing the same images again."""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from lvae.encode.part import content_sha256
from lvae.encode.sources import Source, apply_labels, open_reader, open_source, read_labels
from lvae.manifests import records
from lvae.manifests.errors import LvaeError
from lvae.manifests.parts import Receipt, read_receipt
from lvae.manifests.plan import Plan
from lvae.manifests.rows import DamagedRowsError, ImageRow, Listing, RowReader, write_rows
from lvae.manifests.storage import Folder

SEEN = "timings/source.json"
DEFAULT_PART_SIZE = 512


@dataclass(frozen=True)
class ScanOptions:
    """As given on the command line; None where not given."""

    labels: Path | None = None
    limit: int | None = None
    part_size: int | None = None


class Scan:
    """A source as one scan sees it: rows with labels applied, up to the limit."""

    def __init__(self, source: str, options: ScanOptions):
        if options.limit is not None and options.limit < 1:
            raise LvaeError("--limit: must be at least 1.")
        self.source: Source = open_source(source)
        self._labels = read_labels(options.labels) if options.labels is not None else None
        self._limit = options.limit

    def rows(self) -> Iterator[ImageRow]:
        rows = self.source.rows()
        if self._labels is not None:
            rows = apply_labels(rows, self._labels, self.source.counts)
        return itertools.islice(rows, self._limit)

    @property
    def warnings(self) -> list[str]:
        """Those about missing labels do not count where a file gives them."""
        return [line for line in self.source.warnings if self._labels is None or "unlabelled" not in line]

    @property
    def classes(self) -> tuple[str, ...] | None:
        """Final once the rows are through."""
        return self.source.classes if self._labels is None else self._labels.classes


def scan(folder: Folder, source: str, options: ScanOptions, part_size: int, say: Callable[[str], None]) -> Plan:
    """List a source into rows/. The plan is not yet written: whoever asks decides what else stands in it."""
    found = Scan(source, options)
    images, parts, sha256 = write_rows(folder, found.rows(), part_size)
    listing = Listing(found.source.kind, images, sha256, parts, part_size, found.classes)
    tell(found, images, say)
    plan = Plan(
        "latent-vae-plan",
        1,
        found.source.location,
        options.limit,
        "source" if options.labels is None else "file",
        listing,
        None,
    )
    _remember(folder, found)
    return plan


def tell(found: Scan, images: int, say: Callable[[str], None]) -> None:
    """What a scan found, once its rows are through."""
    classes = f" in {len(found.classes)} classes" if found.classes else ""
    others = "".join(f"; {count} {what}" for what, count in sorted(found.source.counts.items()) if count)
    say(f"{found.source.kind} {found.source.location}: {images} images{classes}{others}")
    for warning in found.warnings:
        say(f"warning: {warning}")


def refuse_overlap(folder: Folder, source: str) -> None:
    """A dataset inside its own source would be listed as part of it."""
    if "://" in source or not Path(source).is_dir():
        return
    images, dataset = Path(source).resolve(), folder.root.resolve()
    if dataset == images or images in dataset.parents:
        raise LvaeError(f"{folder}: lies in the source {source}. Name a folder elsewhere.")


def recognize(folder: Folder, plan: Plan, source: str, options: ScanOptions, say: Callable[[str], None]) -> Plan:
    """The plan, with the place where its images lie now.

    LvaeError where the source no longer holds the images that the dataset was made from, naming a difference. Damaged
    rows are written again. Where files look touched since they were listed, the bytes of every finished part's images
    are compared with its receipt.
    """
    found = Scan(source, replace(options, limit=options.limit if options.limit is not None else plan.limit))
    compare_labels = plan.labels_from == "source" or options.labels is not None
    try:
        difference = _first_difference(RowReader(folder, plan.listing.parts), found.rows(), compare_labels)
    except DamagedRowsError:
        difference = _write_again(folder, plan, found)
    if difference is None and compare_labels and found.classes != plan.listing.classes:
        difference = f"its classes are now {', '.join(found.classes or ['none'])}"
    if difference is not None:
        raise LvaeError(
            f"{source}: is not what {folder} was made from: {difference}. "
            "Restore the images, or encode into another folder."
        )
    plan = replace(plan, source=found.source.location)
    if found.source.seen.hexdigest() != _remembered(folder):
        _compare_contents(folder, plan, say)
        _remember(folder, found)
    return plan


def _write_again(folder: Folder, plan: Plan, found: Scan) -> str | None:
    if plan.labels_from == "file" and found.classes != plan.listing.classes:
        return "its rows are damaged and were labelled by a file; give --labels again"
    _, _, sha256 = write_rows(folder, found.rows(), plan.listing.part_size)
    return None if sha256 == plan.listing.sha256 else "its rows were damaged, and another listing was found"


def _first_difference(old: RowReader, new: Iterator[ImageRow], compare_labels: bool) -> str | None:
    for before, now in itertools.zip_longest(old, new):
        if before is None:
            return f"{now.key} is new"
        if now is None:
            return f"{before.key} is gone"
        if before.key != now.key:
            return f"{now.key} stands where {before.key} was"
        if replace(before, label=0) != replace(now, label=0):
            return f"{before.key} has changed"
        if compare_labels and before.label != now.label:
            return f"{before.key} has label {now.label} instead of {before.label}"
    return None


def _receipt(folder: Folder, plan: Plan, part: int) -> Receipt | None:
    """What a part's images were; the raw latents need not be there any more."""
    try:
        receipt = read_receipt(folder, part)
    except LvaeError:
        return None  # a damaged receipt is made again, from the images as they are
    return receipt if receipt is not None and receipt.plan_sha256 == plan.sha256 else None


def _compare_contents(folder: Folder, plan: Plan, say: Callable[[str], None]) -> None:
    rows, reader = RowReader(folder, plan.listing.parts), open_reader(plan.listing.kind, plan.source)
    receipts = [receipt for part in range(plan.listing.parts) if (receipt := _receipt(folder, plan, part))]
    if receipts:
        say(f"{plan.source}: files were touched since they were listed; comparing the bytes of {len(receipts)} parts")
    for receipt in receipts:
        part = rows.part(receipt.part)
        if content_sha256(part, reader) != receipt.content_sha256:
            raise LvaeError(
                f"{plan.source}: an image from {part[0].key} to {part[-1].key} has other bytes than when part "
                f"{receipt.part} of {folder} was encoded. Restore it, or encode into another folder."
            )
    reader.close()


def _remember(folder: Folder, found: Scan) -> None:
    folder.write(SEEN, records.dumps({"seen": found.source.seen.hexdigest()}))


def _remembered(folder: Folder) -> str | None:
    data = folder.read_if_there(SEEN)
    return None if data is None else str(records.loads(data, SEEN)["seen"])
