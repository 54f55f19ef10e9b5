"""The paper's datasets by name: how their images became latents, as far as that is known. Nothing here needs torch.

The autoencoders, sizes and constants are those of the published code and of the paper (Luhman and Luhman, 2023:
section 4, appendix B). The script that encoded the images was not published; `unknown` says what had to be chosen.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lvae.encode.catalogue.architectures import quote
from lvae.manifests.errors import LvaeError
from lvae.manifests.messages import did_you_mean

UNPUBLISHED = "crop, draw or mode, mirrors"  # of every encoded dataset of the paper
NOT_IN_THE_PAPER = "everything: this one is not in the paper, and is made like the others"


@dataclass(frozen=True)
class EncodingPreset:
    """How one dataset of the paper is encoded.

    crop: lsun is the loader of the latent-diffusion code, whose autoencoders the paper took; adm is what the reference
    batches of ImageNet are made with.
    shift, scale: the constants of the paper, one for all channels: latents = (raw - shift) / scale, pixels counting
    as u/127.5 - 1; None where none are published, and channels are normalized by their own statistics.
    classes: of the labelled data, None for a model without labels.
    unknown: what is published nowhere, and was chosen here.
    """

    autoencoder: str
    size: int
    crop: str
    shift: float | None
    scale: float | None
    classes: int | None = None
    mirror: bool = False
    store: str = "mode"
    dtype: str = "float16"
    unknown: str = UNPUBLISHED

    @property
    def constants(self) -> tuple[float, float] | None:
        """Shift and scale where they are published."""
        return None if self.shift is None or self.scale is None else (self.shift, self.scale)

    @property
    def normalization(self) -> str:
        """As `--normalization` takes it."""
        if self.constants is None:
            return "channel"
        if self.constants == (0.0, 1.0):
            return "none"
        return json.dumps({"shift": self.shift, "scale": self.scale})

    @property
    def options(self) -> dict[str, Any]:
        """What it says, by the option of `lvae encode`."""
        names = ("autoencoder", "size", "crop", "mirror", "store", "normalization", "dtype")
        return {name: getattr(self, name) for name in names}


PRESETS: Mapping[str, EncodingPreset] = {
    "imagenet256-f4": EncodingPreset("vq-f4", 256, "adm", None, None, 1000, unknown=NOT_IN_THE_PAPER),
    "imagenet256-f8": EncodingPreset("kl-f8", 256, "adm", 0.25, 4.4, 1000),
    "imagenet256-f16": EncodingPreset("kl-f16", 256, "adm", None, None, 1000, unknown=NOT_IN_THE_PAPER),
    "church256-f4": EncodingPreset("vq-f4", 256, "lsun", None, None, unknown=NOT_IN_THE_PAPER),
    "church256-f8": EncodingPreset("kl-f8", 256, "lsun", 0.25, 4.1),
    "church256-f16": EncodingPreset("kl-f16", 256, "lsun", None, None, unknown=NOT_IN_THE_PAPER),
    "church32-rgb": EncodingPreset(
        "pixels-f8", 256, "lsun", 0.0, 1.0, dtype="uint8", unknown="crop, filter that reduces to 32 px, mirrors"
    ),
    "church256-pixels": EncodingPreset("pixels", 256, "lsun", 0.0, 1.0, dtype="uint8", unknown="crop, mirrors"),
    "bedroom256-f4": EncodingPreset("vq-f4", 256, "lsun", 0.075, 0.84, unknown="crop, mirrors"),
    "bedroom256-f8": EncodingPreset("kl-f8", 256, "lsun", 0.25, 4.1),
    "bedroom256-f16": EncodingPreset("kl-f16", 256, "lsun", 0.0, 3.5),
}

ALIASES: Mapping[str, str] = {
    "imagenet256": "imagenet256-f8",
    "church256": "church256-f8",
    "church256-upsampler": "church256-pixels",  # it makes its small pictures from the large ones
    "bedroom256": "bedroom256-f4",  # the one that the paper publishes weights for
}


def encoding_preset(name: str) -> EncodingPreset:
    """A preset by its name or alias; LvaeError that offers the nearest names for any other."""
    found = PRESETS.get(ALIASES.get(name, name))
    if found is not None:
        return found
    known = [*PRESETS, *ALIASES]
    advice = did_you_mean(name, known, f"Choose one of {', '.join(known)}.")
    raise LvaeError(f"--preset {quote(name)}", "there is no such preset", advice)


def paper_constants(name: str) -> tuple[float, float]:
    """Shift and scale of a preset's raw latents; LvaeError where the paper has none."""
    constants = encoding_preset(name).constants
    if constants is None:
        known = ", ".join(other for other, preset in PRESETS.items() if preset.constants is not None)
        raise LvaeError(
            f"--preset {name}", "is not in the paper, so there are no constants", f"Those with some: {known}."
        )
    return constants


def fill(name: str, given: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The options with the preset's in place of those that are None, and what to say of it.

    given: by the names of `EncodingPreset.options`, among others, which stay as they are.
    """
    preset = encoding_preset(name)
    filled = {option: preset.options[option] if given[option] is None else given[option] for option in preset.options}
    said = [f"preset {name}: {describe(preset)}. Not published: {preset.unknown}"]
    others = [
        "--mirror" if option == "mirror" else f"--{option} {filled[option]} instead of {value}"
        for option, value in preset.options.items()
        if filled[option] != value
    ]
    if others:
        said.append(f"not as in preset {name}: {', '.join(others)}")
    return {**given, **filled}, said


def describe(preset: EncodingPreset) -> str:
    """In a few words."""
    constants = preset.constants
    normalized = "normalized by channel" if constants is None else "shift {:g}, scale {:g}".format(*constants)
    return f"{preset.autoencoder}, {preset.size} px, crop {preset.crop}, {normalized}"


def about_classes(name: str, classes: int) -> str | None:
    """What to say of a source with so many classes; None where it is what the preset has."""
    wanted = encoding_preset(name).classes
    if wanted is None or wanted == classes:
        return None
    return f"preset {name} has {wanted} classes, these images have {classes or 'none'}"


def table() -> str:
    """All names, a line each, for people."""
    also = {target: alias for alias, target in ALIASES.items()}
    lines = [
        f"  {name:16}  {describe(preset)}"
        + (f"; also {also[name]}" if name in also else "")
        + ("; not in the paper" if preset.unknown == NOT_IN_THE_PAPER else "")
        for name, preset in PRESETS.items()
    ]
    return "\n".join(lines)
