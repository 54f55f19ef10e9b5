"""Autoencoders: list, fetch, fit, score, convert."""

from pathlib import Path
from typing import Any, Literal

import click

from lvae.actions.autoencoder import (
    GRID_PICTURES,
    draw_pairs,
    make_counter,
    make_fit_config,
    print_fitted,
    reconstruction_distance,
    remember_settings,
)
from lvae.actions.output import print_json
from lvae.commands import options as shared
from lvae.commands import places
from lvae.commands.values import types
from lvae.commands.values.fit import EXECUTION, SETTINGS, check_fit, check_scored
from lvae.manifests.storage.places import guard as outputs
from lvae.manifests.storage.places.guard import guard_output


@click.group()
def autoencoder() -> None:
    """List, fetch, train, score and convert autoencoders."""


@autoencoder.command(short_help="Train an autoencoder on images.")
@shared.SOURCE
@click.argument("out", type=click.Path(path_type=Path))
@SETTINGS
@EXECUTION
@click.option("--dry-run", is_flag=True, help="Print the settings; do nothing.")
@shared.JSON
def fit(source: str, out: Path, **options: Any) -> None:
    """Train an autoencoder on the images of SOURCE; its weights become OUT/autoencoder.safetensors.

    The same command goes on after the last checkpoint, whatever stopped it; SIGTERM and Ctrl-C save first, then exit
    with 130. The loss is the mean absolute error and the bottleneck's own term, plus what options add to keep pictures
    sharp: a perceptual distance, local contrast, a patch discriminator. Pictures smaller than the crop are left out
    and counted.

    \b
    lvae autoencoder fit photos stage --steps 20000
    lvae autoencoder fit photos stage --autoencoder '{"kind": "kl", "width": 32, "multipliers": [1, 2, 2],
                                                      "latent_channels": 4}' --contrast-weight 1
    lvae encode photos latents --weights stage/autoencoder.safetensors

    Kinds are kl, vq, tiny, and upsampler, whose latents are the image itself, reduced: {"kind": "upsampler", "width":
    32, "multipliers": [1, 2, 2], "patch": 2} learns to enlarge by 8, for a model of small images before it.
    """
    guard_output(out, outputs.AUTOENCODER_RUN, [source, options["init"]])
    from lvae.manifests.records import plain

    options["validation"] = types.share(options["validation"], "--validation")
    source_of = click.get_current_context().get_parameter_source
    unsaid = {name for name in options if source_of(name) == click.core.ParameterSource.DEFAULT}
    config = remember_settings(out, make_fit_config(source, options), unsaid)
    check_fit(config)
    if options["dry_run"]:
        print_json(plain(config))
        return
    from lvae.encode.training.fit import FitOptions, Watcher
    from lvae.encode.training.fit import fit as fit_autoencoder
    from lvae.pipeline.progress.console import Bar, say

    with Bar("opening", 0, "pictures") as opening, Bar("training", config.steps, "updates") as training:
        watcher = Watcher(make_counter(opening), make_counter(training), say, draw_pairs)
        execution = FitOptions(
            log=options["log_every"],
            save=options["save_every"],
            validate=options["validate_every"],
            device=options["device"],
            workers=options["workers"],
            perceptual=options["perceptual"],
            start=options["init"],
        )
        fitted = fit_autoencoder(source, out, config, watcher, execution)
    if fitted is None:
        raise click.exceptions.Exit(shared.INTERRUPTED)
    if options["as_json"]:
        print_json(plain(fitted))
    else:
        print_fitted(fitted)
    if not options["dry_run"]:
        shared.suggest("encode", "IMAGES", "DATASET", "--weights", fitted.weights)


@autoencoder.command(short_help="Any file of weights to safetensors.")
@click.argument("file")
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--autoencoder", "demanded", metavar="NAME|JSON", help="What FILE must be [whatever it is].")
@click.option(
    "--layout",
    type=click.Choice(["compvis", "diffusers"]),
    default="compvis",
    show_default=True,
    help="Layout of OUT.",
)
@click.option(
    "--dtype",
    type=click.Choice(["float32", "float16"]),
    default="float32",
    show_default=True,
    help="Numbers in OUT.",
)
@shared.JSON
def convert(
    file: str,
    out: Path,
    demanded: str | None,
    layout: Literal["compvis", "diffusers"],
    dtype: Literal["float32", "float16"],
    as_json: bool,
) -> None:
    """Convert any FILE of weights to OUT, a .safetensors file, and describe it in a .json of the same name beside it.

    The architecture is recognized. Nothing in FILE is ever run; numbers become those of --dtype. An OUT that is there
    already and differs is refused.

    \b
    FILE  .ckpt .pt .pth .bin (new and legacy), .safetensors, the model zoo's .zip; a whole LDM or Stable Diffusion
          checkpoint, of which the autoencoder is taken; what trainers wrap it in (model, ema, module.); a folder of
          diffusers', with variants or shards, or in the hub's cache; TAESD's two files in one folder or
          as ENCODER,DECODER
    OUT   a file in CompVis' layout, or with --layout diffusers a folder with config.json
    """
    guard_output(out, outputs.DIFFUSERS if layout == "diffusers" else outputs.SAFETENSORS, [file])
    from lvae.encode.catalogue.architectures import parse_spec
    from lvae.encode.catalogue.recognize import summarize
    from lvae.encode.zoo.convert import convert as convert_weights
    from lvae.manifests.records import plain
    from lvae.pipeline.progress.console import say

    conversion = convert_weights(file, out, demanded, layout, dtype, say)
    if as_json:
        print_json(plain(conversion))
        return
    name = summarize(parse_spec(conversion.architecture))
    click.echo(f"{out}: {name}, {conversion.tensors} tensors, {conversion.parameters} parameters")
    click.echo(f"fingerprint {conversion.fingerprint}")
    for name, value in conversion.scale.items():
        click.echo(f"{name} {value} (recorded, not applied)")
    shared.suggest("encode", "IMAGES", "DATASET", "--weights", out)


@autoencoder.command("list", short_help="Every autoencoder that is known.")
@shared.JSON
def list_(as_json: bool) -> None:
    """Every known autoencoder: size, quality as published, licence, where its weights come from, whether they are here.

    A name in this list may be given to 'lvae encode --autoencoder'; weights that are here are found by themselves.
    """
    from lvae.encode.zoo.list import format_table, list_autoencoders

    found = list_autoencoders()
    if as_json:
        print_json([entry.as_dict() for entry in found])
    else:
        click.echo(format_table(found))


@autoencoder.command(short_help="Bring published weights to this machine.")
@click.argument("name")
@click.option("--from", "place", metavar="URL|FILE", help="Another place of the same weights, such as a mirror.")
@shared.JSON
def fetch(name: str, place: str | None, as_json: bool) -> None:
    """Bring the published weights NAME ('lvae autoencoder list') to this machine, converted to safetensors.

    They go to latent-vae/autoencoders in the user's cache folder (XDG_CACHE_HOME). From Hugging Face's hub they come
    by its own library: a download that was cut off goes on, HF_ENDPOINT, HF_TOKEN and proxies count, and what lies in
    its cache is taken from there. The sha256 is checked where one is published or the hub announces one, and every
    tensor's name and shape in any case. Nothing in the file is ever executed.
    """
    from lvae.encode.zoo.fetch import fetch as fetch_weights
    from lvae.manifests.records import plain
    from lvae.pipeline.progress.console import say

    fetched = fetch_weights(name, say, place)
    if as_json:
        print_json(plain(fetched))
    else:
        click.echo(f"{fetched.path}: from {fetched.source}, {fetched.bytes} bytes, checked against {fetched.checked}")
        click.echo(f"sha256 {fetched.sha256} (of the source)")
    shared.suggest("encode", "IMAGES", "DATASET", "--autoencoder", name)


@autoencoder.command(short_help="How well one reconstructs pictures.", epilog=shared.NETWORKS)
@click.argument("name_or_path")
@click.argument("images", type=places.SOURCE)
@click.option("--weights", metavar="FILE|random:SEED", help="For a name whose weights are not here.")
@click.option("--size", type=types.Whole(8), default=128, show_default=True, help="Side of the crop in pixels.")
@click.option(
    "--crop",
    type=click.Choice(["adm", "lsun", "adm-lsun", "center", "none"]),
    default="adm",
    show_default=True,
    help="How to crop, as for 'lvae encode'.",
)
@click.option("--held-out", metavar="SHARE", help="Only the pictures that 'fit --validation SHARE' sets aside.")
@click.option("--only-classes", metavar="A,B", help="Only pictures of these classes.")
@click.option(
    "--limit",
    type=types.Whole(1),
    default=5000,
    show_default=True,
    help="At most so many pictures, chosen by a hash of the key.",
)
@click.option(
    "--device",
    metavar="NAME",
    default="auto",
    show_default=True,
    help="auto: the GPU, if there is one; cpu, cuda, cuda:1.",
)
@click.option(
    "--features",
    type=click.Path(path_type=Path),
    metavar=shared.NETWORK,
    help="Also the Fréchet distance by a feature network, which is rFID by the FID Inception network.",
)
@click.option(
    "--grid", type=click.Path(path_type=Path), help="Draw pictures beside their reconstructions into this PNG."
)
@shared.JSON
def score(name_or_path: str, images: str, **options: Any) -> None:
    """Score an autoencoder on IMAGES, any source. NAME_OR_PATH: a name, a run of 'fit', or a file or folder of weights.

    \b
    PSNR, SSIM, L1  means over pictures, beside the best linear code of the same size (principal components of patches)
    detail kept     power above a quarter of a cycle a pixel, as a share of the originals'
    latents         mean, std and excess kurtosis of each channel, and the PSNR without it
    """
    if options["grid"] is not None:
        guard_output(options["grid"], outputs.PNG, [images])
    classes = tuple(options["only_classes"].split(",")) if options["only_classes"] else None
    share = types.share(options["held_out"], "--held-out") if options["held_out"] else None
    check_scored(name_or_path, options["weights"])
    from lvae.encode.quality.score import open_autoencoder
    from lvae.encode.quality.score import score as score_autoencoder
    from lvae.encode.sources.subset import choose
    from lvae.manifests.records import plain
    from lvae.pipeline.progress.console import Bar

    opened = open_autoencoder(name_or_path, options["weights"])
    chosen = choose(images, classes, options["limit"])
    with Bar("opening", len(chosen.rows), "pictures") as bar:
        result, pairs = score_autoencoder(
            opened, chosen, options["size"], options["crop"], share, options["device"], make_counter(bar)
        )
    if options["grid"] is not None:
        shown = pairs[:: -(-len(pairs) // GRID_PICTURES)]
        title = f"{result.name} at {result.size} px, SSIM {result.ssim:.3f} over {result.images} pictures"
        options["grid"].write_bytes(draw_pairs(shown, title))
    distance = None if options["features"] is None else reconstruction_distance(options["features"], pairs)
    if options["as_json"]:
        print_json({**plain(result), "rfid": None} | (dict([distance]) if distance else {}))
    else:
        click.echo(result.table())
        if distance is not None:
            name, by = ("rFID", "mode adm") if distance[0] == "rfid" else ("Fréchet", f"by {options['features']}")
            click.echo(f"  {name:<12} {distance[1]:.3f} over {len(pairs)} pictures ({by})")


COMMANDS = (autoencoder,)
