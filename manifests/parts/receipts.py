"""Parts: a run of images in source order, encoded together; one raw file and one receipt each.

The receipt is written last and names the raw file by its checksum, so any two attempts at a part, even at the same
time on unlike machines, leave numbers and bytes that belong together: those of the receipt that was there first. It is
created exclusively; only the holder of the dataset's lock takes it away again.
"""

import hashlib
import io
import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from lvae.manifests import records
from lvae.manifests.errors import LvaeError
from lvae.manifests.parts.plan import Encoding, Plan
from lvae.manifests.statistics import ChannelMoments, MomentsRecord
from lvae.manifests.storage.folder import FileRecord, Folder
from lvae.manifests.storage.retry import raise_outage

RAW = "raw"
PARTS_PER_FOLDER = 1024
REJECTED = "rejected.jsonl"
RECEIPTS = "raw/*/part-*.json"  # how the manifest names the receipts, which are hashed as one


@dataclass(frozen=True)
class Rejection:
    """An image that could not be used. `row` counts over the whole dataset."""

    row: int
    key: str
    reason: str


@dataclass(frozen=True)
class Receipt:
    """What became of one part. A function of images, weights and settings alone: no clock, host or attempt in it.

    encoding_sha256, listing_sha256: of the settings, and of the segment that the part's rows belong to: what appending
        to a dataset or merging it leaves as it was.
    content_sha256: over the bytes of the part's images as they were read, so that changed images are noticed; None
        where images have been erased since.
    moments: of the part's latents; None where there are none.
    """

    format: Literal["latent-vae-receipt"]
    version: Literal[1]
    encoding_sha256: str
    listing_sha256: str
    part: int
    first_row: int
    rows: int
    rejected: tuple[Rejection, ...]
    latents: int
    raw: FileRecord
    content_sha256: str | None
    moments: MomentsRecord | None


def receipt_name(part: int) -> str:
    return f"{_folder(part)}/part-{part:06d}.json"


def raw_name(part: int, sha256: str) -> str:
    return f"{_folder(part)}/part-{part:06d}.{sha256[:8]}.npy"


def group_of(part: int) -> int:
    """Parts of one folder are a group: what is folded together."""
    return part // PARTS_PER_FOLDER


def part_folder(group: int) -> str:
    return f"{RAW}/{group:06d}"


def _folder(part: int) -> str:
    return part_folder(group_of(part))


def write_part(
    folder: Folder,
    plan: Plan,
    part: int,
    raw: NDArray[Any],
    rejected: Iterable[Rejection],
    content_sha256: str | None,
) -> Receipt:
    """Store a part's raw latents (n, C, h, w), then the receipt. Only then is the part finished.

    The first complete receipt stays: of an attempt that comes later, the raw file is an orphan.
    """
    data = np.ascontiguousarray(raw)
    receipt = _receipt(folder, plan, part, data, rejected, content_sha256)
    if folder.create(receipt_name(part), dump_receipt(receipt)):
        return receipt
    first = finished(folder, plan, part)
    if first is None:
        where = folder.place(receipt_name(part))
        raise LvaeError(where, "is damaged, or of another dataset", "Run the same command again to go on.")
    return first


def replace_part(folder: Folder, plan: Plan, part: int, raw: NDArray[Any], rejected: Iterable[Rejection]) -> None:
    """Store a part in place of the one that is there. For the holder of the lock."""
    write_receipt(folder, _receipt(folder, plan, part, np.ascontiguousarray(raw), rejected, None))


def _receipt(
    folder: Folder,
    plan: Plan,
    part: int,
    data: NDArray[Any],
    rejected: Iterable[Rejection],
    content_sha256: str | None,
) -> Receipt:
    """Store raw latents under the name of their content, and say what is there."""
    place = plan.listing.place(part)
    record = _write_array(folder, part, data)
    return Receipt(
        format="latent-vae-receipt",
        version=1,
        encoding_sha256=plan.encoding_sha256,
        listing_sha256=plan.listing.segments[place.segment].sha256,
        part=part,
        first_row=place.first_row,
        rows=place.rows,
        rejected=tuple(rejected),
        latents=len(data),
        raw=record,
        content_sha256=content_sha256,
        moments=moments_of_raw(plan.encoded(), data).to_record() if len(data) else None,
    )


def write_receipt(folder: Folder, receipt: Receipt) -> None:
    """In place of the one that is there. For the holder of the lock; attempts at a part use `write_part`."""
    folder.write(receipt_name(receipt.part), dump_receipt(receipt))


def _write_array(folder: Folder, part: int, data: NDArray[Any]) -> FileRecord:
    with folder.writer() as unfinished:
        unfinished.file.write(array_header(data.shape, data.dtype))
        if data.size:
            unfinished.file.write(data.data)
        return unfinished.commit(raw_name(part, unfinished.file.sha256))


def array_header(shape: tuple[int, ...], dtype: np.dtype[Any]) -> bytes:
    """What an .npy file begins with."""
    header = io.BytesIO()
    described = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(header, described)
    return header.getvalue()


def raw_bytes(encoding: Encoding, latents: int) -> int:
    """The size of a raw file."""
    shape, dtype = (latents, *encoding.raw_shape), np.dtype(encoding.raw_dtype)
    return len(array_header(shape, dtype)) + math.prod(shape) * dtype.itemsize


def moments_of_raw(encoding: Encoding, raw: NDArray[Any]) -> ChannelMoments:
    """Channel moments of entries of a raw part, whatever was stored."""
    if encoding.autoencoder.store == "moments":
        channels = encoding.autoencoder.latent_channels
        return ChannelMoments.of_posterior(raw[:, :channels], raw[:, channels:])
    return ChannelMoments.of(raw)


def dump_receipt(receipt: Receipt) -> bytes:
    return records.signed(receipt)


def read_receipt(folder: Folder, part: int) -> Receipt | None:
    """The receipt of a part, None where there is none; LvaeError where it is damaged or another part's."""
    data = folder.read_if_there(receipt_name(part))
    return None if data is None else parse_receipt(folder, part, data)


def parse_receipt(folder: Folder, part: int, data: bytes) -> Receipt:
    where = folder.place(receipt_name(part))
    receipt = records.parse_signed(Receipt, data, where)
    if receipt.part != part or receipt.raw.path != raw_name(part, receipt.raw.sha256):
        raise LvaeError(where, "is the receipt of another part")
    return receipt


def fits(receipt: Receipt, plan: Plan, part: int) -> bool:
    """Whether a receipt is of this part of this plan, apart from what is to be erased."""
    place = plan.listing.place(part)
    return (
        receipt.encoding_sha256 == plan.encoding_sha256
        and receipt.listing_sha256 == plan.listing.segments[place.segment].sha256
        and (receipt.part, receipt.first_row, receipt.rows) == (part, place.first_row, place.rows)
        and _has_its_moments(receipt, plan.encoded())
    )


def _has_its_moments(receipt: Receipt, encoding: Encoding) -> bool:
    """Whether the moments are of as many numbers as the latents have."""
    moments, (channels, height, width) = receipt.moments, encoding.latent_shape
    if moments is None:
        return receipt.latents == 0
    lengths = {len(values) for values in (moments.mean, moments.m2, moments.minimum, moments.maximum)}
    return lengths == {channels} and moments.count == receipt.latents * height * width > 0


def to_erase(receipt: Receipt, plan: Plan) -> dict[int, str]:
    """The rows that a part still holds and should not, each with its reason."""
    erased = plan.erased_rows(receipt.part)
    for rejection in receipt.rejected if erased else ():
        erased.pop(rejection.row, None)
    return erased


def finished(folder: Folder, plan: Plan, part: int) -> Receipt | None:
    """The receipt of a part that need not be encoded again: it fits the plan, and its raw file has the right size.

    The bytes themselves are checked by `lvae verify --deep`.
    """
    found = finished_with_record(folder, plan, part)
    return None if found is None else found[0]


def finished_with_record(folder: Folder, plan: Plan, part: int, raw: bool = True) -> tuple[Receipt, FileRecord] | None:
    """The same, with the receipt's own size and hash. Without `raw`, raw files may have been dropped."""
    data = folder.read_if_there(receipt_name(part))
    if data is None:
        return None
    try:
        receipt = parse_receipt(folder, part, data)
    except LvaeError:
        return None  # a damaged receipt is no receipt: the part is encoded again
    if not fits(receipt, plan, part) or to_erase(receipt, plan):
        return None
    if raw and folder.size(receipt.raw.path) != receipt.raw.bytes:
        return None
    return receipt, FileRecord(receipt_name(part), len(data), hashlib.sha256(data).hexdigest())


def has_receipt(folder: Folder, part: int) -> bool:
    """Whether a part has a receipt, whatever that says: cheap, for whoever asks for a million parts.

    Workers create receipts whole, and only those of their plan; one that says something else is found when its group
    is folded.
    """
    return folder.size(receipt_name(part)) is not None


def receipts(folder: Folder, plan: Plan) -> Iterator[Receipt]:
    """The receipts of all parts, in part order; LvaeError at the first that is missing."""
    for part, receipt in enumerate(folder.each(partial(finished, folder, plan), range(plan.listing.parts))):
        if receipt is None:
            raise LvaeError(folder, f"part {part} is not finished or damaged", "Run 'lvae encode' again to go on.")
        yield receipt


def read_raw(folder: Folder, receipt: Receipt, encoding: Encoding) -> NDArray[Any]:
    """The raw latents of a part as they lie on disk, mapped: (n, C, h, w)."""
    path = folder.local(receipt.raw.path)
    raw = load_array(path, mapped=receipt.latents > 0)
    if raw.shape != (receipt.latents, *encoding.raw_shape) or raw.dtype != encoding.raw_dtype:
        raise LvaeError(path, f"holds {raw.dtype} {raw.shape}", "Run 'lvae encode' again to make it anew.")
    return raw


def load_array(path: Path, mapped: bool) -> NDArray[Any]:
    """An .npy file and nothing else that numpy.load would take: no archive, no pickle. Nothing can be mapped."""
    try:
        if mapped:
            return np.lib.format.open_memmap(path, mode="r")
        with path.open("rb") as file:
            return np.lib.format.read_array(file, allow_pickle=False)
    except (OSError, ValueError, OverflowError, EOFError) as error:
        raise_outage(error)
        raise LvaeError(path, f"cannot be read ({error})", "Run 'lvae encode' again to make it anew.") from error


def orphans_of_group(folder: Folder, plan: Plan, group: int, named: set[str]) -> Iterator[str]:
    """What lies in a group's folder and belongs to no part of the plan. named: the raw files of its receipts."""
    for name in folder.names(part_folder(group)):
        part = _part_of(name) if "/part-" in name else 0
        if "/part-" in name and (
            part is None or part >= plan.listing.parts or (name.endswith(".npy") and name not in named)
        ):
            yield name


def orphans(folder: Folder) -> Iterator[str]:
    """Raw files that no receipt names: what attempts left behind that were overtaken or killed."""
    names = (name for name in folder.names(RAW) if "/part-" in name and name.endswith(".npy"))
    yield from (name for name in folder.each(partial(_orphan, folder), names) if name is not None)


def _orphan(folder: Folder, name: str) -> str | None:
    part = _part_of(name)
    try:
        receipt = read_receipt(folder, part) if part is not None else None
    except LvaeError:
        return None  # while its receipt cannot be read, nobody knows
    return name if receipt is None or receipt.raw.path != name else None


def _part_of(name: str) -> int | None:
    """The part that a file under raw/ belongs to by its name."""
    number = name.rpartition("/part-")[2].split(".")[0]
    return int(number) if re.fullmatch("[0-9]{1,18}", number) else None


def beyond(folder: Folder, plan: Plan) -> Iterator[str]:
    """Receipts and raw files of parts that the plan does not have: left by another plan that lay here before."""
    for name in folder.names(RAW):
        part = _part_of(name)
        if "/part-" in name and (part is None or part >= plan.listing.parts):
            yield name
