"""Pictures without what is not pixels, so that text, profiles, EXIF and XMP never cost a picture or memory."""

import re
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from lvae.encode.files.rejection import ImageRejected

MAX_INFLATED = 8 << 20  # bytes of the one compressed text that says which side is up
PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
PNG_PIXELS = (b"IHDR", b"PLTE", b"IDAT", b"IEND")
XMP_KEYWORD = b"XML:com.adobe.xmp"
EXIF_KEYWORD = b"Raw profile type exif"  # ImageMagick's
WEBP_PIXELS = (b"VP8X", b"ANIM", b"ANMF", b"ALPH", b"VP8 ", b"VP8L")
WEBP_METADATA = 0x20 | 0x08 | 0x04  # flags of VP8X: profile, EXIF, XMP
JPEG_EXIF = b"Exif\0\0"
JPEG_XMP = b"http://ns.adobe.com/xap/1.0/\0"
JPEG_DROPPED = {0xFE, *range(0xE1, 0xF0)} - {0xEE}  # comments and applications, but not Adobe's colour transform
JFIF_BYTES = 14  # of a marker that decoders heed
START_OF_SCAN = 0xDA
ORIENTATION_IN_XMP = re.compile(rb"""tiff:Orientation(?:=["']|>)([1-8])""")


@dataclass(frozen=True)
class Metadata:
    """What may say which side of a picture is up, as bytes of the file."""

    exif: bytes | None = None
    xmp: bytes | None = None


def pixels_alone(data: bytes, name: str) -> tuple[bytes, Metadata]:
    """A PNG, JPEG or WebP without metadata, and what of it may say an orientation; any other file as it is."""
    match name:
        case "PNG":
            return _png(data)
        case "JPEG":
            return _jpeg(data)
        case "WebP":
            return _webp(data)
    return data, Metadata()


def orientation_in_xmp(xmp: bytes) -> int | None:
    found = ORIENTATION_IN_XMP.search(xmp)
    return int(found[1]) if found else None


def _png(data: bytes) -> tuple[bytes, Metadata]:
    kept, exif, xmp = [PNG_MAGIC], None, None
    dropped = False
    for kind, start, stop in _png_chunks(data):
        if kind == b"CgBI":
            raise ImageRejected("Apple's own kind of PNG (CgBI) is not supported: convert it to PNG or JPEG")
        if kind in PNG_PIXELS or not kind[:1].islower():
            kept.append(data[start:stop])
            continue
        if _is_cut(data, start, stop) and kind in (b"eXIf", b"iTXt"):
            kept.append(data[start:])  # what it said of the orientation is lost: the file is truncated
            break
        dropped = True
        body = data[start + 8 : stop - 4]
        if kind not in (b"eXIf", b"iTXt", b"zTXt", b"tEXt") or zlib.crc32(kind + body) != _crc(data, stop):
            continue
        if kind == b"eXIf":
            exif = JPEG_EXIF + body
        elif kind == b"iTXt" and body.startswith(XMP_KEYWORD + b"\0"):
            xmp = body
        elif kind != b"iTXt" and body.startswith(EXIF_KEYWORD + b"\0"):
            exif = exif or kind + body
    if not dropped:
        return data, Metadata()
    exif = _hex_profile(exif) if exif is not None and not exif.startswith(JPEG_EXIF) else exif
    return b"".join(kept), Metadata(exif, None if xmp is None else _international_text(xmp))


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Kind, start and end of every chunk; what cannot be one, up to the end of the file, is of the kind "?"."""
    at = len(PNG_MAGIC)
    while at < len(data):
        kind = data[at + 4 : at + 8]
        if len(kind) < 4 or not kind.isalpha():
            yield b"?", at, len(data)
            return
        (length,) = struct.unpack_from(">I", data, at)
        yield kind, at, min(at + 12 + length, len(data))
        at += 12 + length


def _is_cut(data: bytes, start: int, stop: int) -> bool:
    return stop - start < 12 + int.from_bytes(data[start : start + 4], "big")


def _crc(data: bytes, stop: int) -> int:
    return int.from_bytes(data[stop - 4 : stop], "big")


def _international_text(body: bytes) -> bytes | None:
    """The text of an iTXt chunk, as far as it is looked at."""
    flags, rest = body[len(XMP_KEYWORD) + 1 : len(XMP_KEYWORD) + 3], body[len(XMP_KEYWORD) + 3 :]
    fields = rest.split(b"\0", 2)
    if len(fields) < 3:
        return None
    return fields[2][:MAX_INFLATED] if flags[:1] == b"\0" else _inflate(fields[2])


def _hex_profile(chunk: bytes) -> bytes | None:
    """EXIF as ImageMagick writes it: a name, a length, and hexadecimal digits."""
    body = chunk[4 + len(EXIF_KEYWORD) + 1 :]
    text = _inflate(body[1:]) if chunk.startswith(b"zTXt") else body
    try:
        return bytes.fromhex(b"".join((text or b"").split(b"\n")[3:]).decode("ascii"))
    except ValueError:
        return None


def _inflate(packed: bytes) -> bytes | None:
    try:
        return zlib.decompressobj().decompress(packed, MAX_INFLATED)
    except zlib.error:
        return None


def _jpeg(data: bytes) -> tuple[bytes, Metadata]:
    kept, at, exif, xmp = [data[:2]], 2, None, None
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF:  # a byte of filling
            at += 1
            continue
        if marker == START_OF_SCAN:
            break
        stop = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        body = data[at + 4 : stop]
        if marker == 0xE1 and body.startswith(JPEG_EXIF):
            exif = exif or body
        elif marker == 0xE1 and body.startswith(JPEG_XMP):
            xmp = xmp or body
        if marker not in JPEG_DROPPED and (marker != 0xE0 or len(body) >= JFIF_BYTES):
            kept.append(data[at:stop])
        at = stop
    return b"".join([*kept, data[at:]]), Metadata(exif, xmp)


def _webp(data: bytes) -> tuple[bytes, Metadata]:
    if int.from_bytes(data[4:8], "little") + 8 > len(data):
        return data, Metadata()  # truncated: EXIF stands at the end, and what it said is lost
    kept, at, exif, xmp = [], 12, None, None
    while at + 8 <= len(data):
        kind, length = data[at : at + 4], int.from_bytes(data[at + 4 : at + 8], "little")
        stop = at + 8 + length + length % 2
        if kind == b"VP8X" and at + 9 <= len(data):
            kept.append(data[at : at + 8] + bytes([data[at + 8] & ~WEBP_METADATA & 0xFF]) + data[at + 9 : stop])
        elif kind in WEBP_PIXELS:
            kept.append(data[at:stop])
        elif kind == b"EXIF":
            exif = data[at + 8 : stop]
        elif kind == b"XMP ":
            xmp = data[at + 8 : stop]
        at = stop
    body = b"WEBP" + b"".join(kept)
    return b"RIFF" + struct.pack("<I", len(body)) + body, Metadata(exif, xmp)
