"""MosaicML's streaming shards (MDS, version 2), as mosaicml/diffusion's precompute_latents.py writes them.

A shard is a count (uint32), count + 1 offsets (uint32), its description, then samples: for every column without a
fixed size its length (uint32), then the columns. Columns are read as bytes by these rules; nothing is unpickled.
"""

import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lvae.encode.files import locations
from lvae.encode.files.locations import Seen
from lvae.encode.sources.label_values import ClassNumbers
from lvae.encode.sources.labels import parse_json
from lvae.encode.sources.reading.random_access import Containers
from lvae.manifests.errors import LvaeError
from lvae.manifests.parts.rows import ImageRow
from lvae.pipeline.exchange.caches.cache import Moments, Shape, entry_shape, look_at, refuse_empty
from lvae.pipeline.exchange.caches.files import MAX_BYTES

INDEX = "index.json"
MAX_INDEX = 256 << 20
LABELS = ("label", "labels", "class", "cls", "y")
INTEGERS = {
    "int": "<i8",
    **{f"{kind}{bits}": f"<{kind[0]}{bits // 8}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)},
}
FLOATS = {"float16": "<f2", "float32": "<f4", "float64": "<f8"}
VALUE_TYPES = {18: "<f2", 34: "<f4", 66: "<f8"}  # streaming's NDArray._int2value_dtype
SHAPE_TYPES = ("<u1", "<u2", "<u4", "<u8")


@dataclass(frozen=True)
class Shard:
    """name: the path of its file below the cache. columns: name, encoding and fixed size, in stored order."""

    name: str
    samples: int
    bytes: int
    columns: tuple[tuple[str, str, int | None], ...]


class MdsCache:
    """See Cache. array: the column of the latents. channels: of a latent, for columns that are plain bytes."""

    layout = "mds"
    moments: Moments | None = None
    orientations = 1

    def __init__(self, location: str, array: str | None, channels: int | None):
        self.location, self._channels = location, channels
        self.classes: tuple[str, ...] | None = None
        self.notes: list[str] = []
        self.seen = Seen()
        self._shards: dict[str, Shard] = {}
        for shard in _read_indexes(Path(location)):
            if self._shards.setdefault(shard.name, shard) is not shard:
                raise LvaeError(location, f"{shard.name} is listed twice", "Each shard may stand in an index once.")
        self._containers = Containers(location)
        refuse_empty(sum(shard.samples for shard in self._shards.values()), location)
        self._column = self._choose(array)
        self._refuse_other_columns()
        self.shape: Shape = self._find_shape()

    def _choose(self, wanted: str | None) -> str:
        columns = {name: encoding for name, encoding, _ in next(iter(self._shards.values())).columns}
        names = [name for name in columns if "latent" in name and "caption" not in name] if wanted is None else [wanted]
        names = [name for name in names if columns.get(name, "").partition(":")[0] in ("bytes", "ndarray")]
        if len(names) != 1:
            inside = ", ".join(f"{name} ({encoding})" for name, encoding in columns.items())
            problem = f"which of its columns holds the latents? It has {inside:.300}"
            raise LvaeError(self.location, problem, "Say --array NAME, of bytes or ndarray.")
        return names[0]

    def _refuse_other_columns(self) -> None:
        """LvaeError where a shard keeps the latents otherwise than the first one."""
        first = ""
        for shard in self._shards.values():
            how = next((encoding for name, encoding, _ in shard.columns if name == self._column), "no such column")
            first = first or how
            if how != first:
                problem = f"{self._column} is {first} in the first shard, and here {how}"
                raise LvaeError(f"{self.location}/{shard.name}", problem, "Import them by themselves.")

    def _find_shape(self) -> Shape:
        for shard in self._shards.values():
            for begin, end in self._places(shard):
                data = self._column_bytes(shard, begin, end, self._column)
                if data:
                    return self._parse(shard, data)[1]
        raise LvaeError(self.location, f"no sample has {self._column}")

    def _places(self, shard: Shard) -> Iterator[tuple[int, int]]:
        """Where each sample lies. LvaeError where the shard is not what its index says."""
        where = f"{self.location}/{shard.name}"
        head = self._read(shard, 0, 4 * (shard.samples + 2))
        offsets = np.frombuffer(head, "<u4")
        if int(offsets[0]) != shard.samples or (np.diff(offsets[1:].astype(np.int64)) < 0).any():
            raise LvaeError(where, "damaged: its head is not what the index says")
        if int(offsets[-1]) != shard.bytes:
            raise LvaeError(where, f"damaged: samples up to byte {offsets[-1]}, of {shard.bytes}")
        yield from zip(offsets[1:-1].tolist(), offsets[2:].tolist(), strict=True)

    def _read(self, shard: Shard, begin: int, length: int) -> bytes:
        return self._containers.read_at(shard.name, begin, length)

    def _column_bytes(self, shard: Shard, begin: int, end: int, column: str) -> bytes:
        """One column of a sample, the others unread."""
        loose = sum(size is None for _, _, size in shard.columns)
        where = f"{self.location}/{shard.name}"
        if end - begin < 4 * loose:
            raise LvaeError(where, f"damaged: a sample of {end - begin} bytes")
        lengths = iter(np.frombuffer(self._read(shard, begin, 4 * loose), "<u4").tolist())
        position = begin + 4 * loose
        for name, _, fixed in shard.columns:
            length = int(next(lengths)) if fixed is None else fixed
            if position + length > end or length > MAX_BYTES:
                raise LvaeError(where, f"damaged: {name} leaves its sample")
            if name == column:
                return self._read(shard, position, length)
            position += length
        raise LvaeError(where, f"has no column {column!r}")

    def _parse(self, shard: Shard, data: bytes) -> tuple[NDArray[Any], Shape]:
        encoding = next(encoding for name, encoding, _ in shard.columns if name == self._column)
        where = f"{self.location}/{shard.name}: {self._column}"
        kind, _, rest = encoding.partition(":")
        if kind == "bytes":
            return self._parse_plain(data, where)
        dtype_name, _, sides = rest.partition(":")
        place, dtype = 0, FLOATS.get(dtype_name)
        if not dtype_name:
            place, dtype = 1, VALUE_TYPES.get(data[0] if data else -1)
        if dtype is None:
            raise LvaeError(where, "holds no numbers with a point")
        try:
            shape = tuple(map(int, sides.split(","))) if sides else ()
            if not sides:
                packed = data[place]
                kind_of_side = np.dtype(SHAPE_TYPES[packed % 4])
                length = (packed >> 2) * kind_of_side.itemsize
                shape = tuple(np.frombuffer(data[place + 1 : place + 1 + length], kind_of_side).tolist())
                place += 1 + length
            found = entry_shape(shape, where)
            numbers = np.frombuffer(data, dtype, offset=place)
            if len(numbers) != math.prod(found):
                raise ValueError
        except (ValueError, IndexError):
            raise LvaeError(where, "damaged: its length is not that of its shape") from None
        return numbers.reshape(found), found

    def _parse_plain(self, data: bytes, where: str) -> tuple[NDArray[Any], Shape]:
        """Numbers without a shape: of 16 or 32 bits, whichever makes the latent a square."""
        if self._channels is None:
            raise LvaeError(where, "plain bytes: how many channels has a latent?", "Say --autoencoder NAME.")
        for dtype in ("<f2", "<f4"):
            places, rest = divmod(len(data), self._channels * np.dtype(dtype).itemsize)
            side = math.isqrt(places)
            if not rest and side * side == places and side:
                shape = self._channels, side, side
                return np.frombuffer(data, dtype).reshape(shape), shape
        problem = f"{len(data)} bytes are no square of {self._channels} channels"
        raise LvaeError(where, problem, "Is this its autoencoder?")

    def rows(self) -> Iterator[ImageRow]:
        """One a sample. Labels are read where a column of whole numbers bears such a name."""
        self.seen = look_at(self.location)
        columns = {name: encoding for name, encoding, _ in next(iter(self._shards.values())).columns}
        column = next((name for name in LABELS if columns.get(name) in INTEGERS), None)
        if column is not None:
            numbers = ClassNumbers()
            for shard in self._shards.values():
                for begin, end in self._places(shard):
                    numbers.add(self._label(shard, begin, end, column, columns[column]), shard.name)
            self.classes = numbers.settle()
        for shard in self._shards.values():
            for index, (begin, end) in enumerate(self._places(shard)):
                label = -1 if column is None else self._label(shard, begin, end, column, columns[column])
                yield ImageRow(f"{shard.name}:{index:07d}", shard.name, begin, end - begin, "", max(label, -1))

    def _label(self, shard: Shard, begin: int, end: int, column: str, encoding: str) -> int:
        data = self._column_bytes(shard, begin, end, column)
        dtype = np.dtype(INTEGERS[encoding])
        if len(data) != dtype.itemsize:
            raise LvaeError(f"{self.location}/{shard.name}: {column}", f"{len(data)} bytes are no {encoding}")
        return int(np.frombuffer(data, dtype)[0])

    def read(self, rows: Sequence[ImageRow], out: NDArray[np.float32]) -> dict[int, str]:
        reasons: dict[int, str] = {}
        for position, row in enumerate(rows):
            shard = self._shards.get(row.container)
            if shard is None:
                raise LvaeError(f"{self.location}/{row.container}", "is not there any more")
            data = self._column_bytes(shard, row.offset, row.offset + row.length, self._column)
            if not data:
                reasons[position] = f"{self._column} is empty"
                continue
            try:
                numbers, shape = self._parse(shard, data)
                if shape == self.shape:
                    out[position, 0] = numbers
                else:
                    reasons[position] = f"of shape {'x'.join(map(str, shape))}"
            except LvaeError as error:
                reasons[position] = error.problem
        return reasons


def has_index(folder: Path) -> bool:
    return bool(_indexes(folder))


def _indexes(folder: Path) -> list[str]:
    """Of the cache itself, or of the folders that several processes wrote."""
    if (folder / INDEX).is_file():
        return [""]
    below = sorted(entry.name for entry in os.scandir(folder) if entry.is_dir())
    return [f"{name}/" for name in below if (folder / name / INDEX).is_file()]


def _read_indexes(folder: Path) -> Iterator[Shard]:
    for below in _indexes(folder):
        path = folder / below / INDEX
        found = parse_json(locations.read_up_to(str(path), MAX_INDEX), str(path), nan=True)
        shards = found.get("shards") if isinstance(found, dict) else None
        if not isinstance(shards, list) or not shards:
            raise LvaeError(path, "is no index of MDS shards")
        for one in shards:
            yield _describe(folder, below, one, path)


def _describe(folder: Path, below: str, one: Any, path: Path) -> Shard:
    try:
        if (one["format"], one["version"]) != ("mds", 2):
            raise LvaeError(path, f"lists shards of {one['format']!r:.20}, version {one['version']!r:.20}", "MDS, 2.")
        if one["compression"]:
            problem = f"its shards are compressed ({one['compression']!r:.40})"
            raise LvaeError(path, problem, "Write them anew with compression=None.")
        basename, size, samples = one["raw_data"]["basename"], one["raw_data"]["bytes"], one["samples"]
        columns = tuple(zip(one["column_names"], one["column_encodings"], one["column_sizes"], strict=True))
        text = all(isinstance(name, str) and isinstance(encoding, str) for name, encoding, _ in columns)
        sizes = all(fixed is None or (type(fixed) is int and 0 <= fixed < 1 << 32) for *_, fixed in columns)
        whole = type(size) is int and type(samples) is int and 0 <= 4 * (samples + 2) <= size
        if not (isinstance(basename, str) and text and sizes and whole):
            raise TypeError
    except (KeyError, TypeError, ValueError):
        raise LvaeError(path, "damaged: a shard is not described as MDS shards are") from None
    if basename.startswith("/") or "\\" in basename or ".." in basename.split("/"):
        raise LvaeError(path, f"{basename!r:.100} leads out of the cache", "Do not use these files.")
    name = f"{below}{basename}"
    if not (folder / name).is_file() or (folder / name).stat().st_size != size:
        raise LvaeError(folder / name, f"is missing or has not its {size} bytes", "Copy it again.")
    return Shard(name, samples, size, columns)
