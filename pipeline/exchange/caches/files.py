"""The files of a cache: in a folder, or stored in a zip. Listed one by one, in the order of their paths."""

import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from lvae.encode.files import locations
from lvae.encode.files.locations import Seen, Watched
from lvae.encode.sources.reading.random_access import Containers
from lvae.encode.sources.zip import DAMAGE, data_offset
from lvae.manifests.errors import LvaeError
from lvae.manifests.parts.rows import UNLABELLED, ImageRow
from lvae.pipeline.exchange.caches.sorting import sort_many
from lvae.pipeline.exchange.caches.zip_directory import read_directory

MAX_BYTES = 64 << 20  # of one latent's file
PIECE = 1 << 20


class Files(Protocol):
    location: str

    def rows(self, suffix: str, seen: Seen) -> Iterator[ImageRow]:
        """The files whose names end so, as rows without labels, sorted by name. seen: is told of each."""
        ...

    def some(self, suffix: str) -> Iterator[ImageRow]:
        """The same, in the order that costs least."""
        ...

    def read(self, row: ImageRow) -> bytes:
        """Raises OSError where the storage fails, LvaeError where the file is not as it was when listed."""
        ...

    def read_if_there(self, name: str) -> Iterator[bytes] | None:
        """A table, in pieces: it may be larger than memory."""
        ...


class FolderFiles:
    """Of a folder, however deep. Links to folders are not followed."""

    def __init__(self, location: str):
        self.location = location

    def rows(self, suffix: str, seen: Seen) -> Iterator[ImageRow]:
        try:
            for name, found in _walk(Path(self.location), "", suffix):
                seen.add(name, found.st_size, found.st_mtime_ns)
                yield ImageRow(name, name, 0, found.st_size, "", UNLABELLED)
        except OSError as error:
            raise LvaeError(error.filename or self.location, f"cannot be read ({locations.explain(error)})") from error

    def some(self, suffix: str) -> Iterator[ImageRow]:
        return self.rows(suffix, Seen())

    def read(self, row: ImageRow) -> bytes:
        return locations.read_up_to(f"{self.location}/{row.container}", MAX_BYTES)

    def read_if_there(self, name: str) -> Iterator[bytes] | None:
        path = Path(self.location, name)
        if not path.is_file():
            if os.path.lexists(path):
                raise LvaeError(path, "is no file that can be read", "Put the table in its place, or remove it.")
            return None
        return _read_pieces(path, 0, path.stat().st_size)


def _walk(folder: Path, below: str, suffix: str) -> Iterator[tuple[str, os.stat_result]]:
    """Files by path: a folder sorts as its name with a slash, so that whole paths are in order."""

    def names() -> Iterator[tuple[str]]:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if entry.is_dir(follow_symlinks=False):
                    yield (f"{entry.name}/",)
                elif entry.name.lower().endswith(suffix):
                    yield (entry.name,)

    for (name,) in sort_many(names()):
        if name.endswith("/"):
            yield from _walk(folder / name, below + name, suffix)
        elif stat.S_ISREG((found := os.stat(f"{folder}/{name}")).st_mode):  # noqa: PTH116  a Path each is slow
            yield below + name, found


def _read_pieces(path: Path, offset: int, length: int) -> Iterator[bytes]:
    with path.open("rb") as file:
        file.seek(offset)
        while length and (piece := file.read(min(PIECE, length))):
            length -= len(piece)
            yield piece


def refuse_leading_out(name: str, where: str) -> None:
    """LvaeError for a member of an archive that unpacking would put elsewhere."""
    if name.startswith(("/", "\\")) or re.match("[A-Za-z]:", name) or ".." in re.split(r"[/\\]", name):
        raise LvaeError(where, f"{name!r:.100} leads out of it", "Do not use this file.")


class ZipFiles:
    """Of a zip whose members are stored, as edm2 writes them; bytes are read in place."""

    def __init__(self, location: str):
        self.location = location
        self._name = Path(location).name
        self._containers = Containers("", location)

    def rows(self, suffix: str, seen: Seen) -> Iterator[ImageRow]:
        found = locations.status(self.location)
        seen.add(self._name, found.size, found.stamp)
        before = ""
        for key, offset, size in sort_many(self._members(suffix)):
            if key == before:
                raise LvaeError(self.location, f"{key!r:.100} stands twice", "Names must be unique.")
            yield ImageRow(key, self._name, offset, size, "", UNLABELLED)
            before = key

    def some(self, suffix: str) -> Iterator[ImageRow]:
        return (ImageRow(key, self._name, offset, size, "", UNLABELLED) for key, offset, size in self._members(suffix))

    def _members(self, suffix: str) -> Iterator[tuple[str, int, int]]:
        """Name, offset and length of each, in the order of the directory."""
        try:
            with Watched(locations.open_file(self.location)) as file:
                size = locations.size_of(file)
                for info in read_directory(file, size, self.location):
                    if info.filename.lower().endswith(suffix):
                        refuse_leading_out(info.filename, self.location)
                        offset = data_offset(self._containers, info, size, self.location)
                        if offset < 0 or info.flag_bits & 1:
                            problem = f"{info.filename!r:.100} is compressed or encrypted"
                            advice = "edm2 stores them plainly; unpack the zip to a folder."
                            raise LvaeError(self.location, problem, advice)
                        yield info.filename, offset, info.file_size
        except OSError as error:
            raise LvaeError(self.location, f"cannot be read ({locations.explain(error)})") from error
        except DAMAGE as error:
            raise LvaeError(self.location, f"not a whole zip ({error})") from error

    def read(self, row: ImageRow) -> bytes:
        return self._containers.read_at(row.container, row.offset, row.length)

    def read_if_there(self, name: str) -> Iterator[bytes] | None:
        places = [(offset, length) for found, offset, length in self._members(name) if found == name]
        if len(places) > 1:
            raise LvaeError(self.location, f"{name} stands twice", "Names must be unique.")
        return _read_pieces(Path(self.location), *places[0]) if places else None
