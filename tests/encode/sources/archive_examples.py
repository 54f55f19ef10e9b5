"""Archives as other programs write them."""

import io
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path

BLOCK = 512


def tarred(path: Path, members: Mapping[str, bytes | str], form: int = tarfile.PAX_FORMAT) -> Path:
    """Bytes are files, text is where a link leads: "=NAME" a hard one."""
    with tarfile.open(path, "w", format=form) as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            if isinstance(data, str):
                info.type = tarfile.LNKTYPE if data.startswith("=") else tarfile.SYMTYPE
                info.linkname = data.removeprefix("=")
                archive.addfile(info)
            else:
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
    return path


def zipped(path: Path, members: Mapping[str, bytes | str], method: int = zipfile.ZIP_STORED) -> Path:
    """Text is where a symbolic link leads."""
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in members.items():
            info = zipfile.ZipInfo(name)
            info.create_system, info.compress_type = 3, method
            info.external_attr = (0o120777 if isinstance(data, str) else 0o100644) << 16
            archive.writestr(info, data)
    return path


def gnu_incremental(path: Path) -> Path:
    """Headers as `tar --listed-incremental` writes them: times where POSIX keeps the beginning of a long path."""
    data = bytearray(path.read_bytes())
    for start in range(0, len(data), BLOCK):
        if data[start + 257 : start + 263] == b"ustar ":
            data[start + 345 : start + 369] = b"14735353400\0" * 2
            data[start + 148 : start + 156] = b" " * 8
            data[start + 148 : start + 156] = b"%06o\0 " % sum(data[start : start + BLOCK])
    path.write_bytes(data)
    return path


def old_zip(path: Path, members: Mapping[str, bytes], extra: bytes | None = None, system: int = 0) -> Path:
    """Names in code page 437 without a flag; the field 0x7075 holds them in UTF-8, or `extra` stands there."""
    with zipfile.ZipFile(path, "w") as archive:
        for number, (name, data) in enumerate(members.items()):
            stored = f"?{number}".encode() + name.rpartition("/")[2].encode()
            archive.writestr(zipfile.ZipInfo(stored.decode()), data)
            info = archive.infolist()[-1]
            field = struct.pack("<BI", 1, 0) + name.encode()
            info.extra = struct.pack("<HH", 0x5455, 1) + b"x" + struct.pack("<HH", 0x7075, len(field)) + field
            if extra is not None:
                info.extra = extra
    written = path.read_bytes()
    for number, name in enumerate(members):  # a name of code page 437, and its checksum
        before = f"?{number}".encode() + name.rpartition("/")[2].encode()
        after = bytes([0x80 + number, 0xFF]) + name.rpartition("/")[2].encode()
        written = written.replace(before, after)
        if extra is None:
            field = struct.pack("<BI", 1, 0) + name.encode()
            written = written.replace(field, struct.pack("<BI", 1, zlib.crc32(after)) + name.encode())
    at = written.index(b"PK\1\2")
    while written[at : at + 4] == b"PK\1\2":
        written = written[: at + 5] + bytes([system]) + written[at + 6 :]
        lengths = struct.unpack_from("<3H", written, at + 28)
        at += 46 + sum(lengths)
    path.write_bytes(written)
    return path
