"""A dataset on an object store: what has to be a file is fetched to this machine, what is written goes up whole.

A file is written here first and then put under its name in one request (of several pieces where the store's library
cuts files of 100 MiB and more; they appear together too). Nothing is renamed there, and nothing that decides a byte
depends on a listing. Two writers are kept apart by conditions that the store checks (conditional.py), so that stores
without them are refused. Credentials and endpoints are those of the environment, as fsspec's packages read them.
"""

import errno
import hashlib
import shutil
import threading
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import fsspec

from lvae.manifests.concurrency import concurrently
from lvae.manifests.errors import LvaeError
from lvae.manifests.storage import conditional
from lvae.manifests.storage.filesystems import first_line, open_filesystem, refusal, storage_errors
from lvae.manifests.storage.folder import CHUNK_BYTES, FileRecord, Folder, Unfinished, full_disk_named
from lvae.manifests.storage.names import check_name
from lvae.manifests.storage.retry import retry
from lvae.manifests.storage.scratch import Scratch

DELAYS = (0.5, 2.0, 8.0)  # seconds before each further try, give or take a half
FETCHED_BYTES = 4 << 30  # kept on this machine, about: what was fetched first goes first
FETCHED_FILES = 16  # the latest, which are never removed: their paths may be in use
AT_ONCE = 16  # requests under way: each takes tens of milliseconds, whatever its size
PIECES_AT_ONCE = 64  # the same of pieces of files
ENDLESS = 1 << 62  # free bytes, as far as anybody can tell

T = TypeVar("T")
U = TypeVar("U")


class RemoteFolder(Folder):
    """A folder at a URL. Threads may share one.

    guard: called before every write, by whoever holds the lease; it raises where somebody else does.
    refuse_if_lost: the same by what is known so far, for whoever waits for hours without writing.
    """

    remote = True

    def __init__(self, url: str):
        self.guard: Callable[[], None] = lambda: None
        self.refuse_if_lost: Callable[[], None] = lambda: None
        self._protocol = conditional.protocol_of(url)
        if self._protocol not in conditional.PROTOCOLS:
            stores = ", ".join(f"{name}://" for name in conditional.PROTOCOLS)
            raise LvaeError(url, "a dataset cannot lie in such a place", f"Name a local path, or one of {stores}.")
        self._files, self._path = open_filesystem(url, **_settings(url))
        self._url = url.rstrip("/")
        self._scratch = Scratch()
        self._fetching = threading.Lock()
        self._fetched: deque[tuple[Path, int]] = deque()
        super().__init__(self._scratch.path)

    def __str__(self) -> str:
        return self._url

    @property
    def address(self) -> str:
        return self._url

    def _remote(self, name: str) -> str:
        return f"{self._path.rstrip('/')}/{check_name(self, name)}"

    def _request(self, name: str, call: Callable[..., T], *arguments: Any, **more: Any) -> T:
        """What the store says, after a few patient tries. FileNotFoundError at once; LvaeError where it refuses."""

        place = self.place(name)

        def ask() -> T:
            try:
                with storage_errors(place):
                    return call(*arguments, **more)
            except (FileNotFoundError, FileExistsError):
                raise
            except PermissionError as error:
                raise refusal(place, error) from error
            except OSError as error:
                raise OSError(errno.EIO, first_line(error), place) from error

        return retry(ask, DELAYS, where=place)

    # --- reading -------------------------------------------------------------------------------------------------

    def local(self, name: str) -> Path:
        """The path of a file of this folder on this machine, fetched if it is on the store."""
        path = self.root / check_name(self, name)
        with self._fetching:
            if not path.exists():
                self._fetch(name, path)
        return path

    def _fetch(self, name: str, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_name(f"{path.name}.{uuid.uuid4().hex}")
        try:
            self._request(name, self._files.get_file, self._remote(name), str(unfinished))
        except (FileNotFoundError, IsADirectoryError):
            unfinished.unlink(missing_ok=True)
            return
        if unfinished.is_file():
            unfinished.replace(path)
            self._fetched.append((path, path.stat().st_size))
        while len(self._fetched) > FETCHED_FILES and sum(size for _, size in self._fetched) > FETCHED_BYTES:
            self._fetched.popleft()[0].unlink(missing_ok=True)  # whoever has mapped it keeps it

    def _forget(self, name: str) -> None:
        (self.root / name).unlink(missing_ok=True)

    def exists(self, name: str) -> bool:
        return bool(self._request(name, self._files.exists, self._remote(name)))

    def size(self, name: str) -> int | None:
        try:
            found = self._request(name, self._files.info, self._remote(name))
        except FileNotFoundError:
            return None
        return int(found["size"]) if found["type"] == "file" else None

    def read(self, name: str) -> bytes:
        return bytes(self._request(name, self._files.cat_file, self._remote(name)))

    def read_pieces(self, pieces: Sequence[tuple[str, int, int]]) -> list[bytes]:
        found: list[bytes | None] = [None] * len(pieces)

        def ask() -> None:
            """For what is not there yet."""
            waiting = [number for number, data in enumerate(found) if data is None]
            names, starts, stops = zip(*(pieces[number] for number in waiting), strict=True)
            paths = [self._remote(name) for name in names]
            answers = self._files.cat_ranges(paths, list(starts), list(stops), on_error="return", **at_once)
            failure = None
            for number, answer in zip(waiting, answers, strict=True):
                if isinstance(answer, BaseException):
                    failure = failure or answer
                else:
                    found[number] = bytes(answer)
            if failure is not None:
                raise failure

        at_once = {"batch_size": PIECES_AT_ONCE} if self._files.async_impl else {}
        if pieces:
            self._request(pieces[0][0], ask)
        return [data for data in found if data is not None]

    def sha256(self, name: str) -> str:
        digest = hashlib.sha256()
        with self._request(name, self._files.open, self._remote(name), "rb") as file:
            while chunk := self._request(name, file.read, CHUNK_BYTES * 8):
                digest.update(chunk)
        return digest.hexdigest()

    def names(self, under: str = "") -> Iterator[str]:
        prefix = self._remote("")
        try:
            found = self._request(under, self._files.find, self._remote(under).rstrip("/"))
        except FileNotFoundError:
            return
        for path in sorted(found):
            name = path.removeprefix(prefix)
            if {"", ".", ".."}.isdisjoint(name.split("/")):  # a store takes any key; none of ours is like that
                yield name

    def each(self, look: Callable[[T], U], things: Iterable[T]) -> Iterator[U]:
        return concurrently(look, things, AT_ONCE)

    # --- writing -------------------------------------------------------------------------------------------------

    @contextmanager
    def writer(self) -> Iterator[Unfinished]:
        path = self.root / f"unfinished-{uuid.uuid4().hex}"
        try:
            with full_disk_named(self.root), path.open("xb") as file:
                yield _Unfinished(self, path, file)
        finally:
            path.unlink(missing_ok=True)

    def put(self, path: Path, name: str) -> None:
        """A file of this machine under a name on the store, in one step."""
        self.guard()
        self._send(name, self._files.put_file, str(path), self._remote(name))
        self._forget(name)

    def put_new(self, path: Path, name: str) -> bool:
        """The same under a name that must be free; False where it is not."""
        self.guard()
        try:
            self._send(name, self._files.put_file, str(path), self._remote(name), mode="create")
        except FileExistsError:
            return False
        return True

    def create(self, name: str, data: bytes) -> bool:
        """Write a file that must not be there yet; False where it is."""
        self.guard()
        return self.create_unguarded(name, data)

    def create_unguarded(self, name: str, data: bytes) -> bool:
        """The same, for the lease itself."""
        try:
            self._send(name, self._files.pipe_file, self._remote(name), data, mode="create")
        except FileExistsError:
            return False
        return True

    def swap(self, name: str, data: bytes) -> None:
        version = self.version(name)
        self.guard()  # after the version was asked for: who was stopped in between is found out by one of the two
        new = self.create_unguarded(name, data) if version is None else self.replace(name, data, version)
        if not new and self.read_if_there(name) != data:
            raise LvaeError(self.place(name), "another command has written it meanwhile", "See which one is to go on.")

    def version(self, name: str) -> str | None:
        """What changes with every write of a file, None where there is none."""
        try:
            return conditional.version_of(self._protocol, self._request(name, self._files.info, self._remote(name)))
        except FileNotFoundError:
            return None

    def replace(self, name: str, data: bytes, version: str) -> bool:
        """Write a file that still has this version; False where it has not. Not guarded: the lease is such a file."""
        try:
            self._send(name, conditional.replace, self._files, self._protocol, self._remote(name), data, version)
        except (FileExistsError, FileNotFoundError):
            return False
        self._forget(name)
        return True

    def _send(self, name: str, call: Callable[..., Any], *arguments: Any, **more: Any) -> None:
        try:
            self._request(name, call, *arguments, **more)
        except FileNotFoundError as error:
            if call is conditional.replace:
                raise
            advice = "Name a bucket that is there."
            raise LvaeError(self, f"cannot be written to ({first_line(error)})", advice) from error

    def remove(self, name: str) -> None:
        if not check_name(self, name):
            raise LvaeError(self, "a whole folder is never removed")
        self.guard()
        path = self.root / name
        shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)
        if self.size(name) is not None:
            self._request(name, self._files.rm_file, self._remote(name))
            return
        below = [self._remote(one) for one in self.names(name)]
        if below:
            self._request(name, self._files.rm, below)

    def copy(self, source: Folder, name: str, new_name: str) -> FileRecord:
        record = source.record(name)
        self.put(source.local(name), new_name)
        return FileRecord(new_name, record.bytes, record.sha256)

    def check_lease(self) -> None:
        self.refuse_if_lost()

    def free_bytes(self) -> int:
        return ENDLESS


class _Unfinished(Unfinished):
    """A file that goes to the store when it is committed."""

    def __init__(self, folder: RemoteFolder, path: Path, file: Any):
        super().__init__(folder, path, file)
        self._store = folder

    def commit(self, name: str) -> FileRecord:
        self._raw.flush()
        self._store.put(self._path, name)
        return FileRecord(name, self.file.bytes, self.file.sha256)

    def create(self, name: str) -> FileRecord | None:
        self._raw.flush()
        new = self._store.put_new(self._path, name)
        return FileRecord(name, self.file.bytes, self.file.sha256) if new else None


def _settings(url: str) -> dict[str, Any]:
    """S3's library keeps ten connections and asks for minutes, unless the user's configuration of fsspec or this says
    otherwise: all tries together must give up before a worker that waits for them does (pipeline/engines/supervise.py).
    """
    if not url.startswith(("s3://", "s3a://")):
        return {}
    given = fsspec.config.conf.get("s3", {}).get("config_kwargs", {})
    ours = {"max_pool_connections": PIECES_AT_ONCE, "connect_timeout": 10, "read_timeout": 20}
    return {"config_kwargs": ours | {"retries": {"max_attempts": 1}} | given}
