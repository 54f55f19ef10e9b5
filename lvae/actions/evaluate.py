"""What `lvae sample`, `decode`, `reference` and `score` do: open, call the library, say what came out."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from lvae.actions.output import print_json
from lvae.encode.devices import choose_device
from lvae.encode.quality.fidelity import Rounding
from lvae.evaluate.features.feature_files import StoredFeatures, extract, read_features
from lvae.evaluate.features.feature_network import FeatureNetwork, open_network
from lvae.evaluate.features.open import Pictures, image_stack
from lvae.evaluate.features.reference_files import (
    Reference,
    read_reference,
    write_reference,
    write_reference_of_features,
)
from lvae.evaluate.figures.drawing import png
from lvae.evaluate.inception import Mode
from lvae.evaluate.pictures import decode as decoding
from lvae.evaluate.pictures.gallery import gallery
from lvae.evaluate.samples.draw import SampleOptions, guidance_in_words, prepare, sample
from lvae.evaluate.scores import latent_scores
from lvae.evaluate.scores.image_scores import (
    METRICS,
    OWN_METRICS,
    PAIRED_METRICS,
    check_sizes,
    checked_metrics,
    features_of,
    image_scores,
    reconstruction_scores,
    reference_of,
    stacks_around,
)
from lvae.evaluate.scores.score_table import Scores
from lvae.manifests import records
from lvae.manifests.allocator import keep_freed_memory
from lvae.manifests.dataset import Dataset
from lvae.manifests.errors import LvaeError
from lvae.manifests.manifest import is_dataset
from lvae.pipeline.progress.console import Bar, say
from lvae.train.devices.device import Precision
from lvae.train.devices.open import open_device


def run_sample(
    run: Path, out: Path, options: SampleOptions, device: str, precision: Precision, batch: int, as_json: bool
) -> None:
    opened = open_device(device, precision)
    if opened.kind == "cpu":
        keep_freed_memory()
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
    rounding: Rounding,
    beside: tuple[str, ...] = (),
    columns: int | None = None,
) -> None:
    dataset = Dataset.open(latents, split)
    kind = format_of(out, format_)
    if kind != "grid" and (beside or columns):
        raise LvaeError("", f"--beside and --columns are for a grid, and {out} is none", "Name it OUT.png.")
    positions = decoding.positions_of(indices, len(dataset), limit)
    if not len(positions):
        raise LvaeError(latents, "holds no latents, so there is nothing to decode")
    if kind == "grid" and len(positions) > decoding.GRID_LIMIT:
        raise LvaeError("", f"{len(positions)} pictures are too many for one grid", "Give --limit or --indices.")
    network = decoding.load_decoder(dataset, weights)
    pictures = decoding.decode_positions(dataset, network, positions, batch, choose_device(device), precision, rounding)
    with Bar("decoding", len(positions), "pictures") as bar:
        if kind == "npz":
            labelled = dataset.classes is not None
            size = dataset.manifest.image.size
            decoding.write_npz(pictures, out, len(positions), size, labelled, bar.advance)
        elif kind == "grid":
            decoding.write_whole(out, png(gallery(dataset, pictures, beside, columns, bar.advance)))
        else:
            decoding.write_folder(pictures, out, bar.advance)
    what = "samples" if dataset.manifest.origin == "samples" else "reconstructions"
    click.echo(f"{out}: {len(positions)} {what}, levels {'rounded' if rounding == 'nearest' else 'truncated'}")


def format_of(out: Path, format_: str | None) -> Any:
    return format_ or {".npz": "npz", ".png": "grid"}.get(out.suffix.lower(), "png")


def run_features(images: str, out: Path, features: Path, mode: Mode, statistics: bool, asked: Pictures) -> None:
    """statistics: of the features, instead of these."""
    network = open_network(features, mode, asked.device)
    stack = image_stack(images, asked)
    if isinstance(stack, StoredFeatures):
        if not statistics:
            raise LvaeError(images, "holds features already")
        count = write_reference_of_features(out, [features_of(stack, network)[0]], stack.record)
    else:
        with Bar("features", len(stack), "images") as bar:
            count = (write_reference if statistics else extract)(out, stack, network, bar.advance)
        _warn(stack.notes)
    click.echo(f"{out}: {'statistics' if statistics else 'features'} of {count} {stack.what}, mode {network.mode}")


def run_score(
    samples: tuple[str, ...],
    reference: str | None,
    features: Path | None,
    mode: Mode,
    wanted: str | None,
    around: str | None,
    extrapolate: bool,
    asked: Pictures,
    as_json: bool,
) -> None:
    network = _network_of_stored(samples) if features is None else open_network(features, mode, asked.device)
    if reference is None:
        found = _score_reconstructions(samples, network, wanted, asked)
    elif network is None:
        if around is not None or extrapolate:
            raise LvaeError(
                "", "--around and --extrapolate belong to scores by a network's features", "Give --features FILE."
            )
        found = _score_latents(samples, reference, wanted, asked)
    else:
        found = _score_pictures(samples, reference, network, wanted, around, extrapolate, asked)
    _warn(found.warnings)
    if as_json:
        print_json(found.as_dict())
    else:
        click.echo(found.table())


def _score_latents(samples: tuple[str, ...], reference: str, wanted: str | None, asked: Pictures) -> Scores:
    for path in (*samples, reference):
        if not is_dataset(path):
            raise LvaeError(
                path,
                "pictures are scored by a network's features",
                ("Give --features FILE (the FID Inception weights, or a TorchScript network), or datasets of latents."),
            )
    names = checked_metrics(wanted, latent_scores.METRICS, "latent space")
    sets, other = latent_scores.open_sets(samples), Dataset.open(reference, asked.split)
    with Bar("scoring", len(sets) + 3 * latent_scores.RIVAL_SETS, "sets") as bar:
        return latent_scores.latent_scores(
            sets, other, asked.num, asked.seed, names or latent_scores.METRICS, bar.advance
        )


def _score_reconstructions(
    samples: tuple[str, ...], network: FeatureNetwork | None, wanted: str | None, asked: Pictures
) -> Scores:
    if len(samples) != 1 or not is_dataset(samples[0]):
        raise LvaeError("--reference", "only a DATASET can be scored without one, by the images that it was made of")
    known = PAIRED_METRICS if network is not None else PAIRED_METRICS[:2]
    names = checked_metrics(wanted, known, "a dataset against its images (rfid needs --features)")
    dataset = Dataset.open(samples[0], asked.split)
    autoencoder = decoding.load_decoder(dataset)
    with Bar("comparing", len(dataset) if asked.num is None else asked.num, "pictures") as bar:
        return reconstruction_scores(
            dataset, autoencoder, network, names, asked.num, asked.seed, asked.device, bar.advance
        )


def _score_pictures(
    samples: tuple[str, ...],
    reference: str,
    network: FeatureNetwork,
    wanted: str | None,
    around: str | None,
    extrapolate: bool,
    asked: Pictures,
) -> Scores:
    known = METRICS if network.name == "inception" else OWN_METRICS
    names = checked_metrics(wanted, known, f"the {network.name} network")
    stacks = [image_stack(path, replace(asked, split="train")) for path in samples]
    stored = read_reference(Path(reference)) if reference.endswith(".npz") else None
    pictures = (
        image_stack(reference, replace(asked, num=None if stored else asked.num)) if _has_pictures(stored) else None
    )
    check_sizes(stacks[0], pictures, reference)
    beside: list[Any] = []
    if around is not None:
        dataset = Dataset.open(around)
        decoder = decoding.load_decoder(dataset)
        beside = stacks_around(dataset, decoder, stacks[0].count, asked.seed, asked.device)
    total = sum(map(len, stacks)) + (len(pictures) if pictures is not None else 0)
    with Bar("features", total + sum(len(one) for _, _, some in beside for one in some), "images") as bar:
        against, notes = reference_of(reference, stored, pictures, network, bar.advance)
        return image_scores(stacks, against, network, names, asked.seed, extrapolate, beside, notes, bar.advance)


def _network_of_stored(samples: Sequence[str]) -> FeatureNetwork | None:
    """By name: the one that made the features, where features are what is scored."""
    first = Path(samples[0])
    stored = read_features(first) if first.suffix == ".npz" and first.is_file() else None
    return None if stored is None else stored.network


def _has_pictures(stored: Reference | None) -> bool:
    return stored is None or stored.has_pictures


def _warn(notes: Sequence[str]) -> None:
    for note in notes:
        click.echo(f"warning: {note}", err=True)
