"""What `lvae sample`, `decode`, `reference` and `score` do: open, call the library, say what came out."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import click

from lvae.actions.output import print_json
from lvae.encode.devices import choose_device
from lvae.encode.quality.fidelity import Rounding
from lvae.evaluate.features.feature_files import StoredFeatures, extract
from lvae.evaluate.features.feature_network import open_network
from lvae.evaluate.features.open import PictureChoice, open_path, open_pictures
from lvae.evaluate.features.reference_files import write_reference, write_reference_of_features
from lvae.evaluate.figures.drawing import png
from lvae.evaluate.inception import Mode
from lvae.evaluate.pictures import decode as decoding
from lvae.evaluate.pictures.gallery import gallery
from lvae.evaluate.pictures.picture_folder import PictureFolder, begin_pictures, check_pictures
from lvae.evaluate.pictures.positions import positions_of
from lvae.evaluate.samples.draw import SampleOptions, guidance_in_words, prepare, sample_prepared, usual_batch
from lvae.evaluate.scores.image_scores import features_of
from lvae.evaluate.scores.open import ScoreOptions, open_score
from lvae.manifests import records
from lvae.manifests.dataset import Dataset
from lvae.manifests.errors import LvaeError
from lvae.manifests.machine import keep_freed_memory
from lvae.manifests.messages import counted
from lvae.pipeline.progress.console import Bar, say
from lvae.train.devices.open import AnyPrecision, open_device
from lvae.train.runs.packaged import run_name

BATCH = 16  # pictures decoded at a time


@dataclass(frozen=True)
class DecodeOptions:
    """What `lvae decode` was asked for; None where nothing was said."""

    weights: str | None
    format: Literal["png", "npz", "grid"] | None
    split: str
    indices: str | None
    limit: int | None
    batch: int | None
    device: str
    precision: Literal["float32", "bfloat16"]
    rounding: Rounding
    beside: tuple[str, ...]
    columns: int | None


@dataclass(frozen=True)
class FeatureOptions:
    """What `lvae features` and `reference` were asked for. statistics: of the features, instead of these."""

    features: Path
    mode: Mode
    statistics: bool
    originals: bool
    choice: PictureChoice


@dataclass(frozen=True)
class SampleExecution:
    """How samples are drawn; none of it changes what they are. batch: None for the usual."""

    device: str
    precision: AnyPrecision
    batch: int | None
    compiled: bool


def run_sample(run: Path, out: Path, options: SampleOptions, execution: SampleExecution, as_json: bool) -> None:
    opened = open_device(execution.device, execution.precision, execution.compiled, purpose="sampling")
    if opened.kind == "cpu":
        keep_freed_memory()
    try:
        prepared = prepare(run, options, opened.precision)
        plan = prepared.plan
        batch = execution.batch or usual_batch(prepared.model.config, opened)
        if opened.is_main:
            say(f"{plan.weights} weights of update {plan.step}; labels {plan.labels}; {guidance_in_words(plan)}")
        with Bar("sampling", plan.count, "samples") as bar:
            sample_prepared(prepared, run, out, opened, batch, bar.advance)
        if not opened.is_main:
            return
        if as_json:
            print_json(records.plain(plan))
        else:
            click.echo(
                f"{out}: {counted(plan.count, 'sample')} of {run_name(run)}, update {plan.step}, seed {plan.seed}"
            )
    finally:
        opened.close()


def run_decode(latents: str, out: Path, asked: DecodeOptions) -> None:
    dataset = Dataset.open(latents, asked.split)
    kind = format_of(out, asked.format)
    if kind != "grid" and (asked.beside or asked.columns):
        raise LvaeError("", f"--beside and --columns are for a grid, and {out} is none", "Name it OUT.png.")
    if kind == "png":
        check_pictures(out, PictureFolder.of(dataset))
    positions = positions_of(asked.indices, len(dataset), asked.limit)
    if not len(positions):
        raise LvaeError(latents, "holds no latents, so there is nothing to decode")
    if kind == "grid" and len(positions) > decoding.GRID_LIMIT:
        raise LvaeError("", f"{len(positions)} pictures are too many for one grid", "Give --limit or --indices.")
    decoder = decoding.load_decoder(dataset, asked.weights)
    settings = decoding.DecodeSettings(choose_device(asked.device), asked.precision, asked.rounding)
    pictures = decoding.decode_positions(dataset, decoder, positions, asked.batch or BATCH, settings)
    with Bar("decoding", len(positions), "pictures") as bar:
        if kind == "npz":
            labelled = dataset.classes is not None
            size = dataset.manifest.image.size
            decoding.write_npz(pictures, out, len(positions), size, labelled, bar.advance)
        elif kind == "grid":
            decoding.write_whole(out, png(gallery(dataset, pictures, asked.beside, asked.columns, bar.advance)))
        else:
            begin_pictures(out, PictureFolder.of(dataset), positions.tolist())
            decoding.write_folder(pictures, out, bar.advance)
    what = "samples" if dataset.manifest.origin == "samples" else "reconstructions"
    click.echo(f"{out}: {len(positions)} {what}, levels {'rounded' if asked.rounding == 'nearest' else 'truncated'}")


def format_of(out: Path, format_: str | None) -> Any:
    """What OUT is by --format, or by its name."""
    return format_ or {".npz": "npz", ".png": "grid"}.get(out.suffix.lower(), "png")


def run_features(images: str, out: Path, asked: FeatureOptions) -> None:
    choice = replace(asked.choice, device=choose_device(asked.choice.device))
    if choice.device == "cpu":
        keep_freed_memory()
    network = open_network(asked.features, asked.mode, choice.device)
    stack = open_pictures(open_path(images, choice.split), choice)
    if isinstance(stack, StoredFeatures):
        if not asked.statistics:
            raise LvaeError(images, "holds features already")
        count = write_reference_of_features(out, [features_of(stack, network)[0]], stack.record)
    else:
        with Bar("features", len(stack), "images") as bar:
            count = (write_reference if asked.statistics else extract)(out, stack, network, bar.advance)
        _warn(stack.notes)
    click.echo(
        f"{out}: {'statistics' if asked.statistics else 'features'} of {count} {stack.what}, mode {network.mode}"
    )


def run_score(options: ScoreOptions, as_json: bool) -> None:
    device = choose_device(options.choice.device)
    if device == "cpu":
        keep_freed_memory()
    job = open_score(replace(options, choice=replace(options.choice, device=device)))
    with Bar(job.name, job.total, job.unit) as bar:
        found = job.run(bar.advance)
    _warn(found.warnings)
    if as_json:
        print_json(found.as_dict())
    else:
        click.echo(found.table())


def _warn(notes: Sequence[str]) -> None:
    for note in notes:
        click.echo(f"warning: {note}", err=True)
