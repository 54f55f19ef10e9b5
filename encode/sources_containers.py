"""Reading bytes in place from files that hold many images, with a few of them kept open."""

import os
import threading
from collections import OrderedDict
from pathlib import Path

from lvae.encode.images import ImageRejected
from lvae.encode.sources_names import MAX_MEMBER_BYTES
from lvae.manifests.errors import LvaeError
from lvae.manifests.rows import ImageRow

KEPT_OPEN = 16
PIECE_BYTES = 64 << 20  # one read of the system's is at most 2 GiB


class Containers:
    """Bytes of rows that say where they lie. Any number of threads may read; another process opens its own."""

    def __init__(self, base: str):
        """Containers are named relative to the folder `base`."""
        self._base = base
        self._lock = threading.Lock()
        self._open: OrderedDict[str, _OpenFile] = OrderedDict()

    def __reduce__(self) -> tuple[type["Containers"], tuple[str]]:
        return type(self), (self._base,)

    def read(self, row: ImageRow) -> bytes:
        """Raises OSError where the storage fails, LvaeError where the container is not as it was when listed."""
        if row.length > MAX_MEMBER_BYTES:
            raise ImageRejected(f"a file of more than {MAX_MEMBER_BYTES >> 20} MiB")
        file = self._file(row.container)
        data = bytearray()
        while len(data) < row.length:
            piece = os.pread(file.descriptor, min(row.length - len(data), PIECE_BYTES), row.offset + len(data))
            if not piece:
                raise LvaeError(f"{row.container}: shorter than when it was listed. Scan the source again.")
            data += piece
        return bytes(data)

    def close(self) -> None:
        with self._lock:
            self._open.clear()

    def _file(self, container: str) -> "_OpenFile":
        with self._lock:
            file = self._open.get(container)
            if file is None:
                file = self._open[container] = _OpenFile(Path(self._base, container))
                while len(self._open) > KEPT_OPEN:
                    self._open.popitem(last=False)
            self._open.move_to_end(container)
            return file


class _OpenFile:
    """Closed when its last user lets go of it, so that one thread's eviction cannot pull it from under another."""

    def __init__(self, path: Path):
        self.descriptor = -1
        self.descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))

    def __del__(self) -> None:
        if self.descriptor >= 0:
            os.close(self.descriptor)
