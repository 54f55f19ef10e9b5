"""From images to shards: scan, encode, shard."""

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from lvae.actions import engines
from lvae.actions.output import print_json
from lvae.commands import options as shared
from lvae.commands.values import types
from lvae.commands.values.encoding import check_encoding, check_reshaping
from lvae.encode.catalogue import presets
from lvae.encode.feeding.settings import PREFETCH
from lvae.manifests.messages import counted
from lvae.manifests.storage.places import guard as outputs
from lvae.manifests.storage.places.guard import guard_output

if TYPE_CHECKING:
    from lvae.manifests.manifest import Manifest
    from lvae.manifests.parts.rows import Listing
    from lvae.manifests.storage.folder import Folder
    from lvae.pipeline.jobs.resume import Result
    from lvae.pipeline.planning.plan import EncodeOptions


@click.command(short_help="List the images of a source.")
@shared.SOURCE
@shared.NEW_DATASET
@shared.SCAN
@shared.PATIENCE
@shared.JSON
def scan(source: str, dataset: str, patience: float, as_json: bool, **options: Any) -> None:
    """List the images of SOURCE into DATASET/rows.

    SOURCE is a folder (its first-level subfolders are classes), a .zip (likewise), tars (a file, a folder of them, a
    pattern like 'a-{0000..0004}.tar', ImageNet's tar of class tars), an LSUN lmdb folder, Parquet with an image column
    (a file, folder or pattern), an .npz or .npy of uint8 pictures, a .csv, .jsonl or .txt list of paths or URLs, or
    synthetic:N. A URL (s3://, gs://, https://, memory://) may stand for any path; that of a folder ends in a slash.

    'lvae encode' scans by itself; scanning first lets you look at what was found, and set the part size.
    """
    from lvae.manifests.records import plain
    from lvae.manifests.storage.locks import writing
    from lvae.manifests.storage.open import folder_at
    from lvae.pipeline.planning.plan import scan_only
    from lvae.pipeline.planning.scan import read_account
    from lvae.pipeline.progress.console import say

    asked = shared.scan_options(options)

    def make_listing() -> "tuple[Folder, Listing]":
        guard_output(dataset, outputs.DATASET, [source])
        folder = folder_at(dataset)
        with writing(folder):
            return folder, scan_only(folder, source, asked, say).listing

    folder, listing = engines.wait_for_storage(patience, make_listing)
    if as_json:
        counts = {"kind": listing.kind, "images": listing.images, "parts": listing.parts, "sha256": listing.sha256}
        print_json({**counts, "classes": listing.classes, **plain(listing), **read_account(folder)})
    else:
        size = max(segment.part_size for segment in listing.segments)
        parts = counted(listing.parts, "part")
        click.echo(f"{dataset}: {counted(listing.images, 'image')} in {parts} of up to {size}")
    shared.suggest("encode", source, dataset)


def _help_runner(context: click.Context, _: click.Parameter, name: str | None) -> None:
    if name is None or context.resilient_parsing:
        return
    from lvae.pipeline.engines.help import help_for

    click.echo(help_for(name))
    context.exit()


@click.command(
    cls=shared.EngineCommand,
    short_help="Images to a finished, verified dataset.",
    epilog=f"\b\nPresets\n{presets.table()}",
)
@shared.SOURCE
@shared.NEW_DATASET
@click.option("--preset", metavar="NAME", help="Settings of the paper for whatever is not given here; see below.")
@click.option("--autoencoder", metavar="NAME|JSON", help="One of those below, or a JSON description [default].")
@click.option(
    "--weights",
    metavar="FILE|random:SEED",
    help="The autoencoder's weights: a file of any kind, or a folder; random:SEED for trials.",
)
@click.option("--size", type=types.Whole(1), help="Side of the cropped square in pixels [256].")
@click.option("--min-size", type=types.Whole(0), help="Reject images whose shorter side has fewer pixels [0].")
@click.option(
    "--crop",
    type=click.Choice(["adm", "lsun", "adm-lsun", "center", "none"]),
    help="How images are cropped to a square: as ADM or LSUN do, centred, or not at all [adm].",
)
@click.option("--mirror", is_flag=True, default=None, help="Encode the mirror image of every picture as well.")
@click.option(
    "--store",
    type=click.Choice(["mode", "sample", "moments"]),
    help="Keep the mean of an image's posterior, one draw, or mean and variance [mode].",
)
@click.option("--seed", type=types.Whole(), help="Seed for the order in the shards, and for --store sample [0].")
@click.option("--batch", type=types.Whole(1), help="Images in a forward pass [by the network's cost].")
@click.option(
    "--device",
    metavar="NAME",
    default="auto",
    show_default=True,
    help="auto: every GPU, or the CPU; cpu, cuda, cuda:1.",
)
@click.option("--devices", metavar="0,1", help="These GPUs of this machine, a worker each.")
@click.option(
    "--precision",
    type=click.Choice(["auto", "float32", "winograd", "tf32", "bfloat16"]),
    help="Precision of the network [auto: tf32 on a GPU, else float32]. Faster: winograd on a CPU, bfloat16 on a GPU; "
    "what they round is in encode/README.md.",
)
@click.option(
    "--decode-workers",
    type=types.Whole(0),
    help="Processes that open images for each worker [on a GPU the cores, shared out; none on a CPU].",
)
@click.option(
    "--prefetch",
    type=types.Whole(1),
    default=PREFETCH,
    show_default=True,
    help="Batches that these processes open ahead, at most; more take more memory.",
)
@click.option("--drop-raw", is_flag=True, help="Remove the raw latents once the shards are verified.")
@click.option("--max-rejected", metavar="1%|N", help="Fail if more images than this cannot be used [never].")
@click.option("--dry-run", is_flag=True, help="Say what would be done and how long it would take; write nothing.")
@click.option(
    "--images-per-second",
    type=types.Number(0, min_open=True),
    help="With --dry-run: the rate of one worker, instead of a trial.",
)
@click.option("--shared-path", is_flag=True, help="Workers on other machines see the local paths given here.")
@click.option(
    "--help-runner",
    metavar="NAME",
    is_eager=True,
    expose_value=False,
    callback=_help_runner,
    help="How to encode on dask, portable, flink, spark or dataflow.",
)
@shared.SCAN
@shared.VIEW
@shared.SHUFFLE
@shared.ENGINE
@shared.JSON
def encode(source: str, dataset: str, **options: Any) -> None:
    """Encode the images of SOURCE into DATASET: raw latents, statistics, normalized shards, verified.

    The same command again goes on where it was stopped, mends what is damaged, or does nothing. What an earlier
    command set need not be given again, and cannot be changed.

    \b
    Autoencoders  default (f = 4, 4 channels, part of this package); pixels pixels-f2 pixels-f4 pixels-f8;
                  kl-f4 kl-f8 kl-f16 kl-f32 vq-f4 vq-f4-noattn vq-f8 vq-f8-n256 vq-f16 taesd taesd3 taesdxl taef1
                  sd-vae-ft-mse sd-vae-ft-ema ldm-celebahq-256, once fetched ('lvae autoencoder fetch NAME')
                  or with --weights
    --weights     .safetensors, .ckpt, .bin, .pt, a zip of one, a folder in diffusers' layout,
                  whole checkpoints; nothing in them is ever executed. Alone: whatever it holds
    SOURCE        a folder, zip, tars, lmdb, Parquet, npz, a list, URLs ('lvae scan --help')
    BEAM_OPTIONS  after --: any option of Apache Beam, such as --runner=FlinkRunner
    """
    if "://" not in dataset:  # a store that is away is waited for by the job, which has the same guard
        guard_output(dataset, outputs.DATASET, [source])
    options = _with_preset(options)
    view = shared.view_options(options, limit=None)
    check_encoding(source, options)
    from lvae.encode.devices import check_precision
    from lvae.manifests.records import plain
    from lvae.manifests.storage.open import folder_at
    from lvae.pipeline.jobs import encode as job
    from lvae.pipeline.planning.scan import read_account
    from lvae.pipeline.progress.console import CONSOLE

    engine = engines.choose(options["beam_options"], options["workers"], options["patience"])
    engine = replace(engine, shuffle=options["shuffle"])
    devices = engines.devices_for(engine, options)
    options |= {"device": devices[0], "precision": None if options["precision"] == "auto" else options["precision"]}
    feeding = engines.feeding_for(engine, devices, options["decode_workers"], options["prefetch"])
    request = _encode_options(options)
    if devices != ("auto",):
        check_precision(options["precision"], devices[0])
    if options["dry_run"]:
        _print_estimate(source, dataset, request, view, engines.workers_for(engine, devices), options)
        return
    engine = engines.ready(engine, devices, dataset, source, (source, dataset), options["shared_path"])
    asked = job.EncodeRequest(source, dataset, request, view, feeding, options["max_rejected"], options["drop_raw"])
    result = engines.wait_for_storage(engine.patience, lambda: job.encode(asked, engine, CONSOLE))
    if options["as_json"]:
        print_json({**plain(result.manifest), **read_account(folder_at(dataset))})
    else:
        print_dataset(dataset, result.manifest, as_json=False)
    shared.suggest("train", dataset, "RUN")


@click.command(cls=shared.EngineCommand, short_help="Another view of a dataset.")
@shared.DATASET
@shared.VIEW
@click.option("--seed", type=types.Whole(), help="Seed for the order in the shards [as it is].")
@click.option("--limit", type=types.Whole(1), help="Only so many images: a fair sample by a hash of the key.")
@click.option("--everything", is_flag=True, help="Forget the old view's selection and splits.")
@click.option("--keep-old", is_flag=True, help="Keep the view that is there; 'lvae clean' removes it later.")
@click.option("--out", type=click.Path(file_okay=False), help="Make a dataset of its own there, raw parts and all.")
@click.option("--erase", is_flag=True, help="Erase what classes and keys leave out from the raw latents too, for good.")
@shared.SHUFFLE
@shared.ENGINE
@shared.JSON
def shard(dataset: str, out: str | None, keep_old: bool, erase: bool, **options: Any) -> None:
    """Write another view of DATASET from its raw latents: normalization, format, dtype, split, selection, order.

    What is not given stays as it is: the split, the classes, the limit; keys left out before stay out. --everything
    forgets the old selection and split. A reader of the old view is not disturbed.

    --erase is for takedowns: what this command line leaves out by classes and keys is erased. Rows stay listed by
    their keys, in rows/ and as rejected, and nothing of the images themselves remains. Datasets made by --out or
    'lvae merge' before are their own and keep them. A key that no image has is an error, and changes nothing.
    """
    if out is not None:
        guard_output(out, outputs.DATASET, [dataset])
        if keep_old:
            raise click.UsageError("--keep-old is for another view of DATASET itself, not for --out.")
    view = shared.view_options(options, options["limit"])
    check_reshaping([dataset], view, erase)
    from lvae.pipeline.jobs import reshard as reshaping

    engine = engines.choose(options["beam_options"], options["workers"], options["patience"])
    engine = replace(engine, workers=engines.workers_for(engine, ("cpu",)), shuffle=options["shuffle"])
    engines.examine(engine, dataset, None)

    def write_view() -> "Result":
        if out is None:
            return reshaping.shard(dataset, view, engine, keep_old, erase)
        return reshaping.shard_elsewhere(dataset, out, view, engine, erase)

    result = engines.wait_for_storage(engine.patience, write_view)
    print_dataset(out or dataset, result.manifest, options["as_json"])
    if erase and out is None:
        made = "datasets made from it before, by --out or 'lvae merge'"
        click.echo(f"{made}, keep the erased images: erase them there, too", err=True)
    shared.suggest("train", out or dataset, "RUN")


COMMANDS = (scan, encode, shard)


def print_dataset(dataset: str, manifest: "Manifest", as_json: bool) -> None:
    from lvae.actions.output import summary
    from lvae.manifests.parts.plan import read_plan_if_whole
    from lvae.manifests.records import plain
    from lvae.manifests.storage.open import folder_at

    if as_json:
        print_json(plain(manifest))
    else:
        plan = read_plan_if_whole(folder_at(dataset))
        click.echo(summary(dataset, manifest, plan.erased.count if plan is not None else 0))


def _with_preset(options: dict[str, Any]) -> dict[str, Any]:
    """The options, those that were not given from the preset, if one is named."""
    if options["preset"] is None:
        return options
    filled, said = presets.fill(options["preset"], options)
    for line in said:
        click.echo(line, err=True)
    return filled


def _encode_options(options: dict[str, Any]) -> "EncodeOptions":
    from lvae.pipeline.planning.plan import EncodeOptions

    names = (
        "autoencoder",
        "weights",
        "size",
        "min_size",
        "crop",
        "mirror",
        "store",
        "seed",
        "batch",
        "precision",
        "device",
        "preset",
    )
    return EncodeOptions(**{name: options[name] for name in names}, scan=shared.scan_options(options))


def _print_estimate(source: str, dataset: str, request: Any, view: Any, workers: int, options: dict[str, Any]) -> None:
    from lvae.manifests.storage.open import folder_at
    from lvae.pipeline.planning.dry_run import Speed, estimate
    from lvae.pipeline.progress.console import say

    speed = Speed(workers, options["images_per_second"])
    found = estimate(folder_at(dataset), source, request, view, speed, say)
    if options["as_json"]:
        print_json(found.as_dict())
    else:
        click.echo(str(found))
