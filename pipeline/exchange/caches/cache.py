"""A cache of latents that another tool made: what its readers promise, and what its arrays must be."""

import math
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from lvae.encode.files import locations
from lvae.encode.files.locations import Seen
from lvae.encode.sources.label_values import ClassNumbers, label_at
from lvae.manifests.errors import LvaeError
from lvae.manifests.messages import counted
from lvae.manifests.parts.rows import UNLABELLED, ImageRow

Shape = tuple[int, int, int]
Moments = Literal["deviation", "log-variance"]  # what stands behind the means in the second half of the channels

REPEATS = "repeats "  # what the `member` of a row that pads a cache begins with
MAX_SIDE = 4096
MAX_CHANNELS = 1024
NUMBERS = {"<f2", "<f4", "<f8", ">f2", ">f4", ">f8"}


class Cache(Protocol):
    """Latents in files, in a fixed order. Any number of threads may read.

    shape: (C', h, w) of one entry as it is stored; with moments C' is twice the number of latent channels.
    orientations: 2 where the latent of every image stands beside that of its mirror.
    moments: what the layout keeps of a posterior; None where that is one latent, or where the layout does not say.
    classes: final once `rows` is through.
    notes: what a person should know of it; final once `rows` is through.
    seen: a hash over size and time of its files; final once `rows` is through. Where it differs, numbers may, too.
    """

    layout: str
    location: str
    shape: Shape
    orientations: int
    moments: Moments | None
    classes: tuple[str, ...] | None
    notes: list[str]
    seen: Seen

    def rows(self) -> Iterator[ImageRow]:
        """One an image, in order, each with a key of its own. LvaeError for what is damaged as a whole."""
        ...

    def read(self, rows: Sequence[ImageRow], out: NDArray[np.float32]) -> dict[int, str]:
        """Fill (n, orientations, C', h, w) with these rows; why some, by position, cannot be read."""
        ...


@dataclass(frozen=True)
class Labelled:
    """Labels of a cache's rows, by position, and the classes that they number."""

    classes: tuple[str, ...] | None
    labels: NDArray[np.int32]

    @classmethod
    def of(cls, values: NDArray[np.generic] | None, count: int, where: str) -> "Labelled":
        """From an array of whole numbers or names; -1 and NaN are none."""
        if values is None:
            return cls(None, np.full(count, UNLABELLED, np.int32))
        if values.size != count:
            raise LvaeError(where, f"{counted(values.size, 'label')} for {counted(count, 'latent')}")
        values = values.reshape(-1)
        distinct, places = np.unique(values, return_inverse=True)
        numbers, found = ClassNumbers(), [label_at(value, where) for value in distinct.tolist()]
        for label in found:
            numbers.add(label, where)
        classes = numbers.settle()
        table = np.array([numbers.number(label) for label in found], np.int32)
        return cls(classes, table[places.reshape(-1)] if count else np.empty(0, np.int32))


def entry_shape(shape: Sequence[int], where: str) -> Shape:
    """(C, h, w) of a latent, where an axis of one in front is left out. LvaeError for what no latent is."""
    sides = tuple(shape)
    while len(sides) > 3 and sides[0] == 1:
        sides = sides[1:]
    if len(sides) != 3 or sides[1] != sides[2] or not (0 < sides[1] <= MAX_SIDE and 0 < sides[0] <= MAX_CHANNELS):
        shown = "x".join(map(str, shape))
        raise LvaeError(where, f"{shown:.100} is no latent", "Latents are (C, h, w), as high as they are wide.")
    return sides[0], sides[1], sides[2]


def number_type(dtype: str, where: str) -> np.dtype[np.floating]:
    """The dtype of latents; LvaeError for what is no floating-point number."""
    if dtype not in NUMBERS:
        raise LvaeError(where, f"holds {dtype:.40}", "Latents are numbers of 16, 32 or 64 bits with a point.")
    found: np.dtype[np.floating] = np.dtype(dtype)
    return found


def array_bytes(shape: Sequence[int], dtype: np.dtype[np.floating]) -> int:
    return math.prod(shape) * dtype.itemsize


def look_at(location: str) -> Seen:
    """How a file, or every file of a folder, looks now."""
    seen = Seen()
    folder = locations.is_folder(location)
    for name in locations.walk_names(location) if folder else [""]:
        with suppress(FileNotFoundError):  # a link to nothing, or no file
            found = locations.status(f"{location}/{name}" if folder else location)
            seen.add(name, found.size, found.stamp)
    return seen


def refuse_empty(rows: int, location: str) -> None:
    if not rows:
        raise LvaeError(location, "holds no latents", "Images become latents by 'lvae encode'.")
