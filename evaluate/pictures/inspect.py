"""A dataset seen: originals beside reconstructions, and its channels and classes as charts."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lvae.encode.autoencoder import is_untrained
from lvae.evaluate.figures.charts import chart_density, chart_shares
from lvae.evaluate.figures.drawing import Captioned, png
from lvae.evaluate.figures.grids import LARGE, Block, draw_grid, draw_pairs, fill_rows
from lvae.evaluate.figures.render import render_png
from lvae.evaluate.pictures.decode import decode, load_decoder
from lvae.evaluate.pictures.originals import reconstructions
from lvae.manifests.dataset import Dataset
from lvae.manifests.parts.plan import read_plan
from lvae.manifests.storage.folder import Folder

BINS = 81
SHOWN_CLASSES = 40
HISTOGRAM_LATENTS = 20_000  # a fair sample of the shuffled order is its beginning


def describe_untrained(dataset: Dataset) -> str | None:
    """What to say of a dataset's network where it was never trained; its pictures are noise."""
    if dataset.manifest.autoencoder.pixels or not is_untrained(load_decoder(dataset)):
        return None
    return "the weights are random, so these reconstructions mean nothing"


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
    remark = describe_untrained(dataset)
    if remark is not None:
        title += f"; {remark}"
    path.write_bytes(png(draw_pairs(title, pairs)))
    return mean


def read_plan_classes(dataset: Dataset) -> tuple[str, ...] | None:
    """The classes as the rows number them, which a view may have renumbered."""
    plan = read_plan(dataset.folder)
    return plan.listing.classes if plan is not None else None


def write_histogram(dataset: Dataset, path: Path) -> None:
    """Every channel of the stored latents against the standard normal, and the number of latents a class."""
    latents, _ = dataset.read(np.arange(min(len(dataset), HISTOGRAM_LATENTS)), np.float32)
    edges = np.linspace(-4.5, 4.5, BINS + 1)
    charts = []
    for channel in range(latents.shape[1]):
        values = latents[:, channel].ravel()
        counts = np.histogram(np.clip(values, edges[0], edges[-1]), edges)[0].astype(np.float64)
        title = f"channel {channel}: mean {values.mean():.3f}, std {values.std():.3f}"
        charts.append(chart_density(title, counts, edges, channel))
    if dataset.classes:
        numbers = np.bincount(dataset.labels[dataset.labels >= 0], minlength=len(dataset.classes))[:SHOWN_CLASSES]
        hidden = len(dataset.classes) - len(numbers)
        title = f"latents a class ({dataset.name})" + (f", {hidden} more classes not shown" if hidden else "")
        charts.append(chart_shares(title, dataset.classes[:SHOWN_CLASSES], numbers.tolist(), list(map(str, numbers))))
    path.write_bytes(render_png(charts, columns=2))


DEVIATIONS = 3.0  # of a normalized latent: black to white

COLUMNS = 8  # of pictures in a preview

Preview = Callable[[int, NDArray[np.float32]], None]


def false_colours(latents: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Normalized latents (n, C, h, w) -> uint8 (n, h, w, 3): the first three channels as red, green and blue."""
    channels = latents[:, [0, min(1, latents.shape[1] - 1), min(2, latents.shape[1] - 1)]]
    scaled = (np.clip(channels.transpose(0, 2, 3, 1) / DEVIATIONS, -1, 1) + 1) * 127.5
    result: NDArray[np.uint8] = np.rint(scaled).astype(np.uint8)
    return result


def draw_pictures(pictures: NDArray[np.uint8], columns: int = COLUMNS) -> Image.Image:
    """uint8 (n, H, W, 3) without words, so many in a row."""
    columns = min(columns, len(pictures))
    cells = [Captioned(picture) for picture in pictures]
    return draw_grid("", [Block("", columns)], fill_rows(cells, columns), least=LARGE)


def preview_writer(run: Path, dataset: Dataset, decoded: bool) -> Preview:
    """A function that writes RUN/previews/step-00005000.png from a model's samples."""
    folder = Folder(run)
    network = load_decoder(dataset) if decoded else None

    def write(step: int, latents: NDArray[np.float32]) -> None:
        pictures = false_colours(latents) if network is None else decode(network, dataset.denormalize(latents))
        folder.write(f"previews/step-{step:08d}.png", png(draw_pictures(pictures)))

    return write
