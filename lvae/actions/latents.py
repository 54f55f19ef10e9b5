"""What `lvae latents` does, and prints."""

from dataclasses import replace
from pathlib import Path

import click

from lvae.actions import engines
from lvae.actions.output import print_json, summary
from lvae.manifests.dataset import Dataset
from lvae.manifests.messages import counted
from lvae.manifests.records import plain
from lvae.pipeline.engines.patience import DEFAULT_SECONDS
from lvae.pipeline.exchange.export import ExportOptions, describe_for_edm2, export
from lvae.pipeline.jobs.import_latents import ImportRequest, import_latents
from lvae.pipeline.progress.console import CONSOLE, Bar, say


def run_import(request: ImportRequest, workers: int | None, as_json: bool) -> None:
    engine = engines.choose((), workers, DEFAULT_SECONDS)
    engine = replace(engine, workers=engines.workers_for(engine, ("cpu",)))
    result = engines.wait_for_storage(engine.patience, lambda: import_latents(request, engine, CONSOLE))
    if as_json:
        print_json(plain(result.manifest))
    else:
        click.echo(summary(request.dataset, result.manifest))


def run_export(dataset: str, out: Path, options: ExportOptions, as_json: bool) -> None:
    opened = Dataset.open(dataset, options.split)
    images = len(opened) // opened.manifest.image.orientations
    with Bar("exporting", images, "images") as bar:
        record = export(opened, out, options, say, bar.advance)
    if record is None:
        say(f"{out}: is there already, and whole; there is nothing to do")
        return
    if as_json:
        print_json(plain(record))
        return
    flips = " and their flips" if record.orientations == 2 else ""
    what = f"{counted(record.count, 'row')}{flips} of the split {options.split}"
    click.echo(f"{out}: {what} in the layout of {record.layout}, {record.dtype}")
    if record.layout == "edm2":
        click.echo(describe_for_edm2(record))
