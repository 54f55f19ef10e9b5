"""Zip files of weights, mapped: members are found by the archive's directory and read in place, each checked once."""

import io
import mmap
import shutil
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from typing import IO, Any

from lvae.manifests.errors import LvaeError

MAX_DIRECTORY_BYTES = 8 << 20  # some 100 bytes a tensor
MAX_RATIO = 200  # weights hardly shrink when compressed; what shrinks more was made to fill a disk
CHUNK_BYTES = 1 << 20
SLACK_BYTES = 64 << 20
LOCAL_HEADER = struct.Struct("<4s22xHH")  # signature, lengths of name and extra field
DAMAGES = (
    zipfile.BadZipFile,
    zipfile.LargeZipFile,
    ValueError,
    NotImplementedError,
    OverflowError,
    struct.error,
    OSError,
)


def map_file(file: IO[bytes]) -> memoryview:
    """The whole file; private and writable, as torch wants memory to be, so nothing reaches the file."""
    return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY))


class Archive:
    """A zip file in memory or mapped. Errors are LvaeErrors that begin with `source`."""

    def __init__(self, data: memoryview, source: str):
        self._data, self._source = data, source
        self._mapped: dict[str, memoryview] = {}
        self._room = 4 * len(data) + SLACK_BYTES  # for what has to be unpacked into memory
        try:
            with zipfile.ZipFile(_File(data)) as file:
                infos = [info for info in file.infolist() if not info.filename.endswith("/")]
        except _DirectoryTooLargeError:
            raise LvaeError(source, "a zip file with a directory too large for weights", "Not loaded.") from None
        except DAMAGES:
            raise LvaeError(
                source,
                (f"an incomplete download or damaged ({len(data)} bytes: a zip file without the directory at its end)"),
                "Fetch it again.",
            ) from None
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
        return b"".join(self._pieces(info))

    def map(self, name: str, most: int) -> memoryview | None:
        """A member's bytes without a copy where it is stored as it is; at most `most` bytes are needed."""
        info = self._members.get(name)
        if info is None:
            return None
        if name not in self._mapped:
            if info.compress_type == zipfile.ZIP_STORED:
                numbers = self._raw(info)
                self._check(info, zlib.crc32(numbers))
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
        if info.compress_type == zipfile.ZIP_STORED:
            return self._raw(info)
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

    def _pieces(self, info: zipfile.ZipInfo) -> Iterator[bytes]:
        """The bytes, unpacked and checked: no more than the directory promises, no fewer."""
        raw = self._raw(info)
        checksum, count = 0, 0
        for piece in [bytes(raw)] if info.compress_type == zipfile.ZIP_STORED else self._inflated(raw):
            checksum, count = zlib.crc32(piece, checksum), count + len(piece)
            if count > info.file_size:
                raise self._damaged()
            yield piece
        if count != info.file_size:
            raise self._damaged()
        self._check(info, checksum)

    def _inflated(self, raw: memoryview) -> Iterator[bytes]:
        inflate = zlib.decompressobj(-zlib.MAX_WBITS)
        try:
            for start in range(0, len(raw), CHUNK_BYTES):
                waiting: bytes | memoryview = raw[start : start + CHUNK_BYTES]
                while waiting:
                    yield inflate.decompress(waiting, CHUNK_BYTES)
                    waiting = inflate.unconsumed_tail
            yield inflate.flush(CHUNK_BYTES)
        except zlib.error:
            raise self._damaged() from None

    def _raw(self, info: zipfile.ZipInfo) -> memoryview:
        """The bytes as they stand in the archive."""
        if info.flag_bits & 1 or info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise LvaeError(self._source, "encrypted or packed in a rare way", "Unpack it and give the file inside.")
        if info.file_size > MAX_RATIO * info.compress_size + CHUNK_BYTES:
            raise LvaeError(
                self._source,
                f"{info.file_size} bytes packed into {info.compress_size}, which weights never are",
                "Not loaded.",
            )
        header = self._data[info.header_offset : info.header_offset + LOCAL_HEADER.size]
        if info.header_offset < 0 or len(header) < LOCAL_HEADER.size:
            raise self._damaged()
        signature, name_bytes, extra_bytes = LOCAL_HEADER.unpack(header)
        start = info.header_offset + LOCAL_HEADER.size + name_bytes + extra_bytes
        raw = self._data[start : start + info.compress_size]
        stored_wrong = info.compress_type == zipfile.ZIP_STORED and info.compress_size != info.file_size
        if signature != b"PK\x03\x04" or len(raw) != info.compress_size or stored_wrong:
            raise self._damaged()
        return raw

    def _check(self, info: zipfile.ZipInfo, checksum: int) -> None:
        """torch can be told to leave checksums out; it writes zeros then."""
        if info.CRC not in (0, checksum):
            raise self._damaged()

    def _damaged(self) -> LvaeError:
        return LvaeError(
            self._source, f"damaged ({len(self._data)} bytes, checksums or sizes differ)", "Fetch it again."
        )


class _DirectoryTooLargeError(Exception):
    pass


class _File(io.RawIOBase):
    """What zipfile needs of a file. It reads the whole directory at once, so a read's size is limited."""

    def __init__(self, data: memoryview):
        super().__init__()
        self._data, self._position = data, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        position = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: len(self._data)}[whence]
        if position < 0:
            raise OSError("before the beginning")
        self._position = position
        return position

    def read(self, size: int | None = -1) -> bytes:
        if size is None or size < 0:
            size = max(0, len(self._data) - self._position)
        if size > MAX_DIRECTORY_BYTES:
            raise _DirectoryTooLargeError
        piece = bytes(self._data[self._position : self._position + size])
        self._position += len(piece)
        return piece

    def readinto(self, buffer: Any) -> int:
        piece = self.read(len(buffer))
        buffer[: len(piece)] = piece
        return len(piece)
