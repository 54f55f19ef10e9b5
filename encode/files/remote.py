"""Files behind URLs of fsspec: looked at, listed, and read in pieces, every request with a time-out.

A failure of the storage is an OSError, whatever its library calls it: FileNotFoundError and PermissionError where an
answer says so, TimeoutError where none came. LvaeError is what trying again cannot mend: an unknown protocol, a missing
package, a server that answers no ranged requests.
"""

import asyncio
import errno
import logging
import os
import urllib.parse
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Any, NamedTuple, TypeVar

from fsspec.asyn import AsyncFileSystem

from lvae.encode.files.addresses import PublicOnly, open_session, refuse_protocol
from lvae.manifests.errors import LvaeError
from lvae.manifests.storage.filesystems import open_filesystem, storage_errors

logger = logging.getLogger(__name__)

REQUEST_SECONDS = 60.0  # of a piece of at most PIECE_BYTES
LISTING_SECONDS = 3600.0  # of one folder: millions of objects come in thousands of pages
PIECE_BYTES = 8 << 20
HTTP = ("http", "https")
PLAIN = {"Accept-Encoding": "identity"}  # a range of compressed bytes is none of the file
STAMPS = ("ETag", "etag", "md5Hash", "LastModified", "last_modified", "mtime", "updated", "modified", "created")

T = TypeVar("T")


class Status(NamedTuple):
    """What there is to know of a file or folder without reading it.

    size: in bytes; None where the storage does not tell.
    stamp: changes when the file does: a time or an ETag; "" where there is none.
    """

    size: int | None
    stamp: str
    is_folder: bool = False


class Entry(NamedTuple):
    """Something in a folder."""

    name: str
    status: Status


def status(url: str) -> Status:
    """Raises FileNotFoundError where nothing is."""
    if _is_http(url):
        answer: Status = _asked(url, _http_status, REQUEST_SECONDS)
        return answer
    return _status(_asked(url, "info", REQUEST_SECONDS))


def entries(url: str) -> list[Entry]:
    """What lies in a folder, in no order. An HTTP server's page gives names without sizes."""
    found = _asked(url, "ls", LISTING_SECONDS, detail=True)
    _, path = _filesystem(url)
    folder = _decoded(url, path.rstrip("/")) + "/"
    unique: dict[tuple[str, bool], Entry] = {}
    for info in found:
        whole = _decoded(url, info["name"])
        name = whole.removeprefix(folder).strip("/")
        if whole.rstrip("/") + "/" == folder or not name or "/" in name or (_is_http(url) and "?" in info["name"]):
            continue  # the folder itself, as object stores mark it, or a link to elsewhere
        entry = Entry(name, _status(info))
        unique[name, entry.status.is_folder] = entry
    return list(unique.values())


def read_range(url: str, offset: int, length: int) -> bytes:
    """These bytes; fewer where the file ends. One try, in pieces."""
    data = bytearray()
    while len(data) < length:
        wanted = min(length - len(data), PIECE_BYTES)
        piece = _read_piece(url, offset + len(data), wanted)
        data += piece
        if len(piece) < wanted:
            break
    return bytes(data)


def _read_piece(url: str, offset: int, length: int) -> bytes:
    if _is_http(url):
        piece = _asked(url, _http_range, REQUEST_SECONDS, offset=offset, length=length)
    else:
        piece = _asked(url, "cat_file", REQUEST_SECONDS, start=offset, end=offset + length)
    return bytes(piece[:length])


def _is_http(url: str) -> bool:
    return url.partition("://")[0].lower() in HTTP


def _decoded(url: str, name: str) -> str:
    """A link on an HTTP server's page is percent-encoded; names of other storages are not."""
    return urllib.parse.unquote(name) if _is_http(url) else name


def _status(info: dict[str, Any]) -> Status:
    size = info.get("size")
    stamp = next((value for name in STAMPS if (value := info.get(name)) is not None), "")
    text = stamp.isoformat() if isinstance(stamp, datetime) else str(stamp)
    return Status(size if isinstance(size, int) and size >= 0 else None, text, info.get("type") == "directory")


# --- requests ------------------------------------------------------------------------------------------------------

_filesystems: dict[tuple[int, str, str, bool], Any] = {}  # by process, since none survives a fork


def _filesystem(url: str) -> tuple[Any, str]:
    """fsspec's object for a URL, and what the URL is called there."""
    scheme, _, rest = url.partition("://")
    key = (os.getpid(), scheme, rest.partition("/")[0], PublicOnly.on)
    fs = _filesystems.get(key)
    if fs is None:
        settings = {}
        if PublicOnly.on:
            refuse_protocol(url)
            settings = {"get_client": open_session} if _is_http(url) else {}
        fs, _ = open_filesystem(url, **settings)
        fs = _filesystems.setdefault(key, fs)
    return fs, fs._strip_protocol(url)


def _asked(url: str, what: "str | Callable[..., Awaitable[Any]]", seconds: float, **arguments: Any) -> Any:
    """Call a method of the file system, or a coroutine of ours with it; every failure comes out as the module says."""
    fs, path = _filesystem(url)
    with storage_errors(url):
        if not isinstance(fs, AsyncFileSystem):
            return getattr(fs, str(what))(path, **arguments)
        coroutine = getattr(fs, f"_{what}")(path, **arguments) if isinstance(what, str) else what(fs, url, **arguments)
        try:
            return asyncio.run_coroutine_threadsafe(asyncio.wait_for(coroutine, seconds), fs.loop).result()
        except TimeoutError as error:
            raise TimeoutError(errno.ETIMEDOUT, f"no answer within {seconds:g} s", url) from error


# --- HTTP: fsspec takes an outage for a missing file, and a whole file for a range ----------------------------------


def _check(response: Any, url: str) -> None:
    if response.status in (404, 410):
        raise FileNotFoundError(errno.ENOENT, f"the server answers {response.status}", url)
    if response.status in (401, 403):
        raise PermissionError(errno.EACCES, f"the server answers {response.status}", url)
    if response.status >= 400:
        raise OSError(errno.EIO, f"the server answers {response.status}", url)


async def _http_status(fs: Any, url: str) -> Status:
    session = await fs.set_session()
    async with session.head(fs.encode_url(url), headers=PLAIN, allow_redirects=True, **fs.kwargs) as response:
        if response.status not in (403, 405, 501):  # some servers answer GET alone
            _check(response, url)
            if "Content-Length" in response.headers:
                return _http_description(response, response.headers["Content-Length"])
    headers = {**PLAIN, "Range": "bytes=0-0"}
    async with session.get(fs.encode_url(url), headers=headers, **fs.kwargs) as response:
        if response.status == 416:  # an empty file
            return _http_description(response, "0")
        _check(response, url)
        if response.status == 206:
            return _http_description(response, response.headers.get("Content-Range", "").rpartition("/")[2])
        return _http_description(response, response.headers.get("Content-Length", ""))


def _http_description(response: Any, size: str) -> Status:
    stamp = response.headers.get("ETag") or response.headers.get("Last-Modified") or ""
    known = size.isdecimal() and len(size) < 19 and "Content-Encoding" not in response.headers
    return Status(int(size) if known else None, stamp)


async def _http_range(fs: Any, url: str, offset: int, length: int) -> bytes:
    session = await fs.set_session()
    headers = {**PLAIN, "Range": f"bytes={offset}-{offset + length - 1}"}
    async with session.get(fs.encode_url(url), headers=headers, **fs.kwargs) as response:
        if response.status == 416:  # begins after the end
            return b""
        _check(response, url)
        if "Content-Encoding" in response.headers:
            raise LvaeError(url, "the server compresses what it sends, so that nothing can be read in place")
        answered = response.headers.get("Content-Range", "").partition("-")[0].strip()
        if offset and (response.status != 206 or answered != f"bytes {offset}"):
            raise LvaeError(
                url,
                "the server answers no ranged requests, so that nothing can be read in place",
                "Copy the file here, or serve it otherwise.",
            )
        data = bytearray()
        while len(data) < length and (piece := await response.content.read(length - len(data))):
            data += piece
        return bytes(data)
