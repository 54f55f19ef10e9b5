"""What `lvae sweep`, `neighbours` and `report` do: open, call the library, say what came out."""

from pathlib import Path

import click

from lvae.actions.output import print_json
from lvae.encode.devices import choose_device
from lvae.evaluate.analysis import neighbours as near
from lvae.evaluate.analysis.neighbours import Queries, is_run
from lvae.evaluate.analysis.sweep import SWEEP, Scoring, Sweep, numbers, samples_at, settings_of, sweep
from lvae.evaluate.analysis.sweep_figures import draw_scores, picture_grid, sweep_pictures, table
from lvae.evaluate.analysis.sweep_scoring import FeatureScoring, LatentScoring
from lvae.evaluate.features.feature_network import open_network
from lvae.evaluate.features.open import PictureChoice, open_path, open_pictures
from lvae.evaluate.figures.drawing import png
from lvae.evaluate.inception import Mode
from lvae.evaluate.pictures.decode import load_decoder, positions_of, write_whole
from lvae.evaluate.report.inputs import ReportOptions, opened, sampled
from lvae.evaluate.report.write import write_report
from lvae.evaluate.samples.draw import SampleOptions
from lvae.evaluate.scores.image_scores import ReferenceFeatures, reference_of
from lvae.manifests import records
from lvae.manifests.dataset import Dataset
from lvae.manifests.errors import LvaeError
from lvae.manifests.messages import counted
from lvae.manifests.storage.folder import file_sha256
from lvae.pipeline.progress.console import Bar, say
from lvae.train.devices.device import Precision
from lvae.train.devices.open import open_device
from lvae.train.runs.run import read_run

SCORED = 1000  # samples of a setting, where they are scored


def run_sweep(
    run: Path,
    out: Path,
    means: str | None,
    variances: str | None,
    temperatures: str | None,
    count: int | None,
    pictures: int,
    repeats: int,
    mean_at_1x1: bool,
    options: SampleOptions,
    reference: str | None,
    split: str,
    num: int | None,
    features: Path | None,
    mode: Mode,
    device: str,
    precision: Precision,
    batch: int,
    as_json: bool,
) -> None:
    config = read_run(run)
    settings = settings_of(
        config.model,
        numbers("--means", means),
        numbers("--variances", variances),
        numbers("--temperatures", temperatures),
    )
    count = count or (pictures if reference is None else max(SCORED, pictures))
    wanted = Sweep(settings, count, pictures, repeats, mean_at_1x1)
    on = open_device(device, precision)
    try:
        scoring = _scoring(reference, split, num, features, mode, count, options.seed, on.kind)
        before = out / SWEEP
        old = before.read_bytes() if before.exists() else b""
        with Bar("sweeping", len(settings) * repeats * count, "samples") as bar:
            record = sweep(run, out, wanted, options, on, batch, scoring, bar.advance)
        if not on.is_main:
            return
        if before.read_bytes() != old or not (out / "sweep.png").exists():
            first = record.results[0]
            samples = Dataset.open(samples_at(out, first.setting, first.seed))
            with Bar("decoding", len(settings), "settings") as bar:
                found = sweep_pictures(out, record, load_decoder(samples, None, run), pictures, bar.advance)
            write_whole(out / "sweep.png", png(picture_grid(out, record, found)))
            if record.metrics:
                write_whole(out / "scores.png", draw_scores(record))
    finally:
        on.close()
    if as_json:
        print_json(records.plain(record))
        return
    if record.metrics:
        click.echo(table(record))
    scored = f", scored in {out / 'scores.png'}" if record.metrics else ""
    seeds = f" from {counted(repeats, 'seed')} each" if repeats > 1 else ""
    click.echo(
        f"{out / 'sweep.png'}: {counted(len(settings), 'setting')}, {counted(count, 'sample')}{seeds} of {run}, "
        f"update {record.step}{scored}; all numbers in {out / SWEEP}"
    )


def _scoring(
    reference: str | None,
    split: str,
    num: int | None,
    features: Path | None,
    mode: Mode,
    count: int,
    seed: int,
    device: str,
) -> Scoring | None:
    if reference is None:
        if features is not None:
            raise LvaeError(
                "", "--features needs something to compare with", "Give --reference DATASET, IMAGES or NPZ."
            )
        return None
    if features is None:
        given = open_path(reference, split)
        dataset = given.require_dataset("pictures are scored by a network's features", "Give --features FILE.")
        return LatentScoring(dataset, count, num, seed)
    network = open_network(features, mode, _for_networks(device))
    given = open_path(reference, split)
    choice = PictureChoice(num, seed, None, "adm", split, _for_networks(device))
    stack = open_pictures(given, choice) if given.has_pictures else None
    name = reference
    if given.dataset is not None:
        name = given.dataset.manifest.id
    elif reference.endswith(".npz"):
        name = file_sha256(Path(reference))

    def opened() -> ReferenceFeatures:
        return reference_of(reference, given.statistics, stack, network, lambda _: None)[0]

    return FeatureScoring(network, opened, name, None if stack is None else stack.count)


def _for_networks(device: str) -> str:
    """Autoencoders and feature networks run on a GPU or on the CPU."""
    return "cuda" if device == "cuda" else "cpu"


def run_neighbours(
    place: Path,
    dataset: str,
    out: Path,
    count: int,
    k: int,
    indices: str | None,
    split: str,
    limit: int | None,
    features: Path | None,
    mode: Mode,
    options: SampleOptions,
    device: str,
    precision: Precision,
    as_json: bool,
) -> None:
    data = Dataset.open(dataset, split)
    if is_run(place):
        if indices is not None:
            raise LvaeError("--indices", "of samples that are drawn now, the first -n are shown", "Leave it out.")
        on = open_device(device, precision)
        try:
            queries = Queries.of_run(place, count, options, on)
        finally:
            on.close()
    else:
        samples = Dataset.open(place)
        queries = Queries.of_dataset(samples, positions_of(indices, len(samples), count))
    network = load_decoder(data, None, place)
    by = None if features is None else open_network(features, mode, choose_device(device if device != "xla" else "cpu"))
    searched = len(data) if limit is None else min(limit, len(data))
    with Bar("searching", searched, "latents") as bar:
        found = near.neighbours(
            queries,
            data,
            k,
            network,
            None if by is None else lambda pictures: by(pictures).pooled,
            limit,
            bar.advance,
        )
    grid, from_source = near.neighbour_grid(data, network, queries, found)
    write_whole(out, png(grid))
    if as_json:
        print_json({**near.as_dict(queries, data, found), "pictures": "source" if from_source else "reconstructions"})
    else:
        nearest = min(one.distance for nearest in found.found for one in nearest)
        click.echo(
            f"{out}: {counted(len(found.found), 'sample')} beside {k} of {counted(found.searched, 'training latent')} "
            f"each; nearest {nearest:.4g}, where training images are {found.typical:.4g} apart"
        )


def run_report(run: Path, out: Path | None, options: ReportOptions, device: str, precision: Precision) -> None:
    target = out or run / "report.html"
    on = open_device(device, precision)
    try:
        with Bar("sampling", sampled(run, options), "samples") as bar:
            subject = opened(run, options, on, bar.advance)
        if not on.is_main:
            return
        say("writing the page: pictures, neighbours, scores")
        size = write_report(subject, target, on)
    finally:
        on.close()
    without = "" if options.dataset is not None else "; --dataset DATASET adds neighbours, reconstructions and scores"
    click.echo(f"{target}: {size / 1e6:.1f} MB, {run} at update {subject.step}{without}")
