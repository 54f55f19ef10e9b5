"""Section 5 of the paper as commands: traverse, interpolate, outpaint, and what each resolution decides."""

from pathlib import Path
from typing import Any

import click

from lvae.commands import options as shared
from lvae.commands.values import types
from lvae.commands.values.given import refuse_given
from lvae.manifests.storage.places import guard as outputs
from lvae.manifests.storage.places.guard import guard_output


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
        "--arrays", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE.npz", help="Also write the arrays."
    ),
    click.option("--split", default="train", show_default=True, help="Split of DATASET."),
    shared.MODEL_WEIGHTS,
    click.option("--decoder", metavar="FILE", help="Weights of the autoencoder [those that RUN carries]."),
    click.option(
        "--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True, help="To compute on."
    ),
)
INDICES = click.option("--indices", metavar="0,5,7-20", help="Which images of DATASET [the first four].")
LABEL = click.option("--label", metavar="N|NAME|none", help="Class of image files, or of what is drawn [none].")
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
@click.option("--channels", metavar="G:C,G:C", help="Group and channel across, and down [the most informative ones].")
@click.option("--steps", type=types.Whole(2, 32), default=7, show_default=True, help="From -2.25 to 2.25.")
@click.option("--values", metavar="V,V,...", help="The values themselves.")
@click.option("--index", type=types.Whole(0), default=0, show_default=True, help="Which sample of the seed.")
@click.option("--temperature", type=types.Number(0), default=1.0, show_default=True, help="Temperature of all draws.")
@IMAGES
@LABEL
@shared.GUIDANCE
@INDICES
@COMMON
def traverse(run: Path, sources: tuple[str, ...], out: Path, **asked: Any) -> None:
    """Two channels of a sample's noise swept linearly, all other noise fixed, as a grid (figure 4 of the paper).

    lvae traverse RUN DATASET OUT.png takes the most informative channel of each of the first two groups, by the KL
    measured over DATASET. Groups count from 0 in the order they are drawn, lowest resolution first.
    """
    _guard(run, sources, out, asked)
    from lvae.commands.values.pictures import check_traversal

    check_traversal(run, sources, asked)
    from lvae.actions.manipulate import TraverseOptions, run_traverse

    run_traverse(run, sources, out, TraverseOptions(**asked))


@click.command(short_help="From one image to another.")
@shared.RUN
@SOURCES
@OUT
@click.option("--steps", type=types.Whole(1, 64), default=3, show_default=True, help="Pictures between.")
@click.option(
    "--pairs",
    type=click.Choice(["chain", "all"]),
    default="chain",
    show_default=True,
    help="Each image with the next, or every two.",
)
@click.option(
    "--space",
    type=click.Choice(["auto", "z", "noise"]),
    default="auto",
    show_default=True,
    help="Mix z, or its standardized noise; auto: z under N(0, I), noise under a hierarchical prior.",
)
@click.option(
    "--path",
    type=click.Choice(["linear", "spherical"]),
    default="linear",
    show_default=True,
    help="The straight line, or the arc that keeps to the norms.",
)
@POSTERIOR
@LABEL
@INDICES
@COMMON
def interpolate(run: Path, sources: tuple[str, ...], out: Path, **asked: Any) -> None:
    """Interpolate between real images, of a DATASET or image FILES that are encoded on the spot (figure 5).

    The ends are the reconstructions. Between images of two classes, the label is that of the nearer one.
    """
    _guard(run, sources, out, asked)
    from lvae.commands.values.pictures import check_images

    check_images(run, sources, asked, least=2)
    from lvae.actions.manipulate import InterpolateOptions, run_interpolate

    run_interpolate(run, sources, out, InterpolateOptions(**asked))


@click.command(short_help="Images beyond their frame.")
@shared.RUN
@SOURCES
@OUT
@click.option("--left", type=types.Whole(0), help="Columns of latents to add.")
@click.option("--right", type=types.Whole(0), help="Likewise [as many as there are, if no side is named].")
@click.option("--top", type=types.Whole(0), help="Rows of latents to add.")
@click.option("--bottom", type=types.Whole(0), help="Likewise.")
@click.option("--draws", type=types.Whole(1), default=2, show_default=True, help="Ways in which an image goes on.")
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
    from lvae.commands.values.pictures import check_images

    check_images(run, sources, asked)
    from lvae.actions.manipulate import OutpaintOptions, run_outpaint

    run_outpaint(run, sources, out, OutpaintOptions(**asked))


@click.command(short_help="What each resolution decides.")
@shared.RUN
@SOURCES
@OUT
@click.option("--every-group", is_flag=True, help="A picture a group, not only a resolution.")
@click.option(
    "--nats",
    type=Picture(path_type=Path),
    metavar="FILE.png",
    help="Also a chart of nats by resolution.",
)
@click.option(
    "--beside", nargs=2, multiple=True, metavar="RUN DATASET", help="Another model in that chart, over its dataset."
)
@IMAGES
@POSTERIOR
@LABEL
@shared.GUIDANCE
@INDICES
@COMMON
def depths(run: Path, sources: tuple[str, ...], out: Path, **asked: Any) -> None:
    """Reconstruct images with their first k groups given and the others drawn: a picture for every k.

    --nats draws the rate by resolution, for several models beside one another with --beside.
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


COMMANDS = (traverse, interpolate, outpaint, depths)
