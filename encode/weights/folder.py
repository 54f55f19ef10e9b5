"""Folders of weights: diffusers' layout with its config.json, the hub's cache, TAESD's two files, a lone file."""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lvae.encode.catalogue.architectures import LdmSpec, PixelsSpec, Spec, UpsamplerSpec, quote
from lvae.manifests.errors import LvaeError
from lvae.manifests.tensors.open import SUFFIXES

CLASSES = {"AutoencoderKL": "kl", "VQModel": "vq", "AutoencoderTiny": "tiny"}
WEIGHTS = "diffusion_pytorch_model.safetensors"
SCALE_FIELDS = ("scaling_factor", "shift_factor", "latents_mean", "latents_std")
MAX_CONFIG_BYTES = 1 << 20
# A file of weights, also as browsers and wget name a download: model.ckpt?download=true, model.ckpt.1
WEIGHTS_NAME = re.compile(rf"(?i).+({'|'.join(map(re.escape, SUFFIXES))})(\.tar)?(\?.*|\.\d+)?")
SHARD = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})(?P<ending>(\.\w+)+)")
VARIANT = re.compile(r"diffusion_pytorch_model(?:\.(?P<variant>[\w-]+))?\.(?P<format>safetensors|bin)")
VARIANTS = (None, "fp32", "bf16", "fp16")  # the best first; others, such as non_ema, come after these
UNFINISHED = (".part", ".crdownload", ".incomplete", ".download", ".aria2", ".tmp")


@dataclass(frozen=True)
class Found:
    """Files of weights: one, the shards of one, or (`pair`) TAESD's encoder and decoder.

    config: what config.json beside them says, checked; {} where there is none. notes: which of several were taken.
    """

    files: tuple[Path, ...]
    config: Mapping[str, Any] = field(default_factory=dict)
    pair: bool = False
    notes: tuple[str, ...] = ()


def find_files(folder: Path, kind: str | None) -> Found:
    """The weights of a folder, a pipeline's folder (in its vae/ or vqvae/), or a model in the hub's cache.

    kind: what is wanted, if that is known; a config.json that says otherwise is refused.
    """
    folder = _find_snapshot(folder)
    for inner in (folder, folder / "vae", folder / "vqvae"):
        if (inner / "config.json").is_file():
            return _find_diffusers_files(inner, _read_config(inner / "config.json", kind))
    files = _list_weights(folder)
    pairs = _find_pairs([group[0] for group in files if len(group) == 1])
    if len(pairs) == 1:
        return Found(tuple(pairs[0]), pair=True)
    if len(files) == 1:
        return Found(files[0])
    if files:
        pair = ",".join(map(str, pairs[0])) if pairs else ""
        advice = f"Name two of them, as in {pair}" if pairs else f"Name one of them, as in {files[0][0]}"
        raise LvaeError(folder, f"has {len(files)} files of weights", f"{advice}.")
    _refuse_unfinished(folder)
    raise LvaeError(
        folder,
        "has no config.json, nor do vae/ and vqvae/ in it",
        "Give a file of weights, or the folder it lies in.",
    )


def _find_snapshot(folder: Path) -> Path:
    """Of a model in the hub's cache (models--ORG--NAME) the revision that `main` is; any other folder itself."""
    model = folder.parent if folder.name == "snapshots" else folder
    if not (model / "snapshots").is_dir():
        return folder
    revisions = sorted(path for path in (model / "snapshots").iterdir() if path.is_dir())
    main = model / "refs" / "main"
    named = model / "snapshots" / main.read_bytes()[:64].decode("ascii", "replace").strip() if main.is_file() else None
    if named in revisions:
        return named
    if len(revisions) != 1:
        what = f"has {len(revisions)} revisions and no refs/main that names one"
        advice = f"Give one of them, as in {revisions[-1]}." if revisions else "Fetch the model again."
        raise LvaeError(folder, what, advice)
    return revisions[0]


def _find_diffusers_files(folder: Path, config: dict[str, Any]) -> Found:
    """The best of the variants that are there, such as fp16."""
    found: dict[tuple[int, str, int], tuple[tuple[Path, ...], str | None]] = {}
    for group in _list_weights(folder):
        shard = SHARD.fullmatch(group[0].name)
        match = VARIANT.fullmatch(shard["stem"] + shard["ending"] if shard else group[0].name)
        if match:
            variant = match["variant"]
            rank = VARIANTS.index(variant) if variant in VARIANTS else len(VARIANTS)
            found[rank, variant or "", match["format"] == "bin"] = group, variant
    if not found:
        _refuse_unfinished(folder)
        raise LvaeError(folder, f"has no {WEIGHTS} (or .bin)", "Fetch the folder again, or name the file.")
    files, variant = found[min(found)]
    notes = () if variant is None else (f"the variant {variant} is taken, since there is no other of full precision",)
    return Found(files, config, notes=notes)


def _list_weights(folder: Path) -> list[tuple[Path, ...]]:
    """The files of weights in a folder, by name; shards of one set together, none of which may be missing."""
    groups: dict[str, list[Path]] = {}
    for path in sorted(folder.iterdir()):
        if WEIGHTS_NAME.fullmatch(path.name) and path.is_file():
            shard = SHARD.fullmatch(path.name)
            key = f"{shard['stem']}-of-{shard['count']}{shard['ending']}" if shard else path.name
            groups.setdefault(key, []).append(path)
    for group in groups.values():
        shard = SHARD.fullmatch(group[0].name)
        if shard and len(group) != int(shard["count"]):
            problem = f"has {len(group)} of the {int(shard['count'])} files that {group[0].name} is one of"
            raise LvaeError(folder, problem, "Fetch the folder again.")
    return [tuple(group) for group in groups.values()]


def _refuse_unfinished(folder: Path) -> None:
    names = sorted(path.name for path in folder.iterdir() if path.name.endswith(UNFINISHED))
    if names:
        raise LvaeError(folder, f"holds only a download that is not finished ({names[0]})", "Fetch it again.")


def scale_facts(config: Mapping[str, Any]) -> dict[str, Any]:
    """What config.json says of the scale of latents. Nothing here applies it."""
    return {name: config[name] for name in SCALE_FIELDS if _is_number_or_numbers(config.get(name))}


def describe_for_diffusers(spec: Spec, scale: Mapping[str, Any]) -> dict[str, Any]:
    """The config.json of an architecture. Where nothing is known of the scale, diffusers takes 0.18215 for KL; VQ says
    1, as its models want it."""
    known = {name: scale[name] for name in SCALE_FIELDS if name in scale}
    return (
        _describe_architecture(spec)
        | ({"scaling_factor": scale["scale_factor"]} if "scale_factor" in scale else {})
        | known
    )


def _describe_architecture(spec: Spec) -> dict[str, Any]:
    if isinstance(spec, PixelsSpec):
        raise LvaeError("", "pixels have no network", "Nothing to write.")
    if isinstance(spec, UpsamplerSpec):
        raise LvaeError("", "diffusers cannot describe an upsampler of images", "Use --layout compvis.")
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
            "", f"diffusers cannot describe channels {widths}, of which 32 does not divide all", "Use --layout compvis."
        )
    attends = [
        [level in levels for level in range(len(widths))] for levels in (spec.attention_levels, spec.decoder_levels)
    ]
    config: dict[str, Any] = {
        "_class_name": "AutoencoderKL" if spec.kind == "kl" else "VQModel",
        "in_channels": 3,
        "out_channels": 3,
        "down_block_types": [f"{'Attn' if attending else ''}DownEncoderBlock2D" for attending in attends[0]],
        "up_block_types": [f"{'Attn' if attending else ''}UpDecoderBlock2D" for attending in reversed(attends[1])],
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


def _find_pairs(files: list[Path]) -> list[list[Path]]:
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
    for name, value in fixed.items():
        if config.get(name, value) != value:
            raise LvaeError(
                path, f"{name} is {quote(config[name])}, where only {value!r} is supported", "Use other weights."
            )
    groups, widths = config.get("norm_num_groups", 32), config.get("block_out_channels", [])
    if found != "tiny" and isinstance(widths, list):
        for width in widths:
            if isinstance(width, int) and math.gcd(32, width) != groups:
                raise LvaeError(
                    path,
                    (
                        f"norm_num_groups is {quote(groups)}, but {width} channels are normalized in "
                        f"{math.gcd(32, width)} groups here"
                    ),
                    "Use other weights.",
                )
    return config
