"""A pickle's instructions, checked and bounded before Python's Unpickler sees them.

A hostile pickle can ask for memory out of proportion, or for hashing and comparing what hangs or overflows the stack.
So sets become lists, dictionaries become `Table`s, which hash nothing, and long bytes stay in the file. (The
instructions are documented in Python's pickletools.)
"""

import pickletools
import struct
from dataclasses import dataclass
from typing import IO, cast

from lvae.manifests.messages import printable

MAX_BYTES = 32 << 20  # of one pickle without its long bytes; published checkpoints stay below 2 MiB
MAX_STEPS = 1 << 20  # about 25 for a tensor
MAX_LINE = 4096
LONG_BYTES = 1 << 10

NEW_TABLE = b"cbuiltins\ndict\n)R"
REFUSED = ("EXT1", "EXT2", "EXT4", "NEXT_BUFFER", "READONLY_BUFFER")  # these reach beyond the file
REWRITTEN = {
    "FRAME": b"",
    "EMPTY_DICT": NEW_TABLE,
    "EMPTY_SET": b"]",
    "ADDITEMS": b"e",
    "FROZENSET": b"l",
    "NEWOBJ_EX": b"\x86R",  # a call with two arguments: the arguments and the keywords
}


class MalformedPickleError(Exception):
    """What is wrong with a pickle, to be told with the file's name."""


class TruncatedPickleError(MalformedPickleError):
    """The pickle goes on where the file ends, after so many bytes."""


@dataclass(frozen=True)
class Program:
    """Instructions for an Unpickler; `end`: where they end in the file.

    chunks: long bytes, which the instructions ask for as persistent ids: their numbers.
    """

    instructions: bytes
    chunks: list[memoryview]
    end: int


def read_program(data: memoryview, start: int, most: int = MAX_BYTES) -> Program:
    """The pickle that begins at `start`. most: bytes of one text or number; where arrays lie in it, the file's."""
    file = _File(data, start, most)
    result, chunks = bytearray(), list[memoryview]()
    previous, place, count = "", start, 0
    try:
        for opcode, argument, _ in pickletools.genops(cast(IO[bytes], file)):
            name, end, count = opcode.name, file.tell(), count + 1
            if count > MAX_STEPS:
                raise MalformedPickleError(f"more than {MAX_STEPS} instructions")
            if name in REFUSED:
                raise MalformedPickleError(f"the instruction {name}, which weights never need")
            if name in ("PUT", "BINPUT", "LONG_BINPUT") and not 0 <= cast(int, argument) < MAX_STEPS:
                raise MalformedPickleError(f"memo index {argument}")
            if name == "DICT":  # picklers write only empty ones: "(d"
                if previous != "MARK":
                    raise MalformedPickleError("a dictionary as no program writes it")
                result[-1:] = NEW_TABLE
            elif isinstance(argument, bytes | bytearray | memoryview) and len(argument) > LONG_BYTES:
                result += b"J" + struct.pack("<i", len(chunks)) + b"Q"
                chunks.append(data[end - len(argument) : end])
            else:
                result += REWRITTEN.get(name, data[place:end])
            if len(result) > MAX_BYTES:
                raise MalformedPickleError(f"more than {MAX_BYTES >> 20} MiB of objects")
            previous, place = name, end
    except (ValueError, OverflowError) as error:
        if file.at_end:
            raise TruncatedPickleError(len(data)) from None
        raise MalformedPickleError(printable(str(error))) from None
    except Warning:  # of an odd escape sequence, where warnings are errors
        raise MalformedPickleError("a text with an odd escape sequence") from None
    return Program(bytes(result), chunks, place)


class _File:
    """What pickletools needs of a file. Long pieces are views: nothing is copied."""

    def __init__(self, data: memoryview, position: int, most: int):
        self._data, self._position, self._most = data, position, most
        self.at_end = False

    def tell(self) -> int:
        return self._position

    def read(self, count: int) -> bytes | memoryview:
        if not 0 <= count <= self._most:
            raise MalformedPickleError(f"a text of {count} bytes")
        piece = self._data[self._position : self._position + count]
        self.at_end = self.at_end or len(piece) < count
        self._position += len(piece)
        return piece if count > LONG_BYTES else bytes(piece)

    def readline(self) -> bytes:
        window = bytes(self._data[self._position : self._position + MAX_LINE])
        end = window.find(b"\n") + 1
        if end == 0:
            self.at_end = len(window) < MAX_LINE
            raise MalformedPickleError(f"a line of more than {MAX_LINE} characters") if not self.at_end else ValueError
        self._position += end
        return window[:end]
