"""Section 5 of the paper as commands: traverse, interpolate, outpaint, and what each resolution decides."""

from pathlib import Path
from typing import Any

import click

from lvae.commands import options as shared
from lvae.commands import places
from lvae.commands.values import types
from lvae.commands.values.given import refuse_given
from lvae.manifests.storage.places import guard as outputs
from lvae.manifests.storage.places.guard import guard_output
from lvae.train.runs.packaged import refuse_packaged


class Picture(click.Path):
    """OUT.png, the last argument: a forgotten one is noticed before anything is computed."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not str(value).lower().endswith(".png"):
            self.fail(f"{value} does not end in .png: name the picture to write as the last argument.", param, ctx)
        return super().convert(value, param, ctx)


SOURCES = click.argument("sources", nargs=-1, metavar="DATASET|IMAGES...")
OUT = click.argument("out", metavar="OUT.png", type=Picture(path_type=Path))
COMMON = shared.several(
    click.option("--seed", type=types.Whole(0), default=0, show_default=True, help="Seed for all random draws."),
    click.option(
        "--arrays",
        type=click.Path(dir_okay=False, path_type=Path),
        metavar="FILE.npz",
        help="Also write the latents and pictures as arrays.",
    ),
    click.option(
        "--split", metavar="NAME", default="train", show_default=True, help="Split of DATASET to take images from."
    ),
    shared.MODEL_WEIGHTS,
    click.option("--decoder", metavar="FILE", help="Weights of the autoencoder [those that RUN carries]."),
    click.option(
        "--device",
        type=click.Choice(["auto", "cpu", "cuda"]),
        default="auto",
        show_default=True,
        help="Where to compute.",
    ),
)
BEGINNING = click.option("--indices", metavar="N", help="Which image of DATASET an upsampler begins with [the first].")
INDICES = click.option("--indices", metavar="0,5,7-20", help="Which images of DATASET [the first four].")
DRAWN_LABEL = click.option("--label", metavar="N|NAME|none", help="Class of the sample, of a conditional model [none].")
LABEL = click.option("--label", metavar="N|NAME|none", help="Class of the image files, of a conditional model [none].")
POSTERIOR = click.option(
    "--posterior",
    type=click.Choice(["draw", "mean"]),
    default="draw",
    show_default=True,
    help="What stands for an image: a draw from its posteriors, or their means.",
)
IMAGES = click.option(
    "--images", type=types.Whole(1), default=256, show_default=True, help="Images of DATASET to measure rates over."
)


@click.command(short_help="Sweep two channels of a sample's noise.")
@shared.RUN
@SOURCES
@OUT
@click.option(
    "--channels",
    metavar="G:C,G:C",
    help="Group and channel to sweep across, and down, like 0:3,1:5 [the most informative ones].",
)
@click.option(
    "--steps", type=types.Whole(2, 32), default=7, show_default=True, help="How many values, from -2.25 to 2.25."
)
@click.option("--values", metavar="V,V,...", help="The values themselves, instead.")
@click.option("--index", type=types.Whole(0), default=0, show_default=True, help="Which sample of --seed.")
@click.option("--temperature", type=types.Number(0), default=1.0, show_default=True, help="Temperature of all draws.")
@IMAGES
@DRAWN_LABEL
@shared.GUIDANCE
@BEGINNING
@COMMON
def traverse(run: Path, sources: tuple[str, ...], out: Path, **asked: Any) -> None:
    """Sweep two channels of one sample's noise and keep all else: a grid of pictures (figure 4 of the paper).

    \b
    lvae traverse RUN DATASET OUT.png               sweeps the channels that say most about the images of DATASET, one
                                                    in each of the first two groups
    lvae traverse RUN OUT.png --channels 0:3,1:5    sweeps channel 3 of group 0 across and channel 5 of group 1 down
    Groups count from 0 in the order in which they are drawn, lowest resolution first. An upsampler needs the image it
    begins with, from DATASET or a file.
    """
    _guard(run, sources, out, asked)
    from lvae.commands.values.pictures import check_traversal

    check_traversal(run, sources, asked)
    from lvae.actions.manipulate import TraverseOptions, run_traverse

    run_traverse(run, sources, out, TraverseOptions(**asked))


@click.command(short_help="Pictures between real images.")
@shared.RUN
@SOURCES
@OUT
@click.option("--steps", type=types.Whole(1, 64), default=3, show_default=True, help="Pictures between two images.")
@click.option(
    "--pairs",
    type=click.Choice(["chain", "all"]),
    default="chain",
    show_default=True,
    help="Join each image with the next, or every two.",
)
@click.option(
    "--space",
    type=click.Choice(["auto", "z", "noise"]),
    default="auto",
    show_default=True,
    help="What is mixed: the variables z, or the noise behind them; auto: z under N(0, I), noise under a "
    "hierarchical prior.",
)
@click.option(
    "--path",
    type=click.Choice(["linear", "spherical"]),
    default="linear",
    show_default=True,
    help="Along the straight line, or along the arc that keeps the norm.",
)
@POSTERIOR
@LABEL
@INDICES
@COMMON
def interpolate(run: Path, sources: tuple[str, ...], out: Path, **asked: Any) -> None:
    """Interpolate between real images: those of a DATASET, or image files, which are encoded here (figure 5).

    The ends are the reconstructions. Between images of two classes, the label is that of the nearer one.
    """
    _guard(run, sources, out, asked)
    from lvae.commands.values.pictures import check_images

    check_images(run, sources, asked, least=2)
    from lvae.actions.manipulate import InterpolateOptions, run_interpolate

    run_interpolate(run, sources, out, InterpolateOptions(**asked))


@click.command(short_help="Continue images beyond their frame.")
@shared.RUN
@SOURCES
@OUT
@click.option("--left", type=types.Whole(0), help="Columns of latents to add on the left.")
@click.option("--right", type=types.Whole(0), help="On the right [as many as the image has, if no side is named].")
@click.option("--top", type=types.Whole(0), help="Rows of latents to add above.")
@click.option("--bottom", type=types.Whole(0), help="Below.")
@click.option(
    "--draws", type=types.Whole(1), default=2, show_default=True, help="How many continuations of each image."
)
@POSTERIOR
@LABEL
@shared.GUIDANCE
@INDICES
@COMMON
def outpaint(run: Path, sources: tuple[str, ...], out: Path, **asked: Any) -> None:
    """Generate what lies beyond the frame of images, on any side, in one pass (figure 6).

    Inside the frame the groups come from the posterior, outside of it from the prior; groups of 1x1 are the image's.
    A column of latents is as many pixels wide as the autoencoder's downsampling factor.
    """
    _guard(run, sources, out, asked)
    sides = [asked[side] for side in ("left", "right", "top", "bottom")]
    if not any(sides):
        refuse_given("nothing is to be added", "left", "right", "top", "bottom", advice="Name a side with 1 or more.")
    from lvae.commands.values.pictures import check_images

    check_images(run, sources, asked)
    from lvae.actions.manipulate import OutpaintOptions, run_outpaint

    run_outpaint(run, sources, out, OutpaintOptions(**asked))


@click.command(short_help="What each resolution decides.")
@shared.RUN
@SOURCES
@OUT
@click.option("--every-group", is_flag=True, help="A picture for every group, not for every resolution.")
@click.option(
    "--nats",
    type=Picture(path_type=Path),
    metavar="FILE.png",
    help="Also draw a chart of the rate, in nats, by resolution; needs a DATASET.",
)
@click.option(
    "--beside",
    nargs=2,
    multiple=True,
    metavar="RUN DATASET",
    help="Add another model, measured over its dataset, to that chart; repeatable.",
)
@IMAGES
@POSTERIOR
@LABEL
@shared.GUIDANCE
@INDICES
@COMMON
def depths(run: Path, sources: tuple[str, ...], out: Path, **asked: Any) -> None:
    """Show what each resolution decides: images reconstructed from their first k groups, the others being drawn anew.

    There is a picture for every k, from nothing of the image to all of it.
    """
    _guard(run, sources, out, asked)
    from lvae.commands.values.pictures import check_images

    check_images(run, sources, asked)
    if asked["nats"] is None:
        refuse_given("adds a model to the chart of --nats", "beside", advice="Give --nats FILE.png, or leave it out.")
    else:
        guard_output(asked["nats"], outputs.PNG, [run, *sources])
    from lvae.actions.manipulate import DepthsOptions, run_depths

    run_depths(run, sources, out, DepthsOptions(**asked))


def _guard(run: Path, sources: tuple[str, ...], out: Path, asked: dict[str, Any]) -> None:
    guard_output(out, outputs.PNG, [run, *sources])
    if asked["arrays"] is not None:
        guard_output(asked["arrays"], outputs.NPZ, [run, *sources])


@click.command(short_help="Measure what a model leaves out.")
@shared.RUN
@click.argument("dataset", metavar="DATASET", type=places.DATASET)
@click.option("-n", "count", type=types.Whole(1), default=4096, show_default=True, help="Latents to measure over.")
@click.option("--split", metavar="NAME", default="train", show_default=True, help="Split of DATASET to take them from.")
@click.option("--step", default="last", show_default=True, metavar="N|best|last", help="Which checkpoint to measure.")
@click.option("--seed", type=types.Whole(0), default=0, show_default=True, help="Seed for draws from posteriors.")
@shared.MODEL_WEIGHTS
@click.option(
    "--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True, help="Where to compute."
)
def residuals(run: Path, dataset: str, **asked: Any) -> None:
    """Measure how what the model of RUN leaves out of the latents of DATASET hangs together, and keep it in RUN.

    'lvae sample --output-noise correlated' then draws such noise: textures in place of grain.
    """
    refuse_packaged(run)
    from lvae.commands.values.model import check_step

    check_step(run, asked["step"])
    from lvae.actions.manipulate import ResidualsOptions, run_residuals

    run_residuals(run, dataset, ResidualsOptions(**asked))
    shared.suggest("sample", run, "SAMPLES", "-n", 64, "--output-temperature", 0.5, "--output-noise", "correlated")


COMMANDS = (residuals, traverse, interpolate, outpaint, depths)
