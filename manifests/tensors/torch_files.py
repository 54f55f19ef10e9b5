"""Files of torch.save, zip and legacy format: which tensors they hold, and where. Pickles are read as data."""

import math
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from lvae.manifests.errors import LvaeError
from lvae.manifests.tensors.lazy_tensor import DTYPES, StoredTensor, Tree, make_stored_array, make_tensor
from lvae.manifests.tensors.pickle_objects import ITEM_BYTES, LatinText, PickledArray
from lvae.manifests.tensors.pickle_program import MAX_BYTES, MAX_STEPS, MalformedPickleError, TruncatedPickleError
from lvae.manifests.tensors.pickle_reader import MAGIC, Reader
from lvae.manifests.tensors.pickled_values import PickledStorage, PickledTensor, Table
from lvae.manifests.tensors.zip_archive import Archive

if TYPE_CHECKING:
    from torch import Tensor

PROTOCOL = 1001  # the second one
MAX_DEPTH = 64  # of dictionaries and modules in one another
MAX_BRANCHES = 1 << 17  # dictionaries, lists and tensors
PLAIN = str | int | float | bool | None
MODULE = ("_parameters", "_buffers", "_modules")  # the state of torch's nn.Module
BIG_ENDIAN = "written by a big-endian machine", "Save it again on a little-endian one."

_Find = Callable[[PickledStorage, int], memoryview]  # the bytes of a storage, and how many there must be


def read_zip(archive: Archive, prefix: str, source: str) -> Tree:
    """`prefix` is the folder in the archive that torch wrote, such as "archive/"."""
    if archive.get(f"{prefix}byteorder", 64) not in (None, b"little"):
        raise LvaeError(source, *BIG_ENDIAN)
    reader = Reader(memoryview(archive.get(f"{prefix}data.pkl", MAX_BYTES) or b""))

    def find(storage: PickledStorage, needed: int) -> memoryview:
        numbers = archive.map(f"{prefix}data/{storage.key}", needed)
        if numbers is None or len(numbers) < needed:
            raise LvaeError(source, "damaged, the numbers of a tensor are missing", "Fetch it again.")
        return numbers[:needed]

    return _TreeBuilder(source, find).convert_root(_unpickle(reader, source))


def read_legacy(data: memoryview, source: str) -> Tree:
    """Five pickles (magic number, protocol, system, object, keys of storages), then for every storage its length (8
    bytes) and numbers."""
    reader = Reader(data)
    if _unpickle(reader, source) != MAGIC or _unpickle(reader, source) != PROTOCOL:
        raise LvaeError(source, "a pickle that torch.save did not write", "Give a file that it wrote.")
    system, root, keys = (_unpickle(reader, source) for _ in range(3))
    if isinstance(system, Table) and system.named().get("little_endian") is False:
        raise LvaeError(source, *BIG_ENDIAN)
    order = [key for key in keys if isinstance(key, str)] if isinstance(keys, list) else []
    places = _find_places(data, reader.position, order, reader.storages)

    def find(storage: PickledStorage, needed: int) -> memoryview:
        start, elements = places.get(storage.key, (len(data), storage.elements))
        if elements != storage.elements:
            raise LvaeError(source, "damaged, a tensor and its numbers differ in length", "Fetch it again.")
        if start + needed > len(data):
            raise LvaeError(source, f"an incomplete download ({len(data)} bytes)", "Fetch it again.")
        return data[start : start + needed]

    return _TreeBuilder(source, find).convert_root(root)


def read_pickled_arrays(data: memoryview, source: str) -> Tree | None:
    """A pickle of arrays by name that is no file of torch's (None where it is one). As `read_zip`."""
    root = _unpickle(Reader(data, most=len(data)), source)
    return None if root == MAGIC else _TreeBuilder(source, None).convert_root(root)


class _TreeBuilder:
    """Tables as dictionaries, tensors and arrays unread; in lists the names are "0", "1", ...

    Modules that were saved whole become their tensors by name; other objects are left out. Tables may hold one another
    or be shared, so depth and number are bounded.
    """

    def __init__(self, source: str, find: _Find | None):
        self._source, self._find = source, find
        self._left, self._pairs = MAX_BRANCHES, MAX_STEPS
        self._encoded: dict[int, memoryview] = {}  # by the text's identity

    def convert_root(self, value: object) -> Tree:
        tree = self.convert(value, 0)
        if not isinstance(tree, dict) or (isinstance(value, list | tuple) and not _has_tables(tree)):
            name = value.name if isinstance(value, Table) else type(value).__name__
            what = "a lone tensor" if isinstance(value, PickledTensor) else f"a pickled {name}"
            raise LvaeError(self._source, f"{what} instead of tensors by name", "Save its state_dict() and give that.")
        return tree

    def convert(self, value: object, depth: int) -> Any:
        if isinstance(value, PLAIN):
            return value
        self._left -= 1
        self._pairs -= value.length if isinstance(value, Table) else 0
        if min(self._left, self._pairs) < 0 or depth > MAX_DEPTH:
            raise LvaeError(self._source, "more objects, or deeper ones, than weights have", "Not loaded.")
        if isinstance(value, Table) and value.is_dictionary:
            return {str(key): self.convert(item, depth + 1) for key, item in value.pairs() if _is_key(key)}
        if isinstance(value, Table) and isinstance(value.state, Table):
            return self._convert_module(value.state.named(), depth)
        if isinstance(value, list | tuple):
            items = ((number, item) for number, item in enumerate(value) if not isinstance(item, PLAIN))
            return {str(number): self.convert(item, depth + 1) for number, item in items}
        if isinstance(value, PickledTensor) and self._find is not None:
            return _make_stored(value, self._find, self._source)
        return self._make_stored_array(value) if isinstance(value, PickledArray) else None

    def _convert_module(self, state: Mapping[str, object], depth: int) -> dict[str, Any] | None:
        parts = [self.convert(state.get(name), depth + 1) for name in MODULE]
        tensors = {name: value for part in parts if isinstance(part, dict) for name, value in part.items()}
        return {name: value for name, value in tensors.items() if value is not None} or None

    def _make_stored_array(self, value: PickledArray) -> StoredTensor | None:
        if value.dtype is None or value.numbers is None:
            return None
        if value.dtype.big_endian:
            raise LvaeError(self._source, *BIG_ENDIAN)
        dtype, columns_first, axes = value.dtype.name, value.columns_first, value.axes
        numbers = self._encode(value.numbers.text) if isinstance(value.numbers, LatinText) else value.numbers
        return make_stored_array(numbers, dtype, value.shape, self._source, columns_first, axes)

    def _encode(self, text: str) -> memoryview:
        """The bytes that a text spells; of one that many arrays share, once."""
        if id(text) not in self._encoded:
            try:
                self._encoded[id(text)] = memoryview(bytearray(text, "latin-1"))
            except UnicodeEncodeError:
                raise LvaeError(
                    self._source, "damaged, or no weights: bytes that are none", "Fetch it again."
                ) from None
        return self._encoded[id(text)]


def _is_key(key: object) -> bool:
    return isinstance(key, str) or (type(key) is int and abs(key) < 1 << 62)


def _has_tables(tree: Mapping[str, Any]) -> bool:
    return any(isinstance(value, dict) for value in tree.values())


def _find_places(
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
        raise LvaeError(source, error.problem, error.advice) from None


def _make_stored(tensor: PickledTensor, find: _Find, source: str) -> StoredTensor:
    storage = tensor.storage

    def read() -> "Tensor":
        if tensor.dtype not in DTYPES:
            raise LvaeError(source, "a tensor holds numbers of an unknown kind, not weights")
        if math.prod(tensor.shape) > tensor.elements:
            raise LvaeError(source, f"a tensor {tensor.shape} with {tensor.elements} numbers behind it", "Not loaded.")
        numbers = find(storage, storage.elements * ITEM_BYTES[storage.dtype])
        return make_tensor(numbers, tensor.dtype, tensor.offset, tensor.shape, tensor.stride)

    return StoredTensor(tensor.shape, read)
