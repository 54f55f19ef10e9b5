"""Recognizing the images of a dataset in a source again, and adding those that are new."""

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import replace

from lvae.encode.feeding.opening import content_sha256
from lvae.encode.files.locations import SEEN_RANGE, resolve
from lvae.encode.sources.open import open_reader
from lvae.manifests.errors import LvaeError
from lvae.manifests.messages import counted
from lvae.manifests.parts.copying import has_labels
from lvae.manifests.parts.plan import Plan
from lvae.manifests.parts.receipts import Receipt, fits, read_receipt
from lvae.manifests.parts.rows import UNLABELLED, DamagedRowsError, ImageRow, Listing, RowReader, Segment, write_rows
from lvae.manifests.storage.folder import Folder
from lvae.pipeline.planning.match import Match
from lvae.pipeline.planning.scan import Scan, ScanOptions, origin, remember, remembered, tell


def recognize(
    folder: Folder,
    plan: Plan,
    source: str,
    options: ScanOptions,
    say: Callable[[str], None],
    closely: bool = True,
) -> Plan:
    """The plan, with the place where its images lie now.

    LvaeError where the source no longer holds the images that the dataset was made from, naming a difference. Damaged
    rows are written again. Where files look touched since they were listed, the bytes of every finished part's images
    are compared with its receipt. Without `closely` nothing is written and no image is read: names and sizes decide.
    """
    found = Scan(source, inherited_options(plan, source, options))
    match = Match(folder, plan, found, options.labels is not None)
    try:
        rows = match.new_rows()
        new = next(rows, None)
        deque(rows, maxlen=0)  # to the end: what is gone or changed weighs more
    except DamagedRowsError:
        if not closely:
            raise
        _write_again(folder, plan, source, options)
        return recognize(folder, plan, source, options, say)
    except LvaeError as error:
        raise _other_images(folder, source, error) from error
    if new is not None:
        raise LvaeError(
            source,
            f"is not what {folder} was made from: {new.key} is new",
            "Say --append to add it, or encode into another folder.",
        )
    from_file = options.labels is None and plan.origins[0].labels_from == "file"
    if len(plan.listing.segments) == 1 and match.held and not from_file and not _same_classes(plan, found):
        raise _other_images(folder, source, f"its classes are now {', '.join(found.classes or ['none'])}")
    return _found_again(folder, plan, found, match, say) if closely else plan


def _same_classes(plan: Plan, found: Scan) -> bool:
    """Whether a source has the dataset's classes; one whose images were erased may be gone."""
    before = plan.listing.classes
    return found.classes == before or bool(plan.erased and set(found.classes or ()) < set(before or ()))


def append(
    folder: Folder, plan: Plan, source: str, options: ScanOptions, part_size: int, say: Callable[[str], None]
) -> Plan:
    """The plan with a segment more for what is new in a source, whose rows are written. What is there is recognized."""
    found = Scan(source, replace(options, public_only=held_to_public(plan, options)))
    match = Match(folder, plan, found, options.labels is not None)
    rows = _named_alike(folder, plan, found, match.new_rows())
    try:
        images, sha256 = write_rows(folder, rows, part_size, first_file=len(plan.listing.files))
    except DamagedRowsError:
        raise
    except LvaeError as error:
        raise _other_images(folder, source, error) from error
    plan = _found_again(folder, plan, found, match, say)
    tell(found, images + sum(plan.listing.segments[number].images for number in match.held), say)
    if not images:
        say(f"{source}: nothing is new")
        return plan
    say(f"{counted(images, 'new image')}")
    segment = Segment(found.source.kind, images, sha256, part_size, found.classes)
    number = len(plan.listing.segments)
    remember(folder, remembered(folder) | {number: match.new_seen}, found)
    listing = Listing((*plan.listing.segments, segment))
    return replace(plan, origins=(*plan.origins, origin(found, options)), listing=listing)


def _named_alike(folder: Folder, plan: Plan, found: Scan, rows: Iterator[ImageRow]) -> Iterator[ImageRow]:
    """The rows; LvaeError where labels without names would stand beside labels with names."""
    named = plan.listing.classes is not None
    numbered = not named and has_labels(folder, plan)
    for row in rows:
        if row.label != UNLABELLED and ((named and found.classes is None) or (numbered and found.classes is not None)):
            theirs, ours = ("numbers", "names") if named else ("names", "numbers")
            raise LvaeError("", f"its labels are {theirs}, those of the dataset {ours}")
        yield row


def inherited_options(plan: Plan, source: str, options: ScanOptions) -> ScanOptions:
    """With what an earlier command said of the source, where this one does not."""
    limit = inherited_limit(plan, source, options)
    return replace(options, limit=limit, public_only=held_to_public(plan, options))


def held_to_public(plan: Plan, options: ScanOptions) -> bool:
    return options.public_only or any(one.addresses == "public" for one in plan.origins)


def inherited_limit(plan: Plan, source: str, options: ScanOptions) -> int | None:
    """How much of a source belongs to the dataset, where this command does not say."""
    if options.limit is not None:
        return options.limit
    location = resolve(source)
    limits = [one.limit for one in plan.origins if one.source == location] or [one.limit for one in plan.origins]
    return None if None in limits else max(limit for limit in limits if limit is not None)


def _other_images(folder: Folder, source: str, difference: object) -> LvaeError:
    return LvaeError(
        source,
        f"is not what {folder} was made from: {difference}",
        "Restore the images, or encode into another folder.",
    )


def _found_again(folder: Folder, plan: Plan, found: Scan, match: Match, say: Callable[[str], None]) -> Plan:
    """Note where the held segments lie now; look closer at those whose files were touched."""
    origins = list(plan.origins)
    for number in match.held:
        origins[number] = replace(origins[number], source=found.source.location, addresses=found.addresses)
    plan = replace(plan, origins=tuple(origins))
    before = remembered(folder)
    touched = [number for number in match.held if match.seen[number] % SEEN_RANGE != before.get(number)]
    for number in touched:
        _compare_contents(folder, plan, number, say)
    if touched:
        remember(folder, before | {number: match.seen[number] for number in touched}, found)
    return plan


def _compare_contents(folder: Folder, plan: Plan, number: int, say: Callable[[str], None]) -> None:
    source = plan.origins[number].source
    receipts = [
        receipt
        for part in plan.listing.segment_parts(number)
        if (receipt := _receipt(folder, plan, part)) and receipt.content_sha256 is not None
    ]
    if not receipts:
        return
    say(f"{source}: files were touched since they were listed; comparing the bytes of {counted(len(receipts), 'part')}")
    rows, reader = RowReader(folder, plan.listing), open_reader(plan.listing.segments[number].kind, source)
    for receipt in receipts:
        part = rows.part(receipt.part)
        if content_sha256(part, reader) != receipt.content_sha256:
            raise LvaeError(
                source,
                (
                    f"an image from {part[0].key} to {part[-1].key} has other bytes than when part "
                    f"{receipt.part} of {folder} was encoded"
                ),
                "Restore it, or encode into another folder.",
            )
    reader.close()


def _receipt(folder: Folder, plan: Plan, part: int) -> Receipt | None:
    """What a part's images were; the raw latents need not be there any more."""
    try:
        receipt = read_receipt(folder, part)
    except LvaeError:
        return None  # a damaged receipt is made again, from the images as they are
    return receipt if receipt is not None and fits(receipt, plan, part) else None


def _write_again(folder: Folder, plan: Plan, source: str, options: ScanOptions) -> None:
    """Write the damaged rows of a segment from the source: what no other segment has."""
    damaged = [number for number in range(len(plan.listing.segments)) if not _whole(folder, plan.listing, number)]
    if len(damaged) > 1:
        raise LvaeError(folder, f"rows of {len(damaged)} scans are damaged", "Restore rows/ from a copy.")
    number = damaged[0]
    segment = plan.listing.segments[number]
    found = Scan(source, inherited_options(plan, source, options))
    if options.labels is None and plan.origins[number].labels_from == "file":
        raise LvaeError(folder, "its rows are damaged and were labelled by a file", "Give --labels again.")
    match = Match(folder, plan, found, options.labels is not None, without=number)
    first = int(plan.listing.segment_files(number)[0].removeprefix("rows/").removesuffix(".parquet"))
    try:
        _, sha256 = write_rows(folder, _relabelled(match.new_rows(), found, segment), segment.part_size, first)
    except LvaeError as error:
        raise _other_images(folder, source, error) from error
    if sha256 != segment.sha256:
        raise _other_images(folder, source, "its rows were damaged, and another listing was found")


def _whole(folder: Folder, listing: Listing, number: int) -> bool:
    reader = RowReader(folder, listing)
    try:
        return all(len(reader.listed(part)) for part in listing.segment_parts(number))
    except DamagedRowsError:
        return False


def _relabelled(rows: Iterator[ImageRow], found: Scan, segment: Segment) -> Iterator[ImageRow]:
    """With labels as the segment numbers them."""
    for row in rows:
        names = found.classes
        if row.label == UNLABELLED or names is None or segment.classes is None or names == segment.classes:
            yield row
        elif names[row.label] in segment.classes:
            yield row._replace(label=segment.classes.index(names[row.label]))
        else:
            raise LvaeError("", f"{row.key} is of a new class, {names[row.label]}")
