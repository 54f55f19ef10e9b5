"""Caches of whole arrays: LightningDiT's safetensors, and arrays of anybody's in .npy, .npz, .safetensors or Zarr."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lvae.encode.files.locations import Seen
from lvae.manifests.errors import LvaeError
from lvae.manifests.messages import counted
from lvae.manifests.parts.rows import ImageRow
from lvae.manifests.shards.float16 import widen
from lvae.pipeline.exchange.caches.arrays import StoredArray, names_of, read_labels
from lvae.pipeline.exchange.caches.cache import (
    REPEATS,
    Labelled,
    Moments,
    Shape,
    entry_shape,
    look_at,
    refuse_empty,
)
from lvae.pipeline.exchange.caches.repeats import padding

LATENTS = ("latents", "moments")
LABELS = ("labels", "label", "y", "arr_1")
FLIP = "_flip"
RANKED = re.compile(r"latents_rank(\d+)_shard(\d+)\.safetensors")
BLOCK = 256  # rows read at a time


@dataclass(frozen=True)
class Piece:
    """Latents of one file, those of the mirrors, and labels. name: the file's. odd: labels that are not one a row."""

    name: str
    latents: StoredArray
    flipped: StoredArray | None
    labels: StoredArray | None
    odd: str = ""

    @property
    def count(self) -> int:
        return self.latents.shape[0]

    def fill(self, start: int, out: NDArray[np.float32]) -> None:
        """Entries from `start` on into (n, orientations, C, h, w)."""
        for orientation, array in enumerate(one for one in (self.latents, self.flipped) if one is not None):
            for block in range(0, len(out), BLOCK):
                part = out[block : block + BLOCK, orientation]
                found = array.read(start + block, start + block + len(part))
                if found.dtype != np.float16:
                    part[...] = found.reshape(part.shape)
                elif part.flags.c_contiguous:
                    widen(found, part)
                else:
                    part[...] = widen(found).reshape(part.shape)


def find_piece(name: str, arrays: Sequence[StoredArray], wanted: str | None, where: str) -> Piece:
    """Which arrays of a file are latents, mirrors and labels. LvaeError where that cannot be told."""
    by_name = {array.name: array for array in arrays}
    if wanted is None:
        stacks = [one for one in arrays if one.is_float and len(one.shape) >= 4 and not one.name.endswith(FLIP)]
        known = [one for one in stacks if one.name in LATENTS]
        candidates = known if len(known) == 1 else stacks
        if len(candidates) != 1:
            inside = ", ".join(names_of(arrays)) or "nothing"
            if not stacks:
                advice = "Latents are (N, C, h, w), in numbers of 16, 32 or 64 bits with a point."
                raise LvaeError(where, f"has {inside:.300}, and no latents", advice)
            raise LvaeError(where, f"has {inside:.300}: which are the latents?", "Say --array NAME.")
        latents = candidates[0]
    elif wanted in by_name and by_name[wanted].is_float:
        latents = by_name[wanted]
    else:
        raise LvaeError(where, f"has no array {wanted!r:.60} of numbers with a point", "See --array.")
    flipped = by_name.get(latents.name + FLIP)
    if flipped is not None and flipped.shape != latents.shape:
        raise LvaeError(where, f"{flipped.name} is not of the shape of {latents.name}")
    labels = next((by_name[one] for one in LABELS if one in by_name and by_name[one].is_label), None)
    odd = next((by_name[one] for one in LABELS[:-1] if one in by_name and labels is None), None)
    if labels is not None and labels.shape[0] != latents.shape[0]:
        raise LvaeError(where, f"{labels.shape[0]} labels for {latents.shape[0]} latents")
    return Piece(name, latents, flipped, labels, "" if odd is None else names_of([odd])[0])


class ArrayCache:
    """Pieces one behind the other; see Cache."""

    def __init__(self, layout: str, location: str, pieces: Sequence[Piece]):
        self.layout, self.location = layout, location
        self._pieces = {piece.name: piece for piece in pieces}
        refuse_empty(sum(piece.count for piece in pieces), location)
        first = pieces[0]
        self.shape: Shape = entry_shape(first.latents.shape[1:], f"{location}: {first.latents.name}")
        self.orientations = 1 if first.flipped is None else 2
        self.moments: Moments | None = "log-variance" if first.latents.name == "moments" else None
        self.classes: tuple[str, ...] | None = None
        self.notes: list[str] = []
        self.seen = Seen()
        for piece in pieces:
            if entry_shape(piece.latents.shape[1:], location) != self.shape:
                raise LvaeError(f"{location}/{piece.name}", "holds latents of another shape than the first file")
            if (piece.flipped is None) != (first.flipped is None) or (piece.labels is None) != (first.labels is None):
                problem = "has not the arrays that the first file has"
                raise LvaeError(f"{location}/{piece.name}", problem, "Import them by themselves.")

    def rows(self) -> Iterator[ImageRow]:
        """Labels are read first: four bytes a row."""
        self.notes.clear()
        self.seen = look_at(self.location)
        values = [read_labels(piece.labels) for piece in self._pieces.values() if piece.labels is not None]
        count = sum(piece.count for piece in self._pieces.values())
        found = Labelled.of(np.concatenate(values) if values else None, count, f"{self.location}: labels")
        self.classes = found.classes
        if odd := next((piece.odd for piece in self._pieces.values() if piece.odd), ""):
            self.notes.append(f"{odd} is not a number or a name a row, and was not read; --labels FILE gives others")
        repeats, first = self.repeats(found.labels), 0
        for piece in self._pieces.values():
            length = self._length(piece)
            for index in range(piece.count):
                repeated = repeats.get(first + index)
                member = "" if repeated is None else f"{REPEATS}{self._key(repeated)}"
                label = int(found.labels[first + index])
                yield ImageRow(f"{piece.name}:{index:07d}", piece.name, index, length, member, label)
            first += piece.count

    def _length(self, piece: Piece) -> int:
        return piece.count  # so that a file which has grown is another listing

    def repeats(self, labels: NDArray[np.int32]) -> dict[int, int]:
        """Rows that pad the cache, each with the row that it repeats."""
        return {}

    def _key(self, row: int) -> str:
        for piece in self._pieces.values():
            if row < piece.count:
                return f"{piece.name}:{row:07d}"
            row -= piece.count
        raise IndexError(row)

    def read(self, rows: Sequence[ImageRow], out: NDArray[np.float32]) -> dict[int, str]:
        begin = 0
        while begin < len(rows):
            end = begin + 1
            while end < len(rows) and rows[end].container == rows[begin].container:
                end += 1
            piece = self._pieces.get(rows[begin].container)
            if piece is None or piece.count != rows[begin].length:
                where = f"{self.location}/{rows[begin].container}"
                raise LvaeError(where, "is not as it was when it was listed", "Import into another folder.")
            piece.fill(rows[begin].offset, out[begin:end])
            begin = end
        return {}


class LightningCache(ArrayCache):
    """Files named by rank and shard. A distributed sampler gave every rank as many rows, repeating the first ones."""

    def __init__(self, location: str, pieces: Sequence[Piece]):
        super().__init__("lightningdit", location, pieces)

    def repeats(self, labels: NDArray[np.int32]) -> dict[int, int]:
        ranks: dict[int, list[range]] = {}  # the rows of every rank's files, in order
        first = 0
        for piece in self._pieces.values():
            ranked = RANKED.fullmatch(piece.name)
            if ranked is None:
                return {}
            if piece.count:
                ranks.setdefault(int(ranked[1]), []).append(range(first, first + piece.count))
            first += piece.count
        if len({sum(map(len, files)) for files in ranks.values()}) != 1 or len(ranks) < 2:
            return {}
        heads = [ranks[rank][0][0] for rank in sorted(ranks)]
        tails = [ranks[rank][-1][-1] for rank in sorted(ranks)]
        found = padding([self._one(row) for row in heads], [self._one(row) for row in tails])
        repeated = {tails[len(tails) - found + index]: heads[index] for index in range(found)}
        if any(labels[row] != labels[original] for row, original in repeated.items()):
            return {}
        if repeated:
            rows = counted(len(repeated), "row")
            self.notes.append(f"{rows} at the end repeat the first ones (a padded sampler, not images): left out")
        return repeated

    def _one(self, row: int) -> NDArray[np.float32]:
        out = np.empty((1, self.orientations, *self.shape), np.float32)
        for piece in self._pieces.values():
            if row < piece.count:
                piece.fill(row, out)
                break
            row -= piece.count
        first: NDArray[np.float32] = out[0, 0]
        return first
