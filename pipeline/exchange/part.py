"""import_part: rows of a cache -> raw latents, a raw file and a receipt. What encode_part is to images."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lvae.manifests.parts.plan import Plan
from lvae.manifests.parts.receipts import Receipt, Rejection, array_header, write_part
from lvae.manifests.parts.rows import ImageRow
from lvae.manifests.storage.folder import Folder
from lvae.pipeline.exchange.caches.cache import REPEATS, Cache
from lvae.pipeline.exchange.settings import Conversion

BLOCK = 64  # rows looked at together
LOG_VARIANCES = (-30.0, 20.0)  # between which an autoencoder's are clamped


@dataclass(frozen=True)
class ListedPart:
    """A part with its rows, where they lie and how their numbers become raw latents."""

    number: int
    rows: Sequence[ImageRow]
    cache: Cache
    conversion: Conversion


def import_part(folder: Folder, plan: Plan, part: ListedPart) -> Receipt:
    """Read one part's rows, convert and store them. Rows that cannot be used go into the receipt with a reason."""
    stored, reasons = _read_part(plan, part)
    first = plan.listing.place(part.number).first_row
    rejected = [Rejection(first + position, part.rows[position].key, reasons[position]) for position in sorted(reasons)]
    return write_part(folder, plan, part.number, stored, rejected, None)


def raw_sha256(plan: Plan, part: ListedPart) -> str:
    """The hash of the raw file that a part would have by what its cache holds now."""
    stored, _ = _read_part(plan, part)
    digest = hashlib.sha256(array_header(stored.shape, stored.dtype))
    digest.update(stored.data if stored.size else b"")
    return digest.hexdigest()


def _read_part(plan: Plan, part: ListedPart) -> tuple[NDArray[np.float32], dict[int, str]]:
    """Raw latents (n, C, h, w) of what can be used, and why the others cannot, by position in the part."""
    encoding, rows, cache = plan.encoded(), part.rows, part.cache
    first, erased = plan.listing.place(part.number).first_row, plan.erased_rows(part.number)
    found = np.empty((len(rows), cache.orientations, *cache.shape), np.float32)
    reasons = {position: erased[first + position] for position in range(len(rows)) if first + position in erased}
    reasons |= {
        position: row.member
        for position, row in enumerate(rows)
        if row.member.startswith(REPEATS) and position not in reasons
    }
    for position, reason in cache.read(rows, found).items():
        reasons.setdefault(position, reason)
    convert(found, encoding.autoencoder.store == "moments", cache.moments == "deviation", part.conversion)
    for start in range(0, len(found), BLOCK):
        whole = np.isfinite(found[start : start + BLOCK]).all(axis=(1, 2, 3, 4))
        for position in (start + np.flatnonzero(~whole)).tolist():
            reasons.setdefault(position, _first_bad(found[position]))
    keep = [position for position in range(len(rows)) if position not in reasons]
    stored = found if len(keep) == len(rows) else found[keep]
    return np.ascontiguousarray(stored.reshape(-1, *encoding.raw_shape)), reasons


def convert(found: NDArray[np.float32], moments: bool, deviations: bool, conversion: Conversion) -> None:
    """Stored numbers (n, orientations, C', h, w) to raw latents, or to means and log-variances, in place.

    In float64 a number at a time, rounded once. A deviation below 0 becomes NaN, so that its row is rejected.
    """
    channels = found.shape[2] // (2 if moments else 1)
    means, spreads = found[:, :, :channels], found[:, :, channels:]
    if conversion.scale != 1 or conversion.shift:
        for entry in means:
            entry[...] = entry.astype(np.float64) / conversion.scale + conversion.shift
    if not moments:
        return
    offset = 2 * np.log(conversion.scale)
    for entry in spreads:
        wide = entry.astype(np.float64)
        wrong = ~np.isfinite(wide) | (deviations & (wide < 0))
        if deviations:
            with np.errstate(divide="ignore", invalid="ignore"):
                wide = 2 * np.log(wide)
        wide = np.clip(wide - offset, *LOG_VARIANCES)
        wide[wrong] = np.nan
        entry[...] = wide


def _first_bad(entry: NDArray[np.float32]) -> str:
    """Where an entry (orientations, C, h, w) is not finite."""
    places = np.argwhere(~np.isfinite(entry))
    mirror, channel, row, column = places[0].tolist()
    of = " of the mirror's latent" if mirror else ""
    value = entry[tuple(places[0])]
    return f"{value} at channel {channel}, row {row}, column {column}{of}"
