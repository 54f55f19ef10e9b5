"""Pictures to be scored, as they come: out of an .npz, or decoded from latents."""

import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lvae.encode.autoencoder import Autoencoder
from lvae.evaluate.decode import decoded
from lvae.manifests.dataset import Dataset
from lvae.manifests.errors import LvaeError

BATCH = 32
IMAGES, LABELS = "arr_0", "arr_1"


@dataclass(frozen=True)
class ImageStack:
    """`count` pictures of one size; `batches` opens them anew at every call: uint8 (n, H, W, 3) at a time."""

    what: str  # "images", "samples", "reconstructions"
    count: int
    size: tuple[int, int]
    batches: Callable[[], Iterator[NDArray[np.uint8]]]

    def __len__(self) -> int:
        return self.count


def decoded_stack(dataset: Dataset, network: Autoencoder, num: int | None) -> ImageStack:
    """What a dataset's latents decode to; of samples the samples, otherwise reconstructions."""
    positions = np.arange(_enough(str(dataset.folder), len(dataset), num))
    what = "samples" if dataset.manifest.origin == "samples" else "reconstructions"

    def batches() -> Iterator[NDArray[np.uint8]]:
        return (some.pixels for some in decoded(dataset, network, positions, BATCH))

    return ImageStack(what, len(positions), (dataset.manifest.image.size,) * 2, batches)


def open_stack(path: Path, num: int | None = None) -> ImageStack:
    """The pictures of an .npz, `arr_0` uint8 (N, H, W, 3), read as a stream. LvaeError for anything else."""
    shape, dtype = _described(path)
    if dtype.kind == "f":
        raise LvaeError(f"{path}: {IMAGES} is {dtype}, whose range nobody knows. Store uint8 levels from 0 to 255.")
    if dtype != np.uint8 or len(shape) != 4 or shape[3] not in (1, 3):
        raise LvaeError(f"{path}: {IMAGES} is {dtype} {shape}, where uint8 (N, H, W, 3) belongs.")
    count = _enough(str(path), shape[0], num)

    def batches() -> Iterator[NDArray[np.uint8]]:
        for block in _blocks(path, shape, count):
            yield block if shape[3] == 3 else block.repeat(3, axis=3)

    return ImageStack("images", count, (shape[1], shape[2]), batches)


def _enough(where: str, there: int, num: int | None) -> int:
    if num is not None and num > there:
        raise LvaeError(f"{where}: holds {there} images, and --num asks for {num}. Ask for fewer, or make more.")
    if there < 2:
        raise LvaeError(f"{where}: holds {there} images, too few to score. Give at least 2.")
    return there if num is None else num


def _described(path: Path) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Shape and dtype of arr_0, from its header alone."""
    try:
        with zipfile.ZipFile(path) as archive, archive.open(f"{IMAGES}.npy") as member:
            shape, fortran, dtype = _header(member)
    except FileNotFoundError:
        raise LvaeError(f"{path}: no such file. Give images as .npz, or a dataset of latents.") from None
    except IsADirectoryError:
        raise LvaeError(f"{path}: is a folder without a dataset. Give an .npz of images, or a dataset.") from None
    except KeyError:
        raise LvaeError(f"{path}: has no array named {IMAGES}, which is where images are looked for.") from None
    except (zipfile.BadZipFile, ValueError, EOFError) as error:
        raise LvaeError(f"{path}: not a whole .npz file ({error}). Fetch or write it again.") from None
    if fortran:
        raise LvaeError(f"{path}: {IMAGES} is in Fortran order. Save np.ascontiguousarray of it.")
    if dtype.hasobject:
        raise LvaeError(f"{path}: {IMAGES} holds Python objects, which are never read. Save it as uint8.")
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
                raise LvaeError(f"{path}: is damaged ({error}). Fetch or write it again.") from None
            if len(data) < wanted:
                raise LvaeError(f"{path}: ends after {start + len(data) // one} of {shape[0]} images. Write it again.")
            yield np.frombuffer(data, np.uint8).reshape(-1, *shape[1:])
