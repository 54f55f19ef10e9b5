"""Are the raw parts and their receipts what the plan and the manifest say?"""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import IO

import numpy as np

from lvae.manifests import records
from lvae.manifests.errors import Fault, LvaeError
from lvae.manifests.manifest import MANIFEST, Manifest, unfinished_append
from lvae.manifests.parts.plan import Plan
from lvae.manifests.parts.receipts import (
    RECEIPTS,
    REJECTED,
    Receipt,
    fits,
    moments_of_raw,
    parse_receipt,
    raw_name,
    read_raw,
    receipt_name,
    to_erase,
)
from lvae.manifests.statistics import STD_TOLERANCE, ChannelMoments
from lvae.manifests.storage.folder import CHUNK_BYTES, FileRecord, Folder
from lvae.manifests.verify.receipts import CheckedParts, parts_of_run, parts_subject
from lvae.manifests.verify.shard_statistics import READ_ROWS


def check_parts(folder: Folder, plan: Plan, run: int, kept: bool, deep: bool) -> CheckedParts:
    """Look at a run of parts. kept: whether their raw files are still to be there."""
    encoding, parts = plan.encoded(), parts_of_run(plan, run)
    faults, hashes, lines = list[Fault](), list[str](), hashlib.sha256()
    latents = rejected = listed_bytes = receipt_bytes = 0
    for part, (receipt, problem, record) in zip(
        parts, folder.each(partial(_receipt, folder, plan), parts), strict=True
    ):
        if receipt is None or record is None:
            faults.append(Fault(receipt_name(part), problem, part=part))
            continue
        latents += receipt.latents
        rejected += len(receipt.rejected)
        hashes.append(record.sha256)
        receipt_bytes += record.bytes
        for rejection in receipt.rejected:
            line = records.line(rejection)
            lines.update(line)
            listed_bytes += len(line)
        if (receipt.rows - len(receipt.rejected)) * encoding.image.orientations != receipt.latents:
            faults.append(Fault(receipt_name(part), "its counts do not add up", part=part))
        if kept:
            faults += _raw(folder, plan, receipt, deep)
    return CheckedParts(
        format="latent-vae-checked-parts",
        version=1,
        subject=parts_subject(plan, run, kept),
        faults=tuple(faults),
        whole=len(hashes) == len(parts),
        latents=latents,
        rejected=rejected,
        rejected_bytes=listed_bytes,
        rejected_sha256=lines.hexdigest(),
        receipts=tuple(hashes),
        receipt_bytes=receipt_bytes,
    )


def part_faults(
    folder: Folder, manifest: Manifest, plan: Plan, checked: Iterable[CheckedParts], progress: Callable[[str], None]
) -> Iterator[Fault]:
    """What is wrong with the parts, from what was found in every run of them, in order."""
    whole, listed_right = True, True
    latents = rejected = receipt_bytes = 0
    hashes = list[str]()
    with _open_rejected(folder) as lines:
        for run, found in enumerate(checked):
            progress(f"part {parts_of_run(plan, run).stop} of {plan.listing.parts}")
            yield from found.faults
            whole = whole and found.whole
            latents, rejected = latents + found.latents, rejected + found.rejected
            receipt_bytes += found.receipt_bytes
            hashes += found.receipts
            if whole and lines is not None and listed_right:
                listed_right = sha256_of_next(lines, found.rejected_bytes) == found.rejected_sha256
        listed_right = listed_right and (lines is None or not lines.read(1) or bool(unfinished_append(folder)))
    if not whole:
        return
    entry, sha256 = manifest.files.get(RECEIPTS), hashlib.sha256("".join(sorted(hashes)).encode()).hexdigest()
    if entry is None or (entry.bytes, entry.sha256) != (receipt_bytes, sha256):
        yield Fault(RECEIPTS, "the receipts are not those that the manifest was made from (checksum)")
    for name, claimed, right in [
        ("counts.latents", manifest.counts.latents, latents),
        ("counts.rejected", manifest.counts.rejected, rejected),
    ]:
        if claimed != right:
            yield Fault(MANIFEST, f"{name} is {claimed}, and the receipts say {right}")
    if not listed_right:
        yield Fault(REJECTED, "does not list what the receipts say was rejected")


@contextmanager
def _open_rejected(folder: Folder) -> Iterator[IO[bytes] | None]:
    """rejected.jsonl; None where it is missing, which is told elsewhere."""
    if folder.size(REJECTED) is None:
        yield None
        return
    with folder.local(REJECTED).open("rb") as file:
        yield file


def sha256_of_next(file: IO[bytes], size: int) -> str:
    """The hash of a file's next bytes."""
    digest = hashlib.sha256()
    while size and (piece := file.read(min(size, CHUNK_BYTES))):
        digest.update(piece)
        size -= len(piece)
    return digest.hexdigest()


def sha256_of_start(folder: Folder, name: str, size: int) -> str:
    """The hash of a file's first bytes."""
    with folder.local(name).open("rb") as file:
        return sha256_of_next(file, size)


def _receipt(folder: Folder, plan: Plan, part: int) -> tuple[Receipt | None, str, FileRecord | None]:
    """The receipt, or what is wrong with it; and its own size and hash."""
    data = folder.read_if_there(receipt_name(part))
    if data is None:
        return None, "is missing", None
    try:
        receipt = parse_receipt(folder, part, data)
    except LvaeError as error:
        return None, error.problem, None
    if not fits(receipt, plan, part):
        return None, "is the receipt of another part or of another dataset", None
    if to_erase(receipt, plan):
        return None, "its part still holds images that are to be erased", None
    return receipt, "", FileRecord(receipt_name(part), len(data), hashlib.sha256(data).hexdigest())


def _raw(folder: Folder, plan: Plan, receipt: Receipt, deep: bool) -> Iterator[Fault]:
    name, part = receipt.raw.path, receipt.part
    size = folder.size(name)
    if name != raw_name(part, receipt.raw.sha256):
        yield Fault(receipt_name(part), "names the raw file of another part", part=part)
    elif size is None:
        yield Fault(name, "is missing", part=part)
    elif size != receipt.raw.bytes:
        yield Fault(name, f"has {size} bytes instead of {receipt.raw.bytes}", part=part)
    elif deep and folder.sha256(name) != receipt.raw.sha256:
        yield Fault(name, "its bytes are not those that were written (checksum)", part=part)
    elif deep:
        try:
            raw = read_raw(folder, receipt, plan.encoded())
        except LvaeError as error:
            yield Fault(name, error.problem, part=part)
            return
        if raw.dtype.kind == "f" and not all(
            np.isfinite(raw[start : start + READ_ROWS]).all() for start in range(0, len(raw), READ_ROWS)
        ):
            yield Fault(name, "holds numbers that are not finite", part=part)
            return
        moments = moments_of_raw(plan.encoded(), raw).to_record() if len(raw) else None
        if (moments is None) != (receipt.moments is None) or (
            moments is not None
            and (receipt.moments is None or not _moments_agree(moments.to_moments(), receipt.moments.to_moments()))
        ):
            yield Fault(receipt_name(part), "its moments are not those of its raw file", part=part)


def _moments_agree(a: ChannelMoments, b: ChannelMoments) -> bool:
    scale = np.maximum(a.std, np.finfo(np.float64).tiny)
    return (
        a.count == b.count
        and a.mean.shape == b.mean.shape == b.m2.shape
        and bool((np.abs(a.mean - b.mean) <= STD_TOLERANCE * np.maximum(scale, np.abs(a.mean))).all())
        and bool((np.abs(a.std - b.std) <= STD_TOLERANCE * scale).all())
        and np.array_equal(a.minimum, b.minimum)
        and np.array_equal(a.maximum, b.maximum)
    )
