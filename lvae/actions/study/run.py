"""`lvae study`: from a source of images to a table beside the paper's."""

import json
import shlex
from dataclasses import dataclass
from pathlib import Path

import click

from lvae.actions.study.arms import design
from lvae.actions.study.chain import Chain
from lvae.actions.study.pictures import show_pictures
from lvae.actions.study.plan import StudyPlan, begin
from lvae.actions.study.tables import read_tables
from lvae.evaluate.features.feature_network import open_network
from lvae.evaluate.pictures.decode import write_whole
from lvae.evaluate.studies.paper import TABLES
from lvae.evaluate.studies.table import Study, as_dict, as_markdown, as_page
from lvae.manifests.errors import LvaeError
from lvae.manifests.manifest import VERSION
from lvae.manifests.storage.folder import Folder
from lvae.manifests.storage.locks import writing


@dataclass(frozen=True)
class StudyOptions:
    """minutes: of training, of all arms and seeds together. count: pictures of every arm and seed.

    autoencoder, weights: of the latents, as 'lvae encode' takes them; None: the default's.
    """

    minutes: float
    size: int
    features: Path
    seeds: int
    count: int
    autoencoder: str | None = None
    weights: str | None = None

    def words(self) -> str:
        """As they are written behind `lvae study TABLE IMAGES OUT`."""
        words = ["--minutes", f"{self.minutes:g}", "--size", str(self.size), "--features", str(self.features)]
        words += ["--seeds", str(self.seeds), "-n", str(self.count)]
        words += [] if self.autoencoder is None else ["--autoencoder", self.autoencoder]
        return shlex.join([*words, *([] if self.weights is None else ["--weights", self.weights])])


def run(lvae: click.Command, table: str, images: str, out: Path, options: StudyOptions) -> None:
    """Make what is not there yet, and write the table. LvaeError where OUT holds another study."""
    if options.size % 32:
        raise LvaeError(f"--size {options.size}", "must be a multiple of 32, for models that end at 4 and 1")
    network = open_network(options.features, "adm")
    if network.name == "inception":
        advice = "Give --features efficientnet-lite0, or a TorchScript network."
        raise LvaeError(
            options.features, "is the FID Inception network, and figures here are named network_...", advice
        )
    asked = StudyPlan(
        "latent-vae-study",
        1,
        table,
        images,
        options.minutes,
        options.size,
        options.seeds,
        options.count,
        str(options.features),
        network.sha256,
        {},
        options.autoencoder or "default",
        options.weights,
    )
    out.mkdir(parents=True, exist_ok=True)
    plan = begin(out, asked)
    with writing(Folder(out)):
        chain = Chain(lvae, out, plan, design(table, options.size, plan.autoencoder, plan.weights))
        readings, chosen = read_tables(chain, table, out / "trials")
        settings = {
            "command": f"lvae study {table} {images} OUT {options.words()}",
            "features": f"{network.mode}, weights {network.sha256[:12]}",
            "reference": "the pictures set aside, a tenth by a hash of the key, and their mirror images",
        }
        study = Study(TABLES[table], readings, settings, chosen)
        write_whole(out / "table.json", json.dumps(as_dict(study), indent=1, ensure_ascii=False).encode() + b"\n")
        write_whole(out / "table.md", as_markdown(study).encode())
        foot = f"Written by latent-vae {VERSION}. Everything it shows is in this one file."
        write_whole(out / "page.html", as_page(study, show_pictures(chain), foot).encode())
    click.echo(as_markdown(study))
    click.echo(f"{out / 'page.html'} shows pictures of every arm")
