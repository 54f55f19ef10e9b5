"""From latents to pixels: a dataset or samples through the decoder they belong to, batch by batch."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from lvae.encode.autoencoder import load, load_file
from lvae.encode.encoder import weights_in
from lvae.encode.networks.base import Autoencoder
from lvae.evaluate.figures.drawing import png
from lvae.evaluate.pictures.npz import StreamedArray, whole, write_streamed
from lvae.manifests.dataset import Dataset
from lvae.manifests.errors import LvaeError
from lvae.manifests.parts.plan import AutoencoderRecord

Rounding = Literal["nearest", "truncate"]
GRID_LIMIT = 1024  # pictures that still make a grid a person can look at


@dataclass(frozen=True)
class Decoded:
    """Some pictures: their positions (n,), uint8 (n, H, W, 3) and labels (n,), -1 where there is none."""

    positions: NDArray[np.int64]
    pixels: NDArray[np.uint8]
    labels: NDArray[np.int32]


def load_decoder(dataset: Dataset, weights: str | None, *elsewhere: Path) -> Autoencoder:
    """The network that decodes a dataset: from a given file, its own weights/, then those of other folders.

    LvaeError where none has it, and where the weights are another network's.
    """
    name = str(dataset.manifest.autoencoder.weights_file)
    places = [dataset.folder.local(name), *(folder / name for folder in elsewhere)]
    return find_decoder(dataset.manifest.autoencoder, str(dataset.folder), weights, places)


def find_decoder(
    record: AutoencoderRecord, where: str, weights: str | None = None, places: Sequence[Path] = ()
) -> Autoencoder:
    """The network of this record, from a given file, or the first of these places that has it."""
    if record.pixels:
        return load(record.architecture)
    found = weights or next((str(place) for place in places if place.exists()), None)
    if found is None:
        what = "its weights" if record.weights_unknown else f"the weights ({str(record.weights_sha256)[:12]})"
        raise LvaeError(where, f"{what} of {record.name} are not there", "Give --weights FILE.")
    if record.weights_unknown:
        return load(record.architecture, found) if record.architecture else load_file(found)
    network = load(record.architecture, found)
    if network.fingerprint != record.weights_sha256:
        raise LvaeError(
            found,
            (f"weights {network.fingerprint[:12]}, but {where} was encoded with {str(record.weights_sha256)[:12]}"),
            "Give the weights that it was encoded with.",
        )
    return network


def to_uint8(images: NDArray[np.float32], rounding: Rounding) -> NDArray[np.uint8]:
    """(B, 3, H, W) in about [-1, 1] -> uint8 (B, H, W, 3): to the nearest level, or cut off as ADM's sampler does."""
    levels = (np.clip(images, -1, 1).transpose(0, 2, 3, 1) + 1) * 127.5
    result: NDArray[np.uint8] = (np.rint(levels) if rounding == "nearest" else levels).astype(np.uint8)
    return result


def decoded(
    dataset: Dataset,
    network: Autoencoder,
    positions: NDArray[np.int64],
    batch: int,
    device: str = "cpu",
    precision: str = "float32",
    rounding: Rounding = "nearest",
) -> Iterator[Decoded]:
    """Pictures at these positions, in this order; no more than `batch` at a time are in memory."""
    network = network.to(device)
    for start in range(0, len(positions), batch):
        chosen = positions[start : start + batch]
        latents, labels = dataset.read(chosen, None if dataset.manifest.view.dtype == "uint8" else np.float32)
        yield Decoded(chosen, decode_raw(network, dataset.denormalize(latents), device, precision, rounding), labels)


def decode_raw(
    network: Autoencoder,
    latents: NDArray[np.float32],
    device: str = "cpu",
    precision: str = "float32",
    rounding: Rounding = "nearest",
) -> NDArray[np.uint8]:
    """Raw latents (B, C, h, w), as the autoencoder gave them -> uint8 (B, H, W, 3)."""
    raw = torch.from_numpy(np.ascontiguousarray(latents)).to(device)
    half = torch.autocast(torch.device(device).type, torch.bfloat16, enabled=precision == "bfloat16")
    with torch.inference_mode(), half:
        images = torch.cat([network.decode(piece) for piece in network.one_by_one(raw)])
    return to_uint8(images.float().cpu().numpy(), rounding)


def positions_of(text: str | None, count: int, limit: int | None) -> NDArray[np.int64]:
    """ "0,5,7-20", or all; at most `limit`."""
    if text is None:
        return np.arange(count if limit is None else min(limit, count))
    found: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not (first.isdigit() and (last.isdigit() or not dash) and len(first) < 16 and len(last) < 16):
            raise LvaeError(f"--indices {part:.40}", "write numbers and ranges like 0,5,7-20")
        start, stop = int(first), int(last or first)
        if start > stop or stop >= count:
            raise LvaeError(f"--indices {part:.40}", f"there are {count}, numbered from 0 to {count - 1}")
        found.extend(range(start, stop + 1))
    return np.array(found[:limit], np.int64)


def write_folder(pictures: Iterator[Decoded], out: Path, progress: Callable[[int], None]) -> int:
    """OUT/000000.png, numbered by position."""
    out.mkdir(parents=True, exist_ok=True)
    total = 0
    for some in pictures:
        for position, pixels in zip(some.positions, some.pixels, strict=True):
            write_whole(out / f"{position:06d}.png", png(Image.fromarray(pixels)))
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
        arrays["arr_1"] = whole(found)
    write_streamed(out, arrays)
    return count


def write_whole(path: Path, data: bytes) -> None:
    """A file that appears under its name when it is complete."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.unfinished")
    unfinished.write_bytes(data)
    unfinished.replace(path)


def load_autoencoder(dataset: Dataset) -> Autoencoder:
    """The network that a dataset was encoded with, from the weights it carries."""
    record = dataset.manifest.autoencoder
    return load(record.architecture, weights_in(dataset.folder, dataset.encoding))


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
