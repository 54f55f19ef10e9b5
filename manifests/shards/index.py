"""Lists of files that are too long for the manifest: a line of JSON each, written and read as a stream."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TypeVar

from lvae.manifests import records
from lvae.manifests.errors import LvaeError
from lvae.manifests.shards.missing import explain_missing
from lvae.manifests.storage.folder import FileRecord, Folder, file_sha256
from lvae.manifests.storage.names import FileName, Sha256

T = TypeVar("T")


@dataclass(frozen=True)
class Shard:
    """One shard of a split: a line of the split's index.

    path, bytes, sha256: of the file that holds the latents. count: its latents. beside: its other files, its receipt
        last.
    """

    path: FileName
    count: int
    bytes: int
    sha256: Sha256
    beside: tuple[FileRecord, ...]

    @property
    def files(self) -> tuple[FileRecord, ...]:
        """Every file of the shard, the one with its latents first."""
        return FileRecord(self.path, self.bytes, self.sha256), *self.beside


def index_name(view: str, split: str) -> str:
    """The list of a split's shards, in their order."""
    return f"shards/{view}/{split}.shards.jsonl"


def files_index_name(view: str) -> str:
    """The list of the files that are too many to stand in the manifest."""
    return f"shards/{view}/files.jsonl"


def write_index(folder: Folder, name: str, entries: Iterable[Shard | FileRecord]) -> FileRecord:
    return folder.write(name, map(records.line, entries))


def read_index(folder: Folder, index: FileRecord) -> Iterator[Shard]:
    """The shards that an index lists; LvaeError at once where the index is not the one that was written."""
    _check(folder, index)
    return _entries(Shard, folder, index)


def read_files_index(folder: Folder, index: FileRecord) -> Iterator[FileRecord]:
    _check(folder, index)
    return _entries(FileRecord, folder, index)


def _check(folder: Folder, index: FileRecord) -> None:
    if not folder.exists(index.path):
        raise explain_missing(folder, index.path, "is missing", "Run 'lvae encode' again to make it anew.")
    path = folder.local(index.path)
    if (path.stat().st_size, file_sha256(path)) != (index.bytes, index.sha256):
        problem = "its bytes are not those that were written (checksum)"
        raise LvaeError(folder.place(index.path), problem, "Run 'lvae encode' again to make it anew.")


def _entries(kind: type[T], folder: Folder, index: FileRecord) -> Iterator[T]:
    where = folder.place(index.path)
    with folder.local(index.path).open("rb") as file:
        for number, line in enumerate(file, 1):
            yield records.parse(kind, line, f"{where}:{number}")
