"""Pictures in a zip. Stored ones are read in place, deflated ones are inflated up to a limit.

Order and classes are those of a folder of the same names (by path component, by Unicode code point); a `dataset.json`
at the top (NVIDIA's layout) takes the classes' place. Names that stand twice are refused, since a key has to be unique.
"""

import contextlib
import os
import stat
import struct
import threading
import zipfile
import zlib
from collections.abc import Iterator

from lvae.encode.files import locations as places
from lvae.encode.images import ImageRejected, is_image
from lvae.encode.sources import naming as names
from lvae.encode.sources.base import Notes
from lvae.encode.sources.labels import NamedLabels, parse_dataset_json
from lvae.encode.sources.random_access import Containers
from lvae.manifests.concurrency import concurrently
from lvae.manifests.errors import LvaeError
from lvae.manifests.parts.rows import UNLABELLED, ImageRow
from lvae.manifests.storage.retry import retry

LOCAL_HEADER = struct.Struct("<4s5H3I2H")  # APPNOTE.TXT, 4.3.7
LOCAL_MAGIC = b"PK\x03\x04"
ENCRYPTED, UTF8 = 0x1, 0x800
UNIX = 3
PIECE_BYTES = 1 << 20
DAMAGE = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, NotImplementedError, ValueError, KeyError, IndexError)


class ZipSource(Notes):
    """One zip; see the module. `classes` is final once `rows()` is through."""

    kind = "zip"

    def __init__(self, path: str):
        super().__init__()
        self.location = self._path = places.resolved(path)
        self.classes: tuple[str, ...] | None = None

    def rows(self) -> Iterator[ImageRow]:
        self.begin_again()
        try:
            found = places.status(self._path)
            self.seen.add(places.name_of(self._path), found.size, found.stamp)
            with places.Watched(places.open_file(self._path)) as file, open_archive(file, self._path) as archive:
                yield from self._rows(archive, places.size_of(file))
        except OSError as error:
            raise LvaeError(self._path, f"cannot be read ({places.why(error)})") from error
        except (*DAMAGE, MemoryError, UnicodeDecodeError) as error:
            raise LvaeError(self._path, f"not a whole zip ({error})") from error

    def _rows(self, archive: zipfile.ZipFile, size: int) -> Iterator[ImageRow]:
        members = self._members(archive)
        labels = self._labels(archive, members)
        found = [key for key, info in members.items() if self._is_image(archive, key, info)]
        found.sort(key=lambda key: key.replace("/", "\0"))  # by path component
        if not found:
            raise names.no_images(self._path, self.counts)
        if isinstance(labels, names.ArchiveFolders):
            for key in found:
                labels.add(key)
            for remark in labels.remarks:
                self.warn("folders", remark)
        self.classes = labels.classes if labels else None
        offsets = self._offsets((members[key] for key in found), size)
        for key, offset in zip(found, offsets, strict=True):
            info = members[key]
            label = labels.label(key) if labels else UNLABELLED
            names.count_unlabelled(self.counts, label)
            yield ImageRow(key, places.name_of(self._path), offset, info.file_size, info.filename, label)
        if isinstance(labels, NamedLabels):
            labels.finish(found)
        where = "lie in no folder" if isinstance(labels, names.ArchiveFolders) else f"are not in {names.DATASET_JSON}"
        names.warn_of_unlabelled(self, where)

    def _labels(
        self, archive: zipfile.ZipFile, members: dict[str, zipfile.ZipInfo]
    ) -> NamedLabels | names.ArchiveFolders | None:
        if names.DATASET_JSON not in members:
            return names.ArchiveFolders()
        where = f"{self._path}: {names.DATASET_JSON}"
        try:
            text = _inflated(archive, members[names.DATASET_JSON])
        except ImageRejected as error:
            raise LvaeError(where, str(error.reason)) from error
        labels = parse_dataset_json(text, where)
        return None if labels is None else NamedLabels(labels, where)

    def _members(self, archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
        """The regular files that are not hidden, by key; the rest is counted."""
        members: dict[str, zipfile.ZipInfo] = {}
        for info in archive.infolist():
            name = name_of(info)
            key = names.key_of_member(name)
            if name.endswith("/") or not key:
                continue
            if any(map(names.is_hidden, key.split("/"))):
                self.count(names.HIDDEN)
            elif stat.S_ISLNK(info.external_attr >> 16):
                self.count(names.LINKS)
            elif key in members:
                raise LvaeError(self._path, f"{key!r} stands twice", "Names must be unique.")
            else:
                members[key] = info
        return members

    def _is_image(self, archive: zipfile.ZipFile, key: str, info: zipfile.ZipInfo) -> bool:
        by_name = names.is_image_name(key)
        if by_name is not False:
            if info.flag_bits & ENCRYPTED:
                raise LvaeError(self._path, f"{key} is encrypted", "Unpack the zip with its password.")
            if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise LvaeError(
                    self._path,
                    f"{key} is neither stored nor deflated (method {info.compress_type})",
                    "Unpack the zip.",
                )
        if by_name is None:
            with archive.open(info) as member:
                by_name = is_image(member.read(names.MAGIC_BYTES))
        if not by_name and key != names.DATASET_JSON:
            self.count(names.NOT_IMAGES)
        return by_name

    def _offsets(self, members: Iterator[zipfile.ZipInfo], size: int) -> Iterator[int]:
        """Where the stored ones' bytes begin; -1 for the others."""
        containers = Containers("", self._path)

        def offset(info: zipfile.ZipInfo) -> int:
            return data_offset(containers, info, size, self._path)

        yield from concurrently(offset, members) if places.is_url(self._path) else map(offset, members)
        containers.close()


def name_of(info: zipfile.ZipInfo) -> str:
    """A member's name: Info-ZIP on Unix writes UTF-8 without saying so, some writers on Windows use backslashes."""
    name = info.filename
    if not info.flag_bits & UTF8 and info.create_system == UNIX and not name.isascii():
        with contextlib.suppress(UnicodeError):  # it is in the old code page, then
            name = name.encode("cp437").decode()
    return name if "/" in name else name.replace("\\", "/")


def open_archive(file: places.Watched, path: str) -> zipfile.ZipFile:
    """Raises LvaeError for what is not a whole zip, and the storage's OSErrors, which zipfile hides."""
    try:
        return zipfile.ZipFile(file)
    except (*DAMAGE, MemoryError, UnicodeDecodeError) as error:
        file.raise_fault()
        raise LvaeError(path, f"not a whole zip ({error})") from error


def data_offset(containers: Containers, info: zipfile.ZipInfo, size: int, path: str) -> int:
    """Where a stored member's bytes begin, or -1; its local header has to agree with the directory."""
    where = f"{path}: {info.filename!r}"
    name_bytes = len(info.orig_filename.encode("utf-8", "surrogatepass"))
    length = min(LOCAL_HEADER.size + name_bytes, size - info.header_offset)
    header = b""
    if info.header_offset >= 0 and length >= LOCAL_HEADER.size:
        header = retry(lambda: containers.read_at(path, info.header_offset, length), where=path)
    if header[:4] != LOCAL_MAGIC:
        raise LvaeError(where, f"damaged, no header at byte {info.header_offset}")
    _, _, flags, method, *_, name_length, extra_length = LOCAL_HEADER.unpack(header[: LOCAL_HEADER.size])
    name = header[LOCAL_HEADER.size :][:name_length].decode("utf-8" if flags & UTF8 else "cp437", "replace")
    offset: int = info.header_offset + LOCAL_HEADER.size + name_length + extra_length
    stored = method == zipfile.ZIP_STORED
    if name != info.orig_filename or method != info.compress_type or (stored and info.compress_size != info.file_size):
        raise LvaeError(where, f"damaged, its header at byte {info.header_offset} says something else")
    if offset + info.compress_size > size:
        raise LvaeError(where, "damaged, it goes on after the end of the file")
    return offset if stored else -1


class ZipReader:
    """Reads what a ZipSource listed. A deflated member costs each process one reading of the zip's directory."""

    def __init__(self, location: str):
        self.location = location
        self._containers = Containers("", places.resolved(location))
        self._lock = threading.Lock()
        self._archives: dict[
            int, tuple[zipfile.ZipFile, places.Watched]
        ] = {}  # by process: a fork would share the position

    def __reduce__(self) -> tuple[type["ZipReader"], tuple[str]]:
        return type(self), (self.location,)

    def read(self, row: ImageRow) -> bytes:
        """As Containers.read; raises ImageRejected where a member is damaged, but the zip is not."""
        if row.offset >= 0:
            return self._containers.read(row)
        archive = self._archive()
        try:
            info = archive.getinfo(row.member)
        except KeyError:
            info = None
        if info is None or info.file_size != row.length:
            raise LvaeError(row.container, f"{row.member!r} is not as it was when listed", "Scan the source again.")
        return _inflated(archive, info)

    def close(self) -> None:
        self._containers.close()
        with self._lock:
            for archive, file in self._archives.values():
                archive.close()
                file.close()
            self._archives.clear()

    def _archive(self) -> zipfile.ZipFile:
        with self._lock:
            if os.getpid() not in self._archives:
                file = places.Watched(places.open_file(self.location))
                self._archives[os.getpid()] = open_archive(file, self.location), file
            return self._archives[os.getpid()][0]


def _inflated(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    """A member's bytes, checked by its CRC. What the directory promises is a limit, never a buffer to fill."""
    if info.file_size > names.MAX_MEMBER_BYTES:
        raise ImageRejected(f"a file of more than {names.MAX_MEMBER_BYTES >> 20} MiB")
    data = bytearray()
    try:
        with archive.open(info) as member:
            while piece := member.read(PIECE_BYTES):
                data += piece
    except (*DAMAGE, RuntimeError) as error:  # RuntimeError: encrypted
        raise ImageRejected("damaged in its zip") from error
    if len(data) != info.file_size:
        raise ImageRejected("damaged in its zip")
    return bytes(data)
