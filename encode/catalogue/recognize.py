"""Which architecture weights are of, told by the names and shapes of their tensors. Nothing here needs torch."""

import math
from collections.abc import Iterable, Mapping
from typing import Protocol

from lvae.encode.catalogue.architectures import LdmSpec, Spec, TinySpec, UpsamplerSpec, name_of
from lvae.manifests.errors import LvaeError


class Shaped(Protocol):
    """A tensor, or what stands for one that is not read yet."""

    @property
    def shape(self) -> tuple[int, ...]: ...


def recognize(tensors: Mapping[str, Shaped], source: str = "these weights") -> Spec:
    """The architecture that tensors under canonical names (see encode/weights/names.py) come from.

    Only the shapes that tell architectures apart are looked at; `load_state` demands every one.
    """
    shapes = _Shapes(tensors, source)
    try:
        if "encoder.layers.0.weight" in tensors:
            return _recognize_tiny(shapes)
        if "upsampler.layers.0.weight" in tensors:
            return _recognize_upsampler(shapes)
        return _recognize_ldm(shapes)
    except LvaeError as error:
        raise LvaeError(source, error.problem, error.advice) from None


def summarize(spec: Spec) -> str:
    """An architecture in a few words, for people: its name, or what it is built of."""
    name = name_of(spec)
    if name != "custom":
        return name
    if isinstance(spec, LdmSpec):
        levels = ", ".join(str(spec.width * multiplier) for multiplier in spec.multipliers)
        return f"a {spec.kind} autoencoder of {levels} channels with {spec.latent_channels} latent channels"
    if isinstance(spec, TinySpec):
        widths = ", ".join(map(str, dict.fromkeys(spec.widths)))
        return f"a tiny autoencoder of {widths} channels with {spec.latent_channels} latent channels"
    if isinstance(spec, UpsamplerSpec):
        widths = ", ".join(map(str, dict.fromkeys(spec.decoder.widths)))
        return f"an upsampler of {widths} channels, of images reduced by {spec.downsampling_factor}"
    return f"pixels, reduced by {spec.factor}"


class _Shapes:
    """Shapes by name; what is missing or has another number of sides is reported."""

    def __init__(self, tensors: Mapping[str, Shaped], source: str):
        self._tensors, self._source = tensors, source

    def __contains__(self, name: str) -> bool:
        return name in self._tensors

    def side(self, name: str, axis: int, sides: int = 4) -> int:
        """The length of one side of a tensor, by default of a convolution's (outputs, inputs, height, width)."""
        if name not in self:
            raise LvaeError(self._source, f"{name} is missing, which every autoencoder known here has")
        shape = tuple(self._tensors[name].shape)
        if len(shape) != sides:
            raise LvaeError(self._source, f"{name} has shape {shape} instead of {sides} sides")
        return shape[axis]

    def count(self, pattern: str, first: int = 0) -> int:
        """How many of `pattern` with 0, 1, 2, ... in place of the star there are, without a gap."""
        number = first
        while pattern.replace("*", str(number)) in self:
            number += 1
        return number - first


def _recognize_ldm(shapes: _Shapes) -> LdmSpec:
    for name in ("quant_conv.weight", "post_quant_conv.weight"):
        if name not in shapes:
            raise LvaeError(
                "", f"{name} is missing: autoencoders without quantization layers (SD3, FLUX) are not supported"
            )
    width = shapes.side("encoder.conv_in.weight", 0)
    levels = range(shapes.count("encoder.down.*.block.0.conv1.weight"))
    widths = [shapes.side(f"encoder.down.{i}.block.0.conv1.weight", 0) for i in levels]
    blocks = shapes.count("encoder.down.0.block.*.conv1.weight")
    codebook = "quantize.embedding.weight"
    spec = LdmSpec(
        kind="vq" if codebook in shapes else "kl",
        width=width,
        multipliers=tuple(_find_multipliers(widths, width)),
        latent_channels=shapes.side("decoder.conv_in.weight", 1),
        blocks=blocks,
        attention_levels=tuple(i for i in levels if f"encoder.down.{i}.attn.0.q.weight" in shapes),
        decoder_attention_levels=tuple(i for i in levels if f"decoder.up.{i}.attn.0.q.weight" in shapes),
        middle_attention="encoder.mid.attn_1.q.weight" in shapes,
        codes=shapes.side(codebook, 0, sides=2) if codebook in shapes else 0,
    )
    _check_decoder(shapes, widths, blocks)
    return spec


def _check_decoder(shapes: _Shapes, widths: list[int], blocks: int) -> None:
    """Name what a decoder has otherwise than its encoder and is not supported."""
    first = "decoder.up.*.block.0.conv1.weight"
    there = shapes.count(first)
    decoder_widths = [shapes.side(first.replace("*", str(i)), 0) for i in range(there)]
    decoder_blocks = shapes.count("decoder.up.0.block.*.conv1.weight")
    if there and decoder_widths != widths:
        raise LvaeError("", f"a decoder of {decoder_widths} channels to an encoder of {widths} is not supported")
    if there and decoder_blocks != blocks + 1:
        raise LvaeError("", f"a decoder of {decoder_blocks} blocks a level is not supported, only {blocks + 1}")
    attends = [f"{side}.mid.attn_1.q.weight" in shapes for side in ("encoder", "decoder")]
    if there and attends[0] != attends[1]:
        raise LvaeError("", "attention in the middle of only one of encoder and decoder is not supported")
    latent, embedded = shapes.side("decoder.conv_in.weight", 1), shapes.side("post_quant_conv.weight", 1)
    if latent != embedded:
        raise LvaeError("", f"{embedded} latent channels that become {latent} in the decoder are not supported")


def _find_multipliers(widths: Iterable[int], width: int) -> Iterable[int]:
    for level, channels in enumerate(widths):
        if width < 1 or channels % width:
            raise LvaeError("", f"level {level} has {channels} channels, no multiple of the first layer's {width}")
        yield channels // width


def _recognize_tiny(shapes: _Shapes) -> TinySpec:
    first, seen = (shapes.side("encoder.layers.0.weight", axis) for axis in (0, 1))
    widths, blocks, at = [first], 0, 2  # 0: convolution, 1: block, then per level a halving and its blocks
    while f"encoder.layers.{at + 1}.conv.0.weight" in shapes:
        widths.append(shapes.side(f"encoder.layers.{at}.weight", 0))
        blocks = shapes.count("encoder.layers.*.conv.0.weight", first=at + 1)
        at += 1 + blocks
    return TinySpec(
        latent_channels=shapes.side("decoder.layers.0.weight", 1),
        width=first,
        blocks=max(1, blocks),
        multipliers=tuple(_find_multipliers(widths, first)),
        patch=max(1, math.isqrt(seen // 3)),
    )


def _recognize_upsampler(shapes: _Shapes) -> UpsamplerSpec:
    widths, blocks, at = [shapes.side("upsampler.layers.0.weight", 0)], 0, 2  # 0: convolution, 1: activation
    while True:  # per level blocks, an enlargement without weights, a convolution; at last a block and a convolution
        here = shapes.count("upsampler.layers.*.conv.0.weight", first=at)
        if f"upsampler.layers.{at + here}.weight" in shapes:
            break
        blocks = here
        widths.insert(0, shapes.side(f"upsampler.layers.{at + here + 1}.weight", 0))
        at += here + 2
    return UpsamplerSpec(
        width=widths[0],
        blocks=blocks,
        multipliers=tuple(_find_multipliers(widths, widths[0])),
        patch=max(1, math.isqrt(shapes.side(f"upsampler.layers.{at + here}.weight", 0) // 3)),
    )
