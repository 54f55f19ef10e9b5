"""encode_part: the rows of one part -> raw latents -> a raw file and a receipt. Knows nothing of who asks for it."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lvae.encode.crops import crop
from lvae.encode.encoder import Encoder
from lvae.encode.images import ImageRejected, open_image
from lvae.encode.sources.base import Reader, read_bytes
from lvae.manifests.concurrency import concurrently
from lvae.manifests.parts.phases import NO_PROGRESS, Progress
from lvae.manifests.parts.plan import ImageSettings, Plan
from lvae.manifests.parts.receipts import Receipt, Rejection, finished, write_part
from lvae.manifests.parts.rows import ImageRow, RowReader
from lvae.manifests.storage.folder import Folder


@dataclass(frozen=True)
class Opened:
    """One row after its image was read: pixels uint8 (H, W, 3), or why there are none. `content`: hash of its bytes."""

    row: ImageRow
    pixels: NDArray[np.uint8] | None
    reason: str | None
    content: bytes


def encode_part(
    folder: Folder,
    plan: Plan,
    part: int,
    encoder: Encoder,
    reader: Reader,
    progress: Progress = NO_PROGRESS,
) -> Receipt:
    """Encode one part and store it.

    Images are opened in row order, each once; those that cannot be used go into the receipt with a reason, as do those
    that the plan has erased, which are not opened. `progress` is told the number of rows done, and what is waited for.
    Raises OSError where bytes cannot be read at all, now or after a few tries: an outage is not the image's fault and
    is never written down as one.
    """
    encoding = plan.encoded()
    first, erased = plan.listing.place(part).first_row, plan.erased_rows(part)
    listed = list(enumerate(RowReader(folder, plan.listing).part(part), first))
    rows = [(number, row) for number, row in listed if number not in erased]
    orientations = encoding.image.orientations
    raw = np.empty((len(rows) * orientations, *encoding.raw_shape), encoding.raw_dtype)
    rejected = [Rejection(number, row.key, erased[number]) for number, row in listed if number in erased]
    content = hashlib.sha256()
    stored, done = 0, len(rejected)
    pending: list[tuple[int, Opened]] = []

    def flush() -> None:
        nonlocal stored
        if not pending:
            return
        progress.enter("computing")
        pixels = np.stack([opened.pixels for _, opened in pending if opened.pixels is not None])
        latents = encoder.encode(pixels, [opened.row.key for _, opened in pending])
        for (number, opened), both in zip(pending, latents, strict=True):
            if not np.isfinite(both).all():
                rejected.append(Rejection(number, opened.row.key, "the network's output is not finite"))
                continue
            raw[stored : stored + orientations] = both
            stored += orientations
        pending.clear()
        progress.working(done)
        progress.enter("reading")

    progress.enter("reading")
    for number, opened in _open_rows(rows, reader, encoding.image, encoder.ahead * encoding.batch):
        content.update(opened.content)
        done += 1
        if opened.reason is not None:
            rejected.append(Rejection(number, opened.row.key, opened.reason))
        else:
            pending.append((number, opened))
        if len(pending) == encoding.batch:
            flush()
    flush()
    progress.working(done)
    progress.enter("writing")
    rejected.sort(key=lambda rejection: rejection.row)
    there = finished(folder, plan, part)
    if there is not None:  # another attempt was faster; a job that has ended with it is not touched any more
        return there
    content_sha256 = None if erased else content.hexdigest()
    return write_part(folder, plan, part, raw[:stored], rejected, content_sha256)


def _open_rows(
    rows: list[tuple[int, ImageRow]], reader: Reader, image: ImageSettings, ahead: int
) -> Iterator[tuple[int, Opened]]:
    """Open the rows' images in order, on demand, or by threads up to `ahead` images before they are asked for."""

    def open_one(numbered: tuple[int, ImageRow]) -> tuple[int, Opened]:
        return numbered[0], open_row(numbered[1], reader, image)

    return concurrently(open_one, rows, lanes=None, ahead=ahead) if ahead else map(open_one, rows)


def open_row(row: ImageRow, reader: Reader, image: ImageSettings) -> Opened:
    """Read, open and crop one image."""
    try:
        data = read_bytes(row, reader)
    except ImageRejected as rejection:
        return Opened(row, None, rejection.reason, hashlib.sha256(b"").digest())
    content = hashlib.sha256(data).digest()
    try:
        pixels = np.asarray(crop(open_image(data), image.size, image.crop))
    except ImageRejected as rejection:
        return Opened(row, None, rejection.reason, content)
    return Opened(row, pixels, None, content)


def content_sha256(rows: list[ImageRow], reader: Reader) -> str:
    """What a receipt says of its images' bytes, from the images as they are now."""
    content = hashlib.sha256()
    for row in rows:
        try:
            content.update(hashlib.sha256(read_bytes(row, reader)).digest())
        except ImageRejected:
            content.update(hashlib.sha256(b"").digest())
    return content.hexdigest()
