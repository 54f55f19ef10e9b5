"""The names of a zip's members: UTF-8, old code pages, and the extra field 0x7075, the same by every Python."""

import struct
import zipfile
import zlib

UTF8 = 0x800  # a flag
UNIX = 3
UNICODE_PATH = 0x7075


def member_name(info: zipfile.ZipInfo) -> str:
    """A member's name as the directory spells it: the same for every version of Python, which end it at a null byte."""
    return info.orig_filename


def name_of(info: zipfile.ZipInfo) -> str:
    """A member's name to people.

    UTF-8 where the flag says so; else what the extra field 0x7075 says, if its checksum fits the stored name; else
    UTF-8 where Info-ZIP on Unix wrote it without saying so; else the old code page 437. Some writers on Windows use
    backslashes.
    """
    name = member_name(info)
    if not info.flag_bits & UTF8 and not name.isascii():
        stored = info.orig_filename.encode("cp437")
        name = unicode_path(info.extra, stored) or (_as_utf8(stored) if info.create_system == UNIX else "") or name
    return name if "/" in name else name.replace("\\", "/")


def unicode_path(extra: bytes, stored: bytes) -> str:
    """What Info-ZIP's field 0x7075 calls a member; "" where there is none that fits."""
    while len(extra) >= 4:
        tag, length = struct.unpack_from("<HH", extra)
        field, extra = extra[4 : 4 + length], extra[4 + length :]
        whole = tag == UNICODE_PATH and len(field) == length > 5 and field[0] == 1
        if whole and int.from_bytes(field[1:5], "little") == zlib.crc32(stored):
            return _as_utf8(field[5:])
    return ""


def _as_utf8(name: bytes) -> str:
    try:
        return name.decode()
    except UnicodeDecodeError:
        return ""
