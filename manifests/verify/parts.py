"""Are the raw parts and their receipts what the plan and the manifest say?"""

import hashlib
from collections.abc import Callable, Iterator
from functools import partial

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
    raw_name,
    read_raw,
    read_receipt,
    receipt_name,
    receipts_record,
    to_erase,
)
from lvae.manifests.statistics import STD_TOLERANCE, ChannelMoments
from lvae.manifests.storage.folder import CHUNK_BYTES, Folder
from lvae.manifests.verify.shard_statistics import READ_ROWS


def part_faults(
    folder: Folder, manifest: Manifest, plan: Plan, deep: bool, progress: Callable[[str], None]
) -> Iterator[Fault]:
    encoding = plan.encoded()
    kept = manifest.raw == "kept"
    latents = rejected = 0
    whole = True
    lines, listed_bytes = hashlib.sha256(), 0
    found = folder.each(partial(_receipt, folder, plan), range(plan.listing.parts))
    for part, (receipt, problem) in enumerate(found):
        progress(f"part {part + 1} of {plan.listing.parts}")
        if receipt is None:
            whole = False
            yield Fault(receipt_name(part), problem, part=part)
            continue
        latents += receipt.latents
        rejected += len(receipt.rejected)
        for rejection in receipt.rejected:
            line = records.line(rejection)
            lines.update(line)
            listed_bytes += len(line)
        if (receipt.rows - len(receipt.rejected)) * encoding.image.orientations != receipt.latents:
            yield Fault(receipt_name(part), "its counts do not add up", part=part)
        if kept:
            yield from _raw(folder, plan, receipt, deep)
    if not whole:
        return
    entry, record = manifest.files.get(RECEIPTS), receipts_record(folder, plan.listing.parts)
    if entry is None or (entry.bytes, entry.sha256) != (record.bytes, record.sha256):
        yield Fault(RECEIPTS, "the receipts are not those that the manifest was made from (checksum)")
    for name, claimed, right in [
        ("counts.latents", manifest.counts.latents, latents),
        ("counts.rejected", manifest.counts.rejected, rejected),
    ]:
        if claimed != right:
            yield Fault(MANIFEST, f"{name} is {claimed}, and the receipts say {right}")
    size = folder.size(REJECTED)
    if size is not None and (
        size < listed_bytes
        or (size > listed_bytes and not unfinished_append(folder))
        or sha256_of_start(folder, REJECTED, listed_bytes) != lines.hexdigest()
    ):
        yield Fault(REJECTED, "does not list what the receipts say was rejected")


def sha256_of_start(folder: Folder, name: str, size: int) -> str:
    """The hash of a file's first bytes."""
    digest = hashlib.sha256()
    with folder.local(name).open("rb") as file:
        while size and (piece := file.read(min(size, CHUNK_BYTES))):
            digest.update(piece)
            size -= len(piece)
    return digest.hexdigest()


def _receipt(folder: Folder, plan: Plan, part: int) -> tuple[Receipt | None, str]:
    try:
        receipt = read_receipt(folder, part)
    except LvaeError as error:
        return None, error.problem
    if receipt is None:
        return None, "is missing"
    if not fits(receipt, plan, part):
        return None, "is the receipt of another part or of another dataset"
    if to_erase(receipt, plan):
        return None, "its part still holds images that are to be erased"
    return receipt, ""


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
