"""The Inception network that FID is defined by (2015-12-05), in plain torch, and its ways of preparing images.

Modules are named so that the public state dict fits by key. Modes: "adm", the original: TF1 bilinear resize inside of
the network, (u - 128) / 128. "clean": Pillow's antialiased bicubic resize, the same scale. "pytorch-fid": torch's
bilinear resize, 2u/255 - 1.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from lvae.encode.weights import read as weight_files
from lvae.manifests.errors import LvaeError

Mode = Literal["adm", "clean", "pytorch-fid"]
MODES: tuple[Mode, ...] = ("adm", "clean", "pytorch-fid")
SIDE = 299
CLASSES = 1008
SPATIAL = 7  # channels of Mixed_6d's 1x1 branch that sFID looks at
BATCHES_TRACKED = ".num_batches_tracked"


class Features(NamedTuple):
    """pooled (N, 2048); spatial (N, 2023): 17 x 17 x 7 by row, column, channel; logits (N, 1008) without bias."""

    pooled: NDArray[np.float32]
    spatial: NDArray[np.float32]
    logits: NDArray[np.float32]


class Convolution(nn.Module):
    """Convolution without bias, batch norm by running statistics, ReLU."""

    def __init__(self, inputs: int, outputs: int, kernel: tuple[int, int], stride: int = 1, valid: bool = False):
        super().__init__()
        padding = (0, 0) if valid else (kernel[0] // 2, kernel[1] // 2)
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(outputs, eps=0.001)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv(x)))


ONE, THREE, FIVE = (1, 1), (3, 3), (5, 5)
ROW, COLUMN, WIDE, TALL = (1, 7), (7, 1), (1, 3), (3, 1)


def _average(x: Tensor) -> Tensor:
    """3 x 3 over what lies inside of the picture: padding is not counted."""
    return F.avg_pool2d(x, 3, 1, 1, count_include_pad=False)


class MixedA(nn.Module):
    def __init__(self, inputs: int, pooled: int):
        super().__init__()
        self.branch1x1 = Convolution(inputs, 64, ONE)
        self.branch5x5_1 = Convolution(inputs, 48, ONE)
        self.branch5x5_2 = Convolution(48, 64, FIVE)
        self.branch3x3dbl_1 = Convolution(inputs, 64, ONE)
        self.branch3x3dbl_2 = Convolution(64, 96, THREE)
        self.branch3x3dbl_3 = Convolution(96, 96, THREE)
        self.branch_pool = Convolution(inputs, pooled, ONE)

    def forward(self, x: Tensor) -> Tensor:
        double = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        branches = [self.branch1x1(x), self.branch5x5_2(self.branch5x5_1(x)), double, self.branch_pool(_average(x))]
        return torch.cat(branches, 1)


class MixedB(nn.Module):
    def __init__(self, inputs: int):
        super().__init__()
        self.branch3x3 = Convolution(inputs, 384, THREE, 2, valid=True)
        self.branch3x3dbl_1 = Convolution(inputs, 64, ONE)
        self.branch3x3dbl_2 = Convolution(64, 96, THREE)
        self.branch3x3dbl_3 = Convolution(96, 96, THREE, 2, valid=True)

    def forward(self, x: Tensor) -> Tensor:
        double = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return torch.cat([self.branch3x3(x), double, F.max_pool2d(x, 3, 2)], 1)


class MixedC(nn.Module):
    def __init__(self, inputs: int, width: int):
        super().__init__()
        self.branch1x1 = Convolution(inputs, 192, ONE)
        self.branch7x7_1 = Convolution(inputs, width, ONE)
        self.branch7x7_2 = Convolution(width, width, ROW)
        self.branch7x7_3 = Convolution(width, 192, COLUMN)
        self.branch7x7dbl_1 = Convolution(inputs, width, ONE)
        self.branch7x7dbl_2 = Convolution(width, width, COLUMN)
        self.branch7x7dbl_3 = Convolution(width, width, ROW)
        self.branch7x7dbl_4 = Convolution(width, width, COLUMN)
        self.branch7x7dbl_5 = Convolution(width, 192, ROW)
        self.branch_pool = Convolution(inputs, 192, ONE)

    def forward(self, x: Tensor) -> Tensor:
        single = self.branch7x7_3(self.branch7x7_2(self.branch7x7_1(x)))
        double = self.branch7x7dbl_3(self.branch7x7dbl_2(self.branch7x7dbl_1(x)))
        double = self.branch7x7dbl_5(self.branch7x7dbl_4(double))
        return torch.cat([self.branch1x1(x), single, double, self.branch_pool(_average(x))], 1)


class MixedD(nn.Module):
    def __init__(self, inputs: int):
        super().__init__()
        self.branch3x3_1 = Convolution(inputs, 192, ONE)
        self.branch3x3_2 = Convolution(192, 320, THREE, 2, valid=True)
        self.branch7x7x3_1 = Convolution(inputs, 192, ONE)
        self.branch7x7x3_2 = Convolution(192, 192, ROW)
        self.branch7x7x3_3 = Convolution(192, 192, COLUMN)
        self.branch7x7x3_4 = Convolution(192, 192, THREE, 2, valid=True)

    def forward(self, x: Tensor) -> Tensor:
        seven = self.branch7x7x3_4(self.branch7x7x3_3(self.branch7x7x3_2(self.branch7x7x3_1(x))))
        return torch.cat([self.branch3x3_2(self.branch3x3_1(x)), seven, F.max_pool2d(x, 3, 2)], 1)


class MixedE(nn.Module):
    """maximum: pools by the maximum instead of the average, as the last block of the 2015 graph does."""

    def __init__(self, inputs: int, maximum: bool):
        super().__init__()
        self.maximum = maximum
        self.branch1x1 = Convolution(inputs, 320, ONE)
        self.branch3x3_1 = Convolution(inputs, 384, ONE)
        self.branch3x3_2a = Convolution(384, 384, WIDE)
        self.branch3x3_2b = Convolution(384, 384, TALL)
        self.branch3x3dbl_1 = Convolution(inputs, 448, ONE)
        self.branch3x3dbl_2 = Convolution(448, 384, THREE)
        self.branch3x3dbl_3a = Convolution(384, 384, WIDE)
        self.branch3x3dbl_3b = Convolution(384, 384, TALL)
        self.branch_pool = Convolution(inputs, 192, ONE)

    def forward(self, x: Tensor) -> Tensor:
        single, double = self.branch3x3_1(x), self.branch3x3dbl_2(self.branch3x3dbl_1(x))
        pooled = F.max_pool2d(x, 3, 1, 1) if self.maximum else _average(x)
        branches = [
            self.branch1x1(x),
            self.branch3x3_2a(single),
            self.branch3x3_2b(single),
            self.branch3x3dbl_3a(double),
            self.branch3x3dbl_3b(double),
            self.branch_pool(pooled),
        ]
        return torch.cat(branches, 1)


class InceptionFID(nn.Module):
    """From images to features. Always in eval mode, float32, without gradients; an image's do not depend on its batch
    (beyond the last digits)."""

    def __init__(self) -> None:
        super().__init__()
        self.Conv2d_1a_3x3 = Convolution(3, 32, THREE, 2, valid=True)
        self.Conv2d_2a_3x3 = Convolution(32, 32, THREE, valid=True)
        self.Conv2d_2b_3x3 = Convolution(32, 64, THREE)
        self.Conv2d_3b_1x1 = Convolution(64, 80, ONE)
        self.Conv2d_4a_3x3 = Convolution(80, 192, THREE, valid=True)
        self.Mixed_5b, self.Mixed_5c, self.Mixed_5d = MixedA(192, 32), MixedA(256, 64), MixedA(288, 64)
        self.Mixed_6a = MixedB(288)
        self.Mixed_6b, self.Mixed_6c = MixedC(768, 128), MixedC(768, 160)
        self.Mixed_6d, self.Mixed_6e = MixedC(768, 160), MixedC(768, 192)
        self.Mixed_7a = MixedD(768)
        self.Mixed_7b, self.Mixed_7c = MixedE(1280, maximum=False), MixedE(2048, maximum=True)
        self.fc = nn.Linear(2048, CLASSES)
        self.eval().requires_grad_(False)

    @classmethod
    def load(cls, weights: str | Path | Mapping[str, Tensor]) -> Self:
        """With the public weights, by key: the state dict, or a file of it (.pth or .safetensors; never unpickled)."""
        if isinstance(weights, str | Path):
            source = str(weights)
            state: Mapping[str, Tensor] = weight_files.read_tensors(Path(weights))
        else:
            source, state = "these weights", weights
        with torch.device("meta"):
            network = cls()
        network.to_empty(device="cpu")
        own = {name: tensor for name, tensor in network.state_dict().items() if not name.endswith(BATCHES_TRACKED)}
        given = {name: tensor for name, tensor in state.items() if not name.endswith(BATCHES_TRACKED)}
        for name in sorted(own.keys() | given.keys()):
            if name not in given or name not in own:
                what = "is missing" if name not in given else "has no place in it"
                raise LvaeError(source, f"not weights of the FID Inception network: {name} {what}")
            if given[name].shape != own[name].shape:
                shapes = f"{tuple(given[name].shape)}, not {tuple(own[name].shape)}"
                raise LvaeError(source, f"not weights of the FID Inception network: {name} is {shapes}")
            own[name].copy_(given[name])
        return network.eval()

    def train(self, mode: bool = True) -> Self:
        """Batch norm goes by its running statistics always."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, images: NDArray[np.uint8], mode: Mode = "adm") -> Features:
        """uint8 (N, H, W, 3), of any size."""
        spatial, top = self._blocks(self._prepare(images, mode))[1:]
        pooled = top.mean((2, 3))
        chosen = spatial[:, :SPATIAL].permute(0, 2, 3, 1).reshape(len(spatial), -1)
        logits = pooled @ self.fc.weight.T
        return Features(*(t.float().cpu().numpy() for t in (pooled, chosen, logits)))

    @torch.no_grad()
    def taps(self, images: NDArray[np.uint8], mode: Mode = "adm") -> dict[int, NDArray[np.float32]]:
        """Spatial means further down, by their number of features: 64, 192, 768."""
        found = self._blocks(self._prepare(images, mode))[0]
        return {tap.shape[1]: tap.mean((2, 3)).cpu().numpy() for tap in found}

    def _prepare(self, images: NDArray[np.uint8], mode: Mode) -> Tensor:
        return prepare(images, mode).to(self.fc.weight.device)

    def _blocks(self, x: Tensor) -> tuple[list[Tensor], Tensor, Tensor]:
        """Taps; the 1x1 branch of Mixed_6d; the top (N, 2048, 8, 8)."""
        x = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x)))
        first = x = F.max_pool2d(x, 3, 2)
        x = self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(x))
        second = x = F.max_pool2d(x, 3, 2)
        x = self.Mixed_5d(self.Mixed_5c(self.Mixed_5b(x)))
        x = self.Mixed_6d(self.Mixed_6c(self.Mixed_6b(self.Mixed_6a(x))))
        spatial = x[:, :192]  # the first branch of the concatenation
        third = x = self.Mixed_6e(x)
        return [first, second, third], spatial, self.Mixed_7c(self.Mixed_7b(self.Mixed_7a(x)))


def prepare(images: NDArray[np.uint8], mode: Mode) -> Tensor:
    """uint8 (N, H, W, 3) -> what the network's first layer sees, float32 (N, 3, 299, 299)."""
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3:
        raise LvaeError("", f"images must be uint8 (N, H, W, 3), not {images.dtype} {images.shape}")
    if mode == "adm":
        return (_channels_first(tf1_bilinear(images, SIDE)) - 128) / 128
    if mode == "clean":
        return (_channels_first(pillow_bicubic(images, SIDE)) - 128) / 128
    if mode == "pytorch-fid":
        scaled = _channels_first(images.astype(np.float32)) / 255
        return 2 * F.interpolate(scaled, (SIDE, SIDE), mode="bilinear", align_corners=False) - 1
    raise LvaeError(f"--mode {mode}", "there is no such mode", f"Choose one of {', '.join(MODES)}.")


def _channels_first(images: NDArray[np.float32]) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))


def tf1_bilinear(images: NDArray[Any], side: int) -> NDArray[np.float32]:
    """TensorFlow 1's bilinear resize (N, H, W, C) -> (N, side, side, C): no half-pixel shift, no antialias, float32.

    Along the width first, then along the height.
    """
    x = images.astype(np.float32)
    low, high, share = _places(x.shape[2], side)
    left, right = x[:, :, low], x[:, :, high]
    x = left + (right - left) * share[:, None]
    low, high, share = _places(x.shape[1], side)
    top, bottom = x[:, low], x[:, high]
    result: NDArray[np.float32] = top + (bottom - top) * share[:, None, None]
    return result


def _places(pixels: int, side: int) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    """Of every output pixel the two input pixels around it, and the share of the second."""
    at = np.arange(side, dtype=np.float32) * (np.float32(pixels) / np.float32(side))
    low = np.floor(at).astype(np.int64)
    return low, np.minimum(low + 1, pixels - 1), at - low.astype(np.float32)


def pillow_bicubic(images: NDArray[np.uint8], side: int) -> NDArray[np.float32]:
    """Pillow's antialiased bicubic resize, each channel in floating point, clipped to 0..255, not rounded."""
    result = np.empty((len(images), side, side, 3), np.float32)
    for number, image in enumerate(images):
        for channel in range(3):
            plane = Image.fromarray(image[:, :, channel].astype(np.float32))
            result[number, :, :, channel] = np.asarray(plane.resize((side, side), Image.Resampling.BICUBIC))
    return np.clip(result, 0, 255)
