"""Any file of weights, once, to one without code and a description of it."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from lvae.encode.autoencoder import build_from_contents
from lvae.encode.catalogue.architectures import parse_spec
from lvae.encode.networks.base import Autoencoder
from lvae.encode.weights.folder import WEIGHTS, describe_for_diffusers
from lvae.encode.weights.names import to_diffusers
from lvae.encode.weights.read import Contents, read, save_state
from lvae.manifests.errors import LvaeError
from lvae.manifests.records import dumps
from lvae.manifests.storage.folder import TEMPORARY, FileRecord, Folder

SUFFIX = ".safetensors"
Layout = Literal["compvis", "diffusers"]
Dtype = Literal["float32", "float16"]
TORCH_DTYPES = {"float32": torch.float32, "float16": torch.float16}


@dataclass(frozen=True)
class Conversion:
    """What was converted to what, as it is kept in JSON beside the weights.

    architecture: as `build` takes it.
    scale: what the source said of the scale of latents; nothing here applies it. `scale_factor` (LDM) and
        `scaling_factor` (diffusers) multiply a latent before another model sees it.
    sources: name, size and hash of each file read; `path` of those written, relative to this JSON's folder.
    """

    name: str
    architecture: dict[str, Any]
    fingerprint: str
    tensors: int
    parameters: int
    layout: Layout
    scale: dict[str, Any]
    sources: tuple[FileRecord, ...]
    files: tuple[FileRecord, ...]
    format: str = "latent-vae-autoencoder"
    version: int = 1


def convert(
    weights: str,
    out: Path,
    autoencoder: str | None = None,
    layout: Layout = "compvis",
    dtype: Dtype = "float32",
    say: Callable[[str], None] = lambda note: None,
) -> Conversion:
    """Write the autoencoder found in a file or folder to `out`, and a description beside it.

    out: a .safetensors file with canonical names, or for "diffusers" a folder as diffusers reads it.
    autoencoder: a name or description that the weights must be of; None takes whatever they are.
    say: is told which of several copies was taken, and what was left aside.
    dtype: of the numbers in the file. With float16 they are rounded, and the fingerprint is that of the rounded ones.
    What is there already is kept where it is the same, and refused otherwise; files appear whole or not at all.
    """
    if layout == "compvis" and out.suffix != SUFFIX:
        raise LvaeError(out, f"must end in {SUFFIX}", "Only --layout diffusers writes a folder.")
    spec = None if autoencoder is None else parse_spec(autoencoder)
    contents = read(weights, None if spec is None else spec.kind)
    network = build_from_contents(contents, weights, spec)
    for note in contents.notes:
        say(f"{weights}: {note}")
    if dtype == "float16":
        _round_to_half(network, weights)
    outputs = _make_outputs(network, contents, out, layout, dtype)
    folder = Folder(out.parent)
    for name, data in outputs.items():
        _refuse_other(folder, name, data)
    files = tuple(_write(folder, name, data) for name, data in outputs.items())
    conversion = Conversion(
        name=network.name,
        architecture=network.architecture,
        fingerprint=network.fingerprint,
        tensors=len(network.state_dict()),
        parameters=sum(tensor.numel() for tensor in network.state_dict().values()),
        layout=layout,
        scale=contents.scale,
        sources=tuple(Folder(path.parent).record(path.name) for path in contents.files),
        files=files,
    )
    record, text = f"{out.name.removesuffix(SUFFIX)}.json", dumps(conversion)
    _refuse_other(folder, record, text)
    _write(folder, record, text)
    return conversion


def _round_to_half(network: Autoencoder, source: str) -> None:
    with torch.no_grad():
        for name, tensor in network.state_dict().items():
            half = tensor.to(torch.float16)
            if not half.isfinite().all():
                raise LvaeError(source, f"{name} does not fit into float16", "Keep float32.")
            tensor.copy_(half)


def _make_outputs(
    network: Autoencoder, contents: Contents, out: Path, layout: Layout, dtype: Dtype
) -> dict[str, bytes]:
    """Names relative to the folder of `out`, in the order of writing."""
    if layout == "compvis":
        state = {name: tensor.to(TORCH_DTYPES[dtype]) for name, tensor in network.state_for_storage().items()}
        return {out.name: save_state(state)}
    config = describe_for_diffusers(parse_spec(network.architecture), contents.scale)
    if dtype != "float32":
        raise LvaeError(f"--dtype {dtype}", "only --layout compvis writes it")
    state = to_diffusers(network.state_for_storage(), network.architecture)
    return {f"{out.name}/{WEIGHTS}": save_state(state), f"{out.name}/config.json": dumps(config)}


def _refuse_other(folder: Folder, name: str, data: bytes) -> None:
    there = folder.size(name)
    if there is not None and (folder.local(name).is_dir() or there != len(data) or folder.read(name) != data):
        raise LvaeError(f"{folder.local(name)}", "exists and differs", "Choose another OUT, or remove it first.")


def _write(folder: Folder, name: str, data: bytes) -> FileRecord:
    if folder.exists(name):
        return folder.record(name)
    try:
        return folder.write(name, data)
    finally:
        temporary = folder.local(TEMPORARY)
        if temporary.is_dir() and not any(temporary.iterdir()):
            temporary.rmdir()
