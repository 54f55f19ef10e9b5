"""Arrays in Zarr, of version 2 or 3: those whose codecs run nothing."""

import itertools
import json
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lvae.encode.files import locations
from lvae.encode.sources.labels import parse_json
from lvae.manifests.errors import LvaeError
from lvae.pipeline.exchange.caches.arrays import StoredArray

METADATA = ("zarr.json", ".zarray", ".zgroup")
DESCRIPTIONS = {*METADATA, ".zattrs", ".zmetadata"}
MAX_BYTES = 1 << 20
MAX_CHUNK = 1 << 30  # bytes that one read has to unpack
CODECS = {"bytes", "transpose", "sharding_indexed", "gzip", "zstd", "blosc", "crc32c", "zlib", "lz4", "bz2", "lzma"}
CODECS |= {"shuffle", "numcodecs.zlib", "numcodecs.zstd", "numcodecs.lz4", "numcodecs.shuffle", "numcodecs.blosc"}


def is_zarr(folder: Path) -> bool:
    return any((folder / name).is_file() for name in METADATA)


def read_zarr(folder: Path) -> Iterator[StoredArray]:
    """The arrays of a group, or the one array that this is."""
    if _is_array(folder):
        yield _open(folder, folder.name.removesuffix(".zarr"))
        return
    for path in sorted(folder.iterdir()):
        if path.is_dir() and _is_array(path):
            yield _open(path, path.name)


def _is_array(folder: Path) -> bool:
    if (folder / ".zarray").is_file():
        return True
    return (folder / "zarr.json").is_file() and _metadata(folder / "zarr.json").get("node_type") == "array"


def _metadata(path: Path) -> dict[str, Any]:
    try:
        found = parse_json(locations.read_up_to(str(path), MAX_BYTES), str(path), nan=True)
    except OSError as error:
        raise LvaeError(path, f"cannot be read ({locations.explain(error)})") from error
    if not isinstance(found, dict):
        raise LvaeError(path, "is no description of an array")
    return found


def _refuse_other_codecs(value: Any, where: Path) -> None:
    """A codec such as pickle would run what a stranger wrote."""
    if isinstance(value, list):
        for one in value:
            _refuse_other_codecs(one, where)
    elif isinstance(value, dict):
        name = value.get("name", value.get("id"))
        if name not in CODECS:
            raise LvaeError(where, f"uses the codec {json.dumps(name):.60}, which is not read here")
        configuration = value.get("configuration", {})
        if isinstance(configuration, dict):
            _refuse_other_codecs([configuration.get("codecs", []), configuration.get("index_codecs", [])], where)


def _refuse_missing_chunks(folder: Path, wanted: int) -> None:
    """LvaeError where there are fewer files than chunks: what was never written would be read as zeros."""
    names = (name for _, _, files in os.walk(folder) for name in files if name not in DESCRIPTIONS)
    found = sum(1 for _ in itertools.islice(names, wanted))
    if found < wanted:
        advice = "Was it written to its end? Cut it to the rows that are there."
        raise LvaeError(folder, f"{wanted - found} of {wanted} chunks are missing", advice)


def _open(folder: Path, name: str) -> StoredArray:
    import zarr

    path = next(folder / one for one in (".zarray", "zarr.json") if (folder / one).is_file())
    metadata = _metadata(path)
    if path.name == ".zarray":
        _refuse_other_codecs([metadata.get("filters") or [], metadata.get("compressor") or []], path)
    else:
        if metadata.get("storage_transformers"):
            raise LvaeError(path, "uses storage transformers, which are not read here")
        _refuse_other_codecs(metadata.get("codecs", []), path)
    try:
        array: Any = zarr.open_array(str(folder), mode="r")
        dtype, shape = np.dtype(array.dtype), tuple(array.shape)
    except (ValueError, TypeError, KeyError, OSError, RuntimeError) as error:
        raise LvaeError(folder, f"cannot be opened as Zarr ({error!s:.100})") from error
    if dtype.hasobject:
        raise LvaeError(folder, "holds objects, not numbers")
    stored = tuple(array.shards or array.chunks)
    if math.prod(stored) * dtype.itemsize > MAX_CHUNK:
        problem = f"its chunks are {'x'.join(map(str, stored))}, more than {MAX_CHUNK >> 30} GiB each"
        raise LvaeError(folder, f"{problem:.200}", "Write it anew in smaller ones.")
    if dtype.kind == "f" and len(shape) >= 4:
        _refuse_missing_chunks(folder, math.prod(-(-side // part) for side, part in zip(shape, stored, strict=True)))

    def read(start: int, stop: int) -> NDArray[Any]:
        try:
            return np.asarray(array[start:stop])
        except (ValueError, TypeError, KeyError, OSError, RuntimeError) as error:
            raise LvaeError(folder, f"cannot be read ({error!s:.100})") from error

    return StoredArray(name, dtype.str, shape, read)
