"""What `lvae latents` does, and prints."""

from dataclasses import replace

import click

from lvae.actions import engines
from lvae.actions.output import print_json, summary
from lvae.manifests.records import plain
from lvae.pipeline.engines.patience import DEFAULT_SECONDS
from lvae.pipeline.jobs.import_latents import ImportRequest, import_latents
from lvae.pipeline.progress.console import CONSOLE


def run_import(request: ImportRequest, workers: int | None, as_json: bool) -> None:
    engine = engines.choose((), workers, DEFAULT_SECONDS)
    engine = replace(engine, workers=engines.workers_for(engine, ("cpu",)))
    result = engines.wait_for_storage(engine, lambda: import_latents(request, engine, CONSOLE))
    if as_json:
        print_json(plain(result.manifest))
    else:
        click.echo(summary(request.dataset, result.manifest))
