"""Latents that others cached, in; latents of ours as others read them, out."""

from pathlib import Path
from typing import Any

import click

from lvae.commands import options as shared
from lvae.commands.values import types
from lvae.manifests.storage.places import guard as outputs
from lvae.manifests.storage.places.guard import guard_output

LAYOUTS = ["auto", "edm2", "lightningdit", "dit", "repa", "mar", "mds", "npy", "webdataset", "zarr"]

SAID = ("autoencoder", "weights", "factor", "input_range", "scale", "shift", "crop", "store")


@click.group(short_help="Latents that other tools cached, in and out.")
def latents() -> None:
    """Take over latents that another tool cached, and write them as other trainers read them."""


@latents.command("import", short_help="A cache of another tool as a dataset.")
@click.argument("cache")
@shared.NEW_DATASET
@click.option("--layout", type=click.Choice(LAYOUTS), default="auto", show_default=True, help="Whose files they are.")
@click.option("--autoencoder", metavar="NAME|JSON|unknown", help="Which autoencoder made them.")
@click.option("--weights", metavar="FILE|unknown", help="Its weights, kept in DATASET; or decode with --weights later.")
@click.option("--factor", type=types.Whole(1), help="With --autoencoder unknown: pixels a side of one place.")
@click.option("--input-range", metavar="-1,1|0,1", help="Range of the images that the autoencoder saw.")
@click.option("--scale", type=types.Number(), help="What the latents were multiplied by; 1 for none.")
@click.option("--shift", type=types.Number(), help="What was subtracted before that [0].")
@click.option(
    "--crop",
    type=click.Choice(["adm", "lsun", "adm-lsun", "center", "none", "unknown"]),
    help="How the images were cropped.",
)
@click.option("--store", type=click.Choice(["mode", "sample", "moments"]), help="Means, one draw, or both moments.")
@click.option("--array", metavar="NAME", help="Which array or column holds the latents, where there are several.")
@click.option(
    "--labels", type=click.Path(path_type=Path), help="Labels by key (.csv, .jsonl, .json), or .npy in order."
)
@click.option("--prefix", default="", metavar="TEXT", help="Put before every key, so that they differ from others.")
@click.option("--append", is_flag=True, help="Add CACHE to a dataset that was imported before.")
@click.option("--max-rejected", metavar="1%|N", help="Fail where more rows than this cannot be used.")
@click.option("--seed", type=types.Whole(), help="Seed for the order in the shards [0].")
@shared.VIEW
@click.option("--workers", type=types.Whole(1), help="Worker processes for the shards [one a core].")
@shared.JSON
def import_(cache: str, dataset: str, **options: Any) -> None:
    """Make DATASET of CACHE, latents that another tool wrote: raw latents, exact statistics, shards, verified.

    \b
    CACHE       what edm2, REPA (folder or zip of .npy with dataset.json), LightningDiT (safetensors), fast-DiT
                (folders NAME_features and NAME_labels), MAR (.npz files) or mosaicml (MDS shards) wrote; arrays
                in .npy, .npz, .safetensors or Zarr; tars of .npy files
    A cache does not say how it was made. What is missing is asked for by the name of its option, never guessed.
    Latents of mirrored images become mirrors of their images. Rows that are not finite are rejected, with their
    place; rows that a distributed sampler repeated are found and left out. The same command again goes on where it
    was stopped, mends what is damaged, or does nothing. See docs/exchange.md.
    """
    if "://" not in dataset:
        guard_output(dataset, outputs.DATASET, [cache])
    from lvae.actions.latents import run_import
    from lvae.pipeline.exchange.caches.open import Choice
    from lvae.pipeline.exchange.listing import ListingOptions
    from lvae.pipeline.exchange.settings import ImportOptions
    from lvae.pipeline.jobs.import_latents import ImportRequest

    layout = options.pop("layout")
    request = ImportRequest(
        cache,
        dataset,
        Choice(None if layout == "auto" else layout, options.pop("array")),
        shared.take(ImportOptions, options, *SAID),
        shared.take(ListingOptions, options, "labels", "prefix", "append"),
        shared.view_options(options, limit=None),
        options["max_rejected"],
    )
    run_import(request, options["workers"], options["as_json"])
    shared.suggest("train", dataset, "RUN")


@latents.command(short_help="A dataset as other trainers read it.")
@shared.DATASET
@click.argument("out", type=click.Path(path_type=Path))
@click.option(
    "--layout",
    type=click.Choice(["edm2", "lightningdit", "dit", "npy", "safetensors"]),
    required=True,
    help="Whose trainer is to read it; edm2 in a folder, or in OUT.zip.",
)
@click.option(
    "--split", metavar="NAME", default="train", show_default=True, help="Which split of DATASET; one alone is written."
)
@click.option("--scale", type=types.Number(), help="Multiply raw latents by this; dit's trainer expects it [1].")
@click.option(
    "--dtype", type=click.Choice(["float32", "float16"]), default="float32", show_default=True, help="Numbers in OUT."
)
@shared.JSON
def export(dataset: str, out: Path, as_json: bool, **options: Any) -> None:
    """Write the latents of DATASET to OUT in the layout of another trainer, with the statistics that it looks for.

    \b
    edm2          NNNNN/img-mean-std-NNNNNNNN.npy (means, then deviations) and dataset.json
    lightningdit  latents_rankRR_shardSSS.safetensors and latents_stats.pt
    dit           imagenet256_features/N.npy and imagenet256_labels/N.npy, for fast-DiT
    npy           latents.npy, latents_flip.npy, labels.npy; with kept posteriors moments.npy, moments_flip.npy
    safetensors   the same arrays in files of some rows each
    Raw latents are written as the autoencoder gave them (from the shards where the raw parts were dropped), mirrored
    latents as flips. OUT appears when it is whole; export.json in it says what it is. See docs/exchange.md.
    """
    guard_output(out, outputs.ZIP if out.suffix == ".zip" else outputs.CACHE, [dataset])
    from lvae.actions.latents import run_export
    from lvae.pipeline.exchange.export import ExportOptions

    run_export(dataset, out, ExportOptions(**options), as_json)


COMMANDS = (latents,)
