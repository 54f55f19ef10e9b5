"""The published checkpoints, torch's, into a model of ours. Which architecture one has: published_shapes.py."""

import pickle
import warnings
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import safetensors
import torch
from safetensors.torch import load_file
from torch import Tensor

from lvae.manifests.errors import LvaeError
from lvae.manifests.seeds import derive
from lvae.train.config import ModelConfig
from lvae.train.layers import RegularizedConvolution
from lvae.train.model import HierarchicalVAE
from lvae.train.published_shapes import config_of

VECTORS = ".singular_vectors"
# What torch raises on files that are damaged, or hold more than tensors.
UNREADABLE = (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, LookupError, TypeError, AttributeError)


def load_published(source: str | Path | Mapping[str, Tensor], config: ModelConfig | None = None) -> HierarchicalVAE:
    """A model with published weights, on the CPU in float32, computing attention as the published code does.

    source: a state dict, a .safetensors file, or a file of torch.save (read with weights_only: nothing in it is run).
    Names may stand below `vae.`, beside an autoencoder's below `dae.`, which is left alone.
    config: the architecture; None finds it by the shapes.
    Entries NAME.singular_vectors are taken, where NAME is a regularized layer; what is missing of them is drawn.
    """
    where = "these weights" if isinstance(source, Mapping) else str(source)
    state = _vae(source if isinstance(source, Mapping) else _read(Path(source)), where)
    shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
    config = config_of(shapes, where) if config is None else replace(config, attention="published")
    with torch.device("meta"):
        model = HierarchicalVAE(config)
    _demand(shapes, {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}, where)
    model.to_empty(device="cpu")
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if name in state:
                tensor.copy_(state[name])
                if not tensor.isfinite().all():
                    raise LvaeError(f"{where}: {name} holds numbers that are not finite. Fetch the file again.")
    for name, module in model.named_modules():
        if isinstance(module, RegularizedConvolution) and name + VECTORS not in state:
            module.initialize(torch.Generator().manual_seed(derive(0, "weights", name)))
    return model


def _vae(state: Mapping[str, Tensor], where: str) -> dict[str, Tensor]:
    """The VAE's tensors under their names; the vectors may be named by the convolution inside, too."""
    prefix = "vae." if any(str(name).startswith("vae.") for name in state) else ""
    result = {}
    for name, tensor in state.items():
        if not isinstance(tensor, Tensor):
            raise LvaeError(f"{where}: {name!r:.60} is a {type(tensor).__name__}, not a tensor. Give a state dict.")
        if name.startswith(prefix):
            name = name.removeprefix(prefix)
            result[name.replace(f".conv{VECTORS}", VECTORS)] = tensor
    return result


def _demand(found: Mapping[str, tuple[int, ...]], expected: Mapping[str, tuple[int, ...]], where: str) -> None:
    """Refuse what is not exactly expected, in a sentence about the first name that differs."""
    for name in sorted(found.keys() | expected.keys()):
        if name not in found:
            if not name.endswith(VECTORS):
                raise LvaeError(f"{where}: {name} of shape {expected[name]} is missing. Give another config or file.")
        elif name not in expected:
            raise LvaeError(f"{where}: {name} of shape {found[name]} is not expected. Give another config or file.")
        elif found[name] != expected[name]:
            raise LvaeError(
                f"{where}: {name} has shape {found[name]}, expected is {expected[name]}. Give another config or file."
            )


def _read(path: Path) -> Mapping[str, Tensor]:
    try:
        with path.open("rb") as file:
            head = file.read(9)
        if head[8:9] == b"{":
            return load_file(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of a pickle protocol that torch.save does not write
            state = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise LvaeError(f"{path}: cannot be read ({error.strerror or error}).") from None
    except (safetensors.SafetensorError, *UNREADABLE) as error:
        reason = str(error).strip().split("\n")[0]
        raise LvaeError(
            f"{path}: damaged, or more than tensors by name ({reason:.80}). Nothing in it was run. Fetch it again."
        ) from None
    if not isinstance(state, Mapping):
        raise LvaeError(f"{path}: holds a {type(state).__name__} instead of tensors by name. Give a state dict.")
    return state
