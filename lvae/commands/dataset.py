"""What to do with datasets that are there: merge, stats, inspect, verify, clean, watch."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lvae.actions import engines
from lvae.actions.output import print_json
from lvae.commands import options as shared
from lvae.commands import places
from lvae.commands.encode import print_dataset
from lvae.commands.values import types
from lvae.commands.values.encoding import check_reshaping
from lvae.commands.values.given import refuse_given
from lvae.encode.catalogue import presets
from lvae.manifests.errors import LvaeError, one_line
from lvae.manifests.messages import counted
from lvae.manifests.storage.places import guard as outputs
from lvae.manifests.storage.places.guard import guard_output
from lvae.manifests.storage.places.inputs import check_input

if TYPE_CHECKING:
    from lvae.manifests.errors import Fault
    from lvae.manifests.storage.folder import Folder

BEGUN = click.argument("dataset", type=places.BEGUN_DATASET)


@click.command(short_help="Channel statistics, made anew.", epilog=f"\b\nPresets\n{presets.table()}")
@shared.DATASET
@click.option("--by-class", is_flag=True, help="Also for every class.")
@click.option("--check", is_flag=True, help="Exit with 1 if the manifest says otherwise.")
@click.option("--preset", metavar="NAME", help="Show the paper's constants for this dataset beside them; see below.")
@shared.PATIENCE
@shared.JSON
def stats(dataset: str, by_class: bool, check: bool, preset: str | None, patience: float, as_json: bool) -> None:
    """Regenerate the statistics of DATASET from its latents, beside those of its manifest.

    From the raw latents where they are kept: exact. From the shards otherwise: within the rounding of their dtype.
    """
    from lvae.manifests.verify.recompute import regenerated

    constants = presets.paper_constants(preset) if preset is not None else None
    found = engines.wait_for_store(dataset, patience, lambda: regenerated(dataset))
    comparison = found.beside(str(preset), *constants) if constants is not None else None
    if as_json:
        compared = {"preset": comparison.as_dict()} if comparison is not None else {}
        print_json({**found.as_dict(by_class), **compared})
    else:
        click.echo(found.table(by_class))
        if comparison is not None:
            click.echo(comparison.table())
    if preset is not None:
        made = found.manifest.autoencoder.name
        if made != (wanted := presets.encoding_preset(preset).autoencoder):
            click.echo(f"warning: {dataset} was made with {made}, and preset {preset} has {wanted}", err=True)
    if check:
        found.require_agreement()


@click.command(short_help="What a dataset or a run is.")
@click.argument("inspected", metavar="DATASET_OR_RUN", type=places.DATASET_OR_RUN)
@click.argument("measured", metavar="[DATASET]", required=False, type=places.DATASET)
@click.option(
    "--preview",
    type=click.Path(path_type=Path),
    metavar="FILE.png",
    help="Draw originals beside their reconstructions.",
)
@click.option(
    "--histogram",
    type=click.Path(path_type=Path),
    metavar="FILE.png",
    help="Draw histograms of the channels and classes.",
)
@click.option("--rows", is_flag=True, help="List the latents of a split: row, key, class, mirrored, position.")
@click.option("--class", "class_name", metavar="NAME", help="With --rows: of this class only; none: those without one.")
@click.option(
    "--images", type=types.Whole(1), default=1024, show_default=True, help="How many images a RUN is measured over."
)
@click.option(
    "--split", metavar="NAME", default="train", show_default=True, help="The split to list, or to measure a RUN over."
)
@shared.MODEL_WEIGHTS
@click.option("--seed", type=types.Whole(0), default=0, show_default=True, help="Seed for draws from posteriors.")
@click.option(
    "--device",
    type=click.Choice(["auto", "cpu", "cuda"]),
    default="auto",
    show_default=True,
    help="Where a run's model computes.",
)
@shared.JSON
def inspect(
    inspected: str, measured: str | None, preview: Path | None, histogram: Path | None, as_json: bool, **asked: Any
) -> None:
    """Say what a DATASET is: its images, autoencoder, classes, view and channels.

    With --rows: which image each latent was made from, a line each in the order of the source (with --json an object
    a line), for 'lvae shard --without-keys' or tools of your own.

    Of a RUN: its model, and with a DATASET after it the rate and the active units of every group and channel.
    """
    for figure in (preview, histogram):
        if figure is not None:
            guard_output(figure, outputs.PNG, [inspected])
    rows, wanted = asked.pop("rows"), asked.pop("class_name")
    if wanted is not None and not rows:
        raise LvaeError("--class", "chooses among the lines of --rows", "Give --rows, too.")
    _refuse_unused(inspected, measured, rows)
    if _is_run(inspected):
        from lvae.actions.manipulate import InspectOptions, run_inspect

        if rows:
            raise LvaeError("--rows", "lists a dataset, and this is a run", "Name the dataset.")
        if preview is not None or histogram is not None:
            raise LvaeError(
                "--preview and --histogram", "show datasets", "Of a run, see 'lvae depths' and 'lvae plot'."
            )
        run_inspect(Path(inspected), measured, InspectOptions(as_json=as_json, **asked))
        return
    if measured is not None:
        raise LvaeError(inspected, f"is no run, so there is nothing to measure over {measured}", "Leave one out.")
    from lvae.manifests.dataset import Dataset

    if rows:
        from lvae.actions.rows import print_rows

        print_rows(Dataset.open(inspected, asked["split"]), wanted, as_json)
        return
    opened = Dataset.open(inspected)
    print_dataset(inspected, opened.manifest, as_json)
    if preview is not None:
        from lvae.evaluate.pictures.inspect import describe_untrained, write_preview

        click.echo(f"{preview}: {write_preview(opened, preview):.2f} dB on average", err=True)
        if (remark := describe_untrained(opened)) is not None:
            click.echo(f"warning: {remark}", err=True)
    if histogram is not None:
        from lvae.evaluate.pictures.inspect import write_histogram

        write_histogram(opened, histogram)
        click.echo(f"{histogram}: written", err=True)


def _refuse_unused(inspected: str, measured: str | None, rows: bool) -> None:
    """LvaeError for options that are for measuring a run over a dataset, where none is measured."""
    measuring = "is for measuring a RUN over a DATASET"
    advice = "Write 'lvae inspect RUN DATASET', or leave it out."
    if measured is None or not _is_run(inspected):
        refuse_given(measuring, "images", "weights", "seed", "device", advice=advice)
    if not rows and measured is None:
        refuse_given(f"{measuring}, or for --rows", "split", advice=advice)


def _is_run(path: str) -> bool:
    return "://" not in path and (Path(path) / "config.json").exists() and not (Path(path) / "manifest.json").exists()


@click.command(cls=shared.EngineCommand, short_help="Is everything as it was written?")
@BEGUN
@click.option("--deep", is_flag=True, help="Also checksums, statistics, order and NaN: reads every byte.")
@click.option("--workers", type=types.Whole(1), help="With --deep: share the work among so many processes [1].")
@shared.PATIENCE
@shared.JSON
@click.pass_context
def verify(context: click.Context, /, dataset: str, as_json: bool, **options: Any) -> None:
    """Check DATASET against its manifest; name every fault and the command that mends it.

    With --workers, or Beam's options after --, many processes share the work of --deep. Nothing is written into the
    dataset, with one exception: workers on other machines lock it and leave what they find in its checks/ and .tmp/.
    """
    from lvae.manifests.manifest import unfinished_append
    from lvae.manifests.parts.plan import read_plan_if_whole
    from lvae.manifests.records import plain
    from lvae.manifests.storage.open import folder_at
    from lvae.manifests.verify.verify import mend_command

    deep, patience = options["deep"], options["patience"]
    spread = options["workers"] is not None or bool(options["beam_options"])
    if spread and not deep:
        raise click.UsageError("--workers and Beam's options are for --deep.")
    folder = engines.wait_for_store(dataset, patience, lambda: folder_at(dataset))
    find_faults = _deep_by_workers(dataset, options) if spread else _here(folder, deep)
    faults = engines.wait_for_store(dataset, patience, find_faults)
    mend, adding = mend_command(read_plan_if_whole(folder), folder, faults), unfinished_append(folder)
    if as_json:
        found = {"faults": [plain(fault) for fault in faults], "mend": mend if faults or adding else None}
        print_json({**found, "images_being_added": adding})
    else:
        for fault in faults:
            click.echo(one_line(f"{dataset}/{fault.where}: {fault.problem}"))
        what = "every byte is as it was written" if deep else "files, counts and sizes are right"
        click.echo(f"{counted(len(faults), 'fault')}. To mend: {mend}" if faults else f"{dataset}: {what}")
        if adding and not faults:
            click.echo(f"{counted(adding, 'image')} being added to it. To go on: {mend}")
    context.exit(1 if faults else 0)


def _here(folder: "Folder", deep: bool) -> "Callable[[], list[Fault]]":
    from lvae.manifests.verify.verify import verify as find_faults

    return lambda: find_faults(folder, deep)


def _deep_by_workers(dataset: str, options: dict[str, Any]) -> "Callable[[], list[Fault]]":
    from lvae.manifests.storage.open import folder_at
    from lvae.pipeline.jobs.check import verify_by_workers
    from lvae.pipeline.progress.console import CONSOLE

    engine = engines.choose(options["beam_options"], options["workers"], options["patience"])
    engine = replace(engine, workers=engines.workers_for(engine, ("cpu",)))
    engines.examine(engine, dataset, None)
    return lambda: verify_by_workers(folder_at(dataset), engine, CONSOLE)


@click.command(short_help="Remove unfinished files and old views.")
@BEGUN
@click.option("--raw", is_flag=True, help="Also the raw latents: no other view can be made then.")
@click.option("--dry-run", is_flag=True, help="Only say what would go; works beside a running job.")
@shared.PATIENCE
@shared.JSON
def clean(dataset: str, raw: bool, dry_run: bool, patience: float, as_json: bool) -> None:
    """Remove from DATASET what no longer belongs to it: unfinished files, orphans, old views."""
    from lvae.manifests.publishing.cleaning import clean as remove

    cleaned = engines.wait_for_store(dataset, patience, lambda: remove(dataset, raw, dry_run))
    if as_json:
        print_json(cleaned.as_dict())
    else:
        for name in cleaned.names:
            click.echo(one_line(f"{dataset}/{name}"))
        click.echo(cleaned.sentence(dry_run))


@click.command(short_help="How far a job is that runs elsewhere.")
@BEGUN
@click.option("--once", is_flag=True, help="Say it once and end.")
@shared.JSON
def watch(dataset: str, once: bool, as_json: bool) -> None:
    """Show how far the job is that makes DATASET, wherever it runs, until the dataset is finished.

    A bar on a terminal, a line every 30 s elsewhere. Nothing is written, and no lock is taken: the files that workers
    leave say how far they are.
    """
    from lvae.pipeline.progress import watch as watching
    from lvae.pipeline.progress.console import CONSOLE

    state = watching.look_once(dataset) if once else watching.watch(dataset, CONSOLE)
    if as_json:
        print_json(state.as_dict())
    else:
        click.echo(f"{dataset}: {state}")


@click.command(short_help="Several datasets into one.")
@click.argument("datasets", nargs=-1, required=True, metavar="A B ... OUT", type=click.Path(file_okay=False))
@shared.VIEW
@click.option("--seed", type=types.Whole(), help="Seed for the order in the shards [that of A].")
@click.option("--skip-duplicates", is_flag=True, help="Where a key occurs twice, keep the image of the first dataset.")
@shared.ENGINE
@shared.JSON
def merge(datasets: tuple[str, ...], skip_duplicates: bool, **options: Any) -> None:
    """Join datasets of the same autoencoder, image settings and store into OUT, without encoding anything.

    Classes are united by name. Raw latents are linked where the file system can, else copied; the view is that of A
    where nothing else is said, and what any dataset leaves out by class or key stays out.
    """
    *inputs, out = datasets
    if not inputs:
        raise click.UsageError("Name the datasets, and a new folder last.")
    for dataset in inputs:
        check_input(dataset, places.DATASET.wanted)
    guard_output(out, outputs.DATASET, inputs)
    view = shared.view_options(options, None)
    check_reshaping(inputs, view)
    if len(inputs) == 1:
        click.echo(f"there is one dataset to join: {out} becomes a copy of {inputs[0]}", err=True)
    from lvae.pipeline.jobs import reshard as reshaping

    engine = engines.choose((), options["workers"], options["patience"])
    engine = replace(engine, workers=engines.workers_for(engine, ("cpu",)))
    result = engines.wait_for_storage(
        engine.patience, lambda: reshaping.merge(inputs, out, view, engine, skip_duplicates)
    )
    print_dataset(out, result.manifest, options["as_json"])
    shared.suggest("train", out, "RUN")


COMMANDS = (merge, stats, inspect, verify, clean, watch)
