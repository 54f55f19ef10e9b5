"""The published checkpoints, torch's and Flax's, as models of ours, and a model of ours under the published names.

The files' architectures, names and layouts: train/published_weights/.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lvae.manifests.errors import LvaeError
from lvae.manifests.messages import printable
from lvae.manifests.seeds import derive
from lvae.manifests.tensors.lazy_tensor import StoredTensor, check_proportion
from lvae.train.config import ModelConfig
from lvae.train.model import HierarchicalVAE
from lvae.train.network.layers import RegularizedConvolution
from lvae.train.published_weights.architecture import config_of
from lvae.train.published_weights.files import VECTORS, PublishedFile, open_published


def load_published(source: str | Path | Mapping[str, Any], config: ModelConfig | None = None) -> HierarchicalVAE:
    """A model with published weights, on the CPU in float32, computing attention as the published code does.

    source: a state dict of torch or a tree of Flax, or a file of them: one of torch.save, .safetensors, a checkpoint
    of Flax (msgpack), or a pickle with `ema_params` or `params`. Nothing in a file is ever run. Of averaged weights and
    the last ones the averaged are taken. A VAE may stand below `vae.`, beside an autoencoder below `dae.`, which is
    left alone.
    config: the architecture; None finds it by the shapes.
    Entries NAME.singular_vectors are taken, where NAME is a regularized layer; what is missing of them is drawn.
    """
    where = "these weights" if isinstance(source, Mapping) else str(source)
    found = open_published(source)
    return build_published(found.preferred, found, where, config)


def build_published(
    state: Mapping[str, StoredTensor], file: PublishedFile, where: str, config: ModelConfig | None = None
) -> HierarchicalVAE:
    """The model that these weights of a file make; every name and shape is compared before memory is taken."""
    shapes = {name: tensor.shape for name, tensor in state.items()}
    config = config_of(shapes, where) if config is None else replace(config, attention="published")
    with torch.device("meta"):
        model = HierarchicalVAE(config)
    _demand(shapes, {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}, where)
    check_proportion(state, file.size, where)
    model.to_empty(device="cpu")
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if name in state:
                _fill(tensor, state[name].read(), name, where)
    for name, module in model.named_modules():
        if isinstance(module, RegularizedConvolution) and name + VECTORS not in state:
            module.initialize(torch.Generator().manual_seed(derive(0, "weights", name)))
    return model


def published_state(model: HierarchicalVAE) -> dict[str, Tensor]:
    """A model's parameters as the published torch files have them: without the vectors."""
    return {name: tensor.detach() for name, tensor in model.state_dict().items() if not name.endswith(VECTORS)}


def _fill(place: Tensor, weights: Tensor, name: str, where: str) -> None:
    if not weights.is_floating_point():
        raise LvaeError(where, f"{name} holds {weights.dtype}, not floating-point weights", "Give a file of weights.")
    place.copy_(weights)
    if not place.isfinite().all():
        raise LvaeError(where, f"{name} holds numbers that are not finite", "Fetch the file again.")


def _demand(found: Mapping[str, tuple[int, ...]], expected: Mapping[str, tuple[int, ...]], where: str) -> None:
    """Refuse what is not exactly expected, in a sentence about the first name that differs."""
    for name in sorted(found.keys() | expected.keys()):
        if name not in found:
            if not name.endswith(VECTORS):
                raise LvaeError(where, f"{name} of shape {expected[name]} is missing", "Give another config or file.")
        elif name not in expected:
            raise LvaeError(
                where, f"{printable(name)} of shape {found[name]} is not expected", "Give another config or file."
            )
        elif found[name] != expected[name]:
            raise LvaeError(
                where,
                f"{name} has shape {found[name]}, expected is {expected[name]}",
                "Give another config or file.",
            )
