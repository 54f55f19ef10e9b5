"""The pictures that a dataset's latents were made of, read from its source again."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lvae.encode.feeding.opening import open_row
from lvae.encode.networks.base import Autoencoder
from lvae.encode.quality.fidelity import Pixels, psnr
from lvae.encode.sources.base import Reader
from lvae.encode.sources.open import open_reader
from lvae.evaluate.pictures.decode import DecodeSettings, decode, decode_positions, load_decoder
from lvae.manifests.dataset import Dataset
from lvae.manifests.errors import LvaeError
from lvae.manifests.parts.plan import Plan, read_plan
from lvae.manifests.parts.receipts import Receipt, read_raw, read_receipt
from lvae.manifests.parts.rows import ImageRow, RowReader
from lvae.manifests.seeds import permute

BATCH = 32


class Originals:
    """Opens images of a dataset by row, cropped as they were encoded. A context."""

    def __init__(self, dataset: Dataset):
        plan = read_plan(dataset.folder)
        if plan is None:
            raise LvaeError(dataset.folder, "has no plan.json, which says where its images lie")
        if plan.is_imported:
            raise LvaeError(dataset.folder, "was imported as latents; its images are not at hand", "Decode it instead.")
        self.plan: Plan = plan
        self._rows = RowReader(dataset.folder, plan.listing)
        self._readers: dict[int, Reader] = {}
        self._part: tuple[int, list[ImageRow]] = (-1, [])

    def __enter__(self) -> "Originals":
        return self

    def __exit__(self, *_: object) -> None:
        for reader in self._readers.values():
            reader.close()

    def key(self, row: int) -> str:
        return self._find(row)[0].key

    def label(self, row: int) -> int:
        """In the classes of the listing."""
        image, segment = self._find(row)
        labels = self.plan.listing.labels(segment)
        return image.label if labels is None else int(labels[image.label])

    def open(self, row: int, mirrored: bool = False) -> Pixels:
        """uint8 (H, W, 3). LvaeError where the image is not there any more, or is another one."""
        image, segment = self._find(row)
        origin = self.plan.origins[segment]
        if segment not in self._readers:
            kind = self.plan.listing.segments[segment].kind
            self._readers[segment] = open_reader(kind, origin.source, origin.addresses)
        try:
            opened = open_row(image, self._readers[segment], self.plan.encoded().image)
        except OSError as error:
            raise LvaeError(origin.source, f"its images cannot be read any more ({error})") from error
        if opened.pixels is None:
            raise LvaeError(origin.source, f"{image.key} cannot be opened any more ({opened.reason})")
        return np.ascontiguousarray(opened.pixels[:, ::-1]) if mirrored else opened.pixels

    def _find(self, row: int) -> tuple[ImageRow, int]:
        part = int(self.plan.listing.parts_of(np.array([row]))[0])
        place = self.plan.listing.place(part)
        if self._part[0] != part:
            self._part = part, self._rows.part(part)
        return self._part[1][row - place.first_row], place.segment


def pairs(
    dataset: Dataset, autoencoder: Autoencoder, positions: NDArray[np.int64], device: str = "cpu"
) -> Iterator[tuple[Pixels, Pixels]]:
    """Originals beside reconstructions, uint8 (n, H, W, 3) each, a batch at a time, in the order of the source."""
    if dataset.manifest.origin == "samples":
        raise LvaeError(dataset.folder, "samples have no originals", "Give --reference.")
    rows = dataset.rows[positions]
    positions = positions[np.argsort(rows, kind="stable")]
    with Originals(dataset) as originals:
        for some in decode_positions(dataset, autoencoder, positions, BATCH, DecodeSettings(device)):
            mirrored = dataset.mirrored[some.positions]
            opened = [
                originals.open(int(row), bool(flipped))
                for row, flipped in zip(dataset.rows[some.positions], mirrored, strict=True)
            ]
            yield np.stack(opened), some.pixels


@dataclass(frozen=True)
class Reconstruction:
    """One image as it went in and as it comes back: uint8 (H, W, 3), and the error between them in dB."""

    key: str
    label: int
    original: Pixels
    decoded: Pixels

    @property
    def psnr_db(self) -> float:
        return psnr(self.original, self.decoded)


def reconstructions(dataset: Dataset, count: int, seed: int = 0) -> list[Reconstruction]:
    """Return a seeded choice of a dataset's images, from its source, beside what its raw latents decode to."""
    if dataset.manifest.raw == "dropped":
        raise LvaeError(dataset.folder, "its raw parts have been dropped, and with them which latent is whose")
    network = load_decoder(dataset)
    found: list[Reconstruction] = []
    with Originals(dataset) as originals:
        listing = originals.plan.listing
        for row in map(int, permute(np.arange(listing.images), listing.images, seed, "preview")):
            part = int(listing.parts_of(np.array([row]))[0])
            receipt = read_receipt(dataset.folder, part)
            if receipt is None or any(rejection.row == row for rejection in receipt.rejected):
                continue
            raw = _raw_latent(dataset, originals.plan, receipt, row)
            original, label = originals.open(row), originals.label(row)
            found.append(Reconstruction(originals.key(row), label, original, decode(network, raw)[0]))
            if len(found) == count:
                break
    return found


def _raw_latent(dataset: Dataset, plan: Plan, receipt: Receipt, row: int) -> NDArray[np.float32]:
    """The latent of an image itself, not of its mirror: float32 (1, C, h, w)."""
    before = sum(rejection.row < row for rejection in receipt.rejected)
    index = (row - receipt.first_row - before) * plan.encoded().image.orientations
    raw = read_raw(dataset.folder, receipt, plan.encoded())[index : index + 1]
    if raw.dtype == np.uint8:
        return (raw.astype(np.float32) / 127.5) - 1
    return np.array(raw[:, : plan.encoded().autoencoder.latent_channels])
