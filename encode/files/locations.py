"""Where files lie: paths and URLs of fsspec, named, looked at and read alike.

A URL of a folder ends in a slash. The name of a file behind HTTP is written plainly in keys, percent-encoded in URLs.
"""

import hashlib
import io
import os
import re
import stat
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, TypeVar

from lvae.encode.files import remote
from lvae.encode.files.remote import Entry, Status
from lvae.manifests.errors import LvaeError
from lvae.manifests.storage.retry import retry

BUFFER_BYTES = 1 << 20
SEEN_RANGE = 1 << 256
IPV6_HOST = re.compile(r"://\[[0-9a-zA-Z:.%]*\]")
SIGNED = re.compile(r"[?&](x-amz-signature|x-goog-signature|signature|sig|token|access_token)=", re.IGNORECASE)

T = TypeVar("T")
R = TypeVar("R")


class Seen:
    """A hash over size and time of every file that holds images: when it differs, they need a closer look.

    A sum of the files' own hashes, so that the share of some of the files can be told from that of the others.
    """

    def __init__(self) -> None:
        self.sum = 0

    def add(self, name: str, size: int | None, stamp: str | int) -> None:
        digest = hashlib.sha256(f"{name}\0{size}\0{stamp}".encode("utf-8", "surrogateescape")).digest()
        self.sum = (self.sum + int.from_bytes(digest, "little")) % SEEN_RANGE


def is_url(location: str) -> bool:
    return "://" in location


def resolve(source: str) -> str:
    """A SOURCE as others should call it: an absolute path, or a URL. Refuses URLs that would give a secret away."""
    if source.startswith("file://"):
        source = urllib.parse.unquote(source.removeprefix("file://"))
    if "\0" in source:
        raise LvaeError(source, "holds a null byte, and no path does", "Write it without.")
    if not is_url(source):
        return str(Path(source).absolute())
    refuse_secrets(source)
    if "::" in IPV6_HOST.sub("://", source):
        raise LvaeError(source, "is a chain of URLs", "Name the file itself, by one URL.")
    return source


def refuse_secrets(url: str) -> None:
    """What is listed is written down, and read by others."""
    authority = url.partition("://")[2].partition("/")[0]
    if "@" in authority:
        scheme = url.partition("://")[0]
        raise LvaeError(
            f"{scheme}://...@...", "a URL with a password would be written down", "Use the storage's own set-up."
        )
    if SIGNED.search(url):
        raise LvaeError(
            f"{url.partition('?')[0]}?...", "a signed URL would be written down", "Use the storage's own set-up."
        )


def is_http(url: str) -> bool:
    return url.lower().startswith(("http://", "https://"))


def join(base: str, name: str) -> str:
    """A name relative to a folder; paths from the root and URLs stand for themselves."""
    if is_url(name):
        return name
    if not is_url(base):
        return os.path.join(base, name)  # noqa: PTH118  a Path for each of a million files is slow
    scheme, _, rest = base.partition("://")
    quoted = urllib.parse.quote(name, safe="/!$&'()*+,:;=@~") if is_http(base) else name
    return f"{scheme}://{rest.rstrip('/')}/{quoted}" if rest.rstrip("/") else f"{scheme}://{rest}{quoted}"


def plain_path(url: str) -> str:
    """A URL without the query of an HTTP request."""
    return url.partition("?")[0].partition("#")[0] if is_http(url) else url


def parent_of(location: str) -> str:
    if not is_url(location):
        return str(Path(location).absolute().parent)
    scheme, _, rest = plain_path(location).partition("://")
    return f"{scheme}://{rest.rstrip('/').rpartition('/')[0]}"


def name_of(location: str) -> str:
    if not is_url(location):
        return Path(location).name
    return plain(location, plain_path(location).partition("://")[2].rstrip("/").rpartition("/")[2])


def plain(url: str, part: str) -> str:
    """Part of a URL as people write it."""
    return urllib.parse.unquote(part) if is_http(url) else part


def status(location: str) -> Status:
    """Raises FileNotFoundError where nothing is, and other OSErrors."""
    if is_url(location):
        return retry(lambda: remote.status(location), where=location)

    found = os.stat(location)  # noqa: PTH116  as in `join`
    if not (stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode)):
        raise FileNotFoundError(0, "neither a file nor a folder", location)
    return Status(found.st_size, str(found.st_mtime_ns), stat.S_ISDIR(found.st_mode))


def is_folder(location: str) -> bool:
    """A URL of a folder ends in a slash."""
    return location.endswith("/") if is_url(location) else os.path.isdir(location)  # noqa: PTH112  as in `join`


def exists(location: str) -> bool:
    try:
        status(location)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def entries(folder: str) -> list[Entry]:
    """What lies in a URL's folder, sorted by name (by Unicode code point)."""
    found = retry(lambda: remote.entries(folder), where=folder)
    return sorted(found, key=lambda entry: (entry.name, entry.status.is_folder))


def names_in(folder: str) -> list[str]:
    """The names in a folder, here or behind a URL, sorted."""
    return sorted(os.listdir(folder)) if not is_url(folder) else [entry.name for entry in entries(folder)]  # noqa: PTH208


def walk_names(folder: str) -> Iterator[str]:
    """The names of all files in a folder, however deep, relative to it. Links of folders end in a slash, unfollowed."""
    if is_url(folder):
        for entry in entries(folder):
            if entry.status.is_folder:
                yield from (f"{entry.name}/{name}" for name in walk_names(f"{join(folder, entry.name)}/"))
            else:
                yield entry.name
        return
    for top, folders, names in os.walk(folder):
        below = os.path.relpath(top, folder).replace(os.sep, "/") + "/" if top != folder else ""
        yield from (below + name for name in names)
        yield from (f"{below}{name}/" for name in folders if os.path.islink(f"{top}/{name}"))  # noqa: PTH114


def open_file(location: str, buffer_bytes: int = BUFFER_BYTES, in_place: bool = True) -> IO[bytes]:
    """A file to read and seek in. Raises OSError, and LvaeError where it shall be read in place and cannot be."""
    if not is_url(location):
        if not stat.S_ISREG(os.stat(location).st_mode):  # noqa: PTH116  a pipe would be waited for
            raise IsADirectoryError(0, "not a regular file", location)
        return open(location, "rb")
    file = RemoteFile(location)
    if in_place and is_http(location) and file.size > 1:
        retry(lambda: read_range(location, 1, 1), where=location)
    return io.BufferedReader(file, buffer_bytes)


def size_of(file: "IO[bytes] | Watched") -> int:
    position = file.tell()
    size = file.seek(0, os.SEEK_END)
    file.seek(position)
    return size


def read_up_to(location: str, limit: int) -> bytes:
    """A small file. Raises LvaeError where it has more bytes than that, OSError where it cannot be read."""
    with open_file(location, in_place=False) as file:
        data = file.read(min(size_of(file), limit) + 1)  # what is asked for is allocated
    if len(data) > limit:
        raise LvaeError(location, f"of more than {limit} bytes")
    return data


def first_bytes(location: str, count: int) -> bytes:
    """Of a file, fewer where it is shorter. Raises OSError."""
    if is_url(location):
        return retry(lambda: remote.read_range(location, 0, count), where=location)
    with open_file(location) as file:
        return file.read(count)


def read_range(location: str, offset: int, length: int) -> bytes:
    """Bytes behind a URL, fewer where the file ends; one try, so that whoever asks decides how patient to be."""
    return remote.read_range(location, offset, length)


def explain(error: OSError) -> str:
    """An OSError in a few words."""
    return error.strerror or " ".join(str(error).split())[:200] or type(error).__name__


class Watched:
    """A file for a library that makes an OSError of the storage's into a fault of the file's.

    Nor does it take memory for more bytes than there are, however many a damaged file makes the library ask for.
    """

    def __init__(self, file: IO[bytes]):
        self._file = file
        self._fault: OSError | None = None
        self._size = size_of(file)
        self.tell, self.close = file.tell, file.close

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Raises ValueError for a place that no file has: a damaged one named it, and the storage is innocent."""
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._file.tell(), os.SEEK_END: self._size}[whence]
        if not 0 <= start + offset < 1 << 63:
            raise ValueError(f"no byte {start + offset} in a file")
        return self._file.seek(start + offset)

    def read(self, count: int = -1) -> bytes:
        left = max(0, self._size - self._file.tell())
        try:
            return self._file.read(left if count < 0 else min(count, left))
        except OSError as error:
            self._fault = error
            raise

    def raise_fault(self) -> None:
        """What the storage did, if anything, since last asked."""
        fault, self._fault = self._fault, None
        if fault is not None:
            raise fault

    @property
    def closed(self) -> bool:
        return self._file.closed

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def __enter__(self) -> "Watched":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class RemoteFile(io.RawIOBase):
    """A file behind a URL; every piece is asked for a few times. Not for several threads at once."""

    def __init__(self, location: str):
        super().__init__()
        found = status(location)
        if found.size is None:
            raise LvaeError(location, "the server does not tell its size, so it cannot be read in place")
        self._location, self.size, self._position = location, found.size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self.size}[whence]
        if base + offset < 0:
            raise ValueError("negative seek position")
        self._position = base + offset
        return self._position

    def tell(self) -> int:
        return self._position

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        length = max(0, min(len(view), self.size - self._position, remote.PIECE_BYTES))
        if not length:
            return 0
        data = retry(lambda: _exactly(self._location, self._position, length), where=self._location)
        view[: len(data)] = data
        self._position += len(data)
        return len(data)


def _exactly(location: str, offset: int, length: int) -> bytes:
    data = read_range(location, offset, length)
    if len(data) != length:
        raise OSError(5, "the answer is shorter than it should be", location)
    return data
