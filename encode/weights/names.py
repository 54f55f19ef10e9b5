"""What tensors of autoencoders are called: in CompVis' files, diffusers' and TAESD's, alone and in bigger checkpoints.

Canonical are the names of CompVis' files (ldm.py) and of diffusers' AutoencoderTiny (tiny.py).
"""

import re
from collections.abc import Mapping
from typing import Any, TypeVar

from torch import Tensor

from lvae.encode.catalogue.architectures import MAX_PATCH
from lvae.encode.catalogue.recognize import Shaped
from lvae.manifests.errors import LvaeError
from lvae.manifests.messages import printable

T = TypeVar("T", bound=Shaped)

# In front of the names in bigger checkpoints: LDM's and SD's, the paper's pipelines (whose own VAE lies under `vae.`),
# and some tools'. The first one that holds an image encoder counts.
PREFIXES = ("", "first_stage_model.", "dae.", "vae.")
FIRST_LAYERS = ("encoder.conv_in.weight", "encoder.layers.0.weight", "encoder.0.weight", "taesd_encoder.0.weight")
IGNORED = re.compile(r"loss\..*|model_ema\..*|colorize|quantize\.used|scale_factor")

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


def canonical(state: Mapping[str, Tensor], source: str) -> dict[str, Tensor]:
    """The autoencoder's tensors under canonical names: prefix stripped, training's leftovers dropped, names mapped."""
    return from_diffusers(first_stage(state, source), source)


def first_stage(state: Mapping[str, T], source: str) -> dict[str, T]:
    """Of a bigger checkpoint what belongs to its image autoencoder, the prefix stripped; tensors may be unread."""
    prefix = next((p for p in PREFIXES if any(sees_rgb(state.get(p + name)) for name in FIRST_LAYERS)), None)
    if prefix is None:
        raise LvaeError(
            source,
            (
                f"holds no image autoencoder: {FIRST_LAYERS[0]} of shape (width, 3, 3, 3) is missing, "
                f"also below {', '.join(PREFIXES[1:])}"
            ),
            "Give the weights of a first stage.",
        )
    below = {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}
    return {name: tensor for name, tensor in below.items() if not IGNORED.fullmatch(name)}


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
            raise LvaeError(
                source, f"{printable(new)} is there twice, under two names", "Give a file with one set of weights."
            )
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


def join_taesd(encoder: Mapping[str, T], decoder: Mapping[str, T]) -> dict[str, T]:
    """TAESD's two files, whose names begin with the layer's number, as one set that `load_state` takes."""
    return {
        f"{part}.{name}": t for part, file in (("encoder", encoder), ("decoder", decoder)) for name, t in file.items()
    }


def layout_of(state: Mapping[str, Shaped]) -> str:
    """Whose names these are, prefix stripped: "compvis", "diffusers" or "taesd"."""
    if any(name.startswith(("encoder.down_blocks.", "encoder.layers.")) for name in state):
        return "diffusers"
    return "taesd" if any(map(TAESD_NAME.fullmatch, state)) else "compvis"


def sees_rgb(tensor: Shaped | None) -> bool:
    """Whether this can be the first layer of an encoder of RGB pictures, or of patches of them."""
    if tensor is None or len(tensor.shape) != 4 or tuple(tensor.shape[2:]) != (3, 3):
        return False
    return tensor.shape[1] in [3 * patch**2 for patch in range(1, MAX_PATCH + 1)]


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
