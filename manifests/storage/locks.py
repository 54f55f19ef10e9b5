"""One writer at a time: a lock that the operating system drops when its holder dies, however it dies.

On an object store it is a lease (DECISIONS, 22): an object that its holder writes anew every few seconds. One that
has not changed for a while, by the clock of whoever watches it, belongs to nobody. Its holder looks at its own clock
before every write.
"""

import errno
import fcntl
import logging
import os
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from lvae.manifests.errors import LvaeError
from lvae.manifests.storage.folder import TEMPORARY, Folder, make_folder
from lvae.manifests.storage.retry import is_outage

if TYPE_CHECKING:
    from lvae.manifests.storage.object_store import RemoteFolder

logger = logging.getLogger(__name__)

LOCK = ".lock"
AWAY = (errno.EIO, errno.ESTALE, errno.ETIMEDOUT)  # what a lock on a file server that is away fails with
ATTEMPTS = 100  # at a lock file that others remove at the same moment
BEAT_SECONDS = 5.0  # between two writes of a lease
LEASE_SECONDS = 25.0  # without one, after which a lease is nobody's
FREE = "free"  # instead of a holder

_left_behind: dict[str, str] = {}  # holders of leases that this process could not give back, by folder


@contextmanager
def writing(folder: Folder) -> Iterator[None]:
    """Hold a dataset for writing; LvaeError where another process holds it."""
    if not folder.remote:
        with _hold_lock(folder):
            yield
        return
    from lvae.manifests.storage.object_store import RemoteFolder

    assert isinstance(folder, RemoteFolder)
    with _hold_lease(folder):
        yield


@contextmanager
def _hold_lock(folder: Folder) -> Iterator[None]:
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
            make_folder(path.parent)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
        except FileNotFoundError:
            continue  # its last holder removed the folder between our two calls
        except OSError as error:
            if is_outage(error):
                raise
            raise LvaeError(
                folder, f"cannot be written to ({error.strerror})", "Name a folder that you may write to."
            ) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(descriptor)
            if error.errno in AWAY:
                raise
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
def _hold_lease(folder: "RemoteFolder") -> Iterator[None]:
    lease = Lease(folder)
    lease.take()
    folder.guard, folder.refuse_if_lost = lease.check, lease.refuse_if_lost
    end = threading.Event()
    beating = threading.Thread(target=_beat, args=(lease, end), daemon=True)
    beating.start()
    failed = True
    try:
        yield
        failed = False
    finally:
        end.set()
        beating.join()
        folder.guard = folder.refuse_if_lost = lambda: None
        lease.give_back(failed)


class Lease:
    """The right to write to a folder of a store, for a while. Its epoch grows by one with every holder.

    All its writes are conditional on the lease being as it was last seen, so that of two who take it one does. Whoever
    gives it back leaves a mark with the epoch: so a holder that could not reach the store sees whether anybody had it.
    """

    def __init__(self, folder: "RemoteFolder"):
        self._folder, self._holder = folder, uuid.uuid4().hex
        self._epoch = self._beats = 0
        self._version = ""
        self._deadline = 0.0
        self._renewing = threading.Lock()
        self.lost = False

    def take(self) -> None:
        """LvaeError where the lease changes while it is watched: somebody lives."""
        busy = LvaeError(self._folder, "another lvae command is writing here", "Wait for it to end, or stop it.")
        start = _now()
        if self._create():
            if self._create():
                raise LvaeError(self._folder, "this store lets two commands write at once", "Name a local path.")
        elif not self._read()[1].startswith(self._holder):
            seen, text = self._see_free() or self._watch(busy)
            self._epoch, start = _epoch_of(text) + 1, _now()
            taken = self._folder.replace(LOCK, self._text(), seen) if seen else self._create()
            if not taken and not self._read()[1].startswith(self._holder):
                raise busy
        self._confirm(start)

    def renew(self) -> None:
        """LvaeError where somebody else has it, or has had it and given it back: what we know of the folder is old."""
        with self._renewing:
            if not self.lost:
                self._beats, start = self._beats + 1, _now()
                if not self._folder.replace(LOCK, self._text(), self._version):
                    self._create()  # where it has gone: who takes it leaves a mark, so nobody has
                self._confirm(start)
            self.refuse_if_lost()

    def refuse_if_lost(self) -> None:
        """What is known so far, without asking the store."""
        if self.lost:
            problem = "another lvae command has taken over while this one was stopped or could not reach the store"
            raise LvaeError(self._folder, problem, "Nothing is lost; wait for the other one to end.")

    def check(self) -> None:
        """Before every write: whoever was stopped for longer than the lease lasts asks whether it is still theirs."""
        while self.lost or _now() >= self._deadline:
            self.renew()

    def give_back(self, failed: bool) -> None:
        """Leave a mark, or nothing where a command that failed was the folder's first. Where the store is away, the
        lease runs out by itself: what was done under it counts."""
        if self.lost:
            return
        try:
            if failed and not self._epoch and _now() < self._deadline:
                self._folder.remove(LOCK)
            else:
                self._folder.replace(LOCK, f"{FREE} {self._beats} {self._epoch}\n".encode(), self._version)
        except (OSError, LvaeError) as error:
            _left_behind[self._folder.address] = self._holder
            logger.warning("%s: the lease cannot be given back, and runs out by itself (%s)", self._folder, error)

    def _see_free(self) -> tuple[str, str] | None:
        """Version and text of a lease that was given back, or that this process left behind."""
        version, text = self._read()
        mine = _left_behind.get(self._folder.address, FREE)
        return (version, text) if text.startswith((FREE, mine)) else None

    def _watch(self, busy: LvaeError) -> tuple[str, str]:
        """Version and text of a lease that has not changed for long; "" where it has gone."""
        (seen, text), since = self._read(), _now()
        logger.warning("%s: another lvae command holds it, or has died; waiting %.0f s", self._folder, LEASE_SECONDS)
        while seen and _now() - since < LEASE_SECONDS:
            time.sleep(BEAT_SECONDS / 2)
            found = self._folder.version(LOCK)
            if found not in (seen, None):
                raise busy
            seen = found or ""
        return seen, text

    def _confirm(self, start: float) -> None:
        """Keep the version of what we have written, if it is still there: then it is ours for a while."""
        self._version, text = self._read()
        self.lost = not text.startswith(self._holder)
        self._deadline = start + LEASE_SECONDS - BEAT_SECONDS
        self.refuse_if_lost()

    def _read(self) -> tuple[str, str]:
        """Version and text, which belong together; both "" where there is no lease."""
        while True:
            version = self._folder.version(LOCK)
            data = self._folder.read_if_there(LOCK)
            if version == self._folder.version(LOCK):
                return (version, data.decode(errors="replace")) if version and data is not None else ("", "")

    def _create(self) -> bool:
        return self._folder.create_unguarded(LOCK, self._text())

    def _text(self) -> bytes:
        return f"{self._holder} {self._beats} {self._epoch}\n".encode()


def _beat(lease: Lease, end: threading.Event) -> None:
    while not end.wait(BEAT_SECONDS):
        try:
            lease.renew()
        except (OSError, LvaeError) as error:
            if lease.lost:
                return  # whoever writes next is told
            logger.warning("the lease could not be renewed (%s)", error)


def _now() -> float:
    """Seconds that go on while this process is stopped and while the machine sleeps."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


def _epoch_of(text: str) -> int:
    words = text.split()
    return int(words[2]) if len(words) == 3 and words[2].isdigit() else 0
