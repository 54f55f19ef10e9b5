"""What decides the result of training an autoencoder: one record, kept as JSON beside it. Nothing here needs torch."""

from dataclasses import dataclass
from typing import Any, Literal

from lvae.encode.catalogue.architectures import PixelsSpec, parse_spec
from lvae.manifests import records
from lvae.manifests.errors import LvaeError
from lvae.manifests.records import require_real, require_whole

SMALLEST_SIZE, LARGEST_SIZE = 16, 1024
LARGEST_STEPS = 100_000_000
Precision = Literal["float32", "bfloat16", "tf32"]


SETTINGS = "fit.json"  # of a run, in its folder


@dataclass(frozen=True)
class FitConfig:
    """The settings of one run.

    architecture: the network, as `build` takes it.
    size: side of the square crops in pixels.
    shorter_side: what a picture's shorter side is reduced to before a crop is taken, drawn between these two (pixels).
    validation: share of the pictures, by a hash of their key, that are set aside to measure PSNR and SSIM on.
    batch: crops an update sees. learning_rate: Adam's, after a linear warm-up of `warmup` updates; over the last
        `decay` of all updates it falls to nothing along a cosine.
    kl_weight: of the rate in nats a picture against the error summed over its elements, as LDM counts. codebook_weight:
        of the codebook's loss (vq). latent_noise: what a deterministic latent is disturbed by, in its channel's
        standard deviations.
    sharpen_after: updates before the next two terms join.
    contrast_weight: of the difference in local contrast (sharpness.py). adversarial_weight: of the discriminator's
        verdict, relative to the reconstruction's gradient (0: no discriminator), whose networks has
        `discriminator_layers`.
    perceptual_weight: of LPIPS or the distance by a network, whose files have the hash `perceptual_sha256` (None:
        without it).
    start_sha256: hash of the weights that it starts from (None: random ones).
    ema: decay of the averaged weights, which are the ones that count.
    without_keys: hashes of the keys of pictures that are left out altogether, see `key_hash`.
    """

    architecture: dict[str, Any]
    size: int = 64
    shorter_side: tuple[int, int] = (96, 192)
    only_classes: tuple[str, ...] | None = None
    limit: int | None = None
    validation: float = 0.05
    steps: int = 20_000
    batch: int = 16
    learning_rate: float = 1e-3
    warmup: int = 100
    decay: float = 0.5
    kl_weight: float = 1e-6
    codebook_weight: float = 1.0
    latent_noise: float = 0.0
    sharpen_after: int = 0
    contrast_weight: float = 0.0
    adversarial_weight: float = 0.0
    discriminator_layers: int = 3
    perceptual_weight: float = 1.0
    perceptual_sha256: str | None = None
    start_sha256: str | None = None
    ema: float = 0.999
    seed: int = 0
    precision: Precision = "float32"
    without_keys: tuple[str, ...] | None = records.later(None)

    def __post_init__(self) -> None:
        spec = parse_spec(self.architecture)
        if isinstance(spec, PixelsSpec):
            raise LvaeError(
                "--autoencoder", "pixels have nothing to learn", "Choose a kl, vq, tiny or upsampler autoencoder."
            )
        low, high = self.shorter_side
        require_whole("--size", self.size, SMALLEST_SIZE, LARGEST_SIZE)
        require_whole("--shorter-side, the lower end", low, self.size, 16 * LARGEST_SIZE)
        require_whole("--shorter-side, the upper end", high, low, 16 * LARGEST_SIZE)
        require_real("--validation", self.validation, least=0, most=0.5)
        require_whole("--steps", self.steps, 1, LARGEST_STEPS)
        require_whole("--batch", self.batch, 1, 65_536)
        require_real("--decay", self.decay, least=0, most=1)
        require_real("--ema", self.ema, least=0, most=0.999999)
        require_real("--learning-rate", self.learning_rate, least=1e-9, most=1)
        for name in ("kl", "codebook", "contrast", "adversarial", "perceptual"):
            require_real(f"--{name}-weight", getattr(self, f"{name}_weight"), least=0, most=1e6)
        require_real("--latent-noise", self.latent_noise, least=0, most=10)
        require_whole("--discriminator-layers", self.discriminator_layers, 1, 5)
        least = 3 * 2**self.discriminator_layers  # for one verdict a picture
        if self.adversarial_weight and self.size < least:
            raise LvaeError(
                f"--discriminator-layers {self.discriminator_layers}",
                f"needs crops of at least {least} pixels, not {self.size}",
                "Take fewer layers, or a larger --size.",
            )
