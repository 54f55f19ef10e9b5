"""Removing images from a dataset for good: their latents leave the raw parts. The autoencoder is not needed."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from lvae.manifests.errors import LvaeError
from lvae.manifests.parts.plan import Plan
from lvae.manifests.parts.receipts import Receipt, Rejection, fits, read_raw, read_receipt, replace_part, to_erase
from lvae.manifests.parts.rows import RowReader
from lvae.manifests.storage.folder import Folder


def carry_out(folder: Folder, plan: Plan, progress: Callable[[int], None] = lambda _: None) -> int:
    """Write every finished part anew that still holds erased images, without them. Says how many parts that were.

    The raw files of before are removed at once. A part that is not finished or damaged is left alone: whoever encodes
    it leaves out what is erased. Killed in between, the same call goes on.
    """
    written = 0
    for part in parts_with_erased_rows(plan):
        progress(part)
        receipt = _read_fitting_receipt(folder, plan, part)
        if receipt is not None and (rows := to_erase(receipt, plan)):
            if folder.size(receipt.raw.path) == receipt.raw.bytes:
                _write_without(folder, plan, receipt, rows)
                written += 1
            folder.remove(receipt.raw.path)
    return written


def parts_with_erased_rows(plan: Plan) -> list[int]:
    firsts, lasts = plan.listing.parts_of(plan.erased.firsts), plan.listing.parts_of(plan.erased.stops - 1)
    touched = np.zeros(plan.listing.parts + 1, np.int64)  # +1 where a range begins, -1 behind its end
    np.add.at(touched, firsts, 1)
    np.add.at(touched, lasts + 1, -1)
    parts: list[int] = np.flatnonzero(np.cumsum(touched)).tolist()
    return parts


def _read_fitting_receipt(folder: Folder, plan: Plan, part: int) -> Receipt | None:
    try:
        receipt = read_receipt(folder, part)
    except LvaeError:
        return None  # a damaged receipt is no receipt: the part is encoded again, without what is erased
    return receipt if receipt is not None and fits(receipt, plan, part) else None


def _write_without(folder: Folder, plan: Plan, receipt: Receipt, rows: dict[int, str]) -> None:
    reader, orientations = RowReader(folder, plan.listing), plan.encoded().image.orientations
    keys = reader.keys(receipt.part).to_pylist()
    stored = _list_stored_rows(receipt)
    keep = np.array([row not in rows for row in stored], bool)
    latents = np.repeat(keep, orientations)
    known = {rejection.row for rejection in receipt.rejected}
    erased = [Rejection(row, keys[row - receipt.first_row], reason) for row, reason in rows.items() if row not in known]
    rejected = sorted([*receipt.rejected, *erased], key=lambda rejection: rejection.row)
    raw = read_raw(folder, receipt, plan.encoded())
    replace_part(folder, plan, receipt.part, raw[latents], rejected)


def _list_stored_rows(receipt: Receipt) -> NDArray[np.int64]:
    """The rows of a part's latents, one an image."""
    rows = np.arange(receipt.first_row, receipt.first_row + receipt.rows)
    return np.setdiff1d(rows, [rejection.row for rejection in receipt.rejected])
