"""First-stage autoencoders: what one does, and how one is built or loaded.

Which ones there are stands in architectures.py, the networks in ldm.py, tiny.py and pixels.py, the reading of files of
weights in weights.py.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lvae.encode.catalogue.architectures import KNOWN, LdmSpec, PixelsSpec, Spec, TinySpec, name_of, parse_spec, shown
from lvae.encode.catalogue.published import PUBLISHED, architecture_of, shipped_or_fetched
from lvae.encode.catalogue.recognize import recognize
from lvae.encode.weights import read as weight_files
from lvae.manifests.errors import LvaeError
from lvae.manifests.seeds import derive

__all__ = ["KNOWN", "Autoencoder", "LdmSpec", "PixelsSpec", "Spec", "TinySpec", "build", "load", "load_file"]

RANDOM = "random:"


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
        self.name = name_of(spec)
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

    weights: None takes those that are here under this name: `default` is part of the package, published ones are
    fetched with `lvae autoencoder fetch`. Otherwise a file (.safetensors, or one that torch.save wrote), a folder in
    diffusers' layout, TAESD's two files as "ENCODER,DECODER", or "random:SEED" (equal bytes for an equal seed, and
    nobody's random state is touched). Pixels need none.
    """
    network = _on_meta(_spec(name_or_spec))
    if network.architecture["kind"] == "pixels":
        if weights is not None:
            raise LvaeError(f"{network.name}: pixels have no weights. Leave --weights out.")
        return network
    if weights is None:
        weights = shipped_or_fetched(name_or_spec) if isinstance(name_or_spec, str) else None
    if weights is None:
        raise LvaeError(_wanting(name_or_spec, network.name))
    if isinstance(weights, str) and weights.startswith(RANDOM):
        seed = weights.removeprefix(RANDOM)
        if not (seed.isascii() and seed.isdigit() and len(seed) <= 18):
            raise LvaeError(f"--weights {shown(weights)}: SEED must be a whole number. Write for example random:0.")
        network.to_empty(device="cpu")
        _randomize(network, int(seed))
    else:
        contents = weight_files.read(weights, network.architecture["kind"])
        network.load_state(contents.tensors, str(weights))
    return network


def load_file(weights: str | Path) -> Autoencoder:
    """The autoencoder that a file or folder of weights holds, as `load` takes them; its architecture is recognized."""
    return of_contents(weight_files.read(weights), str(weights))


def of_contents(contents: weight_files.Contents, source: str, spec: Spec | None = None) -> Autoencoder:
    """The autoencoder that weights which are read already belong to; they are refused where `spec` is another one."""
    network = _on_meta(spec or recognize(contents.tensors, source))
    network.load_state(contents.tensors, source)
    return network


def _spec(name_or_spec: str | Path | Mapping[str, Any] | Spec) -> Spec:
    """As parse_spec, and by the names of published weights."""
    return parse_spec(architecture_of(name_or_spec) if isinstance(name_or_spec, str) else name_or_spec)


def _wanting(name_or_spec: object, name: str) -> str:
    if isinstance(name_or_spec, str) and name_or_spec in PUBLISHED:
        return (
            f"{name_or_spec}: needs weights. Fetch them with 'lvae autoencoder fetch {name_or_spec}', or give "
            "--weights FILE or --weights random:SEED."
        )
    return f"{name}: needs weights. Give --weights FILE or --weights random:SEED."


def _on_meta(spec: Spec) -> Autoencoder:
    """The network without memory for its weights."""
    from lvae.encode.networks.ldm import KLAutoencoder, VQAutoencoder
    from lvae.encode.networks.rgb import PixelsAutoencoder
    from lvae.encode.networks.tiny import TinyAutoencoder

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
