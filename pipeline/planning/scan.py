"""The scan of a source into a dataset's rows."""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from lvae.encode.files.addresses import PublicOnly
from lvae.encode.files.left_out import describe_counts
from lvae.encode.files.locations import SEEN_RANGE
from lvae.encode.sources.base import Source, SourceWarning
from lvae.encode.sources.open import apply_labels, open_source, read_labels
from lvae.manifests import records
from lvae.manifests.errors import LvaeError
from lvae.manifests.messages import counted
from lvae.manifests.parts.erased_rows import ErasedRows
from lvae.manifests.parts.plan import Origin, Plan
from lvae.manifests.parts.rows import UNLABELLED, ImageRow, Listing, Segment, write_rows
from lvae.manifests.storage.folder import Folder

SEEN = "timings/source.json"
DEFAULT_PART_SIZE = 512
MANY_CLASSES = 1000


@dataclass(frozen=True)
class ScanOptions:
    """As given on the command line; None where not given."""

    labels: Path | None = None
    limit: int | None = None
    part_size: int | None = None
    append: bool = False
    public_only: bool = False


class Scan:
    """A source as one scan sees it: rows with labels applied, up to the limit."""

    def __init__(self, source: str, options: ScanOptions):
        if options.limit is not None and options.limit < 1:
            raise LvaeError("--limit", "must be at least 1")
        PublicOnly.on = options.public_only
        self.addresses: Literal["any", "public"] = "public" if options.public_only else "any"
        self.source: Source = open_source(source)
        self._labels = read_labels(options.labels) if options.labels is not None else None
        self.source.reads_labels = self._labels is None
        self._limit = options.limit
        self._used = set[int]()  # labels that images have

    def rows(self) -> Iterator[ImageRow]:
        """Raises LvaeError in the end where next to no class that the labels make has an image."""
        rows = self.source.rows()
        if self._labels is not None:
            rows = apply_labels(rows, self._labels, self.source)
        self._used.clear()
        for row in itertools.islice(rows, self._limit):
            self._used.add(row.label)
            yield row
        self._check_label_space()

    def _check_label_space(self) -> None:
        """Numbers that are nearly all holes (identifiers, not classes) are refused; many holes are said."""
        names = self.classes or ()
        classes = len(names) or max(self._used, default=UNLABELLED) + 1
        used = len(self._used - {UNLABELLED})
        if self._limit is not None or not used or used * 2 >= classes or self.source.kind == "synthetic":
            return
        if names and names[-1] != str(classes - 1):
            return  # somebody named them
        few = f"{used:,} of {classes:,} classes have images"
        if classes > MANY_CLASSES and used * 100 < classes:
            raise LvaeError(
                self.source.location if self._labels is None else "--labels",
                f"{few}: its labels, up to {max(self._used)}, are no numbers of classes",
                "Give class names, or numbers from 0 on, by --labels FILE.",
            )
        self.source.warnings.append(SourceWarning("classes", few))

    def rows_and_seen(self) -> Iterator[tuple[ImageRow, int]]:
        """Every row with what its file adds to `source.seen`: 0 where the file has been counted with an earlier row."""
        before = 0
        for row in self.rows():
            now = self.source.seen.sum
            yield row, now - before
            before = now

    @property
    def warnings(self) -> list[SourceWarning]:
        """Those about labels do not count where a file gives them."""
        of_labels = ("unlabelled", "labels not used", "splits", "folders") if self._labels is not None else ()
        return [warning for warning in self.source.warnings if warning.kind not in of_labels]

    @property
    def classes(self) -> tuple[str, ...] | None:
        """Final once the rows are through."""
        return self.source.classes if self._labels is None else self._labels.classes


def scan(folder: Folder, source: str, options: ScanOptions, part_size: int, say: Callable[[str], None]) -> Plan:
    """List a source into rows/. The plan is not yet written: whoever asks decides what else stands in it."""
    found = Scan(source, options)
    images, sha256 = write_rows(folder, found.rows(), part_size)
    tell(found, images, say)
    remember(folder, {0: found.source.seen.sum}, found)
    segment = Segment(found.source.kind, images, sha256, part_size, found.classes)
    return Plan("latent-vae-plan", 1, (origin(found, options),), Listing((segment,)), ErasedRows(), None)


def origin(found: Scan, options: ScanOptions) -> Origin:
    labels_from: Literal["source", "file"] = "source" if options.labels is None else "file"
    return Origin(found.source.location, options.limit, labels_from, found.addresses)


def tell(found: Scan, images: int, say: Callable[[str], None]) -> None:
    """What a scan found, once its rows are through."""
    classes = f" in {counted(len(found.classes), 'class', 'classes')}" if found.classes else ""
    others = "".join(f"; {words}" for words in describe_counts(dict(sorted(found.source.counts.items()))))
    say(f"{found.source.kind} {found.source.location}: {counted(images, 'image')}{classes}{others}")
    for warning in found.warnings:
        say(f"warning: {warning}")


def remember(folder: Folder, seen: dict[int, int], found: Scan | None) -> None:
    """How the files of each segment looked, so that touched ones are noticed; and what the latest scan found."""
    plain = {str(segment): f"{value % SEEN_RANGE:064x}" for segment, value in seen.items()}
    folder.write(SEEN, records.dumps({"seen": plain, **({} if found is None else account_of(found))}))


def account_of(found: Scan) -> dict[str, object]:
    """What became of a source's files, for programs."""
    return {"found": dict(found.source.counts), "warnings": [records.plain(warning) for warning in found.warnings]}


def read_account(folder: Folder) -> dict[str, object]:
    """The account of the latest scan into a folder, empty where none is kept."""
    kept = _read_kept(folder)
    return {name: kept[name] for name in ("found", "warnings") if name in kept}


def remembered(folder: Folder) -> dict[int, int]:
    try:
        return {int(segment): int(value, 16) for segment, value in _read_kept(folder)["seen"].items()}
    except (ValueError, TypeError, AttributeError, KeyError):
        return {}  # nothing is lost: the files get the closer look


def _read_kept(folder: Folder) -> dict[str, Any]:
    data = folder.read_if_there(SEEN)
    try:
        found = {} if data is None else records.loads(data, SEEN)
    except LvaeError:
        return {}
    return found if isinstance(found, dict) else {}
