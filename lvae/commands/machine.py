"""Trying things out: scenes, demo, doctor."""

from pathlib import Path

import click

from lvae.actions.output import print_json
from lvae.commands import options as shared
from lvae.commands.values import types
from lvae.manifests.messages import counted
from lvae.manifests.storage.places import guard as outputs
from lvae.manifests.storage.places.guard import guard_output


@click.command(short_help="Draw a small world of labelled pictures.")
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--count", type=types.Whole(1), help="Pictures [2000; as many as OUT has, where it is one already].")
@click.option("--size", type=types.Whole(8, 1024), default=64, show_default=True, help="Side in pixels.")
@click.option(
    "--seed",
    type=types.Whole(),
    default=0,
    show_default=True,
    help="Seed of the world: picture i depends on it and on i alone.",
)
@click.option("--night", type=types.Number(0, 1), default=0, show_default=True, help="Share of dark pictures.")
def scenes(out: Path, count: int | None, size: int, seed: int, night: float) -> None:
    """Draw a small world into OUT: labelled little pictures in class folders, to try everything without a download.

    The same command goes on where it was stopped; a larger --count adds pictures to those that are there.
    """
    from lvae.encode.scenes.drawing import CLASSES

    classes = "|".join(CLASSES)
    world = outputs.FolderOutput("scenes", frozenset(), rf"({classes})/(\d{{7}}\.(png|unfinished))?")
    guard_output(out, world)
    from lvae.encode.scenes.make import count_scenes, write_scenes
    from lvae.pipeline.progress.console import Bar

    before = count_scenes(out)
    count = count or before or 2000
    with Bar("drawing", count, "pictures") as bar:
        write_scenes(out, count, size, seed, bar.advance, night)
    added = f", {count - before} of them new" if 0 < before < count else ""
    click.echo(f"{out}: {counted(count, 'picture')} of {size} px{added}")
    shared.suggest("encode", out, "DATASET", "--size", size)


@click.command(short_help="Everything in one go, on a small scale.")
@click.argument("out", type=click.Path(path_type=Path), default=Path("demo"))
@click.option(
    "--images", type=click.Path(path_type=Path), metavar="DIR", help="A folder of your images, instead of drawn ones."
)
@click.option(
    "--minutes",
    type=types.Number(0, min_open=True),
    default=8.0,
    show_default=True,
    help="About so many minutes in all, on two cores: at most 400 updates of training for each.",
)
@click.option("--workers", type=types.Whole(1), help="Worker processes [one a core].")
@click.pass_context
def demo(context: click.Context, out: Path, images: Path | None, minutes: float, workers: int | None) -> None:
    """Run the whole system on a small scale, in OUT [demo]: from pictures to a report on a model of their latents.

    Each step is an lvae command, which is shown. The same command goes on where it was stopped.
    """
    guard_output(out, outputs.DEMO, [images])
    from lvae.actions.demo import run

    run(context.find_root().command, out, images, workers, minutes)


@click.command(short_help="A verdict on this machine.")
@shared.JSON
def doctor(as_json: bool) -> None:
    """Look at this machine: versions, devices, runners, optional parts, free space, speed; a verdict on each."""
    from lvae.actions.doctor import diagnose, table

    findings = diagnose()
    if as_json:
        print_json([finding.as_dict() for finding in findings])
    else:
        click.echo(table(findings))
    if any(finding.verdict == "BAD" for finding in findings):
        raise click.exceptions.Exit(1)


COMMANDS = (scenes, demo, doctor)
