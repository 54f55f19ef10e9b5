"""Arrays of latents (N, C, h, w) in .npy, .npz and .safetensors files, read in place a block at a time."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lvae.encode.files.locations import Watched, open_file, size_of
from lvae.encode.sources.npz import LABEL, read_header
from lvae.encode.sources.reading.random_access import Containers
from lvae.encode.sources.zip import DAMAGE, data_offset, open_archive
from lvae.manifests import records
from lvae.manifests.errors import LvaeError

Read = Callable[[int, int], NDArray[Any]]
BFLOAT16 = "bfloat16"
SAFETENSORS = {"F16": "<f2", "BF16": BFLOAT16, "F32": "<f4", "F64": "<f8", "I64": "<i8", "I32": "<i4", "U8": "|u1"}
SAFETENSORS |= {"I8": "|i1", "I16": "<i2"}
MAX_HEADER = 16 << 20  # bytes; published ones stay below 1 MiB


@dataclass(frozen=True)
class StoredArray:
    """An array in a file. `read`: its rows from start to stop, as numpy can hold them."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    read: Read

    @property
    def is_float(self) -> bool:
        return self.dtype == BFLOAT16 or np.dtype(self.dtype).kind == "f"

    @property
    def is_label(self) -> bool:
        """Whether it can be labels: a number or a name each."""
        flat = len(self.shape) == 1 or (len(self.shape) == 2 and self.shape[1] == 1)
        return flat and self.dtype != BFLOAT16 and LABEL.fullmatch(self.dtype) is not None


@dataclass(frozen=True)
class TensorEntry:
    """What the head of a .safetensors file says of one tensor. data_offsets: from the end of the head."""

    dtype: str
    shape: tuple[int, ...]
    data_offsets: tuple[int, int]


def read_arrays(path: Path, files: Containers) -> list[StoredArray]:
    """What one file holds, unread. files: what reads it later."""
    try:
        match path.suffix.lower():
            case ".npy":
                return [_open_npy(path, files)]
            case ".npz":
                return list(_open_npz(path, files))
            case _:
                return list(_open_safetensors(path, files))
    except OSError as error:
        raise LvaeError(path, f"cannot be read ({error.strerror or error})") from error


def _open_npy(path: Path, files: Containers) -> StoredArray:
    with Watched(open_file(str(path))) as file:
        array = read_header(file, str(path))
        _check_length(path.name, array.offset + array.items * np.dtype(array.dtype).itemsize, size_of(file), path)
    return _stored(path.stem, array.dtype, array.shape, _Place(files, path, array.offset))


def _check_length(name: str, promised: int, found: int, where: object) -> None:
    if promised != found:
        raise LvaeError(where, f"damaged: {name} has {found} bytes, and its header promises {promised}")


@dataclass(frozen=True)
class _Place:
    """Where the numbers of an array begin."""

    files: Containers
    path: Path
    offset: int


def _stored(name: str, dtype: str, shape: tuple[int, ...], place: _Place) -> StoredArray:
    stored = np.dtype("<u2" if dtype == BFLOAT16 else dtype)
    row = math.prod(shape[1:]) * stored.itemsize

    def read(start: int, stop: int) -> NDArray[Any]:
        found = np.empty((max(0, min(stop, shape[0]) - start), *shape[1:]), stored)
        try:
            place.files.fill(str(place.path), place.offset + start * row, found.reshape(-1).view(np.uint8).data)
        except OSError as error:
            raise LvaeError(place.path, f"cannot be read ({error.strerror or error})") from error
        return (found.astype("<u4") << 16).view("<f4") if dtype == BFLOAT16 else found

    return StoredArray(name, dtype, shape, read)


def _open_npz(path: Path, files: Containers) -> Iterator[StoredArray]:
    try:
        with Watched(open_file(str(path))) as file, open_archive(file, str(path)) as archive:
            size = size_of(file)
            for info in archive.infolist():
                name, where = info.filename.removesuffix(".npy"), f"{path}: {info.filename}"
                begin = data_offset(files, info, size, str(path))
                if begin < 0:
                    advice = "numpy.savez, without _compressed, writes what can be read in place."
                    raise LvaeError(where, "is compressed", advice)
                with archive.open(info) as member:
                    array = read_header(member, where)
                promised = array.offset + array.items * np.dtype(array.dtype).itemsize
                _check_length(info.filename, promised, info.file_size, path)
                yield _stored(name, array.dtype, array.shape, _Place(files, path, begin + array.offset))
    except (*DAMAGE, RuntimeError, MemoryError) as error:
        raise LvaeError(path, f"not a whole .npz ({error})") from error


def _open_safetensors(path: Path, files: Containers) -> Iterator[StoredArray]:
    """The format's own rules: tensors lie one behind the other, from the end of the head to the end of the file."""
    with open_file(str(path)) as file:
        size, head = size_of(file), int.from_bytes(file.read(8), "little")
        if size < 8 or head > min(size - 8, MAX_HEADER):
            raise _damaged(path, f"its head is to have {head} bytes, of {size}")
        content = records.loads(file.read(head), str(path))
    if not isinstance(content, dict):
        raise _damaged(path, "its head is no object")
    content.pop("__metadata__", None)
    entries = {name: records.from_plain(TensorEntry, one, f"{path}: {name:.100}") for name, one in content.items()}
    end = 0
    for name, entry in sorted(entries.items(), key=lambda item: item[1].data_offsets):
        begin, stop = entry.data_offsets
        if begin != end or stop < begin or any(side < 0 for side in entry.shape):
            raise _damaged(path, f"{name:.100} is not where the tensor before it ends")
        if (kind := SAFETENSORS.get(entry.dtype)) is not None:
            stored = np.dtype("<u2" if kind == BFLOAT16 else kind)
            if math.prod(entry.shape) * stored.itemsize != stop - begin:
                raise _damaged(path, f"{name:.100} has {stop - begin} bytes")
        end = stop
    if 8 + head + end != size:
        raise _damaged(path, f"{size} bytes instead of {8 + head + end}")
    if entries and not any(entry.dtype in SAFETENSORS for entry in entries.values()):
        kinds = ", ".join(sorted({entry.dtype for entry in entries.values()}))
        raise LvaeError(path, f"its tensors are {kinds:.60}", "Latents are F16, BF16, F32 or F64.")
    for name, entry in sorted(entries.items()):
        if (kind := SAFETENSORS.get(entry.dtype)) is not None and entry.shape:
            yield _stored(name, kind, entry.shape, _Place(files, path, 8 + head + entry.data_offsets[0]))


def _damaged(path: Path, cause: str) -> LvaeError:
    return LvaeError(path, f"damaged or incomplete safetensors ({cause})")


def read_labels(array: StoredArray) -> NDArray[Any]:
    return np.array(array.read(0, array.shape[0])).reshape(-1)


def names_of(arrays: Iterable[StoredArray]) -> Sequence[str]:
    return [f"{array.name} ({'x'.join(map(str, array.shape)) or 'one number'}, {array.dtype})" for array in arrays]
