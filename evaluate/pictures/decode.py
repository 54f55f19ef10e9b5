"""From latents to pixels: a dataset or samples through the decoder they belong to, batch by batch."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from lvae.encode.autoencoder import load, load_file
from lvae.encode.catalogue.published import DEFAULT, PUBLISHED, architecture_of, find_weights
from lvae.encode.networks.base import Autoencoder
from lvae.encode.quality.fidelity import Rounding, to_pixels
from lvae.evaluate.figures.drawing import png
from lvae.evaluate.pictures.npz import StreamedArray, stream_array, write_streamed
from lvae.evaluate.pictures.picture_folder import picture_name
from lvae.manifests.dataset import Dataset
from lvae.manifests.errors import LvaeError
from lvae.manifests.parts.plan import AutoencoderRecord
from lvae.manifests.statistics import require_finite
from lvae.manifests.storage.folder import Folder

VERIFY = "Run 'lvae verify --deep' on it."
DECODE = "Decode in float32, and look whether the decoder is the right one."
GRID_LIMIT = 1024  # pictures that still make a grid a person can look at


@dataclass(frozen=True)
class Decoded:
    """Some pictures: their positions (n,), uint8 (n, H, W, 3) and labels (n,), -1 where there is none."""

    positions: NDArray[np.int64]
    pixels: NDArray[np.uint8]
    labels: NDArray[np.int32]


def load_decoder(dataset: Dataset, weights: str | None = None, *elsewhere: Path) -> Autoencoder:
    """Return the network that decodes a dataset, see `find_decoder`; LvaeError where its weights are nowhere."""
    record = dataset.manifest.autoencoder
    found = find_decoder(record, dataset.folder, weights, *map(Folder, elsewhere))
    if found is None and not record.architecture:
        advice = "Give --weights FILE of one that is, or decode its latents with the tool that made them."
        raise LvaeError(dataset.folder, "its autoencoder is not known here", advice)
    if found is None:
        what = "its weights" if record.weights_unknown else f"the weights ({str(record.weights_sha256)[:12]})"
        raise LvaeError(dataset.folder, f"{what} of {record.name} are not there", "Give --weights FILE.")
    found.input_range = dataset.manifest.image.input_range
    return found


def find_decoder(
    record: AutoencoderRecord, owner: Folder, weights: str | None = None, *elsewhere: Folder
) -> Autoencoder | None:
    """Return the network of this record, by fingerprint; None where its weights are nowhere.

    Looked at: the file `weights`, the weights/ of the owner and of other folders, this package, the cache of fetched
    weights. LvaeError where the file, or what a folder has under this fingerprint, is another network.
    """
    if record.pixels:
        if weights is not None:
            raise LvaeError(f"--weights {weights}", "these latents are pixels, which need none", "Leave it out.")
        return load(record.architecture)
    if weights is None:
        name = record.weights_file
        places = (owner, *elsewhere) if name is not None else ()
        folder = next((folder for folder in places if folder.exists(str(name))), None)
        if folder is None:
            return _find_published(record)
        weights = str(folder.local(str(name)))
    if record.weights_unknown:
        return load(record.architecture, weights) if record.architecture else _load_unknown(record, weights)
    network = load(record.architecture, weights)
    if network.fingerprint != record.weights_sha256:
        raise LvaeError(
            weights,
            f"weights {network.fingerprint[:12]}, but {owner} was encoded with {str(record.weights_sha256)[:12]}",
            "Give the weights that it was encoded with.",
        )
    return network


def _load_unknown(record: AutoencoderRecord, weights: str) -> Autoencoder:
    """The network of a file, for latents of which nothing is known but their channels and, unless it is 1, factor."""
    network = load_file(weights)
    there, wanted = ((one.downsampling_factor, one.latent_channels) for one in (network, record))
    if there[1] != wanted[1] or wanted[0] not in (1, there[0]):  # a model that came without an autoencoder has 1
        problem = (
            f"{network.name}, f={there[0]} with {there[1]} channels; the latents are f={wanted[0]} with {wanted[1]}"
        )
        raise LvaeError(weights, problem, "Give the weights that they were made with.")
    return network


def _find_published(record: AutoencoderRecord) -> Autoencoder | None:
    """Look in the package, then among fetched weights of this architecture."""
    if record.weights_unknown:
        return None
    for name in (DEFAULT, *PUBLISHED):
        path = find_weights(name)
        if path is not None and architecture_of(name) == record.name:
            network = load(record.architecture, path)
            if network.fingerprint == record.weights_sha256:
                return network
    return None


@dataclass(frozen=True)
class DecodeSettings:
    """Where and how latents become levels."""

    device: str = "cpu"
    precision: Literal["float32", "bfloat16"] = "float32"
    rounding: Rounding = "nearest"


def decode_positions(
    dataset: Dataset,
    decoder: Autoencoder,
    positions: NDArray[np.int64],
    batch: int,
    settings: DecodeSettings = DecodeSettings(),
) -> Iterator[Decoded]:
    """Pictures at these positions, in this order; no more than `batch` at a time are in memory.

    LvaeError naming the first position whose latent, or whose picture, is not finite.
    """
    decoder = decoder.to(settings.device)
    for start in range(0, len(positions), batch):
        chosen = positions[start : start + batch]
        latents, labels = dataset.read(chosen, None if dataset.manifest.view.dtype == "uint8" else np.float32)
        require_finite(latents, dataset.folder, "latents of position", chosen, VERIFY)
        images = _decode(decoder, dataset.denormalize(latents), settings)
        finite = images.isfinite().flatten(1).all(1).cpu().numpy()
        require_finite(np.where(finite, 0.0, np.nan), dataset.folder, "pixels of position", chosen, DECODE)
        yield Decoded(chosen, to_pixels(images, settings.rounding), labels)


def decode(
    decoder: Autoencoder, latents: NDArray[np.float32], settings: DecodeSettings = DecodeSettings()
) -> NDArray[np.uint8]:
    """Raw latents (B, C, h, w), as the autoencoder gave them -> uint8 (B, H, W, 3)."""
    return to_pixels(_decode(decoder, latents, settings), settings.rounding)


def _decode(decoder: Autoencoder, latents: NDArray[np.float32], settings: DecodeSettings) -> torch.Tensor:
    raw = torch.from_numpy(np.array(latents)).to(settings.device)
    half = torch.autocast(torch.device(settings.device).type, torch.bfloat16, enabled=settings.precision == "bfloat16")
    with torch.inference_mode(), half:
        images = torch.cat([decoder.decode(piece) for piece in decoder.one_by_one(raw)])
        return decoder.from_input_range(images)


def write_folder(pictures: Iterator[Decoded], out: Path, progress: Callable[[int], None]) -> int:
    """OUT/000000.png, numbered by position, in a folder that is ready (`begin_pictures`)."""
    total = 0
    for some in pictures:
        for position, pixels in zip(some.positions, some.pixels, strict=True):
            write_whole(out / picture_name(position), png(Image.fromarray(pixels)))
        total += len(some.positions)
        progress(len(some.positions))
    return total


def write_npz(
    pictures: Iterator[Decoded], out: Path, count: int, size: int, labels: bool, progress: Callable[[int], None]
) -> int:
    """`arr_0` uint8 (N, H, W, 3) and, with labels, `arr_1` int64 (N,), streamed into the archive as they come."""
    found = np.empty(count, np.int64)  # at once: small arrays between the pictures' would keep their memory in pieces

    def pixels() -> Iterator[NDArray[np.uint8]]:
        done = 0
        for some in pictures:
            yield some.pixels
            found[done : done + len(some.labels)] = some.labels
            done += len(some.labels)
            progress(len(some.positions))

    arrays = {"arr_0": StreamedArray((count, size, size, 3), np.dtype(np.uint8), pixels)}
    if labels:
        arrays["arr_1"] = stream_array(found)
    write_streamed(out, arrays)
    return count


def write_whole(path: Path, data: bytes) -> None:
    """A file that appears under its name when it is complete."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.unfinished")
    unfinished.write_bytes(data)
    unfinished.replace(path)
