"""The one layer through which a dataset's files are written: whole or not at all.

A name is relative to the folder and uses forward slashes. On a local disk a file is written under .tmp/, flushed to
the disk, then renamed; on an object store it is put under its final name in one request (object_store.py). Nothing
else creates, renames or removes a file of a dataset.
"""

import errno
import hashlib
import io
import os
import shutil
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, TypeVar

from lvae.manifests.errors import LvaeError
from lvae.manifests.storage.names import FileName, Sha256, check_links, check_name
from lvae.manifests.storage.scratch import remove_abandoned

T = TypeVar("T")
U = TypeVar("U")

TEMPORARY = ".tmp"
CHUNK_BYTES = 1 << 20
NO_LINKS = (errno.EXDEV, errno.EPERM, errno.ENOTSUP, errno.EMLINK, errno.EACCES)
FULL = (errno.ENOSPC, errno.EDQUOT)
REMOVALS = 8  # tries at a folder in which workers elsewhere, whose job has ended, still leave files


@contextmanager
def full_disk_named(place: object) -> Iterator[None]:
    """Say where no space is left: what write() raises does not."""
    try:
        yield
    except OSError as error:
        if error.filename is None and error.errno in FULL:
            error.filename = str(place)
        raise


@dataclass(frozen=True)
class FileRecord:
    """A finished file: its name in the folder, its size and the hash of its bytes."""

    path: FileName
    bytes: int
    sha256: Sha256


def file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class HashingFile(io.RawIOBase):
    """A file being written: counts and hashes what passes through."""

    def __init__(self, file: IO[bytes]):
        super().__init__()
        self._file = file
        self._sha256 = hashlib.sha256()
        self.bytes = 0

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        self._file.write(view)
        self._sha256.update(view)
        self.bytes += len(view)
        return len(view)

    def writable(self) -> bool:
        return True

    def tell(self) -> int:
        return self.bytes

    @property
    def sha256(self) -> str:
        return self._sha256.hexdigest()


class Unfinished:
    """What `Folder.writer` hands out: write to `file`, then `commit` under a name (or drop it by doing nothing)."""

    def __init__(self, folder: "Folder", path: Path, file: IO[bytes]):
        self._folder, self._path, self._raw = folder, path, file
        self.file = HashingFile(file)

    def commit(self, name: str) -> FileRecord:
        """The finished file under its name, in place of one that is there."""
        target = self._flush(name)
        self._path.replace(target)
        flush_folder(target.parent)
        return FileRecord(name, self.file.bytes, self.file.sha256)

    def create(self, name: str) -> FileRecord | None:
        """The finished file under a name that is free; None where it is not: the first file stays."""
        target = self._flush(name)
        if not _link(self._path, target):
            return None
        flush_folder(target.parent)
        return FileRecord(name, self.file.bytes, self.file.sha256)

    def _flush(self, name: str) -> Path:
        """Where the file goes, once its bytes are on the disk and its folder is there."""
        self._raw.flush()
        os.fsync(self._raw.fileno())
        target = self._folder.local(name)
        make_folder(target.parent)
        return target


class Folder:
    """A dataset's folder on a local disk.

    root: where its files lie, or of a folder elsewhere, those that had to be fetched.
    """

    remote = False

    def __init__(self, root: str | Path):
        if "://" in str(root):
            raise LvaeError(root, "this is written to a file system alone", "Name a local path, then copy it there.")
        self.root = Path(root)

    def __str__(self) -> str:
        return str(self.root)

    @property
    def address(self) -> str:
        """What names the same folder in any process that sees this file system."""
        return str(self.root.absolute())

    def place(self, name: str) -> str:
        """Where a file lies, for a person."""
        return f"{self}/{name}"

    def local(self, name: str) -> Path:
        """The path of a file of this folder, which need not exist; LvaeError where it would lie elsewhere."""
        path = self.root / check_name(self, name)
        check_links(self.root, name)
        return path

    def exists(self, name: str) -> bool:
        return self.local(name).exists()

    def size(self, name: str) -> int | None:
        """In bytes, or None where there is no such file."""
        try:
            return self.local(name).stat().st_size
        except (FileNotFoundError, NotADirectoryError):
            return None

    def read(self, name: str) -> bytes:
        return self.local(name).read_bytes()

    def read_if_there(self, name: str) -> bytes | None:
        try:
            return self.read(name)
        except (FileNotFoundError, NotADirectoryError):
            return None

    def read_pieces(self, pieces: Sequence[tuple[str, int, int]]) -> list[bytes]:
        """Bytes from start to stop of files; on an object store many pieces at a time."""
        found = []
        for name, start, stop in pieces:
            with self.local(name).open("rb") as file:
                found.append(os.pread(file.fileno(), stop - start, start))
        return found

    def sha256(self, name: str) -> str:
        digest = hashlib.sha256()
        with self.local(name).open("rb") as file:
            while chunk := file.read(CHUNK_BYTES):
                digest.update(chunk)
        return digest.hexdigest()

    def record(self, name: str) -> FileRecord:
        """Size and hash of a file that is there already."""
        size = self.size(name)
        if size is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), self.place(name))
        return FileRecord(name, size, self.sha256(name))

    def each(self, look: Callable[[T], U], things: Iterable[T]) -> Iterator[U]:
        """look(thing) for every thing, in order; on an object store many at a time."""
        return map(look, things)

    def names(self, under: str = "") -> Iterator[str]:
        """Every file below, in sorted order. What vanishes meanwhile is not there."""
        with suppress(FileNotFoundError, NotADirectoryError):
            for path in sorted(self.local(under).iterdir()):
                name = path.relative_to(self.root).as_posix()
                if path.is_dir() and not path.is_symlink():
                    yield from self.names(name)
                elif path.is_file():
                    yield name

    def subfolders(self, under: str) -> set[str]:
        """The folders right below, empty ones too; none on an object store, which knows no folders."""
        if self.remote or not (path := self.local(under)).is_dir():
            return set()
        return {one.name for one in path.iterdir() if one.is_dir()}

    @contextmanager
    def writer(self) -> Iterator[Unfinished]:
        """A file that appears under its name when it is committed, and leaves nothing behind otherwise."""
        path = self.local(TEMPORARY) / uuid.uuid4().hex
        make_folder(path.parent)
        try:
            with full_disk_named(self), path.open("xb") as file:
                yield Unfinished(self, path, file)
        finally:
            path.unlink(missing_ok=True)

    def write(self, name: str, data: bytes | Iterable[bytes]) -> FileRecord:
        with self.writer() as unfinished:
            for piece in [data] if isinstance(data, bytes) else data:
                unfinished.file.write(piece)
            return unfinished.commit(name)

    def create(self, name: str, data: bytes) -> bool:
        """Write a file that must not be there yet; False where it is."""
        with self.writer() as unfinished:
            unfinished.file.write(data)
            return unfinished.create(name) is not None

    def swap(self, name: str, data: bytes) -> None:
        """Write the one file that says which others count. LvaeError where another command has done so meanwhile."""
        self.write(name, data)

    def copy(self, source: "Folder", name: str, new_name: str) -> FileRecord:
        """A file of another folder under a name in this one."""
        with self.writer() as unfinished, source.local(name).open("rb") as file:
            while chunk := file.read(CHUNK_BYTES):
                unfinished.file.write(chunk)
            return unfinished.commit(new_name)

    def remove(self, name: str) -> None:
        """A file or a whole folder; one that is not there is no error. Of a link nothing but the link goes."""
        path = self.local(check_name(self, name).rpartition("/")[0]) / name.rpartition("/")[2]
        if path == self.root:
            raise LvaeError(self, "a whole folder is never removed")
        for left in reversed(range(REMOVALS)):
            if not path.is_dir() or path.is_symlink():
                path.unlink(missing_ok=True)
                return
            with suppress(FileNotFoundError):
                try:
                    shutil.rmtree(path)
                except OSError as error:
                    if error.errno != errno.ENOTEMPTY or not left:
                        raise

    def sweep(self) -> None:
        """Remove what killed writers left under .tmp/ and on this machine. For the one holder of the dataset's lock."""
        self.remove(TEMPORARY)
        remove_abandoned()

    def check_lease(self) -> None:
        """LvaeError where another command has taken over. A lock of the operating system cannot be lost."""

    def free_bytes(self) -> int:
        """Free space where this folder lies or will lie."""
        path = self.root.absolute()
        while not path.exists():
            path = path.parent
        return shutil.disk_usage(path).free


def make_folder(path: Path) -> None:
    """A folder and those above it, each of which survives a power cut as its files do."""
    missing = []
    while not path.is_dir():
        missing.append(path)
        path = path.parent
    for folder in reversed(missing):
        folder.mkdir(exist_ok=True)
        flush_folder(folder.parent)


def _link(path: Path, target: Path) -> bool:
    """Give a finished file a second name; False where that is taken."""
    try:
        os.link(path, target)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        return _copy_exclusively(path, target)
    return True


def _copy_exclusively(path: Path, target: Path) -> bool:
    """Where the file system knows no links. Whoever is killed meanwhile leaves half a file, which is then damaged."""
    try:
        with path.open("rb") as file, target.open("xb") as copy:
            shutil.copyfileobj(file, copy, CHUNK_BYTES)
            copy.flush()
            os.fsync(copy.fileno())
    except FileExistsError:
        return False
    return True


def flush_folder(path: Path) -> None:
    """Make renames survive a power cut; folders that cannot be flushed, or not be listed, are left alone."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except PermissionError:
        return
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)
