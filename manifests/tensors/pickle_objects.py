"""What names in a pickle mean: a few make plain data or tensors, some are refused when called, the rest is inert."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, TypeGuard

from lvae.manifests.errors import LvaeError
from lvae.manifests.messages import printable
from lvae.manifests.tensors.pickle_denylist import is_dangerous
from lvae.manifests.tensors.pickle_program import MalformedPickleError
from lvae.manifests.tensors.pickled_values import PickledStorage, PickledTensor, Stateless, Table

MAX_SIDES = 16  # of a tensor
MAX_INT = 1 << 62
PYTHON_2_MODULES = {
    "__builtin__": "builtins",
    "exceptions": "builtins",
    "commands": "subprocess",
    "copy_reg": "copyreg",
    "cPickle": "pickle",
}


NUMPY_DTYPES = {
    "f8": "float64",
    "f4": "float32",
    "f2": "float16",
    "i8": "int64",
    "i4": "int32",
    "i2": "int16",
    "i1": "int8",
    "u1": "uint8",
    "b1": "bool",
}
DTYPES = {
    "DoubleStorage": "float64",
    "FloatStorage": "float32",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
    "ComplexFloatStorage": "complex64",
    "ComplexDoubleStorage": "complex128",
    "UntypedStorage": "untyped",
}
ITEM_BYTES = {"float64": 8, "float32": 4, "float16": 2, "bfloat16": 2}
ITEM_BYTES |= {"int64": 8, "int32": 4, "int16": 2, "int8": 1, "uint8": 1, "bool": 1, "untyped": 1}
ITEM_BYTES |= {"complex64": 8, "complex128": 16}


@dataclass(frozen=True)
class LatinText(Stateless):
    """Bytes as protocol 2 spells them. Not copied here: a pickle may ask for the same ones a million times."""

    text: str


@dataclass(eq=False)
class PickledDtype:
    """numpy's description of a number: torch's name for it, "?" for one not known here, and the order of its bytes."""

    name: str
    big_endian: bool = False

    def __setstate__(self, state: object) -> None:
        self.big_endian = isinstance(state, tuple) and len(state) > 1 and state[1] == ">"


@dataclass(eq=False)
class PickledArray:
    """An array whose numbers stand in the pickle itself. What it is comes after it, as its state; None until then.

    shape: as the numbers stand, in C or Fortran order; axes: how its sides are then exchanged, if they are.
    """

    dtype: PickledDtype | None = None
    shape: tuple[int, ...] = ()
    numbers: memoryview | LatinText | None = None
    columns_first: bool = False
    axes: tuple[int, ...] | None = None

    def __setstate__(self, state: object) -> None:
        if not isinstance(state, tuple) or len(state) not in (4, 5):
            raise MalformedPickleError("an array without shape, type or numbers")
        shape, dtype, columns_first, numbers = state[-4:]  # a version stands before them
        made = _make_array(shape, dtype, columns_first is True, numbers)
        self.dtype, self.shape = made.dtype, made.shape
        self.numbers, self.columns_first = made.numbers, made.columns_first


class Global(type):
    """A name in a pickle, as a class of nothing: never looked up. Calling it gives what `call` makes of it."""

    path: str  # dotted, as Python 3 has it: protocols 0 to 2 write Python 2's

    def __new__(cls, module: str, name: str) -> "Global":
        def new(made: "Global", *arguments: object) -> object:
            return call(made, arguments)

        made = super().__new__(cls, "Global", (), {"__slots__": (), "__new__": new})
        type.__setattr__(made, "path", f"{PYTHON_2_MODULES.get(module, module)}.{name}")
        return made

    def __init__(cls, module: str, name: str):
        super().__init__("Global", (), {})

    def __setattr__(cls, name: str, value: object) -> None:
        raise AttributeError("a pickle cannot change what it names")

    def __setstate__(cls, state: object) -> None:
        pass

    def __str__(cls) -> str:
        return cls.path


def call(callee: Global, items: tuple[Any, ...]) -> object:
    """What a call would give: plain data and tensors for the few names that make them, otherwise something inert."""
    if callee.path == "builtins.getattr":
        refuse_dangerous(items)  # how Python 3.11 pickles a member of an enum
        return Table("getattr")
    refuse_dangerous((callee, *items[:8]))
    modules, _, function = str(callee).rpartition(".")
    if modules.startswith("jax") and function in JAX_ARRAYS:
        return _make_jax_array(items)
    match str(callee).replace("numpy._core.", "numpy.core."):
        case "numpy.core.multiarray._reconstruct":
            return PickledArray()
        case "numpy.core.numeric._frombuffer" if len(items) in (4, 5):
            numbers, dtype, shape, order, *axes = items
            return _exchange_sides(
                _make_array(shape, dtype, order == "F", numbers), axes[0] if axes and order == "K" else None
            )
        case "numpy.core.multiarray.scalar" if len(items) == 2:
            return _make_array((), items[0], False, items[1])
        case "numpy.dtype" if items:
            return _make_dtype(items[0])
        case "_codecs.encode" if len(items) == 2 and isinstance(items[0], str) and items[1] == "latin1":
            return LatinText(items[0])
        case "flax.core.frozen_dict.FrozenDict" if len(items) == 1 and isinstance(items[0], Table):
            return items[0]
        case "torch._utils._rebuild_tensor" | "torch._utils._rebuild_tensor_v2":
            return _make_tensor(items)
        case "torch._utils._rebuild_tensor_v3":
            return _make_tensor(items, typed=True)
        case "torch._utils._rebuild_parameter" | "torch._utils._rebuild_parameter_with_state" if items:
            return items[0]
        case "torch._tensor._rebuild_from_type_v2" if len(items) >= 3 and isinstance(items[0], Global):
            inner = str(items[0]).removeprefix("torch._utils.")
            if inner in ("_rebuild_tensor_v2", "_rebuild_tensor_v3") and isinstance(items[2], tuple):
                return _make_tensor(items[2], typed=inner.endswith("v3"))
        case "collections.OrderedDict" | "builtins.dict":
            return Table(initial=items[0] if items else None)
        case "collections.defaultdict":
            return Table(initial=items[1] if len(items) > 1 else None)
    return Table(printable(callee.path))


JAX_ARRAYS = frozenset(
    ("_reconstruct_array", "reconstruct_array", "_reconstruct_device_array", "reconstruct_device_array")
)


def refuse_dangerous(values: Iterable[object]) -> None:
    """LvaeError where one of these, or of the keywords among them, is a name that could run code when called."""
    for value in values:
        keywords = [inner for _, inner in value.items[:8]] if isinstance(value, Table) else []
        for name in (value, *keywords):
            if isinstance(name, Global) and is_dangerous(name.path):
                called = f"calls {printable(name.path)}, which could run code"
                advice = "Nothing of it was run; do not open it with other programs either."
                raise LvaeError("", f"{called}, so the file was made to do harm or is broken", advice)


def _make_array(shape: object, dtype: object, columns_first: bool, numbers: object) -> PickledArray:
    if isinstance(shape, int):
        shape = (shape,)
    sides = tuple(filter(_is_length, shape)) if isinstance(shape, tuple) else ()
    if not isinstance(shape, tuple) or len(shape) > MAX_SIDES or len(sides) != len(shape):
        raise MalformedPickleError("an array with a shape that is none")
    if isinstance(numbers, str):  # as Python 2 wrote them
        numbers = LatinText(numbers)
    if not isinstance(dtype, PickledDtype) or not isinstance(numbers, bytes | bytearray | memoryview | LatinText):
        raise MalformedPickleError("an array without type or numbers, such as one of objects")
    numbers = memoryview(bytearray(numbers)) if isinstance(numbers, bytes | bytearray) else numbers
    return PickledArray(dtype, sides, numbers, columns_first)


def _exchange_sides(made: PickledArray, axes: object) -> PickledArray:
    """With its sides in another order, as numpy 2 pickles what is contiguous in neither order."""
    if axes is None:
        return made
    order = tuple(filter(_is_length, axes)) if isinstance(axes, tuple) else ()
    if sorted(order) != list(range(len(made.shape))):
        raise MalformedPickleError("an array with an order of sides that is none")
    made.axes = order
    return made


def _make_dtype(kind: object) -> PickledDtype:
    """Of numpy's short name, or of the class of a type that numpy was taught."""
    if isinstance(kind, Global):
        return PickledDtype("bfloat16" if kind.path.endswith(".bfloat16") else "?")
    text = kind.lstrip("<=|>") if isinstance(kind, str) else "?"
    return PickledDtype(NUMPY_DTYPES.get(text, "?"), isinstance(kind, str) and kind.startswith(">"))


def _make_jax_array(items: tuple[object, ...]) -> object:
    """How JAX pickles one: numpy's function, its arguments and its state, then what else JAX knows."""
    if len(items) < 3 or not isinstance(items[0], Global) or not isinstance(items[1], tuple):
        raise MalformedPickleError("an array of JAX without numpy's array in it")
    made = call(items[0], items[1])
    if isinstance(made, PickledArray):
        made.__setstate__(items[2])
    return made


def make_storage(description: object) -> object:
    """torch's own reference to a storage: ('storage', type, key, device, elements, and in the old format a view)."""
    if isinstance(description, tuple) and len(description) == 4 and description[0] == "module":
        return description[1]  # a class, with its source code, which is ignored
    if not isinstance(description, tuple) or len(description) not in (5, 6) or description[0] != "storage":
        raise MalformedPickleError("a reference to something that is no storage")
    kind, key, elements = description[1], description[2], description[4]
    if not isinstance(kind, Global) or not isinstance(key, str) or not _is_length(elements):
        raise MalformedPickleError("a storage without type, key or length")
    module, _, name = kind.path.rpartition(".")
    known = module in ("torch", "torch.cuda", "torch.storage")
    storage = PickledStorage(key, DTYPES.get(name, "?") if known else "?", elements)
    view = description[5] if len(description) == 6 else None
    if view is None:
        return storage
    if not isinstance(view, tuple) or len(view) != 3 or not _is_length(view[1]) or not _is_length(view[2]):
        raise MalformedPickleError("a storage whose view is no view")
    if view[1] + view[2] > elements:
        raise MalformedPickleError("a view beyond its storage")
    return PickledStorage(key, storage.dtype, elements, view[1])


def _make_tensor(items: tuple[object, ...], typed: bool = False) -> PickledTensor:
    """(storage, offset, shape, stride, requires_grad, hooks and, where typed, the dtype)."""
    if len(items) < (7 if typed else 4):
        raise MalformedPickleError("a tensor without storage, offset, shape or stride")
    storage, offset, shape, stride = items[:4]
    if not isinstance(storage, PickledStorage) or not _is_length(offset):
        raise MalformedPickleError("a tensor without storage or offset")
    if not isinstance(shape, tuple) or not isinstance(stride, tuple) or len(shape) != len(stride):
        raise MalformedPickleError("a tensor without shape or stride")
    sides, steps = tuple(filter(_is_length, shape)), tuple(filter(_is_length, stride))
    if len(sides) != len(shape) or len(steps) != len(stride) or len(shape) > MAX_SIDES:
        raise MalformedPickleError("a tensor with a shape or stride that is none")
    dtype, elements = storage.dtype, storage.elements
    if typed:
        wanted = items[6]
        if storage.dtype != "untyped" or not isinstance(wanted, Global):
            raise MalformedPickleError("a tensor with two types")
        name = wanted.path.removeprefix("torch.")
        dtype = name if name in ITEM_BYTES else "?"
        elements //= ITEM_BYTES.get(dtype, 1)
    first = offset + storage.offset
    reach = sum((side - 1) * step for side, step in zip(sides, steps, strict=True))
    if math.prod(sides) and first + reach + 1 > elements:
        raise MalformedPickleError(f"a tensor {sides} beyond its storage of {elements} numbers")
    return PickledTensor(storage, dtype, elements, first, sides, steps)


def _is_length(value: object) -> TypeGuard[int]:
    return type(value) is int and 0 <= value < MAX_INT
