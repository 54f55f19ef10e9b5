"""Weights of autoencoders: any file or folder they come in, told apart by content. No file's code is ever run.

The formats are in manifests/tensors/open.py, folders in folder.py, the names of tensors in names.py.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from lvae.encode.catalogue.architectures import KNOWN
from lvae.encode.catalogue.recognize import recognize, summarize
from lvae.encode.weights.find import find_autoencoder, sees_rgb
from lvae.encode.weights.folder import Found, find_files, scale_facts
from lvae.encode.weights.names import detect_layout, from_diffusers, join_taesd
from lvae.manifests.errors import LvaeError
from lvae.manifests.messages import printable
from lvae.manifests.storage.retry import raise_outage
from lvae.manifests.tensors.lazy_tensor import StoredTensor, Tree, read_all
from lvae.manifests.tensors.open import open_tensors, open_tree

FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)


@dataclass(frozen=True)
class Contents:
    """What a file or folder of weights holds.

    tensors: the autoencoder's, under canonical names, in the file's precision; mapped where the format allows.
    layout: whose names they had: "compvis", "diffusers" or "taesd".
    scale: what the file or its config.json says of the scale of latents, such as `scale_factor` (see `convert`).
    files: what was read: one file, TAESD's two, or the shards of one.
    notes: which of several copies was taken, and what of the file was left aside.
    """

    tensors: dict[str, Tensor]
    layout: str
    scale: dict[str, Any]
    files: tuple[Path, ...]
    notes: tuple[str, ...] = ()


def read(location: str | Path, kind: str | None = None) -> Contents:
    """The weights in a file, in a folder, or in TAESD's two files as "ENCODER,DECODER".

    kind: what is wanted ("kl", "vq", "tiny"), if that is known; a folder whose config.json says otherwise is refused.
    """
    path = Path(location)
    try:
        found = Found((path,))
        if path.is_dir():
            found = find_files(path, kind)
        elif not path.exists():
            found = Found(tuple(Path(part) for part in str(location).split(",")), pair=True)
            if len(found.files) != 2:
                raise LvaeError(path, "no such file or folder", "Give one that exists.")
        opened = [open_tree(file) for file in found.files]
        trees = [tree for tree, _ in opened]
        tree = _join(found.files, trees) if found.pair else _merge(found.files, trees)
        return _find_contents(tree, sum(size for _, size in opened), found)
    except OSError as error:
        raise_outage(error)
        raise LvaeError(path, f"cannot be read ({error.strerror or error})") from None


def read_tensors(location: str | Path) -> dict[str, Tensor]:
    """Every tensor of a file under its own name, whatever network it belongs to."""
    path = Path(location)
    try:
        stored, size = open_tensors(path)
        return read_all(stored, size, str(path))
    except OSError as error:
        raise_outage(error)
        raise LvaeError(path, f"cannot be read ({error.strerror or error})") from None


def demand(tensors: Mapping[str, Tensor], shapes: Mapping[str, tuple[int, ...]], name: str, source: str) -> None:
    """Refuse tensors that are not exactly these, in a sentence about the first name that differs."""
    for key in sorted(tensors.keys() | shapes.keys()):
        shape = tuple(tensors[key].shape) if key in tensors else None
        if shape is None:
            raise LvaeError(source, f"{key} is missing, which {name} needs: {_verdict(tensors, name)}")
        if key not in shapes:
            difference = f"{printable(key)} {shape} is not expected by {name}"
            raise LvaeError(source, f"{difference}: {_verdict(tensors, name)}")
        if shape != shapes[key]:
            difference = f"{key} has shape {shape}, but {name} needs {shapes[key]}"
            raise LvaeError(source, f"{difference}: {_verdict(tensors, name)}")
    for key in sorted(tensors):
        if tensors[key].dtype not in FLOATS:
            raise LvaeError(source, f"{key} holds {tensors[key].dtype}, not floating-point weights")
        if not tensors[key].to(torch.float32).isfinite().all():
            raise LvaeError(source, f"{key} holds numbers that are not finite", "The file is damaged; fetch it again.")


def _verdict(tensors: Mapping[str, Tensor], name: str) -> str:
    """What weights that differ from those of `name` probably are."""
    try:
        found = summarize(recognize(tensors))
    except LvaeError:
        return "these are weights of another architecture."
    if found == name:
        return f"these are weights of {name} with something else or something missing."
    if name not in KNOWN and found not in KNOWN:
        return "these are weights of another architecture."
    return f"these are weights of {found}, not {name}."


def canonicalize(state: Mapping[str, Any], source: str) -> dict[str, Tensor]:
    """The autoencoder's tensors under canonical names: prefix stripped, training's leftovers dropped, names mapped."""
    return from_diffusers(find_autoencoder(state, source).tensors, source)


def _find_contents(tree: Tree, available: int, found: Found) -> Contents:
    source = ",".join(map(str, found.files))
    if isinstance(tree.get("0.weight", tree.get("1.weight")), StoredTensor):
        raise LvaeError(source, "one half of a tiny autoencoder", "Give both as ENCODER,DECODER, or their folder.")
    stage = find_autoencoder(tree, source)
    scale = scale_facts(found.config)
    if stage.scale_factor is not None and math.prod(stage.scale_factor.shape) == 1:
        value = stage.scale_factor.read()
        if value.dtype in FLOATS and value.isfinite().all():
            scale["scale_factor"] = float(value)
    tensors = from_diffusers(read_all(stage.tensors, available, source), source)
    return Contents(tensors, detect_layout(stage.tensors), scale, found.files, (*found.notes, *stage.notes))


def _join(files: tuple[Path, ...], trees: list[Tree]) -> Tree:
    """TAESD's two files, in either order."""
    encoders = [sees_rgb(tree.get("0.weight")) for tree in trees]
    if sorted(encoders) != [False, True]:
        where = ",".join(map(str, files))
        raise LvaeError(where, "not the encoder and the decoder of a tiny autoencoder", "Give those two.")
    encoder, decoder = trees if encoders[0] else reversed(trees)
    return join_taesd(encoder, decoder)


def _merge(files: tuple[Path, ...], trees: list[Tree]) -> Tree:
    """The shards of one set of weights."""
    merged: dict[str, Any] = {}
    for file, tree in zip(files, trees, strict=True):
        doubled = sorted(merged.keys() & tree.keys())
        if doubled:
            raise LvaeError(file, f"{printable(doubled[0])} is in another shard, too", "Fetch the folder again.")
        merged |= tree
    return merged


def save_state(state: dict[str, Tensor]) -> bytes:
    """A .safetensors file of these tensors. It has one entry of metadata: the order of several is not defined."""
    return save(state, metadata={"format": "pt"})
