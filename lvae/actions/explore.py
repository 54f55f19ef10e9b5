"""What `lvae explore` does: serve the page, or write one of its pictures."""

import os
import sys
import webbrowser
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import click
from PIL import Image

from lvae.encode.devices import choose_device
from lvae.encode.images import ImageRejected
from lvae.evaluate.explore.channels import rank_channels
from lvae.evaluate.explore.painter import Painter, Tab
from lvae.evaluate.explore.view import Subject, View, check_view, parse_move, parse_subject
from lvae.evaluate.figures.drawing import png
from lvae.evaluate.manipulation.loaded_run import LoadedRun, open_dataset
from lvae.evaluate.pictures.decode import write_whole
from lvae.manifests.errors import LvaeError
from lvae.pipeline.progress.console import say
from lvae.train.runs.packaged import packaged_names
from lvae.train.runs.run import find_run


@dataclass(frozen=True)
class Place:
    """What is explored beside the run."""

    dataset: str | None
    weights: Literal["ema", "raw"]
    decoder: str | None
    device: str


def run_explore(run: str | None, place: Place, host: str, port: int, browser: bool) -> None:
    run = _choose(run)
    painter = _open(run, place)
    try:
        from lvae.evaluate.explore.app import Named, Page
        from lvae.evaluate.explore.serve import serve
    except ModuleNotFoundError as error:
        advice = "Install the extra: pip install 'latent-vae[explore]'."
        raise LvaeError("lvae explore", f"{error.name} is not installed", advice) from None
    page = Page(painter, rank_channels(painter.loaded, painter.dataset), Named(run, place.dataset))
    page.warm_up()

    def ready(address: str) -> None:
        click.echo(address)
        say("the page is there until you press Ctrl-C; whoever knows this address can use it")
        if browser and _has_windows():
            webbrowser.open(address)

    try:
        serve(page, host, port, ready)
    except KeyboardInterrupt:
        say("the page is closed")


def _has_windows() -> bool:
    """Whether a browser can open beside the terminal, not in it."""
    return sys.platform == "darwin" or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def run_picture(run: str | None, place: Place, out: Path, asked: dict[str, Any]) -> None:
    if out.suffix.lower() != ".png":
        raise LvaeError(out, "must end in .png")
    painter = _open(_choose(run), place)
    subject = _take(painter, parse_subject(asked["from_"]))
    other = None if asked["to"] is None else _take(painter, parse_subject(asked["to"]))
    if not all(part.strip().isdigit() and len(part) < 6 for part in asked["redraw"].split(",") if part):
        raise LvaeError(f"--redraw {asked['redraw']:.40}", "write resolutions like 4,8")
    view = View(
        subject=subject,
        other=other,
        share=asked["share"],
        redraw=tuple(int(part) for part in asked["redraw"].split(",") if part),
        seed=asked["seed"],
        moves=tuple(map(parse_move, asked["move"])),
        label=asked["label"],
        guidance_mean=asked["guidance_mean"],
        guidance_variance=asked["guidance_variance"],
        left=asked["left"],
        right=asked["right"],
    )
    check_view(view, painter.loaded.model.config)
    pixels = painter.paint(view, Tab())
    write_whole(out, png(Image.fromarray(pixels)))
    click.echo(f"{out}: {pixels.shape[1]} x {pixels.shape[0]} pixels")


def _take(painter: Painter, subject: Subject) -> Subject:
    """An image file is read here, where a person named it; the page never does."""
    if subject.kind == "image":
        path = Path(subject.image)
        try:
            painter.add_image(subject.image, path.read_bytes())
        except ImageRejected as rejection:
            raise LvaeError(path, f"cannot be used ({rejection.reason})", "Give another image.") from None
        except OSError as error:
            raise LvaeError(path, f"cannot be read ({error.strerror or error})", "Give an image file.") from None
    return subject


def _choose(run: str | None) -> str:
    """The run that was named, or a model of the package: that of photographs, where there are several."""
    if run is not None:
        return run
    names = packaged_names()
    if not names:
        raise LvaeError("lvae explore", "no model comes with this package", "Name a RUN: 'lvae explore RUN'.")
    return next((name for name in names if name.startswith("photo")), names[0])


def _open(run: str, place: Place) -> Painter:
    folder = find_run(run)
    loaded = LoadedRun.open(folder, place.weights, place.decoder, choose_device(place.device))
    if loaded.network is None:
        say(f"warning: {run} has no weights of its autoencoder; pictures are latents in false colours")
    return Painter(loaded, None if place.dataset is None else open_dataset(loaded, place.dataset))
