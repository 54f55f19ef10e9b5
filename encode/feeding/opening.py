"""From listed rows to pixels: in this process, or in another one that is told where the images lie."""

import hashlib
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from lvae.encode.crops import crop
from lvae.encode.images import ImageRejected, open_image
from lvae.encode.sources.base import Reader, read_bytes
from lvae.encode.sources.open import open_reader
from lvae.manifests.parts.plan import ImageSettings, Plan
from lvae.manifests.parts.rows import ImageRow


@dataclass(frozen=True)
class Opened:
    """One row after its image was read: pixels uint8 (H, W, 3), or why there are none. `content`: hash of its bytes.

    shorter: side of the image before it was cropped; 0 where it is not known.
    """

    pixels: NDArray[np.uint8] | None
    reason: str | None
    content: bytes
    shorter: int = 0


@dataclass(frozen=True)
class Chunk:
    """Rows of a part that are opened together. numbers: theirs, over the whole dataset."""

    part: int
    segment: int
    numbers: tuple[int, ...]
    rows: tuple[ImageRow, ...]


@dataclass(frozen=True)
class Place:
    """Where the images of a segment lie, as `open_reader` takes it."""

    kind: str
    source: str
    addresses: str


@dataclass(frozen=True)
class Images:
    """The images of a dataset: where those of each segment lie, and what becomes of one. Travels between processes."""

    places: tuple[Place, ...]
    settings: ImageSettings

    @classmethod
    def of(cls, plan: Plan) -> "Images":
        segments = zip(plan.listing.segments, plan.origins, strict=True)
        places = tuple(Place(segment.kind, origin.source, origin.addresses) for segment, origin in segments)
        return cls(places, plan.encoded().image)

    def open(self, chunk: Chunk) -> list[Opened]:
        """Open the rows of a chunk in their order. A process has one segment at a time: see `_reader_of`."""
        reader = _reader_of(self.places[chunk.segment])
        return [open_row(row, reader, self.settings) for row in chunk.rows]


@lru_cache(maxsize=1)
def _reader_of(place: Place) -> Reader:
    """The reader in use: to which addresses its requests may go holds for the whole process."""
    return open_reader(place.kind, place.source, place.addresses)


def open_row(row: ImageRow, reader: Reader, image: ImageSettings) -> Opened:
    """Read, open and crop one image.

    Raises OSError where bytes cannot be read at all, now or after a few tries: an outage is not the image's fault and
    is never written down as one.
    """
    try:
        data = read_bytes(row, reader)
    except ImageRejected as rejection:
        return Opened(None, rejection.reason, hashlib.sha256(b"").digest())
    content = hashlib.sha256(data).digest()
    try:
        opened = open_image(data)
        shorter = min(opened.size)
        if shorter < image.min_size:
            return Opened(None, f"{opened.width}x{opened.height}: smaller than --min-size {image.min_size}", content)
        pixels = np.asarray(crop(opened, image.size, image.crop))
    except ImageRejected as rejection:
        return Opened(None, rejection.reason, content)
    return Opened(pixels, None, content, shorter)


def content_sha256(rows: list[ImageRow], reader: Reader) -> str:
    """What a receipt says of its images' bytes, from the images as they are now."""
    content = hashlib.sha256()
    for row in rows:
        try:
            content.update(hashlib.sha256(read_bytes(row, reader)).digest())
        except ImageRejected:
            content.update(hashlib.sha256(b"").digest())
    return content.hexdigest()
