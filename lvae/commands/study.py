"""The paper's comparisons at the size of one machine."""

from pathlib import Path
from typing import Any

import click

from lvae.commands import options as shared
from lvae.commands import places
from lvae.commands.values import types
from lvae.manifests.storage.places import guard as outputs
from lvae.manifests.storage.places.guard import guard_output

TABLE = click.Choice(["table1", "table2", "table3", "table4", "ablations"])


@click.command(short_help="The paper's comparisons, on your images.", epilog=shared.NETWORKS)
@click.argument("table", type=TABLE, metavar="TABLE")
@click.argument("images", type=places.SOURCE)
@click.argument("out", type=click.Path(file_okay=False, path_type=Path))
@click.option(
    "--minutes",
    type=types.Number(0, min_open=True),
    default=60.0,
    show_default=True,
    help="Minutes of training, of all models and seeds together, on one thread; encoding, sampling and scoring come "
    "on top.",
)
@click.option("--size", type=types.Whole(32), default=64, show_default=True, help="Side of the pictures in pixels.")
@click.option(
    "--features",
    type=click.Path(dir_okay=False, path_type=Path),
    default=Path("efficientnet-lite0"),
    show_default=True,
    metavar=shared.NETWORK,
    help="The feature network that scores; see below.",
)
@click.option(
    "--seeds", type=types.Whole(1), default=3, show_default=True, help="How many seeds, of training and of sampling."
)
@click.option(
    "-n",
    "count",
    type=types.Whole(20),
    default=1000,
    show_default=True,
    help="Samples of each model and seed that are scored.",
)
@click.option(
    "--autoencoder",
    metavar="NAME|JSON",
    help="Of the latents, but in table2: a published one, or a JSON description [default].",
)
@click.option("--weights", metavar="FILE", help="Its weights, as for 'lvae encode'.")
@click.pass_context
def study(context: click.Context, /, table: str, images: str, out: Path, **asked: Any) -> None:
    """Repeat a comparison of the paper on IMAGES. OUT gets table.md, table.json and page.html.

    \b
    table1     a model of latents, one of pixels, and a small model with an upsampler behind it: another model, or the
               decoder of an autoencoder
    table2     autoencoders of f = 2, 4, 8 and 16, fitted on the same pictures
    table3     samples with guidance (weights chosen on other seeds and pictures), without it, class Gaussians,
               reconstructions
    table4     seconds for 1,000 pictures: one pass, 50 steps of a denoiser of equal cost, decoding
    ablations  attention, prior, rates, penalty and its vectors changed one at a time

    A tenth of the images is set aside, and scores compare with it. All models train for the same time and, for a second
    table, for the same number of updates. Every ordering of the paper gets a verdict: holds, does not hold, or within
    the spread of seeds. The study runs other lvae commands and shows them; the same command goes on where it stopped.

    The default autoencoder knows photographs. For other pictures give --autoencoder and --weights of one that was
    fitted ('lvae autoencoder fit') on more of their kind: what it loses no model of its latents can bring back.
    """
    guard_output(out, outputs.STUDY, [images])
    from lvae.commands.values.encoding import check_latents_of_study
    from lvae.commands.values.pictures import check_features

    check_features(asked["features"])
    check_latents_of_study(table, asked)
    from lvae.actions.study.run import StudyOptions, run

    run(context.find_root().command, table, images, out, StudyOptions(**asked))


COMMANDS = (study,)
