"""`lvae demo`: one run through everything there is, small enough to watch."""

from pathlib import Path

import click

from lvae.encode.encoder import keep_memory
from lvae.encode.published import DEFAULT
from lvae.encode.scenes import write_scenes
from lvae.evaluate.inspection import write_histogram, write_preview
from lvae.manifests.dataset import Dataset
from lvae.manifests.errors import LvaeError
from lvae.manifests.regeneration import regenerated
from lvae.manifests.storage import Folder
from lvae.manifests.summary import summary
from lvae.manifests.verification import verify
from lvae.pipeline.console import Bar
from lvae.pipeline.job import encode
from lvae.pipeline.planning import EncodeOptions
from lvae.pipeline.runners import choose_engine, cores
from lvae.pipeline.views import ViewOptions

PICTURES, SIZE = 1000, 64
AUTOENCODER = DEFAULT  # the one in this package, f = 4


def run(out: Path, images: Path | None, workers: int | None) -> None:
    """Draw (or take) pictures, encode them, check every byte, and show what comes back. Again: goes on or checks."""
    source, dataset = images or out / "scenes", out / "latents"
    if images is None:
        _step("Draw labelled pictures", f"lvae scenes {source} --count {PICTURES} --size {SIZE}")
        with Bar("drawing", PICTURES, "pictures") as bar:
            write_scenes(source, PICTURES, SIZE, 0, bar.advance)
    _step(
        "Encode them once, with their mirror images, and set a twentieth aside",
        f"lvae encode {source} {dataset} --autoencoder {AUTOENCODER} --size {SIZE} --mirror --split val=5%",
    )
    options = EncodeOptions(autoencoder=AUTOENCODER, size=SIZE, mirror=True)
    engine = choose_engine((), workers or cores(), keep_memory())
    result = encode(str(source), str(dataset), options, ViewOptions(split={"val": "5%"}), engine, ("cpu",))
    click.echo(summary(str(dataset), result.manifest))
    _step("Check every byte", f"lvae verify --deep {dataset}")
    faults = verify(Folder(dataset), deep=True)
    if faults:
        raise LvaeError(f"{dataset}/{faults[0].where}: {faults[0].problem}.")
    click.echo(f"{dataset}: every byte is as it was written")
    _step("Make the statistics anew and compare", f"lvae stats --check {dataset}")
    found = regenerated(str(dataset))
    found.require_agreement()
    click.echo(f"{dataset}: they agree within {found.largest_difference():.2g} standard deviations")
    preview, histogram = out / "reconstructions.png", out / "latents.png"
    _step("Look", f"lvae inspect {dataset} --preview {preview} --histogram {histogram}")
    opened = Dataset.open(dataset)
    mean = write_preview(opened, preview, count=12)
    write_histogram(opened, histogram)
    click.echo(f"{preview}: originals beside reconstructions, {mean:.1f} dB on average")
    click.echo(f"{histogram}: the channels against N(0, 1), and the classes")


def _step(what: str, command: str) -> None:
    click.secho(f"\n{what}", bold=True)
    click.secho(f"  $ {command}", dim=True)
