"""Shards as a Zarr v3 group, whose latents can be mapped.

Layout: zarr-specs.readthedocs.io, core protocol 3.0 and the sharding-indexed codec 1.0. Latents lie in chunks of 64
rows, a shard is its chunks one after the other and then an index, so that a full shard is one array in the file; the
chunks of zeros that zarr-python would leave out are written. Labels, rows and mirrored have one plain chunk per shard,
so that whoever writes a shard writes whole files.

A shard laid out as `write_shard` does it is mapped and needs no zarr. Whatever else is valid Zarr of the same shape
and dtype (compressed by another program, say) is read through zarr-python, at a hundredth of the speed.
"""

import itertools
import json
import logging
from collections.abc import Iterable, Iterator
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from lvae.manifests.errors import LvaeError
from lvae.manifests.shards.float16 import cast
from lvae.manifests.shards.layout import CHUNK_ROWS, Facts, ShardContent, SplitLayout, finish_shard_file
from lvae.manifests.shards.mapped_array import Buffer, Indices, Rows, ShardedArray, ShardRows, map_file, positions
from lvae.manifests.shards.missing import explain_missing
from lvae.manifests.shards.zarr_layout import (
    PER_ROW,
    _index,
    _root,
    _row_type,
    _valid_index,
    array_metadata,
    array_names,
    file_bytes,
    file_name,
)
from lvae.manifests.storage.folder import FileRecord, Folder

logger = logging.getLogger(__name__)

REPAIR = "Run 'lvae encode' again to rebuild it."
# What zarr-python makes of metadata that nobody should write; codecs are put together with the first reading only.
ZARR_ERRORS = (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RuntimeError, MemoryError, OSError)


class ZarrCodec:
    name = "zarr"

    def json_width(self, rows: int, keys: Iterable[str]) -> int:
        return 0

    def prepare(self, folder: Folder, view: str, layout: SplitLayout) -> list[FileRecord]:
        root = _root(view, layout)
        group = {"attributes": {}, "zarr_format": 3, "node_type": "group"}
        documents = {f"{root}/zarr.json": group}
        for name in array_names(layout):
            documents[f"{root}/{name}/zarr.json"] = array_metadata(layout, name)
        return [folder.write(path, json.dumps(document, indent=2).encode()) for path, document in documents.items()]

    def write_shard(
        self, folder: Folder, view: str, layout: SplitLayout, number: int, content: ShardContent
    ) -> list[FileRecord]:
        content.expect(layout, number)
        records = []
        for name in array_names(layout):
            with folder.writer() as unfinished:
                values = getattr(content, name)
                for piece in _chunk(layout, name, values) if name in PER_ROW else _shard(layout, values):
                    unfinished.file.write(piece)
                records.append(finish_shard_file(folder, unfinished, file_name(view, layout, name, number)))
        return records

    def shard_files(self, view: str, layout: SplitLayout, number: int) -> list[str]:
        return [file_name(view, layout, name, number) for name in array_names(layout)]

    def open_split(self, folder: Folder, view: str, layout: SplitLayout) -> "ZarrReader":
        reader = ZarrReader(folder, view, layout)
        for fault in reader.faults(range(layout.shards)):
            raise LvaeError("", fault)
        return reader

    def reader(self, folder: Folder, view: str, layout: SplitLayout) -> "ZarrReader":
        return ZarrReader(folder, view, layout)

    def check(self, folder: Folder, view: str, layout: SplitLayout, shards: range | None = None) -> Iterator[str]:
        try:
            reader = ZarrReader(folder, view, layout)
        except LvaeError as error:
            yield str(error)
            return
        yield from reader.faults(shards or range(layout.shards), every_index=True)


class ZarrReader:
    """A split in a Zarr group."""

    def __init__(self, folder: Folder, view: str, layout: SplitLayout):
        """Reads the metadata; LvaeError where an array is missing or not the layout's."""
        self._place = (folder, view, layout)
        self._stock = {name: self._stock_array(name) for name in array_names(layout)}
        self._arrays = {name: self._sharded(name) for name in array_names(layout)}
        self.latents = self._arrays["latents"]
        self.log_variances = self._arrays.get("log_variances")

    def __len__(self) -> int:
        return len(self.latents)

    def __reduce__(self) -> tuple[Any, ...]:
        return ZarrReader, self._place

    @cached_property
    def labels(self) -> NDArray[np.int32]:
        return np.asarray(self._arrays["labels"])

    @cached_property
    def rows(self) -> NDArray[np.int64]:
        return np.asarray(self._arrays["rows"])

    @cached_property
    def mirrored(self) -> NDArray[np.bool_]:
        return np.asarray(self._arrays["mirrored"])

    def read(self, indices: Indices, dtype: DTypeLike | None = None) -> tuple[NDArray[Any], NDArray[np.int32]]:
        """Latents (n, C, h, w), as stored or cast, and labels (n,)."""
        rows = positions(indices, len(self))
        latents = self.latents.gather(rows)
        return cast(latents, dtype), self._arrays["labels"].gather(rows)

    def facts(self, shard: int) -> Facts:
        return Facts(*(self._arrays[name].shard(shard) for name in PER_ROW))

    def close(self) -> None:
        for array in self._arrays.values():
            array.close()

    def faults(self, shards: range, every_index: bool = False) -> Iterator[str]:
        """Files that are missing or of a wrong size; with `every_index`, also whatever is not as we write it.

        Of what another program has written, all shards are looked at with the first.
        """
        folder, view, layout = self._place
        group = f"{_root(view, layout)}/zarr.json"
        if not folder.exists(group):
            yield f"{folder}/{group}: this file is missing. {REPAIR}"
        for name, stock in self._stock.items():
            if stock is not None:
                if 0 in shards:
                    yield from self._missing_chunks(name, stock)
                if every_index:
                    yield f"{folder}/{_root(view, layout)}/{name}: another program has written it. {REPAIR}"
                continue
            for number in shards:
                size = folder.size(file_name(view, layout, name, number))
                if every_index or size != file_bytes(layout, name, number):
                    yield from self._opening_faults(name, number, every_index)

    def _opening_faults(self, name: str, number: int, every_index: bool) -> Iterator[str]:
        folder, view, layout = self._place
        try:
            opened = self._open(name, number)
        except LvaeError as error:
            yield str(error)
            return
        if every_index and isinstance(opened, StockRows):
            yield f"{folder}/{file_name(view, layout, name, number)}: another program has written it. {REPAIR}"

    def _missing_chunks(self, name: str, stock: Any) -> Iterator[str]:
        """Zarr reads what is missing as the fill value, which is right for labels and never for latents."""
        folder, view, layout = self._place
        if name in PER_ROW:
            return
        grid = [range(-(-n // step)) for n, step in zip(stock.shape, stock.shards or stock.chunks, strict=True)]
        for place in itertools.product(*grid):
            path = f"{_root(view, layout)}/{name}/{stock.metadata.encode_chunk_key(place)}"
            if not folder.exists(path):
                yield f"{folder}/{path}: this shard is missing. {REPAIR}"

    def _stock_array(self, name: str) -> Any:
        """None if the metadata is ours, so that shards can be mapped; zarr-python's array otherwise."""
        folder, view, layout = self._place
        path = f"{_root(view, layout)}/{name}"
        text = folder.read_if_there(f"{path}/zarr.json")
        if text is None:
            raise explain_missing(folder, f"{path}/zarr.json", "this file is missing", REPAIR)
        try:
            found = {**json.loads(text)}
        except (ValueError, TypeError, RecursionError) as error:
            raise LvaeError(f"{folder}/{path}/zarr.json", "this is not a JSON object", str(REPAIR)) from error
        expected = array_metadata(layout, name)
        described = ("attributes", "dimension_names", "storage_transformers", "fill_value")  # decide no byte we map
        if all(found.get(key) == value for key, value in expected.items() if key not in described):
            return None
        logger.warning("%s/%s is not laid out as we write it: reading it through zarr, which is slow", folder, path)
        stock = _open_with_zarr(folder, path)
        if 0 in (stock.shards or stock.chunks):
            raise LvaeError(f"{folder}/{path}", "has chunks of nothing", str(REPAIR))
        if list(stock.shape) != expected["shape"] or stock.dtype.name != expected["data_type"]:
            wrong = f"{stock.dtype}{list(stock.shape)} where {expected['data_type']}{expected['shape']} belongs"
            raise LvaeError(f"{folder}/{path}", f"holds {wrong}", str(REPAIR))
        return stock

    def _sharded(self, name: str) -> ShardedArray:
        layout = self._place[2]
        shape, dtype = _row_type(layout, name)
        return ShardedArray(layout.count, shape, dtype, layout.rows_per_shard, lambda number: self._open(name, number))

    def _open(self, name: str, number: int) -> ShardRows:
        folder, view, layout = self._place
        first, count = layout.rows_of(number)
        if self._stock[name] is not None:
            return StockRows(self._stock[name], first, count)
        path, expected = file_name(view, layout, name, number), file_bytes(layout, name, number)
        size = folder.size(path)
        if not size:
            raise explain_missing(folder, path, f"this shard is {'missing' if size is None else 'empty'}", REPAIR)
        shape, dtype = _row_type(layout, name)
        if name in PER_ROW:
            if size != expected:
                raise LvaeError(f"{folder}/{path}", f"has {size} bytes, not {expected}", str(REPAIR))
            row_bytes = np.dtype(dtype).itemsize
            return Rows(folder.read(path), range(0, count * row_bytes, row_bytes), shape, dtype)
        shard, index = map_file(folder.local(path)), _index(layout, count)
        found = bytes(shard[-len(index) :])
        if found == index and size == expected:
            return Rows(shard, range(0, count * layout.latent_bytes, layout.latent_bytes), shape, dtype)
        if not _valid_index(found, len(index), size):
            raise LvaeError(f"{folder}/{path}", "its index is damaged or it is cut short", str(REPAIR))
        logger.warning("%s/%s is not laid out as we write it: reading it through zarr, which is slow", folder, path)
        return StockRows(_open_with_zarr(folder, f"{_root(view, layout)}/{name}"), first, count)


class StockRows:
    """Rows `first` to `first + count` of zarr-python's array; the chunk read last is kept."""

    def __init__(self, array: Any, first: int, count: int):
        self._array, self._first, self._count = array, first, count
        self._dtype = np.dtype(array.dtype.name)  # in this machine's byte order
        self._block: NDArray[Any] = np.empty((0, *array.shape[1:]), self._dtype)
        self._block_first = 0

    def row(self, row: int) -> Buffer:
        step, place = self._array.chunks[0], self._first + row
        if not 0 <= place - self._block_first < len(self._block):
            self._block_first = place // step * step
            self._block = self._read(self._block_first, self._block_first + step)
        data: bytes = self._block[place - self._block_first].tobytes()
        return data

    def array(self) -> NDArray[Any]:
        return self._read(self._first, self._first + self._count)

    def _read(self, start: int, stop: int) -> NDArray[Any]:
        try:
            return np.asarray(self._array[start:stop], self._dtype)
        except ZARR_ERRORS as error:
            raise LvaeError(
                self._array.store_path, f"rows {start} to {stop} cannot be read ({error})", str(REPAIR)
            ) from error


def _open_with_zarr(folder: Folder, path: str) -> Any:
    import zarr

    try:
        return zarr.open_array(folder.local(path), mode="r", zarr_format=3)
    except ZARR_ERRORS as error:
        raise LvaeError(f"{folder}/{path}", f"zarr cannot open this array ({error})", str(REPAIR)) from error


def _chunk(layout: SplitLayout, name: str, values: NDArray[Any]) -> Iterator[NDArray[Any]]:
    """A plain chunk: the values, then the fill value."""
    dtype, fill = PER_ROW[name]
    yield np.ascontiguousarray(values)
    yield np.full(layout.rows_per_shard - len(values), fill, dtype)


def _shard(layout: SplitLayout, latents: NDArray[Any]) -> Iterator[NDArray[Any] | bytes]:
    """The chunks, the last one filled up with zeros, and their index."""
    yield np.ascontiguousarray(latents).reshape(-1).view(np.uint8)
    yield bytes(-len(latents) % CHUNK_ROWS * layout.latent_bytes)
    yield _index(layout, len(latents))
