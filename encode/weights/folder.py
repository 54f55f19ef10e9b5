"""Folders of weights: diffusers' layout with its config.json, TAESD's two files, a lone file."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lvae.encode.catalogue.architectures import LdmSpec, PixelsSpec, Spec, shown
from lvae.manifests.errors import LvaeError
from lvae.manifests.tensors.open import SUFFIXES

CLASSES = {"AutoencoderKL": "kl", "VQModel": "vq", "AutoencoderTiny": "tiny"}
WEIGHTS = "diffusion_pytorch_model.safetensors"
FILES = (WEIGHTS, *(f"diffusion_pytorch_model{ending}" for ending in (".bin", ".fp16.safetensors", ".fp16.bin")))
SCALE_FIELDS = ("scaling_factor", "shift_factor", "latents_mean", "latents_std")
MAX_CONFIG_BYTES = 1 << 20


def find_files(folder: Path, kind: str | None) -> tuple[list[Path], dict[str, Any]]:
    """One file, or TAESD's encoder and decoder, with the config.json beside it, checked ({} where there is none).

    Looked for here and, as in a pipeline's folder, one down in vae/ and vqvae/.
    """
    for inner in (folder, folder / "vae", folder / "vqvae"):
        if (inner / "config.json").is_file():
            config = _read_config(inner / "config.json", kind)
            for name in FILES:
                if (inner / name).is_file():
                    return [inner / name], config
            raise LvaeError(inner, f"has no {WEIGHTS} (or .bin)", "Fetch the folder again, or name the file.")
    files = sorted(path for path in folder.iterdir() if path.suffix in SUFFIXES and path.is_file())
    pairs = _pairs(files)
    if len(pairs) == 1:
        return pairs[0], {}
    if len(files) == 1:
        return files, {}
    if files:
        pair = ",".join(map(str, pairs[0])) if pairs else ""
        advice = f"Name two of them, as in {pair}" if pairs else f"Name one of them, as in {files[0]}"
        raise LvaeError(folder, f"has {len(files)} files of weights", f"{advice}.")
    raise LvaeError(
        folder,
        "has no config.json, nor do vae/ and vqvae/ in it",
        "Give a file of weights, or the folder it lies in.",
    )


def scale_facts(config: Mapping[str, Any]) -> dict[str, Any]:
    """What config.json says of the scale of latents. Nothing here applies it."""
    return {name: config[name] for name in SCALE_FIELDS if _is_number_or_numbers(config.get(name))}


def describe_for_diffusers(spec: Spec, scale: Mapping[str, Any]) -> dict[str, Any]:
    """The config.json of an architecture. Where nothing is known of the scale, diffusers takes 0.18215 for KL; VQ says
    1, as its models want it."""
    known = {name: scale[name] for name in SCALE_FIELDS if name in scale}
    return _architecture(spec) | ({"scaling_factor": scale["scale_factor"]} if "scale_factor" in scale else {}) | known


def _architecture(spec: Spec) -> dict[str, Any]:
    if isinstance(spec, PixelsSpec):
        raise LvaeError("", "pixels have no network", "Nothing to write.")
    if not isinstance(spec, LdmSpec):
        halvings = len(spec.widths) - 1
        if spec.patch != 1 or len(set(spec.widths)) != 1:
            raise LvaeError(
                "", ("diffusers cannot describe a tiny autoencoder of several widths, or one that sees patches")
            )
        return {
            "_class_name": "AutoencoderTiny",
            "encoder_block_out_channels": list(spec.widths),
            "decoder_block_out_channels": list(spec.widths),
            "num_encoder_blocks": [1] + [spec.blocks] * halvings,
            "num_decoder_blocks": [spec.blocks] * halvings + [1],
            "latent_channels": spec.latent_channels,
            "scaling_factor": 1.0,
        }
    widths = [spec.width * multiplier for multiplier in spec.multipliers]
    groups = {math.gcd(32, width) for width in widths}
    if len(groups) != 1:
        raise LvaeError(
            f"diffusers cannot describe channels {widths}", "32 does not divide all", "Use --layout compvis."
        )
    attends = [level in spec.attention_levels for level in range(len(widths))]
    config: dict[str, Any] = {
        "_class_name": "AutoencoderKL" if spec.kind == "kl" else "VQModel",
        "in_channels": 3,
        "out_channels": 3,
        "down_block_types": [f"{'Attn' if attending else ''}DownEncoderBlock2D" for attending in attends],
        "up_block_types": [f"{'Attn' if attending else ''}UpDecoderBlock2D" for attending in reversed(attends)],
        "block_out_channels": widths,
        "layers_per_block": spec.blocks,
        "latent_channels": spec.latent_channels,
        "norm_num_groups": groups.pop(),
        "act_fn": "silu",
        "mid_block_add_attention": spec.middle_attention,
    }
    if spec.kind == "vq":
        config |= {"num_vq_embeddings": spec.codes, "vq_embed_dim": spec.latent_channels, "scaling_factor": 1.0}
    return config


def _pairs(files: list[Path]) -> list[list[Path]]:
    """TAESD's files, as taesd_encoder.pth beside taesd_decoder.pth; of two formats the first of SUFFIXES."""
    pairs: dict[str, list[Path]] = {}
    for suffix in SUFFIXES:
        for encoder in files:
            decoder = encoder.with_name(f"{encoder.stem.removesuffix('encoder')}decoder{suffix}")
            if encoder.suffix == suffix and encoder.stem.endswith("encoder") and decoder in files:
                pairs.setdefault(encoder.stem, [encoder, decoder])
    return list(pairs.values())


def _is_number_or_numbers(value: object) -> bool:
    if isinstance(value, list):
        return 0 < len(value) <= 1024 and all(type(item) in (int, float) and math.isfinite(item) for item in value)
    return type(value) in (int, float) and math.isfinite(value)  # type: ignore[arg-type]


def _read_config(path: Path, kind: str | None) -> dict[str, Any]:
    """What the shapes of tensors cannot tell: the class, and settings that none of ours has otherwise."""
    with path.open("rb") as file:
        text = file.read(MAX_CONFIG_BYTES)
    try:
        config = json.loads(text)
    except (ValueError, RecursionError):
        config = None
    if not isinstance(config, dict):
        raise LvaeError(path, "not a JSON object", "Fetch the folder again.")
    class_name = config.get("_class_name")
    found = CLASSES.get(class_name) if isinstance(class_name, str) else None
    if found is None or kind not in (None, found):
        wanted = " or ".join(repr(name) for name, its_kind in CLASSES.items() if kind in (None, its_kind))
        raise LvaeError(
            path, f"describes {str(class_name)[:60]!r}, not {wanted}", "Choose an autoencoder of that kind."
        )
    fixed = {"act_fn": "silu", "norm_type": "group", "use_quant_conv": True, "use_post_quant_conv": True}
    if found == "tiny":
        fixed = {"act_fn": "relu", "upsample_fn": "nearest", "upsampling_scaling_factor": 2, "latent_magnitude": 3}
    for field, value in fixed.items():
        if config.get(field, value) != value:
            raise LvaeError(
                path, f"{field} is {shown(config[field])}, where only {value!r} is supported", "Use other weights."
            )
    groups, widths = config.get("norm_num_groups", 32), config.get("block_out_channels", [])
    if found != "tiny" and isinstance(widths, list):
        for width in widths:
            if isinstance(width, int) and math.gcd(32, width) != groups:
                raise LvaeError(
                    path,
                    (
                        f"norm_num_groups is {shown(groups)}, but {width} channels are normalized in "
                        f"{math.gcd(32, width)} groups here"
                    ),
                    "Use other weights.",
                )
    return config
