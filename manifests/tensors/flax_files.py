"""Checkpoints of Flax: msgpack with arrays in it, read as data. Needs neither msgpack nor Flax nor JAX.

The format is documented at github.com/msgpack/msgpack/blob/master/spec.md. Flax puts an array into extension 1 (a
scalar of numpy's into 3): the packed triple (shape, name of the dtype, numbers in C order). An array above its size of
a chunk becomes a map with a marker, its shape and flat chunks; tuples become maps with keys "0", "1", ...
"""

import math
import struct
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from lvae.manifests.errors import LvaeError
from lvae.manifests.tensors.lazy_tensor import StoredTensor, stored_array

if TYPE_CHECKING:
    from torch import Tensor

MAX_VALUES = 1 << 17  # of a published training state, some 8,000
MAX_DEPTH = 32
MAX_TEXT = 1 << 16
ARRAY, SCALAR = 1, 3  # Flax's extensions
CHUNKED = "__msgpack_chunked_array__"

# First byte -> form of the struct module.
NUMBERS = {
    0xCA: ">f",
    0xCB: ">d",
    0xCC: ">B",
    0xCD: ">H",
    0xCE: ">I",
    0xCF: ">Q",
    0xD0: ">b",
    0xD1: ">h",
    0xD2: ">i",
    0xD3: ">q",
}
LENGTHS = {1: ">B", 2: ">H", 4: ">I"}
TEXTS = {0xD9: 1, 0xDA: 2, 0xDB: 4}  # first byte -> bytes of the length that follows
BINARIES = {0xC4: 1, 0xC5: 2, 0xC6: 4}
ARRAYS = {0xDC: 2, 0xDD: 4}
MAPS = {0xDE: 2, 0xDF: 4}
EXTENSIONS = {0xC7: 1, 0xC8: 2, 0xC9: 4}
FIXED_EXTENSIONS = {0xD4: 1, 0xD5: 2, 0xD6: 4, 0xD7: 8, 0xD8: 16}  # first byte -> bytes of content


def looks_like_msgpack(head: bytes) -> bool:
    """Whether a file begins with a map that holds something, as every state does."""
    return bool(head) and (0x81 <= head[0] <= 0x8F or head[0] in MAPS)


def read_msgpack(data: memoryview, source: str) -> Mapping[str, Any]:
    """The map that a file is, arrays unread. LvaeError where it is none, cut off, or holds what Flax never writes."""
    reader = _Reader(data, source)
    value = reader.value(0)
    if reader.position != len(data):
        raise reader.damaged(f"{len(data) - reader.position} bytes follow its end")
    if not isinstance(value, dict):
        raise reader.damaged(f"a {type(value).__name__} instead of a map")
    return value


class _Reader:
    def __init__(self, data: memoryview, source: str):
        self._data, self._source = data, source
        self.position, self._values = 0, 0

    def damaged(self, what: str) -> LvaeError:
        return LvaeError(self._source, f"no whole checkpoint of Flax: {what}", "Fetch it again.")

    def value(self, depth: int) -> Any:
        """The next one: a dict, list, StoredTensor, text, memoryview or plain value."""
        self._values += 1
        if self._values > MAX_VALUES or depth > MAX_DEPTH:
            raise self.damaged("more values, or deeper ones, than weights have")
        code = self._take(1)[0]
        if code < 0x80:
            return code
        if code >= 0xE0:
            return code - 0x100
        if code < 0x90:
            return self._map(code & 0x0F, depth)
        if code < 0xA0:
            return self._array(code & 0x0F, depth)
        if code < 0xC0:
            return self._text(code & 0x1F)
        if code in (0xC0, 0xC2, 0xC3):
            return {0xC0: None, 0xC2: False, 0xC3: True}[code]
        if code in NUMBERS:
            return self._number(NUMBERS[code])
        if code in TEXTS:
            return self._text(self._length(TEXTS[code]))
        if code in BINARIES:
            return self._take(self._length(BINARIES[code]))
        if code in ARRAYS:
            return self._array(self._length(ARRAYS[code]), depth)
        if code in MAPS:
            return self._map(self._length(MAPS[code]), depth)
        if code in EXTENSIONS:
            return self._extension(self._length(EXTENSIONS[code]))
        if code in FIXED_EXTENSIONS:
            return self._extension(FIXED_EXTENSIONS[code])
        raise self.damaged(f"byte {code:#x} where a value begins")

    def _take(self, count: int) -> memoryview:
        end = self.position + count
        if end > len(self._data):
            raise self.damaged(f"it ends after {len(self._data)} bytes, in the middle of a value")
        piece, self.position = self._data[self.position : end], end
        return piece

    def _number(self, form: str) -> Any:
        return struct.unpack(form, self._take(struct.calcsize(form)))[0]

    def _length(self, size: int) -> int:
        return int(self._number(LENGTHS[size]))

    def _text(self, count: int) -> str:
        if count > MAX_TEXT:
            raise self.damaged(f"a text of {count} bytes")
        return bytes(self._take(count)).decode("utf-8", "replace")

    def _array(self, count: int, depth: int) -> list[Any]:
        return [self.value(depth + 1) for _ in range(count)]  # every value takes a byte at least: cut off before memory

    def _map(self, count: int, depth: int) -> Any:
        result: dict[str, Any] = {}
        for _ in range(count):
            key = self.value(depth + 1)
            if not isinstance(key, str | int):
                raise self.damaged(f"a key that is a {type(key).__name__}")
            result[str(key)] = self.value(depth + 1)
        return self._joined(result) if result.get(CHUNKED) is True else result

    def _extension(self, count: int) -> StoredTensor | None:
        kind, content = self._number(">b"), self._take(count)
        if kind not in (ARRAY, SCALAR):
            return None
        inner = _Reader(content, self._source)
        triple = inner.value(MAX_DEPTH - 2)
        if not isinstance(triple, list) or len(triple) != 3 or inner.position != len(content):
            raise self.damaged("an array that is not (shape, dtype, numbers)")
        shape, dtype, numbers = triple
        if not isinstance(shape, list) or not isinstance(dtype, str) or not isinstance(numbers, memoryview):
            raise self.damaged("an array that is not (shape, dtype, numbers)")
        return stored_array(numbers, dtype, self._sides(shape), self._source)

    def _sides(self, values: Any) -> tuple[int, ...]:
        if len(values) > 16 or not all(type(side) is int and 0 <= side < 1 << 40 for side in values):
            raise self.damaged("an array whose shape is none")
        return tuple(values)

    def _joined(self, marked: dict[str, Any]) -> StoredTensor:
        """An array in chunks, each flat."""
        parts = marked.get("chunks"), marked.get("shape")
        chunks, sides = (list(part.values()) if isinstance(part, dict) else part for part in parts)
        if not isinstance(chunks, list) or not isinstance(sides, list) or not chunks:
            raise self.damaged("an array in chunks without chunks or shape")
        shape = self._sides(sides)
        if not all(isinstance(chunk, StoredTensor) and len(chunk.shape) == 1 for chunk in chunks):
            raise self.damaged("an array in chunks that are no flat arrays")
        if sum(chunk.shape[0] for chunk in chunks) != math.prod(shape):
            raise self.damaged(f"an array {shape} in chunks of another length")

        def read() -> "Tensor":
            import torch

            return torch.cat([chunk.read() for chunk in chunks]).reshape(shape)

        return StoredTensor(shape, read)
