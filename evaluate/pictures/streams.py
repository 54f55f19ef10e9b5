"""Pictures to be scored, as they come: out of an .npz, or decoded from latents (streams.py: any other source)."""

import os
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lvae.encode.crops import crop
from lvae.encode.images import ImageRejected, open_image
from lvae.encode.networks.base import Autoencoder
from lvae.encode.sources.base import Reader, read_bytes
from lvae.encode.sources.open import open_reader, open_source
from lvae.evaluate.pictures.decode import decode_raw, decoded
from lvae.manifests.concurrency import concurrently
from lvae.manifests.dataset import Dataset
from lvae.manifests.errors import LvaeError
from lvae.manifests.parts.rows import ImageRow
from lvae.manifests.seeds import chosen

BATCH = 32
IMAGES, LABELS = "arr_0", "arr_1"


@dataclass(frozen=True)
class ImageStack:
    """`count` pictures of one size; `batches` opens them anew at every call: uint8 (n, H, W, 3) at a time.

    what: "images", "samples" or "reconstructions". notes: warnings, complete once all batches have passed.
    """

    what: str
    count: int
    size: tuple[int, int]
    batches: Callable[[], Iterator[NDArray[np.uint8]]]
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
        return (some.pixels for some in decoded(dataset, network, positions, BATCH, device))

    return ImageStack(what, len(positions), (dataset.manifest.image.size,) * 2, batches)


def latents_stack(
    what: str,
    raw: Callable[[], Iterator[NDArray[np.float32]]],
    count: int,
    size: int,
    network: Autoencoder,
    device: str,
) -> ImageStack:
    """What raw latents (n, C, h, w) decode to, as they come."""

    def batches() -> Iterator[NDArray[np.uint8]]:
        return (decode_raw(network, latents, device) for latents in raw())

    return ImageStack(what, count, (size, size), batches)


def open_stack(path: Path, num: int | None = None, seed: int = 0) -> ImageStack:
    """The pictures of an .npz, `arr_0` uint8 (N, H, W, 3), read as a stream; num: a seeded choice. LvaeError for
    anything else."""
    shape, dtype = _described(path)
    if dtype.kind == "f":
        raise LvaeError(path, f"{IMAGES} is {dtype}, whose range nobody knows", "Store uint8 levels from 0 to 255.")
    if dtype != np.uint8 or len(shape) != 4 or shape[3] not in (1, 3):
        raise LvaeError(path, f"{IMAGES} is {dtype} {shape}, where uint8 (N, H, W, 3) belongs")
    positions = chosen_positions(str(path), shape[0], num, seed)

    def batches() -> Iterator[NDArray[np.uint8]]:
        start = 0
        for block in _blocks(path, shape, shape[0] if num is None else int(positions[-1]) + 1):
            here = positions[(positions >= start) & (positions < start + len(block))] - start
            start += len(block)
            if len(here):
                yield block[here] if shape[3] == 3 else block[here].repeat(3, axis=3)

    return ImageStack("images", len(positions), (shape[1], shape[2]), batches)


def chosen_positions(where: str, there: int, num: int | None, seed: int) -> NDArray[np.int64]:
    """Which of so many pictures count: all, or a seeded choice of `num`, in order."""
    if there < 2:
        raise LvaeError(where, f"holds {there} images, too few to score", "Give at least 2.")
    return chosen(there, num, where, seed)


def _described(path: Path) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Shape and dtype of arr_0, from its header alone."""
    try:
        with zipfile.ZipFile(path) as archive, archive.open(f"{IMAGES}.npy") as member:
            shape, fortran, dtype = _header(member)
    except FileNotFoundError:
        raise LvaeError(path, "no such file", "Give images as .npz, or a dataset of latents.") from None
    except IsADirectoryError:
        raise LvaeError(path, "is a folder without a dataset", "Give an .npz of images, or a dataset.") from None
    except KeyError:
        raise LvaeError(path, f"has no array named {IMAGES}, which is where images are looked for") from None
    except (zipfile.BadZipFile, ValueError, EOFError) as error:
        raise LvaeError(path, f"not a whole .npz file ({error})", "Fetch or write it again.") from None
    if fortran:
        raise LvaeError(path, f"{IMAGES} is in Fortran order", "Save np.ascontiguousarray of it.")
    if dtype.hasobject:
        raise LvaeError(path, f"{IMAGES} holds Python objects, which are never read", "Save it as uint8.")
    return shape, dtype


def _header(member: Any) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    version = np.lib.format.read_magic(member)
    if version == (1, 0):
        return np.lib.format.read_array_header_1_0(member)
    if version == (2, 0):
        return np.lib.format.read_array_header_2_0(member)
    raise ValueError(f"an array of version {version}")


def _blocks(path: Path, shape: tuple[int, ...], count: int) -> Iterator[NDArray[np.uint8]]:
    one = int(np.prod(shape[1:]))
    with zipfile.ZipFile(path) as archive, archive.open(f"{IMAGES}.npy") as member:
        _header(member)
        for start in range(0, count, BATCH):
            wanted = min(BATCH, count - start) * one
            try:
                data = member.read(wanted)
            except (zipfile.BadZipFile, EOFError) as error:
                raise LvaeError(path, f"is damaged ({error})", "Fetch or write it again.") from None
            if len(data) < wanted:
                raise LvaeError(path, f"ends after {start + len(data) // one} of {shape[0]} images", "Write it again.")
            yield np.frombuffer(data, np.uint8).reshape(-1, *shape[1:])


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

    return ImageStack("images", len(rows), (first[0], first[1]), batches, notes)


def _ahead(
    rows: list[ImageRow], reader: Reader, size: int | None, kind: str
) -> Iterator[tuple[ImageRow, tuple[NDArray[np.uint8], bool]]]:
    """In order; threads open the next ones."""
    return concurrently(lambda row: (row, _opened(row, reader, size, kind)), rows, os.cpu_count(), BATCH)


def _opened(row: ImageRow, reader: Reader, size: int | None, kind: str) -> tuple[NDArray[np.uint8], bool]:
    """Pixels (H, W, 3), and whether the file is of a kind that loses something."""
    try:
        data = read_bytes(row, reader)
        image = open_image(data)
        return np.asarray(image if size is None else crop(image, size, kind)), _is_lossy(data)
    except ImageRejected as rejection:
        raise LvaeError(row.key, f"cannot be scored ({rejection.reason})", "Mend it, or take it out.") from None


def _is_lossy(data: bytes) -> bool:
    return any(data[at : at + len(magic)] == magic for magic, at in LOSSY)


def _size(shape: tuple[int, ...]) -> str:
    return f"{shape[1]}x{shape[0]}"
