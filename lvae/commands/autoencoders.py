"""First stages: autoencoder convert."""

from pathlib import Path
from typing import Literal

import click

from lvae import options as shared


@click.group()
def autoencoder() -> None:
    """First-stage autoencoders: their weights."""


@autoencoder.command()
@click.argument("file")
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--autoencoder", "demanded", metavar="NAME|JSON", help="What FILE must be [whatever it is].")
@click.option(
    "--layout", type=click.Choice(["compvis", "diffusers"]), default="compvis", show_default=True, help="Of OUT."
)
@shared.JSON
def convert(file: str, out: Path, demanded: str | None, layout: Literal["compvis", "diffusers"], as_json: bool) -> None:
    """Convert any FILE of weights to OUT, a .safetensors file, and describe it in a .json of the same name beside it.

    The architecture is recognized. Nothing in FILE is ever run; numbers become float32. An OUT that is there already
    and differs is refused.

    \b
    FILE  .ckpt .pt .pth .bin (new and legacy), .safetensors, the model zoo's .zip; a whole LDM or Stable Diffusion
          checkpoint, of which the first stage is taken; a folder of diffusers'; TAESD's two files in one folder or
          as ENCODER,DECODER
    OUT   a file in CompVis' layout, or with --layout diffusers a folder with config.json
    """
    from lvae.encode.architectures import parse_spec
    from lvae.encode.conversion import convert as convert_weights
    from lvae.encode.recognition import summary
    from lvae.manifests.records import plain

    conversion = convert_weights(file, out, demanded, layout)
    if as_json:
        shared.print_json(plain(conversion))
        return
    name = summary(parse_spec(conversion.architecture))
    click.echo(f"{out}: {name}, {conversion.tensors} tensors, {conversion.parameters} parameters")
    click.echo(f"fingerprint {conversion.fingerprint}")
    for name, value in conversion.scale.items():
        click.echo(f"{name} {value} (recorded, not applied)")


COMMANDS = (autoencoder,)
