"""The command `lvae`: each command parses, calls one function, and prints what it returns.

Only click is imported at the start; whatever a command needs, it imports itself, so help takes no time.
"""

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lvae.manifests.errors import LvaeError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from lvae.manifests.dataset import Manifest
    from lvae.pipeline.job import ViewOptions
    from lvae.pipeline.planning import EncodeOptions
    from lvae.pipeline.runners import Engine
    from lvae.pipeline.scanning import ScanOptions

BEAM_OPTIONS = "BEAM OPTIONS"


class Group(click.Group):
    """Shows what a user caused as one line and exits with 1; `--debug` shows where it came from."""

    def invoke(self, context: click.Context) -> Any:
        try:
            return super().invoke(context)
        except LvaeError as error:
            if context.params.get("debug"):
                raise
            click.echo(f"lvae: {error}", err=True)
            context.exit(1)
        except KeyboardInterrupt:
            click.echo("lvae: interrupted; the same command goes on from here", err=True)
            context.exit(130)
        except OSError as error:
            if context.params.get("debug") or error.filename is None:
                raise
            click.echo(f"lvae: {error.filename}: {error.strerror}.", err=True)
            context.exit(1)


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.option("--debug", is_flag=True, help="Show a traceback with errors.")
@click.version_option(package_name="latent-vae", prog_name="lvae")
def main(debug: bool) -> None:
    """Deep VAEs in the latent space of an autoencoder: encode images once, train on the latents, sample."""


def _options(*options: "Callable[[Any], Any]") -> "Callable[[Any], Any]":
    """Several options as one decorator, in this order."""

    def decorate(command: Any) -> Any:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


SCAN_OPTIONS = _options(
    click.option("--labels", type=click.Path(path_type=Path), help="Labels by key: .csv, .jsonl or .json."),
    click.option("--limit", type=int, help="Only the first N images in source order."),
    click.option("--part-size", type=click.IntRange(1), help="Images in a part, the unit of work and of retry."),
)

VIEW_OPTIONS = _options(
    click.option("--normalization", metavar="channel|scalar|none|FILE", help="How latents are normalized [channel]."),
    click.option("--format", "format_", type=click.Choice(["zarr", "webdataset"]), help="Shard format [zarr]."),
    click.option("--shard-size", type=click.IntRange(1), help="Latents in a shard [8192]; never more than 512 MiB."),
    click.option("--dtype", type=click.Choice(["float16", "float32", "uint8"]), help="Stored numbers [float16]."),
    click.option("--split", multiple=True, metavar="val=5000|val=5%", help="Set images aside, by a hash of the key."),
    click.option("--only-classes", metavar="A,B", help="Only these classes, renumbered in this order."),
    click.option(
        "--without-keys", type=click.Path(path_type=Path), help="Leave out the keys of this file, one a line."
    ),
)

ENGINE_OPTIONS = _options(
    click.option("--workers", type=click.IntRange(1), help="Worker processes [one a core, or one a GPU]."),
    click.argument("beam_options", nargs=-1, type=click.UNPROCESSED, metavar="[-- BEAM OPTIONS]"),
)

JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@main.command()
@click.argument("source")
@click.argument("dataset", type=click.Path(file_okay=False))
@SCAN_OPTIONS
@JSON
def scan(
    source: str, dataset: str, labels: Path | None, limit: int | None, part_size: int | None, as_json: bool
) -> None:
    """List the images of SOURCE into DATASET/rows.

    SOURCE is a folder (its first-level subfolders are classes), a .zip, one or more .tar (a file, a folder of them, a
    pattern like 'a-{0000..0004}.tar'), or synthetic:N.
    """
    from lvae.manifests.locks import writing
    from lvae.manifests.records import plain
    from lvae.manifests.storage import Folder
    from lvae.pipeline.console import say
    from lvae.pipeline.planning import scan_only
    from lvae.pipeline.scanning import ScanOptions

    folder = Folder(dataset)
    with writing(folder):
        plan = scan_only(folder, source, ScanOptions(labels, limit, part_size), say)
    if as_json:
        _print_json(plain(plan.listing))
    else:
        click.echo(f"{dataset}: {plan.listing.images} images in {plan.listing.parts} parts of {plan.listing.part_size}")


@main.command()
@click.argument("source")
@click.argument("dataset", type=click.Path(file_okay=False))
@click.option("--autoencoder", metavar="NAME|JSON", help="See below.")
@click.option("--weights", metavar="FILE|random:SEED", help="A .safetensors file or a folder in diffusers' layout.")
@click.option("--size", type=click.IntRange(1), help="Side of the cropped square in pixels [256].")
@click.option("--crop", type=click.Choice(["adm", "lsun", "adm-lsun", "center", "none"]), help="How to crop [adm].")
@click.option("--mirror", is_flag=True, default=None, help="Encode the mirror image of every picture as well.")
@click.option("--store", type=click.Choice(["mode", "sample", "moments"]), help="What to keep of a posterior [mode].")
@click.option("--seed", type=int, help="Of the order in the shards, and of draws with --store sample [0].")
@click.option("--batch", type=click.IntRange(1), help="Images in a forward pass [by the network's cost].")
@click.option("--device", default="auto", show_default=True, help="cpu, cuda, cuda:1, or what there is.")
@click.option("--devices", metavar="0,1", help="Several GPUs of this machine.")
@click.option("--precision", type=click.Choice(["float32", "bfloat16", "tf32"]), help="Of the network [float32].")
@click.option("--drop-raw", is_flag=True, help="Remove the raw latents once the shards are verified.")
@click.option("--max-rejected", metavar="1%|N", help="Fail where more images than this cannot be used.")
@click.option("--dry-run", is_flag=True, help="Say what would be done and how long it would take; write nothing.")
@click.option("--images-per-second", type=float, help="With --dry-run: the rate of one worker, instead of a trial.")
@click.option("--shared-path", is_flag=True, help="Workers on other machines see the local paths given here.")
@SCAN_OPTIONS
@VIEW_OPTIONS
@ENGINE_OPTIONS
@JSON
def encode(source: str, dataset: str, **options: Any) -> None:
    """Encode the images of SOURCE into DATASET: raw latents, statistics, normalized shards, verified.

    The same command again goes on where it was stopped, mends what is damaged, or does nothing.

    \b
    Autoencoders:  kl-f4 kl-f8 kl-f16 kl-f32 vq-f4 vq-f4-noattn vq-f8 vq-f8-n256 vq-f16 taesd taesd3 (with --weights),
                   pixels pixels-f2 pixels-f4 pixels-f8 (RGB itself), or a JSON description.
    SOURCE:        a folder, .zip, .tar, pattern of tars, or synthetic:N; see 'lvae scan --help'.
    """
    from lvae.pipeline import job

    request, view = _encode_options(options), _view_options(options, limit=None)
    devices, engine = _devices(options), None
    if options["dry_run"]:
        from lvae.pipeline.rehearsal import rehearse

        workers = options["workers"] or _default_workers(devices)
        rehearsal = rehearse(source, dataset, request, view, workers, options["images_per_second"])
        _print_json(rehearsal.as_dict()) if options["as_json"] else click.echo(str(rehearsal))
        return
    engine = _engine(options, devices)
    _refuse_unshared(engine, options["shared_path"], source, dataset)
    result = job.encode(source, dataset, request, view, engine, options["max_rejected"], options["drop_raw"], devices)
    _print_dataset(dataset, result.manifest, options["as_json"])


def _print_json(value: Any) -> None:
    click.echo(json.dumps(value, indent=1, sort_keys=True))


def _scan_options(options: "dict[str, Any]") -> "ScanOptions":
    from lvae.pipeline.scanning import ScanOptions

    return ScanOptions(options["labels"], options["limit"], options["part_size"])


def _encode_options(options: "dict[str, Any]") -> "EncodeOptions":
    from lvae.pipeline.planning import EncodeOptions

    names = ("autoencoder", "weights", "size", "crop", "mirror", "store", "seed", "batch", "precision", "device")
    return EncodeOptions(**{name: options[name] for name in names}, scan=_scan_options(options))


def _view_options(options: "dict[str, Any]", limit: int | None) -> "ViewOptions":
    from lvae.pipeline.job import ViewOptions

    split = dict(item.partition("=")[::2] for value in options["split"] for item in value.split(","))
    classes = options["only_classes"]
    return ViewOptions(
        normalization=options["normalization"],
        format=options["format_"],
        shard_size=options["shard_size"],
        dtype=options["dtype"],
        seed=options["seed"],
        split=split or None,
        only_classes=tuple(classes.split(",")) if classes else None,
        without_keys=options["without_keys"],
        limit=limit,
    )


def _devices(options: "dict[str, Any]") -> tuple[str, ...]:
    from lvae.encode.encoder import choose_device

    if options["devices"]:
        return tuple(choose_device(f"cuda:{number}") for number in options["devices"].split(","))
    return (choose_device(options["device"]),)


def _default_workers(devices: "Sequence[str]") -> int:
    return len(os.sched_getaffinity(0)) if devices == ("cpu",) else len(devices)


def _engine(options: "dict[str, Any]", devices: "Sequence[str]") -> "Engine":
    from lvae.encode.encoder import keep_memory
    from lvae.pipeline.runners import choose_engine

    return choose_engine(options["beam_options"], options["workers"] or _default_workers(devices), keep_memory())


def _refuse_unshared(engine: "Engine", shared: bool, *paths: str) -> None:
    """Workers on other machines do not see this one's disk."""
    for path in paths:
        if not engine.in_process and not shared and "://" not in path and not path.startswith("synthetic:"):
            raise LvaeError(f"{path}: workers elsewhere may not see this path. Say --shared-path if they do.")


def _print_dataset(dataset: str, manifest: "Manifest", as_json: bool) -> None:
    from lvae.manifests.records import plain

    if as_json:
        _print_json(plain(manifest))
        return
    from lvae.manifests.summary import summary

    click.echo(summary(dataset, manifest))


if __name__ == "__main__":
    sys.exit(main())
