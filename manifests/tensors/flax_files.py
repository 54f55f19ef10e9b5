"""Checkpoints of Flax: msgpack with arrays in it, read as data. Needs neither Flax nor JAX.

Flax puts an array into extension 1 (a scalar of numpy's into 3): the packed triple (shape, name of the dtype, numbers
in C order). An array above its size of a chunk becomes a map with a marker, its shape and flat chunks; tuples become
maps with keys "0", "1", ... Numbers stay in the file until they are read.
"""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import msgpack

from lvae.manifests.errors import LvaeError
from lvae.manifests.tensors.lazy_tensor import StoredTensor, make_stored_array
from lvae.manifests.tensors.memory_file import MemoryFile

if TYPE_CHECKING:
    from torch import Tensor

MAX_VALUES = 1 << 17  # of a published training state, some 8,000
MAX_DEPTH = 32
MAX_TEXT = 1 << 16
READ_BYTES = 1 << 16
ARRAY, SCALAR = 1, 3  # Flax's extensions
CHUNKED = "__msgpack_chunked_array__"
MAPS = (*range(0x80, 0x90), 0xDE, 0xDF)  # first bytes
LISTS = (*range(0x90, 0xA0), 0xDC, 0xDD)
# The first byte of an extension, or of bytes -> how many come before the content.
EXTENSIONS = {0xC7: 3, 0xC8: 4, 0xC9: 6, 0xD4: 2, 0xD5: 2, 0xD6: 2, 0xD7: 2, 0xD8: 2}
BINARIES = {0xC4: 2, 0xC5: 3, 0xC6: 5}
ERRORS = (msgpack.UnpackException, ValueError, TypeError, OverflowError)


def looks_like_msgpack(head: bytes) -> bool:
    """Whether a file begins with a map that holds something, as every state does."""
    return bool(head) and head[0] in MAPS and head[0] != 0x80


def read_msgpack(data: memoryview, source: str) -> Mapping[str, Any]:
    """The map that a file is, arrays unread. LvaeError where it is none, cut off, or holds what Flax never writes."""
    reader = _Reader(data, source)
    tree = reader.read(0)
    if reader.position != len(data):
        raise reader.damaged(f"{len(data) - reader.position} bytes follow its end")
    return tree if isinstance(tree, dict) else {}


class _Reader:
    def __init__(self, data: memoryview, source: str):
        self._data, self._source, self._values = data, source, 0
        self._unpacker = msgpack.Unpacker(
            MemoryFile(data, READ_BYTES),
            read_size=READ_BYTES,
            max_buffer_size=max(len(data), 2 * READ_BYTES),
            max_str_len=MAX_TEXT,
            unicode_errors="replace",
        )

    @property
    def position(self) -> int:
        return int(self._unpacker.tell())

    def damaged(self, what: str) -> LvaeError:
        return LvaeError(self._source, f"no whole checkpoint of Flax: {what}", "Fetch it again.")

    def read(self, depth: int) -> Any:
        """The next one: a dict, list, StoredTensor or plain value; bytes are left out."""
        self._values += 1
        if self._values > MAX_VALUES or depth > MAX_DEPTH:
            raise self.damaged("more values, or deeper ones, than weights have")
        start = self.position
        first = self._data[start] if start < len(self._data) else -1
        try:
            if first in MAPS:
                return self._read_map(self._unpacker.read_map_header(), depth)
            if first in LISTS:
                return [self.read(depth + 1) for _ in range(self._unpacker.read_array_header())]
            if first in EXTENSIONS or first in BINARIES:
                self._unpacker.skip()
                return self._read_array(start, EXTENSIONS[first]) if first in EXTENSIONS else None
            return self._unpacker.unpack()
        except msgpack.OutOfData:
            raise self.damaged(f"it ends after {len(self._data)} bytes, in the middle of a value") from None
        except ERRORS as error:
            what = str(error) or f"byte {first:#x} where a value begins"
            raise self.damaged(f"at byte {start}, {what}") from None

    def _read_map(self, count: int, depth: int) -> Any:
        result: dict[str, Any] = {}
        for _ in range(count):
            key = self.read(depth + 1)
            if not isinstance(key, str | int):
                raise self.damaged(f"a key that is a {type(key).__name__}")
            result[str(key)] = self.read(depth + 1)
        return self._join_chunks(result) if result.get(CHUNKED) is True else result

    def _read_array(self, start: int, header_bytes: int) -> StoredTensor | None:
        """Of an extension from `start` to here; None for one that is no array."""
        if self._data[start + header_bytes - 1] not in (ARRAY, SCALAR):
            return None
        content = self._data[start + header_bytes : self.position]
        inner = _Reader(content, self._source)
        triple = len(content) and content[0] == 0x93 and inner._unpacker.read_array_header() == 3
        shape, dtype = (inner.read(MAX_DEPTH - 1), inner.read(MAX_DEPTH - 1)) if triple else (None, None)
        numbers = content[inner.position :]
        if not isinstance(shape, list) or not isinstance(dtype, str) or not numbers or numbers[0] not in BINARIES:
            raise self.damaged("an array that is not (shape, dtype, numbers)")
        header = BINARIES[numbers[0]]
        if int.from_bytes(numbers[1:header], "big") != len(numbers) - header:
            raise self.damaged("an array that is not (shape, dtype, numbers)")
        return make_stored_array(numbers[header:], dtype, self._check_sides(shape), self._source)

    def _check_sides(self, values: list[Any]) -> tuple[int, ...]:
        if len(values) > 16 or not all(type(side) is int and 0 <= side < 1 << 40 for side in values):
            raise self.damaged("an array whose shape is none")
        return tuple(values)

    def _join_chunks(self, marked: dict[str, Any]) -> StoredTensor:
        """An array in chunks, each flat."""
        parts = marked.get("chunks"), marked.get("shape")
        chunks, sides = (list(part.values()) if isinstance(part, dict) else part for part in parts)
        if not isinstance(chunks, list) or not isinstance(sides, list) or not chunks:
            raise self.damaged("an array in chunks without chunks or shape")
        shape = self._check_sides(sides)
        if not all(isinstance(chunk, StoredTensor) and len(chunk.shape) == 1 for chunk in chunks):
            raise self.damaged("an array in chunks that are no flat arrays")
        if sum(chunk.shape[0] for chunk in chunks) != math.prod(shape):
            raise self.damaged(f"an array {shape} in chunks of another length")

        def read() -> "Tensor":
            import torch

            return torch.cat([chunk.read() for chunk in chunks]).reshape(shape)

        return StoredTensor(shape, read)
