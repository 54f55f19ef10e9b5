"""The pictures that a dataset's latents were made of, read from its source again."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from lvae.encode.autoencoder import Autoencoder
from lvae.encode.part import open_row
from lvae.encode.sources.open import Reader, open_reader
from lvae.evaluate.pictures.decode import decoded
from lvae.manifests.dataset import Dataset
from lvae.manifests.errors import LvaeError
from lvae.manifests.parts.plan import Plan, read_plan
from lvae.manifests.parts.rows import ImageRow, RowReader

BATCH = 32
Pixels = NDArray[np.uint8]


class Originals:
    """Opens images of a dataset by row, cropped as they were encoded. A context."""

    def __init__(self, dataset: Dataset):
        plan = read_plan(dataset.folder)
        if plan is None:
            raise LvaeError(f"{dataset.folder}: has no plan.json, which says where its images lie.")
        self._plan: Plan = plan
        self._rows = RowReader(dataset.folder, plan.listing)
        self._readers: dict[int, Reader] = {}
        self._part: tuple[int, list[ImageRow]] = (-1, [])

    def __enter__(self) -> "Originals":
        return self

    def __exit__(self, *_: object) -> None:
        for reader in self._readers.values():
            reader.close()

    def key(self, row: int) -> str:
        return self._listed(row)[0].key

    def open(self, row: int, mirrored: bool = False) -> Pixels:
        """uint8 (H, W, 3). LvaeError where the image is not there any more, or is another one."""
        image, segment = self._listed(row)
        source = self._plan.origins[segment].source
        if segment not in self._readers:
            self._readers[segment] = open_reader(self._plan.listing.segments[segment].kind, source)
        try:
            opened = open_row(image, self._readers[segment], self._plan.encoded().image)
        except OSError as error:
            raise LvaeError(f"{source}: its images cannot be read any more ({error}).") from error
        if opened.pixels is None:
            raise LvaeError(f"{source}: {image.key} cannot be opened any more ({opened.reason}).")
        return np.ascontiguousarray(opened.pixels[:, ::-1]) if mirrored else opened.pixels

    def _listed(self, row: int) -> tuple[ImageRow, int]:
        part = int(self._plan.listing.parts_of(np.array([row]))[0])
        place = self._plan.listing.place(part)
        if self._part[0] != part:
            self._part = part, self._rows.part(part)
        return self._part[1][row - place.first_row], place.segment


def pairs(
    dataset: Dataset, autoencoder: Autoencoder, positions: NDArray[np.int64], device: str = "cpu"
) -> Iterator[tuple[Pixels, Pixels]]:
    """Originals beside reconstructions, uint8 (n, H, W, 3) each, a batch at a time, in the order of the source."""
    if dataset.manifest.origin == "samples":
        raise LvaeError(f"{dataset.folder}: samples have no originals. Give --reference.")
    rows = dataset.rows[positions]
    positions = positions[np.argsort(rows, kind="stable")]
    with Originals(dataset) as originals:
        for some in decoded(dataset, autoencoder, positions, BATCH, device):
            mirrored = dataset.mirrored[some.positions]
            opened = [
                originals.open(int(row), bool(flipped))
                for row, flipped in zip(dataset.rows[some.positions], mirrored, strict=True)
            ]
            yield np.stack(opened), some.pixels
