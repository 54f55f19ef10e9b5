"""Reading bytes in place from files that hold many images, with a few of them kept open."""

import os
import threading
from collections import OrderedDict

from lvae.encode.files import locations
from lvae.encode.files.naming import MAX_MEMBER_BYTES
from lvae.encode.images import ImageRejected
from lvae.manifests.errors import LvaeError
from lvae.manifests.parts.rows import ImageRow

KEPT_OPEN = 16
PIECE_BYTES = 64 << 20  # one read of the system's is at most 2 GiB


class Containers:
    """Bytes of rows that say where they lie. Any number of threads may read; another process opens its own."""

    def __init__(self, base: str, only: str | None = None):
        """Containers are named relative to the folder `base`; or there is `only` one, whatever it is called."""
        self._base, self._only = base, only
        self._lock = threading.Lock()
        self._open: OrderedDict[str, _OpenFile] = OrderedDict()

    def __reduce__(self) -> tuple[type["Containers"], tuple[str, str | None]]:
        return type(self), (self._base, self._only)

    def read(self, row: ImageRow) -> bytes:
        """Raises OSError where the storage fails, LvaeError where the container is not as it was when listed."""
        if row.offset < 0 or row.length < 0:
            raise LvaeError(row.container, f"has no byte {row.offset}", "Scan the source again.")
        if row.length > MAX_MEMBER_BYTES:
            raise ImageRejected(f"a file of more than {MAX_MEMBER_BYTES >> 20} MiB")
        return self.read_at(row.container, row.offset, row.length)

    def read_at(self, container: str, offset: int, length: int) -> bytes:
        """So many bytes of a container; raises as `read` does."""
        location = self._only or locations.join(self._base, container)
        if locations.is_url(location):
            data = locations.read_range(location, offset, length)
            if len(data) < length:
                raise _shorter(container)
            return data
        return self._read_here(container, location, offset, length)

    def _read_here(self, container: str, location: str, offset: int, length: int) -> bytes:
        file = self._file(location)
        data = bytearray()
        while len(data) < length:
            piece = os.pread(file.descriptor, min(length - len(data), PIECE_BYTES), offset + len(data))
            if not piece:
                raise _shorter(container)
            data += piece
        return bytes(data)

    def fill(self, container: str, offset: int, into: memoryview) -> None:
        """The same into a buffer of bytes, of a file on this machine."""
        file = self._file(self._only or locations.join(self._base, container))
        done = 0
        while done < len(into):
            count = os.preadv(file.descriptor, [into[done : done + PIECE_BYTES]], offset + done)
            if not count:
                raise _shorter(container)
            done += count

    def close(self) -> None:
        with self._lock:
            self._open.clear()

    def _file(self, location: str) -> "_OpenFile":
        with self._lock:
            file = self._open.get(location)
            if file is None:
                file = self._open[location] = _OpenFile(location)
                while len(self._open) > KEPT_OPEN:
                    self._open.popitem(last=False)
            self._open.move_to_end(location)
            return file


def _shorter(container: str) -> LvaeError:
    return LvaeError(container, "shorter than when it was listed", "Scan the source again.")


class _OpenFile:
    """Closed when its last user lets go of it, so that one thread's eviction cannot pull it from under another."""

    def __init__(self, path: str):
        self.descriptor = -1
        self.descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))

    def __del__(self) -> None:
        if self.descriptor >= 0:
            os.close(self.descriptor)
