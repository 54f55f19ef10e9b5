"""What `lvae sweep`, `neighbours` and `report` do: open, call the library, say what came out."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import click

from lvae.actions.output import print_json
from lvae.encode.devices import choose_device
from lvae.evaluate.analysis import neighbour_figures
from lvae.evaluate.analysis import neighbours as near
from lvae.evaluate.analysis.neighbours import Queries, Search, is_run
from lvae.evaluate.analysis.sweep import SWEEP, Sampling, SweepRequest, sweep
from lvae.evaluate.analysis.sweep_figures import format_table, write_pictures
from lvae.evaluate.analysis.sweep_scoring import ScoringOptions, choose_scoring
from lvae.evaluate.analysis.sweep_settings import combine_settings, parse_numbers
from lvae.evaluate.features.feature_network import open_network
from lvae.evaluate.figures.drawing import png
from lvae.evaluate.inception import Mode
from lvae.evaluate.pictures.decode import load_decoder, write_whole
from lvae.evaluate.pictures.positions import positions_of
from lvae.evaluate.report.compare import write_comparison
from lvae.evaluate.report.inputs import ReportOptions, count_samples, open_inputs
from lvae.evaluate.report.write import write_report
from lvae.evaluate.samples.draw import SampleOptions
from lvae.manifests import records
from lvae.manifests.dataset import Dataset
from lvae.manifests.errors import LvaeError
from lvae.manifests.machine import keep_freed_memory
from lvae.manifests.messages import counted
from lvae.pipeline.progress.console import Bar, say
from lvae.train.devices.device import Device
from lvae.train.devices.open import AnyPrecision, open_device
from lvae.train.runs.packaged import run_name
from lvae.train.runs.run import read_run

SCORED = 1000  # samples of a setting, where they are scored


@dataclass(frozen=True)
class SweepOptions:
    """What `lvae sweep` is asked for. sampling: its guidance, temperature and count are the sweep's."""

    sampling: SampleOptions
    scoring: ScoringOptions
    means: str | None
    variances: str | None
    temperatures: str | None
    output_temperatures: str | None
    count: int | None
    pictures: int
    repeats: int
    mean_at_1x1: bool
    device: str
    precision: AnyPrecision
    batch: int
    as_json: bool


@dataclass(frozen=True)
class NeighboursOptions:
    """What `lvae neighbours` is asked for. sampling: of samples that are drawn from a RUN."""

    sampling: SampleOptions
    count: int
    k: int
    indices: str | None
    split: str
    limit: int | None
    features: Path | None
    mode: Mode
    device: str
    precision: AnyPrecision
    as_json: bool


@contextmanager
def _open_device(kind: str, precision: AnyPrecision) -> Iterator[Device]:
    device = open_device(kind, precision, purpose="sampling")
    if device.kind == "cpu":
        keep_freed_memory()
    try:
        yield device
    finally:
        device.close()


def run_sweep(run: Path, out: Path, options: SweepOptions) -> None:
    settings = combine_settings(
        read_run(run).model,
        parse_numbers("--means", options.means),
        parse_numbers("--variances", options.variances),
        parse_numbers("--temperatures", options.temperatures),
        parse_numbers("--output-temperatures", options.output_temperatures) or (),
    )
    scored = options.scoring.reference is not None
    count = options.count or (max(SCORED, options.pictures) if scored else options.pictures)
    request = SweepRequest(settings, count, options.pictures, options.repeats, options.mean_at_1x1)
    with _open_device(options.device, options.precision) as device:
        scoring = choose_scoring(options.scoring, count, options.sampling.seed, device.kind)
        old = (out / SWEEP).read_bytes() if (out / SWEEP).exists() else b""
        with Bar("sweeping", len(settings) * options.repeats * count, "samples") as bar:
            sampling = Sampling(options.sampling, device, options.batch)
            record = sweep(run, out, request, sampling, scoring, bar.advance)
        if not device.is_main:
            return
        if (out / SWEEP).read_bytes() != old or not (out / "sweep.png").exists():
            with Bar("decoding", len(settings), "settings") as bar:
                write_pictures(run, out, record, options.pictures, bar.advance)
    if options.as_json:
        print_json(records.plain(record))
        return
    if record.metrics:
        click.echo(format_table(record))
        if record.warning is not None:
            say(f"warning: {record.warning}")
    where = f", scored in {out / 'scores.png'}" if record.metrics and (out / "scores.png").exists() else ""
    seeds = f" from {counted(options.repeats, 'seed')} each" if options.repeats > 1 else ""
    click.echo(
        f"{out / 'sweep.png'}: {counted(len(settings), 'setting')}, {counted(count, 'sample')}{seeds} "
        f"of {run_name(run)}, update {record.step}{where}; all numbers in {out / SWEEP}"
    )


def run_neighbours(place: Path, dataset: str, out: Path, options: NeighboursOptions) -> None:
    data = Dataset.open(dataset, options.split)
    if is_run(place):
        if options.indices is not None:
            raise LvaeError("--indices", "of samples that are drawn now, the first -n are shown", "Leave it out.")
        with _open_device(options.device, options.precision) as device:
            queries = Queries.of_run(place, options.count, options.sampling, device)
    else:
        samples = Dataset.open(place)
        queries = Queries.of_dataset(samples, positions_of(options.indices, len(samples), options.count))
    warning = near.describe_strange(place, data)
    if warning is not None:
        say(warning)
    network = load_decoder(data, None, place)
    features = None
    if options.features is not None:
        device_kind = choose_device(options.device if options.device != "xla" else "cpu")
        features = open_network(options.features, options.mode, device_kind)
    searched = len(data) if options.limit is None else min(options.limit, len(data))
    with Bar("searching", searched, "latents") as bar:
        found = near.find_neighbours(
            queries,
            data,
            Search(options.k, options.limit),
            network,
            None if features is None else lambda pictures: features(pictures).pooled,
            bar.advance,
        )
    grid, from_source = neighbour_figures.draw_neighbours(data, network, queries, found)
    write_whole(out, png(grid))
    if options.as_json:
        print_json(
            {
                **neighbour_figures.to_dict(queries, data, found),
                "pictures": "source" if from_source else "reconstructions",
                "warnings": [] if warning is None else [warning],
            }
        )
    else:
        click.echo(neighbour_figures.judge(queries.numbers, found))
        click.echo(
            f"{out}: {counted(len(found.found), 'sample')} beside {options.k} of "
            f"{counted(found.searched, 'training latent')} each; nearest {min(found.nearest):.3g}, where training "
            f"images are {found.typical:.3g} apart"
        )


def run_report(run: Path, target: Path, options: ReportOptions, device: str, precision: AnyPrecision) -> None:
    with _open_device(device, precision) as on:
        with Bar("sampling", count_samples(run, options), "samples") as bar:
            inputs = open_inputs(run, options, on, bar.advance)
        if not on.is_main:
            return
        say("writing the page: pictures, neighbours, scores")
        size = write_report(inputs, target, on)
    without = "" if options.dataset is not None else "; --dataset DATASET adds neighbours, reconstructions and scores"
    click.echo(f"{target}: {size / 1e6:.1f} MB, {run} at update {inputs.step}{without}")


def run_comparison(
    runs: Sequence[Path], target: Path, options: ReportOptions, device: str, precision: AnyPrecision
) -> None:
    """Several runs on one page, each looked at as its own report does."""
    with _open_device(device, precision) as on:
        total = sum(count_samples(run, options) for run in runs)
        with Bar("sampling", total, "samples") as bar:
            inputs = [open_inputs(run, options, on, bar.advance) for run in runs]
        if not on.is_main:
            return
        say("writing the page: pictures, neighbours, scores")
        size = write_comparison(inputs, target)
    without = "" if options.dataset is not None else "; --dataset DATASET adds verdicts and scores"
    click.echo(f"{target}: {size / 1e6:.1f} MB, {counted(len(runs), 'run')} beside each other{without}")
