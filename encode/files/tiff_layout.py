"""The directory of a TIFF: how its samples lie, whether Pillow reads them right, and what is not supported."""

import struct
from dataclasses import dataclass

from lvae.encode.files.rejection import MAX_PIXELS, ImageRejected

NOT_SUPPORTED = "is not supported: convert the picture to 8-bit RGB"

BITS, COMPRESSION, PHOTOMETRIC, FILL_ORDER, ORIENTATION, SAMPLES = 258, 259, 262, 266, 274, 277
SUBFILE, WIDTH, HEIGHT, STRIPS, ROWS_PER_STRIP, STRIP_BYTES = 254, 256, 257, 273, 278, 279
TILE_WIDTH, TILE_HEIGHT, TILES, TILE_BYTES, SUB_DIRECTORIES, XMP = 322, 323, 324, 325, 330, 700
PLANAR, PREDICTOR, COLOUR_MAP, INK_SET, EXTRA, SAMPLE_FORMAT = 284, 317, 320, 332, 338, 339
COEFFICIENTS, SUBSAMPLING, REFERENCE_BLACK_WHITE, JPEG_XR = 529, 530, 532, 0xBC01

WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, PALETTE, CMYK, YCBCR, LAB = 0, 1, 2, 3, 5, 6, 8
COLOURS = {WHITE_IS_ZERO: 1, BLACK_IS_ZERO: 1, RGB: 3, PALETTE: 1, CMYK: 4, YCBCR: 3, LAB: 3}  # samples of each
OTHER_COLOURS = {
    4: "a transparency mask",
    9: "ICC Lab",
    10: "ITU Lab",
    32803: "a camera's raw mosaic",
    32844: "LogL",
    32845: "LogLuv",
    34892: "linear raw",
    51177: "a depth map",
}
RAW, OLD_JPEG, JPEG = 1, 6, 7
DEFLATE = (8, 32946)
LOSSLESS = (RAW, 5, *DEFLATE, 32773, 34925, 50000)  # LZW, Deflate, PackBits, LZMA, Zstandard
PREDICTED = (5, *DEFLATE, 34925, 50000)
FAX = (2, 3, 4, 32771)
OTHER_COMPRESSIONS = {
    32766: "NeXT",
    32809: "ThunderScan",
    33003: "JPEG 2000",
    33004: "JPEG 2000",
    33005: "JPEG 2000",
    34661: "JBIG",
    34676: "SGI LogLuv",
    34677: "SGI LogLuv",
    34712: "JPEG 2000",
    34887: "LERC",
    34892: "DNG's lossy JPEG",
    34933: "PNG",
    34934: "JPEG XR",
    50001: "WebP",
    50002: "JPEG XL",
    52546: "JPEG XL",
}
UNSIGNED, SIGNED, FLOAT, UNDEFINED = 1, 2, 3, 4
FLOAT_BITS = (16, 32, 64)
UNASSOCIATED = 2
PREMULTIPLIED = 1
CCIR_601 = (0.299, 0.587, 0.114)
FULL_RANGE = (0, 255, 128, 255, 128, 255)
MAX_SAMPLE_BYTES = 1 << 31
MAX_TAGS = 4096
MAX_VALUES = 3 << 22
TYPES = {1: "B", 2: "B", 3: "H", 4: "I", 6: "b", 7: "B", 8: "h", 9: "i", 11: "f", 12: "d", 13: "I", 16: "Q", 17: "q"}
RATIONALS = {5: "II", 10: "ii"}

READ = {
    BITS,
    COMPRESSION,
    PHOTOMETRIC,
    FILL_ORDER,
    ORIENTATION,
    SAMPLES,
    SUBFILE,
    WIDTH,
    HEIGHT,
    STRIPS,
    ROWS_PER_STRIP,
}
READ |= {STRIP_BYTES, TILE_WIDTH, TILE_HEIGHT, TILES, TILE_BYTES, SUB_DIRECTORIES, XMP, PLANAR, PREDICTOR, COLOUR_MAP}
READ |= {INK_SET, EXTRA, SAMPLE_FORMAT, COEFFICIENTS, SUBSAMPLING, REFERENCE_BLACK_WHITE, JPEG_XR}

BESIDE = {SUB_DIRECTORIES, XMP}  # a file may lose these

Tags = dict[int, tuple[float, ...]]


@dataclass(frozen=True)
class Layout:
    """How a picture's samples lie in its file."""

    order: str  # "<" or ">"
    width: int
    height: int
    bits: int
    format: int  # UNSIGNED, SIGNED or FLOAT
    samples: int  # of a pixel, extra ones among them
    planes: bool
    colours: int  # PHOTOMETRIC
    extra: tuple[int, ...]
    compression: int
    predictor: int
    reversed_bits: bool
    subsampling: tuple[int, int]  # of YCbCr

    @property
    def interleaved(self) -> int:
        """Samples of a pixel that lie beside each other."""
        return 1 if self.planes else self.samples


def read_tags(data: bytes) -> tuple[str | None, Tags]:
    """The byte order and the numbers of the first directory; no order where it is damaged."""
    order = "<" if data[:2] == b"II" else ">"
    big = 43 in data[2:4]
    try:
        (start,) = struct.unpack_from(order + ("Q" if big else "I"), data, 8 if big else 4)
        (count,) = struct.unpack_from(order + ("Q" if big else "H"), data, start)
        first, size, head = (start + 8, 20, "HHQ") if big else (start + 2, 12, "HHI")
        found: Tags = {}
        for number in range(min(count, MAX_TAGS)):
            at = first + number * size
            tag, kind, values = struct.unpack_from(order + head, data, at)
            if tag not in READ:
                continue
            read = _values(
                data, order, (tag, kind, values), at + struct.calcsize("=" + head), size // 5 * 2 if big else 4
            )
            if read:
                found.setdefault(tag, read)
    except (struct.error, OverflowError):
        return None, {}
    return order, found


def _values(data: bytes, order: str, entry: tuple[int, int, int], at: int, inline: int) -> tuple[float, ...]:
    """The numbers of one entry (tag, type, count); none where it holds something else."""
    tag, kind, count = entry
    letters = TYPES.get(kind) or RATIONALS.get(kind)
    if letters is None or not 0 < count <= MAX_VALUES:
        return ()
    size = count * struct.calcsize("=" + letters)
    if size > inline:
        (at,) = struct.unpack_from(order + ("Q" if inline == 8 else "I"), data, at)
    if at + size > len(data):
        if tag in BESIDE:
            return ()
        raise ImageRejected("truncated TIFF")
    values = struct.unpack_from(f"{order}{count * len(letters)}{letters[0]}", data, at)
    if kind in RATIONALS:
        return tuple(over / under if under else 0.0 for over, under in zip(values[::2], values[1::2], strict=True))
    return values


def first(tags: Tags, tag: int, default: float) -> float:
    return tags.get(tag, (default,))[0]


def layout_of(order: str, tags: Tags) -> Layout | None:
    """None where a size is missing or none, which Pillow says."""
    width, height = first(tags, WIDTH, 0), first(tags, HEIGHT, 0)
    bits, samples = tags.get(BITS, (1,)), int(first(tags, SAMPLES, 1))
    if min(width, height, samples) < 1 or int(width) != width or int(height) != height:
        return None
    if JPEG_XR in tags:
        raise ImageRejected(f"TIFF: JPEG XR {NOT_SUPPORTED}")
    if int(first(tags, SUBFILE, 0)) & 1 and SUB_DIRECTORIES in tags:
        raise ImageRejected("TIFF: a camera's raw file, whose first picture is a thumbnail, is not supported")
    formats = {int(one) for one in tags.get(SAMPLE_FORMAT, (UNSIGNED,))}
    if len(set(bits[:samples])) > 1 or len(formats) > 1:
        raise ImageRejected(f"TIFF: samples of different kinds in one pixel {NOT_SUPPORTED}")
    colours = int(first(tags, PHOTOMETRIC, WHITE_IS_ZERO))
    subsampling = tags.get(SUBSAMPLING, (2, 2))
    form = formats.pop()
    return Layout(
        order=order,
        width=int(width),
        height=int(height),
        bits=int(bits[0]),
        format=UNSIGNED if form == UNDEFINED else form,
        samples=samples,
        planes=first(tags, PLANAR, 1) == 2 and samples > 1,
        colours=colours,
        extra=tuple(map(int, tags.get(EXTRA, ()))),
        compression=int(first(tags, COMPRESSION, RAW)),
        predictor=int(first(tags, PREDICTOR, 1)),
        reversed_bits=first(tags, FILL_ORDER, 1) == 2,
        subsampling=(int(subsampling[0]), int(subsampling[-1])),
    )


def pillow_reads(layout: Layout, tags: Tags) -> bool:
    if layout.compression == OLD_JPEG:
        return True
    known = layout.compression in (*LOSSLESS, *FAX, JPEG)
    if not known or first(tags, PLANAR, 1) == 2 or layout.format != UNSIGNED or layout.bits > 8:
        return False  # of a single plane, too, which Pillow takes apart
    if layout.compression == RAW and layout.reversed_bits:
        return False
    whole_bytes = layout.bits == 8
    match layout.colours:
        case 0 | 1:
            return layout.samples == 1 and layout.bits in (1, 2, 4, 8)
        case 2:
            few = layout.samples == 3 or (layout.samples == 4 and len(layout.extra) <= 1)
            return whole_bytes and few and set(layout.extra) <= {0, PREMULTIPLIED, UNASSOCIATED}
        case 3:
            return whole_bytes and layout.samples == 1 and max(tags.get(COLOUR_MAP, (0,))) > 255
        case 5:
            return whole_bytes and layout.samples == 4 and first(tags, INK_SET, 1) == 1
        case 6:
            return whole_bytes and layout.compression == JPEG and layout.samples == 3
        case 8:
            return whole_bytes and layout.samples == 3
    return False


def refuse_unsupported(layout: Layout, tags: Tags) -> None:
    """Raise ImageRejected, naming the feature, for what is not read here."""
    said = _unsupported(layout, tags)
    if said is not None:
        raise ImageRejected(f"TIFF: {said} {NOT_SUPPORTED}")
    if layout.format == SIGNED or (layout.format == UNSIGNED and layout.bits > 16):
        sign = "signed " if layout.format == SIGNED else ""
        raise ImageRejected(f"{sign}{layout.bits}-bit integer samples: nothing says which of them is white")
    size = f"{layout.width}x{layout.height}"
    if layout.width * layout.height > MAX_PIXELS:
        raise ImageRejected(f"{size}: more than {MAX_PIXELS} pixels")
    if layout.width * layout.height * layout.samples * layout.bits // 8 > MAX_SAMPLE_BYTES:
        raise ImageRejected(f"{size}: more than {MAX_SAMPLE_BYTES >> 20} MiB of samples")


def _unsupported(layout: Layout, tags: Tags) -> str | None:
    form, compression, samples = layout.format, layout.compression, layout.samples
    if layout.colours not in COLOURS:
        return OTHER_COLOURS.get(layout.colours, f"colour model {layout.colours}")
    if compression not in (*LOSSLESS, *FAX, JPEG):
        return f"{OTHER_COMPRESSIONS.get(compression, f'compression {compression}')} compression"
    kinds = {UNSIGNED: "unsigned", SIGNED: "signed", FLOAT: "floating-point"}
    if form not in kinds:
        return "complex samples" if form in (5, 6) else f"sample format {form}"
    if compression not in LOSSLESS:
        place = "planes of" if layout.planes else f"{samples} x"
        return f"a lossy or fax compression with {place} {layout.bits}-bit {kinds[form]} samples"
    if form == FLOAT and layout.bits not in FLOAT_BITS:
        return f"{layout.bits}-bit floating point"
    if layout.order == ">" and 8 < layout.bits < 16:
        return f"big-endian order of {layout.bits}-bit samples"  # writers pack them in different ways
    colours = COLOURS[layout.colours]
    grey = layout.colours in (WHITE_IS_ZERO, BLACK_IS_ZERO)
    if samples < colours or (grey and samples > 2):
        return f"{samples} samples a pixel in colour model {layout.colours}"
    if layout.colours == WHITE_IS_ZERO and PREMULTIPLIED in layout.extra:
        return "white-is-zero with premultiplied alpha"
    if layout.colours == CMYK and first(tags, INK_SET, 1) != 1:
        return "inks other than CMYK"
    if layout.colours == LAB and (form != UNSIGNED or layout.bits not in (8, 16)):
        return f"Lab of {layout.bits} bits"
    if layout.colours == PALETTE and (form != UNSIGNED or layout.bits > 16):
        return f"a palette of {layout.bits} bits"
    if layout.colours == YCBCR:
        return _unsupported_ycbcr(layout, tags)
    if compression in PREDICTED and not _predictor_fits(layout):
        return f"predictor {layout.predictor} of {layout.bits}-bit samples"
    return None


def _unsupported_ycbcr(layout: Layout, tags: Tags) -> str | None:
    across, down = layout.subsampling
    if layout.bits != 8 or layout.format != UNSIGNED or layout.predictor != 1:
        return f"YCbCr of {layout.bits}-bit samples"
    if across not in (1, 2, 4) or down not in (1, 2, 4) or (layout.subsampling != (1, 1) and layout.samples > 3):
        return f"YCbCr with subsampling {across}x{down}"
    if layout.planes and layout.subsampling != (1, 1):
        return "subsampled YCbCr in planes"
    ranges, weights = tags.get(REFERENCE_BLACK_WHITE, FULL_RANGE), tags.get(COEFFICIENTS, CCIR_601)
    near = len(weights) == 3 and all(abs(a - b) < 1e-3 for a, b in zip(weights, CCIR_601, strict=True))
    return None if near and tuple(ranges) == FULL_RANGE else "YCbCr of other coefficients or ranges"


def _predictor_fits(layout: Layout) -> bool:
    if layout.predictor == 3:
        return layout.format == FLOAT
    return layout.predictor == 1 or (layout.predictor == 2 and layout.bits in (8, 16, 32, 64))
