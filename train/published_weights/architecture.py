"""Which architecture has published weights of these shapes."""

import math
import re
from collections.abc import Mapping
from dataclasses import replace

from lvae.manifests.errors import LvaeError
from lvae.train.config import ModelConfig, attention_places
from lvae.train.presets import PRESETS

Shapes = Mapping[str, tuple[int, ...]]


def config_of(shapes: Shapes, where: str) -> ModelConfig:
    """The architecture of a state dict: a preset's, where one is built like it.

    Shapes leave open how many heads there are (any number above one computes the same in published weights), how many
    attentions were wanted where places coincide, and the resolution of an upsampler: that only a preset tells.
    """
    try:
        config = _config(shapes)
    except (LookupError, ZeroDivisionError, ValueError) as error:
        raise LvaeError(
            where,
            f"not the weights of a published VAE ({error})",
            "Give its state dict, with names such as layer_list.0.layer_list.0.zproj.weight.",
        ) from None
    for preset in PRESETS.values():
        known = replace(preset.model, attention="published")
        if _built(known) == _built(config):
            return known
    if config.low_resolution_factor is not None and config.resolutions[-1] != 1:
        raise LvaeError(where, "an upsampler's weights do not tell its resolution", "Give its config.")
    return config


def _config(shapes: Shapes) -> ModelConfig:
    levels = _count(shapes, "layer_list")
    lowest_first = [_Level(shapes, levels, level) for level in range(levels)]
    found = lowest_first[::-1]
    width = math.gcd(*(level.width for level in found))
    multipliers = tuple(level.width // width for level in found)
    lowest = _shape(shapes, "initial_x", 4)[2] if "initial_x" in shapes else 4 if found[-1].kernel == 3 else 1
    resolution = lowest << (levels - 1) if lowest > 1 else 1 << levels
    return ModelConfig(
        resolution=resolution,
        channels=_shape(shapes, "outproj.weight", 4)[0] // 2,
        width=width,
        encoder_width=found[0].encoder_width // multipliers[0],
        multipliers=multipliers,
        ffn_ratios=tuple(level.ratio for level in found),
        groups=tuple(len(level.groups) for level in found),
        encoder_blocks=tuple(len(level.blocks) for level in found),
        attentions=tuple(level.attentions for level in found),
        heads=tuple(level.heads for level in found),
        z_channels=found[0].z_channels,
        classes=_shape(shapes, "embed.weight", 2)[0] - 1 if "embed.weight" in shapes else 0,
        hierarchical_prior=found[0].hierarchical_prior,
        attention="published",
        low_resolution_factor=None if "initial_x" in shapes else resolution // lowest,
    )


class _Level:
    """What one level's shapes say. place: in layer_list, from the lowest resolution."""

    def __init__(self, shapes: Shapes, levels: int, place: int):
        above = f"encoder.encoder_levels.{levels - 1 - place}.layer_list"
        self.groups, after_groups = _sequence(shapes, f"layer_list.{place}.layer_list", "zproj.weight")
        self.blocks, after_blocks = _sequence(shapes, above, "conv1.weight")
        first = f"layer_list.{place}.layer_list.{self.groups[0]}"
        self.width, self.z_channels = _shape(shapes, f"{first}.zproj.weight", 4)[:2]
        self.encoder_width = _shape(shapes, f"{first}.actsproj.weight", 4)[1] - self.width
        self.kernel = _shape(shapes, f"{first}.prior_block.conv1.weight", 4)[2]
        has_ffn = f"{first}.prior_block.dense1.weight" in shapes
        self.ratio = _shape(shapes, f"{first}.prior_block.dense1.weight", 4)[0] // self.width if has_ffn else 0
        final = "dense2" if has_ffn else "conv2"
        outputs = _shape(shapes, f"{first}.prior_block.{final}.conv.weight", 4)[0]
        self.hierarchical_prior = outputs != self.width
        # The generator counts its layers from 1, the encoder from 0.
        after = frozenset(number + 1 for number in after_groups), frozenset(after_blocks)
        self.attentions = next(
            wanted
            for wanted in range(2 * (len(self.groups) + len(self.blocks)) + 2)
            if _realize(len(self.groups), len(self.blocks), wanted) == after
        )
        one = any(re.fullmatch(rf"layer_list\.{place}\.layer_list\.\d+\.qproj\.weight", name) for name in shapes)
        one = one or any(re.fullmatch(rf"{re.escape(above)}\.\d+\.qproj\.weight", name) for name in shapes)
        shared = math.gcd(self.width, self.encoder_width)
        several = next((heads for heads in range(2, shared + 1) if shared % heads == 0), 1)
        self.heads = 0 if self.attentions == 0 else 1 if one else several


def _realize(groups: int, blocks: int, wanted: int) -> tuple[frozenset[int], frozenset[int]]:
    """Where attentions stand in generator and encoder."""
    return attention_places(groups, wanted) & frozenset(range(1, groups + 1)), attention_places(
        blocks, wanted
    ) & frozenset(range(blocks))


def _built(config: ModelConfig) -> tuple[object, ...]:
    """What shapes tell of a config."""
    attentions = [_realize(*each) for each in zip(config.groups, config.encoder_blocks, config.attentions, strict=True)]
    return (
        config.resolutions if config.low_resolution_factor is None else config.resolutions[-1] == 1,
        config.channels,
        config.widths,
        config.encoder_widths,
        config.ffn_ratios,
        config.groups,
        config.encoder_blocks,
        attentions,
        [min(heads, 2) * bool(wanted) for heads, wanted in zip(config.heads, config.attentions, strict=True)],
        config.z_channels,
        config.classes,
        config.hierarchical_prior,
        config.low_resolution_factor is None,
    )


def _sequence(shapes: Shapes, parent: str, mark: str) -> tuple[list[int], list[int]]:
    """Positions of a level's layers (that have `mark`), and which of them, counted from 0, an attention follows."""
    layers: list[int] = []
    followed: list[int] = []
    for position in range(_count(shapes, parent)):
        if f"{parent}.{position}.{mark}" in shapes:
            layers.append(position)
        elif f"{parent}.{position}.outproj.weight" in shapes:
            followed.append(len(layers) - 1)
    if not layers:
        raise LookupError(f"{parent}.0.{mark} is missing")
    return layers, followed


def _count(shapes: Shapes, parent: str) -> int:
    """One more than the largest number below `parent`."""
    numbers = [
        int(match[1]) for match in map(re.compile(rf"{re.escape(parent)}\.(\d{{1,4}})\.").match, shapes) if match
    ]
    if not numbers:
        raise LookupError(f"{parent}.0 is missing")
    return max(numbers) + 1


def _shape(shapes: Shapes, name: str, sides: int) -> tuple[int, ...]:
    if name not in shapes:
        raise LookupError(f"{name} is missing")
    if len(shapes[name]) != sides:
        raise LookupError(f"{name} has shape {shapes[name]}")
    return shapes[name]
