"""Opening one image: bytes -> upright 8-bit RGB, or a reason why not.

What a picture is, is decided by its first bytes, never by a name. Rules that a person may want to know:

- EXIF, XMP and TIFF orientation is applied. Animations and multi-page files give their first picture.
- Transparency is dropped, as `convert("RGB")` of ADM's and LDM's loaders does: the colour channels come out as stored.
- Grey is repeated to three channels. 16-bit grey is scaled by its white (65535), not clipped; 16-bit colour keeps its
  high bytes. Floating-point samples have to lie in 0..1 and are scaled by 255. 32-bit integers are refused, since
  nothing says which of them is white.
- ICC profiles of RGB pictures are ignored, as ADM and LDM do, so that crops equal theirs pixel for pixel; a broken
  profile harms nothing. CMYK goes through Pillow's plain conversion, Lab through littlecms to sRGB.
- Text, profiles, EXIF and XMP never cost a picture, whatever their size or state (files/metadata.py). TIFFs that
  Pillow misreads or does not know are decoded by files/tiff.py. A feature that nothing here reads is rejected as "not
  supported", never as damage.
- A picture of more than MAX_PIXELS is refused on its header. A truncated one is refused: never a half-grey picture.

Formats are those of photographs. Nothing that runs another program (EPS, PDF) or draws (SVG, WMF) is tried, nor
JPEG 2000, whose decoder makes something of truncated files.
"""

import io
import logging
import re
import struct
import warnings
from collections.abc import Callable

import numpy as np
from PIL import ImageCms, ImageFile
from PIL.AvifImagePlugin import AvifImageFile
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.Image import Exif, Image, Transpose, fromarray
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.PpmImagePlugin import PpmImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

from lvae.encode.files.metadata import Metadata, orientation_in_xmp, pixels_alone
from lvae.encode.files.rejection import MAX_PIXELS, ImageRejected
from lvae.encode.files.tiff import open_tiff

__all__ = ["MAX_PIXELS", "ImageRejected", "is_image", "open_image"]

logger = logging.getLogger(__name__)

MAX_SCANNED_PIXELS = 20 * MAX_PIXELS  # of all scans of a progressive JPEG: seconds, not hours
SCAN_BYTES = 10  # of a scan, at least: its marker and header
REASON_LENGTH = 120
NOISE = re.compile(r"0x[0-9a-fA-F]+|b'[^']*'|b\"[^\"]*\"")  # addresses and raw bytes in Pillow's words
UNSUPPORTED = re.compile(
    "unsupported|not supported|cannot handle|unknown (pixel|data|mode)|not available", re.IGNORECASE
)
JPEG_FRAMES = (0xC0, 0xC1, 0xC2, 0xC9, 0xCA)
JPEG_CODINGS = {
    0xC3: "lossless JPEG",
    **dict.fromkeys((0xC5, 0xC6, 0xC7, 0xCD, 0xCE, 0xCF, 0xDE), "hierarchical JPEG"),
    0xCB: "lossless JPEG",
    0xF7: "JPEG-LS",
}
BAND_PIXELS = 1 << 20
PILLOWS_MODULES = r"PIL\."
WEBP_SIDE = 16_383  # of the format; only an animation's canvas can claim more

ORIENTATION = 0x0112
PHOTOMETRIC = 262
BITS_PER_SAMPLE = 258
UPRIGHT = {
    2: Transpose.FLIP_LEFT_RIGHT,
    3: Transpose.ROTATE_180,
    4: Transpose.FLIP_TOP_BOTTOM,
    5: Transpose.TRANSPOSE,
    6: Transpose.ROTATE_270,
    7: Transpose.TRANSVERSE,
    8: Transpose.ROTATE_90,
}

Decoder = Callable[[io.BytesIO], ImageFile.ImageFile]
FORMATS: tuple[tuple[re.Pattern[bytes], str, Decoder], ...] = (
    # first bytes, name, decoder. JpegImageFile gives the first picture of an MPO, too.
    (re.compile(rb"\xff\xd8\xff"), "JPEG", JpegImageFile),
    (re.compile(rb"\x89PNG\r\n\x1a\n"), "PNG", PngImageFile),
    (re.compile(rb"RIFF....WEBPVP8[ LX]", re.DOTALL), "WebP", WebPImageFile),
    (re.compile(rb"GIF8[79]a"), "GIF", GifImageFile),
    (re.compile(rb"BM.{12}[\x0c\x10-\x7f]\0\0\0", re.DOTALL), "BMP", BmpImageFile),
    (re.compile(rb"II[*+]\0|MM\0[*+]"), "TIFF", TiffImageFile),
    (re.compile(rb"P[4-6]\s|Pf\s"), "PNM", PpmImageFile),
    (re.compile(rb"....ftyp(avif|avis|mif1|msf1|miaf|MA1[AB])", re.DOTALL), "AVIF", AvifImageFile),
)
AVIF_BRANDS = {b"avif", b"avis"}
MAX_BRAND_BYTES = 1024
XML_HEAD = rb"(\xef\xbb\xbf)?\s*(<\?xml[^>]*>\s*)?(<!--((?!-->).)*-->\s*)*"  # with one way only to match: never slow
OTHERS: tuple[tuple[re.Pattern[bytes], str], ...] = (
    (re.compile(rb"\0\x05\x16[\0\x07]"), "AppleDouble side file, as macOS leaves in archives; not an image"),
    (re.compile(rb"version https://git-lfs"), "a Git LFS pointer instead of the picture: 'git lfs pull' fetches it"),
    (re.compile(rb"....ftyp(hei|hev|mif1|msf1|miaf)", re.DOTALL), "HEIC is not supported: convert it to JPEG or PNG"),
    (re.compile(rb"\xff\x0a|\0\0\0\x0cJXL "), "JPEG XL is not supported: convert it to JPEG or PNG"),
    (re.compile(rb"\0\0\0\x0cjP  |\xff\x4f\xff\x51"), "JPEG 2000 is not supported: convert it to JPEG or PNG"),
    (re.compile(rb"P[1-3]\s|PF\s|P7\s"), "PNM as text, colour PFM and PAM are not supported: convert to PNG"),
    (re.compile(rb"v/1\x01|#\?RADIANCE"), "EXR and Radiance HDR are not supported: convert to 8 or 16 bits"),
    (re.compile(rb"II\xbc\x01"), "JPEG XR is not supported: convert it to JPEG or PNG"),
    (re.compile(rb"DDS |qoif|\0\0[\1\2]\0.\0?"), "DDS, QOI and icons are not supported: convert to PNG"),
    (re.compile(rb".{128}DICM", re.DOTALL), "DICOM is not supported: convert it to PNG"),
    (re.compile(rb"SIMPLE  ="), "FITS is not supported: convert it to PNG"),
    (re.compile(rb"8BPS"), "Photoshop files are not supported: convert to JPEG or PNG"),
    (re.compile(rb"%PDF|%!PS|\xc5\xd0\xd3\xc6"), "PDF and PostScript are not supported"),
    (re.compile(XML_HEAD + rb"(<!DOCTYPE svg[^>]*>\s*)?<svg", re.IGNORECASE | re.DOTALL), "SVG is not supported"),
    (re.compile(XML_HEAD + rb"<(!doctype|[a-z])", re.IGNORECASE | re.DOTALL), "not an image (HTML or XML)"),
    (re.compile(rb"(\xef\xbb\xbf)?[\t\n\r\x20-\x7e]{1,512}\Z"), "not an image (text)"),
)


def is_image(first_bytes: bytes) -> bool:
    """Whether a file that begins like this (16 bytes are enough) may be an image that we open."""
    return any(magic.match(first_bytes) for magic, _, _ in FORMATS)


def open_image(data: bytes) -> Image:
    """A file's bytes -> the picture, upright, mode RGB, loaded, without metadata. Safe to call from several threads.

    Raises ImageRejected, and nothing else, whatever the bytes are.
    """
    name, decoder = _find_format(data)
    _hush_pillow()
    metadata = None
    try:
        if name == "PNG":
            data, metadata = pixels_alone(data, name)
        return _open(data, name, decoder, metadata)
    except ImageRejected:
        raise
    except Exception as error:  # decoders raise whatever they like: OSError, SyntaxError, struct.error, KeyError...
        image = _open_without_metadata(data, name, decoder)
        if image is not None:
            return image
        raise ImageRejected(_explain(error, name, data)) from error


def _open(data: bytes, name: str, decoder: Decoder, metadata: Metadata | None) -> Image:
    """`metadata`: where it has been taken out of the data."""
    _check_size(_read_early_size(data), data, name)
    found = open_tiff(data) if name == "TIFF" else None
    if found is not None:
        image, orientation = found
        return _turn_upright(_to_rgb(image, name), orientation)
    with decoder(io.BytesIO(data)) as image:
        _check_size(image.size, data, name)
        _check_strips(image, name)
        image.load()
        rgb = _to_rgb(image, name)
        return _turn_upright(rgb, _find_orientation(image, metadata))


def _open_without_metadata(data: bytes, name: str, decoder: Decoder) -> Image | None:
    """Another try at a file that could not be opened, without what is not pixels; None where that helps nothing."""
    try:
        if name == "TIFF":
            found = open_tiff(data, ask_pillow=False)
            return None if found is None else _turn_upright(_to_rgb(found[0], name), found[1])
        alone, metadata = pixels_alone(data, name)
        return None if alone == data else _open(alone, name, decoder, metadata)
    except Exception:  # what was wrong at first is said
        return None


def _find_format(data: bytes) -> tuple[str, Decoder]:
    for magic, name, decoder in FORMATS:
        if magic.match(data) and (name != "AVIF" or AVIF_BRANDS & set(_read_brands(data))):
            return name, decoder
    if not data:
        raise ImageRejected("empty file")
    head = data[:512]
    for magic, reason in OTHERS:
        if magic.match(head):
            raise ImageRejected(reason)
    raise ImageRejected("all bytes are zero" if not any(head) else "not an image of a known format")


def _read_brands(data: bytes) -> list[bytes]:
    """Of an ISO media file: the major one, then those that it is compatible with."""
    size = min(int.from_bytes(data[:4], "big"), len(data), MAX_BRAND_BYTES)
    return [data[8:12], *[data[at : at + 4] for at in range(16, size - 3, 4)]]


def _hush_pillow() -> None:
    """Keep what Pillow's plugins say about odd metadata, and their own bomb warning, from a person's terminal.

    `warnings.catch_warnings` saves and restores a list that all threads share, so it must not be used in one of
    several. A filter for Pillow's own modules is put in front instead, and left there. For the same reason
    LOAD_TRUNCATED_IMAGES, which some libraries switch on for the whole process, is switched off and not restored.
    """
    first = warnings.filters[0] if warnings.filters else None
    if first is None or first[0] != "ignore" or getattr(first[3], "pattern", None) != PILLOWS_MODULES:
        warnings.filterwarnings("ignore", module=PILLOWS_MODULES)
    if ImageFile.LOAD_TRUNCATED_IMAGES:
        logger.warning("another library told Pillow to accept truncated pictures; switched off")
        ImageFile.LOAD_TRUNCATED_IMAGES = False


def _read_early_size(data: bytes) -> tuple[int, int]:
    """Width and height of a WebP, whose decoder allocates the whole canvas before it tells; (1, 1) of all others."""
    kind = data[8:16]
    if kind == b"WEBPVP8X" and len(data) >= 30:
        return 1 + int.from_bytes(data[24:27], "little"), 1 + int.from_bytes(data[27:30], "little")
    if kind == b"WEBPVP8L" and len(data) >= 25:
        (bits,) = struct.unpack_from("<I", data, 21)
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    if kind == b"WEBPVP8 " and len(data) >= 30:
        width, height = struct.unpack_from("<HH", data, 26)
        return width & 0x3FFF, height & 0x3FFF
    return 1, 1


def _check_size(size: tuple[int, int], data: bytes, name: str) -> None:
    width, height = size
    if width < 1 or height < 1:
        raise ImageRejected(f"{width}x{height}: no pixels")
    if width * height > MAX_PIXELS:
        raise ImageRejected(f"{width}x{height}: more than {MAX_PIXELS} pixels")
    if name == "WebP" and max(size) > WEBP_SIDE:
        raise ImageRejected(f"{width}x{height}: a WebP has at most {WEBP_SIDE} pixels a side")
    if name != "JPEG" or width * height * (len(data) // SCAN_BYTES) <= MAX_SCANNED_PIXELS:
        return  # too short a file for so many scans
    if width * height * data.count(b"\xff\xda") > MAX_SCANNED_PIXELS:
        raise ImageRejected(f"{width}x{height} JPEG with {data.count(bytes([0xFF, 0xDA]))} scans: too much work")


def _check_strips(image: ImageFile.ImageFile, name: str) -> None:
    """Pillow leaves black what no strip or tile of an uncompressed TIFF covers."""
    boxes = [tile.extents for tile in image.tile if tile.extents is not None]
    covered = sum((right - left) * (lower - upper) for left, upper, right, lower in boxes)
    if name == "TIFF" and covered < image.width * image.height:
        raise ImageRejected("truncated TIFF")


def _to_rgb(image: Image, name: str) -> Image:
    """Any mode of Pillow's -> RGB, a picture of its own, without the file's metadata."""
    if image.mode.startswith("I;16"):
        bits = image.tag_v2.get(BITS_PER_SAMPLE, (16,))[0] if isinstance(image, TiffImageFile) else 16
        rgb = _scale_grey(image, (1 << bits) - 1)
    elif image.mode == "I":
        if name != "PNM":  # whose reader scales every maximum to 65535
            raise ImageRejected("32-bit integer samples: nothing says which of them is white")
        rgb = _scale_grey(image, 65535)
    elif image.mode == "F":
        rgb = _scale_grey(image, 1)
    elif image.mode == "LAB":
        lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
        converted = ImageCms.applyTransform(image, ImageCms.buildTransform(lab, srgb, "LAB", "RGB"))
        assert converted is not None  # None comes back from conversion in place only
        rgb = converted
    else:
        image.info.pop("transparency", None)  # Pillow would warn of it, and look for a free colour in the palette
        straight = {"RGBa": "RGBA", "La": "LA"}.get(image.mode)
        rgb = (image.convert(straight) if straight else image).convert("RGB")
    rgb.info = {}
    return rgb


def _scale_grey(image: Image, white: int) -> Image:
    """Samples in 0..white -> RGB, rounded to the nearest of 256 levels. By bands, to save memory."""
    samples = np.asarray(image)
    white_is_zero = isinstance(image, TiffImageFile) and image.tag_v2.get(PHOTOMETRIC) == 0
    grey = np.empty(samples.shape, np.uint8)
    rows = max(1, BAND_PIXELS // image.width)
    for first in range(0, image.height, rows):
        levels = samples[first : first + rows].astype(np.float32) / white
        if not (levels.min() >= 0 and levels.max() <= 1):  # written so that NaN is outside
            raise ImageRejected("floating-point samples outside of 0..1")
        levels = 1 - levels if white_is_zero else levels
        grey[first : first + rows] = levels * 255 + 0.5
    return fromarray(grey).convert("RGB")


def _find_orientation(image: ImageFile.ImageFile, metadata: Metadata | None) -> int:
    """1 to 8. A TIFF has turned itself by now, and says 1."""
    exif: Exif
    try:
        if metadata is None:
            return int(image.getexif().get(ORIENTATION, 1))
        exif = Exif()
        exif.load(metadata.exif or b"")
        if ORIENTATION not in exif and metadata.xmp is not None:
            return orientation_in_xmp(metadata.xmp) or 1
        return int(exif.get(ORIENTATION, 1))
    except Exception:  # a damaged EXIF block says nothing, and the pixels are fine
        return 1


def _turn_upright(rgb: Image, orientation: int) -> Image:
    return rgb.transpose(UPRIGHT[orientation]) if orientation in UPRIGHT else rgb


def _explain(error: BaseException, name: str, data: bytes) -> str:
    if isinstance(error, SyntaxError) and error.__cause__ is not None:  # Pillow's disguise of what a header led to
        error = error.__cause__
    if isinstance(error, MemoryError):
        return f"damaged {name} (its decoder ran out of memory)"
    said = str(error) if isinstance(error, OSError | SyntaxError | ValueError) else ""  # the rest is Python's wording
    coding = _jpeg_coding(data) if name == "JPEG" else None
    if coding is not None:
        return f"{coding} is not supported: convert it to ordinary JPEG or PNG"
    if isinstance(error, EOFError) or "truncated" in said.lower():
        return f"truncated {name}"
    said = NOISE.sub("...", " ".join(said.split()))
    said = said.encode("ascii", "backslashreplace").decode()[:REASON_LENGTH]
    if UNSUPPORTED.search(said):
        return f"a kind of {name} that is not supported ({said})"
    return f"damaged {name} ({said})" if said else f"damaged {name}"


def _jpeg_coding(data: bytes) -> str | None:
    """A coding that Pillow's decoder lacks, by the frame's header; None where it is an ordinary one."""
    at = 2
    while at + 10 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker in JPEG_CODINGS:
            return JPEG_CODINGS[marker]
        if marker in JPEG_FRAMES:
            bits, layers = data[at + 4], data[at + 9]
            if bits != 8:
                return f"JPEG of {bits} bits"
            return f"JPEG of {layers} layers" if layers not in (1, 3, 4) else None
        if marker == 0xDA:
            return None
        at += 1 if marker == 0xFF else 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return None
