"""Temporary folders that do not outlive their process for long: the next command removes what a killed one left.

Each holds a file that its process keeps locked. The system drops the lock with the process, however that ends, so that
a folder whose lock is free belongs to nobody.
"""

import fcntl
import os
import shutil
import tempfile
import weakref
from contextlib import suppress
from pathlib import Path

PREFIX = "lvae-scratch-"
LOCK = ".lock"


class Scratch:
    """A new folder among the machine's temporary ones, removed when it is closed or no longer referenced."""

    def __init__(self) -> None:
        self.path = Path(tempfile.mkdtemp(prefix=PREFIX))
        unlocked = self.path / f"{LOCK}.new"
        descriptor = os.open(unlocked, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        unlocked.rename(self.path / LOCK)  # never seen under its name without its lock
        self._finalizer = weakref.finalize(self, _remove, self.path, descriptor)

    def close(self) -> None:
        self._finalizer()

    def __enter__(self) -> Path:
        return self.path

    def __exit__(self, *_: object) -> None:
        self.close()


def remove_abandoned() -> None:
    """Remove the folders whose processes have ended without removing them."""
    for lock in shared_folder().glob(f"{PREFIX}*/{LOCK}"):
        with suppress(OSError):  # somebody else's, or just removed
            descriptor = os.open(lock, os.O_RDWR | os.O_CLOEXEC)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                os.close(descriptor)
            else:
                _remove(lock.parent, descriptor)


def shared_folder() -> Path:
    """The folder of temporary files that all processes here share, also those that have a scratch folder for it."""
    found = Path(tempfile.gettempdir())
    return found.parent if found.name.startswith(PREFIX) else found


def _remove(folder: Path, descriptor: int) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    os.close(descriptor)
