"""What `lvae sample`, `decode`, `reference` and `score` do: open, call the library, say what came out."""

from pathlib import Path
from typing import Any, Literal

import click

from lvae.encode.encoder import choose_device
from lvae.evaluate import decode as decoding
from lvae.evaluate.inception import InceptionFID, Mode
from lvae.evaluate.reference_files import write_reference
from lvae.evaluate.sample import SampleOptions, guidance_in_words, prepare, sample
from lvae.evaluate.score import Scores, image_scores, latent_scores
from lvae.evaluate.stacks import ImageStack, decoded_stack, open_stack
from lvae.manifests import records
from lvae.manifests.dataset import MANIFEST, Dataset
from lvae.manifests.errors import LvaeError
from lvae.manifests.storage import folder_at
from lvae.options import print_json
from lvae.pipeline.console import Bar, say
from lvae.train.devices import Precision, open_device


def run_sample(
    run: Path, out: Path, options: SampleOptions, device: str, precision: Precision, batch: int, as_json: bool
) -> None:
    opened = open_device(device, precision)
    try:
        plan = prepare(run, options, precision).plan
        if opened.is_main:
            say(f"{plan.weights} weights of update {plan.step}; labels {plan.labels}; {guidance_in_words(plan)}")
        with Bar("sampling", plan.count, "samples") as bar:
            sample(run, out, options, opened, batch, bar.advance)
        if not opened.is_main:
            return
        if as_json:
            print_json(records.plain(plan))
        else:
            click.echo(f"{out}: {plan.count} samples of {run}, update {plan.step}, seed {plan.seed}")
    finally:
        opened.close()


def run_decode(
    latents: str,
    out: Path,
    weights: str | None,
    format_: str | None,
    split: str,
    indices: str | None,
    limit: int | None,
    batch: int,
    device: str,
    precision: str,
    rounding: decoding.Rounding,
) -> None:
    dataset = Dataset.open(latents, split)
    kind = format_ or {".npz": "npz", ".png": "grid"}.get(out.suffix.lower(), "png")
    positions = decoding.positions_of(indices, len(dataset), limit)
    if kind == "grid" and len(positions) > decoding.GRID_LIMIT:
        raise LvaeError(f"{len(positions)} pictures are too many for one grid. Give --limit or --indices.")
    network = decoding.load_decoder(dataset, weights)
    pictures = decoding.decoded(dataset, network, positions, batch, choose_device(device), precision, rounding)
    with Bar("decoding", len(positions), "pictures") as bar:
        if kind == "npz":
            labelled = dataset.classes is not None
            size = dataset.manifest.image.size
            decoding.write_npz(pictures, out, len(positions), size, labelled, bar.advance)
        elif kind == "grid":
            decoding.write_grid(pictures, out, bar.advance)
        else:
            decoding.write_folder(pictures, out, bar.advance)
    what = "samples" if dataset.manifest.origin == "samples" else "reconstructions"
    click.echo(f"{out}: {len(positions)} {what}, levels {'rounded' if rounding == 'nearest' else 'truncated'}")


def run_reference(images: str, out: Path, features: Path, mode: Mode, num: int | None) -> None:
    network = InceptionFID.load(features)
    stack = _stack(images, "train", num)
    with Bar("features", len(stack), "images") as bar:
        reference = write_reference(out, stack, network, mode, features, bar.advance)
    click.echo(f"{out}: statistics of {reference} {stack.what}, mode {mode}")


def run_score(
    samples: str,
    reference: str,
    features: Path | None,
    mode: Mode,
    num: int | None,
    seed: int,
    split: str,
    as_json: bool,
) -> None:
    found: Scores
    if features is None:
        for path in (samples, reference):
            if not _is_dataset(path):
                raise LvaeError(
                    f"{path}: pictures are scored by a network's features. Give --features FILE (the FID Inception "
                    "weights), or two datasets of latents."
                )
        found = latent_scores(Dataset.open(samples), Dataset.open(reference, split), num, seed)
    else:
        network = InceptionFID.load(features)
        stack = _stack(samples, "train", num)
        with Bar("features", len(stack), "images") as bar:
            other = Path(reference) if reference.endswith(".npz") else _stack(reference, split, num)
            found = image_scores(stack, other, network, mode, features, seed, bar.advance)
    for warning in found.warnings:
        click.echo(f"warning: {warning}", err=True)
    if as_json:
        print_json(found.as_dict())
    else:
        click.echo(found.table())


def _is_dataset(path: str) -> bool:
    return "://" not in path and folder_at(path).exists(MANIFEST)


def _stack(path: str, split: Literal["train"] | str, num: int | None) -> ImageStack:
    """Pictures of an .npz, or of a dataset, decoded."""
    if not _is_dataset(path):
        return open_stack(Path(path), num)
    dataset = Dataset.open(path, split)
    network: Any = decoding.load_decoder(dataset, None)
    return decoded_stack(dataset, network, num)
