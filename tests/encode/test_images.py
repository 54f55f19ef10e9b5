"""Pictures of every kind, and bytes of the worst."""

import io
import itertools
import json
import os
import pickle
import re
import struct
import subprocess
import sys
import threading
import warnings
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, ImageFile, ImageOps

from lvae.encode import images
from lvae.encode.images import MAX_PIXELS, ImageRejected, open_image

SHARED = Path(os.environ.get("LVAE_SHARED_DATA", Path(__file__).parents[2] / "../shared/data"))
ODDITIES = SHARED / "oddities"

ROWS, COLUMNS = np.mgrid[:33, :47]
COLOURS = np.stack([COLUMNS * 5, ROWS * 7, (ROWS * COLUMNS) % 256], -1).astype(np.uint8)
ORIENTATION = 0x0112
NOT_ORDINARY = "is not supported: convert it to ordinary JPEG or PNG"


def encoded(image: Image.Image, kind: str, *args: Any, **settings: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, *args, **settings)
    return buffer.getvalue()


def picture() -> Image.Image:
    return Image.fromarray(COLOURS)


def oriented(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    return exif


def pixels(data: bytes) -> NDArray[np.int64]:
    image = open_image(data)
    assert image.mode == "RGB"
    assert image.info == {}
    return np.asarray(image).astype(np.int64)


def reason(data: bytes) -> str:
    with pytest.raises(ImageRejected) as caught:
        open_image(data)
    assert str(caught.value) == caught.value.reason
    return caught.value.reason


@cache
def examples() -> dict[str, bytes]:
    """One file of every kind that is opened."""
    image, exif = picture(), oriented(6)
    turned = image.rotate(180)
    return {
        "JPEG": encoded(image, "JPEG", quality=90),
        "progressive JPEG": encoded(image, "JPEG", quality=90, progressive=True),
        "grey JPEG": encoded(image.convert("L"), "JPEG"),
        "CMYK JPEG": encoded(image.convert("CMYK"), "JPEG"),
        "JPEG with EXIF and a broken profile": encoded(image, "JPEG", exif=exif, icc_profile=b"not a profile" * 9),
        "MPO": encoded(image, "MPO", save_all=True, append_images=[turned]),
        "PNG": encoded(image, "PNG"),
        "bilevel PNG": encoded(image.convert("1"), "PNG"),
        "palette PNG": encoded(image.quantize(16), "PNG", transparency=bytes(range(16))),
        "16 bit PNG": encoded(Image.fromarray((COLUMNS * 1000).astype(np.uint16)), "PNG"),
        "PNG with EXIF": encoded(image, "PNG", exif=exif),
        "APNG": encoded(image, "PNG", save_all=True, append_images=[turned]),
        "WebP": encoded(image, "WEBP", quality=90),
        "lossless WebP": encoded(image, "WEBP", lossless=True),
        "WebP with alpha and EXIF": encoded(image.convert("RGBA"), "WEBP", exif=exif),
        "animated WebP": encoded(image, "WEBP", save_all=True, append_images=[turned]),
        "GIF": encoded(image.quantize(32), "GIF"),
        "animated GIF": encoded(image.quantize(32), "GIF", save_all=True, append_images=[turned.quantize(32)]),
        "raw TIFF": encoded(image, "TIFF", exif=exif),
        "LZW TIFF": encoded(image, "TIFF", compression="tiff_lzw"),
        "JPEG TIFF": encoded(image, "TIFF", compression="jpeg"),
        "float TIFF": encoded(Image.fromarray((COLUMNS / 47).astype(np.float32)), "TIFF"),
        "BMP": encoded(image, "BMP"),
        "PPM": encoded(image, "PPM"),
        "AVIF": encoded(image, "AVIF"),
    }


EXAMPLES = [
    *["JPEG", "progressive JPEG", "grey JPEG", "CMYK JPEG", "JPEG with EXIF and a broken profile", "MPO", "PNG"],
    *["bilevel PNG", "palette PNG", "16 bit PNG", "PNG with EXIF", "APNG", "WebP", "lossless WebP"],
    *["WebP with alpha and EXIF", "animated WebP", "GIF", "animated GIF", "raw TIFF", "LZW TIFF", "JPEG TIFF"],
    *["float TIFF", "BMP", "PPM", "AVIF"],
]


def test_every_kind_is_opened() -> None:
    assert list(examples()) == EXAMPLES
    for name, data in examples().items():
        upright = name not in (
            "JPEG with EXIF and a broken profile",
            "PNG with EXIF",
            "WebP with alpha and EXIF",
            "raw TIFF",
        )
        assert open_image(data).size == ((47, 33) if upright else (33, 47)), name


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied(kind: str, orientation: int) -> None:
    upright = np.zeros((48, 80, 3), np.uint8)
    upright[:24, :40] = 255, 40, 40
    upright[:24, 40:] = 40, 200, 40
    upright[24:, :40] = 40, 40, 255
    inverse = {5: 5, 6: 8, 7: 7, 8: 6}.get(orientation, orientation)
    stored = ImageOps.exif_transpose(_with_orientation(Image.fromarray(upright), inverse))
    opened = pixels(encoded(stored, kind, exif=oriented(orientation), quality=95))
    assert opened.shape == upright.shape
    for rows, columns in itertools.product((slice(4, 20), slice(28, 44)), (slice(4, 36), slice(44, 76))):
        np.testing.assert_allclose(opened[rows, columns].mean((0, 1)), upright[rows, columns].mean((0, 1)), atol=8)


def _with_orientation(image: Image.Image, orientation: int) -> Image.Image:
    image.getexif()[ORIENTATION] = orientation
    return image


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_senseless_orientations_are_ignored(orientation: int) -> None:
    data = encoded(picture(), "PNG", exif=oriented(orientation))
    np.testing.assert_array_equal(pixels(data), COLOURS)


def test_damaged_exif_harms_nothing() -> None:
    for exif in (
        b"Exif\0\0",
        b"Exif\0\0MM\0*\0\0\0\x08\xff\xff",
        b"Exif\0\0II*\0\xff\xff\xff\xff",
        b"Exif\0\0nonsense",
    ):
        assert open_image(encoded(picture(), "JPEG", exif=exif)).size == (47, 33)


def test_pixels_are_those_of_pillow() -> None:
    data = encoded(picture(), "JPEG", quality=85, icc_profile=_srgb())
    np.testing.assert_array_equal(pixels(data), np.asarray(Image.open(io.BytesIO(data)).convert("RGB")))


def _srgb() -> bytes:
    from PIL import ImageCms

    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def test_grey_becomes_three_equal_channels() -> None:
    grey = np.arange(256, dtype=np.uint8).reshape(16, 16)
    for image in (Image.fromarray(grey), Image.merge("LA", [Image.fromarray(grey), Image.fromarray(grey)])):
        opened = pixels(encoded(image, "PNG"))
        np.testing.assert_array_equal(opened, np.repeat(grey[..., None], 3, -1))


def test_one_bit_is_black_and_white() -> None:
    bits = (ROWS + COLUMNS) % 3 == 0
    for kind in ("PNG", "TIFF", "BMP", "GIF"):
        np.testing.assert_array_equal(pixels(encoded(Image.fromarray(bits), kind))[..., 1], bits * 255)


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bit_grey_is_scaled_by_its_white(kind: str) -> None:
    levels = np.linspace(0, 65535, 4096).round().astype(np.uint16).reshape(64, 64)
    opened = pixels(encoded(Image.fromarray(levels), kind))
    np.testing.assert_array_equal(opened[..., 0], np.rint(levels / 257))


def test_sixteen_bit_big_endian_tiff_is_scaled_alike() -> None:
    levels = np.array([[0, 257, 65535, 32768]], np.uint16)
    tags = [(256, 4, 1, 4), (257, 4, 1, 1), (258, 3, 1, 16 << 16), (259, 3, 1, 1 << 16), (262, 3, 1, 1 << 16)]
    tags += [(273, 4, 1, 8), (277, 3, 1, 1 << 16), (278, 4, 1, 1), (279, 4, 1, 8)]
    directory = struct.pack(">H", len(tags)) + b"".join(struct.pack(">HHII", *tag) for tag in tags) + bytes(4)
    data = b"MM\0*" + struct.pack(">I", 16) + levels.astype(">u2").tobytes() + directory
    np.testing.assert_array_equal(pixels(data)[..., 2], [[0, 1, 255, 128]])


def test_sixteen_bit_pgm_is_scaled_by_its_maximum() -> None:
    data = b"P5 3 1 1000\n" + np.array([0, 500, 1000], ">u2").tobytes()
    np.testing.assert_array_equal(pixels(data)[0, :, 0], [0, 128, 255])


def test_sixteen_bit_colour_keeps_its_high_bytes() -> None:
    levels = np.array([[[0, 0x80FF, 0xFFFF], [0x1234, 0xABCD, 0x00FF]]], ">u2")
    lines = b"".join(b"\0" + line.tobytes() for line in levels)
    data = png(2, 1, lines, depth=16, colour=2)
    np.testing.assert_array_equal(pixels(data), [[[0, 0x80, 255], [0x12, 0xAB, 0]]])


def test_floats_are_scaled_from_zero_to_one() -> None:
    levels = np.linspace(0, 1, 256, dtype=np.float32).reshape(16, 16)
    np.testing.assert_array_equal(pixels(encoded(Image.fromarray(levels), "TIFF"))[..., 0].ravel(), np.arange(256))


@pytest.mark.parametrize("wrong", [-0.01, 1.5, 255.0, np.nan, np.inf])
def test_floats_outside_of_zero_to_one_are_refused(wrong: float) -> None:
    levels = np.full((4, 4), 0.5, np.float32)
    levels[2, 2] = wrong
    assert reason(encoded(Image.fromarray(levels), "TIFF")) == "floating-point samples outside of 0..1"


def test_integers_without_a_white_are_refused() -> None:
    assert "32-bit integer" in reason(encoded(Image.fromarray(np.full((4, 4), 200, np.int32)), "TIFF"))


def test_transparency_is_dropped() -> None:
    alpha = Image.fromarray((COLUMNS * 5).astype(np.uint8))
    rgba = picture()
    rgba.putalpha(alpha)
    for data in (encoded(rgba, "PNG"), encoded(rgba, "TIFF"), encoded(rgba, "WEBP", lossless=True, exact=True)):
        np.testing.assert_array_equal(pixels(data), COLOURS)
    palette = picture().quantize(16)
    expected = np.asarray(palette.convert("RGB"))
    for transparency in (3, bytes(range(16))):
        np.testing.assert_array_equal(pixels(encoded(palette, "PNG", transparency=transparency)), expected)
    np.testing.assert_array_equal(pixels(encoded(picture(), "PNG", transparency=(0, 0, 0))), COLOURS)


def test_cmyk_does_not_come_out_inverted() -> None:
    red = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    for data in (encoded(red, "JPEG", quality=95), encoded(red, "TIFF")):
        np.testing.assert_allclose(pixels(data).mean((0, 1)), (254, 0, 0), atol=3)


def test_cmyk_with_adobes_marker_does_not_come_out_inverted() -> None:
    """Adobe stores inverted inks and says so in an APP14 marker, which Pillow writes, too."""
    data = encoded(Image.new("CMYK", (16, 16), (0, 255, 255, 0)), "JPEG", quality=95)
    assert b"Adobe" in data
    np.testing.assert_allclose(pixels(data).mean((0, 1)), (254, 0, 0), atol=3)


def test_lab_and_ycbcr_become_rgb() -> None:
    lab = Image.merge("LAB", [Image.new("L", (8, 8), value) for value in (138, 209, 195)])  # L 54, a 81, b 67
    np.testing.assert_allclose(pixels(encoded(lab, "TIFF")).mean((0, 1)), (255, 0, 0), atol=15)
    ycbcr = encoded(Image.new("RGB", (8, 8), (200, 30, 40)), "TIFF", compression="jpeg", quality=95)
    np.testing.assert_allclose(pixels(ycbcr).mean((0, 1)), (200, 30, 40), atol=6)


@pytest.mark.parametrize("name", ["MPO", "APNG", "animated WebP", "animated GIF"])
def test_the_first_picture_of_several_is_taken(name: str) -> None:
    opened = pixels(examples()[name])
    assert np.abs(opened - COLOURS).mean() < 25
    assert np.abs(opened - COLOURS[::-1, ::-1]).mean() > 60


def test_one_pixel_is_a_picture() -> None:
    for kind in ("PNG", "BMP", "TIFF", "GIF", "PPM"):
        assert pixels(encoded(Image.new("RGB", (1, 1), (200, 30, 40)), kind)).tolist() == [[[200, 30, 40]]]


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "empty file"),
        (b"\0\x05\x16\x07\0\2\0\0Mac OS X", "AppleDouble side file, as macOS leaves in archives; not an image"),
        (b"<!DOCTYPE html><html>404</html>", "not an image (HTML or XML)"),
        (b"\xef\xbb\xbf \n<?xml version='1.0'?><Error/>", "not an image (HTML or XML)"),
        (b"<?xml version='1.0'?>\n<!-- drawn -->\n<svg xmlns='http://www.w3.org/2000/svg'/>", "SVG is not supported"),
        (b"just words\n", "not an image (text)"),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n",
            "a Git LFS pointer instead of the picture: 'git lfs pull' fetches it",
        ),
        (b"\0\0\0\x18ftypheic", "HEIC is not supported: convert it to JPEG or PNG"),
        (b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic", "HEIC is not supported: convert it to JPEG or PNG"),
        (b"v/1\x01" + bytes(90), "EXR and Radiance HDR are not supported: convert to 8 or 16 bits"),
        (b"P3 1 1 255 0 0 0\n", "PNM as text, colour PFM and PAM are not supported: convert to PNG"),
        (b"\xff\xd8\xff\xf7\0\x0b\x08\0\x10\0\x10\1\1\x11\0", f"JPEG-LS {NOT_ORDINARY}"),
        (b"\xff\xd8\xff\xc1\0\x0b\x0c\0\x10\0\x10\1\1\x11\0", f"JPEG of 12 bits {NOT_ORDINARY}"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n", "PDF and PostScript are not supported"),
        (b"%PDF-1.7", "PDF and PostScript are not supported"),
        (b"\xd7\xcd\xc6\x9a" + bytes(90), "not an image of a known format"),
        (bytes(5000), "all bytes are zero"),
        (b"\x13\x37" * 40, "not an image of a known format"),
        (b"\xff\xd8\xff", "damaged JPEG"),
        (b"GIF89a", "damaged GIF"),
    ],
)  # fmt: skip
def test_other_files_are_refused_with_a_reason(data: bytes, said: str) -> None:
    assert reason(data) == said


def test_comments_without_end_take_no_time() -> None:
    """512 bytes that a regular expression with several ways to match them would look at for ever."""
    code = "from lvae.encode.images import open_image; open_image(b'<!--' + b'-->  <!--' * 60)"
    done = subprocess.run([sys.executable, "-c", code], timeout=60, capture_output=True, text=True)
    assert "not an image (text)" in done.stderr


@pytest.mark.parametrize("major", [b"mif1", b"miaf"])
def test_avif_is_known_by_a_brand_that_it_is_compatible_with(major: bytes) -> None:
    data = examples()["AVIF"]
    assert b"avif" in data[16:32]
    renamed = data[:8] + major + data[12:]
    assert images.is_image(renamed[:16])
    np.testing.assert_array_equal(pixels(renamed), pixels(data))


def test_a_feature_that_the_decoder_lacks_is_not_called_damage() -> None:
    bmp = bytearray(encoded(picture(), "BMP"))
    bmp[30:34] = (9).to_bytes(4, "little")  # its compression
    said = reason(bytes(bmp))
    assert "not supported" in said
    assert "damaged" not in said


def png(width: int, height: int, lines: bytes, depth: int = 8, colour: int = 0, before: bytes = b"") -> bytes:
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + _chunk(b"IHDR", header)
        + before
        + _chunk(b"IDAT", zlib.compress(lines))
        + _chunk(b"IEND")
    )


def _chunk(kind: bytes, data: bytes = b"") -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _valid_bomb() -> bytes:
    squeeze = zlib.compressobj(9)
    data = b"".join(squeeze.compress(bytes(20001)) for _ in range(20000)) + squeeze.flush()
    header = struct.pack(">IIBBBBB", 20000, 20000, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IDAT", data) + _chunk(b"IEND")


def _jpeg_claiming(width: int, height: int) -> bytes:
    data = bytearray(examples()["JPEG"])
    at = data.index(b"\xff\xc0") + 5
    data[at : at + 4] = struct.pack(">HH", height, width)
    return bytes(data)


def bombs() -> Iterator[tuple[str, bytes]]:
    yield "20000x20000", _valid_bomb()
    yield "65500x65500", _jpeg_claiming(65500, 65500)
    yield "2147483647x2147483647", png(2**31 - 1, 2**31 - 1, b"")
    extended = bytearray(examples()["WebP with alpha and EXIF"])
    extended[24:30] = (59999).to_bytes(3, "little") * 2
    yield "60000x60000", bytes(extended)
    gif = bytearray(examples()["GIF"])
    gif[6:10] = struct.pack("<HH", 65535, 65535)
    yield "65535x65535", bytes(gif)
    bmp = bytearray(examples()["BMP"])
    bmp[18:26] = struct.pack("<ii", 100_000, 100_000)
    yield "100000x100000", bytes(bmp)
    yield "50000x50000", b"P6 50000 50000 255\n" + bytes(64)


def test_bombs_are_refused_on_the_header_whatever_pillows_limit_is(monkeypatch: pytest.MonkeyPatch) -> None:
    for limit in (Image.MAX_IMAGE_PIXELS, None):
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        for size, data in bombs():
            said = reason(data)
            assert said == f"{size}: more than {MAX_PIXELS} pixels" or "exceeds limit" in said
        assert limit == Image.MAX_IMAGE_PIXELS


def test_a_webp_animation_cannot_claim_a_long_canvas() -> None:
    data = bytearray(examples()["animated WebP"])
    data[24:27] = (4_000_000).to_bytes(3, "little")
    assert reason(bytes(data)) == "4000001x33: a WebP has at most 16383 pixels a side"


def test_a_tiff_bomb_is_refused() -> None:
    data = encoded(Image.new("L", (8, 8)), "TIFF")
    forged = data.replace(struct.pack("<HHII", 256, 4, 1, 8), struct.pack("<HHII", 256, 4, 1, 500_000))
    forged = forged.replace(struct.pack("<HHII", 257, 4, 1, 8), struct.pack("<HHII", 257, 4, 1, 500_000))
    assert forged != data
    assert reason(forged) == f"500000x500000: more than {MAX_PIXELS} pixels"


def test_refusing_bombs_takes_little_memory(tmp_path: Path) -> None:
    (tmp_path / "bombs").write_bytes(pickle.dumps(list(bombs())))
    script = (
        "import sys, pickle, resource\n"
        "from lvae.encode.images import open_image, ImageRejected\n"
        "bombs = pickle.load(open(sys.argv[1], 'rb'))\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "for _, data in bombs:\n"
        "    try: open_image(data)\n"
        "    except ImageRejected: pass\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, tmp_path / "bombs"], capture_output=True, text=True, check=True
    )
    kilobytes = 1 if sys.platform != "darwin" else 1024
    assert int(done.stdout) < 50_000 * kilobytes


def test_a_picture_just_below_the_limit_opens_without_a_warning() -> None:
    width, height = 10_000, 10_000  # above the size from which Pillow warns
    squeeze = zlib.compressobj(1)
    data = b"".join(squeeze.compress(bytes(1 + width // 8)) for _ in range(height)) + squeeze.flush()
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    picture = b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IDAT", data) + _chunk(b"IEND")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert open_image(picture).size == (width, height)
    assert not caught


def test_a_jpeg_of_countless_scans_is_refused() -> None:
    data = _jpeg_claiming(13_000, 13_000)
    assert reason(data[:-2] + b"\xff\xda\0\x08\1\1\0\0\0\0" * 100).endswith("scans: too much work")


def test_metadata_bombs_and_broken_profiles_harm_nothing() -> None:
    zeros = zlib.compress(bytes(50_000_000), 9)
    lines = bytes(17) * 16
    for chunk in (_chunk(b"zTXt", b"k\0\0" + zeros), _chunk(b"iCCP", b"k\0\0" + zeros)):
        assert open_image(png(16, 16, lines, before=chunk)).size == (16, 16)
    for chunk in (_chunk(b"iCCP", b"k\0\0nonsense"), _chunk(b"iCCP", b"k\0\0" + zlib.compress(b"nonsense"))):
        assert open_image(png(16, 16, lines, before=chunk)).size == (16, 16)


def test_pictures_without_pixels_are_refused() -> None:
    reason(b"P6 0 4 255\n")
    reason(png(0, 16, b""))
    reason(_jpeg_claiming(47, 0))


@pytest.mark.parametrize("name", EXAMPLES)
@settings(max_examples=40, deadline=None)
@given(share=st.floats(0, 1, exclude_max=True))
def test_a_truncated_file_is_refused_or_whole(name: str, share: float) -> None:
    """Never a half-grey picture. What may be missing is a tail that carries no pixels of the first picture."""
    data = examples()[name]
    whole = pixels(data)
    try:
        opened = pixels(data[: int(len(data) * share)])
    except ImageRejected:
        return
    np.testing.assert_array_equal(opened, whole)


@pytest.mark.parametrize("name", ["JPEG", "PNG", "WebP", "GIF", "raw TIFF", "LZW TIFF", "BMP"])
def test_half_a_file_is_refused(name: str) -> None:
    data = examples()[name]
    assert name.split()[-1] in reason(data[: len(data) // 2])


def test_a_tiff_whose_strips_do_not_cover_it_is_refused() -> None:
    data = encoded(Image.new("L", (8, 8), 200), "TIFF")
    taller = data.replace(struct.pack("<HHII", 257, 4, 1, 8), struct.pack("<HHII", 257, 4, 1, 9))
    assert reason(taller) == "truncated TIFF"


@pytest.mark.parametrize("name", EXAMPLES)
@settings(max_examples=60, deadline=None, derandomize=True)  # new damage is tried by make fuzz
@given(
    changes=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=6),
    cut=st.floats(0, 1),
)
def test_damaged_bytes_open_or_are_refused_and_nothing_else(
    name: str, changes: list[tuple[float, int]], cut: float
) -> None:
    data = bytearray(examples()[name])
    for place, value in changes:
        data[int(place * len(data)) if cut > 0.3 else int(place * min(len(data), 64))] = value
    if cut > 0.8:
        del data[int(cut * len(data)) :]
    outcomes = {_outcome(bytes(data)), _outcome(bytes(data))}
    assert len(outcomes) == 1
    said = outcomes.pop()
    assert isinstance(said, bytes) or (
        said.isascii() and not re.search(r"0x\w{5}", said) and "/" not in said and len(said) < 160
    )


def _outcome(data: bytes) -> bytes | str:
    try:
        return open_image(data).tobytes()
    except ImageRejected as rejection:
        return rejection.reason


@settings(max_examples=300, deadline=None)
@given(
    start=st.sampled_from([data[:length] for data in examples().values() for length in (4, 16, 40)]), rest=st.binary()
)
def test_any_bytes_open_or_are_refused(start: bytes, rest: bytes) -> None:
    _outcome(start + rest)
    _outcome(rest)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError("image file is truncated (12 bytes not processed)"), "truncated PNG"),
        (EOFError(), "truncated PNG"),
        (OSError("broken\nat <object at 0x7f0012ab>"), "damaged PNG (broken at <object at ...>)"),
        (SyntaxError("broken PNG file (chunk b'IDA/')"), "damaged PNG (broken PNG file (chunk ...))"),
        (MemoryError(), "damaged PNG (its decoder ran out of memory)"),
        (struct.error("unpack_from requires a buffer"), "damaged PNG"),
        (KeyError("x"), "damaged PNG"),
        (RecursionError("too deep"), "damaged PNG"),
        (Image.DecompressionBombError("large"), "damaged PNG"),
        (Warning("odd"), "damaged PNG"),
    ],
)  # fmt: skip
def test_whatever_a_decoder_raises_becomes_a_reason(
    monkeypatch: pytest.MonkeyPatch, error: Exception, said: str
) -> None:
    def decoder(file: io.BytesIO) -> ImageFile.ImageFile:
        raise error

    magic, name, _ = next(entry for entry in images.FORMATS if entry[1] == "PNG")
    monkeypatch.setattr(images, "FORMATS", ((magic, name, decoder),))
    assert reason(examples()["PNG"]) == said


def test_truncated_pictures_are_refused_even_where_pillow_was_told_to_accept_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    for name in ("JPEG", "PNG", "GIF", "raw TIFF"):
        ImageFile.LOAD_TRUNCATED_IMAGES = True
        reason(examples()[name][: len(examples()[name]) // 2])


def test_pillows_remarks_on_metadata_stay_with_pillow() -> None:
    odd = [
        encoded(picture(), "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\xff\xff\xff\xff\0\0\0\0"),
        encoded(picture().quantize(16), "PNG", transparency=bytes(range(16))),
    ]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for data in odd:
            open_image(data)
        warnings.warn("of others", UserWarning, stacklevel=1)
    assert [str(warning.message) for warning in caught] == ["of others"]


def test_threads_open_alike() -> None:
    data = [examples()[name] for name in EXAMPLES] * 8
    alone = [_outcome(each) for each in data]
    barrier = threading.Barrier(8)

    def work(part: int) -> list[bytes | str]:
        barrier.wait()
        return [_outcome(each) for each in data[part::8]]

    with ThreadPoolExecutor(8) as pool:
        parts = list(pool.map(work, range(8)))
    for part in range(8):
        assert parts[part] == alone[part::8]


def test_torch_is_not_imported() -> None:
    script = (
        "import sys, lvae.encode.images, lvae.encode.crops, lvae.encode.sources.open, lvae.encode.scenes.make;"
        "sys.exit('torch' in sys.modules or 'apache_beam' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


def _expected() -> dict[str, Any]:
    path = ODDITIES / "expected.json"
    return dict(json.loads(path.read_text())) if path.exists() else {"missing": {}}


@pytest.mark.shared
@pytest.mark.skipif(not ODDITIES.exists(), reason="needs the shared oddities")
@pytest.mark.parametrize("name", _expected())
def test_oddities_come_out_as_expected(name: str) -> None:
    wanted, data = _expected()[name], (ODDITIES / name).read_bytes()
    if wanted["action"] == "reject":
        assert reason(data)
        return
    opened = pixels(data)
    height, width = opened.shape[:2]
    assert [width, height] == wanted["size"]
    if wanted.get("check_pixels", True):
        np.testing.assert_allclose(opened.mean((0, 1)), wanted["mean_rgb"], atol=wanted["tolerance"])
        halves = itertools.product(
            (slice(None, height // 2), slice(height // 2, None)), (slice(None, width // 2), slice(width // 2, None))
        )
        for (rows, columns), mean in zip(halves, wanted.get("quadrants_rgb", []), strict=False):
            np.testing.assert_allclose(opened[rows, columns].mean((0, 1)), mean, atol=wanted["tolerance"])
