"""The files of a cache: in a folder, or stored in a zip. Named by their paths, in the order of those."""

import itertools
import os
import stat
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from lvae.encode.files import locations
from lvae.encode.sources.reading.random_access import Containers
from lvae.encode.sources.zip import DAMAGE, data_offset, open_archive
from lvae.manifests.errors import LvaeError
from lvae.manifests.parts.rows import UNLABELLED, ImageRow

MAX_BYTES = 64 << 20  # of one latent's file
MAX_TABLE = 1 << 30  # of a table of labels


class Files(Protocol):
    location: str

    def rows(self, suffix: str) -> list[ImageRow]:
        """The files whose names end so, as rows without labels, sorted by name."""
        ...

    def read(self, row: ImageRow) -> bytes:
        """Raises OSError where the storage fails, LvaeError where the file is not as it was when listed."""
        ...

    def read_if_there(self, name: str) -> bytes | None: ...


class FolderFiles:
    """Of a folder, however deep. Links to folders are not followed."""

    def __init__(self, location: str):
        self.location = location

    def rows(self, suffix: str) -> list[ImageRow]:
        found = [
            ImageRow(name, name, 0, size, "", UNLABELLED)
            for name, size in _walk(Path(self.location), "")
            if name.lower().endswith(suffix)
        ]
        found.sort()
        return found

    def read(self, row: ImageRow) -> bytes:
        return locations.read_up_to(f"{self.location}/{row.container}", MAX_BYTES)

    def read_if_there(self, name: str) -> bytes | None:
        path = f"{self.location}/{name}"
        return locations.read_up_to(path, MAX_TABLE) if Path(path).is_file() else None


def _walk(folder: Path, below: str) -> Iterator[tuple[str, int]]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_dir(follow_symlinks=False):
                yield from _walk(Path(entry.path), f"{below}{entry.name}/")
            elif stat.S_ISREG((found := entry.stat()).st_mode):
                yield below + entry.name, found.st_size


class ZipFiles:
    """Of a zip whose members are stored, as edm2 writes them; bytes are read in place."""

    def __init__(self, location: str):
        self.location = location
        self._name = Path(location).name
        self._containers = Containers("", location)

    def rows(self, suffix: str) -> list[ImageRow]:
        try:
            with locations.Watched(locations.open_file(self.location)) as file:
                size = locations.size_of(file)
                with open_archive(file, self.location) as archive:
                    return self._rows(archive, size, suffix)
        except OSError as error:
            raise LvaeError(self.location, f"cannot be read ({locations.explain(error)})") from error
        except DAMAGE as error:
            raise LvaeError(self.location, f"not a whole zip ({error})") from error

    def _rows(self, archive: zipfile.ZipFile, size: int, suffix: str) -> list[ImageRow]:
        found = []
        for info in archive.infolist():
            if info.filename.lower().endswith(suffix):
                offset = data_offset(self._containers, info, size, self.location)
                if offset < 0 or info.flag_bits & 1:
                    problem = f"{info.filename!r:.100} is compressed or encrypted"
                    raise LvaeError(self.location, problem, "edm2 stores them plainly; unpack the zip to a folder.")
                found.append(ImageRow(info.filename, self._name, offset, info.file_size, "", UNLABELLED))
        found.sort()
        for one, next_one in itertools.pairwise(found):
            if one.key == next_one.key:
                raise LvaeError(self.location, f"{one.key!r:.100} stands twice", "Names must be unique.")
        return found

    def read(self, row: ImageRow) -> bytes:
        return self._containers.read_at(row.container, row.offset, row.length)

    def read_if_there(self, name: str) -> bytes | None:
        found = [row for row in self.rows(name) if row.key == name]
        return self._containers.read_at(self._name, found[0].offset, found[0].length) if found else None
