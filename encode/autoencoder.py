"""First-stage autoencoders: what one does, which ones have names, and how one is built or loaded.

The networks stand in ldm.py, tiny.py and pixels.py, the reading of weight files in weights.py.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from lvae.encode import weights as weight_files
from lvae.manifests.errors import LvaeError
from lvae.manifests.seeds import derive

MAX_WIDTH = 8192  # channels of the widest layer: a description from elsewhere must not exhaust the memory
MAX_DESCRIPTION_BYTES = 1 << 20
RANDOM = "random:"


def _whole(field: str, value: object, least: int, most: int) -> None:
    if type(value) is not int or not least <= value <= most:
        wanted = str(least) if least == most else f"a whole number from {least} to {most}"
        raise LvaeError(f"{field} must be {wanted}, not {_show(value)}.")


def _wholes(field: str, values: object, least: int, most: int) -> int:
    if not isinstance(values, tuple):
        raise LvaeError(f"{field} must be a list of whole numbers, not {_show(values)}.")
    for value in values:
        _whole(f"every entry of {field}", value, least, most)
    return len(values)


def _show(value: object) -> str:
    """A value for a message: one line, not too long."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


@dataclass(frozen=True)
class LdmSpec:
    """A network of Rombach et al. (2022): f = 2^(levels - 1), level 0 is the full resolution.

    kind: "kl" (diagonal Gaussian) or "vq" (codebook).
    width: channels of the first layer; level i has width * multipliers[i].
    blocks: residual blocks per level of the encoder; the decoder has one more.
    attention_levels: levels with an attention block after every residual block, in encoder and decoder.
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

    def __post_init__(self) -> None:
        if self.kind not in ("kl", "vq"):
            raise LvaeError(f"kind must be kl or vq, not {_show(self.kind)}.")
        _whole("width", self.width, 1, MAX_WIDTH)
        _whole("latent_channels", self.latent_channels, 1, 1024)
        _whole("blocks", self.blocks, 1, 16)
        levels = _wholes("multipliers", self.multipliers, 1, MAX_WIDTH)
        if not 1 <= levels <= 8:
            raise LvaeError(f"multipliers must have 1 to 8 entries, one per level, not {levels}.")
        if self.width * max(self.multipliers) > MAX_WIDTH:
            raise LvaeError(f"multipliers times width must not exceed {MAX_WIDTH} channels.")
        _wholes("attention_levels", self.attention_levels, 0, levels - 1)
        if list(self.attention_levels) != sorted(set(self.attention_levels)):
            raise LvaeError(f"attention_levels must ascend, each level once, not {_show(list(self.attention_levels))}.")
        if not isinstance(self.middle_attention, bool):
            raise LvaeError(f"middle_attention must be true or false, not {_show(self.middle_attention)}.")
        if self.kind == "kl":
            _whole("codes (of a kl autoencoder)", self.codes, 0, 0)
        else:
            _whole("codes (of a vq autoencoder)", self.codes, 1, 1 << 20)


@dataclass(frozen=True)
class TinySpec:
    """A tiny autoencoder in the layout of TAESD, f = 8: `blocks` residual blocks of `width` channels per level."""

    latent_channels: int
    kind: Literal["tiny"] = "tiny"
    width: int = 64
    blocks: int = 3

    def __post_init__(self) -> None:
        _whole("latent_channels", self.latent_channels, 1, 1024)
        _whole("width", self.width, 1, MAX_WIDTH)
        _whole("blocks", self.blocks, 1, 16)


@dataclass(frozen=True)
class PixelsSpec:
    """No network: RGB itself, or reduced by `factor`."""

    factor: int
    kind: Literal["pixels"] = "pixels"

    def __post_init__(self) -> None:
        if type(self.factor) is not int or self.factor not in (1, 2, 4, 8):
            raise LvaeError(f"factor must be 1, 2, 4 or 8, not {_show(self.factor)}.")


Spec = LdmSpec | TinySpec | PixelsSpec

_KINDS: dict[str, type[LdmSpec] | type[TinySpec] | type[PixelsSpec]] = {
    "kl": LdmSpec,
    "vq": LdmSpec,
    "tiny": TinySpec,
    "pixels": PixelsSpec,
}

# The model zoo of Rombach et al.; attention_levels = where their "running resolution" (256 / 2^level) is listed.
KNOWN: Mapping[str, Spec] = {
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


class Autoencoder(nn.Module):
    """Images to latents and back. Built by `build` and `load`: in eval mode, without gradients.

    name: the known name of this architecture (however it was asked for), or "custom".
    architecture: the complete description as JSON would hold it; `build` takes it back.
    downsampling_factor: f; an image of H x W gives a latent of about H/f x W/f (exact where f divides the sides).
    latent_channels: C.

    An image's latent does not depend on its batch: in eval mode on the CPU (see `one_by_one`) to the last bit.
    """

    def __init__(self, spec: Spec, downsampling_factor: int, latent_channels: int):
        super().__init__()
        self.name = next((name for name, known in KNOWN.items() if known == spec), "custom")
        self.architecture: dict[str, Any] = json.loads(json.dumps(asdict(spec)))
        self.downsampling_factor = downsampling_factor
        self.latent_channels = latent_channels

    def encode(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) in [-1, 1] -> (B, C, h, w): the mode (KL), or what precedes quantization (VQ)."""
        raise NotImplementedError

    def moments(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 3, H, W) in [-1, 1] -> mean and log-variance of the posterior, (B, C, h, w) each, before any scaling."""
        raise LvaeError(f"{self.name}: only a KL autoencoder has moments. Store the mode, or choose one of kl-*.")

    def decode(self, latents: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, 3, f h, f w), about [-1, 1] but not clipped; VQ quantizes first."""
        raise NotImplementedError

    def load_state(self, state_dict: Mapping[str, Tensor], source: str = "these weights") -> None:
        """Take over tensors under CompVis or diffusers names, prefixes stripped; cast to float32.

        Strict: nothing may be missing, left over, of another shape or not finite. The first such name (in sorted
        order) is reported as being found in `source`, and nothing has changed then.
        """
        tensors = weight_files.canonical(state_dict, source)
        shapes = {name: tuple(tensor.shape) for name, tensor in self.state_dict().items()}
        wanted_by = "the autoencoder described" if self.name == "custom" else self.name
        weight_files.demand(tensors, shapes, wanted_by, source)
        if any(tensor.is_meta for tensor in self.state_dict().values()):
            self.to_empty(device="cpu")
        with torch.no_grad():
            for name, tensor in self.state_dict().items():
                tensor.copy_(tensors[name])

    def state_for_storage(self) -> dict[str, Tensor]:
        """The weights under their canonical names, sorted: contiguous float32 on the CPU (shared where they are so)."""
        state = self.state_dict()
        return {name: state[name].detach().to("cpu", torch.float32).contiguous() for name in sorted(state)}

    @property
    def fingerprint(self) -> str:
        """sha256 (hexadecimal) of the weights, whatever file or precision they came in.

        Hashed is, for every tensor in ascending order of the canonical names (code points): the name in UTF-8, a zero
        byte, the shape as decimal numbers joined by commas in ASCII ("512,4,3,3"), a zero byte, then the elements in
        row-major order as little-endian float32. Nothing stands between tensors. Computed anew at every access.
        """
        digest = hashlib.sha256()
        for name, tensor in self.state_for_storage().items():
            digest.update(f"{name}\0{','.join(map(str, tensor.shape))}\0".encode())
            digest.update(tensor.numpy().astype("<f4", copy=False).data)
        return digest.hexdigest()

    def multiply_adds(self, size: int) -> int:
        """Multiplications (each with its addition) in convolutions and attention to encode one size x size image."""
        from torch.utils.flop_counter import FlopCounterMode

        with torch.device("meta"):  # shapes only: nothing is computed
            twin = build(self.architecture)
            with FlopCounterMode(display=False) as counter:
                twin.encode(torch.empty(1, 3, size, size))
        return int(counter.get_total_flops()) // 2

    def one_by_one(self, batch: Tensor) -> tuple[Tensor, ...]:
        """How to take a batch: in eval mode on the CPU one image at a time, otherwise whole.

        torch chooses convolution kernels by batch size there, and their last bits differ. Larger batches are hardly
        faster on a CPU, but 300 MiB an image larger (kl-f8 at 256 pixels).
        """
        return torch.split(batch, 1) if batch.device.type == "cpu" and not self.training else (batch,)

    def check_images(self, images: Tensor) -> None:
        """Refuse images that would leave no latent."""
        if images.ndim != 4 or images.shape[1] != 3:
            raise ValueError(f"images must be (B, 3, H, W), not {tuple(images.shape)}")
        if min(images.shape[2:]) < self.downsampling_factor:
            raise LvaeError(
                f"{self.name}: an image of {images.shape[2]}x{images.shape[3]} is smaller than the downsampling factor "
                f"{self.downsampling_factor}. Use larger images or another autoencoder."
            )


def build(name_or_spec: str | Path | Mapping[str, Any] | Spec) -> Autoencoder:
    """An autoencoder with random weights, the same at every call: by known name, description, or path of a JSON file.

    A description is a mapping (or its JSON text) with the fields of LdmSpec, TinySpec or PixelsSpec; fields with a
    default may be left out, nothing may be added. Built on torch's default device; on "meta" nothing is allocated.
    """
    network, device = _on_meta(_spec(name_or_spec)), torch.get_default_device()
    if device.type == "meta":
        return network
    network.to_empty(device=device)
    _randomize(network, seed=0)
    return network


def load(name_or_spec: str | Path | Mapping[str, Any] | Spec, weights: str | Path | None = None) -> Autoencoder:
    """An autoencoder with weights, on the CPU.

    weights: a .safetensors file, a folder in diffusers' layout, or "random:SEED" (equal bytes for an equal seed, and
    nobody's random state is touched). Pixels need none.
    """
    network = _on_meta(_spec(name_or_spec))
    if network.architecture["kind"] == "pixels":
        if weights is not None:
            raise LvaeError(f"{network.name}: pixels have no weights. Leave --weights out.")
        return network
    if weights is None:
        raise LvaeError(f"{network.name}: needs weights. Give --weights FILE or --weights random:SEED.")
    if isinstance(weights, str) and weights.startswith(RANDOM):
        seed = weights.removeprefix(RANDOM)
        if not (seed.isascii() and seed.isdigit() and len(seed) <= 18):
            raise LvaeError(f"--weights {_show(weights)}: SEED must be a whole number. Write for example random:0.")
        network.to_empty(device="cpu")
        _randomize(network, int(seed))
    else:
        network.load_state(weight_files.read(Path(weights), network.architecture["kind"]), str(weights))
    return network


def _on_meta(spec: Spec) -> Autoencoder:
    """The network without memory for its weights."""
    from lvae.encode.ldm import KLAutoencoder, VQAutoencoder  # these files import the class above
    from lvae.encode.pixels import PixelsAutoencoder
    from lvae.encode.tiny import TinyAutoencoder

    network: Autoencoder
    with torch.device("meta"):
        match spec:
            case LdmSpec(kind="kl"):
                network = KLAutoencoder(spec)
            case LdmSpec():
                network = VQAutoencoder(spec)
            case TinySpec():
                network = TinyAutoencoder(spec)
            case PixelsSpec():
                network = PixelsAutoencoder(spec)
    return network.eval().requires_grad_(False)


def _randomize(network: Autoencoder, seed: int) -> None:
    """As torch initializes: convolutions uniform within 1/sqrt(inputs), norms the identity; codebooks within 1.

    A tensor's draw depends on (seed, its name), so neither the order of the layers nor the device enters. Uniform
    draws only: torch's normal draws differ between kinds of CPU.
    """
    for name, module in network.named_modules():
        if isinstance(module, nn.GroupNorm):
            module.reset_parameters()
        elif isinstance(module, nn.Conv2d | nn.Embedding):
            bound = 1.0 if isinstance(module, nn.Embedding) else module.weight[0].numel() ** -0.5
            for leaf, parameter in module.named_parameters():
                generator = torch.Generator("cpu").manual_seed(derive(seed, "autoencoder weights", f"{name}.{leaf}"))
                values = torch.empty(parameter.shape, device="cpu").uniform_(-bound, bound, generator=generator)
                with torch.no_grad():
                    parameter.copy_(values)


def _spec(description: str | Path | Mapping[str, Any] | Spec) -> Spec:
    if isinstance(description, LdmSpec | TinySpec | PixelsSpec):
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
        raise LvaeError(f"{_show(text)}: neither a JSON file nor one of the known autoencoders {', '.join(KNOWN)}.")
    try:
        with path.open("rb") as file:
            head = file.read(MAX_DESCRIPTION_BYTES)
    except OSError as error:
        raise LvaeError(f"{path}: cannot be read ({error.strerror}).") from None
    return _parse_json(head.decode("utf-8", "replace"), str(path))


def _parse_json(text: str, source: str) -> Spec:
    try:
        description = json.loads(text)
    except (ValueError, RecursionError):
        description = None
    if not isinstance(description, dict):
        raise LvaeError(f'{source}: not a JSON object that describes an autoencoder, as in {{"kind": "kl", ...}}.')
    return _parse(description, source)


def _parse(description: Mapping[str, Any], source: str) -> Spec:
    kind = description.get("kind")
    if not isinstance(kind, str) or kind not in _KINDS:
        raise LvaeError(f"{source}: kind must be one of {', '.join(_KINDS)}, not {_show(kind)}.")
    spec: Any = _KINDS[kind]
    allowed = fields(spec)
    names = {field.name for field in allowed}
    unknown = sorted(str(name) for name in description if name not in names)
    if unknown:
        raise LvaeError(
            f"{source}: unknown field {_show(unknown[0])}; a {kind} autoencoder has {', '.join(sorted(names))}."
        )
    for field in allowed:
        if field.default is MISSING and field.name not in description:
            raise LvaeError(f"{source}: the field {field.name} is missing, which a {kind} autoencoder needs.")
    values = {name: tuple(value) if isinstance(value, list) else value for name, value in description.items()}
    try:
        parsed: Spec = spec(**values)
    except LvaeError as error:
        raise LvaeError(f"{source}: {error}") from None
    return parsed
