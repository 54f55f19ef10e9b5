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


@click.command(short_help="The paper's tables, at the size of a machine.")
@click.argument("table", type=TABLE)
@click.argument("images", type=places.SOURCE)
@click.argument("out", type=click.Path(file_okay=False, path_type=Path))
@click.option(
    "--minutes",
    type=types.Number(0, min_open=True),
    default=60.0,
    show_default=True,
    help="Of training, of all arms and seeds together, on one thread; encoding, drawing and scoring come on top.",
)
@click.option("--size", type=types.Whole(32), default=64, show_default=True, help="Of the pictures, in pixels.")
@click.option(
    "--features",
    type=click.Path(dir_okay=False, path_type=Path),
    default=Path("efficientnet-lite0"),
    show_default=True,
    metavar=shared.NETWORK,
    help="The feature network that scores.",
)
@click.option("--seeds", type=types.Whole(1), default=3, show_default=True, help="Of training and of drawing.")
@click.option("-n", "count", type=types.Whole(20), default=1000, show_default=True, help="Pictures of an arm and seed.")
@click.pass_context
def study(context: click.Context, /, table: str, images: str, out: Path, **asked: Any) -> None:
    """Repeat a comparison of the paper on IMAGES, into OUT: OUT/table.md, table.json and page.html.

    \b
    table1     models of latents, of pixels, and a stack of a small model and an upsampler
    table2     autoencoders of f = 2, 4, 8 and 16, fitted on the same pictures
    table3     guided (weights chosen on other seeds and pictures), unguided, class Gaussians, reconstructions
    table4     seconds for 1,000 pictures: one pass, 50 steps of a denoiser of equal cost, decoding
    ablations  attention, prior, rates and penalty changed one at a time

    A tenth of the pictures is set aside, and figures compare with it. Every arm trains for equal time and, as a second
    reading, for equal updates. Each ordering gets a verdict: holds, does not hold, within the spread of seeds. It is a
    chain of our own commands, which are shown; the same command goes on where it was stopped, to the same table.
    """
    guard_output(out, outputs.STUDY, [images])
    from lvae.commands.values.pictures import check_features

    check_features(asked["features"])
    from lvae.actions.study.run import StudyOptions, run

    run(context.find_root().command, table, images, out, StudyOptions(**asked))


COMMANDS = (study,)
