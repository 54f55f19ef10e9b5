"""Pickles as data: a reader that knows pickle's language but nothing that a pickle could call.

It never imports, calls, hashes or compares what it reads. Dictionaries become `Table`s, tensors that torch.save wrote
become `PickledTensor`s, numpy's and JAX's arrays `PickledArray`s, every other object an `Inert`. A pickle that calls
what could run code is refused, by name. Nothing here needs torch. (The language is documented in Python's pickletools.)
"""

from collections.abc import Callable

from lvae.manifests.tensors.pickle_denylist import refuse_dangerous
from lvae.manifests.tensors.pickle_objects import (
    Inert,
    MalformedPickleError,
    PickledStorage,
    Table,
    build,
    call,
    named,
    persistent,
)
from lvae.manifests.tensors.pickle_stream import Stream

MAX_BYTES = 32 << 20  # of one pickle; published checkpoints, optimizers included, stay below 2 MiB
MAX_STEPS = 1 << 20  # about 25 for a tensor
MAX_MARKS = 1000


def is_pickle(head: bytes) -> bool:
    """Whether a file begins as a pickle of protocol 2 to 5 does."""
    return head[:1] == b"\x80" and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05")


class Reader:
    """One pickle after another out of a buffer.

    stream: stands where the next one would begin.
    storages: what the pickles refer to outside of themselves, by key.
    most: bytes of one pickle; where numbers lie within it, as many as there are.
    """

    def __init__(self, data: memoryview, most: int = MAX_BYTES):
        self.stream, self.most = Stream(data), most
        self.storages: dict[str, PickledStorage] = {}

    def read(self) -> object:
        """The next pickle's object. MalformedPickleError or LvaeError where there is none to be had."""
        return _Machine(self).run()


class _Machine:
    """The stack machine that a pickle is a program for."""

    def __init__(self, reader: Reader):
        self._stream, self._storages, self._most = reader.stream, reader.storages, reader.most
        self._first = self._stream.position
        self._stack: list[object] = []
        self._marks: list[int] = []
        self._memo: dict[int, object] = {}

    def run(self) -> object:
        for _ in range(MAX_STEPS):
            code = self._stream.take(1)[0]
            if code == ord("."):
                return self._pop()
            step = _STEPS.get(code)
            if step is None:
                raise MalformedPickleError(f"unknown instruction {code}")
            step(self)
            if self._stream.position - self._first > self._most:
                raise MalformedPickleError(f"more than {self._most >> 20} MiB of objects")
        raise MalformedPickleError(f"more than {MAX_STEPS} instructions")

    # The stack

    def _push(self, value: object) -> None:
        self._stack.append(value)

    def _floor(self) -> int:
        return self._marks[-1] if self._marks else 0

    def _pop(self) -> object:
        if len(self._stack) <= self._floor():
            raise MalformedPickleError("nothing on the stack")
        return self._stack.pop()

    def _top(self) -> object:
        if len(self._stack) <= self._floor():
            raise MalformedPickleError("nothing on the stack")
        return self._stack[-1]

    def _mark(self) -> None:
        if len(self._marks) >= MAX_MARKS:
            raise MalformedPickleError(f"nested more than {MAX_MARKS} deep")
        self._marks.append(len(self._stack))

    def _pop_mark(self) -> list[object]:
        if not self._marks:
            raise MalformedPickleError("no mark on the stack")
        first = self._marks.pop()
        items = self._stack[first:]
        del self._stack[first:]
        return items

    def _discard(self) -> None:
        if self._marks and len(self._stack) == self._marks[-1]:
            self._marks.pop()
        else:
            self._pop()

    # Numbers and text

    def _block(self, form: str) -> bytes:
        return self._stream.block(form, MAX_BYTES)

    def _long(self, form: str) -> None:
        self._push(int.from_bytes(self._block(form), "little", signed=True))

    def _decimal(self) -> None:
        text = self._stream.line()
        if text in ("00", "01"):  # how protocol 0 spells truth values
            self._push(text == "01")
            return
        try:
            self._push(int(text.removesuffix("L")))
        except ValueError:
            raise MalformedPickleError("a number that is none") from None

    def _float_text(self) -> None:
        try:
            self._push(float(self._stream.line()))
        except ValueError:
            raise MalformedPickleError("a number that is none") from None

    def _quoted(self) -> None:
        text = self._stream.line()
        if len(text) < 2 or text[0] != text[-1] or text[0] not in "'\"":
            raise MalformedPickleError("a text without quotation marks")
        self._push(text[1:-1])

    # The memo

    def _put(self, index: int) -> None:
        if not 0 <= index < MAX_STEPS:
            raise MalformedPickleError(f"memo index {index}")
        self._memo[index] = self._top()

    def _get(self, index: int) -> None:
        if index not in self._memo:
            raise MalformedPickleError(f"nothing was memorized as {index}")
        self._push(self._memo[index])

    def _index(self) -> int:
        self._decimal()
        index = self._pop()
        return index if isinstance(index, int) else -1

    # Containers

    def _tuple(self, count: int) -> None:
        items = [self._pop() for _ in range(count)]
        self._push(tuple(reversed(items)))

    def _dict(self) -> None:
        table = Table()
        self._fill(table, self._pop_mark())
        self._push(table)

    def _fill(self, target: object, items: list[object]) -> None:
        if len(items) % 2:
            raise MalformedPickleError("a key without a value")
        if isinstance(target, Table):
            target.items.extend(zip(items[::2], items[1::2], strict=True))

    def _set_items(self, items: list[object]) -> None:
        self._fill(self._top(), items)

    def _set_item(self) -> None:
        value, key = self._pop(), self._pop()
        self._set_items([key, value])

    def _append(self, items: list[object]) -> None:
        target = self._top()
        if isinstance(target, list):
            target.extend(items)

    def _frozen_set(self) -> None:
        self._pop_mark()
        self._push(Inert("frozenset"))

    # Objects

    def _global(self) -> None:
        module = self._stream.line()
        self._push(named(module, self._stream.line()))

    def _stack_global(self) -> None:
        name, module = self._pop(), self._pop()
        if not isinstance(module, str) or not isinstance(name, str):
            raise MalformedPickleError("a global whose name is no text")
        self._push(named(module, name))

    def _call(self, keywords: bool = False) -> None:
        extra = self._pop() if keywords else None
        arguments, callee = self._pop(), self._pop()
        if isinstance(extra, Table):
            refuse_dangerous(value for _, value in extra.items[:8])
        self._push(call(callee, arguments))

    def _instance(self) -> None:
        callee = named(self._stream.line(), self._stream.line())
        self._push(call(callee, tuple(self._pop_mark())))

    def _object(self) -> None:
        items = self._pop_mark()
        if not items:
            raise MalformedPickleError("an object without a class")
        self._push(call(items[0], tuple(items[1:])))

    def _persistent(self, description: object) -> None:
        value = persistent(description)
        if isinstance(value, PickledStorage):
            known = self._storages.setdefault(value.key, value)
            if (known.dtype, known.elements) != (value.dtype, value.elements):
                raise MalformedPickleError("a storage of two types or lengths")
        self._push(value)

    def _build(self) -> None:
        """State for an object: arrays have some; nobody's __setstate__ is called."""
        state = self._pop()
        build(self._top(), state)


_Step = Callable[[_Machine], None]


def _constant(value: object) -> _Step:
    return lambda machine: machine._push(value)


def _ignored(count: int) -> _Step:
    return lambda machine: machine._stream.take(count).release()


def _text(form: str) -> _Step:
    return lambda machine: machine._push(machine._block(form).decode("utf-8", "replace"))


def _bytes(form: str) -> _Step:
    return lambda machine: machine._push(machine._stream.view(form, machine._most))


def _latin(form: str) -> _Step:
    return lambda machine: machine._push(machine._block(form).decode("latin-1"))


def _numeric(form: str) -> _Step:
    return lambda machine: machine._push(machine._stream.number(form))


_STEPS: dict[int, _Step] = {
    ord(code) if isinstance(code, str) else code: step
    for code, step in (
        (0x80, _ignored(1)),  # PROTO
        (0x95, _ignored(8)),  # FRAME
        ("N", _constant(None)),
        (0x88, _constant(True)),
        (0x89, _constant(False)),
        (")", _constant(())),
        ("}", lambda m: m._push(Table())),
        ("]", lambda m: m._push([])),
        (0x8F, lambda m: m._push(Inert("set"))),
        ("K", _numeric("<B")),
        ("M", _numeric("<H")),
        ("J", _numeric("<i")),
        (0x8A, lambda m: m._long("<B")),
        (0x8B, lambda m: m._long("<i")),
        ("G", _numeric(">d")),
        ("I", _Machine._decimal),
        ("L", _Machine._decimal),
        ("F", _Machine._float_text),
        ("X", _text("<I")),
        (0x8C, _text("<B")),
        (0x8D, _text("<Q")),
        ("V", lambda m: m._push(m._stream.line())),
        ("B", _bytes("<I")),
        ("C", _bytes("<B")),
        (0x8E, _bytes("<Q")),
        (0x96, _bytes("<Q")),
        ("T", _latin("<i")),
        ("U", _latin("<B")),
        ("S", _Machine._quoted),
        ("(", _Machine._mark),
        ("t", lambda m: m._push(tuple(m._pop_mark()))),
        (0x85, lambda m: m._tuple(1)),
        (0x86, lambda m: m._tuple(2)),
        (0x87, lambda m: m._tuple(3)),
        ("l", lambda m: m._push(m._pop_mark())),
        ("d", _Machine._dict),
        ("a", lambda m: m._append([m._pop()])),
        ("e", lambda m: m._append(m._pop_mark())),
        ("s", _Machine._set_item),
        ("u", lambda m: m._set_items(m._pop_mark())),
        (0x90, lambda m: m._append(m._pop_mark())),  # ADDITEMS, to a set: not kept
        (0x91, _Machine._frozen_set),
        ("0", _Machine._discard),
        ("1", lambda m: m._pop_mark().clear()),
        ("2", lambda m: m._push(m._top())),
        ("p", lambda m: m._put(m._index())),
        ("q", lambda m: m._put(m._stream.number("<B"))),
        ("r", lambda m: m._put(m._stream.number("<I"))),
        (0x94, lambda m: m._put(len(m._memo))),
        ("g", lambda m: m._get(m._index())),
        ("h", lambda m: m._get(m._stream.number("<B"))),
        ("j", lambda m: m._get(m._stream.number("<I"))),
        ("c", _Machine._global),
        (0x93, _Machine._stack_global),
        ("R", _Machine._call),
        (0x81, _Machine._call),  # NEWOBJ
        (0x92, lambda m: m._call(keywords=True)),  # NEWOBJ_EX
        ("i", _Machine._instance),
        ("o", _Machine._object),
        ("b", _Machine._build),
        ("Q", lambda m: m._persistent(m._pop())),
        ("P", lambda m: m._persistent(m._stream.line())),
    )
}
