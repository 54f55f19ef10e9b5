"""Files of torch.save, zip and legacy format: which tensors they hold, and where. Pickles are read as data."""

import math
from collections.abc import Callable, Iterable, Mapping

from torch import Tensor

from lvae.encode.weights_archive import Archive
from lvae.encode.weights_objects import (
    ITEM_BYTES,
    Inert,
    MalformedPickleError,
    PickledStorage,
    PickledTensor,
    Table,
    TruncatedPickleError,
)
from lvae.encode.weights_pickle import MAX_BYTES, Reader
from lvae.encode.weights_stored import DTYPES, StoredTensor, tensor_from
from lvae.manifests.errors import LvaeError

MAGIC = 0x1950A86A20F9469CFC6C  # the first pickle of the legacy format
PROTOCOL = 1001  # the second one
BIG_ENDIAN = "written by a big-endian machine. Save it again on a little-endian one."

_Find = Callable[[PickledStorage, int], memoryview]  # the bytes of a storage, and how many there must be


def read_zip(archive: Archive, prefix: str, source: str) -> dict[str, StoredTensor]:
    """`prefix` is the folder in the archive that torch wrote, such as "archive/"."""
    if archive.get(f"{prefix}byteorder", 64) not in (None, b"little"):
        raise LvaeError(f"{source}: {BIG_ENDIAN}")
    reader = Reader(memoryview(archive.get(f"{prefix}data.pkl", MAX_BYTES) or b""))

    def find(storage: PickledStorage, needed: int) -> memoryview:
        numbers = archive.map(f"{prefix}data/{storage.key}", needed)
        if numbers is None or len(numbers) < needed:
            raise LvaeError(f"{source}: damaged, the numbers of a tensor are missing. Fetch it again.")
        return numbers[:needed]

    return _stored(_unpickle(reader, source), find, source)


def read_legacy(data: memoryview, source: str) -> dict[str, StoredTensor]:
    """Five pickles (magic number, protocol, system, object, keys of storages), then for every storage its length (8
    bytes) and numbers."""
    reader = Reader(data)
    if _unpickle(reader, source) != MAGIC or _unpickle(reader, source) != PROTOCOL:
        raise LvaeError(f"{source}: a pickle that torch.save did not write. Give a file that it wrote.")
    system, root, keys = (_unpickle(reader, source) for _ in range(3))
    if isinstance(system, Table) and dict(system.named()).get("little_endian") is False:
        raise LvaeError(f"{source}: {BIG_ENDIAN}")
    order = [key for key in keys if isinstance(key, str)] if isinstance(keys, list) else []
    places = _places(data, reader.stream.position, order, reader.storages)

    def find(storage: PickledStorage, needed: int) -> memoryview:
        start, elements = places.get(storage.key, (len(data), storage.elements))
        if elements != storage.elements:
            raise LvaeError(f"{source}: damaged, a tensor and its numbers differ in length. Fetch it again.")
        if start + needed > len(data):
            raise LvaeError(f"{source}: an incomplete download ({len(data)} bytes). Fetch it again.")
        return data[start : start + needed]

    return _stored(root, find, source)


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
        raise LvaeError(f"{source}: an incomplete download (objects end at {error} bytes). Fetch it again.") from None
    except MalformedPickleError as error:
        raise LvaeError(f"{source}: damaged, or no weights: {error}. Fetch it again.") from None
    except LvaeError as error:
        raise LvaeError(f"{source}: {error}") from None


def _stored(root: object, find: _Find, source: str) -> dict[str, StoredTensor]:
    """The tensors under `state_dict`, or at the top."""
    if not isinstance(root, Table):
        name = root.name if isinstance(root, Inert) else type(root).__name__
        what = "a lone tensor" if isinstance(root, PickledTensor) else f"a pickled {name}"
        raise LvaeError(f"{source}: {what} instead of tensors by name. Save its state_dict() and give that.")
    values = dict(root.named())
    inner = values.get("state_dict")
    if isinstance(inner, Table):
        values = dict(inner.named())
    return {name: _as_stored(value, find, source) for name, value in values.items() if isinstance(value, PickledTensor)}


def _as_stored(tensor: PickledTensor, find: _Find, source: str) -> StoredTensor:
    dtype, storage = DTYPES.get(tensor.dtype), tensor.storage

    def read() -> Tensor:
        if dtype is None:
            raise LvaeError(f"{source}: a tensor of the autoencoder holds numbers of an unknown kind, not weights.")
        if math.prod(tensor.shape) > tensor.elements:
            raise LvaeError(f"{source}: a tensor {tensor.shape} with {tensor.elements} numbers behind it. Not loaded.")
        numbers = find(storage, storage.elements * ITEM_BYTES[storage.dtype])
        return tensor_from(numbers, dtype, tensor.offset, tensor.shape, tensor.stride)

    return StoredTensor(tensor.shape, read)
