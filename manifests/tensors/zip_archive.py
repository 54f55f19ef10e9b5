"""Zip files of weights, mapped: members are found by the archive's directory and read in place, each checked once."""

import shutil
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from typing import IO

from lvae.manifests.errors import LvaeError
from lvae.manifests.tensors.memory_file import MemoryFile, ReadTooLongError, map_file

MAX_DIRECTORY_BYTES = 8 << 20  # some 100 bytes a tensor
MAX_RATIO = 200  # weights hardly shrink when compressed; what shrinks more was made to fill a disk
CHUNK_BYTES = 1 << 20
SLACK_BYTES = 64 << 20
ENCRYPTED = 0x1
DAMAGES = (
    zipfile.BadZipFile,
    zipfile.LargeZipFile,
    ValueError,
    NotImplementedError,
    OverflowError,
    struct.error,
    zlib.error,
    EOFError,
    RuntimeError,
    KeyError,
    ReadTooLongError,
    OSError,
)


class Archive:
    """A zip file in memory or mapped. Errors are LvaeErrors that begin with `source`."""

    def __init__(self, data: memoryview, source: str):
        self._data, self._source = data, source
        self._mapped: dict[str, memoryview] = {}
        self._room = 4 * len(data) + SLACK_BYTES  # for what has to be unpacked into memory
        self._file = MemoryFile(data, MAX_DIRECTORY_BYTES)
        try:
            self._zip = zipfile.ZipFile(self._file)
        except ReadTooLongError:
            raise LvaeError(source, "a zip file with a directory too large for weights", "Not loaded.") from None
        except DAMAGES:
            what = f"an incomplete download or damaged ({len(data)} bytes: a zip file without the directory at its end)"
            raise LvaeError(source, what, "Fetch it again.") from None
        infos = [info for info in self._zip.infolist() if not info.filename.endswith("/")]
        self._members = {info.filename: info for info in infos}
        if len(self._members) != len(infos):
            raise LvaeError(source, "a zip file with two members of one name", "Not loaded.")

    def names(self) -> list[str]:
        return sorted(self._members)

    def get(self, name: str, limit: int) -> bytes | None:
        """A small member's bytes, or None where there is no such member."""
        info = self._members.get(name)
        if info is None:
            return None
        if info.file_size > limit:
            raise LvaeError(self._source, f"{info.file_size} bytes where at most {limit} can be right", "Not loaded.")
        return bytes(self._stored(info)) if _is_stored(info) else b"".join(self._pieces(info))

    def map(self, name: str, most: int) -> memoryview | None:
        """A member's bytes without a copy where it is stored as it is; at most `most` bytes are needed."""
        info = self._members.get(name)
        if info is None:
            return None
        if name not in self._mapped:
            if _is_stored(info):
                numbers = self._stored(info)
            else:
                self._room -= info.file_size
                if info.file_size > most or self._room < 0:
                    raise self._damaged()
                numbers = memoryview(bytearray().join(self._pieces(info)))
            self._mapped[name] = numbers
        return self._mapped[name]

    def unpack(self, name: str) -> memoryview:
        """A large member: in place where it is stored as it is, otherwise mapped from a file without a name."""
        info = self._members[name]
        if _is_stored(info):
            return self._stored(info, checks=False)
        folder = tempfile.gettempdir()
        free = shutil.disk_usage(folder).free
        if info.file_size > free:
            raise LvaeError(
                self._source,
                f"{info.file_size} bytes when unpacked, but {folder} has room for {free}",
                "Make room, set TMPDIR, or unpack it yourself and give the file inside.",
            )
        with tempfile.TemporaryFile() as file:
            for piece in self._pieces(info):
                file.write(piece)
            file.flush()
            return map_file(file) if info.file_size else memoryview(b"")

    def _stored(self, info: zipfile.ZipInfo, checks: bool = True) -> memoryview:
        """The bytes of a member that is stored as it is, where they stand. torch may leave checksums out, as zeros."""
        with self._open(info):
            start = self._file.tell()  # zipfile has read the member's own header, and stands behind it
        numbers = self._data[start : start + info.file_size]
        if info.compress_size != info.file_size or len(numbers) != info.file_size:
            raise self._damaged()
        if checks and info.CRC not in (0, zlib.crc32(numbers)):
            raise self._damaged()
        return numbers

    def _pieces(self, info: zipfile.ZipInfo) -> Iterator[bytes]:
        """The bytes, unpacked and checked: no more than the directory promises, no fewer."""
        count = 0
        try:
            with self._open(info) as member:
                while piece := member.read(CHUNK_BYTES):
                    count += len(piece)
                    yield piece
        except DAMAGES:
            raise self._damaged() from None
        if count != info.file_size:
            raise self._damaged()

    def _open(self, info: zipfile.ZipInfo) -> IO[bytes]:
        if info.flag_bits & ENCRYPTED or info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise LvaeError(self._source, "encrypted or packed in a rare way", "Unpack it and give the file inside.")
        if info.file_size > MAX_RATIO * info.compress_size + CHUNK_BYTES:
            packed = f"{info.file_size} bytes packed into {info.compress_size}, which weights never are"
            raise LvaeError(self._source, packed, "Not loaded.")
        try:
            return self._zip.open(info)
        except DAMAGES:
            raise self._damaged() from None

    def _damaged(self) -> LvaeError:
        return LvaeError(
            self._source, f"damaged ({len(self._data)} bytes, checksums or sizes differ)", "Fetch it again."
        )


def _is_stored(info: zipfile.ZipInfo) -> bool:
    return info.compress_type == zipfile.ZIP_STORED
