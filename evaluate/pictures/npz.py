"""An .npz written array after array as their pieces come, so that none of them is ever whole in memory."""

import zipfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lvae.manifests.parts.receipts import array_header
from lvae.manifests.storage.places.marks import MARK


@dataclass(frozen=True)
class StreamedArray:
    """pieces: rows in order, asked for when the arrays before are written; of one (n, ...) in all, `shape`."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    pieces: Callable[[], Iterable[NDArray[Any]]]


def stream_array(array: NDArray[Any]) -> StreamedArray:
    return StreamedArray(array.shape, array.dtype, lambda: [array])


def write_streamed(out: Path, arrays: Mapping[str, StreamedArray]) -> None:
    """OUT, under its name once it is complete. Equal arrays make equal bytes."""
    out.parent.mkdir(parents=True, exist_ok=True)
    unfinished = out.with_name(f".{out.name}.unfinished")
    try:
        with zipfile.ZipFile(unfinished, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
            archive.comment = MARK
            for name, array in arrays.items():
                clockless = zipfile.ZipInfo(f"{name}.npy", (1980, 1, 1, 0, 0, 0))
                with archive.open(clockless, "w", force_zip64=True) as member:
                    member.write(array_header(array.shape, array.dtype))
                    for piece in array.pieces():
                        member.write(np.ascontiguousarray(piece, array.dtype).data)
        unfinished.replace(out)
    finally:
        unfinished.unlink(missing_ok=True)
