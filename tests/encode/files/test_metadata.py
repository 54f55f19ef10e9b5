"""What is not pixels never costs a picture."""

import io
import struct
import tracemalloc
import zlib

import numpy as np
import pytest
from PIL import Image

from lvae.encode.images import ImageRejected, open_image

COLOURS = np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)


def encoded(kind: str, **settings: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(COLOURS).save(buffer, kind, **settings)
    return buffer.getvalue()


def chunk(kind: bytes, body: bytes, crc: int | None = None) -> bytes:
    check = zlib.crc32(kind + body) if crc is None else crc
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", check)


LARGE = zlib.compress(bytes(50_000_000), 9)
XMP = b'<x:xmpmeta><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
ODD_CHUNKS = {
    "text": chunk(b"zTXt", b"k\0\0" + LARGE),
    "profile": chunk(b"iCCP", b"k\0\0" + LARGE),
    "profile of nonsense": chunk(b"iCCP", b"k\0\7nonsense"),
    "XMP": chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + LARGE),
    "many texts": chunk(b"tEXt", b"k\0" + bytes(1_000_000)) * 80,
    "wrong checksum": chunk(b"tEXt", b"k\0v", crc=1),
    "short": chunk(b"pHYs", b"")
    + chunk(b"gAMA", b"")
    + chunk(b"cHRM", b"1")
    + chunk(b"tRNS", b"")
    + chunk(b"sRGB", b""),
    "broken EXIF": chunk(b"eXIf", b"nonsense"),
    "broken animation": chunk(b"acTL", b"\0\0\0\2\0\0\0\0") + chunk(b"fcTL", b"\0"),
}


@pytest.mark.parametrize("odd", ODD_CHUNKS)
@pytest.mark.parametrize("place", ["before", "behind"])
def test_odd_chunks_of_a_png_cost_nothing(odd: str, place: str) -> None:
    data = encoded("PNG")
    at = 33 if place == "before" else len(data) - 12
    tracemalloc.start()
    found = open_image(data[:at] + ODD_CHUNKS[odd] + data[at:])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    np.testing.assert_array_equal(np.asarray(found), COLOURS)
    assert peak < 400 << 20


def test_a_png_cut_in_the_text_behind_its_pixels_is_whole() -> None:
    data = encoded("PNG")
    whole = data[:-12] + ODD_CHUNKS["many texts"]
    np.testing.assert_array_equal(np.asarray(open_image(whole[: len(data) + 5000])), COLOURS)


def test_damaged_pixels_of_a_png_are_still_refused() -> None:
    data = bytearray(encoded("PNG", compress_level=0))
    data[len(data) // 2] ^= 1
    with pytest.raises(ImageRejected, match="damaged"):
        open_image(bytes(data))


@pytest.mark.parametrize(
    "body",
    [
        b"XML:com.adobe.xmp\0\0\0\0\0" + XMP,
        b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(XMP + bytes(3_000_000)),
    ],
)
def test_orientation_in_xmp_of_a_png_is_applied(body: bytes) -> None:
    data = encoded("PNG")
    found = open_image(data[:33] + chunk(b"iTXt", body) + data[33:])
    np.testing.assert_array_equal(np.asarray(found), np.rot90(COLOURS, -1))


def test_orientation_in_imagemagicks_text_is_applied() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    digits = exif.tobytes().hex().encode()
    text = b"Raw profile type exif\0\0" + zlib.compress(b"\nexif\n%8d\n" % (len(digits) // 2) + digits)
    data = encoded("PNG")
    found = open_image(data[:33] + chunk(b"zTXt", text) + data[33:])
    np.testing.assert_array_equal(np.asarray(found), np.rot90(COLOURS, -1))


def test_apples_png_is_said_to_be_not_supported() -> None:
    data = encoded("PNG")
    with pytest.raises(ImageRejected, match="not supported"):
        open_image(data[:8] + chunk(b"CgBI", b"\x50\0\x20\2") + data[8:])


def test_odd_segments_of_a_jpeg_cost_nothing() -> None:
    data = encoded("JPEG", quality=90)
    plain = np.asarray(open_image(data))
    for marker, body in (
        (0xE1, b"Exif\0\0MM\0*nonsense"),
        (0xE2, b"ICC_PROFILE\0" + bytes(40_000)),
        (0xE2, b"MPF\0nonsense"),
        (0xED, b"Photoshop 3.0\x008BIM\x04\x04"),
        (0xED, b"Photoshop 3.0\x008BIM\x03\xed\0\0\0\0\0\x05abc"),
        (0xE0, b"JFIF\0"),
        (0xFE, bytes(60_000)),
    ):
        segment = bytes([0xFF, marker]) + struct.pack(">H", len(body) + 2) + body
        np.testing.assert_array_equal(np.asarray(open_image(data[:2] + segment * 3 + data[2:])), plain)


def test_a_webp_with_broken_metadata_behind_its_pixels_is_whole() -> None:
    exif = Image.Exif()
    exif[0x0112] = 1
    data = encoded("WEBP", lossless=True, exif=exif)
    at = data.index(b"EXIF")
    lying = data[: at + 4] + b"\xff\xff\xff\x0f" + data[at + 8 :]
    np.testing.assert_array_equal(np.asarray(open_image(lying)), COLOURS)
