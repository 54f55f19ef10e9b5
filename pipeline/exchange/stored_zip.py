"""A zip of stored members, written forwards; its directory waits on the disk, however many members there are."""

import shutil
import struct
import tempfile
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Self

LOCAL = struct.Struct("<4s5H3I2H")  # APPNOTE.TXT, 4.3.7
CENTRAL = struct.Struct("<4s6H3I5H2I")  # 4.3.12
LENGTHS = struct.Struct("<2H2Q")  # 4.5.3: in the local header, of a member whose length is not known beforehand
END64 = struct.Struct("<4sQ2H2I4Q")  # 4.3.14
LOCATOR = struct.Struct("<4sIQI")  # 4.3.15
END = struct.Struct("<4s4H2IH")  # 4.3.16
VERSION, DAY = 45, (0, 33)  # of a reader that knows zip64; 1980-01-01, midnight
MOST = 0xFFFFFFFF


class StoredZip:
    """A context; `add` members, whose names are plain ASCII and never twice the same.

    Those of `add` are below 4 GiB.
    """

    def __init__(self, path: Path):
        self._path = path
        self._directory: IO[bytes] = tempfile.TemporaryFile(dir=path.parent)  # noqa: SIM115  closed in __exit__
        self._file = path.open("xb")
        self._position = self._count = 0

    def __enter__(self) -> Self:
        return self

    def add(self, name: str, data: bytes) -> None:
        text, checksum, size = name.encode("ascii"), zlib.crc32(data), len(data)
        self._file.write(LOCAL.pack(b"PK\3\4", VERSION, 0, 0, *DAY, checksum, size, size, len(text), 0))
        self._file.write(text)
        self._file.write(data)
        self._list(text, checksum, size)
        self._position += LOCAL.size + len(text) + size

    def add_pieces(self, name: str, pieces: Iterable[bytes]) -> None:
        """A member of any length; its header is completed when that is known."""
        text, checksum, size = name.encode("ascii"), 0, 0
        begin = self._position + LOCAL.size + len(text) + LENGTHS.size
        self._file.seek(begin)
        for piece in pieces:
            checksum, size = zlib.crc32(piece, checksum), size + len(piece)
            self._file.write(piece)
        self._file.seek(self._position)
        lengths = (checksum, MOST, MOST, len(text), LENGTHS.size)
        self._file.write(LOCAL.pack(b"PK\3\4", VERSION, 0, 0, *DAY, *lengths))
        self._file.write(text + LENGTHS.pack(1, 16, size, size))
        self._file.seek(begin + size)
        self._list(text, checksum, size)
        self._position = begin + size

    def _list(self, text: bytes, checksum: int, size: int) -> None:
        """A member in the directory. 4.5.3: numbers that do not fit into 32 bits stand behind it, in this order."""
        numbers = (size, size, self._position)
        wide = [number for number in numbers if number >= MOST]
        extra = struct.pack(f"<2H{len(wide)}Q", 1, 8 * len(wide), *wide) if wide else b""
        packed, plain, place = (min(number, MOST) for number in numbers)
        lengths = (checksum, packed, plain, len(text), len(extra))
        self._directory.write(CENTRAL.pack(b"PK\1\2", VERSION, VERSION, 0, 0, *DAY, *lengths, 0, 0, 0, 0, place))
        self._directory.write(text + extra)
        self._count += 1

    def finish(self) -> None:
        """Write the directory. Without this the file is no zip."""
        size, begin = self._directory.tell(), self._position
        self._directory.seek(0)
        shutil.copyfileobj(self._directory, self._file, 1 << 20)
        counts = (self._count, self._count)
        self._file.write(END64.pack(b"PK\6\6", END64.size - 12, VERSION, VERSION, 0, 0, *counts, size, begin))
        self._file.write(LOCATOR.pack(b"PK\6\7", 0, begin + size, 1))
        self._file.write(END.pack(b"PK\5\6", 0, 0, 0xFFFF, 0xFFFF, MOST, MOST, 0))

    def __exit__(self, *_: object) -> None:
        self._directory.close()
        self._file.close()
