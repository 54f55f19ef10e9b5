"""Files of torch.save, zip and legacy format: which tensors they hold, and where. Pickles are read as data."""

import math
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from lvae.manifests.errors import LvaeError
from lvae.manifests.tensors.lazy_tensor import DTYPES, StoredTensor, stored_array, tensor_from
from lvae.manifests.tensors.pickle_objects import (
    ITEM_BYTES,
    Inert,
    MalformedPickleError,
    PickledArray,
    PickledStorage,
    PickledTensor,
    Table,
    TruncatedPickleError,
)
from lvae.manifests.tensors.pickle_reader import MAX_BYTES, Reader
from lvae.manifests.tensors.zip_archive import Archive

if TYPE_CHECKING:
    from torch import Tensor

MAGIC = 0x1950A86A20F9469CFC6C  # the first pickle of the legacy format
PROTOCOL = 1001  # the second one
MAX_DEPTH = 32  # of dictionaries in a pickle of arrays
MAX_BRANCHES = 1 << 16
BIG_ENDIAN = "written by a big-endian machine. Save it again on a little-endian one."

_Find = Callable[[PickledStorage, int], memoryview]  # the bytes of a storage, and how many there must be


def read_zip(archive: Archive, prefix: str, source: str) -> dict[str, StoredTensor]:
    """`prefix` is the folder in the archive that torch wrote, such as "archive/"."""
    if archive.get(f"{prefix}byteorder", 64) not in (None, b"little"):
        raise LvaeError(source, str(BIG_ENDIAN))
    reader = Reader(memoryview(archive.get(f"{prefix}data.pkl", MAX_BYTES) or b""))

    def find(storage: PickledStorage, needed: int) -> memoryview:
        numbers = archive.map(f"{prefix}data/{storage.key}", needed)
        if numbers is None or len(numbers) < needed:
            raise LvaeError(source, "damaged, the numbers of a tensor are missing", "Fetch it again.")
        return numbers[:needed]

    return _stored(_unpickle(reader, source), find, source)


def read_legacy(data: memoryview, source: str) -> dict[str, StoredTensor]:
    """Five pickles (magic number, protocol, system, object, keys of storages), then for every storage its length (8
    bytes) and numbers."""
    reader = Reader(data)
    if _unpickle(reader, source) != MAGIC or _unpickle(reader, source) != PROTOCOL:
        raise LvaeError(source, "a pickle that torch.save did not write", "Give a file that it wrote.")
    system, root, keys = (_unpickle(reader, source) for _ in range(3))
    if isinstance(system, Table) and dict(system.named()).get("little_endian") is False:
        raise LvaeError(source, str(BIG_ENDIAN))
    order = [key for key in keys if isinstance(key, str)] if isinstance(keys, list) else []
    places = _places(data, reader.stream.position, order, reader.storages)

    def find(storage: PickledStorage, needed: int) -> memoryview:
        start, elements = places.get(storage.key, (len(data), storage.elements))
        if elements != storage.elements:
            raise LvaeError(source, "damaged, a tensor and its numbers differ in length", "Fetch it again.")
        if start + needed > len(data):
            raise LvaeError(source, f"an incomplete download ({len(data)} bytes)", "Fetch it again.")
        return data[start : start + needed]

    return _stored(root, find, source)


def read_pickled_arrays(data: memoryview, source: str) -> Mapping[str, Any] | None:
    """The dictionaries of a pickle that is no file of torch's (None where it is one): nested, arrays unread.

    Other objects in it are left out; lists and tuples become dictionaries with keys "0", "1", ...
    """
    root = _unpickle(Reader(data, most=len(data)), source)
    if root == MAGIC:
        return None
    tree = _Branches(source).of(root, 0)
    if not isinstance(tree, dict):
        name = root.name if isinstance(root, Inert) else type(root).__name__
        raise LvaeError(source, f"a pickled {name} instead of arrays by name", "Give a dictionary of them.")
    return tree


class _Branches:
    """Tables as dictionaries. Tables may hold one another or be shared, so depth and number are bounded."""

    def __init__(self, source: str):
        self._source, self._left = source, MAX_BRANCHES

    def of(self, value: object, depth: int) -> Any:
        self._left -= 1
        if self._left < 0 or depth > MAX_DEPTH:
            raise LvaeError(self._source, "more objects, or deeper ones, than weights have", "Not loaded.")
        if isinstance(value, Table):
            return {str(key): self.of(item, depth + 1) for key, item in value.pairs() if isinstance(key, str | int)}
        if isinstance(value, list | tuple):
            return {str(number): self.of(item, depth + 1) for number, item in enumerate(value)}
        if isinstance(value, PickledArray):
            return self._array(value)
        return value if isinstance(value, str | int | float | bool) else None

    def _array(self, value: PickledArray) -> StoredTensor | None:
        if value.dtype is None or value.numbers is None:
            return None
        if value.dtype.big_endian:
            raise LvaeError(self._source, str(BIG_ENDIAN))
        return stored_array(value.numbers, value.dtype.name, value.shape, self._source, value.columns_first, value.axes)


def _places(
    data: memoryview, position: int, order: Iterable[str], storages: Mapping[str, PickledStorage]
) -> dict[str, tuple[int, int]]:
    """Where each storage's numbers begin and how many they are, as far as the file goes."""
    places: dict[str, tuple[int, int]] = {}
    for key in order:
        elements = int.from_bytes(data[position : position + 8], "little")
        item_bytes = ITEM_BYTES.get(storages[key].dtype) if key in storages else None
        if item_bytes is None or position + 8 > len(data):
            break  # nothing can be found behind numbers of unknown size
        places[key] = (position + 8, elements)
        position += 8 + elements * item_bytes
    return places


def _unpickle(reader: Reader, source: str) -> object:
    try:
        return reader.read()
    except TruncatedPickleError as error:
        raise LvaeError(source, f"an incomplete download (objects end at {error} bytes)", "Fetch it again.") from None
    except MalformedPickleError as error:
        raise LvaeError(source, f"damaged, or no weights: {error}", "Fetch it again.") from None
    except LvaeError as error:
        raise LvaeError(source, str(error)) from None


def _stored(root: object, find: _Find, source: str) -> dict[str, StoredTensor]:
    """The tensors under `state_dict`, or at the top."""
    if not isinstance(root, Table):
        name = root.name if isinstance(root, Inert) else type(root).__name__
        what = "a lone tensor" if isinstance(root, PickledTensor) else f"a pickled {name}"
        raise LvaeError(source, f"{what} instead of tensors by name", "Save its state_dict() and give that.")
    values = dict(root.named())
    inner = values.get("state_dict")
    if isinstance(inner, Table):
        values = dict(inner.named())
    return {name: _as_stored(value, find, source) for name, value in values.items() if isinstance(value, PickledTensor)}


def _as_stored(tensor: PickledTensor, find: _Find, source: str) -> StoredTensor:
    storage = tensor.storage

    def read() -> "Tensor":
        if tensor.dtype not in DTYPES:
            raise LvaeError(source, "a tensor holds numbers of an unknown kind, not weights")
        if math.prod(tensor.shape) > tensor.elements:
            raise LvaeError(source, f"a tensor {tensor.shape} with {tensor.elements} numbers behind it", "Not loaded.")
        numbers = find(storage, storage.elements * ITEM_BYTES[storage.dtype])
        return tensor_from(numbers, tensor.dtype, tensor.offset, tensor.shape, tensor.stride)

    return StoredTensor(tensor.shape, read)
