"""Autoencoders that others have published: what is said of each, and where it lies. Nothing here needs torch."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from lvae.manifests.errors import LvaeError
from lvae.manifests.machine import find_cache_home

ZOO = "https://ommer-lab.com/files/latent-diffusion/"
HUB = "https://huggingface.co"
HUB_FILES = ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin")
DEFAULT = "default"
OURS = Path(__file__).parents[1] / "pretrained" / "default.safetensors"

ZOO_LICENCE = "MIT (of the code; none is stated for the weights)"


@dataclass(frozen=True)
class Published:
    """One autoencoder.

    architecture: a name known to `build`.
    url: one file that holds it; or repository and folder: a repository of the Hugging Face hub and where in it.
    rfid, psnr_db: as its authors report, on the pictures of `measured_on` at 256 px.
    licence: as its place states it; read it there before you publish anything made with it.
    sha256: of the file, where somebody we can cite states one.
    """

    architecture: str
    licence: str
    url: str | None = None
    repository: str | None = None
    folder: str = ""
    rfid: float | None = None
    psnr_db: float | None = None
    measured_on: str = ""
    sha256: str | None = None

    @property
    def urls(self) -> tuple[str, ...]:
        """Where to look, the best first."""
        if self.repository is None:
            return () if self.url is None else (self.url,)
        return tuple(f"{hub_address()}/{self.repository}/resolve/main/{self.folder}{name}" for name in HUB_FILES)


def _zoo(name: str, rfid: float, psnr_db: float) -> Published:
    return Published(name, ZOO_LICENCE, f"{ZOO}{name}.zip", rfid=rfid, psnr_db=psnr_db, measured_on="OpenImages")


def _hub(architecture: str, repository: str, licence: str, folder: str = "") -> Published:
    return Published(architecture, licence, repository=repository, folder=folder)


# Rombach et al.'s model zoo and the model cards of the others.
PUBLISHED: Mapping[str, Published] = {
    "kl-f4": _zoo("kl-f4", 0.27, 27.53),
    "kl-f8": _zoo("kl-f8", 0.90, 24.19),
    "kl-f16": _zoo("kl-f16", 0.87, 24.08),
    "kl-f32": _zoo("kl-f32", 2.04, 22.27),
    "vq-f4": _zoo("vq-f4", 0.58, 27.43),
    "vq-f4-noattn": _zoo("vq-f4-noattn", 1.06, 25.21),
    "vq-f8": _zoo("vq-f8", 1.14, 23.07),
    "vq-f8-n256": _zoo("vq-f8-n256", 1.49, 22.35),
    "vq-f16": _zoo("vq-f16", 5.15, 20.83),
    "sd-vae-ft-mse": Published(
        "kl-f8", "MIT", repository="stabilityai/sd-vae-ft-mse", rfid=4.70, psnr_db=24.5, measured_on="COCO 2017"
    ),
    "sd-vae-ft-ema": Published(
        "kl-f8", "MIT", repository="stabilityai/sd-vae-ft-ema", rfid=4.42, psnr_db=23.8, measured_on="COCO 2017"
    ),
    "ldm-celebahq-256": _hub("vq-f4", "CompVis/ldm-celebahq-256", "see its model card", "vqvae/"),
    "taesd": _hub("taesd", "madebyollin/taesd", "MIT"),
    "taesdxl": _hub("taesd", "madebyollin/taesdxl", "MIT"),
    "taesd3": _hub("taesd3", "madebyollin/taesd3", "MIT"),
    "taef1": _hub("taesd3", "madebyollin/taef1", "MIT"),
}


def hub_address() -> str:
    """HF_ENDPOINT names another hub, as for Hugging Face's own tools."""
    return os.environ.get("HF_ENDPOINT", HUB).rstrip("/")


def architecture_of(name: str) -> str:
    """The architecture's own name, where `name` is that of published weights; `name` itself otherwise."""
    return PUBLISHED[name].architecture if name in PUBLISHED else name


def cache_folder() -> Path:
    """Where fetched weights are kept: `latent-vae` in the user's cache folder. LvaeError where there is none."""
    home = find_cache_home()
    if home is None:
        raise LvaeError("HOME", "not set, and this user has no entry of its own", "Set XDG_CACHE_HOME to a folder.")
    return home / "latent-vae" / "autoencoders"


def path_in_cache(name: str) -> Path:
    """Where the weights of that name lie once they are fetched."""
    return cache_folder() / f"{name}.safetensors"


def find_weights(name: str) -> Path | None:
    """Weights of that name that are on this machine, ready to be read."""
    if name == DEFAULT:
        return OURS if OURS.is_file() else None
    if name not in PUBLISHED or find_cache_home() is None:
        return None
    return path_in_cache(name) if _is_there(path_in_cache(name)) else None


def find_in_hub_cache(published: Published) -> Path | None:
    """The file in Hugging Face's own cache, where its tools put it."""
    if published.repository is None:
        return None
    cache, home, hub = find_cache_home(), os.environ.get("HF_HOME"), os.environ.get("HF_HUB_CACHE")
    if not (hub or home or cache):
        return None
    folder = Path(hub) if hub else (Path(home) if home else Path(cache or "") / "huggingface") / "hub"
    snapshots = folder / f"models--{published.repository.replace('/', '--')}" / "snapshots"
    for name in HUB_FILES:
        for path in sorted(snapshots.glob(f"*/{published.folder}{name}")):
            if _is_there(path):
                return path
    return None


def _is_there(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # where this user may not look
        return False
