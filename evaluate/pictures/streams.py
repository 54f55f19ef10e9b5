"""Pictures as they come, a batch at a time: of any source of images, or decoded from latents."""

import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from lvae.encode.crops import crop
from lvae.encode.images import ImageRejected, open_image
from lvae.encode.networks.base import Autoencoder
from lvae.encode.sources.base import Reader, read_bytes
from lvae.encode.sources.open import open_reader, open_source
from lvae.evaluate.pictures.decode import DecodeSettings, decode_positions
from lvae.evaluate.pictures.labels import PictureLabels, labels_if_any
from lvae.manifests.concurrency import concurrently
from lvae.manifests.dataset import Dataset
from lvae.manifests.errors import LvaeError
from lvae.manifests.messages import counted
from lvae.manifests.parts.rows import ImageRow
from lvae.manifests.seeds import chosen

BATCH = 32


@dataclass(frozen=True)
class ImageStack:
    """`count` pictures of one size; `batches` opens them anew at every call: uint8 (n, H, W, 3) at a time.

    where: as the user named it. what: "images", "samples" or "reconstructions". keys: of the pictures. labels: of them,
    where they have some. notes: warnings, complete once all batches have passed.
    """

    where: str
    what: str
    count: int
    size: tuple[int, int]
    batches: Callable[[], Iterator[NDArray[np.uint8]]]
    keys: Sequence[object]
    labels: PictureLabels | None = None
    notes: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return self.count


def decoded_stack(
    dataset: Dataset, network: Autoencoder, num: int | None, seed: int = 0, device: str = "cpu"
) -> ImageStack:
    """What a dataset's latents decode to; of samples the samples, otherwise reconstructions."""
    positions = chosen_positions(str(dataset.folder), len(dataset), num, seed)
    what = "samples" if dataset.manifest.origin == "samples" else "reconstructions"

    def batches() -> Iterator[NDArray[np.uint8]]:
        return (some.pixels for some in decode_positions(dataset, network, positions, BATCH, DecodeSettings(device)))

    keys = [f"position {position}" for position in positions]
    labels = labels_if_any(dataset.labels[positions], dataset.classes)
    size = (dataset.manifest.image.size,) * 2
    return ImageStack(str(dataset.folder), what, len(positions), size, batches, keys, labels)


def latents_stack(
    what: str,
    raw: Callable[[], Iterator[NDArray[np.float32]]],
    count: int,
    size: int,
    decode_raw: Callable[[NDArray[np.float32]], NDArray[np.uint8]],
    labels: PictureLabels | None = None,
) -> ImageStack:
    """What raw latents (n, C, h, w) decode to, as they come."""

    def batches() -> Iterator[NDArray[np.uint8]]:
        return map(decode_raw, raw())

    return ImageStack(what, what, count, (size, size), batches, range(count), labels)


def chosen_positions(where: str, there: int, num: int | None, seed: int) -> NDArray[np.int64]:
    """Which of so many pictures count: all, or a seeded choice of `num`, in order."""
    if there < 2:
        raise LvaeError(where, f"holds {counted(there, 'image')}, too few to score", "Give at least 2.")
    return chosen(there, num, where, seed)


PLAIN = re.compile(rb"P6\n(\d{1,5}) (\d{1,5})\n255\n")
MOST_PLAIN = 1 << 24  # pixels; larger ones go the ordinary way, with its limits
LOSSY = ((b"\xff\xd8\xff", 0), (b"WEBP", 8))  # JPEG, WebP: by what they begin with, whatever they are called


def open_source_stack(source: str, num: int | None, seed: int, size: int | None, kind: str) -> ImageStack:
    """The pictures of a SOURCE; num: a seeded choice of so many. size: cropped to it by `kind`.

    LvaeError for a picture that cannot be opened, and without `size` for pictures of several sizes.
    """
    found = open_source(source)
    rows = list(found.rows())
    rows = [rows[position] for position in chosen_positions(source, len(rows), num, seed)]
    reader = open_reader(found.kind, found.location)
    notes = [warning.text for warning in found.warnings]

    def open_row(row: ImageRow) -> tuple[NDArray[np.uint8], bool]:
        return _open(source, row, reader, size, kind)

    first = open_row(rows[0])[0].shape

    def batches() -> Iterator[NDArray[np.uint8]]:
        lossy, batch = 0, list[NDArray[np.uint8]]()
        opened = concurrently(open_row, rows, os.cpu_count(), BATCH)
        for row, (pixels, is_lossy) in zip(rows, opened, strict=True):
            if pixels.shape != first:
                raise LvaeError(
                    source,
                    f"{row.key} has {_size(pixels.shape)} pixels and {rows[0].key} {_size(first)}",
                    "Give --size N to crop all of them.",
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

    keys, labels = [row.key for row in rows], labels_if_any([row.label for row in rows], found.classes)
    return ImageStack(source, "images", len(rows), (first[0], first[1]), batches, keys, labels, notes)


def _open(source: str, row: ImageRow, reader: Reader, size: int | None, kind: str) -> tuple[NDArray[np.uint8], bool]:
    """Pixels (H, W, 3), and whether the file is of a kind that loses something."""
    try:
        data = read_bytes(row, reader)
        plain = plain_pixels(data) if size is None else None
        if plain is not None:
            return plain, False
        image = open_image(data)
        return np.asarray(image if size is None else crop(image, size, kind)), _is_lossy(data)
    except ImageRejected as rejection:
        raise LvaeError(
            source, f"{row.key} cannot be scored ({rejection.reason})", "Mend it, or take it out."
        ) from None


def plain_pixels(data: bytes) -> NDArray[np.uint8] | None:
    """uint8 (H, W, 3) of a PPM as sources of arrays hand it out, not to be written to; None of any other file.

    What `open_image` gives, without its copies, which cost as much as resizing a picture.
    """
    found = PLAIN.match(data)
    if found is None:
        return None
    width, height = (int(side) for side in found.groups())
    if not 0 < width * height <= MOST_PLAIN or len(data) != found.end() + 3 * width * height:
        return None
    return np.frombuffer(data, np.uint8, offset=found.end()).reshape(height, width, 3)


def _is_lossy(data: bytes) -> bool:
    return any(data[at : at + len(magic)] == magic for magic, at in LOSSY)


def _size(shape: tuple[int, ...]) -> str:
    return f"{shape[1]}x{shape[0]}"
