"""How a split lies in Zarr v3: names, metadata, chunks and the index of a shard."""

from typing import Any

import google_crc32c
import numpy as np

from lvae.manifests.shards.layout import CHUNK_ROWS, INDEX_BYTES, SplitLayout

PER_ROW = {"labels": ("int32", -1), "rows": ("int64", -1), "mirrored": ("bool", False)}  # dtype, fill value


LITTLE_ENDIAN = {"name": "bytes", "configuration": {"endian": "little"}}


NO_CHUNK = 2**64 - 1  # in place of offset and bytes of a chunk that lies past the end of the array


def array_metadata(layout: SplitLayout, name: str) -> dict[str, Any]:
    """What zarr.json of an array says, as zarr-python 3.1 writes it."""
    shape, dtype = _row_type(layout, name)
    plain = LITTLE_ENDIAN if np.dtype(dtype).itemsize > 1 else {"name": "bytes"}
    sharded = {
        "chunk_shape": [CHUNK_ROWS, *shape],
        "codecs": [plain],
        "index_codecs": [LITTLE_ENDIAN, {"name": "crc32c"}],
        "index_location": "end",
    }
    codecs = [plain] if name in PER_ROW else [{"name": "sharding_indexed", "configuration": sharded}]
    return {
        "shape": [layout.count, *shape],
        "data_type": dtype,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [layout.rows_per_shard, *shape]}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": PER_ROW[name][1] if name in PER_ROW else np.zeros((), dtype).item(),
        "codecs": codecs,
        "attributes": {},
        "dimension_names": ["row", "channel", "height", "width"][: 1 + len(shape)],
        "zarr_format": 3,
        "node_type": "array",
        "storage_transformers": [],
    }


def _root(view: str, layout: SplitLayout) -> str:
    return f"shards/{view}/{layout.split}.zarr"


def file_name(view: str, layout: SplitLayout, name: str, number: int) -> str:
    return f"{_root(view, layout)}/{name}/c/{number}" + ("" if name in PER_ROW else "/0/0/0")


def array_names(layout: SplitLayout) -> list[str]:
    """Latents first; each is an attribute of `ShardContent`."""
    return ["latents", *(["log_variances"] if layout.log_variances else []), *PER_ROW]


def _row_type(layout: SplitLayout, name: str) -> tuple[tuple[int, ...], str]:
    return ((), PER_ROW[name][0]) if name in PER_ROW else (layout.shape, layout.dtype)


def file_bytes(layout: SplitLayout, name: str, number: int) -> int:
    if name in PER_ROW:
        return layout.rows_per_shard * np.dtype(PER_ROW[name][0]).itemsize
    count = layout.rows_of(number)[1]
    return -(-count // CHUNK_ROWS) * CHUNK_ROWS * layout.latent_bytes + _index_bytes(layout)


def _index(layout: SplitLayout, count: int) -> bytes:
    """Where a shard's chunks lie: (offset, bytes) of each as uint64, then the CRC-32C of that."""
    index = np.full((layout.rows_per_shard // CHUNK_ROWS, 2), NO_CHUNK, "<u8")
    chunks, chunk_bytes = -(-count // CHUNK_ROWS), CHUNK_ROWS * layout.latent_bytes
    index[:chunks, 0] = np.arange(chunks) * chunk_bytes
    index[:chunks, 1] = chunk_bytes
    return index.tobytes() + _crc32c(index.tobytes())


def _index_bytes(layout: SplitLayout) -> int:
    return layout.rows_per_shard // CHUNK_ROWS * INDEX_BYTES + 4


def _crc32c(data: bytes) -> bytes:
    return int(google_crc32c.value(data)).to_bytes(4, "little")


def _valid_index(found: bytes, index_bytes: int, shard_bytes: int) -> bool:
    """Whether this is some shard's index whose chunks all lie inside of the file."""
    if len(found) != index_bytes or _crc32c(found[:-4]) != found[-4:]:
        return False
    index = np.frombuffer(found[:-4], "<u8").reshape(-1, INDEX_BYTES // 8)
    there = index[(index != NO_CHUNK).any(axis=1)].astype(object)  # Python integers do not wrap around
    return all(offset + size <= shard_bytes for offset, size in there)
