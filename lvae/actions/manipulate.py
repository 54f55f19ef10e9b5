"""What `lvae traverse`, `interpolate`, `outpaint`, `depths` and `inspect RUN` do: open, call the library, write."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import click
import numpy as np

from lvae.actions.output import print_json
from lvae.encode.devices import choose_device
from lvae.evaluate.figures.drawing import png
from lvae.evaluate.manipulation.figures import (
    Figure,
    show_depths,
    show_interpolation,
    show_outpainting,
    show_traversal,
)
from lvae.evaluate.manipulation.loaded_run import InputImage, LoadedRun, encode_files, open_dataset, read_images
from lvae.evaluate.manipulation.operations import (
    ChannelSweep,
    Margins,
    Route,
    Space,
    count_groups_through,
)
from lvae.evaluate.manipulation.parse import check_count, parse_channels, parse_values
from lvae.evaluate.manipulation.rates import Rates, draw_rates, measure
from lvae.evaluate.manipulation.requests import (
    Draws,
    Interpolation,
    Traversal,
    choose_channels,
    pair_images,
    space_values,
)
from lvae.evaluate.manipulation.residuals import measure_residuals
from lvae.evaluate.pictures.decode import write_whole
from lvae.evaluate.pictures.positions import positions_of
from lvae.evaluate.samples.correlated_noise import write_residuals
from lvae.evaluate.samples.options import Convention, guidance_weights, label_of, parse_step
from lvae.manifests import records
from lvae.manifests.errors import LvaeError
from lvae.manifests.manifest import is_dataset
from lvae.manifests.messages import counted
from lvae.manifests.storage.places.marks import mark_npz
from lvae.pipeline.progress.console import Bar, say
from lvae.train.network.choices import UNGUIDED, Guidance
from lvae.train.runs.checkpoints import Checkpoints
from lvae.train.runs.metrics_log import read_metrics
from lvae.train.runs.packaged import run_name
from lvae.train.runs.run import CHECKPOINTS, RunConfig, find_checkpoint, read_run

Posterior = Literal["draw", "mean"]
Weights = Literal["ema", "raw"]


@dataclass(frozen=True, kw_only=True)
class Options:
    """What the four commands share. label: the class of image files, or of what is drawn."""

    seed: int
    arrays: Path | None
    split: str
    weights: Weights
    decoder: str | None
    device: str
    indices: str | None
    label: str | None


@dataclass(frozen=True, kw_only=True)
class GuidedOptions(Options):
    guidance_mean: str | None
    guidance_variance: str | None
    guidance: str | None
    convention: Convention


@dataclass(frozen=True, kw_only=True)
class TraverseOptions(GuidedOptions):
    channels: str | None
    steps: int
    values: str | None
    index: int
    temperature: float
    images: int


@dataclass(frozen=True, kw_only=True)
class InterpolateOptions(Options):
    steps: int
    pairs: Literal["chain", "all"]
    space: Space | Literal["auto"]
    path: Route
    posterior: Posterior


@dataclass(frozen=True, kw_only=True)
class OutpaintOptions(GuidedOptions):
    left: int | None
    right: int | None
    top: int | None
    bottom: int | None
    draws: int
    posterior: Posterior


@dataclass(frozen=True, kw_only=True)
class DepthsOptions(GuidedOptions):
    every_group: bool
    nats: Path | None
    beside: tuple[tuple[str, str], ...]
    images: int
    posterior: Posterior


@dataclass(frozen=True, kw_only=True)
class InspectOptions:
    seed: int
    split: str
    weights: Weights
    device: str
    images: int
    as_json: bool


@dataclass(frozen=True)
class ResidualsOptions:
    count: int
    split: str
    step: str
    seed: int
    weights: Weights
    device: str


def run_residuals(run: Path, dataset: str, options: ResidualsOptions) -> None:
    """Measure what the run's model leaves out of latents, and keep its covariance in the run."""
    step, group = parse_step(options.step), "ema" if options.weights == "ema" else "model"
    checkpoint = find_checkpoint(run, step, (group,))
    loaded = LoadedRun.open(run, options.weights, None, choose_device(options.device), checkpoint.step)
    found = open_dataset(loaded, dataset, options.split)
    count = min(options.count, len(found))
    with Bar("measuring residuals", count, "latents") as bar:
        covariance = measure_residuals(loaded, found, count, options.seed, bar.advance)
    write_residuals(run, checkpoint.sha256[f"{group}.safetensors"], covariance)
    share = float(np.diag(covariance).mean())
    found_out = f"what is left out has {share:.2f} of the variance predicted"
    click.echo(f"{run}: update {checkpoint.step}, over {count} latents: {found_out}")


def run_traverse(run: Path, sources: Sequence[str], out: Path, options: TraverseOptions) -> None:
    loaded = _load(run, options, options.decoder)
    label, guidance = _parse_label(loaded, options.label), _read_guidance(loaded, options)
    values = space_values(options.steps) if options.values is None else parse_values(options.values)
    rates = None
    if options.channels is None:
        if len(sources) != 1 or not is_dataset(sources[0]):
            advice = "give one DATASET after RUN, or name two channels: --channels 0:3,1:5"
            raise LvaeError("rates are measured over a dataset", advice)
        rates = _measure(loaded, sources[0], options)
    first, second = parse_channels(options.channels) if rates is None else choose_channels(rates)
    upsampler = loaded.model.config.low_resolution_factor is not None
    image = _open_images(loaded, sources, options)[0] if upsampler else None
    across, down = ChannelSweep(*first, values), ChannelSweep(*second, values)
    asked = Traversal(across, down, options.index, label, image, options.temperature)
    with Bar("traversing", len(values) ** 2, "samples") as bar:
        figure = show_traversal(loaded, asked, Draws(options.seed, guidance=guidance), rates, bar.advance)
    what = f"channel {first[1]} of group {first[0]} across, channel {second[1]} of group {second[0]} down"
    _write(figure, out, options.arrays, f"{what}, {values[0]:g} to {values[-1]:g}")


def run_interpolate(run: Path, sources: Sequence[str], out: Path, options: InterpolateOptions) -> None:
    loaded = _load(run, options, options.decoder)
    images = _open_images(loaded, sources, options)
    pairs = pair_images(len(images), options.pairs)
    asked = Interpolation(pairs, options.steps, None if options.space == "auto" else options.space, options.path)
    with Bar("interpolating", check_count(len(pairs) * (options.steps + 2)), "pictures") as bar:
        draws = Draws(options.seed, options.posterior == "mean")
        figure = show_interpolation(loaded, images, asked, draws, bar.advance)
    _write(
        figure,
        out,
        options.arrays,
        f"{counted(len(pairs), 'pair')} of {counted(len(images), 'image')}, {counted(options.steps, 'step')} between",
    )


def run_outpaint(run: Path, sources: Sequence[str], out: Path, options: OutpaintOptions) -> None:
    loaded = _load(run, options, options.decoder)
    images = _open_images(loaded, sources, options)
    sides = (options.left, options.right, options.top, options.bottom)
    margins = Margins(*(side or 0 for side in sides))
    if sides == (None, None, None, None):
        margins = Margins(right=loaded.model.config.resolution)
    draws = Draws(options.seed, options.posterior == "mean", _read_guidance(loaded, options))
    with Bar("outpainting", check_count(len(images) * options.draws), "pictures") as bar:
        figure = show_outpainting(loaded, images, margins, options.draws, draws, bar.advance)
    size = figure.arrays["latents"].shape[-2:]
    _write(figure, out, options.arrays, f"{counted(len(images), 'image')}, outpainted to {size[0]}x{size[1]} latents")


def run_depths(run: Path, sources: Sequence[str], out: Path, options: DepthsOptions) -> None:
    if options.beside and options.nats is None:
        raise LvaeError("--beside", "belongs to --nats FILE.png, the chart that it adds a model to", "Give both.")
    loaded = _load(run, options, options.decoder)
    images = _open_images(loaded, sources, options)
    rates = None
    if len(sources) == 1 and is_dataset(sources[0]):
        rates = _measure(loaded, sources[0], options)
    if options.nats is not None and rates is None:
        raise LvaeError("--nats", "rates are measured over a DATASET, and images were given", "Give a dataset.")
    config = loaded.model.config
    columns = (sum(config.groups) if options.every_group else len(count_groups_through(config))) + 1
    draws = Draws(options.seed, options.posterior == "mean", _read_guidance(loaded, options))
    with Bar("decoding", check_count(len(images) * columns), "pictures") as bar:
        figure = show_depths(loaded, images, options.every_group, draws, rates, bar.advance)
    _write(figure, out, options.arrays, f"{counted(len(images), 'image')}, {counted(columns, 'depth')} each")
    if options.nats is not None and rates is not None:
        measured = [(loaded, rates)]
        for other, dataset in options.beside:
            another = _load(Path(other), options)
            measured.append((another, _measure(another, dataset, options)))
        panels = [
            (f"{one.run.name} ({one.config.preset})", one.config.dataset.image.size, its) for one, its in measured
        ]
        write_whole(options.nats, draw_rates(panels))
        click.echo(f"{options.nats}: nats by resolution")


def run_inspect(run: Path, dataset: str | None, options: InspectOptions) -> None:
    """What a run is, and its rates: measured over a dataset, or the last ones that training wrote down."""
    config, found = read_run(run), Checkpoints(run / CHECKPOINTS).latest()
    step = None if found is None else found.step
    description = {"run": records.plain(config), "update": step}
    if dataset is not None:
        rates = _measure(_load(run, options), dataset, options)
        if options.as_json:
            print_json({**description, "rates": rates.to_dict()})
        else:
            weights = "averaged (the log's rates are by those of each update)"
            weights = weights if options.weights == "ema" else "as last trained"
            click.echo(f"{_describe(run, config, step)}\n  weights      {weights}\n\n{rates.format_table()}")
        return
    lines = read_metrics(run)
    per_group = lines[-1]["rate_per_group_nats"] if lines else None
    if options.as_json:
        print_json({**description, "rate_per_group_nats": per_group})
        return
    click.echo(_describe(run, config, step))
    if per_group is not None:
        at = f"update {lines[-1]['step']}, by its weights (not averaged)"
        click.echo(f"\nrate of each group in the log, {at}, nats an image")
        for number, (resolution, nats) in enumerate(zip(config.model.group_resolutions, per_group, strict=True)):
            click.echo(f"{number:>5}  {f'{resolution}x{resolution}':>7}  {nats:9.2f}" if nats is not None else "")
    say(f"with a dataset, rates by channel and active units are measured: lvae inspect {run_name(run)} DATASET")


def _describe(run: Path, config: RunConfig, step: int | None) -> str:
    model, data = config.model, config.dataset
    groups = ", ".join(f"{count} of {r}x{r}" for r, count in zip(model.resolutions, model.groups, strict=True))
    shape = "x".join(map(str, data.shape))
    prior = "hierarchical" if model.hierarchical_prior else "N(0, I)"
    lines = [
        f"{run_name(run)}: {config.preset}, " + ("no checkpoint yet" if step is None else f"update {step}"),
        f"  latents      {shape}, of {data.autoencoder.name}, images of {data.image.size} px",
        f"  groups       {sum(model.groups)}: {groups}",
        f"  prior        {prior}, {f'{model.classes} classes' if model.classes else 'unconditional'}",
        f"  attention    {model.attention}",
    ]
    return "\n".join(lines)


def _load(run: Path, options: Options | InspectOptions, decoder: str | None = None) -> LoadedRun:
    loaded = LoadedRun.open(run, options.weights, decoder, choose_device(options.device))
    if loaded.network is None:
        say(f"warning: {run_name(run)} has no weights of its autoencoder; pictures are latents in false colours")
    return loaded


def _measure(loaded: LoadedRun, path: str, options: TraverseOptions | DepthsOptions | InspectOptions) -> Rates:
    dataset = open_dataset(loaded, path, options.split)
    count = min(len(dataset), options.images)
    with Bar("measuring rates", count, "images") as bar:
        return measure(loaded, dataset, count, options.seed, bar.advance)


def _open_images(loaded: LoadedRun, sources: Sequence[str], options: Options) -> list[InputImage]:
    """Images of one dataset, or image files."""
    if not sources:
        raise LvaeError("", "name a DATASET after RUN, or image files")
    if len(sources) == 1 and is_dataset(sources[0]):
        dataset = open_dataset(loaded, sources[0], options.split)
        text = options.indices or f"0-{min(4, len(dataset)) - 1}"
        return read_images(loaded, dataset, positions_of(text, len(dataset), None))
    if options.indices:
        raise LvaeError("--indices", "are positions in a DATASET, and image files were given", "Leave the option out.")
    for source in sources:
        if Path(source).is_dir():
            raise LvaeError(source, "is a folder without a dataset", "Give one DATASET, or image files.")
    return encode_files(loaded, [Path(source) for source in sources], _parse_label(loaded, options.label))


def _parse_label(loaded: LoadedRun, text: str | None) -> int:
    """A class of a conditional model by number or name; -1 for none."""
    if text is None or text == "none":
        return -1
    return label_of(text, loaded.classes, loaded.config.dataset.classes)


def _read_guidance(loaded: LoadedRun, options: GuidedOptions) -> Guidance:
    mean, variance = guidance_weights(
        loaded.model.config, options.guidance_mean, options.guidance_variance, options.guidance, options.convention
    )
    return Guidance(mean, variance) if any((*mean, *variance)) else UNGUIDED


def _write(figure: Figure, out: Path, arrays: Path | None, what: str) -> None:
    write_whole(out, png(figure.picture))
    if arrays is not None:
        buffer = io.BytesIO()
        np.savez(buffer, **figure.arrays)  # type: ignore[arg-type]
        write_whole(arrays, mark_npz(buffer.getvalue()))
    click.echo(f"{out}: {what}" + (f"; {arrays}: the arrays" if arrays is not None else ""))
