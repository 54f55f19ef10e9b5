"""A page on which a picture follows the hand."""

from pathlib import Path
from typing import Any

import click

from lvae.commands import options as shared
from lvae.commands.places import DATASET, RUN, usage_of
from lvae.commands.values import types
from lvae.commands.values.given import note_given, refuse_given
from lvae.manifests.storage.places import guard as outputs
from lvae.manifests.storage.places.guard import guard_output
from lvae.manifests.storage.places.inputs import check_input
from lvae.train.runs.packaged import resolve_run

VIEW = ("label", "seed", "guidance_mean", "guidance_variance", "left", "right", "share", "redraw", "move")


@click.command(short_help="A page on which a picture follows the hand.")
@click.argument("run", required=False)
@click.option("--dataset", metavar="DATASET", help="Whose images can be taken; their rates choose the sliders.")
@click.option(
    "--host",
    metavar="ADDRESS",
    default="127.0.0.1",
    show_default=True,
    help="The address to listen on; 0.0.0.0 lets other machines in.",
)
@click.option("--port", type=types.Whole(0, 65535), default=0, help="0 takes a free one.  [default: 0]")
@click.option("--browser/--no-browser", default=True, help="Open the page in your browser.  [default: browser]")
@shared.MODEL_WEIGHTS
@click.option("--decoder", metavar="FILE", help="The autoencoder's weights, where RUN does not carry them.")
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", help="Where it computes [auto].")
@click.option(
    "--picture", type=click.Path(dir_okay=False, path_type=Path), help="Write one picture instead of serving."
)
@click.option(
    "--from", "from_", metavar="WHAT", default="sample:0", help="Of --picture: sample:SEED, index:N or a file."
)
@click.option("--to", metavar="WHAT", help="Of --picture: what to go towards.")
@click.option("--share", type=types.Number(0, 1), default=0.0, help="Of the way towards --to.")
@click.option("--redraw", metavar="R,R", default="", help="Of --picture: resolutions drawn anew by --seed.")
@click.option("--move", multiple=True, metavar="GROUP:CHANNEL=VALUE", help="Of --picture: a slider, in deviations.")
@click.option("--seed", type=types.Whole(0), default=0, help="Of --picture: of what is drawn anew.")
@click.option("--label", type=types.Whole(), default=-1, help="Of --picture: the class by its number.")
@click.option("--guidance-mean", type=types.Number(), default=0.0, help="Of --picture; 0 is off.")
@click.option("--guidance-variance", type=types.Number(), default=0.0, help="Likewise.")
@click.option("--left", type=types.Whole(0), default=0, help="Of --picture: columns of latents beyond the frame.")
@click.option("--right", type=types.Whole(0), default=0, help="Likewise.")
def explore(run: str | None, **options: Any) -> None:
    """Serve a page of RUN on this machine: sliders move channels of a sample or an image, and the picture follows.

    Drop in an image, take one of --dataset, or a sample. Keep or redraw resolutions, go from one picture to another,
    beyond the frame, choose class and guidance; save the picture, or copy the command that makes the same one
    ('lvae explore RUN --picture FILE.png ...'). Without RUN the model in the package is taken.

    Only this machine can reach the page, unless --host lets others in; its address has a token in it, and whoever knows
    it can use the page. Needs the extra: pip install 'latent-vae[explore]'. See docs/explore.md.
    """
    if run is not None:
        check_input(
            resolve_run(run), RUN.wanted, f"{usage_of(click.get_current_context())} --dataset DATASET", RUN.names
        )
    if options["dataset"] is not None:
        check_input(options["dataset"], DATASET.wanted)
    picture = options.pop("picture")
    if picture is not None:
        files = [text for text in (options["from_"], options["to"]) if text is not None and ":" not in text]
        guard_output(picture, outputs.PNG, [run, options["dataset"], *files])
        note_given("is for the page, and --picture serves none", "host", "port", "browser")
        if options["to"] is None:
            refuse_given("is how far to go towards --to", "share", advice="Give --to, or leave it out.")
    else:
        refuse_given("is for --picture", *VIEW, "from_", "to", advice="Give --picture FILE.png, or leave it out.")
    from lvae.actions.explore import Place, run_explore, run_picture

    asked = {name: options.pop(name) for name in (*VIEW, "from_", "to")}
    place = shared.take(Place, options, "dataset", "weights", "decoder", "device")
    if picture is not None:
        run_picture(run, place, picture, asked)
    else:
        run_explore(run, place, options["host"], options["port"], options["browser"])


COMMANDS = (explore,)
