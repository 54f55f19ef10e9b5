"""One writer at a time: a lock that the operating system drops when its holder dies, however it dies.

On an object store it is a lease (DECISIONS, 22): an object that its holder writes anew every few seconds. One that
has not changed for a while, by the clock of whoever watches it, belongs to nobody.
"""

import errno
import fcntl
import logging
import os
import signal
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from lvae.manifests.errors import LvaeError
from lvae.manifests.storage.folder import TEMPORARY, Folder

if TYPE_CHECKING:
    from lvae.manifests.storage.object_store import RemoteFolder

logger = logging.getLogger(__name__)

LOCK = ".lock"
ATTEMPTS = 100  # at a lock file that others remove at the same moment
BEAT_SECONDS = 5.0  # between two writes of a lease
LEASE_SECONDS = 25.0  # without one, after which a lease is nobody's
SETTLING_SECONDS = 1.0  # after taking over: of two who did so at once, the last one stays


@contextmanager
def writing(folder: Folder) -> Iterator[None]:
    """Hold a dataset for writing; LvaeError where another process holds it."""
    if not folder.remote:
        with _locked(folder):
            yield
        return
    from lvae.manifests.storage.object_store import RemoteFolder

    assert isinstance(folder, RemoteFolder)
    with _leased(folder):
        yield


@contextmanager
def _locked(folder: Folder) -> Iterator[None]:
    """Folders that were made for the lock, and got nothing else before an error, go again with it."""
    path = folder.local(LOCK)
    made = [one for one in (path.parent, *path.parent.parents) if not one.exists()]
    descriptor = _lock_file(folder, path)
    try:
        yield
    except BaseException:
        with suppress(OSError):  # somebody has just put something there, or taken everything away
            _remove_empty(made)
        raise
    finally:
        os.close(descriptor)


def _remove_empty(made: list[Path]) -> None:
    """A folder with nothing but a lock, and the folders above it, the innermost first. OSError where there is more."""
    if not made or {one.name for one in made[0].iterdir()} - {LOCK, TEMPORARY}:
        return
    if (made[0] / TEMPORARY).exists():
        (made[0] / TEMPORARY).rmdir()
    (made[0] / LOCK).unlink()
    for folder in made:
        folder.rmdir()


def _lock_file(folder: Folder, path: Path) -> int:
    """The open descriptor of a file that this process has locked, and that is still the one of this name."""
    for _ in range(ATTEMPTS):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        except FileNotFoundError:
            continue  # its last holder removed the folder between our two calls
        except OSError as error:
            raise LvaeError(
                folder, f"cannot be written to ({error.strerror})", "Name a folder that you may write to."
            ) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(descriptor)
            if error.errno not in (errno.EAGAIN, errno.EACCES):
                raise LvaeError(path, f"this file system cannot lock files ({error.strerror})") from error
            raise LvaeError(
                folder, "another lvae command is writing here", "Wait for it to end, or stop it."
            ) from error
        with suppress(OSError):
            if os.path.samestat(os.fstat(descriptor), path.stat()):
                return descriptor
        os.close(descriptor)  # its holder removed it between our two calls
    raise LvaeError(path, "vanishes as often as it is made", "See what else removes files there.")


@contextmanager
def _leased(folder: "RemoteFolder") -> Iterator[None]:
    holder = uuid.uuid4().hex
    _take(folder, holder)
    end = threading.Event()
    beating = threading.Thread(target=_beat, args=(folder, holder, end), daemon=True)
    beating.start()
    try:
        yield
    finally:
        end.set()
        beating.join()
        if _holder(folder) == holder:
            folder.remove(LOCK)


def _take(folder: "RemoteFolder", holder: str) -> None:
    """LvaeError where the lease changes while it is watched: somebody lives."""
    if folder.create(LOCK, _lease(holder, 0)):
        return
    seen, since = folder.read_if_there(LOCK), time.monotonic()
    logger.warning("%s: another lvae command holds it, or has died; looking for %.0f s", folder, LEASE_SECONDS)
    while seen is not None and time.monotonic() - since < LEASE_SECONDS:
        time.sleep(BEAT_SECONDS / 2)
        found = folder.read_if_there(LOCK)
        if found not in (seen, None):
            raise LvaeError(folder, "another lvae command is writing here", "Wait for it to end, or stop it.")
        seen = found
    folder.write(LOCK, _lease(holder, 0))
    time.sleep(SETTLING_SECONDS)
    if _holder(folder) != holder:
        raise LvaeError(folder, "another lvae command has begun to write here", "Wait for it to end, or stop it.")


def _beat(folder: "RemoteFolder", holder: str, end: threading.Event) -> None:
    beats = 0
    while not end.wait(BEAT_SECONDS):
        try:
            if _holder(folder) != holder:
                logger.error("%s: another lvae command has taken it over; this one ends", folder)
                ignored = signal.getsignal(signal.SIGINT) == signal.SIG_IGN  # as a shell's background commands do
                os.kill(os.getpid(), signal.SIGTERM if ignored else signal.SIGINT)
                return
            beats += 1
            folder.write(LOCK, _lease(holder, beats))
        except (OSError, LvaeError) as error:
            logger.warning("%s: the lease could not be renewed (%s)", folder, error)


def _lease(holder: str, beats: int) -> bytes:
    return f"{holder} {beats}\n".encode()


def _holder(folder: Folder) -> str | None:
    found = folder.read_if_there(LOCK)
    return None if found is None else found.decode(errors="replace").partition(" ")[0]
