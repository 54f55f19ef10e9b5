"""The interface of an autoencoder: images to latents and back."""

import hashlib
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from lvae.encode.catalogue.architectures import Spec, describe, name_of
from lvae.encode.weights import read as weight_files
from lvae.encode.weights.read import save_state
from lvae.manifests.errors import LvaeError


class Autoencoder(nn.Module):
    """Images to latents and back. Built by `build` and `load`: in eval mode, without gradients.

    name: the known name of this architecture (however it was asked for), or "custom".
    architecture: the complete description as JSON would hold it; `build` takes it back.
    downsampling_factor: f; an image of H x W gives a latent of about H/f x W/f (exact where f divides the sides).
    latent_channels: C.
    input_range: of the images that its latents were made of. Others' caches may hold latents of images in [0, 1].

    An image's latent does not depend on its batch: in eval mode on the CPU (see `one_by_one`) to the last bit.
    """

    input_range: tuple[float, float] = (-1.0, 1.0)

    def __init__(self, spec: Spec):
        super().__init__()
        self.name = name_of(spec)
        self.architecture: dict[str, Any] = describe(spec)
        self.downsampling_factor = spec.downsampling_factor
        self.latent_channels = spec.latent_channels

    def encode(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) in [-1, 1] -> (B, C, h, w): the mode (KL), or what precedes quantization (VQ)."""
        raise NotImplementedError

    def moments(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 3, H, W) in [-1, 1] -> mean and log-variance of the posterior, (B, C, h, w) each, before any scaling."""
        raise LvaeError(self.name, "only a KL autoencoder has moments", "Store the mode, or choose one of kl-*.")

    def decode(self, latents: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, 3, f h, f w), about [-1, 1] but not clipped; VQ quantizes first."""
        raise NotImplementedError

    def load_state(self, state_dict: Mapping[str, Tensor], source: str = "these weights") -> None:
        """Take over tensors under CompVis or diffusers names, prefixes stripped; cast to float32.

        Strict: nothing may be missing, left over, of another shape or not finite. The first such name (in sorted
        order) is reported as being found in `source`, and nothing has changed then.
        """
        tensors = weight_files.canonicalize(state_dict, source)
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

    def one_by_one(self, batch: Tensor) -> tuple[Tensor, ...]:
        """How to take a batch: in eval mode on the CPU one image at a time, otherwise whole.

        torch chooses convolution kernels by batch size there, and their last bits differ. Larger batches are hardly
        faster on a CPU, but 300 MiB an image larger (kl-f8 at 256 pixels).
        """
        return torch.split(batch, 1) if batch.device.type == "cpu" and not self.training else (batch,)

    def from_input_range(self, images: Tensor) -> Tensor:
        """What was decoded from latents of images in `input_range`, in [-1, 1]."""
        low, high = self.input_range
        return images if (low, high) == (-1.0, 1.0) else (images - low) * (2 / (high - low)) - 1

    def to_input_range(self, images: Tensor) -> Tensor:
        """Images in [-1, 1] as they are to be encoded."""
        low, high = self.input_range
        return images if (low, high) == (-1.0, 1.0) else (images + 1) * ((high - low) / 2) + low

    def check_images(self, images: Tensor) -> None:
        """Refuse images that would leave no latent."""
        if images.ndim != 4 or images.shape[1] != 3:
            raise ValueError(f"images must be (B, 3, H, W), not {tuple(images.shape)}")
        if min(images.shape[2:]) < self.downsampling_factor:
            raise LvaeError(
                self.name,
                (
                    f"an image of {images.shape[2]}x{images.shape[3]} is smaller than the downsampling "
                    f"factor {self.downsampling_factor}"
                ),
                "Use larger images or another autoencoder.",
            )


def save_safetensors(autoencoder: "Autoencoder") -> bytes:
    """The weights as a .safetensors file: canonical names, float32, sorted; equal weights give equal bytes."""
    return save_state(autoencoder.state_for_storage())
