"""What commands print: JSON, and a dataset in a few lines."""

import json
from typing import TYPE_CHECKING, Any

import click

from lvae.manifests.messages import counted

if TYPE_CHECKING:
    from lvae.manifests.manifest import Manifest


def print_json(value: Any) -> None:
    click.echo(json.dumps(value, indent=1, sort_keys=True))


def summary(name: str, manifest: "Manifest", erased: int = 0) -> str:
    """What it holds, how it was made, and its channels. erased: images, which the manifest counts as rejected."""
    counts, view, image = manifest.counts, manifest.view, manifest.image
    shape = "x".join(map(str, view.shape))
    orientations = (" and their mirrors" if counts.images != 1 else " and its mirror") if image.mirrored else ""
    splits = ", ".join(f"{split} {entry.count}" for split, entry in sorted(manifest.splits.items()))
    shards = sum(entry.shards for entry in manifest.splits.values())
    weights, selected = manifest.autoencoder.weights_sha256, sum(entry.count for entry in manifest.splits.values())
    latents = counted(counts.latents, "latent")
    if selected < counts.latents:
        latents = f"{selected} of {latents}"
    rest = "; the raw parts hold the rest" if selected < counts.latents and manifest.raw == "kept" else ""
    lines = [
        f"{name}: {latents} of {shape} from {counted(counts.images, 'image')}{orientations}; "
        f"{counted(counts.rejected - erased, 'image')} rejected" + (f", {erased} erased" if erased else ""),
        f"  images       {image.size} px, crop {image.crop}",
        f"  autoencoder  {manifest.autoencoder.name}" + (f", weights {weights[:12]}" if weights else ""),
        f"  classes      {len(manifest.classes) if manifest.classes is not None else 'none'}",
        f"  view         {view.name}: {splits} in {counted(shards, f'{view.format} shard')} of {view.dtype}{rest}",
        f"  normalized   by {manifest.normalization.kind}; raw parts {manifest.raw}",
        "  channel      mean        std        min        max      shift      scale",
    ]
    statistics, normalization = manifest.statistics, manifest.normalization
    columns = (
        statistics.mean,
        statistics.std,
        statistics.min,
        statistics.max,
        normalization.shift,
        normalization.scale,
    )
    for channel, values in enumerate(zip(*columns, strict=True)):
        lines.append(f"  {channel:7d} " + " ".join(f"{value:10.4f}" for value in values))
    return "\n".join(lines)
