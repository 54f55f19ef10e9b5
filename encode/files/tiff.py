"""TIFFs whose samples lie in ways that Pillow misreads or does not know, decoded by arithmetic on strips and tiles.

Pillow is asked only for what it reads right: unsigned samples of up to 8 bits, interleaved, in the common colour
models. Everything else that a lossless compression can hold is read here: 1 to 16 bits and floats of 16, 32 and 64,
planes or interleaved, strips or tiles, TIFF or BigTIFF; grey, palette, RGB, CMYK, Lab and YCbCr, with extra samples.
What is left is rejected by the name of the feature. libtiff, by way of Pillow, unpacks the compressions: it is shown
each strip as 8-bit grey, so that it has nothing to interpret.
"""

import io
import math
import struct
import zlib
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL.Image import Image, fromarray, frombytes
from PIL.TiffImagePlugin import TiffImageFile

from lvae.encode.files.metadata import orientation_in_xmp
from lvae.encode.files.rejection import MAX_PIXELS, ImageRejected
from lvae.encode.files.tiff_layout import (
    BITS,
    COLOUR_MAP,
    COLOURS,
    COMPRESSION,
    DEFLATE,
    FILL_ORDER,
    FLOAT,
    HEIGHT,
    NOT_SUPPORTED,
    ORIENTATION,
    PALETTE,
    PHOTOMETRIC,
    PREDICTED,
    PREMULTIPLIED,
    RAW,
    ROWS_PER_STRIP,
    SAMPLES,
    STRIP_BYTES,
    STRIPS,
    TILE_BYTES,
    TILE_HEIGHT,
    TILE_WIDTH,
    TILES,
    UNSIGNED,
    WHITE_IS_ZERO,
    WIDTH,
    XMP,
    YCBCR,
    Layout,
    Tags,
    first,
    layout_of,
    pillow_reads,
    read_tags,
    refuse_unsupported,
)

MAX_PIECES = 1 << 20  # strips and tiles
REVERSED_BITS = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


class Piece(NamedTuple):
    """A strip or tile: its bytes, the plane it belongs to, its corner in the picture, and its size."""

    data: bytes
    plane: int
    left: int
    top: int
    width: int
    rows: int


def open_tiff(data: bytes, ask_pillow: bool = True) -> tuple[Image, int] | None:
    """The first picture of a TIFF (L, RGB, CMYK, LAB or YCbCr) and its orientation; None where Pillow reads it right.

    ask_pillow: False where Pillow has failed. Raises ImageRejected.
    """
    order, tags = read_tags(data)
    if order is None:
        return None  # no directory that makes sense: Pillow says what is wrong
    layout = layout_of(order, tags)
    if layout is None or (ask_pillow and data[:4] != b"MM\0+" and pillow_reads(layout, tags)):
        return None  # Pillow takes big-endian BigTIFF for a small one
    refuse_unsupported(layout, tags)
    image = _image(_eight_bits(_samples(data, layout, tags), layout, tags), layout)
    return image, int(first(tags, ORIENTATION, 0)) or orientation_in_xmp(bytes(map(int, tags.get(XMP, ())))) or 1


# --- samples ------------------------------------------------------------------------------------------------------


def _samples(data: bytes, layout: Layout, tags: Tags) -> NDArray[np.generic]:
    """(height, width, samples), as stored; without the extra ones that no colour needs."""
    wanted = _wanted(layout)
    found: NDArray[np.generic] | None = None
    for piece in _pieces(data, layout, tags):
        if layout.planes and piece.plane not in wanted:
            continue
        if layout.colours == YCBCR and not layout.planes:
            block: NDArray[np.generic] = _upsampled(piece, layout)
        else:
            block = _unpack(piece, layout)
            block = block if layout.planes else block[:, :, wanted]
        if found is None:
            found = np.zeros((layout.height, layout.width, len(wanted)), block.dtype)
        place = wanted.index(piece.plane) if layout.planes else slice(None)
        rows, columns = min(piece.rows, layout.height - piece.top), min(piece.width, layout.width - piece.left)
        block = block[:rows, :columns]
        target = found[piece.top : piece.top + rows, piece.left : piece.left + columns, place]
        target[...] = block[..., 0] if layout.planes else block
    assert found is not None
    return found


def _wanted(layout: Layout) -> list[int]:
    """The samples that make the picture: its colours, and an alpha by which they are multiplied."""
    colours = COLOURS[layout.colours]
    alpha = [colours + number for number, kind in enumerate(layout.extra) if kind == PREMULTIPLIED]
    return [*range(colours), *[number for number in alpha[:1] if number < layout.samples]]


def _pieces(data: bytes, layout: Layout, tags: Tags) -> Iterator[Piece]:
    """Strips or tiles, unpacked, one after the other."""
    tiled = TILES in tags
    width = int(first(tags, TILE_WIDTH, 0)) if tiled else layout.width
    rows = (
        int(first(tags, TILE_HEIGHT, 0))
        if tiled
        else min(int(first(tags, ROWS_PER_STRIP, layout.height)), layout.height)
    )
    offsets = tags.get(TILES if tiled else STRIPS, ())
    lengths = tags.get(TILE_BYTES if tiled else STRIP_BYTES, ())
    if min(width, rows) < 1 or width * rows > MAX_PIXELS:
        raise ImageRejected("damaged TIFF (strips or tiles of an impossible size)")
    across, down = math.ceil(layout.width / width), math.ceil(layout.height / rows)
    planes = layout.samples if layout.planes else 1
    if across * down * planes > MAX_PIECES:
        raise ImageRejected(f"TIFF: more than {MAX_PIECES} strips or tiles {NOT_SUPPORTED}")
    if len(offsets) < across * down * planes:
        raise ImageRejected("truncated TIFF")
    for number in range(across * down * planes):
        plane, place = divmod(number, across * down)
        top, left = place // across * rows, place % across * width
        height = rows if tiled else min(rows, layout.height - top)
        start = int(offsets[number])
        stop = start + int(lengths[number]) if number < len(lengths) else len(data)
        form = _piece_bytes(layout, width, height)
        yield Piece(_unpacked(data, start, stop, form, layout), plane, left, top, width, height)


def _piece_bytes(layout: Layout, width: int, rows: int) -> tuple[int, int]:
    """Bytes of a line and lines of a strip or tile."""
    if layout.colours == YCBCR and not layout.planes:
        across, down = layout.subsampling
        return math.ceil(width / across) * (across * down + layout.samples - 1), math.ceil(rows / down)
    return math.ceil(width * layout.interleaved * layout.bits / 8), rows


def _unpacked(data: bytes, start: int, stop: int, form: tuple[int, int], layout: Layout) -> bytes:
    line, rows = form
    size = line * rows
    if layout.compression == RAW:
        found = data[start : start + size]
        found = found.translate(REVERSED_BITS) if layout.reversed_bits else found
    elif layout.compression in DEFLATE and not layout.reversed_bits:
        try:
            found = zlib.decompressobj().decompress(data[start:stop], size)
        except zlib.error as error:
            raise ImageRejected("damaged TIFF (its compressed samples)") from error
    else:
        found = _by_libtiff(data[start:stop], line, rows, layout)
    if len(found) < size:
        raise ImageRejected("truncated TIFF")
    return found


def _by_libtiff(packed: bytes, line: int, rows: int, layout: Layout) -> bytes:
    """Unpack a strip, shown to libtiff as a picture of 8-bit grey."""
    entries = [(WIDTH, 4, line), (HEIGHT, 4, rows), (BITS, 3, 8), (COMPRESSION, 3, layout.compression)]
    entries += [(PHOTOMETRIC, 3, 1), (FILL_ORDER, 3, 2 if layout.reversed_bits else 1), (STRIPS, 4, 8)]
    entries += [(SAMPLES, 3, 1), (ROWS_PER_STRIP, 4, rows), (STRIP_BYTES, 4, len(packed))]
    directory = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in entries)
    start = 8 + len(packed) + len(packed) % 2
    head = b"II*\0" + struct.pack("<I", start) + packed + bytes(len(packed) % 2)
    try:
        with TiffImageFile(io.BytesIO(head + struct.pack("<H", len(entries)) + directory + bytes(4))) as image:
            return image.tobytes()
    except Exception as error:  # whatever a decoder raises
        raise ImageRejected("damaged or truncated TIFF (its compressed samples)") from error


def _unpack(piece: Piece, layout: Layout) -> NDArray[np.generic]:
    """Bytes of a strip or tile -> (rows, width, samples)."""
    shape = (piece.rows, piece.width, layout.interleaved)
    predictor = layout.predictor if layout.compression in PREDICTED else 1
    if layout.bits not in (8, 16, 32, 64):
        return _unpack_bits(piece, layout, shape)
    kind = "f" if layout.format == FLOAT else "u"
    if predictor == 3:
        data = np.frombuffer(piece.data, np.uint8).reshape(piece.rows, -1, layout.interleaved)
        sums = np.cumsum(data, 1, np.uint8).reshape(piece.rows, layout.bits // 8, -1)  # bytes by significance
        return np.ascontiguousarray(sums.transpose(0, 2, 1)).view(f">f{layout.bits // 8}").reshape(shape)
    if predictor == 2:
        steps = np.frombuffer(piece.data, f"{layout.order}u{layout.bits // 8}").reshape(shape)
        sums = np.cumsum(steps, 1, f"u{layout.bits // 8}")
        return sums.view(f"f{layout.bits // 8}") if kind == "f" else sums
    return np.frombuffer(piece.data, f"{layout.order}{kind}{layout.bits // 8}").reshape(shape)


def _unpack_bits(piece: Piece, layout: Layout, shape: tuple[int, int, int]) -> NDArray[np.generic]:
    """Samples of an odd number of bits, packed from the highest bit on, in lines of whole bytes."""
    lines = np.frombuffer(piece.data, np.uint8).reshape(piece.rows, -1)
    weights = (1 << np.arange(layout.bits - 1, -1, -1)).astype(np.uint16)
    found = np.empty((piece.rows, shape[1] * shape[2]), np.uint16)
    for row in range(piece.rows):  # one at a time, since bits take sixteen times the room
        bits = np.unpackbits(lines[row])[: found.shape[1] * layout.bits].reshape(-1, layout.bits)
        found[row] = bits @ weights
    return found.reshape(shape)


def _upsampled(piece: Piece, layout: Layout) -> NDArray[np.uint8]:
    """Units of YCbCr (across x down lumas, then Cb and Cr) -> (rows, width, 3)."""
    across, down = layout.subsampling
    line, rows = _piece_bytes(layout, piece.width, piece.rows)
    size = across * down + layout.samples - 1
    units = np.frombuffer(piece.data, np.uint8).reshape(rows, line // size, size)
    blocks = units[..., : across * down].reshape(rows, -1, down, across)
    luma = blocks.transpose(0, 2, 1, 3).reshape(rows * down, -1)
    chroma = units[..., across * down : across * down + 2].repeat(down, 0).repeat(across, 1)
    return np.dstack([luma, chroma])[: piece.rows, : piece.width]


# --- pixels -------------------------------------------------------------------------------------------------------


def _eight_bits(samples: NDArray[np.generic], layout: Layout, tags: Tags) -> NDArray[np.uint8]:
    """As stored -> 0 to 255: grey rounded, colours of more than 8 bits by their highest, as of other formats."""
    if layout.colours == PALETTE:
        return _palette(samples[..., 0], layout, tags)
    colours = COLOURS[layout.colours]
    levels = _scaled(samples, layout, colours)
    if levels.shape[2] > colours:
        alpha = levels[..., colours:].astype(np.uint16)
        straight = levels[..., :colours].astype(np.uint16) * 255 // np.maximum(alpha, 1)
        levels = np.where(alpha == 0, 0, np.minimum(straight, 255)).astype(np.uint8)
    return levels


def _scaled(samples: NDArray[np.generic], layout: Layout, colours: int) -> NDArray[np.uint8]:
    if layout.bits == 8:
        return (255 - samples if layout.colours == WHITE_IS_ZERO else samples).astype(np.uint8)
    found = np.empty(samples.shape, np.uint8)
    white = np.float32(1 if layout.format == FLOAT else (1 << layout.bits) - 1)
    high = layout.format == UNSIGNED and layout.bits > 8 and colours > 1
    for row, line in enumerate(samples):
        if high:
            found[row] = line >> (layout.bits - 8)
            continue
        levels = line.astype(np.float32) / white
        if not (levels.min() >= 0 and levels.max() <= 1):  # written so that NaN is outside
            raise ImageRejected("floating-point samples outside of 0..1")
        found[row] = (1 - levels if layout.colours == WHITE_IS_ZERO else levels) * 255 + 0.5
    return found


def _palette(indices: NDArray[np.generic], layout: Layout, tags: Tags) -> NDArray[np.uint8]:
    entries = np.array(tags.get(COLOUR_MAP, ()), np.uint16)
    if len(entries) != 3 << layout.bits:
        raise ImageRejected("damaged TIFF (a palette of another length)")
    table = (entries >> 8 if entries.max() > 255 else entries).astype(np.uint8).reshape(3, -1)  # old writers: 8 bits
    return table.T[indices.astype(np.int64)]


def _image(pixels: NDArray[np.uint8], layout: Layout) -> Image:
    size = layout.width, layout.height
    match layout.colours:
        case 5:
            return frombytes("CMYK", size, pixels.tobytes())
        case 6:
            return frombytes("YCbCr", size, pixels.tobytes())
        case 8:
            return frombytes("LAB", size, pixels.tobytes(), "raw", "LAB")
    return fromarray(pixels if pixels.shape[2] == 3 else pixels[..., 0])
