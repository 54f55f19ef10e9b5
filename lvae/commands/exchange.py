"""Published checkpoints in, models of ours out."""

from pathlib import Path
from typing import Any

import click

from lvae.commands import options as shared
from lvae.commands import places
from lvae.commands.values import types
from lvae.commands.values.given import note_given, refuse_given
from lvae.manifests.errors import LvaeError
from lvae.manifests.storage.places import guard as outputs
from lvae.manifests.storage.places.guard import guard_output


@click.command("import", short_help="A published checkpoint as a run.")
@click.argument("published", type=places.PUBLISHED)
@click.argument("run", type=click.Path(path_type=Path))
@click.option(
    "--preset", metavar="NAME", help="The preset whose architecture, shift and scale it has [found by the shapes]."
)
@click.option(
    "--config", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE.json", help="The architecture, as JSON."
)
@click.option("--autoencoder", metavar="NAME|JSON", help="Its autoencoder [the file's, or the preset's].")
@click.option("--weights", metavar="FILE", help="Weights of the autoencoder [the file's, or those fetched].")
@click.option(
    "--shift", type=types.Number(), help="Of the normalization, (raw latents - shift) / scale [the preset's]."
)
@click.option("--scale", type=types.Number(), help="Likewise [the preset's].")
@click.option("--size", type=types.Whole(1), help="Size of the pictures in pixels [latents times the factor].")
@click.option(
    "--check", is_flag=True, help="Then check that the model behaves as it should, and say what the paper's scores."
)
@click.option("--against", type=places.DATASET, metavar="DATASET", help="With --check: also reconstruct these latents.")
@click.option(
    "--device",
    type=click.Choice(["auto", "cpu", "cuda"]),
    default="auto",
    show_default=True,
    help="Where --check computes.",
)
def import_(published: Path, run: Path, check: bool, against: str | None, device: str, **asked: Any) -> None:
    """Make RUN from a PUBLISHED checkpoint of the paper, or from what 'lvae export' wrote.

    Torch pipeline files (autoencoder and VAE in one), state dicts of the VAE alone, .safetensors, Flax checkpoints
    (msgpack) and pickles of their states. Nothing in a file is ever run. Averaged weights (EMA) are preferred, and it
    is said which were taken. The layouts are known from the published code; the files themselves were not at hand.
    """
    guard_output(run, outputs.RUN, [published, asked["config"], asked["weights"], against])
    if not check:
        refuse_given("is for --check", "against", advice="Give --check, or leave it out.")
        note_given("is for --check", "device")
    for name in ("config", "weights"):
        if asked[name] is not None and not Path(asked[name]).exists():
            raise LvaeError(f"--{name} {asked[name]}", "no such file")
    from lvae.actions.import_run import ImportOptions, run_import

    run_import(published, run, ImportOptions(**asked), check, against, device)
    shared.suggest("sample", run, "SAMPLES", "-n", 64)


@click.command(short_help="A run's model as files for others.")
@shared.RUN
@click.argument("out", type=click.Path(path_type=Path))
@click.option(
    "--layout",
    type=click.Choice(["lvae", "published"]),
    help="safetensors and JSON in a folder, or the published torch layout [by OUT: .pt is the published one].",
)
@shared.MODEL_WEIGHTS
def export(run: Path, out: Path, layout: Any, weights: Any) -> None:
    """Write the model of RUN to OUT, with its autoencoder. 'lvae import' reads both layouts back, bit for bit."""
    by_name = "published" if out.suffix == ".pt" else "lvae"
    guard_output(out, outputs.TORCH if (layout or by_name) == "published" else outputs.EXPORT, [run])
    from lvae.actions.export_run import run_export

    run_export(run, out, layout, weights)


COMMANDS = (import_, export)
