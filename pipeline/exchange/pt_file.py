"""A file of float32 tensors as torch.load reads it, `weights_only` too; torch itself is not needed to write it.

A zip of data.pkl, data/0, data/1, ...: the pickle names torch's own function that puts a tensor on a storage.
"""

import struct
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lvae.pipeline.exchange.stored_zip import StoredZip

REBUILD, STORAGE = b"ctorch._utils\n_rebuild_tensor_v2\n", b"ctorch\nFloatStorage\n"
NO_HOOKS = b"ccollections\nOrderedDict\n)R"


def write_pt(path: Path, arrays: Mapping[str, NDArray[np.float32]]) -> None:
    """A dictionary of tensors by name, in this order."""
    items = [_text(name) + _tensor(number, array) for number, (name, array) in enumerate(arrays.items())]
    folder = path.stem
    with StoredZip(path) as archive:
        archive.add(f"{folder}/data.pkl", b"\x80\2}(" + b"".join(items) + b"u.")
        archive.add(f"{folder}/byteorder", b"little")
        for number, array in enumerate(arrays.values()):
            archive.add(f"{folder}/data/{number}", array.astype("<f4").tobytes())
        archive.add(f"{folder}/version", b"3\n")
        archive.finish()


def _tensor(number: int, array: NDArray[np.float32]) -> bytes:
    storage = b"(" + _text("storage") + STORAGE + _text(str(number)) + _text("cpu") + _whole(array.size) + b"tQ"
    strides = [int(np.prod(array.shape[axis + 1 :], dtype=np.int64)) for axis in range(array.ndim)]
    return REBUILD + b"(" + storage + _whole(0) + _tuple(array.shape) + _tuple(strides) + b"\x89" + NO_HOOKS + b"tR"


def _text(value: str) -> bytes:
    data = value.encode()
    return b"X" + struct.pack("<I", len(data)) + data


def _whole(value: int) -> bytes:
    return b"J" + struct.pack("<i", value)


def _tuple(values: Sequence[int]) -> bytes:
    return b"(" + b"".join(map(_whole, values)) + b"t"
