"""What is manipulated: a loaded run, and images as its model sees them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL.Image import Image
from torch import Tensor

from lvae.encode.crops import crop
from lvae.encode.images import ImageRejected, open_image
from lvae.encode.networks.base import Autoencoder
from lvae.encode.networks.rgb import PixelsAutoencoder
from lvae.evaluate.figures.grids import name_class
from lvae.evaluate.manipulation.operations import EncodedImage, encode
from lvae.evaluate.pictures.decode import DecodeSettings, decode, find_decoder
from lvae.evaluate.pictures.inspect import false_colours
from lvae.manifests.dataset import Dataset
from lvae.manifests.errors import LvaeError
from lvae.manifests.seeds import derive
from lvae.manifests.statistics import PIXEL_VALUES
from lvae.manifests.storage.folder import Folder
from lvae.manifests.storage.given_files import read_given_file
from lvae.train.data.batches import clip_latents
from lvae.train.model import HierarchicalVAE
from lvae.train.network.noise import draw_noise, noise_shapes
from lvae.train.runs.classes import number_labels
from lvae.train.runs.packaged import run_name
from lvae.train.runs.run import RunConfig, load_model, read_run

UNLABELLED = -1


@dataclass(frozen=True)
class InputImage:
    """An image: normalized latents float32 (d, R, R), label (-1: none), what to call it, and uint8 (H, W, 3)."""

    latents: NDArray[np.float32]
    label: int
    name: str
    pixels: NDArray[np.uint8]


class LoadedRun:
    """A run's model and autoencoder on a device.

    network: None where the autoencoder's weights are nowhere; pictures are then latents in false colours.
    """

    def __init__(self, run: Path, config: RunConfig, model: HierarchicalVAE, network: Autoencoder | None, device: str):
        self.run, self.config, self.model, self.network, self.device = run, config, model, network, device

    @classmethod
    def open(
        cls,
        run: Path,
        weights: str = "ema",
        decoder: str | None = None,
        device: str = "cpu",
        step: int | None = None,
    ) -> "LoadedRun":
        """step: of another checkpoint than the newest."""
        config = read_run(run)
        model = load_model(run, "ema" if weights == "ema" else "raw", step).to(device)
        network = find_decoder(config.dataset.autoencoder, Folder(run), decoder)
        if network is not None:
            network.input_range = config.dataset.image.input_range
        return cls(run, config, model, None if network is None else network.to(device), device)

    @property
    def name(self) -> str:
        """What a person calls it: its path, or its name where it is part of the package."""
        return run_name(self.run)

    @property
    def classes(self) -> int:
        return self.model.config.classes

    def name_class(self, label: int) -> str | None:
        """What a person calls a class; None for no label."""
        if label < 0:
            return None
        return name_class(label, self.config.dataset.classes)

    def decode(self, latents: NDArray[np.float32]) -> NDArray[np.uint8]:
        """Normalized latents (n, d, h, w) -> uint8 (n, H, W, 3), each by itself."""
        if self.network is None:
            return false_colours(latents)
        raw = self.config.dataset.normalization.denormalize(latents)
        return np.concatenate([decode(self.network, one[None], DecodeSettings(self.device)) for one in raw])

    def decode_one(self, latents: Tensor) -> NDArray[np.uint8]:
        """One, (1, d, h, w) -> uint8 (H, W, 3)."""
        one: NDArray[np.uint8] = self.decode(latents.detach().float().cpu().numpy())[0]
        return one

    def draw_noise(self, seed: int, purpose: str, index: int, size: tuple[int, int] | None = None) -> list[Tensor]:
        """Noise for one image, (1, z, h, w) a group: a function of (seed, purpose, index)."""
        seeds = [derive(seed, purpose, index)]
        return [part.to(self.device) for part in draw_noise(self.model.config, seeds, size)]

    def label(self, label: int) -> Tensor | None:
        return torch.tensor([label], device=self.device) if self.classes else None

    def encode(self, image: InputImage, seed: int, index: int, mean: bool = False) -> EncodedImage:
        """An image in the model's variables: drawn from its posteriors, or their means."""
        x = torch.from_numpy(image.latents[None]).to(self.device)
        if mean:
            shapes = noise_shapes(self.model.config)
            noise = [torch.zeros(1, *shape, device=self.device) for shape in shapes]
        else:
            noise = self.draw_noise(seed, "posterior", index)
        return encode(self.model, x, self.label(image.label), noise)

    def clip(self, latents: NDArray[np.float32]) -> NDArray[np.float32]:
        """As the trainer feeds them."""
        found: NDArray[np.float32] = clip_latents(torch.from_numpy(latents), self.config.training.clip).numpy()
        return found


def open_dataset(loaded: LoadedRun, path: str, split: str = "train") -> Dataset:
    """A dataset whose latents are of the kind that the run was trained on; LvaeError for another."""
    dataset = Dataset.open(path, split)
    record, manifest = loaded.config.dataset, dataset.manifest
    if tuple(manifest.view.shape) != tuple(record.shape):
        raise LvaeError(
            path,
            (f"latents of {_format_shape(manifest.view.shape)}, and {loaded.name} knows {_format_shape(record.shape)}"),
            "Give a dataset that was encoded alike.",
        )
    ours, theirs = record.autoencoder, manifest.autoencoder
    if not ours.weights_unknown and ours.weights_sha256 != theirs.weights_sha256:
        raise LvaeError(
            path,
            (
                f"was encoded with {theirs.name} ({str(theirs.weights_sha256)[:12]}), and {loaded.name} "
                f"with {ours.name} ({str(ours.weights_sha256)[:12]})"
            ),
            "Give a dataset of the same autoencoder.",
        )
    return dataset


def read_latents(
    loaded: LoadedRun, dataset: Dataset, positions: NDArray[np.int64]
) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """Latents (n, d, R, R) and labels as the model is fed them: in the run's normalization, clipped; by class names.

    LvaeError for a class that the run does not know.
    """
    latents, labels = dataset.read(positions, np.float32)
    theirs, ours = dataset.normalization, loaded.config.dataset.normalization
    if (theirs.shift, theirs.scale) != (ours.shift, ours.scale):
        latents = ours.normalize(theirs.denormalize(latents), "float32")
    return loaded.clip(latents), number_labels(loaded.config, loaded.name, dataset, labels)


def read_images(loaded: LoadedRun, dataset: Dataset, positions: NDArray[np.int64]) -> list[InputImage]:
    """Images of a dataset; their pixels are what the autoencoder makes of their latents."""
    latents, labels = read_latents(loaded, dataset, positions)
    pixels = loaded.decode(latents)
    found = []
    for position, x, label, picture in zip(positions, latents, labels, pixels, strict=True):
        name = loaded.name_class(int(label))
        found.append(InputImage(x, int(label), f"{position}" + (f": {name}" if name else ""), picture))
    return found


def encode_files(loaded: LoadedRun, paths: Sequence[Path], label: int = UNLABELLED) -> list[InputImage]:
    """Image files, cropped and encoded as the run's dataset was."""
    image = loaded.config.dataset.image
    found = []
    for path in paths:
        pixels = np.asarray(crop(open_file(path), image.size, image.crop))
        found.append(InputImage(encode_pixels(loaded, pixels), label, path.name, pixels))
    return found


def encode_pixels(loaded: LoadedRun, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """uint8 (H, W, 3), cropped to the run's size -> normalized latents float32 (d, R, R), as the model is fed them.

    LvaeError where the autoencoder's weights are not there.
    """
    network = loaded.network
    if network is None:
        problem = "the autoencoder's weights are not there, so images cannot be encoded"
        raise LvaeError(loaded.run, problem, "Give --decoder FILE.")
    if isinstance(network, PixelsAutoencoder):
        raw = PIXEL_VALUES.astype(np.float32)[network.reduce(pixels[None])]
    else:
        images = torch.from_numpy(pixels.copy()).to(loaded.device).permute(2, 0, 1)[None]
        with torch.inference_mode():
            images = network.to_input_range(images.to(torch.float32).contiguous() / 127.5 - 1)
            raw = network.encode(images).float().cpu().numpy()
    latents: NDArray[np.float32] = loaded.clip(loaded.config.dataset.normalization.normalize(raw, "float32"))[0]
    return latents


def open_file(path: Path) -> Image:
    """An image file, upright RGB; LvaeError where it is none."""
    try:
        return open_image(read_given_file(path))
    except ImageRejected as rejection:
        raise LvaeError(path, f"cannot be used ({rejection.reason})", "Give another image.") from None
    except OSError as error:
        raise LvaeError(path, f"cannot be read ({error.strerror or error})", "Give an image file.") from None


def _format_shape(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape))
