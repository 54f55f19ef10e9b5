"""Weights of autoencoders: files without code in them, the names that tensors go by, and writing our own file.

Canonical are the names of CompVis' files (ldm.py) and of diffusers' AutoencoderTiny (tiny.py).
"""

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from lvae.manifests.errors import LvaeError

if TYPE_CHECKING:
    from lvae.encode.autoencoder import Autoencoder

# In front of the names in bigger checkpoints: LDM's and SD's, the paper's pipelines (whose own VAE lies under `vae.`),
# and some tools'. The first one that holds an image encoder counts.
PREFIXES = ("", "first_stage_model.", "dae.", "vae.")
FIRST_LAYERS = ("encoder.conv_in.weight", "encoder.layers.0.weight", "encoder.0.weight", "taesd_encoder.0.weight")
IGNORED = re.compile(r"loss\..*|model_ema\..*|colorize|quantize\.used")

DIFFUSERS_CLASSES = {"AutoencoderKL": "kl", "VQModel": "vq", "AutoencoderTiny": "tiny"}
DIFFUSERS_FILES = ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.fp16.safetensors")
MAX_CONFIG_BYTES = 1 << 20
MAX_HEADER_BYTES = 16 << 20  # of a .safetensors file; published ones stay below 1 MiB
FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)

# What a layer is called inside of its block: canonical name -> diffusers' name. Early diffusers had others for four.
RESIDUAL = {"nin_shortcut": "conv_shortcut"}
ATTENTION = {"norm": "group_norm", "q": "to_q", "k": "to_k", "v": "to_v", "proj_out": "to_out.0"}
EARLY_ATTENTION = {"query": "q", "key": "k", "value": "v", "proj_attn": "proj_out"}
# Where a block stands. {i} is a level, {j} a block; diffusers counts the decoder's levels from the lowest resolution.
PLACES: tuple[tuple[str, str, dict[str, str]], ...] = (
    ("{s}.norm_out", "{s}.conv_norm_out", {}),
    ("encoder.down.{i}.block.{j}", "encoder.down_blocks.{i}.resnets.{j}", RESIDUAL),
    ("encoder.down.{i}.attn.{j}", "encoder.down_blocks.{i}.attentions.{j}", ATTENTION),
    ("encoder.down.{i}.downsample.conv", "encoder.down_blocks.{i}.downsamplers.0.conv", {}),
    ("decoder.up.{i}.block.{j}", "decoder.up_blocks.{i}.resnets.{j}", RESIDUAL),
    ("decoder.up.{i}.attn.{j}", "decoder.up_blocks.{i}.attentions.{j}", ATTENTION),
    ("decoder.up.{i}.upsample.conv", "decoder.up_blocks.{i}.upsamplers.0.conv", {}),
    ("{s}.mid.block_1", "{s}.mid_block.resnets.0", RESIDUAL),
    ("{s}.mid.block_2", "{s}.mid_block.resnets.1", RESIDUAL),
    ("{s}.mid.attn_1", "{s}.mid_block.attentions.0", ATTENTION),
)
PLACEHOLDERS = {"{s}": "(?P<s>encoder|decoder)", "{i}": r"(?P<i>\d{1,3})", "{j}": r"(?P<j>\d{1,3})"}
ATTENTION_MATRIX = re.compile(r".+\.attn(_1|\.\d+)\.(q|k|v|proj_out)\.weight")
TAESD_NAME = re.compile(r"(?:taesd_)?(?P<s>encoder|decoder)\.(?P<n>\d{1,3})\.(?P<rest>.+)")


def read(path: Path, kind: str) -> dict[str, Tensor]:
    """The tensors of a file or folder under the names they have there; mapped, so that none takes memory before use.

    kind: what is wanted ("kl", "vq", "tiny"); a folder whose config.json says something else is refused.
    """
    try:
        if path.is_dir():
            return _read_folder(path, kind)
        if not path.exists():
            raise LvaeError(f"{path}: no such file or folder. Give --weights FILE or --weights random:SEED.")
        if not path.is_file():
            raise LvaeError(f"{path}: not a regular file. Give a .safetensors file or a folder in diffusers' layout.")
        return _read_file(path)
    except OSError as error:
        raise LvaeError(f"{path}: cannot be read ({error.strerror or error}).") from None


def canonical(state: Mapping[str, Tensor], source: str) -> dict[str, Tensor]:
    """The autoencoder's tensors under canonical names: prefix stripped, training's leftovers dropped, names mapped."""
    prefix = next((p for p in PREFIXES if any(_sees_rgb(state.get(p + name)) for name in FIRST_LAYERS)), None)
    if prefix is None:
        raise LvaeError(
            f"{source}: holds no image autoencoder: {FIRST_LAYERS[0]} of shape (width, 3, 3, 3) is missing, also below "
            f"{', '.join(PREFIXES[1:])}. Give the weights of a first stage."
        )
    below = {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}
    return from_diffusers({name: tensor for name, tensor in below.items() if not IGNORED.fullmatch(name)}, source)


def demand(tensors: Mapping[str, Tensor], shapes: Mapping[str, tuple[int, ...]], name: str, source: str) -> None:
    """Refuse tensors that are not exactly these, in a sentence about the first name that differs."""
    other = "these are weights of another architecture."
    for key in sorted(tensors.keys() | shapes.keys()):
        if key not in tensors:
            raise LvaeError(f"{source}: {key} is missing, which {name} needs: {other}")
        shape = tuple(tensors[key].shape)
        if key not in shapes:
            raise LvaeError(f"{source}: {key} {shape} is not expected by {name}: {other}")
        if shape != shapes[key]:
            raise LvaeError(f"{source}: {key} has shape {shape}, but {name} needs {shapes[key]}: {other}")
    for key in sorted(tensors):
        if tensors[key].dtype not in FLOATS:
            raise LvaeError(f"{source}: {key} holds {tensors[key].dtype}, not floating-point weights.")
        if not tensors[key].to(torch.float32).isfinite().all():
            raise LvaeError(f"{source}: {key} holds numbers that are not finite. The file is damaged; fetch it again.")


def from_diffusers(state: Mapping[str, Tensor], source: str = "these weights") -> dict[str, Tensor]:
    """Canonical names for diffusers' (early ones too) and TAESD's; other names are kept.

    Attention matrices become (C, C, 1, 1), whatever they were called.
    """
    numbers = [int(match[1]) for match in map(re.compile(r"decoder\.up_blocks\.(\d{1,3})\.").match, state) if match]
    result: dict[str, Tensor] = {}
    for name, tensor in state.items():
        new = _translate(name, _FROM_DIFFUSERS, max(numbers, default=0) + 1)
        if match := TAESD_NAME.fullmatch(name):  # the decoder's layer 0 is the clamp there
            number = int(match["n"]) - (match["s"] == "decoder")
            new = f"{match['s']}.layers.{number}.{match['rest']}"
        if new in result:
            raise LvaeError(f"{source}: {new} is there twice, under two names. Give a file with one set of weights.")
        flat = ATTENTION_MATRIX.fullmatch(new) and tensor.ndim == 2
        result[new] = tensor[:, :, None, None] if flat else tensor
    return result


def to_diffusers(state: Mapping[str, Tensor], architecture: Mapping[str, Any]) -> dict[str, Tensor]:
    """Canonical names -> those of AutoencoderKL, VQModel or AutoencoderTiny; attention matrices become (C, C)."""
    levels = len(architecture.get("multipliers", ()))
    return {
        _translate(name, _TO_DIFFUSERS, levels): tensor.flatten(1) if ATTENTION_MATRIX.fullmatch(name) else tensor
        for name, tensor in state.items()
    }


def join_taesd(encoder: Mapping[str, Tensor], decoder: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """TAESD's two files, whose names begin with the layer's number, as one set that `load_state` takes."""
    return {
        f"{part}.{name}": t for part, file in (("encoder", encoder), ("decoder", decoder)) for name, t in file.items()
    }


def save_safetensors(autoencoder: "Autoencoder") -> bytes:
    """The weights as a .safetensors file: canonical names, float32, sorted; equal weights give equal bytes."""
    return save(autoencoder.state_for_storage(), metadata={"format": "pt"})  # one entry: their order is not defined


def _sees_rgb(tensor: Tensor | None) -> bool:
    return tensor is not None and tensor.ndim == 4 and tuple(tensor.shape[1:]) == (3, 3, 3)


def _read_file(path: Path) -> dict[str, Tensor]:
    """Told apart by content: a file's name proves nothing."""
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(64)
    header_bytes = int.from_bytes(head[:8], "little")
    if size == 0:
        raise LvaeError(f"{path}: the file is empty. Fetch it again.")
    if head[8:9] == b"{" and header_bytes <= min(size - 8, MAX_HEADER_BYTES):
        return _read_safetensors(path)
    if head.startswith(b"PK\x03\x04") or (head[:1] == b"\x80" and head[1:2] in b"\x02\x03\x04\x05"):
        raise LvaeError(f"{path}: a pickle, which may contain code and is never run. Convert it to .safetensors first.")
    if head.lstrip().startswith(b"<"):
        raise LvaeError(f"{path}: an HTML page instead of weights, so the download failed. Fetch it again.")
    if head.startswith(b"version https://git-lfs"):
        raise LvaeError(f"{path}: a pointer of git-lfs instead of the weights. Run 'git lfs pull' in its folder.")
    if head[8:9] == b"{" and header_bytes > size - 8:
        raise LvaeError(
            f"{path}: an incomplete download ({size} bytes, shorter than the header of {header_bytes}). Fetch it again."
        )
    raise LvaeError(f"{path}: not a .safetensors file ({size} bytes). Give weights in that format.")


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            return {name: file.get_tensor(name) for name in sorted(file.keys())}
    except (SafetensorError, ValueError, TypeError, RuntimeError, AttributeError) as error:
        cause = " ".join(str(error).split())[:120]
        size = path.stat().st_size
        raise LvaeError(f"{path}: damaged or incomplete safetensors ({size} bytes: {cause}). Fetch it again.") from None


def _read_folder(path: Path, kind: str) -> dict[str, Tensor]:
    """diffusers' layout, here or one folder down in a pipeline's; or TAESD's two files."""
    for folder in (path, path / "vae", path / "vqvae"):
        if (folder / "config.json").is_file():
            _check_config(folder / "config.json", kind)
            for name in DIFFUSERS_FILES:
                if (folder / name).is_file():
                    return _read_file(folder / name)
            raise LvaeError(f"{folder}: has no {DIFFUSERS_FILES[0]}. Convert other formats to .safetensors first.")
    pair = [sorted(path.glob(f"*_{part}.safetensors")) for part in ("encoder", "decoder")]
    if kind == "tiny" and [len(files) for files in pair] == [1, 1]:
        return join_taesd(_read_file(pair[0][0]), _read_file(pair[1][0]))
    raise LvaeError(
        f"{path}: has no config.json, nor do vae/ and vqvae/ in it. Give a .safetensors file or its folder."
    )


def _check_config(path: Path, kind: str) -> None:
    """What the shapes of tensors cannot tell: the class, and settings that none of ours has otherwise."""
    with path.open("rb") as file:
        text = file.read(MAX_CONFIG_BYTES)
    try:
        config = json.loads(text)
    except (ValueError, RecursionError):
        config = None
    if not isinstance(config, dict):
        raise LvaeError(f"{path}: not a JSON object. Fetch the folder again.")
    class_name = config.get("_class_name")
    found = DIFFUSERS_CLASSES.get(class_name) if isinstance(class_name, str) else None
    if found != kind:
        wanted = next(name for name, its_kind in DIFFUSERS_CLASSES.items() if its_kind == kind)
        raise LvaeError(
            f"{path}: describes {str(class_name)[:60]!r}, not {wanted!r}. Choose an autoencoder of that kind."
        )
    fixed = {"act_fn": "silu", "norm_type": "group", "use_quant_conv": True, "use_post_quant_conv": True}
    if kind == "tiny":
        fixed = {"act_fn": "relu", "upsample_fn": "nearest", "upsampling_scaling_factor": 2, "latent_magnitude": 3}
    for field, value in fixed.items():
        if config.get(field, value) != value:
            raise LvaeError(
                f"{path}: {field} is {config[field]!r}, where only {value!r} is supported. Use other weights."
            )
    groups, widths = config.get("norm_num_groups", 32), config.get("block_out_channels", [])
    if kind != "tiny" and isinstance(widths, list):
        for width in widths:
            if isinstance(width, int) and math.gcd(32, width) != groups:
                raise LvaeError(
                    f"{path}: norm_num_groups is {groups!r}, but {width} channels are normalized in "
                    f"{math.gcd(32, width)} groups here. Use other weights."
                )


_Table = list[tuple[re.Pattern[str], str, dict[str, str]]]


def _table(backward: bool) -> _Table:
    """PLACES as (pattern of an old name, new place, old layer -> new layer)."""
    table: _Table = []
    for ours, theirs, layers in PLACES:
        old, new = (theirs, ours) if backward else (ours, theirs)
        pattern = re.escape(old)
        for placeholder, group in PLACEHOLDERS.items():
            pattern = pattern.replace(re.escape(placeholder), group)
        if backward:
            layers = {their_layer: layer for layer, their_layer in layers.items()}
            layers |= EARLY_ATTENTION if "group_norm" in layers else {}
        table.append((re.compile(pattern + r"\.(?P<rest>.+)"), new, layers))
    return table


def _translate(name: str, table: _Table, levels: int) -> str:
    for pattern, place, layers in table:
        if match := pattern.fullmatch(name):
            numbers = match.groupdict()
            if name.startswith("decoder.up"):
                numbers["i"] = str(levels - 1 - int(numbers["i"]))
            layer, _, leaf = numbers.pop("rest").rpartition(".")
            return ".".join(filter(None, [place.format(**numbers), layers.get(layer, layer), leaf]))
    return name


_TO_DIFFUSERS = _table(backward=False)
_FROM_DIFFUSERS = _table(backward=True)
