"""A dataset on an object store, for reading: each file is fetched once, when it is first needed."""

import hashlib
import shutil
import tempfile
import weakref
from collections.abc import Iterator
from pathlib import Path

import fsspec

from lvae.manifests.errors import LvaeError
from lvae.manifests.storage import CHUNK_BYTES, TEMPORARY, Folder


class RemoteFolder(Folder):
    """Reads from a URL; what has to be a file is fetched into a folder on this machine that goes with the process.

    Files under .tmp/ are written there too and never reach the store.
    """

    def __init__(self, url: str):
        try:
            self._files, self._path = fsspec.core.url_to_fs(url)
        except ImportError as error:
            raise LvaeError(f"{url}: {error}.") from error
        except ValueError as error:
            raise LvaeError(f"{url}: {error}. Name a path or a URL that fsspec knows.") from error
        self._url = url.rstrip("/")
        fetched = tempfile.mkdtemp(prefix="lvae-")
        weakref.finalize(self, shutil.rmtree, fetched, ignore_errors=True)
        super().__init__(fetched)

    def __str__(self) -> str:
        return self._url

    def _remote(self, name: str) -> str:
        return f"{self._path.rstrip('/')}/{name}"

    def local(self, name: str) -> Path:
        """The path of a file of this folder on this machine, fetched if it is on the store."""
        path = self.root / name
        if not name.startswith(TEMPORARY) and not path.exists() and self._files.isfile(self._remote(name)):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._files.get_file(self._remote(name), str(path))
        return path

    def exists(self, name: str) -> bool:
        return super().exists(name) if name.startswith(TEMPORARY) else bool(self._files.exists(self._remote(name)))

    def size(self, name: str) -> int | None:
        try:
            return int(self._files.size(self._remote(name)))
        except FileNotFoundError:
            return None

    def read(self, name: str) -> bytes:
        if name.startswith(TEMPORARY):
            return super().read(name)
        return bytes(self._files.cat_file(self._remote(name)))

    def sha256(self, name: str) -> str:
        digest = hashlib.sha256()
        with self._files.open(self._remote(name), "rb") as file:
            while chunk := file.read(CHUNK_BYTES):
                digest.update(chunk)
        return digest.hexdigest()

    def names(self, under: str = "") -> Iterator[str]:
        prefix = self._remote("")
        for path in sorted(self._files.find(self._remote(under).rstrip("/"))):
            yield path.removeprefix(prefix)
