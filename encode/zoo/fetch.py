"""Fetching published weights: by Hugging Face's library or torch's, checked, converted once to a file without code."""

import http.client
import json
import re
import shutil
import sys
import urllib.error
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from lvae.encode.catalogue.published import (
    DEFAULT,
    HUB_FILES,
    PUBLISHED,
    Published,
    cache_folder,
    find_in_hub_cache,
    hub_address,
    path_in_cache,
)
from lvae.encode.zoo.convert import Conversion, convert
from lvae.manifests.errors import LvaeError
from lvae.manifests.messages import did_you_mean
from lvae.manifests.records import dumps
from lvae.manifests.storage.folder import Folder, file_sha256
from lvae.manifests.storage.locks import writing

SHA256 = re.compile(r"[0-9a-f]{64}")
LIST = "the published list"


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


def fetch(name: str, say: Callable[[str], None], place: str | None = None) -> Fetched:
    """Bring published weights to this machine, or find that they are here.

    place: a URL or file of the same weights to take instead of the published place.
    """
    if name == DEFAULT:
        raise LvaeError("default", "is part of this package", "There is nothing to fetch.")
    if name not in PUBLISHED:
        advice = did_you_mean(name, PUBLISHED, f"There are {', '.join(PUBLISHED)}.")
        raise LvaeError(name, "nothing of that name is published", advice)
    published, folder, out = PUBLISHED[name], cache_folder(), path_in_cache(name)
    downloads = folder / "downloads" / name
    try:
        with writing(Folder(folder)):
            if out.is_file():
                return _describe_present(out)
            found, source, checked = _obtain(published, place, downloads, say)
            try:
                conversion = convert(str(found), out, published.architecture, say=say)
            except LvaeError as error:
                advice = f"Remove {found}, then run the same command again."
                raise LvaeError(error.where, error.problem, advice) from error
            return _record(conversion, out, source, checked, downloads)
    except (PermissionError, NotADirectoryError, FileExistsError) as error:
        raise LvaeError(folder, f"cannot be written ({error.strerror})", "Set XDG_CACHE_HOME to a folder.") from None


def _obtain(
    published: Published, place: str | None, downloads: Path, say: Callable[[str], None]
) -> tuple[Path, str, str]:
    """The file, where it came from, and what it was checked against."""
    if place is not None and "://" not in place:
        return Path(place), place, "nothing"
    of_hub = place is None and published.repository is not None
    url = place or published.url or ""
    names = [published.folder + name for name in HUB_FILES] if of_hub else [Path(urlsplit(url).path).name or "weights"]
    for name in names:
        path = downloads / name
        if path.is_file():  # put there by hand, or left by a killed run
            return path, str(path), _check_sha256(path, published.sha256, LIST)
    cached = find_in_hub_cache(published)
    if cached is not None and place is None:
        return cached, str(cached), _check_sha256(cached, published.sha256, LIST)
    downloads.mkdir(parents=True, exist_ok=True)
    if of_hub:
        return _from_hub(published, names, downloads, say)
    say(f"fetching {url}")
    path = downloads / names[0]
    _download(url, path)
    return path, url, _check_sha256(path, published.sha256 if place is None else None, LIST)


def _from_hub(
    published: Published, names: list[str], downloads: Path, say: Callable[[str], None]
) -> tuple[Path, str, str]:
    """The first of these files that the repository has. A download that was cut off goes on."""
    import huggingface_hub as hub
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError
    from huggingface_hub.errors import HTTPError as TransportError  # type: ignore[attr-defined]  # requests' or httpx's

    endpoint, repository = hub_address(), published.repository or ""
    for number, name in enumerate(names):
        path, url = downloads / name, hub.hf_hub_url(repository, name, endpoint=endpoint)
        advice = f"put that file at {path} and run the same command again."
        try:
            announced = hub.get_hf_file_metadata(url).etag or ""
            say(f"fetching {url}")
            hub.hf_hub_download(repository, name, local_dir=downloads, endpoint=endpoint)
        except GatedRepoError:
            advice = f"Accept them on the page of {repository}, log in with 'hf auth login', or {advice}"
            raise LvaeError(url, "only for those who accepted its terms", advice) from None
        except HfHubHTTPError as error:
            if error.response.status_code == 404 and number + 1 < len(names):
                continue
            code = error.response.status_code
            said = f"the server says {code} {http.client.responses.get(code, '')}".rstrip()
            raise LvaeError(url, said, f"Try later, or {advice}") from None
        except (TransportError, OSError) as error:
            if isinstance(error, OSError) and error.filename:
                raise  # our own disk
            if any((downloads / ".cache").rglob("*.incomplete")):
                raise LvaeError(url, f"not all of it came ({error})", "Run the same command again.") from None
            advice = f"Fetch it on a machine that can, {advice}"
            raise LvaeError(url, f"cannot be reached ({error})", advice) from None
        known = SHA256.fullmatch(announced) is not None
        if published.sha256 is None and not known:
            return path, url, "size"
        who = LIST if published.sha256 else urlsplit(url).netloc
        return path, url, _check_sha256(path, published.sha256 or announced, who)
    raise AssertionError("unreachable")


def _download(url: str, path: Path) -> None:
    """Any other address."""
    import torch.hub

    advice = f"put that file at {path} and run the same command again."
    try:
        torch.hub.download_url_to_file(url, str(path), progress=sys.stderr.isatty())
    except urllib.error.HTTPError as error:
        raise LvaeError(url, f"the server says {error.code} {error.reason}", f"Try later, or {advice}") from None
    except (urllib.error.URLError, ConnectionError, TimeoutError, ValueError) as error:
        why = getattr(error, "reason", None) or error
        raise LvaeError(url, f"cannot be reached ({why})", f"Fetch it on a machine that can, {advice}") from None


def _check_sha256(path: Path, sha256: str | None, who: str) -> str:
    if sha256 is None:
        return "nothing"
    found = file_sha256(path)
    if found != sha256:
        raise LvaeError(path, f"has sha256 {found}, but {who} says {sha256}", "Remove it, then run this again.")
    return f"sha256 of {who}"


def _record(conversion: Conversion, out: Path, source: str, checked: str, downloads: Path) -> Fetched:
    """What is said of the source, beside the weights; the download itself is not needed any more."""
    original = conversion.sources[0]
    result = Fetched(str(out), source, original.bytes, original.sha256, checked)
    Folder(out.parent).write(f"{out.stem}.source.json", dumps(result))
    shutil.rmtree(downloads, ignore_errors=True)
    return result


def _describe_present(out: Path) -> Fetched:
    record = out.with_name(f"{out.stem}.source.json")
    if not record.is_file():
        return Fetched(str(out), str(out), out.stat().st_size, file_sha256(out), "nothing")
    values: dict[str, Any] = json.loads(record.read_text())
    return Fetched(**values)
