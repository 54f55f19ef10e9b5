"""The directory of a zip, read forwards: its members one by one, however many there are (APPNOTE.TXT, 4.3)."""

import struct
import zipfile
from collections.abc import Iterator
from typing import IO

from lvae.encode.files.locations import Watched
from lvae.encode.sources.reading.zip_names import UTF8, name_of, unicode_path
from lvae.manifests.errors import LvaeError

END = struct.Struct("<4s4H2IH")  # 4.3.16
END_BYTES = END.size + (1 << 16)  # with the longest comment
LOCATOR = struct.Struct("<4sIQI")  # 4.3.15
END64 = struct.Struct("<4sQ2H2I4Q")  # 4.3.14
ENTRY = struct.Struct("<4s4B4H3I5H2I")  # 4.3.12
PIECE = 1 << 20
FULL = 0xFFFFFFFF


def read_directory(file: IO[bytes] | Watched, size: int, where: str) -> Iterator[zipfile.ZipInfo]:
    """Every member with its name, method, flags, lengths and place. LvaeError where the zip is not whole."""
    begin, length, moved = _find(file, size, where)
    file.seek(begin)
    data, at = b"", 0
    while True:
        taken = _entry(data, at, where, moved)
        if taken is not None:
            info, at = taken
            yield info
            continue
        piece = file.read(min(PIECE, length))
        if not piece:
            break
        length -= len(piece)
        data, at = data[at:] + piece, 0
    if length or at < len(data):
        raise _torn(where, "its directory ends too early")


def _find(file: IO[bytes] | Watched, size: int, where: str) -> tuple[int, int, int]:
    """Where the directory begins, how long it is, and how far all is behind where it says it is."""
    tail_begin = max(0, size - END_BYTES)
    file.seek(tail_begin)
    tail = file.read(END_BYTES)
    place = tail.rfind(b"PK\5\6")
    if place < 0 or len(tail) - place < END.size:
        raise _torn(where, "it has no directory")
    _, _, _, _, _, length, begin, _ = END.unpack_from(tail, place)
    end = tail_begin + place
    if end >= LOCATOR.size:
        file.seek(end - LOCATOR.size)
        magic, _, at, _ = LOCATOR.unpack(file.read(LOCATOR.size))
        if magic == b"PK\6\7":
            file.seek(end - LOCATOR.size - END64.size)
            head = file.read(END64.size)
            if len(head) < END64.size or head[:4] != b"PK\6\6":
                raise _torn(where, f"its directory's end is not at byte {at}")
            *_, length, begin = END64.unpack(head)
            end -= LOCATOR.size + END64.size
    moved = end - length - begin
    if moved < 0 or begin + moved > end:
        raise _torn(where, "its directory is not where it says")
    return begin + moved, length, moved


def _entry(data: bytes, at: int, where: str, moved: int) -> tuple[zipfile.ZipInfo, int] | None:
    """The member at this place and where the next one is; None where there is no whole one."""
    if len(data) - at < ENTRY.size:
        return None
    found = ENTRY.unpack_from(data, at)
    if found[0] != b"PK\1\2":
        raise _torn(where, "its directory is damaged")
    flags, method, crc, packed, plain = found[5], found[6], found[9], found[10], found[11]
    name_length, extra_length, comment_length, offset = found[12], found[13], found[14], found[18]
    begin = at + ENTRY.size
    end = begin + name_length + extra_length + comment_length
    if end > len(data):
        return None
    raw = data[begin : begin + name_length]
    try:
        name = raw.decode("utf-8" if flags & UTF8 else "cp437")
    except UnicodeDecodeError:
        raise _torn(where, "a name in it is not UTF-8") from None
    if "\0" in name:
        raise _torn(where, "a name in it has a null byte")
    extra = data[begin + name_length : begin + name_length + extra_length]
    wide = _wide(extra, [plain, packed, offset], where)
    info = zipfile.ZipInfo(name)
    info.create_system, info.extra, info.flag_bits = found[2], extra, flags
    info.filename, other = name_of(info), unicode_path(extra, raw)
    if other and other != info.filename:
        raise LvaeError(
            where, f"{info.filename!r:.100} has a second name, {other!r:.100}", "Unpack the zip to a folder."
        )
    info.compress_type, info.CRC = method, crc
    info.file_size, info.compress_size, info.header_offset = wide[0], wide[1], wide[2] + moved
    return info, end


def _wide(extra: bytes, values: list[int], where: str) -> list[int]:
    """Numbers of 64 bits in place of those that did not fit into 32 (4.5.3)."""
    if FULL not in values:
        return values
    while len(extra) >= 4:
        tag, length = struct.unpack_from("<HH", extra)
        field, extra = extra[4 : 4 + length], extra[4 + length :]
        if tag == 1:
            places = [place for place, value in enumerate(values) if value == FULL]
            if len(field) < 8 * len(places):
                break
            for place, value in zip(places, struct.unpack_from(f"<{len(places)}Q", field), strict=True):
                values[place] = value
            return values
    raise _torn(where, "a length in it is missing")


def _torn(where: str, problem: str) -> LvaeError:
    return LvaeError(where, f"not a whole zip ({problem})")
