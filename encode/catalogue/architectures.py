"""Which autoencoders there are: their descriptions, checked, and the names of the published ones.

Nothing here needs torch.
"""

import json
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

from lvae.encode.catalogue.published import PUBLISHED, architecture_of
from lvae.manifests.errors import LvaeError
from lvae.manifests.messages import did_you_mean
from lvae.manifests.records import decode_json, require_whole

MAX_WIDTH = 8192  # channels of the widest layer: a description from elsewhere must not exhaust the memory
MAX_PATCH = 8  # pixels a side of what a tiny autoencoder sees as one place
MAX_DESCRIPTION_BYTES = 1 << 20


def _wholes(field: str, values: object, least: int, most: int) -> int:
    if not isinstance(values, tuple):
        raise LvaeError("", f"{field} must be a list of whole numbers, not {quote(values)}")
    for value in values:
        require_whole(f"every entry of {field}", value, least, most)
    return len(values)


def _check_levels(multipliers: object, width: int, least: int) -> int:
    """The number of levels."""
    levels = _wholes("multipliers", multipliers, 1, MAX_WIDTH)
    assert isinstance(multipliers, tuple)
    if not least <= levels <= 8:
        raise LvaeError("", f"multipliers must have {least} to 8 entries, one per level, not {levels}")
    if width * max(multipliers) > MAX_WIDTH:
        raise LvaeError("", f"multipliers times width must not exceed {MAX_WIDTH} channels")
    return levels


def quote(value: object) -> str:
    """A value for a message: one line, not too long."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


@dataclass(frozen=True)
class LdmSpec:
    """A network of Rombach et al. (2022): f = 2^(levels - 1), level 0 is the full resolution.

    kind: "kl" (diagonal Gaussian) or "vq" (codebook).
    width: channels of the first layer; level i has width * multipliers[i].
    blocks: residual blocks per level of the encoder; the decoder has one more.
    attention_levels: levels with an attention block after every residual block.
    decoder_attention_levels: those of the decoder, where they are others than the encoder's (MAR's KL-16 has none).
    middle_attention: whether the lowest resolution attends between its two middle blocks.
    codes: entries of the codebook, each of `latent_channels` numbers; 0 for "kl".
    """

    kind: Literal["kl", "vq"]
    width: int
    multipliers: tuple[int, ...]
    latent_channels: int
    blocks: int = 2
    attention_levels: tuple[int, ...] = ()
    middle_attention: bool = True
    codes: int = 0
    decoder_attention_levels: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if self.kind not in ("kl", "vq"):
            raise LvaeError("", f"kind must be kl or vq, not {quote(self.kind)}")
        require_whole("width", self.width, 1, MAX_WIDTH)
        require_whole("latent_channels", self.latent_channels, 1, 1024)
        require_whole("blocks", self.blocks, 1, 16)
        levels = _check_levels(self.multipliers, self.width, least=1)
        for field in ("attention_levels", "decoder_attention_levels"):
            value = getattr(self, field)
            if field == "decoder_attention_levels" and value in (None, self.attention_levels):
                object.__setattr__(self, field, None)  # one way to say it
                continue
            _wholes(field, value, 0, levels - 1)
            if list(value) != sorted(set(value)):
                raise LvaeError("", f"{field} must ascend, each level once, not {quote(list(value))}")
        if not isinstance(self.middle_attention, bool):
            raise LvaeError("", f"middle_attention must be true or false, not {quote(self.middle_attention)}")
        if self.kind == "kl":
            require_whole("codes (of a kl autoencoder)", self.codes, 0, 0)
        else:
            require_whole("codes (of a vq autoencoder)", self.codes, 1, 1 << 20)

    @property
    def decoder_levels(self) -> tuple[int, ...]:
        """Levels of the decoder that attend."""
        return self.attention_levels if self.decoder_attention_levels is None else self.decoder_attention_levels

    @property
    def downsampling_factor(self) -> int:
        return 1 << (len(self.multipliers) - 1)


@dataclass(frozen=True)
class TinySpec:
    """A tiny autoencoder in the layout of TAESD: no norm, no attention, f = patch * 2^(levels - 1).

    width: channels of the first level; level i has width * multipliers[i].
    blocks: residual blocks per level, but for the first, which has one.
    patch: squares of patch x patch pixels come as channels to the first level (1: no such squares).
    """

    latent_channels: int
    kind: Literal["tiny"] = "tiny"
    width: int = 64
    blocks: int = 3
    multipliers: tuple[int, ...] = (1, 1, 1, 1)
    patch: int = 1

    def __post_init__(self) -> None:
        require_whole("latent_channels", self.latent_channels, 1, 1024)
        require_whole("width", self.width, 1, MAX_WIDTH)
        require_whole("blocks", self.blocks, 1, 16)
        _check_levels(self.multipliers, self.width, least=2)
        if self.multipliers[0] != 1:
            raise LvaeError("", f"multipliers of a tiny autoencoder must begin with 1, not {self.multipliers[0]}")
        require_whole("patch", self.patch, 1, MAX_PATCH)

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels by level, from the highest resolution to the lowest."""
        return tuple(self.width * multiplier for multiplier in self.multipliers)

    @property
    def downsampling_factor(self) -> int:
        return self.patch << (len(self.multipliers) - 1)


@dataclass(frozen=True)
class UpsamplerSpec:
    """The image itself, reduced by f, as the latent; a tiny autoencoder's decoder enlarges it. Fields: see TinySpec."""

    kind: Literal["upsampler"] = "upsampler"
    width: int = 64
    blocks: int = 3
    multipliers: tuple[int, ...] = (1, 1, 1, 1)
    patch: int = 1

    def __post_init__(self) -> None:
        _ = self.decoder  # checks the fields

    @property
    def decoder(self) -> TinySpec:
        """Whose decoder it is."""
        return TinySpec(3, width=self.width, blocks=self.blocks, multipliers=self.multipliers, patch=self.patch)

    @property
    def downsampling_factor(self) -> int:
        return self.decoder.downsampling_factor

    @property
    def latent_channels(self) -> int:
        return 3


@dataclass(frozen=True)
class PixelsSpec:
    """No network: RGB itself, or reduced by `factor`."""

    factor: int
    kind: Literal["pixels"] = "pixels"

    def __post_init__(self) -> None:
        if type(self.factor) is not int or self.factor not in (1, 2, 4, 8):
            raise LvaeError("", f"factor must be 1, 2, 4 or 8, not {quote(self.factor)}")

    @property
    def downsampling_factor(self) -> int:
        return self.factor

    @property
    def latent_channels(self) -> int:
        return 3


Spec = LdmSpec | TinySpec | UpsamplerSpec | PixelsSpec

_KINDS: dict[str, type[LdmSpec] | type[TinySpec] | type[UpsamplerSpec] | type[PixelsSpec]] = {
    "kl": LdmSpec,
    "vq": LdmSpec,
    "tiny": TinySpec,
    "upsampler": UpsamplerSpec,
    "pixels": PixelsSpec,
}

# The model zoo of Rombach et al.; attention_levels = where their "running resolution" (256 / 2^level) is listed.
# "default" is our own; its weights are in pretrained/.
KNOWN: Mapping[str, Spec] = {
    "default": TinySpec(4, width=32, blocks=3, multipliers=(1, 2), patch=2),
    "kl-f4": LdmSpec("kl", 128, (1, 2, 4), 3),
    "kl-f8": LdmSpec("kl", 128, (1, 2, 4, 4), 4),
    "kl-f16": LdmSpec("kl", 128, (1, 1, 2, 2, 4), 16, attention_levels=(4,)),
    "kl-f32": LdmSpec("kl", 128, (1, 1, 2, 2, 4, 4), 64, attention_levels=(4, 5)),
    "vq-f4": LdmSpec("vq", 128, (1, 2, 4), 3, codes=8192),
    "vq-f4-noattn": LdmSpec("vq", 128, (1, 2, 4), 3, middle_attention=False, codes=8192),
    "vq-f8": LdmSpec("vq", 128, (1, 2, 2, 4), 4, attention_levels=(3,), codes=16384),
    "vq-f8-n256": LdmSpec("vq", 128, (1, 2, 2, 4), 4, attention_levels=(3,), codes=256),
    "vq-f16": LdmSpec("vq", 128, (1, 1, 2, 2, 4), 8, attention_levels=(4,), codes=16384),
    "taesd": TinySpec(4),
    "taesd3": TinySpec(16),
    "pixels": PixelsSpec(1),
    "pixels-f2": PixelsSpec(2),
    "pixels-f4": PixelsSpec(4),
    "pixels-f8": PixelsSpec(8),
}


def name_of(spec: Spec) -> str:
    """The known name of an architecture, or "custom"."""
    return next((name for name, known in KNOWN.items() if known == spec), "custom")


def describe(spec: Spec) -> dict[str, Any]:
    """As JSON holds it and `parse_spec` takes it; what is None is left out."""
    return {name: value for name, value in json.loads(json.dumps(asdict(spec))).items() if value is not None}


def find_spec(description: str | Path | Mapping[str, Any] | Spec) -> Spec:
    """As parse_spec, and by the names of published weights."""
    return parse_spec(architecture_of(description) if isinstance(description, str) else description)


def parse_spec(description: str | Path | Mapping[str, Any] | Spec) -> Spec:
    """A specification from a known name, a mapping, JSON text or the path of a JSON file."""
    if isinstance(description, Spec):
        return description
    if isinstance(description, Mapping):
        return _parse(description, "autoencoder")
    text = str(description)
    if text in KNOWN:
        return KNOWN[text]
    if text.lstrip().startswith("{"):
        return _parse_json(text, "autoencoder")
    path = Path(description)
    if not path.is_file():
        advice = did_you_mean(text, dict.fromkeys([*KNOWN, *PUBLISHED]), "'lvae autoencoder list' names them.")
        raise LvaeError(f"{quote(text)}", "neither a JSON file nor the name of an autoencoder", advice)
    try:
        with path.open("rb") as file:
            head = file.read(MAX_DESCRIPTION_BYTES)
    except OSError as error:
        raise LvaeError(path, f"cannot be read ({error.strerror})") from None
    return _parse_json(head.decode("utf-8", "replace"), str(path))


def _parse_json(text: str, source: str) -> Spec:
    try:
        description = decode_json(text)
    except (ValueError, RecursionError):
        description = None
    if not isinstance(description, dict):
        raise LvaeError(source, 'not a JSON object that describes an autoencoder, as in {"kind": "kl", ...}')
    return _parse(description, source)


def _parse(description: Mapping[str, Any], source: str) -> Spec:
    kind = description.get("kind")
    if not isinstance(kind, str) or kind not in _KINDS:
        raise LvaeError(source, f"kind must be one of {', '.join(_KINDS)}, not {quote(kind)}")
    spec: Any = _KINDS[kind]
    allowed = fields(spec)
    names = {field.name for field in allowed}
    unknown = sorted(str(name) for name in description if name not in names)
    if unknown:
        raise LvaeError(
            source, f"unknown field {quote(unknown[0])}; a {kind} autoencoder has {', '.join(sorted(names))}"
        )
    for field in allowed:
        if field.default is MISSING and field.name not in description:
            raise LvaeError(source, f"the field {field.name} is missing, which a {kind} autoencoder needs")
    values = {name: tuple(value) if isinstance(value, list) else value for name, value in description.items()}
    try:
        parsed: Spec = spec(**values)
    except LvaeError as error:
        raise LvaeError(source, error.problem) from None
    return parsed
