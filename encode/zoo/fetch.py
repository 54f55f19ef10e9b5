"""Fetching published weights: resumed where it was cut off, checked, converted once to a file without code."""

import hashlib
import json
import os
import re
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from email.message import Message
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

from lvae.encode.catalogue.published import DEFAULT, PUBLISHED, Published, cache_folder, fetched, in_hub_cache
from lvae.encode.zoo.convert import Conversion, convert
from lvae.manifests.errors import LvaeError
from lvae.manifests.records import dumps
from lvae.manifests.storage.folder import Folder
from lvae.manifests.storage.locks import writing

TIMEOUT_SECONDS = 30
CHUNK_BYTES = 1 << 20
SHA256 = re.compile(r'"?([0-9a-f]{64})"?')
Progress = Callable[[int, int], None]  # bytes there, bytes in all (0: unknown)


@dataclass(frozen=True)
class Fetched:
    """Weights that are here now.

    source: where they came from, a URL or a path. checked: what their bytes were held against: "sha256 of NAME",
    "size" or "nothing"; names and shapes of all tensors are demanded in any case.
    """

    path: str
    source: str
    bytes: int
    sha256: str
    checked: str


def fetch(name: str, progress: Progress, place: str | None = None, folder: Path | None = None) -> Fetched:
    """Bring published weights to this machine, or find that they are here.

    place: a URL or file of the same weights to take instead of the published place. folder: instead of the cache.
    """
    if name == DEFAULT:
        raise LvaeError("default", "is part of this package", "There is nothing to fetch.")
    if name not in PUBLISHED:
        raise LvaeError(name, "nothing of that name is published", f"There are {', '.join(PUBLISHED)}.")
    published, folder = PUBLISHED[name], folder or cache_folder()
    out = folder / fetched(name).name
    downloads = folder / "downloads"
    with writing(Folder(folder)):
        if out.is_file():
            return _there(out)
        found, source, checked = _obtain(name, published, place, downloads, progress)
        try:
            conversion = convert(str(found), out, published.architecture)
        except LvaeError as error:
            raise LvaeError("", f"{error} Remove {found}, then run the same command again") from error
        return _record(conversion, out, found, source, checked, downloads)


def _obtain(
    name: str, published: Published, place: str | None, downloads: Path, progress: Progress
) -> tuple[Path, str, str]:
    """The file, where it came from, and what it was checked against."""
    if place is not None and "://" not in place:
        return Path(place), place, "nothing"
    urls = published.urls if place is None else (place,)
    for url in urls:
        path = downloads / _file_name(name, url)
        if path.is_file():  # put there by hand, or left complete by a killed run
            return path, str(path), _checked(path, published.sha256, "the published list")
    cached = in_hub_cache(published)
    if cached is not None and place is None:
        return cached, str(cached), _checked(cached, published.sha256, "the published list")
    for number, url in enumerate(urls):
        path = downloads / _file_name(name, url)
        try:
            return path, url, _download(url, path, published.sha256 if place is None else None, progress)
        except urllib.error.HTTPError as error:
            if error.code == 404 and number + 1 < len(urls):
                continue
            raise LvaeError(
                url,
                f"the server says {error.code} {error.reason}",
                f"Try later, or put that file at {path} and run the same command again.",
            ) from None
        except (OSError, HTTPException) as error:
            if isinstance(error, OSError) and not isinstance(error, urllib.error.URLError) and error.filename:
                raise  # our own disk
            why = getattr(error, "reason", None) or error
            raise LvaeError(
                url,
                f"cannot be reached ({why})",
                f"Fetch it on a machine that can, put it at {path}, and run the same command again.",
            ) from None
    raise AssertionError("unreachable")


def _file_name(name: str, url: str) -> str:
    """What a download is called here: the weights' name, and the published file's ending."""
    return f"{name}-{Path(urlsplit(url).path).name or 'weights'}"


def _download(url: str, path: Path, sha256: str | None, progress: Progress) -> str:
    """Write the file under its name when it is whole and right; what was cut off stays beside it and is continued."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial, tag = path.with_name(path.name + ".part"), path.with_name(path.name + ".etag")
    done = partial.stat().st_size if partial.is_file() and tag.is_file() else 0
    request = urllib.request.Request(url, headers={"User-Agent": "latent-vae"})
    if done:
        request.add_header("Range", f"bytes={done}-")
        request.add_header("If-Range", tag.read_text())
    redirects = _Redirects()
    try:
        response = urllib.request.build_opener(redirects).open(request, timeout=TIMEOUT_SECONDS)
    except urllib.error.HTTPError as error:
        if error.code != 416:  # the part is all there is, or the file has changed
            raise
        partial.unlink()
        return _download(url, path, sha256, progress)
    with response, partial.open("ab" if response.status == 206 else "wb") as file:
        done = done if response.status == 206 else 0
        etag = response.headers.get("ETag", "")
        if etag and not etag.startswith("W/"):
            tag.write_text(etag)
        length = response.headers.get("Content-Length")
        total = done + int(length) if length and length.isdigit() else 0
        _receive(response, file, done, total, progress)
    size = partial.stat().st_size
    if total and size != total:
        raise LvaeError(url, f"{size} of {total} bytes came", "Run the same command again to fetch the rest.")
    announced = redirects.sha256
    checked = _checked(partial, sha256 or announced, "the published list" if sha256 else urlsplit(url).netloc)
    partial.replace(path)
    tag.unlink(missing_ok=True)
    return checked if checked != "nothing" or not total else "size"


def _receive(response: HTTPResponse, file: IO[bytes], done: int, total: int, progress: Progress) -> None:
    try:
        while chunk := response.read(CHUNK_BYTES):
            file.write(chunk)
            done += len(chunk)
            progress(done, total)
    finally:
        file.flush()
        os.fsync(file.fileno())


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects, and keeps the sha256 that Hugging Face's hub says of a file before it sends us on."""

    sha256: str | None = None

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Message, newurl: str
    ) -> urllib.request.Request | None:
        found = SHA256.fullmatch(str(headers.get("X-Linked-Etag", "")))
        self.sha256 = found[1] if found else self.sha256
        return super().redirect_request(req, fp, code, msg, headers, newurl)  # type: ignore[arg-type]


def _checked(path: Path, sha256: str | None, who: str) -> str:
    if sha256 is None:
        return "nothing"
    found = _sha256(path)
    if found != sha256:
        raise LvaeError(path, f"has sha256 {found}, but {who} says {sha256}", "Remove it, then run this again.")
    return f"sha256 of {who}"


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _record(conversion: Conversion, out: Path, found: Path, source: str, checked: str, downloads: Path) -> Fetched:
    """What is said of the source, beside the weights; the download itself is not needed any more."""
    original = conversion.sources[0]
    result = Fetched(str(out), source, original.bytes, original.sha256, checked)
    Folder(out.parent).write(f"{out.stem}.source.json", dumps(result))
    if found.parent == downloads:
        found.unlink()
    return result


def _there(out: Path) -> Fetched:
    record = out.with_name(f"{out.stem}.source.json")
    if not record.is_file():
        return Fetched(str(out), str(out), out.stat().st_size, _sha256(out), "nothing")
    values: dict[str, Any] = json.loads(record.read_text())
    return Fetched(**values)
