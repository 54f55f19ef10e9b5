"""Table 5 of the paper, studies on a small scale, and two models to begin with.

Where the paper and its published code differ: base widths, multipliers and FFN ratios are those that reproduce the
paper's parameter counts; EMA and micro-batches are the paper's; attention is real (DECISIONS.md, 17).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from lvae.manifests.errors import LvaeError
from lvae.manifests.messages import did_you_mean
from lvae.train.config import ModelConfig, TrainConfig

SCALE_TOLERANCE = 0.1  # relative: how far a dataset's scale may be from a preset's before sigma_q means another thing


@dataclass(frozen=True)
class Preset:
    """A model, its training, and what both were made for.

    fits: which latents: these alone ("exact"), of any number of channels ("channels"), or square ones of any size.
    autoencoder: whose latents; a known name of `encode.architectures`, or "any".
    normalization: sigma_q is in units of latents normalized so; shift and scale of "scalar" as raw = latents * scale +
        shift, in units of the autoencoder's output (pixels: [-1, 1]).
    hardware, hours: the paper's; None where there is no paper.
    """

    model: ModelConfig
    training: TrainConfig
    fits: Literal["exact", "channels", "any"]
    autoencoder: str
    normalization: Literal["scalar", "channel", "none"]
    shift: float | None = None
    scale: float | None = None
    hardware: str | None = None
    hours: float | None = None


# Table 5 says nothing of heads, nor that 4 attention layers are 3 where two of their places coincide (facts by count).
_CHURCH = ModelConfig(
    resolution=32,
    channels=4,
    width=192,
    encoder_width=192,
    multipliers=(1, 1, 1, 1, 1),
    ffn_ratios=(4, 4, 4, 4, 4),
    groups=(8, 8, 8, 8, 8),
    encoder_blocks=(4, 4, 4, 4, 4),
    attentions=(4, 4, 4, 0, 0),
    heads=(4, 8, 8, 0, 0),
    z_channels=16,
    classes=0,
    hierarchical_prior=False,
)
_UPSAMPLER = replace(
    _CHURCH,
    resolution=256,
    channels=3,
    width=64,
    encoder_width=64,
    multipliers=(2, 2, 3, 3),
    ffn_ratios=(0, 0, 4, 4),
    groups=(3, 6, 8, 8),
    encoder_blocks=(2, 3, 4, 4),
    attentions=(0, 0, 0, 4),
    heads=(0, 0, 0, 4),
    low_resolution_factor=8,
)
_PIXELS = replace(
    _CHURCH,
    resolution=256,
    channels=3,
    width=64,
    encoder_width=64,
    multipliers=(2, 2, 3, 3, 3, 3, 3, 3),
    ffn_ratios=(0, 0, 0, 4, 4, 4, 4, 4),
    groups=(2, 5, 8, 8, 8, 8, 8, 8),
    encoder_blocks=(2, 3, 4, 4, 4, 4, 4, 4),
    attentions=(0, 0, 0, 4, 4, 4, 0, 0),
    heads=(0, 0, 0, 4, 8, 8, 0, 0),
)
_BEDROOM_F4 = replace(
    _CHURCH,
    resolution=64,
    channels=3,
    width=64,
    encoder_width=64,
    multipliers=(2, 2, 2, 3, 3, 3),
    ffn_ratios=(0, 4, 4, 4, 4, 4),
    groups=(8, 12, 10, 8, 6, 6),
    encoder_blocks=(4, 6, 5, 4, 3, 3),
    attentions=(0, 4, 4, 4, 0, 0),
    heads=(0, 4, 8, 8, 0, 0),
)
_BEDROOM_F8 = replace(_CHURCH, groups=(8, 8, 7, 6, 6), encoder_blocks=(4, 4, 4, 3, 3))
_BEDROOM_F16 = replace(
    _CHURCH,
    resolution=16,
    channels=16,
    multipliers=(1, 1, 1, 1),
    ffn_ratios=(4, 4, 4, 4),
    groups=(10, 9, 8, 6),
    encoder_blocks=(5, 5, 4, 3),
    attentions=(4, 4, 0, 0),
    heads=(8, 8, 0, 0),
)
_IMAGENET = replace(
    _CHURCH,
    width=256,
    encoder_width=384,
    ffn_ratios=(4, 6, 8, 10, 12),
    groups=(10, 12, 10, 8, 8),
    encoder_blocks=(4, 5, 4, 3, 3),
    heads=(4, 8, 8, 8, 8),
    classes=1000,
    hierarchical_prior=True,
)
_TRAINING = TrainConfig()  # that of the Church model
_HIGH_RESOLUTION = replace(
    _TRAINING,
    batch=32,
    accumulate=4,
    learning_rate=1e-4,
    sigma_q=0.05,
    spectral_weight=0.25,
    rate_schedule="constant_per",
    rate_per_resolution=(256.0, 128.0, 64.0, 32.0, 16.0, 8.0, 4.0, 1.0),
)

# Pictures of 64 pixels. Every model has 5.16 million parameters (+-1 %) and sees as many images; the upsampler has
# half as many on top of study-rgb's, about as in the paper (62.9 of 119.1).
_STUDY = replace(
    _CHURCH,
    resolution=8,
    width=64,
    encoder_width=64,
    multipliers=(1, 1, 1),
    ffn_ratios=(4, 4, 4),
    groups=(6, 6, 4),
    encoder_blocks=(3, 3, 2),
    attentions=(2, 0, 0),
    heads=(4, 0, 0),
)
_STUDY_F4 = replace(
    _STUDY,
    resolution=16,
    channels=3,
    width=60,
    encoder_width=60,
    multipliers=(1, 1, 1, 1),
    ffn_ratios=(4, 4, 4, 4),
    groups=(6, 4, 4, 3),
    encoder_blocks=(3, 2, 2, 2),
    attentions=(2, 2, 0, 0),
    heads=(4, 4, 0, 0),
)
_STUDY_F16 = replace(
    _STUDY,
    resolution=4,
    channels=16,
    multipliers=(1, 1),
    ffn_ratios=(4, 4),
    groups=(11, 8),
    encoder_blocks=(4, 3),
    attentions=(2, 0),
    heads=(4, 0),
)
_STUDY_UPSAMPLER = replace(
    _UPSAMPLER,
    resolution=64,
    width=16,
    encoder_width=16,
    groups=(2, 3, 6, 5),
    encoder_blocks=(1, 2, 2, 2),
    attentions=(0, 0, 0, 2),
)
_STUDY_PIXELS = replace(
    _PIXELS,
    resolution=64,
    width=20,
    encoder_width=20,
    multipliers=(2, 2, 3, 3, 3, 3),
    ffn_ratios=(0, 0, 4, 4, 4, 4),
    groups=(2, 2, 4, 5, 4, 3),
    encoder_blocks=(1, 2, 2, 2, 2, 2),
    attentions=(0, 0, 2, 2, 0, 0),
    heads=(0, 0, 4, 4, 0, 0),
)
_STUDY_TRAINING = replace(_TRAINING, updates=20_000, batch=64, ema=0.999)
_STUDY_HIGH = replace(_HIGH_RESOLUTION, updates=20_000, batch=64, accumulate=1, ema=0.999)

PRESETS: Mapping[str, Preset] = {
    "church256-f8": Preset(_CHURCH, _TRAINING, "exact", "kl-f8", "scalar", 0.25, 4.1, "TPUv2-8", 36),
    "church32-rgb": Preset(
        replace(_CHURCH, channels=3),
        replace(_TRAINING, sigma_q=0.035),
        "exact",
        "pixels-f8",
        "scalar",
        0.0,
        1.0,
        "TPUv2-8",
        312,
    ),
    "church256-upsampler": Preset(
        _UPSAMPLER,
        replace(_HIGH_RESOLUTION, ema=0.9998, rate_per_resolution=(8.0, 4.0, 2.0, 1.0), skip_threshold=10_000.0),
        "exact",
        "pixels",
        "scalar",
        0.0,
        1.0,
        "TPUv2-8",
        345,
    ),
    "church256-pixels": Preset(
        _PIXELS,
        _HIGH_RESOLUTION,
        "exact",
        "pixels",
        "scalar",
        0.0,
        1.0,
        "TPUv3-8",
        175,
    ),
    "bedroom256-f4": Preset(
        _BEDROOM_F4,
        replace(_TRAINING, batch=32, accumulate=4, sigma_q=0.1, rate_scale=2000.0),
        "exact",
        "vq-f4",
        "scalar",
        0.075,
        0.84,
        "TPUv2-8",
        104,
    ),
    "bedroom256-f8": Preset(_BEDROOM_F8, _TRAINING, "exact", "kl-f8", "scalar", 0.25, 4.1, "TPUv2-8", 28),
    "bedroom256-f16": Preset(
        _BEDROOM_F16, replace(_TRAINING, rate_scale=600.0), "exact", "kl-f16", "scalar", 0.0, 3.5, "TPUv2-8", 17
    ),
    "imagenet256-f8": Preset(
        _IMAGENET,
        replace(_TRAINING, updates=475_000, accumulate=8, learning_rate=3e-4, ema=0.9998),
        "exact",
        "kl-f8",
        "scalar",
        0.25,
        4.4,
        "TPUv3-8",
        630,
    ),
    "study-latent": Preset(_STUDY, _STUDY_TRAINING, "channels", "any", "channel"),
    "study-rgb": Preset(
        replace(_STUDY, channels=3), replace(_STUDY_TRAINING, sigma_q=0.035), "exact", "pixels-f8", "none"
    ),
    "study-upsampler": Preset(
        _STUDY_UPSAMPLER,
        replace(_STUDY_HIGH, rate_per_resolution=(8.0, 4.0, 2.0, 1.0), skip_threshold=10_000.0),
        "exact",
        "pixels",
        "none",
    ),
    "study-pixels": Preset(
        _STUDY_PIXELS,
        replace(_STUDY_HIGH, rate_per_resolution=(64.0, 32.0, 16.0, 8.0, 4.0, 1.0)),
        "exact",
        "pixels",
        "none",
    ),
    "study-f4": Preset(_STUDY_F4, replace(_STUDY_TRAINING, sigma_q=0.1), "channels", "any", "channel"),
    "study-f8": Preset(_STUDY, _STUDY_TRAINING, "channels", "any", "channel"),
    "study-f16": Preset(_STUDY_F16, _STUDY_TRAINING, "channels", "any", "channel"),
}


def _levels(resolution: int) -> int:
    """How many levels lead from a resolution as far down as halving goes; 1 follows 4."""
    levels = 1
    while resolution >= 8 and resolution % 2 == 0:
        resolution //= 2
        levels += 1
    return levels + (resolution == 4)


def _tiny(channels: int, resolution: int) -> Preset:
    """For two CPU cores: two narrow groups a resolution (one above 16), one attention at 8."""
    levels = _levels(resolution)
    steps = [resolution >> level for level in range(levels)]
    model = replace(
        _CHURCH,
        resolution=resolution,
        channels=channels,
        width=32,
        encoder_width=32,
        multipliers=(1,) * levels,
        ffn_ratios=(2,) * levels,
        groups=tuple(1 if step > 16 else 2 for step in steps),
        encoder_blocks=(1,) * levels,
        attentions=tuple(int(step == 8) for step in steps),
        heads=tuple(4 * (step == 8) for step in steps),
    )
    training = replace(_TRAINING, updates=2_000, batch=32, learning_rate=3e-3, ema=0.99)
    return Preset(model, training, "any", "any", "channel")


def _small(channels: int, resolution: int) -> Preset:
    """For one GPU: half of the Church model's width, and about half of its depth."""
    levels = _levels(resolution)
    steps = [resolution >> level for level in range(levels)]
    attends = tuple(step in (8, 16) for step in steps)
    model = replace(
        _CHURCH,
        resolution=resolution,
        channels=channels,
        width=96,
        encoder_width=96,
        multipliers=(1,) * levels,
        ffn_ratios=(4,) * levels,
        groups=tuple(6 if yes else 4 for yes in attends),
        encoder_blocks=tuple(3 if yes else 2 for yes in attends),
        attentions=tuple(2 * yes for yes in attends),
        heads=tuple(4 * yes for yes in attends),
    )
    training = replace(_TRAINING, updates=30_000, learning_rate=1e-3, ema=0.999)
    return Preset(model, training, "any", "any", "channel")


SIZED = {"tiny": (_tiny, 16), "small": (_small, 32)}  # made for the latents at hand; otherwise 4 channels of this size
NAMES = (*PRESETS, *SIZED)


def preset(name: str, shape: Sequence[int] | None = None) -> Preset:
    """By name, for latents of `shape` (channels, h, w), or the ones that it was made for."""
    if name not in NAMES:
        advice = did_you_mean(name, NAMES, f"Choose one of {', '.join(NAMES)}.")
        raise LvaeError(f"--preset {name:.60}", "there is no such preset", advice)
    if name in SIZED:
        make, resolution = SIZED[name]
        channels, height, width = (4, resolution, resolution) if shape is None else shape
        if height != width:
            raise LvaeError(name, f"made for square latents, not {height}x{width}", "Encode square images.")
        return make(channels, height)
    found = PRESETS[name]
    if shape is None:
        return found
    model = replace(found.model, channels=shape[0]) if found.fits == "channels" else found.model
    made_for = (model.channels, model.resolution, model.resolution)
    if tuple(shape) != made_for:
        raise LvaeError(
            name,
            f"made for latents of {_shown(made_for)}, not {_shown(shape)}",
            ("Choose a preset for these, such as tiny or small, or encode with another autoencoder or size."),
        )
    return replace(found, model=model)


def model_preset(name: str, shape: Sequence[int] | None = None) -> ModelConfig:
    return preset(name, shape).model


def normalization_warning(preset: Preset, kind: str, scale: Sequence[float]) -> str | None:
    """Why sigma_q does not mean on these latents what it meant where it was chosen; None where it does."""
    if preset.scale is not None:
        if all(abs(math.log(s / preset.scale)) < math.log1p(SCALE_TOLERANCE) for s in scale):
            return None
        shown = ", ".join(f"{s:.3g}" for s in scale[:4]) + (", ..." if len(scale) > 4 else "")
        made_for = f"divided by {preset.scale:g}, these were divided by {shown}"
    elif kind == preset.normalization or (preset.normalization, kind) == ("channel", "scalar"):
        return None
    else:
        made_for = f"normalized by '{preset.normalization}', these are by '{kind}'"
    return (
        f"sigma_q {preset.training.sigma_q:g} was chosen for latents {made_for}: it is in those units. Set sigma_q, or "
        "make a view with that normalization (lvae shard --normalization)."
    )


def paper_guidance(config: ModelConfig) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """The setting of FID 9.34: weights of mean and variance per resolution, lowest first; no mean guidance at 1x1."""
    lowest_first = config.resolutions[::-1]
    return tuple(0.0 if resolution == 1 else 1.5 for resolution in lowest_first), (3.0,) * len(lowest_first)


def _shown(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape))
