"""Pickles as data: Python's Unpickler, which is given nothing that a pickle could run.

Every name becomes a `Global`, which is never looked up. Dictionaries become `Table`s, tensors that torch.save wrote
`PickledTensor`s, numpy's and JAX's arrays `PickledArray`s, every other object a `Table` with the name of its class. A
pickle that calls what could run code is refused, by name. Nothing here needs torch.
"""

import io
import pickle

from lvae.manifests.messages import printable
from lvae.manifests.tensors.pickle_objects import Global, make_storage
from lvae.manifests.tensors.pickle_program import MAX_BYTES, MalformedPickleError, read_program
from lvae.manifests.tensors.pickled_values import PickledStorage

MAX_NAMES = 4096  # published checkpoints have some 20
MAGIC = 0x1950A86A20F9469CFC6C  # the first pickle of torch's legacy format
MAGICS = tuple(pickle.dumps(MAGIC, protocol) for protocol in (0, 1))
# What an Unpickler says of instructions that make no sense.
ERRORS = (pickle.UnpicklingError, EOFError, ValueError, TypeError, AttributeError, LookupError, OverflowError, Warning)


def is_pickle(head: bytes) -> bool:
    """Whether a file begins as a pickle of protocol 2 to 5 does, or as torch's with an older one."""
    return (head[:1] == b"\x80" and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05")) or head.startswith(MAGICS)


class Reader:
    """One pickle after another out of a buffer.

    position: where the next one would begin.
    storages: what the pickles refer to outside of themselves, by key.
    most: bytes of one text or number; where arrays lie within the pickle, as many as there are.
    """

    def __init__(self, data: memoryview, most: int = MAX_BYTES):
        self.position, self.storages = 0, dict[str, PickledStorage]()
        self._data, self._most = data, most

    def read(self) -> object:
        """The next pickle's object. MalformedPickleError or LvaeError where there is none to be had."""
        program = read_program(self._data, self.position, self._most)
        self.position = program.end
        try:
            return _Unpickler(program.instructions, program.chunks, self.storages).load()
        except ERRORS as error:
            raise MalformedPickleError(printable(str(error))) from None


class _Unpickler(pickle.Unpickler):
    def __init__(self, instructions: bytes, chunks: list[memoryview], storages: dict[str, PickledStorage]):
        super().__init__(io.BytesIO(instructions), encoding="latin-1")
        self._chunks, self._storages = chunks, storages
        self._names: dict[tuple[str, str], Global] = {}

    def find_class(self, module: str, name: str) -> Global:
        """A stand-in. Nothing is imported."""
        if (module, name) not in self._names:
            if len(self._names) >= MAX_NAMES:
                raise MalformedPickleError(f"more than {MAX_NAMES} names")
            self._names[module, name] = Global(module, name)
        return self._names[module, name]

    def persistent_load(self, description: object) -> object:
        """Long bytes, or torch's reference to a storage."""
        if type(description) is int and 0 <= description < len(self._chunks):
            return self._chunks[description]
        value = make_storage(description)
        if isinstance(value, PickledStorage):
            known = self._storages.setdefault(value.key, value)
            if (known.dtype, known.elements) != (value.dtype, value.elements):
                raise MalformedPickleError("a storage of two types or lengths")
        return value
