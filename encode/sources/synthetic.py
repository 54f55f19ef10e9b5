"""Seeded noise that needs no files, for benchmarks: synthetic:N, or synthetic:N?size=256&seed=0&classes=10.

Picture i is white noise, a function of (seed, i) alone, handed out as the bytes of a BMP so that nothing but opening
it costs time. Its label is i modulo the classes.
"""

import re
import struct
from collections.abc import Iterator

import numpy as np

from lvae.encode.sources.base import Notes
from lvae.encode.sources.label_values import MAX_LABEL
from lvae.manifests.errors import LvaeError
from lvae.manifests.parts.rows import ImageRow
from lvae.manifests.seeds import derive

PREFIX = "synthetic:"
GRAMMAR = re.compile(r"synthetic:(\d{1,12})(?:\?((?:[a-z]+=\d{1,18}(?:&|\Z))+))?")
MAX_SIZE = 8192
BMP_HEADER = struct.Struct("<2sIHHI IiiHHIIiiII")


class SyntheticSource(Notes):
    kind = "synthetic"

    def __init__(self, source: str):
        super().__init__()
        self.location = source
        self._count, self._size, self._seed, classes = _parse(source)
        self.classes: tuple[str, ...] | None = tuple(map(str, range(classes)))

    def rows(self) -> Iterator[ImageRow]:
        assert self.classes is not None
        length = len(_bmp(0, 0, self._size))
        for index in range(self._count):
            yield ImageRow(f"{index:06}.bmp", "", -1, length, str(index), index % len(self.classes))


class SyntheticReader:
    def __init__(self, location: str):
        self.location = location
        _, self._size, self._seed, _ = _parse(location)

    def read(self, row: ImageRow) -> bytes:
        return _bmp(self._seed, int(row.member), self._size)

    def close(self) -> None:
        """Nothing is open."""


def _parse(source: str) -> tuple[int, int, int, int]:
    """-> count, size, seed, classes."""
    found = GRAMMAR.fullmatch(source)
    settings = {"size": 256, "seed": 0, "classes": 10}
    given = [pair.split("=") for pair in (found[2] or "").split("&") if pair] if found else []
    names = [name for name, _ in given]
    if found is None or not set(names) <= set(settings) or len(set(names)) < len(names):
        raise LvaeError(source, f"write {PREFIX}1000 or {PREFIX}1000?size=256&seed=0&classes=10")
    settings |= {name: int(value) for name, value in given}
    count, size, classes = int(found[1]), settings["size"], settings["classes"]
    if count < 1 or not 1 <= size <= MAX_SIZE or not 1 <= classes <= MAX_LABEL + 1:
        raise LvaeError(source, f"at least one image and class, and 1 to {MAX_SIZE} pixels a side")
    return count, size, settings["seed"], classes


def _bmp(seed: int, index: int, size: int) -> bytes:
    """White noise, size x size, 24 bit. Raw draws, since numpy promises that these stay the same for ever."""
    row_bytes = (3 * size + 3) // 4 * 4
    noise = np.random.PCG64(derive(seed, "synthetic", index)).random_raw((row_bytes * size + 7) // 8)
    pixels = noise.astype("<u8").tobytes()[: row_bytes * size]
    header = BMP_HEADER.pack(b"BM", 54 + len(pixels), 0, 0, 54, 40, size, size, 1, 24, 0, len(pixels), 2835, 2835, 0, 0)
    return header + pixels
