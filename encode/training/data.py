"""Pictures to train an autoencoder on: opened once, kept small in one file, cropped at random by position.

Crop p of the endless stream is a function of (seed, p) alone: which picture, how large it is seen, where, and whether
mirrored. Position p lies in epoch p // N, so nothing is dropped and every picture comes once an epoch.
"""

import mmap
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lvae.encode.images import ImageRejected, open_image
from lvae.encode.sources.base import Reader, read_bytes
from lvae.encode.sources.open import open_reader
from lvae.encode.sources.subset import Chosen, choose, held_out
from lvae.encode.training.config import FitConfig
from lvae.manifests import records
from lvae.manifests.concurrency import concurrently
from lvae.manifests.errors import LvaeError
from lvae.manifests.parts.rows import ImageRow
from lvae.manifests.seeds import derive, permute
from lvae.manifests.storage.folder import Folder

PIXELS, INDEX = "pictures.bin", "pictures.json"
LARGEST_CACHE = 16 << 30  # bytes of reduced pictures; a fair sample is taken of sources that need more
AHEAD = 64  # pictures opened before they are asked for


@dataclass(frozen=True)
class Picture:
    """One reduced picture: uint8 (height, width, 3) at `offset` of the file."""

    key: str
    offset: int
    height: int
    width: int


@dataclass(frozen=True)
class PictureIndex:
    """What lies in the file, made from what.

    settings_sha256: over the source's listing and the settings that decide which pictures are taken and how large.
    left_out: by reason, how many pictures were not taken. grey: how many have no colour.
    """

    settings_sha256: str
    train: tuple[Picture, ...]
    validation: tuple[Picture, ...]
    left_out: dict[str, int]
    grey: int
    bytes: int


def prepare(folder: Folder, source: str, config: FitConfig, progress: Callable[[int, int], None]) -> PictureIndex:
    """Open every picture once and keep it, reduced, in `folder`; or find that this has been done.

    progress: told how many of how many have been opened. LvaeError where too few are left to train on.
    """
    chosen = choose(source, config.only_classes, config.limit, config.without_keys)
    settings = records.sha256_of(
        {
            "rows": [records.plain(row) for row in chosen.rows],
            "size": config.size,
            "longest": config.shorter_side[1],
            "validation": config.validation,
        }
    )
    there = folder.read_if_there(INDEX)
    if there is not None:
        index = records.parse(PictureIndex, there, str(folder.local(INDEX)))
        if index.settings_sha256 == settings and folder.size(PIXELS) == index.bytes:
            return index
    index = replace(_write(folder, chosen, config, progress), settings_sha256=settings)
    _check(index, source, config)
    folder.write(INDEX, records.dumps(index))
    return index


def _write(folder: Folder, chosen: Chosen, config: FitConfig, progress: Callable[[int, int], None]) -> PictureIndex:
    pictures: tuple[list[Picture], list[Picture]] = ([], [])
    left_out: dict[str, int] = {}
    offset = grey = 0
    with folder.writer() as unfinished:
        for number, (row, pixels) in enumerate(_open_all(chosen, config)):
            progress(number + 1, len(chosen.rows))
            if isinstance(pixels, str):
                left_out[pixels] = left_out.get(pixels, 0) + 1
                continue
            if offset + pixels.nbytes > LARGEST_CACHE:
                raise LvaeError(
                    chosen.location,
                    f"its pictures take more than {LARGEST_CACHE >> 30} GiB",
                    f"Say --limit {number}, a fair sample, or lower --shorter-side.",
                )
            height, width = pixels.shape[:2]
            pictures[held_out(row.key, config.validation)].append(Picture(row.key, offset, height, width))
            grey += bool((pixels == pixels[:, :, :1]).all())
            unfinished.file.write(pixels)
            offset += pixels.nbytes
        unfinished.commit(PIXELS)
    return PictureIndex("", tuple(pictures[0]), tuple(pictures[1]), left_out, grey, offset)


def _check(index: PictureIndex, source: str, config: FitConfig) -> None:
    if not index.train:
        why = "; ".join(f"{count} {reason}" for reason, count in sorted(index.left_out.items())) or "it has none"
        raise LvaeError(source, f"no picture to train on ({why})", "Name a source of pictures, or lower --size.")
    if not index.validation and config.validation > 0:
        raise LvaeError(
            source, f"{len(index.train)} pictures leave none for validation", "Take more, or raise --validation."
        )


def _open_all(chosen: Chosen, config: FitConfig) -> Iterator[tuple[ImageRow, NDArray[np.uint8] | str]]:
    """The images in order, reduced, or why not; opened by threads a little ahead."""
    reader = open_reader(chosen.kind, chosen.location)
    try:
        yield from concurrently(lambda row: _open(row, reader, config), chosen.rows, lanes=None, ahead=AHEAD)
    finally:
        reader.close()


def _open(row: ImageRow, reader: Reader, config: FitConfig) -> tuple[ImageRow, NDArray[np.uint8] | str]:
    try:
        image = open_image(read_bytes(row, reader))
    except ImageRejected as rejection:
        return row, rejection.reason
    shorter, longest = min(image.size), config.shorter_side[1]
    if shorter < config.size:
        return row, f"smaller than the crop of {config.size} pixels"
    if shorter > longest:
        width, height = (round(side * longest / shorter) for side in image.size)
        image = image.resize((width, height), Image.Resampling.BICUBIC)
    return row, np.asarray(image)


class Pictures:
    """The reduced pictures of a run, mapped; may be handed to other processes."""

    def __init__(self, path: Path, index: PictureIndex, config: FitConfig):
        self.path, self.index, self.config = path, index, config
        self._mapped: mmap.mmap | None = None

    def __getstate__(self) -> dict[str, object]:
        return self.__dict__ | {"_mapped": None}

    def read(self, picture: Picture) -> NDArray[np.uint8]:
        """uint8 (height, width, 3), not to be written to."""
        if self._mapped is None:
            with self.path.open("rb") as file:
                self._mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        count = picture.height * picture.width * 3
        flat = np.frombuffer(self._mapped, np.uint8, count, picture.offset)
        return flat.reshape(picture.height, picture.width, 3)

    def crop(self, position: int) -> NDArray[np.uint8]:
        """The crop at a position of the stream: uint8 (3, size, size)."""
        config, train = self.config, self.index.train
        epoch, place = divmod(position, len(train))
        purpose = f"epoch {epoch}"
        number = int(permute(np.array([place]), len(train), config.seed, purpose)[0])
        random = np.random.Generator(np.random.PCG64(derive(config.seed, "crop", position)))
        picture = train[number]
        shorter = min(picture.height, picture.width)
        low, high = (min(side, shorter) for side in config.shorter_side)
        side = config.size * shorter / random.uniform(low, high)  # of the square, in the stored picture's pixels
        left, top = random.uniform(0, picture.width - side), random.uniform(0, picture.height - side)
        box = (left, top, min(left + side, picture.width), min(top + side, picture.height))
        image = Image.fromarray(self.read(picture)).resize(
            (config.size, config.size), Image.Resampling.BICUBIC, box=box
        )
        pixels = np.asarray(image)
        if random.random() < 0.5:
            pixels = pixels[:, ::-1]
        return np.ascontiguousarray(pixels.transpose(2, 0, 1))
