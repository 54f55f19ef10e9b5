"""Latents as pictures: by their first channels, or decoded."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lvae.evaluate.figures.drawing import PAPER, png
from lvae.evaluate.pictures.inspect import decode, load_autoencoder
from lvae.manifests.dataset import Dataset
from lvae.manifests.storage.folder import Folder

DEVIATIONS = 3.0  # of a normalized latent: black to white
SIDE, GAP, COLUMNS = 96, 4, 8

Preview = Callable[[int, NDArray[np.float32]], None]


def false_colours(latents: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Normalized latents (n, C, h, w) -> uint8 (n, h, w, 3): the first three channels as red, green and blue."""
    channels = latents[:, [0, min(1, latents.shape[1] - 1), min(2, latents.shape[1] - 1)]]
    scaled = (np.clip(channels.transpose(0, 2, 3, 1) / DEVIATIONS, -1, 1) + 1) * 127.5
    result: NDArray[np.uint8] = np.rint(scaled).astype(np.uint8)
    return result


def picture_grid(pictures: NDArray[np.uint8], columns: int = COLUMNS) -> Image.Image:
    """uint8 (n, h, w, 3), enlarged by whole numbers to about 96 pixels where they are smaller."""
    times = max(1, SIDE // pictures.shape[1])
    large = pictures.repeat(times, axis=1).repeat(times, axis=2)
    height, width = large.shape[1] + GAP, large.shape[2] + GAP
    columns = min(columns, len(large))
    canvas = Image.new("RGB", (columns * width + GAP, -(-len(large) // columns) * height + GAP), PAPER)
    for number, picture in enumerate(large):
        canvas.paste(Image.fromarray(picture), (GAP + number % columns * width, GAP + number // columns * height))
    return canvas


def preview_writer(run: Path, dataset: Dataset, decoded: bool) -> Preview:
    """A function that writes RUN/previews/step-00005000.png from a model's samples."""
    folder = Folder(run)
    network = load_autoencoder(dataset) if decoded else None

    def write(step: int, latents: NDArray[np.float32]) -> None:
        pictures = false_colours(latents) if network is None else decode(network, dataset.denormalize(latents))
        folder.write(f"previews/step-{step:08d}.png", png(picture_grid(pictures)))

    return write
