"""TIFFs of any layout, written by arithmetic on a ramp, independent of the product and of Pillow."""

import struct
import zlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

HEIGHT, WIDTH = 37, 45
DOWN, ACROSS = np.mgrid[:HEIGHT, :WIDTH]
RAMP = (DOWN + ACROSS) / (HEIGHT + WIDTH - 2)
TRUTH = np.stack([255 * RAMP, 255 * (1 - RAMP), np.full(RAMP.shape, 64.0)], -1)


@dataclass(frozen=True)
class Tiff:
    """How a file is written. kind: u, i or f. colours: TIFF's number. extra: kinds of extra samples."""

    bits: int = 8
    kind: str = "u"
    colours: int = 2
    order: str = "<"
    planes: bool = False
    tile: tuple[int, int] | None = None
    rows_per_strip: int = 8
    compression: int = 1
    predictor: int = 1
    big: bool = False
    extra: tuple[int, ...] = ()
    reversed_bits: bool = False


def samples(form: Tiff) -> NDArray[np.float64]:
    """(H, W, samples) from 0 to 1."""
    picture = TRUTH / 255
    if form.colours == 5:
        picture = np.dstack([1 - picture, np.zeros(RAMP.shape)])
    elif form.colours in (0, 1):
        picture = picture[..., :1] if form.colours == 1 else 1 - picture[..., :1]
    alpha = [np.full((*RAMP.shape, 1), 0.75) for _ in form.extra]
    if form.extra[:1] == (1,):
        picture = picture * 0.75
    return np.concatenate([picture, *alpha], -1)


def write(form: Tiff, tags: tuple[tuple[int, int, tuple[int, ...]], ...] = ()) -> bytes:
    """The file's bytes; `tags` (number, type, values) replace those of the layout."""
    levels = samples(form)
    if form.kind == "f":
        stored = levels.astype(f"{form.order}f{form.bits // 8}")
    else:
        width = max(8, 1 << (form.bits - 1).bit_length())
        stored = np.rint(levels * ((1 << form.bits) - 1)).astype(f"{form.order}u{width // 8}")
    planes = [stored[..., [n]] for n in range(stored.shape[2])] if form.planes else [stored]
    pieces = [_pack(piece, form) for plane in planes for piece in _cut(plane, form)]
    offset, offsets = (16 if form.big else 8), []
    for piece in pieces:
        offsets.append(offset)
        offset += len(piece)
    lengths = tuple(map(len, pieces))
    count = stored.shape[2]
    sample_format = {"u": 1, "i": 2, "f": 3}[form.kind]
    entries = {
        256: (4, (WIDTH,)), 257: (4, (HEIGHT,)), 258: (3, (form.bits,) * count), 259: (3, (form.compression,)),
        262: (3, (form.colours,)), 266: (3, (2 if form.reversed_bits else 1,)), 277: (3, (count,)),
        284: (3, (2 if form.planes else 1,)), 317: (3, (form.predictor,)), 339: (3, (sample_format,) * count),
    }  # fmt: skip
    if form.extra:
        entries[338] = 3, form.extra
    if form.tile:
        entries |= {322: (4, form.tile[:1]), 323: (4, form.tile[1:]), 324: (4, tuple(offsets)), 325: (4, lengths)}
    else:
        entries |= {273: (4, tuple(offsets)), 278: (4, (form.rows_per_strip,)), 279: (4, lengths)}
    entries |= {number: (kind, values) for number, kind, values in tags}
    body = b"".join(pieces)
    return _file(body, {number: entries[number] for number in sorted(entries)}, form)


def _cut(plane: NDArray[np.generic], form: Tiff) -> list[NDArray[np.generic]]:
    if form.tile is None:
        return [plane[top : top + form.rows_per_strip] for top in range(0, HEIGHT, form.rows_per_strip)]
    width, height = form.tile
    padded = np.pad(plane, ((0, -HEIGHT % height), (0, -WIDTH % width), (0, 0)))
    return [
        padded[top : top + height, left : left + width]
        for top in range(0, HEIGHT, height)
        for left in range(0, WIDTH, width)
    ]


def _pack(piece: NDArray[np.generic], form: Tiff) -> bytes:
    rows = piece.shape[0]
    if form.predictor == 2:
        unsigned = piece.view(f"{form.order}u{form.bits // 8}")
        steps = unsigned.copy()
        steps[:, 1:] -= unsigned[:, :-1]
        data = steps.tobytes()
    elif form.predictor == 3:
        big = np.ascontiguousarray(piece.reshape(rows, -1).astype(f">f{form.bits // 8}"))
        split = big.view(np.uint8).reshape(rows, -1, form.bits // 8).transpose(0, 2, 1).reshape(rows, -1)
        stride = piece.shape[2]
        steps = split.copy()
        steps[:, stride:] -= split[:, :-stride]
        data = steps.tobytes()
    elif form.bits in (8, 16, 32, 64):
        data = piece.tobytes()
    else:
        shifts = np.arange(form.bits - 1, -1, -1)
        bits = (piece.reshape(rows, -1, 1).astype(np.uint32) >> shifts & 1).reshape(rows, -1)
        data = np.packbits(bits.astype(np.uint8), axis=1).tobytes()
    packed = {1: lambda: data, 8: lambda: zlib.compress(data), 32773: lambda: _pack_bits(data), 5: lambda: _lzw(data)}
    found = packed[form.compression]()
    return bytes(int(f"{byte:08b}"[::-1], 2) for byte in found) if form.reversed_bits else found


def _pack_bits(data: bytes) -> bytes:
    """Literal runs alone, which every reader knows."""
    runs = [data[at : at + 128] for at in range(0, len(data), 128)]
    return b"".join(bytes([len(run) - 1]) + run for run in runs)


def _lzw(data: bytes) -> bytes:
    """Codes of 9 bits, with a clear code before the table grows."""
    bits = []
    for at in range(0, len(data), 250):
        bits += [f"{256:09b}", *[f"{byte:09b}" for byte in data[at : at + 250]]]
    text = "".join([*bits, f"{257:09b}"])
    text += "0" * (-len(text) % 8)
    return int(text, 2).to_bytes(len(text) // 8, "big")


def _file(body: bytes, entries: dict[int, tuple[int, tuple[int, ...]]], form: Tiff) -> bytes:
    order, letters = form.order, {1: "B", 3: "H", 4: "I", 5: "I", 16: "Q"}
    start = (16 if form.big else 8) + len(body)
    count_code, entry_code, place_code, room = ("Q", "HHQ", "Q", 8) if form.big else ("H", "HHI", "I", 4)
    size = struct.calcsize("=" + count_code) + len(entries) * (struct.calcsize("=" + entry_code) + room) + room
    directory, extra = struct.pack(order + count_code, len(entries)), b""
    for number, (kind, values) in entries.items():
        data = struct.pack(f"{order}{len(values)}{letters[kind]}", *values)
        count = len(values) // (2 if kind == 5 else 1)
        directory += struct.pack(order + entry_code, number, kind, count)
        if len(data) <= room:
            directory += data.ljust(room, b"\0")
        else:
            directory += struct.pack(order + place_code, start + size + len(extra))
            extra += data
    magic = (b"II" if order == "<" else b"MM") + struct.pack(order + "H", 43 if form.big else 42)
    head = magic + (struct.pack(order + "HHQ", 8, 0, start) if form.big else struct.pack(order + "I", start))
    return head + body + directory + bytes(room) + extra
