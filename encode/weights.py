"""Weights of autoencoders: any file or folder they come in, told apart by content. No file's code is ever run.

The formats are in weights_safetensors.py, weights_torch.py (with weights_archive.py, weights_pickle.py and
weights_objects.py) and weights_folder.py, the names of tensors in weights_names.py.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lvae.encode.architectures import KNOWN
from lvae.encode.recognition import recognize, summary
from lvae.encode.weights_archive import Archive, map_file
from lvae.encode.weights_folder import SUFFIXES, find_files, scale_facts
from lvae.encode.weights_names import (
    canonical,
    first_stage,
    from_diffusers,
    join_taesd,
    layout_of,
    printable,
    sees_rgb,
    to_diffusers,
)
from lvae.encode.weights_safetensors import MAX_HEADER_BYTES, read_safetensors, save_safetensors
from lvae.encode.weights_stored import StoredTensor, read_all
from lvae.encode.weights_torch import read_legacy, read_zip
from lvae.manifests.errors import LvaeError

__all__ = [
    "Contents",
    "canonical",
    "demand",
    "from_diffusers",
    "join_taesd",
    "read",
    "save_safetensors",
    "to_diffusers",
]

FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
Stored = dict[str, StoredTensor]


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
                raise LvaeError(f"{path}: no such file or folder. Give one that exists.")
        opened = [_open(file) for file in files]
        state = opened[0][0] if len(opened) == 1 else _join(files, [stored for stored, _ in opened])
        return _contents(state, sum(size for _, size in opened), files, config)
    except OSError as error:
        raise LvaeError(f"{path}: cannot be read ({error.strerror or error}).") from None


def read_tensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a file under the names that they have there, whatever network they are of."""
    try:
        state, size = _open(path)
        return read_all(state, size, str(path))
    except OSError as error:
        raise LvaeError(f"{path}: cannot be read ({error.strerror or error}).") from None


def demand(tensors: Mapping[str, Tensor], shapes: Mapping[str, tuple[int, ...]], name: str, source: str) -> None:
    """Refuse tensors that are not exactly these, in a sentence about the first name that differs."""
    for key in sorted(tensors.keys() | shapes.keys()):
        shape = tuple(tensors[key].shape) if key in tensors else None
        if shape is None:
            raise LvaeError(f"{source}: {key} is missing, which {name} needs: {_verdict(tensors, name)}")
        if key not in shapes:
            difference = f"{printable(key)} {shape} is not expected by {name}"
            raise LvaeError(f"{source}: {difference}: {_verdict(tensors, name)}")
        if shape != shapes[key]:
            difference = f"{key} has shape {shape}, but {name} needs {shapes[key]}"
            raise LvaeError(f"{source}: {difference}: {_verdict(tensors, name)}")
    for key in sorted(tensors):
        if tensors[key].dtype not in FLOATS:
            raise LvaeError(f"{source}: {key} holds {tensors[key].dtype}, not floating-point weights.")
        if not tensors[key].to(torch.float32).isfinite().all():
            raise LvaeError(f"{source}: {key} holds numbers that are not finite. The file is damaged; fetch it again.")


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
        raise LvaeError(f"{source}: one half of a tiny autoencoder. Give both as ENCODER,DECODER, or their folder.")
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
            f"{files[0]},{files[1]}: not the encoder and the decoder of a tiny autoencoder. Give those two."
        )
    encoder, decoder = sorted(states, key=lambda state: not sees_rgb(state.get("0.weight")))
    return join_taesd(encoder, decoder)


def _open(path: Path) -> tuple[Stored, int]:
    """A file's tensors and its size in bytes, unpacked. Told apart by content: a file's name proves nothing."""
    if not path.exists():
        raise LvaeError(f"{path}: no such file. Give one that exists.")
    if not path.is_file():
        raise LvaeError(f"{path}: not a regular file. Give a file of weights or its folder.")
    size = path.stat().st_size
    if size == 0:
        raise LvaeError(f"{path}: the file is empty (0 bytes). Fetch it again.")
    with path.open("rb") as file:
        head = file.read(512)
        header_bytes = int.from_bytes(head[:8], "little")
        if head[8:9] == b"{" and header_bytes <= min(size - 8, MAX_HEADER_BYTES):
            return read_safetensors(path), size
        if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
            return _open_zip(map_file(file), str(path))
        if head[:1] == b"\x80" and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
            return read_legacy(map_file(file), str(path)), size
    raise LvaeError(f"{path}: {_no_weights(head, header_bytes, size)}")


def _open_zip(data: memoryview, source: str, inside: bool = False) -> tuple[Stored, int]:
    """torch's own zip file, or one that a single file of torch's was packed into."""
    archive = Archive(data, source)
    names = [name for name in archive.names() if not Path(name).name.startswith(".") and "__MACOSX" not in name]
    folders = [name.removesuffix("data.pkl") for name in names if name.endswith("/data.pkl")]
    if len(folders) == 1:
        return read_zip(archive, folders[0], source), len(data)
    wanted = [name for name in names if name.endswith(SUFFIXES)]
    if folders or inside or len(wanted) != 1:
        raise LvaeError(f"{source}: a zip file that does not hold one file of weights. Unpack it and give that file.")
    inner = archive.unpack(wanted[0])
    source = f"{source} ({printable(wanted[0])})"
    head = bytes(inner[:512])
    if head.startswith(b"PK\x03\x04"):
        return _open_zip(inner, source, inside=True)
    if head.startswith(b"\x80"):
        return read_legacy(inner, source), len(inner)
    if head[8:9] == b"{":
        raise LvaeError(f"{source}: a .safetensors file within a zip file. Unpack it and give that file.")
    raise LvaeError(f"{source}: {_no_weights(head, 0, len(inner))}")


def _no_weights(head: bytes, header_bytes: int, size: int) -> str:
    """What a file is that is none of weights, and what to do."""
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n")
    if text.startswith(b"<"):
        return f"an HTML page ({size} bytes) instead of weights, so the download failed. Fetch it again."
    if text.startswith(b"version https://git-lfs"):
        return f"a pointer of git-lfs ({size} bytes) instead of the weights. Run 'git lfs pull' in its folder."
    if head[8:9] == b"{" and header_bytes > size - 8:
        return f"an incomplete download ({size} bytes, shorter than the header of {header_bytes}). Fetch it again."
    if head.startswith((b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"7z\xbc\xaf", b"Rar!", b"\x28\xb5\x2f\xfd")) or (
        head[257:262] == b"ustar"
    ):
        return f"a packed archive ({size} bytes). Unpack it and give the file of weights inside."
    return (
        f"not a .safetensors file, nor one that torch.save wrote ({size} bytes). Give weights in one of these formats."
    )
