"""How well an autoencoder does on pictures: error, sharpness, and what its latents are like."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from lvae.encode.autoencoder import load, load_file
from lvae.encode.catalogue.architectures import KNOWN
from lvae.encode.catalogue.published import PUBLISHED, find_weights
from lvae.encode.crops import CROPS, crop
from lvae.encode.devices import choose_device
from lvae.encode.images import ImageRejected, open_image
from lvae.encode.networks.base import Autoencoder
from lvae.encode.quality.fidelity import LinearCode, Pixels, detail_kept, psnr, ssim, to_images, to_pixels
from lvae.encode.sources.base import read_bytes
from lvae.encode.sources.open import open_reader
from lvae.encode.sources.subset import Chosen, held_out
from lvae.manifests.errors import LvaeError

DEAD = 0.01  # of the largest channel's standard deviation: a channel below says nothing
LINEAR_PICTURES = 1000  # from which the linear code is made, at most
SSIM_SIDE = 11


@dataclass(frozen=True)
class ChannelScore:
    """One latent channel over all pictures and places. excess_kurtosis: 0 for a normal distribution.

    psnr_without_db: with this channel set to its mean everywhere.
    """

    mean: float
    std: float
    excess_kurtosis: float
    active: bool
    psnr_without_db: float


@dataclass(frozen=True)
class Score:
    """Means over pictures.

    psnr_db: None where nothing is lost. l1: mean absolute error in grey levels. detail_kept: see fidelity.py.
    linear_psnr_db: of the best linear code of the same size, made from linear_from ("these pictures", or those not
        held out).
    """

    name: str
    images: int
    size: int
    psnr_db: float | None
    psnr_std_db: float
    ssim: float
    l1: float
    detail_kept: float
    linear_psnr_db: float | None
    linear_from: str
    downsampling_factor: int
    channels: tuple[ChannelScore, ...]
    left_out: dict[str, int]

    def table(self) -> str:
        """For people."""
        lines = [
            f"{self.name}: {self.images} pictures at {self.size} px, f = {self.downsampling_factor}, "
            f"{len(self.channels)} channels",
            f"  PSNR         {_decibels(self.psnr_db)}, std {self.psnr_std_db:.2f}",
            f"  linear code  {_decibels(self.linear_psnr_db)} (made from {self.linear_from})",
            f"  SSIM         {self.ssim:.4f}",
            f"  L1           {self.l1:.2f} grey levels",
            f"  detail kept  {self.detail_kept:.3f}",
            "  channel       mean        std   kurtosis   PSNR without",
        ]
        for number, one in enumerate(self.channels):
            dead = "" if one.active else "  DEAD"
            lines.append(
                f"  {number:7d} {one.mean:10.4f} {one.std:10.4f} {one.excess_kurtosis:10.2f} "
                f"{one.psnr_without_db:11.2f} dB{dead}"
            )
        lines += [f"  left out: {count} ({reason})" for reason, count in sorted(self.left_out.items())]
        return "\n".join(lines)


def open_autoencoder(name_or_path: str, weights: str | None = None) -> tuple[str, Autoencoder]:
    """A known name, a run of `fit`, or a file or folder of weights; how it is called in tables."""
    if weights is not None:
        return name_or_path, load(name_or_path, weights)
    if name_or_path in KNOWN or name_or_path in PUBLISHED or find_weights(name_or_path):
        return name_or_path, load(name_or_path)
    path = Path(name_or_path)
    run = path / "autoencoder.safetensors"
    return path.name, load_file(run if run.is_file() else path)


def score(
    autoencoder: tuple[str, Autoencoder],
    chosen: Chosen,
    size: int,
    kind: str = "adm",
    share: float | None = None,
    device: str = "auto",
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[Score, list[tuple[Pixels, Pixels]]]:
    """Score on the pictures of a source, cropped to `size`; the pairs, original and reconstruction, come back too.

    share: only those that `fit --validation SHARE` sets aside are scored, and the linear code is made from the rest;
    None scores all and makes the linear code from the same, which flatters it.
    """
    name, network = autoencoder
    if size % network.downsampling_factor or size < max(SSIM_SIDE, network.downsampling_factor):
        raise LvaeError(f"--size {size}", f"{name} needs a multiple of its downsampling factor of at least 16")
    rows = [row for row in chosen.rows if share is None or held_out(row.key, share)]
    others = [] if share is None else [row for row in chosen.rows if not held_out(row.key, share)]
    if not rows:
        raise LvaeError(chosen.location, "no picture is held out at that share", "Raise it, or leave it out.")
    thinned = others[:: -(-len(others) // LINEAR_PICTURES)] if others else []
    total = len(rows) + len(thinned)
    left_out: dict[str, int] = {}
    pictures = _open_all(replace(chosen, rows=tuple(rows)), size, kind, left_out, lambda n: progress(n, total))
    if not pictures:
        raise LvaeError(chosen.location, f"no picture can be opened ({'; '.join(left_out)})")
    fitting = _open_all(replace(chosen, rows=tuple(thinned)), size, kind, {}, lambda n: progress(len(rows) + n, total))
    linear = LinearCode.fit(fitting or pictures, network.downsampling_factor, network.latent_channels)
    latents, decoded, without = _through(network, pictures, choose_device(device))
    errors = [psnr(*pair) for pair in zip(pictures, decoded, strict=True)]
    result = Score(
        name=name,
        images=len(pictures),
        size=size,
        psnr_db=_mean(errors),
        psnr_std_db=float(np.std(errors)) if np.isfinite(errors).all() else 0.0,
        ssim=float(np.mean([ssim(*pair) for pair in zip(pictures, decoded, strict=True)])),
        l1=float(np.mean([np.abs(a.astype(float) - b).mean() for a, b in zip(pictures, decoded, strict=True)])),
        detail_kept=detail_kept(pictures, decoded),
        linear_psnr_db=_mean([psnr(one, linear.through(one)) for one in pictures]),
        linear_from="the pictures not held out" if fitting else "these pictures",
        downsampling_factor=network.downsampling_factor,
        channels=_channels(latents, without),
        left_out=left_out,
    )
    return result, list(zip(pictures, decoded, strict=True))


def _mean(decibels: list[float]) -> float | None:
    """None where a picture comes back without any error."""
    return float(np.mean(decibels)) if np.isfinite(decibels).all() else None


def _decibels(value: float | None) -> str:
    return "nothing is lost" if value is None else f"{value:.2f} dB"


def _open_all(
    chosen: Chosen, size: int, kind: str, left_out: dict[str, int], progress: Callable[[int], None]
) -> list[Pixels]:
    if kind not in CROPS:
        raise LvaeError(f"--crop {kind}", "there is no such crop", f"Choose one of {', '.join(CROPS)}.")
    reader, found = open_reader(chosen.kind, chosen.location), []
    for number, row in enumerate(chosen.rows, start=1):
        try:
            found.append(np.asarray(crop(open_image(read_bytes(row, reader)), size, kind)))
        except ImageRejected as rejection:
            left_out[rejection.reason] = left_out.get(rejection.reason, 0) + 1
        progress(number)
    reader.close()
    return found


def _through(
    network: Autoencoder, pictures: list[Pixels], device: str
) -> tuple[NDArray[np.float32], list[Pixels], list[float]]:
    """Latents (N, C, h, w), reconstructions, and per channel the PSNR without it, over at most 64 pictures."""
    network = network.to(device)
    with torch.inference_mode():
        latents = torch.cat([network.encode(to_images(one[None]).to(device)).cpu() for one in pictures])
        decoded = [to_pixels(network.decode(z[None].to(device)))[0] for z in latents]
        few = range(0, len(pictures), -(-len(pictures) // 64))
        without = []
        for channel, mean in enumerate(latents.mean((0, 2, 3))):
            flat = latents[list(few)].clone()
            flat[:, channel] = mean
            changed = (to_pixels(network.decode(z[None].to(device)))[0] for z in flat)
            without.append(float(np.mean([psnr(pictures[i], one) for i, one in zip(few, changed, strict=True)])))
    array: NDArray[np.float32] = latents.float().numpy()
    return array, decoded, without


def _channels(latents: NDArray[np.float32], without: list[float]) -> tuple[ChannelScore, ...]:
    values = latents.astype(np.float64).transpose(1, 0, 2, 3).reshape(latents.shape[1], -1)
    mean, std = values.mean(1), values.std(1)
    standard = (values - mean[:, None]) / np.maximum(std, 1e-12)[:, None]
    kurtosis = (standard**4).mean(1) - 3
    return tuple(
        ChannelScore(float(mean[c]), float(std[c]), float(kurtosis[c]), bool(std[c] > DEAD * std.max()), without[c])
        for c in range(len(mean))
    )
