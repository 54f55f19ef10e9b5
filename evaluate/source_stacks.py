"""Pictures of any SOURCE, to be scored: as they are where all have one size, or cropped."""

import os
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from lvae.encode.crops import crop
from lvae.encode.images import ImageRejected, open_image
from lvae.encode.part import read_bytes
from lvae.encode.sources.open import Reader, open_reader, open_source
from lvae.evaluate.pictures.streams import BATCH, ImageStack, chosen_positions
from lvae.manifests.errors import LvaeError
from lvae.manifests.parts.rows import ImageRow

LOSSY = ((b"\xff\xd8\xff", 0), (b"WEBP", 8))  # JPEG, WebP: by what they begin with, whatever they are called


def open_source_stack(source: str, num: int | None, seed: int, size: int | None, kind: str) -> ImageStack:
    """The pictures of a SOURCE; num: a seeded choice of so many. size: cropped to it by `kind`.

    LvaeError for a picture that cannot be opened, and without `size` for pictures of several sizes.
    """
    found = open_source(source)
    rows = list(found.rows())
    rows = [rows[position] for position in chosen_positions(source, len(rows), num, seed)]
    reader = open_reader(found.kind, found.location)
    notes = list(found.warnings)
    first = _opened(rows[0], reader, size, kind)[0].shape

    def batches() -> Iterator[NDArray[np.uint8]]:
        lossy, batch = 0, list[NDArray[np.uint8]]()
        for row, (pixels, is_lossy) in _ahead(rows, reader, size, kind):
            if pixels.shape != first:
                raise LvaeError(
                    f"{source}: {row.key} has {_size(pixels.shape)} pixels and {rows[0].key} {_size(first)}. "
                    "Give --size N to crop all of them."
                )
            lossy += is_lossy
            batch.append(pixels)
            if len(batch) == BATCH:
                yield np.stack(batch)
                batch = []
        if batch:
            yield np.stack(batch)
        if lossy:
            note = f"{source}: {lossy} of {len(rows)} pictures are JPEG or WebP, whose compression moves FID"
            if note not in notes:
                notes.append(note)

    return ImageStack("images", len(rows), (first[0], first[1]), batches, notes)


def _ahead(
    rows: list[ImageRow], reader: Reader, size: int | None, kind: str
) -> Iterator[tuple[ImageRow, tuple[NDArray[np.uint8], bool]]]:
    """In order; threads open the next ones."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        waiting: deque[tuple[ImageRow, Future[tuple[NDArray[np.uint8], bool]]]] = deque()
        for row in rows:
            waiting.append((row, pool.submit(_opened, row, reader, size, kind)))
            if len(waiting) > BATCH:
                oldest, opened = waiting.popleft()
                yield oldest, opened.result()
        for oldest, opened in waiting:
            yield oldest, opened.result()


def _opened(row: ImageRow, reader: Reader, size: int | None, kind: str) -> tuple[NDArray[np.uint8], bool]:
    """Pixels (H, W, 3), and whether the file is of a kind that loses something."""
    try:
        data = read_bytes(row, reader)
        image = open_image(data)
        return np.asarray(image if size is None else crop(image, size, kind)), _is_lossy(data)
    except ImageRejected as rejection:
        raise LvaeError(f"{row.key}: cannot be scored ({rejection.reason}). Mend it, or take it out.") from None


def _is_lossy(data: bytes) -> bool:
    return any(data[at : at + len(magic)] == magic for magic, at in LOSSY)


def _size(shape: tuple[int, ...]) -> str:
    return f"{shape[1]}x{shape[0]}"
