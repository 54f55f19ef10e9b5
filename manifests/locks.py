"""One writer at a time: a lock that the operating system drops when its holder dies, however it dies."""

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager

from lvae.manifests.errors import LvaeError
from lvae.manifests.storage import Folder

LOCK = ".lock"


@contextmanager
def writing(folder: Folder) -> Iterator[None]:
    """Hold a dataset for writing; LvaeError at once where another process holds it."""
    path = folder.local(LOCK)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise LvaeError(
            f"{folder}: cannot be written to ({error.strerror}). Name a folder that you may write to."
        ) from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.EACCES):
                raise LvaeError(f"{path}: this file system cannot lock files ({error.strerror}).") from error
            raise LvaeError(
                f"{folder}: another lvae command is writing here. Wait for it to end, or stop it."
            ) from error
        yield
    finally:
        os.close(descriptor)
