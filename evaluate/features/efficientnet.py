"""Features of pictures by EfficientNet-Lite0, see encode/quality/efficientnet.py.

How it sees a picture: uint8 RGB, both sides resized to 128 pixels on the CPU by the antialiased bicubic filter, rounded
to 8 bits after either pass (within 2 levels of Pillow's, which does likewise); then (u - 127) / 128, as it was trained.
Features are the 1,280 channels behind the last convolution, averaged over positions.
"""

from functools import cache
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from lvae.encode.quality.efficientnet import load_network, weights_path
from lvae.manifests.errors import LvaeError

MODE: Final = "efficientnet-lite0-128"  # name and preparation: another one is another mode
SIDE = 128
BATCH = 32  # pictures of every pass: another number would change the last digits


class EfficientNetLite0:
    """From pictures to features. A picture's features depend on nothing else in its batch, to the last bit."""

    def __init__(self, network: Any, device: str = "cpu") -> None:
        self.network, self.device = network, device

    @classmethod
    def load(cls, path: Path, device: str = "cpu") -> Self:
        """With the published weights."""
        network = load_network(path, SIDE)
        return cls(network.to(device=device, memory_format=torch.channels_last), device)

    @torch.inference_mode()
    def __call__(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """uint8 (N, H, W, 3) -> (N, 1280)."""
        found = np.empty((len(images), 1280), np.float32)
        for start in range(0, len(images), BATCH):
            some = images[start : start + BATCH]
            if len(some) < BATCH:
                some = np.concatenate([some, np.repeat(some[-1:], BATCH - len(some), axis=0)])
            pixels = prepare(some).to(self.device)
            found[start : start + BATCH] = self._pool(pixels)[: len(found) - start].cpu().numpy()
        return found

    def _pool(self, pixels: Tensor) -> Tensor:
        top: Tensor = self.network.extract_features(pixels)
        return top.mean((2, 3))


def classify(features: NDArray[np.float32]) -> NDArray[np.float32]:
    """Features (N, 1280) -> logits of ImageNet's classes (N, 1000), by the last layer of the packaged weights."""
    weight, bias = _classifier()
    return features @ weight.T + bias


@cache
def _classifier() -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    state = torch.load(weights_path(), map_location="cpu", weights_only=True)
    return state["_fc.weight"].numpy(), state["_fc.bias"].numpy()


def prepare(images: NDArray[np.uint8]) -> Tensor:
    """uint8 (N, H, W, 3) -> what the first layer sees, float32 (N, 3, 128, 128), channels last in memory."""
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3:
        raise LvaeError("", f"images must be uint8 (N, H, W, 3), not {images.dtype} {images.shape}")
    pixels = torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2)
    if pixels.shape[2:] != (SIDE, SIDE):
        pixels = F.interpolate(pixels, (SIDE, SIDE), mode="bicubic", antialias=True)
    return pixels.sub(127.0).mul_(1 / 128).contiguous(memory_format=torch.channels_last)  # exact, in float32
