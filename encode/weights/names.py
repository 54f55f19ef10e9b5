"""What tensors of autoencoders are called: in CompVis' files, diffusers' and TAESD's, in any mixture.

Canonical are the names of CompVis' files (networks/ldm.py) and of diffusers' AutoencoderTiny (networks/tiny.py). Where
an autoencoder stands within a bigger checkpoint is find.py's question.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from torch import Tensor

from lvae.encode.catalogue.recognize import Shaped
from lvae.manifests.errors import LvaeError
from lvae.manifests.messages import printable

T = TypeVar("T", bound=Shaped)

# What a layer is called inside of its block: any name -> the canonical one. diffusers' present name stands first.
RESIDUAL = {"conv_shortcut": "nin_shortcut"}
ATTENTION = {
    "group_norm": "norm",
    "to_q": "q",
    "to_k": "k",
    "to_v": "v",
    "to_out.0": "proj_out",
    "query": "q",
    "key": "k",
    "value": "v",
    "proj_attn": "proj_out",
    "to_out": "proj_out",
}
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
UP_BLOCK = re.compile(r"decoder\.up_blocks\.(\d{1,3})\.")


def from_diffusers(state: Mapping[str, Tensor], source: str = "these weights") -> dict[str, Tensor]:
    """Canonical names for diffusers' (early ones too) and TAESD's, in any mixture; other names are kept.

    Attention matrices become (C, C, 1, 1), whatever they were called.
    """
    levels = max((int(match[1]) for match in map(UP_BLOCK.match, state) if match), default=0) + 1
    result: dict[str, Tensor] = {}
    for name, tensor in state.items():
        new = _translate(name, _FROM_ANY, levels)
        if match := TAESD_NAME.fullmatch(name):  # the decoder's layer 0 is the clamp there
            number = int(match["n"]) - (match["s"] == "decoder")
            new = f"{match['s']}.layers.{number}.{match['rest']}"
        if new in result:
            problem = f"{printable(new)} is there twice, under two names"
            raise LvaeError(source, problem, "Give a file with one set of weights.")
        flat = ATTENTION_MATRIX.fullmatch(new) and tensor.ndim in (2, 3) and set(tensor.shape[2:]) <= {1}
        result[new] = tensor.reshape(*tensor.shape[:2], 1, 1) if flat else tensor
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


def detect_layout(state: Mapping[str, Shaped]) -> str:
    """Whose names these are, prefix stripped: "compvis", "diffusers" or "taesd"."""
    if any(name.startswith(("encoder.down_blocks.", "encoder.layers.")) for name in state):
        return "diffusers"
    return "taesd" if any(map(TAESD_NAME.fullmatch, state)) else "compvis"


@dataclass(frozen=True)
class _Rule:
    """Names of one place -> its new place. layers: old -> new. reverses: whether levels are counted the other way."""

    pattern: re.Pattern[str]
    place: str
    layers: Mapping[str, str]
    reverses: bool


def _make_rule(old: str, new: str, layers: Mapping[str, str]) -> _Rule:
    pattern = re.escape(old)
    for placeholder, group in PLACEHOLDERS.items():
        pattern = pattern.replace(re.escape(placeholder), group)
    return _Rule(re.compile(pattern + r"\.(?P<rest>.+)"), new, layers, old != new and old.startswith("decoder.up"))


def _translate(name: str, rules: list[_Rule], levels: int) -> str:
    for rule in rules:
        if match := rule.pattern.fullmatch(name):
            numbers = match.groupdict()
            if rule.reverses:
                numbers["i"] = str(levels - 1 - int(numbers["i"]))
            layer, _, leaf = numbers.pop("rest").rpartition(".")
            return ".".join(filter(None, [rule.place.format(**numbers), rule.layers.get(layer, layer), leaf]))
    return name


_TO_DIFFUSERS = [
    _make_rule(ours, theirs, {new: old for old, new in reversed(layers.items())}) for ours, theirs, layers in PLACES
]
_FROM_ANY = [_make_rule(old, ours, layers) for ours, theirs, layers in PLACES for old in (ours, theirs)]
