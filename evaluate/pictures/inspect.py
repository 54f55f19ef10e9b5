"""A dataset seen: originals beside reconstructions, and its channels and classes as charts."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lvae.encode.autoencoder import Autoencoder, load
from lvae.encode.encoder import weights_in
from lvae.encode.part import open_row
from lvae.encode.sources.open import open_reader
from lvae.encode.untrained import is_untrained
from lvae.evaluate.figures.drawing import (
    COLOURS,
    Captioned,
    Series,
    bar_chart,
    density_chart,
    pair_grid,
    png,
    stacked,
)
from lvae.manifests.dataset import Dataset
from lvae.manifests.errors import LvaeError
from lvae.manifests.parts.plan import Plan, read_plan
from lvae.manifests.parts.receipts import Receipt, read_raw, read_receipt
from lvae.manifests.parts.rows import RowReader
from lvae.manifests.seeds import permute

BINS = 81
SHOWN_CLASSES = 40
HISTOGRAM_LATENTS = 20_000  # a fair sample of the shuffled order is its beginning


@dataclass(frozen=True)
class Reconstruction:
    """One image as it went in and as it comes back: uint8 (H, W, 3), and the error between them in dB."""

    key: str
    label: int
    original: NDArray[np.uint8]
    decoded: NDArray[np.uint8]

    @property
    def psnr_db(self) -> float:
        error = float(np.mean((self.original.astype(np.float64) - self.decoded) ** 2))
        return float("inf") if error == 0 else 10 * np.log10(255**2 / error)


def load_autoencoder(dataset: Dataset) -> Autoencoder:
    """The network that a dataset was encoded with, from the weights it carries."""
    record = dataset.manifest.autoencoder
    return load(record.architecture, weights_in(dataset.folder, dataset.encoding))


def untrained(dataset: Dataset) -> str | None:
    """What to say of a dataset's network where it was never trained; its pictures are noise."""
    if dataset.manifest.autoencoder.pixels or not is_untrained(load_autoencoder(dataset)):
        return None
    return "the weights are random, so these reconstructions mean nothing"


def to_bytes(images: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Decoded images (B, 3, H, W) in [-1, 1] -> uint8 (B, H, W, 3), rounded."""
    scaled = (np.clip(images, -1, 1).transpose(0, 2, 3, 1) + 1) * 127.5
    result: NDArray[np.uint8] = np.rint(scaled).astype(np.uint8)
    return result


def decode(network: Autoencoder, raw: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Raw latents (B, C, h, w) -> uint8 (B, H, W, 3), one image at a time."""
    import torch

    with torch.inference_mode():
        decoded = [network.decode(torch.from_numpy(np.array(one[None]))).numpy() for one in raw]
    return to_bytes(np.concatenate(decoded))


def reconstructions(dataset: Dataset, count: int, seed: int = 0) -> list[Reconstruction]:
    """A seeded choice of a dataset's images, read from its source again, beside what its raw latents decode to."""
    plan = read_plan(dataset.folder)
    if plan is None:
        raise LvaeError(f"{dataset.folder}: has no plan.json, which says where its images lie.")
    if dataset.manifest.raw == "dropped":
        raise LvaeError(f"{dataset.folder}: its raw parts have been dropped, and with them which latent is whose.")
    network = load_autoencoder(dataset)
    readers = [
        open_reader(segment.kind, origin.source)
        for segment, origin in zip(plan.listing.segments, plan.origins, strict=True)
    ]
    rows = RowReader(dataset.folder, plan.listing)
    found: list[Reconstruction] = []
    order = permute(np.arange(plan.listing.images), plan.listing.images, seed, "preview")
    for row in order:
        part = int(plan.listing.parts_of(np.array([row]))[0])
        place = plan.listing.place(part)
        receipt = read_receipt(dataset.folder, part)
        if receipt is None or any(rejection.row == row for rejection in receipt.rejected):
            continue
        image = rows.part(part)[int(row) - place.first_row]
        labels = plan.listing.labels(place.segment)
        label = image.label if labels is None else int(labels[image.label])
        try:
            original = open_row(image, readers[place.segment], plan.encoded().image).pixels
        except FileNotFoundError as error:
            source = plan.origins[place.segment].source
            raise LvaeError(f"{source}: its images are not there any more; a preview needs them.") from error
        raw = _raw_latent(dataset, plan, receipt, int(row))
        if original is not None:
            found.append(Reconstruction(image.key, label, original, decode(network, raw)[0]))
        if len(found) == count:
            break
    for reader in readers:
        reader.close()
    return found


def _raw_latent(dataset: Dataset, plan: Plan, receipt: Receipt, row: int) -> NDArray[np.float32]:
    """The latent of an image itself, not of its mirror: float32 (1, C, h, w)."""
    before = sum(rejection.row < row for rejection in receipt.rejected)
    index = (row - receipt.first_row - before) * plan.encoded().image.orientations
    raw = read_raw(dataset.folder, receipt, plan.encoded())[index : index + 1]
    if raw.dtype == np.uint8:
        return (raw.astype(np.float32) / 127.5) - 1
    return np.array(raw[:, : plan.encoded().autoencoder.latent_channels])


def write_preview(dataset: Dataset, path: Path, count: int = 8) -> float:
    """Originals beside reconstructions as a PNG; returns the mean PSNR over them, in dB."""
    found = reconstructions(dataset, count)
    classes = read_plan_classes(dataset)
    pairs = []
    for one in found:
        name = f"{classes[one.label]}: " if classes is not None and 0 <= one.label < len(classes) else ""
        short = one.key.rsplit("/", 1)[-1]
        pairs.append((Captioned(one.original, f"{name}{short}"), Captioned(one.decoded, f"{one.psnr_db:.1f} dB")))
    mean = float(np.mean([one.psnr_db for one in found]))
    manifest = dataset.manifest
    shape = "x".join(map(str, manifest.view.shape))
    title = (
        f"Originals beside reconstructions: {manifest.autoencoder.name}, {manifest.image.size} px, "
        f"latents of {shape}, {mean:.1f} dB on average"
    )
    remark = untrained(dataset)
    if remark is not None:
        title += f"; {remark}"
    path.write_bytes(png(pair_grid(pairs, title, columns=2 if manifest.image.size > 128 else 4)))
    return mean


def read_plan_classes(dataset: Dataset) -> tuple[str, ...] | None:
    """The classes as the rows number them, which a view may have renumbered."""
    plan = read_plan(dataset.folder)
    return plan.listing.classes if plan is not None else None


def write_histogram(dataset: Dataset, path: Path) -> None:
    """Every channel of the stored latents against the standard normal, and the number of latents a class."""
    latents, _ = dataset.read(np.arange(min(len(dataset), HISTOGRAM_LATENTS)), np.float32)
    edges = np.linspace(-4.5, 4.5, BINS + 1)
    charts: list[Image.Image] = []
    for channel in range(latents.shape[1]):
        values = latents[:, channel].ravel()
        counts = np.histogram(np.clip(values, edges[0], edges[-1]), edges)[0].astype(np.float64)
        name = f"channel {channel}: mean {values.mean():.3f}, std {values.std():.3f}"
        chart = density_chart(Series(name, counts, edges), "line: N(0, 1)", (420, 190), COLOURS[channel % len(COLOURS)])
        charts.append(chart)
    picture = stacked(charts, columns=2)
    if dataset.classes:
        numbers = np.bincount(dataset.labels[dataset.labels >= 0], minlength=len(dataset.classes))
        names, values_ = list(dataset.classes[:SHOWN_CLASSES]), [int(n) for n in numbers[:SHOWN_CLASSES]]
        hidden = len(dataset.classes) - len(names)
        title = f"latents a class ({dataset.name})" + (f", {hidden} more classes not shown" if hidden else "")
        picture = stacked([picture, bar_chart(title, names, values_, max(picture.width, 420))], columns=1)
    path.write_bytes(png(picture))
