"""A model looked at from several sides: sweep, neighbours, report."""

from pathlib import Path
from typing import Any

import click

from lvae.commands import options as shared
from lvae.commands import places
from lvae.commands.values import types
from lvae.manifests.errors import LvaeError
from lvae.manifests.storage.places import guard as outputs
from lvae.manifests.storage.places.guard import guard_output
from lvae.train.runs.packaged import refuse_packaged

SEED = click.option("--seed", type=types.Whole(0), default=0, show_default=True, help="Seed for noise and subsets.")


@click.command(short_help="Compare guidance weights and temperatures.", epilog=shared.NETWORKS)
@shared.RUN
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--means", metavar="W,W,...", help="Guidance of prior means, 0 being none [0,0.75,1.5,3].")
@click.option("--variances", metavar="W,W,...", help="Guidance of prior variances [0,1.5,3].")
@click.option("--temperatures", metavar="T,T,...", help="Temperatures of the draws, without guidance [0.9,0.8,0.7].")
@click.option(
    "--output-temperatures",
    metavar="S,S,...",
    help="Values of 'lvae sample --output-temperature', without guidance [none].",
)
@click.option(
    "-n",
    "count",
    type=types.Whole(1),
    help="Samples of each setting and seed [as many as are shown; 1000 with --reference].",
)
@click.option("--pictures", type=types.Whole(1), default=8, show_default=True, help="How many of them are shown.")
@click.option(
    "--repeats", type=types.Whole(1), default=1, show_default=True, help="How many seeds: --seed, --seed + 1, ..."
)
@click.option("--mean-at-1x1", is_flag=True, help="Guide the means at 1x1 as well, which the paper does not.")
@SEED
@shared.LABELS
@shared.MODEL_WEIGHTS
@click.option(
    "--reference",
    type=places.LATENTS_OR_IMAGES,
    metavar="DATASET|IMAGES|NPZ",
    help="Score the samples against this [no scores].",
)
@click.option(
    "--split", metavar="NAME", default="train", show_default=True, help="Split of a DATASET given as reference."
)
@click.option(
    "--num",
    type=types.Whole(20),
    help="Use only so many of the reference, chosen by --seed [10000 latents, all images].",
)
@shared.FEATURES
@shared.MODE
@click.option(
    "--batch", type=types.Whole(1), default=64, show_default=True, help="Samples drawn at a time; changes none of them."
)
@shared.LOW_RESOLUTION
@shared.DEVICE
@shared.PRECISION
@shared.JSON
def sweep(run: Path, out: Path, **asked: Any) -> None:
    """Draw samples of RUN with many guidance weights and temperatures, always from the same noise, into OUT.

    \b
    OUT/sweep.png   the same noise in every column: guided beside unguided
    OUT/scores.png  scores by guidance weight, beside the score of real latents against real ones
    OUT/sweep.json  every number, setting and count
    OUT/samples/    the samples of each setting, for 'lvae decode' and 'lvae score'

    With --reference DATASET scores are computed in latent space; with --features as well, FID and its relatives. The
    same command goes on where it was stopped, and more weights add to what is there.
    """
    guard_output(out, outputs.SWEEP, [run, asked["low_resolution"], asked["reference"]])
    from lvae.commands.values.pictures import check_sweep

    check_sweep(run, asked)
    from lvae.actions.report import SweepOptions, run_sweep
    from lvae.evaluate.analysis.sweep_scoring import ScoringOptions
    from lvae.evaluate.samples.draw import SampleOptions

    sampling = shared.take(SampleOptions, asked, "seed", "labels", "weights", "low_resolution")
    scoring = shared.take(ScoringOptions, asked, "reference", "split", "num", "features", "mode")
    run_sweep(run, out, SweepOptions(sampling, scoring, **asked))


@click.command(short_help="Training images nearest to samples.", epilog=shared.NETWORKS)
@click.argument("place", metavar="RUN_OR_SAMPLES", type=places.RUN_OR_SAMPLES)
@shared.DATASET
@click.argument("out", metavar="OUT.png", type=click.Path(path_type=Path))
@click.option("-n", "count", type=types.Whole(1), default=8, show_default=True, help="How many samples.")
@click.option("-k", type=types.Whole(1, 50), default=6, show_default=True, help="How many neighbours of each.")
@click.option("--indices", metavar="0,5,7-20", help="Which of SAMPLES, by their positions [the first -n].")
@click.option("--split", metavar="NAME", default="train", show_default=True, help="Split of DATASET.")
@click.option("--limit", type=types.Whole(3), help="Search only the first so many latents: a fair sample [all].")
@shared.FEATURES
@shared.MODE
@SEED
@shared.LABELS
@shared.MODEL_WEIGHTS
@click.option("--guidance-mean", metavar="W[,W...]", help="Guidance of a RUN's samples, as for 'lvae sample'.")
@click.option("--guidance-variance", metavar="W[,W...]", help="Likewise.")
@click.option("--guidance", type=click.Choice(["paper"]), help="1.5 and 3, means unguided at 1x1.")
@click.option(
    "--temperature", metavar="T[,T...]", default="1", show_default=True, help="Temperature of a RUN's samples."
)
@shared.DEVICE
@shared.PRECISION
@shared.JSON
def neighbours(place: Path, dataset: str, out: Path, **asked: Any) -> None:
    """Draw samples of RUN (or take SAMPLES) beside the nearest training images of DATASET: are they copies?

    Distances are measured between normalized latents or, with --features, between a network's features of the decoded
    pictures. The number below a training image is its distance from the sample; the line above says how far training
    images are from each other. Originals are shown where the images' source is still there, else reconstructions.
    """
    guard_output(out, outputs.PNG, [place, dataset])
    from lvae.commands.values.pictures import check_neighbours

    check_neighbours(place, dataset, asked)
    from lvae.actions.report import NeighboursOptions, run_neighbours
    from lvae.evaluate.samples.draw import SampleOptions

    guidance = ("guidance_mean", "guidance_variance", "guidance", "temperature")
    sampling = shared.take(SampleOptions, asked, "seed", "labels", "weights", *guidance)
    run_neighbours(place, dataset, out, NeighboursOptions(sampling, **asked))


@click.command(short_help="One HTML page on a run, or on several.")
@click.argument("named", metavar="RUN [RUN...] [OUT.html]", nargs=-1, required=True)
@click.option(
    "--dataset",
    type=places.DATASET,
    metavar="DATASET",
    help="What RUN was trained on: adds neighbours, originals and scores.",
)
@click.option(
    "-n", "count", type=types.Whole(10), default=256, show_default=True, help="Samples of each setting and seed."
)
@click.option(
    "--repeats", type=types.Whole(1), default=3, show_default=True, help="How many seeds: --seed, --seed + 1, ..."
)
@SEED
@click.option(
    "--scores",
    multiple=True,
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE.json",
    help="What 'lvae score --json' printed, FID for instance; repeatable.",
)
@click.option("--weights", metavar="FILE", help="Weights of the autoencoder [those in RUN].")
@click.option(
    "--batch", type=types.Whole(1), default=64, show_default=True, help="Samples drawn at a time; changes none of them."
)
@shared.DEVICE
@shared.PRECISION
@click.pass_context
def report(context: click.Context, /, named: tuple[str, ...], device: str, precision: Any, **asked: Any) -> None:
    """Write one HTML page on RUN, to OUT.html [RUN/report.html], which needs no network and no file beside it.

    It shows what was trained on what, the curves, samples, guidance and temperature, nearest training images,
    reconstructions, scores, speed and checksums, each picture with the command that makes it. What takes long is kept
    in RUN/report/, so that the next report of the same checkpoint is quick.

    Several runs are shown beside each other on one page, OUT.html [comparison.html in the first RUN].
    """
    *words, last = named
    out = Path(last) if words and not Path(last).is_dir() and Path(last).suffix else None
    runs: list[Path] = [places.RUN.convert(word, None, context) for word in (named if out is None else words)]
    for run in runs:
        refuse_packaged(run)
    _refuse_twice(runs)
    target = out or runs[0] / ("report.html" if len(runs) == 1 else "comparison.html")
    guard_output(target, outputs.HTML, [*runs, asked["dataset"]])
    from lvae.actions.report import run_comparison, run_report
    from lvae.evaluate.report.inputs import ReportOptions

    if len(runs) == 1:
        run_report(runs[0], target, ReportOptions(**asked), device, precision)
    else:
        run_comparison(runs, target, ReportOptions(**asked), device, precision)


def _refuse_twice(runs: list[Path]) -> None:
    """LvaeError where a run stands twice: nothing is to be compared."""
    places_seen = set[Path]()
    for run in runs:
        if run.resolve() in places_seen:
            raise LvaeError(run, "is named twice", "Name each run once, and a page OUT.html last.")
        places_seen.add(run.resolve())


COMMANDS = (sweep, neighbours, report)
