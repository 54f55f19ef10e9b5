"""Mapped bytes as a file, for libraries that read files."""

import io
import mmap
from typing import IO, Any


def map_file(file: IO[bytes]) -> memoryview:
    """The whole file; private and writable, as torch wants memory to be, so nothing reaches the file."""
    return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY))


class ReadTooLongError(Exception):
    """More bytes were asked for at once than what is read can need."""


class MemoryFile(io.RawIOBase):
    """most: bytes of one reading. A library may ask for as many as a file pretends to have."""

    def __init__(self, data: memoryview, most: int):
        super().__init__()
        self._data, self._most, self._position = data, most, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        position = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: len(self._data)}[whence]
        if position < 0:
            raise OSError("before the beginning")
        self._position = position
        return position

    def read(self, size: int | None = -1) -> bytes:
        left = max(0, len(self._data) - self._position)
        count = left if size is None or size < 0 else min(size, left)
        if count > self._most:
            raise ReadTooLongError
        piece = bytes(self._data[self._position : self._position + count])
        self._position += count
        return piece

    def readinto(self, buffer: Any) -> int:
        piece = self.read(len(buffer))
        buffer[: len(piece)] = piece
        return len(piece)
