"""Autoencoders: what one does, and how one is built or loaded.

Which ones there are: encode/catalogue/architectures.py. The networks: encode/networks/. Reading files of weights:
encode/weights/.
"""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lvae.encode.catalogue import cost
from lvae.encode.catalogue.architectures import (
    KNOWN,
    LdmSpec,
    PixelsSpec,
    Spec,
    TinySpec,
    UpsamplerSpec,
    find_spec,
    parse_spec,
    quote,
)
from lvae.encode.catalogue.published import PUBLISHED, find_weights
from lvae.encode.catalogue.recognize import recognize
from lvae.encode.networks.base import Autoencoder
from lvae.encode.networks.ldm import KLAutoencoder, VQAutoencoder
from lvae.encode.networks.rgb import PixelsAutoencoder
from lvae.encode.networks.tiny import TinyAutoencoder
from lvae.encode.networks.upsampler import UpsamplerAutoencoder
from lvae.encode.weights import read as weight_files
from lvae.manifests.errors import LvaeError
from lvae.manifests.seeds import derive

__all__ = [
    "KNOWN",
    "Autoencoder",
    "LdmSpec",
    "PixelsSpec",
    "Spec",
    "TinySpec",
    "UpsamplerSpec",
    "build",
    "load",
    "load_file",
    "multiply_adds",
]

RANDOM = "random:"
_log = logging.getLogger(__name__)


def build(name_or_spec: str | Path | Mapping[str, Any] | Spec) -> Autoencoder:
    """An autoencoder with random weights, the same at every call: by known name, description, or path of a JSON file.

    A description is a mapping (or its JSON text) with the fields of LdmSpec, TinySpec, UpsamplerSpec or PixelsSpec;
    fields with a default may be left out, nothing may be added. Built on torch's default device; on "meta" nothing is
    allocated.
    """
    network, device = _build_on_meta(find_spec(name_or_spec)), torch.get_default_device()
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
    network = _build_on_meta(find_spec(name_or_spec))
    if network.architecture["kind"] == "pixels":
        if weights is not None:
            raise LvaeError(network.name, "pixels have no weights", "Leave --weights out.")
        return network
    if weights is None:
        weights = find_weights(name_or_spec) if isinstance(name_or_spec, str) else None
    if weights is None:
        raise _describe_missing_weights(name_or_spec, network.name)
    if isinstance(weights, str) and weights.startswith(RANDOM):
        seed = weights.removeprefix(RANDOM)
        if not (seed.isascii() and seed.isdigit() and len(seed) <= 18):
            raise LvaeError(f"--weights {quote(weights)}", "SEED must be a whole number", "Write for example random:0.")
        network.to_empty(device="cpu")
        _randomize(network, int(seed))
    else:
        contents = _read(weights, network.architecture["kind"])
        network.load_state(contents.tensors, str(weights))
    return network


def load_file(weights: str | Path) -> Autoencoder:
    """The autoencoder that a file or folder of weights holds, as `load` takes them; its architecture is recognized."""
    return build_from_contents(_read(weights), str(weights))


def _read(weights: str | Path, kind: str | None = None) -> weight_files.Contents:
    contents = weight_files.read(weights, kind)
    for note in contents.notes:
        _log.warning("%s: %s", weights, note)
    return contents


def build_from_contents(contents: weight_files.Contents, source: str, spec: Spec | None = None) -> Autoencoder:
    """The autoencoder that weights which are read already belong to; they are refused where `spec` is another one."""
    network = _build_on_meta(spec or recognize(contents.tensors, source))
    network.load_state(contents.tensors, source)
    return network


def multiply_adds(network: Autoencoder, size: int) -> int:
    """Multiplications (each with its addition) in convolutions and attention to encode one size x size image."""
    return cost.multiply_adds(parse_spec(network.architecture), size)


def _describe_missing_weights(name_or_spec: object, name: str) -> LvaeError:
    if isinstance(name_or_spec, str) and name_or_spec in PUBLISHED:
        fetch = f"Fetch them with 'lvae autoencoder fetch {name_or_spec}', or give"
        return LvaeError(name_or_spec, "needs weights", f"{fetch} --weights FILE or --weights random:SEED.")
    return LvaeError(name, "needs weights", "Give --weights FILE or --weights random:SEED.")


def _build_on_meta(spec: Spec) -> Autoencoder:
    """The network without memory for its weights."""
    network: Autoencoder
    with torch.device("meta"):
        match spec:
            case LdmSpec(kind="kl"):
                network = KLAutoencoder(spec)
            case LdmSpec():
                network = VQAutoencoder(spec)
            case TinySpec():
                network = TinyAutoencoder(spec)
            case UpsamplerSpec():
                network = UpsamplerAutoencoder(spec)
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


ROUNDING = 1 + 1e-6  # of the bounds to float32


def is_untrained(network: Autoencoder) -> bool:
    """Whether all weights are as `random:SEED` draws them: norms the identity, all others within their bounds.

    No training leaves every norm at exactly 1 and 0, or every single weight within the bounds.
    """
    layers = 0
    for module in network.modules():
        if isinstance(module, nn.GroupNorm):
            if not (bool((module.weight == 1).all()) and bool((module.bias == 0).all())):
                return False
        elif isinstance(module, nn.Conv2d | nn.Embedding):
            layers += 1
            bound = 1.0 if isinstance(module, nn.Embedding) else module.weight[0].numel() ** -0.5
            largest = max(float(parameter.detach().abs().max()) for parameter in module.parameters(recurse=False))
            if largest > bound * ROUNDING:
                return False
    return layers > 0
