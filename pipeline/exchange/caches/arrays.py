"""Arrays of latents (N, C, h, w) in .npy, .npz and .safetensors files, mapped and read a block at a time."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from lvae.encode.files.locations import Watched, open_file, size_of
from lvae.encode.sources.npz import LABEL, read_header
from lvae.encode.sources.reading.random_access import Containers
from lvae.encode.sources.zip import DAMAGE, data_offset, open_archive
from lvae.manifests.errors import LvaeError
from lvae.manifests.tensors.safetensors_files import ERRORS

Read = Callable[[int, int], NDArray[Any]]
SAFETENSORS = {"F16": "<f2", "BF16": "bfloat16", "F32": "<f4", "F64": "<f8", "I64": "<i8", "I32": "<i4", "U8": "|u1"}
SAFETENSORS |= {"I8": "|i1", "I16": "<i2"}


@dataclass(frozen=True)
class StoredArray:
    """An array in a file. `read`: its rows from start to stop, as numpy can hold them."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    read: Read

    @property
    def is_float(self) -> bool:
        return self.dtype == "bfloat16" or np.dtype(self.dtype).kind == "f"

    @property
    def is_label(self) -> bool:
        """Whether it can be labels: a number or a name each."""
        flat = len(self.shape) == 1 or (len(self.shape) == 2 and self.shape[1] == 1)
        return flat and self.dtype != "bfloat16" and LABEL.fullmatch(self.dtype) is not None


def read_arrays(path: Path) -> list[StoredArray]:
    """What one file holds, unread."""
    try:
        match path.suffix.lower():
            case ".npy":
                return [_open_npy(path)]
            case ".npz":
                return list(_open_npz(path))
            case _:
                return list(_open_safetensors(path))
    except OSError as error:
        raise LvaeError(path, f"cannot be read ({error.strerror or error})") from error


def _open_npy(path: Path) -> StoredArray:
    with Watched(open_file(str(path))) as file:
        array = read_header(file, str(path))
        _check_length(path.name, array.offset + array.items * np.dtype(array.dtype).itemsize, size_of(file), path)
    return StoredArray(path.stem, array.dtype, array.shape, _mapped(path, array.dtype, array.shape, array.offset))


def _check_length(name: str, promised: int, found: int, where: object) -> None:
    if promised != found:
        raise LvaeError(where, f"damaged: {name} has {found} bytes, and its header promises {promised}")


def _mapped(path: Path, dtype: str, shape: tuple[int, ...], offset: int) -> Read:
    if not all(shape) or not shape:
        return lambda start, stop: np.empty((0, *shape[1:]), dtype)
    mapped = np.memmap(path, dtype, "r", offset, shape)
    return lambda start, stop: mapped[start:stop]


def _open_npz(path: Path) -> Iterator[StoredArray]:
    try:
        with Watched(open_file(str(path))) as file, open_archive(file, str(path)) as archive:
            size = size_of(file)
            with closing(Containers("", str(path))) as containers:
                for info in archive.infolist():
                    name, where = info.filename.removesuffix(".npy"), f"{path}: {info.filename}"
                    begin = data_offset(containers, info, size, str(path))
                    if begin < 0:
                        advice = "numpy.savez, without _compressed, writes what can be read in place."
                        raise LvaeError(where, "is compressed", advice)
                    with archive.open(info) as member:
                        array = read_header(member, where)
                    promised = array.offset + array.items * np.dtype(array.dtype).itemsize
                    _check_length(info.filename, promised, info.file_size, path)
                    read = _mapped(path, array.dtype, array.shape, begin + array.offset)
                    yield StoredArray(name, array.dtype, array.shape, read)
    except (*DAMAGE, RuntimeError, MemoryError) as error:
        raise LvaeError(path, f"not a whole .npz ({error})") from error


def _open_safetensors(path: Path) -> Iterator[StoredArray]:
    try:
        file: Any = safe_open(path, framework="pt", device="cpu")
        for name in sorted(file.keys()):
            part = file.get_slice(name)
            kind = str(part.get_dtype())
            if kind in SAFETENSORS:
                yield StoredArray(name, SAFETENSORS[kind], tuple(part.get_shape()), _sliced(file, name, path))
    except (*ERRORS, SafetensorError) as error:
        cause = " ".join(str(error).split())[:120]
        raise LvaeError(path, f"damaged or incomplete safetensors ({cause})") from None


def _sliced(file: Any, name: str, path: Path) -> Read:
    def read(start: int, stop: int) -> NDArray[Any]:
        try:
            tensor = file.get_slice(name)[start:stop]
            found: NDArray[Any] = (tensor.float() if str(tensor.dtype) == "torch.bfloat16" else tensor).numpy()
        except (*ERRORS, SafetensorError) as error:
            raise LvaeError(path, f"damaged safetensors ({error!s:.100})") from None
        return found

    return read


def read_labels(array: StoredArray) -> NDArray[Any]:
    return np.array(array.read(0, array.shape[0])).reshape(-1)


def names_of(arrays: Iterable[StoredArray]) -> Sequence[str]:
    return [f"{array.name} {'x'.join(map(str, array.shape))}" for array in arrays]
