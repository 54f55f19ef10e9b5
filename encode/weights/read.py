"""Weights of autoencoders: any file or folder they come in, told apart by content. No file's code is ever run.

The formats are in manifests/tensors/open.py, folders in folder.py, the names of tensors in names.py.
"""

from typing import TYPE_CHECKING

from safetensors.torch import save
from torch import Tensor

if TYPE_CHECKING:
    pass

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from lvae.encode.catalogue.architectures import KNOWN
from lvae.encode.catalogue.recognize import recognize, summary
from lvae.encode.weights.folder import find_files, scale_facts
from lvae.encode.weights.names import (
    canonical,
    first_stage,
    from_diffusers,
    join_taesd,
    layout_of,
    sees_rgb,
    to_diffusers,
)
from lvae.manifests.errors import LvaeError
from lvae.manifests.messages import printable
from lvae.manifests.tensors.lazy_tensor import read_all
from lvae.manifests.tensors.open import Stored, open_tensors

__all__ = [
    "Contents",
    "canonical",
    "demand",
    "from_diffusers",
    "join_taesd",
    "read",
    "read_tensors",
    "to_diffusers",
]

FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)


@dataclass(frozen=True)
class Contents:
    """What a file or folder of weights holds.

    tensors: the autoencoder's, under canonical names, in the file's precision; mapped where the format allows.
    layout: whose names they had: "compvis", "diffusers" or "taesd".
    scale: what the file or its config.json says of the scale of latents, such as `scale_factor` (see `convert`).
    files: what was read, one file or TAESD's two.
    """

    tensors: dict[str, Tensor]
    layout: str
    scale: dict[str, Any]
    files: tuple[Path, ...]


def read(location: str | Path, kind: str | None = None) -> Contents:
    """The weights in a file, in a folder, or in TAESD's two files as "ENCODER,DECODER".

    kind: what is wanted ("kl", "vq", "tiny"), if that is known; a folder whose config.json says otherwise is refused.
    """
    path = Path(location)
    try:
        config: dict[str, Any] = {}
        files = [path]
        if path.is_dir():
            files, config = find_files(path, kind)
        elif not path.exists():
            files = [Path(part) for part in str(location).split(",")]
            if len(files) != 2:
                raise LvaeError(path, "no such file or folder", "Give one that exists.")
        opened = [open_tensors(file) for file in files]
        state = opened[0][0] if len(opened) == 1 else _join(files, [stored for stored, _ in opened])
        return _contents(state, sum(size for _, size in opened), files, config)
    except OSError as error:
        raise LvaeError(path, f"cannot be read ({error.strerror or error})") from None


def read_tensors(location: str | Path) -> dict[str, Tensor]:
    """Every tensor of a file under its own name, whatever network it belongs to."""
    path = Path(location)
    try:
        stored, size = open_tensors(path)
        return read_all(stored, size, str(path))
    except OSError as error:
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
        found = summary(recognize(tensors))
    except LvaeError:
        return "these are weights of another architecture."
    if found == name:
        return f"these are weights of {name} with something else or something missing."
    if name not in KNOWN and found not in KNOWN:
        return "these are weights of another architecture."
    return f"these are weights of {found}, not {name}."


def _contents(state: Stored, available: int, files: list[Path], config: Mapping[str, Any]) -> Contents:
    source = ",".join(map(str, files))
    if "0.weight" in state or "1.weight" in state:
        raise LvaeError(source, "one half of a tiny autoencoder", "Give both as ENCODER,DECODER, or their folder.")
    scale = scale_facts(config)
    factor = state.get("scale_factor")  # a buffer that LDM writes
    if factor is not None and math.prod(factor.shape) == 1:
        value = factor.read()
        if value.dtype in FLOATS and value.isfinite().all():
            scale["scale_factor"] = float(value)
    stage = first_stage(state, source)
    tensors = from_diffusers(read_all(stage, available, source), source)
    return Contents(tensors, layout_of(stage), scale, tuple(files))


def _join(files: list[Path], states: list[Stored]) -> Stored:
    """TAESD's two files, in either order."""
    encoders = [sees_rgb(state.get("0.weight")) for state in states]
    if sorted(encoders) != [False, True]:
        raise LvaeError(
            f"{files[0]},{files[1]}", "not the encoder and the decoder of a tiny autoencoder", "Give those two."
        )
    encoder, decoder = sorted(states, key=lambda state: not sees_rgb(state.get("0.weight")))
    return join_taesd(encoder, decoder)


def save_state(state: dict[str, Tensor]) -> bytes:
    """A .safetensors file of these tensors. It has one entry of metadata: the order of several is not defined."""
    return save(state, metadata={"format": "pt"})
