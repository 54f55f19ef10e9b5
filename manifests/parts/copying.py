"""Taking raw parts over from another dataset: linked where the file system can, else copied. Nothing is encoded."""

import os
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np

from lvae.manifests.errors import LvaeError
from lvae.manifests.parts.erased_rows import ErasedRows
from lvae.manifests.parts.plan import Plan, first_difference
from lvae.manifests.parts.receipts import Receipt, finished, raw_name, receipts, write_receipt
from lvae.manifests.parts.rows import UNLABELLED, Listing, RowReader, rows_file
from lvae.manifests.storage.folder import NO_LINKS, TEMPORARY, Folder, flush_folder, make_folder

DUPLICATE = "duplicate key"


def take(source: Folder, name: str, target: Folder, new_name: str | None = None) -> None:
    """A file of another dataset under a name in this one. Files of a dataset never change, so one may be in both."""
    wanted = new_name or name
    if target.exists(wanted) and source.local(name).samefile(target.local(wanted)):
        return
    path = target.local(f"{TEMPORARY}/{uuid.uuid4().hex}")
    make_folder(path.parent)
    make_folder(target.local(wanted).parent)
    try:
        os.link(source.local(name).resolve(), path)
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        target.copy(source, name, wanted)
    else:
        path.replace(target.local(wanted))
        flush_folder(target.local(wanted).parent)


def united(folders: list[Folder], plans: list[Plan]) -> Plan:
    """One plan for several datasets, their segments one behind the other. LvaeError where they do not fit together."""
    first = plans[0]
    for folder, plan in zip(folders[1:], plans[1:], strict=True):
        difference = first_difference(_must_agree(first), _must_agree(plan))
        if difference:
            name, before, now = difference
            raise LvaeError(
                folder,
                f"has {name} {now}, and {folders[0]} has {before}",
                "Only datasets of the same autoencoder and image settings can be merged.",
            )
    listing = Listing(tuple(segment for plan in plans for segment in plan.listing.segments))
    if listing.classes is not None:
        for folder, plan in zip(folders, plans, strict=True):
            if plan.listing.classes is None and has_labels(folder, plan):
                raise LvaeError(folder, "its labels are numbers without names, and other datasets name theirs")
    erased = ErasedRows()
    offset = 0
    for plan in plans:
        erased = erased.joined(plan.erased.moved(offset))
        offset += plan.listing.images
    origins = tuple(origin for plan in plans for origin in plan.origins)
    return replace(first, origins=origins, listing=listing, erased=erased)


def _must_agree(plan: Plan) -> dict[str, object]:
    encoding = plan.encoded()
    sampled = encoding.autoencoder.store == "sample"
    return {
        "image": encoding.image,
        "autoencoder": replace(encoding.autoencoder, name=""),
        "precision": encoding.precision,
        "seed of its samples": encoding.seed if sampled else None,
    }


def has_labels(folder: Folder, plan: Plan) -> bool:
    reader = RowReader(folder, plan.listing)
    return any((reader.keys_and_labels(part)[1] != UNLABELLED).any() for part in range(plan.listing.parts))


def take_listing(source: Folder, plan: Plan, target: Folder, first_file: int = 0) -> None:
    """Rows and weights of a dataset; its Parquet files are numbered from `first_file` here."""
    for number, name in enumerate(plan.listing.files):
        take(source, name, target, rows_file(first_file + number))
    weights = plan.encoded().autoencoder.weights_file
    if weights is not None:
        take(source, weights, target)


def take_parts(
    source: Folder,
    plan: Plan,
    target: Folder,
    new_plan: Plan,
    first_part: int = 0,
    progress: Callable[[int], None] = lambda _: None,
) -> None:
    """Every raw part of a dataset with its receipt; they are numbered from `first_part` here. Goes on where it was."""
    for receipt in receipts(source, plan):
        part = first_part + receipt.part
        progress(part)
        if finished(target, new_plan, part) is None:
            new = _renumbered(receipt, new_plan, part)
            take(source, receipt.raw.path, target, new.raw.path)
            write_receipt(target, new)


def _renumbered(receipt: Receipt, plan: Plan, part: int) -> Receipt:
    place = plan.listing.place(part)
    shift = place.first_row - receipt.first_row
    return replace(
        receipt,
        encoding_sha256=plan.encoding_sha256,
        part=part,
        first_row=place.first_row,
        rejected=tuple(replace(rejection, row=rejection.row + shift) for rejection in receipt.rejected),
        raw=replace(receipt.raw, path=raw_name(part, receipt.raw.sha256)),
    )


def repeated_keys(folders: list[Folder], plans: list[Plan]) -> dict[int, str]:
    """Rows, numbered through all datasets, whose key an earlier one has among those with latents; each with its key.

    Takes eight bytes a row, and the keys whose hashes meet.
    """
    hashes = [np.fromiter((hash(key) for _, key in rows), np.int64) for rows in _stored_keys(folders, plans)]
    values, counts = np.unique(np.concatenate(hashes or [np.empty(0, np.int64)]), return_counts=True)
    suspects = set(values[counts > 1].tolist())
    met: set[str] = set()
    repeated: dict[int, str] = {}
    for rows, of_part in zip(_stored_keys(folders, plans) if suspects else [], hashes, strict=False):
        if suspects.isdisjoint(of_part.tolist()):
            continue
        for row, key in rows:
            if hash(key) in suspects:
                if key in met:
                    repeated[row] = key
                met.add(key)
    return repeated


def _stored_keys(folders: list[Folder], plans: list[Plan]) -> Iterator[list[tuple[int, str]]]:
    """Row and key of every image that has latents, part by part."""
    offset = 0
    for folder, plan in zip(folders, plans, strict=True):
        reader = RowReader(folder, plan.listing)
        for receipt in receipts(folder, plan):
            left_out = {rejection.row for rejection in receipt.rejected}
            keys = enumerate(reader.keys(receipt.part).to_pylist(), receipt.first_row)
            yield [(offset + row, key) for row, key in keys if row not in left_out]
        offset += plan.listing.images
