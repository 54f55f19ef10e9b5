"""Pictures in a zip. Stored ones are read in place, deflated ones are inflated up to a limit.

Order and classes are those of a folder of the same names (by path component, by Unicode code point); a `dataset.json`
at the top (NVIDIA's layout) takes the classes' place. An image that stands twice is refused, since a key has to be
unique. The directory at the end says what there is; a member's local header only says where its bytes begin.
"""

import stat
import struct
import threading
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import closing

from lvae.encode.files import locations, naming
from lvae.encode.files.left_out import LeftOut, no_images
from lvae.encode.images import ImageRejected, is_image
from lvae.encode.sources.base import Notes
from lvae.encode.sources.labels import NamedLabels, parse_dataset_json
from lvae.encode.sources.reading.links import resolve_links, target_of_link
from lvae.encode.sources.reading.random_access import Containers
from lvae.encode.sources.reading.zip_names import UNIX, member_name, name_of
from lvae.manifests.concurrency import concurrently
from lvae.manifests.errors import LvaeError
from lvae.manifests.parts.rows import UNLABELLED, ImageRow
from lvae.manifests.storage.retry import raise_outage, retry

LOCAL_HEADER = struct.Struct("<4s5H3I2H")  # APPNOTE.TXT, 4.3.7
LOCAL_MAGIC = b"PK\x03\x04"
ENCRYPTED = 0x1  # a flag
LONGEST_PATH = 4096  # of a link
PIECE_BYTES = 1 << 20
MAX_RATIO = 100  # of a list of labels, whose objects take many times its bytes; real ones shrink to a tenth
DAMAGE = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, NotImplementedError, ValueError, KeyError, IndexError)


class ZipSource(Notes):
    """One zip; see the module. `classes` is final once `rows()` is through."""

    kind = "zip"

    def __init__(self, path: str):
        super().__init__()
        self.location = self._path = locations.resolve(path)
        self.classes: tuple[str, ...] | None = None

    def rows(self) -> Iterator[ImageRow]:
        self.begin_again()
        try:
            found = locations.status(self._path)
            self.seen.add(locations.name_of(self._path), found.size, found.stamp)
            with locations.Watched(locations.open_file(self._path)) as file, open_archive(file, self._path) as archive:
                yield from self._rows(archive, locations.size_of(file))
        except OSError as error:
            raise_outage(error)
            raise LvaeError(self._path, f"cannot be read ({locations.explain(error)})") from error
        except (*DAMAGE, MemoryError, UnicodeDecodeError) as error:
            raise LvaeError(self._path, f"not a whole zip ({error})") from error

    def _rows(self, archive: zipfile.ZipFile, size: int) -> Iterator[ImageRow]:
        left_out = LeftOut(self.counts)
        with closing(_Members(self._path, size)) as content:
            members = self._members(archive, content, left_out)
            labels = self._labels(content, members) if self.reads_labels else None
            found = [key for key, info in members.items() if self._is_image(content, key, info, left_out)]
        self._refuse_if_none_opens([members[key] for key in found])
        found.sort(key=lambda key: key.replace("/", "\0"))  # by path component
        if not found:
            raise no_images(self._path, self.counts, left_out.hint)
        if isinstance(labels, naming.ArchiveFolders):
            for key in found:
                labels.add(key)
            labels.warn(self)
        self.classes = labels.classes if labels else None
        offsets = self._offsets((members[key] for key in found), size)
        for key, offset in zip(found, offsets, strict=True):
            info = members[key]
            label = labels.label(key) if labels else UNLABELLED
            naming.count_unlabelled(self.counts, label)
            yield ImageRow(key, locations.name_of(self._path), offset, info.file_size, member_name(info), label)
        if isinstance(labels, NamedLabels):
            labels.finish(found)
        left_out.warn(self, files_beside=True)
        where = "lie in no folder" if isinstance(labels, naming.ArchiveFolders) else f"are not in {naming.DATASET_JSON}"
        naming.warn_of_unlabelled(self, where)

    def _labels(
        self, content: "_Members", members: dict[str, zipfile.ZipInfo]
    ) -> NamedLabels | naming.ArchiveFolders | None:
        if naming.DATASET_JSON not in members:
            return naming.ArchiveFolders()
        where, info = f"{self._path}: {naming.DATASET_JSON}", members[naming.DATASET_JSON]
        if info.file_size > MAX_RATIO * info.compress_size + PIECE_BYTES:
            packed = f"{info.file_size} bytes packed into {info.compress_size}, which lists of labels never are"
            raise LvaeError(where, packed, "Unpack the zip and look at it.")
        try:
            text = content.read(info)
        except ImageRejected as error:
            raise LvaeError(where, str(error.reason)) from error
        labels = parse_dataset_json(text, where)
        return None if labels is None else NamedLabels(labels, where)

    def _members(self, archive: zipfile.ZipFile, content: "_Members", left_out: LeftOut) -> dict[str, zipfile.ZipInfo]:
        """The regular files that are not hidden, and what links stand for, by key; the rest is counted."""
        every: dict[str, zipfile.ZipInfo] = {}
        links: dict[str, str] = {}
        for info in archive.infolist():
            if info.header_offset < 0:
                raise LvaeError(self._path, "not a whole zip (its directory points before its beginning)")
            name = name_of(info)
            key = naming.key_of_member(name)
            if name.endswith("/") or not key:
                continue
            if stat.S_ISLNK(info.external_attr >> 16) and info.create_system == UNIX:
                links[key] = self._target(content, key, info)
            elif key in every and (naming.is_image_name(key) is not False or key == naming.DATASET_JSON):
                raise LvaeError(self._path, f"{key!r} stands twice", "Names must be unique.")
            else:
                if key in every:
                    left_out.add(key)
                every[key] = info
        for key in [key for key in (*every, *links) if any(map(naming.is_hidden, key.split("/")))]:
            left_out.add(key, naming.HIDDEN)
        if links:
            shown = {key: target for key, target in links.items() if not any(map(naming.is_hidden, key.split("/")))}
            for key, info in list(resolve_links(self._path, shown, list(every.items()), left_out)):
                if key in every:
                    raise LvaeError(self._path, f"{key!r} stands twice", "Names must be unique.")
                every[key] = info
        return {key: info for key, info in every.items() if not any(map(naming.is_hidden, key.split("/")))}

    def _target(self, content: "_Members", key: str, info: zipfile.ZipInfo) -> str:
        try:
            text = content.read(info).decode() if info.file_size <= LONGEST_PATH else ""
        except (ImageRejected, UnicodeDecodeError):
            return ""
        return target_of_link(key, text) if text else ""

    def _is_image(self, content: "_Members", key: str, info: zipfile.ZipInfo, left_out: LeftOut) -> bool:
        by_name = naming.is_image_name(key)
        if by_name is None:
            try:
                by_name = is_image(content.read(info, naming.MAGIC_BYTES))
            except ImageRejected:
                by_name = False
        if not by_name and key != naming.DATASET_JSON:
            left_out.add(key)
        return by_name

    def _refuse_if_none_opens(self, infos: list[zipfile.ZipInfo]) -> None:
        """One odd member is rejected when it is read; a zip of nothing else is refused."""
        if infos and all(map(_why_closed, infos)):
            advice = "Unpack the zip with its password." if infos[0].flag_bits & ENCRYPTED else "Unpack the zip."
            raise LvaeError(self._path, f"{name_of(infos[0])} is {_why_closed(infos[0])}", advice)

    def _offsets(self, members: Iterator[zipfile.ZipInfo], size: int) -> Iterator[int]:
        """Where the stored ones' bytes begin; -1 for the others, and for damaged ones, which are rejected later."""
        containers = Containers("", self._path)

        def offset(info: zipfile.ZipInfo) -> int:
            try:
                return -1 if _why_closed(info) else data_offset(containers, info, size, self._path)
            except DamagedMemberError:
                return -1

        yield from concurrently(offset, members) if locations.is_url(self._path) else map(offset, members)
        containers.close()


def _why_closed(info: zipfile.ZipInfo) -> str:
    """Why a member cannot be opened, in words that follow "is"; "" where it can."""
    if info.flag_bits & ENCRYPTED:
        return "encrypted"
    known = info.compress_type in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
    return "" if known else f"neither stored nor deflated (method {info.compress_type})"


def open_archive(file: locations.Watched, path: str) -> zipfile.ZipFile:
    """Raises LvaeError for what is not a whole zip, and the storage's OSErrors, which zipfile hides."""
    try:
        return zipfile.ZipFile(file)
    except (*DAMAGE, MemoryError, UnicodeDecodeError) as error:
        file.raise_fault()
        raise LvaeError(path, f"not a whole zip ({error})") from error


class DamagedMemberError(LvaeError):
    """One member of a zip whose bytes cannot be found."""


def data_offset(containers: Containers, info: zipfile.ZipInfo, size: int, path: str) -> int:
    """Where a stored member's bytes begin; -1 for others."""
    begin = begin_of(containers, info, size, path)
    if info.compress_type == zipfile.ZIP_STORED and info.compress_size != info.file_size:
        raise DamagedMemberError(f"{path}: {info.filename!r}", "damaged, its directory gives it two lengths")
    return begin if info.compress_type == zipfile.ZIP_STORED else -1


def begin_of(containers: Containers, info: zipfile.ZipInfo, size: int, path: str) -> int:
    """Where a member's bytes begin, by its local header."""
    where = f"{path}: {info.filename!r}"
    header = b""
    if 0 <= info.header_offset <= size - LOCAL_HEADER.size:
        header = retry(lambda: containers.read_at(path, info.header_offset, LOCAL_HEADER.size), where=path)
    if header[:4] != LOCAL_MAGIC:
        raise DamagedMemberError(where, f"damaged, no header at byte {info.header_offset}")
    *_, name_length, extra_length = LOCAL_HEADER.unpack(header)
    begin: int = info.header_offset + LOCAL_HEADER.size + name_length + extra_length
    if begin + info.compress_size > size:
        raise DamagedMemberError(where, "damaged, it goes on after the end of the file")
    return begin


class _Members:
    """Bytes of a zip's members, inflated and checked by their CRC. Any number of threads may read."""

    def __init__(self, path: str, size: int):
        self._path, self._size = path, size
        self._containers = Containers("", path)

    def read(self, info: zipfile.ZipInfo, limit: int | None = None) -> bytes:
        """All bytes, or the first few. What the directory promises is a limit, never a buffer to fill.

        Raises ImageRejected where the member is at fault.
        """
        if info.file_size > naming.MAX_MEMBER_BYTES:
            raise ImageRejected(f"a file of more than {naming.MAX_MEMBER_BYTES >> 20} MiB")
        if why := _why_closed(info):
            raise ImageRejected(f"{why} in its zip")
        wanted = info.file_size if limit is None else min(limit, info.file_size)
        try:
            begin = begin_of(self._containers, info, self._size, self._path)
            data = b"".join(self._inflate(info, begin, wanted))
        except (zlib.error, DamagedMemberError) as error:
            raise ImageRejected("damaged in its zip") from error
        if limit is not None:
            return data[:wanted]
        if len(data) != info.file_size or zlib.crc32(data) != info.CRC:
            raise ImageRejected("damaged in its zip")
        return data

    def _inflate(self, info: zipfile.ZipInfo, begin: int, wanted: int) -> Iterator[bytes]:
        """At most one byte more than is wanted."""
        inflater = zlib.decompressobj(-zlib.MAX_WBITS) if info.compress_type == zipfile.ZIP_DEFLATED else None
        left = wanted + 1
        for offset in range(0, info.compress_size, PIECE_BYTES):
            length = min(PIECE_BYTES, info.compress_size - offset)
            piece = self._containers.read_at(self._path, begin + offset, length)
            piece = piece[:left] if inflater is None else inflater.decompress(piece, left)
            left -= len(piece)
            yield piece
            if not left:
                return

    def close(self) -> None:
        self._containers.close()


class ZipReader:
    """Reads what a ZipSource listed. A deflated member costs each process one reading of the zip's directory."""

    def __init__(self, location: str):
        self.location = location
        self._containers = Containers("", locations.resolve(location))
        self._lock = threading.Lock()
        self._directory: tuple[dict[str, zipfile.ZipInfo], _Members] | None = None

    def __reduce__(self) -> tuple[type["ZipReader"], tuple[str]]:
        return type(self), (self.location,)

    def read(self, row: ImageRow) -> bytes:
        """As Containers.read; raises ImageRejected where a member is damaged, but the zip is not."""
        if row.offset >= 0:
            return self._containers.read(row)
        infos, members = self._read_directory()
        info = infos.get(row.member)
        if info is None or info.file_size != row.length:
            raise LvaeError(row.container, f"{row.member!r} is not as it was when listed", "Scan the source again.")
        return members.read(info)

    def close(self) -> None:
        self._containers.close()
        with self._lock:
            if self._directory is not None:
                self._directory[1].close()
            self._directory = None

    def _read_directory(self) -> tuple[dict[str, zipfile.ZipInfo], _Members]:
        with self._lock:
            if self._directory is None:
                path = locations.resolve(self.location)
                with locations.Watched(locations.open_file(path)) as file, open_archive(file, path) as archive:
                    infos = {member_name(info): info for info in archive.infolist()}
                    self._directory = infos, _Members(path, locations.size_of(file))
            return self._directory
