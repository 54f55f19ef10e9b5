"""Options of `lvae autoencoder fit`: what is learned, and how it is carried out."""

import click

from lvae.commands import options as shared
from lvae.commands.values import types

SETTINGS = shared.several(
    click.option(
        "--autoencoder",
        "architecture",
        default="default",
        show_default=True,
        metavar="NAME|JSON",
        help="The network to train.",
    ),
    click.option("--init", metavar="FILE", help="Weights to start from [random ones, by --seed]."),
    click.option("--only-classes", metavar="A,B", help="Only pictures of these classes."),
    click.option("--limit", type=types.Whole(1), help="Only so many pictures: a fair sample by a hash of the key."),
    click.option(
        "--size", type=types.Whole(1), default=64, show_default=True, help="Side of the square crops, in pixels."
    ),
    click.option(
        "--shorter-side",
        metavar="LOW-HIGH",
        help="A picture is reduced to a shorter side between these, drawn anew each time, and then cropped "
        "[1.5 to 3 times --size].",
    ),
    click.option(
        "--validation", default="5%", show_default=True, metavar="SHARE", help="Pictures set aside to measure on."
    ),
    click.option("--steps", type=types.Whole(1), default=20_000, show_default=True, help="Updates of the whole run."),
    click.option("--batch", type=types.Whole(1), default=16, show_default=True, help="Crops that an update sees."),
    click.option(
        "--learning-rate", type=types.Number(0), default=1e-3, show_default=True, help="Of Adam, after the warm-up."
    ),
    click.option(
        "--decay",
        type=types.Number(0, 1),
        default=0.5,
        show_default=True,
        help="Over this last share of the updates the learning rate falls to nothing.",
    ),
    click.option(
        "--kl-weight", type=types.Number(0), default=1e-6, show_default=True, help="Of the rate, as in LDM (kl alone)."
    ),
    click.option(
        "--codebook-weight",
        type=types.Number(0),
        default=1.0,
        show_default=True,
        help="Of the codebook's loss (vq alone).",
    ),
    click.option(
        "--latent-noise",
        type=types.Number(0),
        default=0.0,
        show_default=True,
        help="Noise on the latents, in their standard deviations (tiny alone).",
    ),
    click.option(
        "--contrast-weight",
        type=types.Number(0),
        default=0.0,
        show_default=True,
        help="Weight of the loss on local contrast, which sharpens.",
    ),
    click.option(
        "--adversarial-weight",
        type=types.Number(0),
        default=0.0,
        show_default=True,
        help="Weight of a patch discriminator.",
    ),
    click.option(
        "--discriminator-layers",
        type=types.Whole(1, 5),
        default=3,
        show_default=True,
        help="With 3 it judges patches of 70 px, with 2 of 34 px.",
    ),
    click.option(
        "--sharpen-after",
        type=types.Whole(0),
        default=0,
        show_default=True,
        help="Updates before contrast and discriminator join.",
    ),
    click.option("--perceptual", metavar="VGG,LPIPS", help="Adds LPIPS: the weights of VGG16 and of LPIPS, two files."),
    click.option("--perceptual-weight", type=types.Number(0), default=1.0, show_default=True, help="Weight of LPIPS."),
    click.option(
        "--ema", type=types.Number(0, 1), default=0.999, show_default=True, help="Decay of the averaged weights."
    ),
    click.option("--seed", type=types.Whole(), default=0, show_default=True, help="Seed for all random draws."),
    click.option(
        "--precision",
        type=click.Choice(["float32", "bfloat16", "tf32"]),
        default="float32",
        show_default=True,
        help="Precision of convolutions; bfloat16 needs a GPU.",
    ),
)

EXECUTION = shared.several(
    click.option(
        "--device", default="auto", show_default=True, help="auto: the GPU, if there is one; cpu, cuda, cuda:1."
    ),
    click.option("--workers", type=types.Whole(0), default=1, show_default=True, help="Processes that cut crops."),
    click.option(
        "--log-every",
        type=types.Whole(1),
        default=50,
        show_default=True,
        help="Updates between lines of metrics.jsonl.",
    ),
    click.option(
        "--save-every", type=types.Whole(1), default=500, show_default=True, help="Updates between checkpoints."
    ),
    click.option(
        "--validate-every", type=types.Whole(1), default=1000, show_default=True, help="Updates between previews."
    ),
)
