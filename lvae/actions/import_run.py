"""`lvae import`: published files, and what `lvae export` wrote, as a RUN that every other command takes."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import click
import numpy as np
from torch import Tensor

from lvae.actions.export_run import Exported, read_exported
from lvae.encode.autoencoder import build, load, load_file
from lvae.encode.catalogue.presets import PRESETS as ENCODING_PRESETS
from lvae.encode.catalogue.published import find_weights
from lvae.encode.crops import CROPS
from lvae.encode.devices import choose_device
from lvae.encode.networks.base import Autoencoder, save_safetensors
from lvae.evaluate.manipulation.import_checks import SAMPLES, check_imported, explain_scoring
from lvae.evaluate.manipulation.loaded_run import LoadedRun, open_dataset
from lvae.evaluate.manipulation.rates import measure
from lvae.manifests import records
from lvae.manifests.errors import LvaeError
from lvae.manifests.manifest import WRITTEN_BY, Statistics
from lvae.manifests.parts.plan import UNKNOWN, AutoencoderRecord, ImageSettings
from lvae.manifests.statistics import Normalization
from lvae.manifests.storage.folder import TEMPORARY, Folder, file_sha256
from lvae.manifests.storage.given_files import read_given_file
from lvae.pipeline.progress.console import Bar, say
from lvae.train.config import ModelConfig, TrainConfig
from lvae.train.presets import NAMES, PRESETS, Preset, model_preset
from lvae.train.published import build_published
from lvae.train.published_weights.files import PublishedFile, open_published
from lvae.train.runs.checkpoints import Checkpoints
from lvae.train.runs.run import CHECKPOINTS, DatasetRecord, RunConfig, read_run_if_there, write_run

OURS = {CHECKPOINTS, "weights", TEMPORARY}  # what an interrupted import leaves behind
CLIP = 4.0  # of normalized latents: what the published trainer fed


@dataclass(frozen=True)
class ImportOptions:
    """What a user knows beside the file; None where nothing was said."""

    preset: str | None = None
    config: Path | None = None
    autoencoder: str | None = None
    weights: str | None = None
    shift: float | None = None
    scale: float | None = None
    size: int | None = None


@dataclass(frozen=True)
class Imported:
    """A run to be written: its settings, groups of tensors, the autoencoder's weights, and what to say of it all."""

    config: RunConfig
    step: int
    groups: Mapping[str, Mapping[str, Tensor]]
    network: Autoencoder | None
    remarks: tuple[str, ...]


def run_import(
    published: Path, run: Path, options: ImportOptions, check: bool, against: str | None, device: str
) -> None:
    found = open_import(published, options)
    for remark in found.remarks:
        say(remark)
    click.echo(write(run, found))
    if check:
        _check(run, against, device)


def open_import(path: Path, options: ImportOptions) -> Imported:
    """Read a published file, or an export of ours."""
    if not path.exists():
        raise LvaeError(path, "no such file", "Give a published checkpoint, or what 'lvae export' wrote.")
    exported = read_exported(path)
    return _open_published(path, options) if exported is None else _ours(path, exported)


def _ours(path: Path, exported: Exported) -> Imported:
    name = exported.run.dataset.autoencoder.weights_file
    beside = None if name is None else exported.autoencoder
    network = None if beside is None else load(exported.run.dataset.autoencoder.architecture, str(beside))
    remarks = (f"an export of {exported.run.preset}, update {exported.step}, {exported.weights} weights",)
    groups = {"ema": exported.state} | ({"model": exported.state} if exported.weights == "raw" else {})
    return Imported(exported.run, exported.step, groups, network, remarks)


def _open_published(path: Path, options: ImportOptions) -> Imported:
    file = open_published(path)
    config = _config(options)
    model = build_published(file.preferred, file, str(path), config)
    name = options.preset or _preset_of(model.config)
    preset = None if name is None else PRESETS.get(name)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    remarks = [
        f"{file.layout} layout, {file.about}" + ("" if file.step is None else f", update {file.step}"),
        f"{parameters:,} parameters: {name or 'no preset has these shapes'}",
    ]
    groups: dict[str, Mapping[str, Tensor]] = {"ema": model.state_dict()}
    if file.layout == "flax" and file.raw is not None:
        raw = build_published(file.raw, file, str(path), model.config) if file.ema is not None else model
        groups["model"] = raw.state_dict()
    network = _load_autoencoder(path, file, preset, options)
    record, told = _autoencoder_record(network, preset, model.config)
    remarks += told
    normalization, told = _normalization(model.config, preset, options)
    remarks += told
    size = options.size or model.config.resolution * record.downsampling_factor
    known = ENCODING_PRESETS.get(name or "")
    crop = "adm" if known is None else known.crop
    dataset = DatasetRecord(
        id=records.sha256_of({"imported": file_sha256(path)}),
        origin="images",
        count=0,
        shape=(model.config.channels, model.config.resolution, model.config.resolution),
        image=ImageSettings(size, crop, CROPS[crop], False, (-1.0, 1.0)),
        autoencoder=record,
        classes=None,
        statistics=_empty_statistics(normalization),
        normalization=normalization,
    )
    training = TrainConfig() if preset is None else preset.training
    run = RunConfig("latent-vae-run", 1, WRITTEN_BY, name or "imported", model.config, training, dataset, None)
    return Imported(run, file.step or 0, groups, network, tuple(remarks))


def _config(options: ImportOptions) -> ModelConfig | None:
    """The architecture that a user names; None to find it by the shapes."""
    if options.config is not None:
        text = read_given_file(options.config)
        content = records.loads(text, str(options.config))
        inner = content.get("model", content) if isinstance(content, dict) else content
        return records.from_plain(ModelConfig, inner, str(options.config))
    return None if options.preset is None else model_preset(options.preset)


def _preset_of(config: ModelConfig) -> str | None:
    return next((name for name in NAMES if name in PRESETS and _published_form(PRESETS[name]) == config), None)


def _published_form(preset: Preset) -> ModelConfig:
    return replace(preset.model, attention="published")


def _load_autoencoder(
    path: Path, file: PublishedFile, preset: Preset | None, options: ImportOptions
) -> Autoencoder | None:
    """The one in the file, or the one that a user names, or the preset's where it is on this machine."""
    if options.weights is not None:
        return load(options.autoencoder, options.weights) if options.autoencoder else load_file(options.weights)
    if file.autoencoder:
        network = load_file(path)
        if options.autoencoder is not None and build(options.autoencoder).architecture != network.architecture:
            raise LvaeError(path, f"holds {network.name}, not {options.autoencoder}", "Leave --autoencoder out.")
        return network
    name = options.autoencoder or (None if preset is None or preset.autoencoder == "any" else preset.autoencoder)
    if name is None:
        return None
    if name.startswith("pixels"):
        return load(name)
    here = find_weights(name)
    if here is None and options.autoencoder is not None:
        return load(name)  # which says how its weights are to be had
    return None if here is None else load(name, str(here))


def _autoencoder_record(
    network: Autoencoder | None, preset: Preset | None, config: ModelConfig
) -> tuple[AutoencoderRecord, list[str]]:
    if network is not None:
        if network.latent_channels != config.channels:
            raise LvaeError(
                "",
                (f"{network.name} has {network.latent_channels} latent channels, and the model {config.channels}"),
                "Name the autoencoder that it was trained with.",
            )
        pixels = network.architecture["kind"] == "pixels"
        sha256 = None if pixels else network.fingerprint
        record = AutoencoderRecord(
            network.name, network.architecture, sha256, network.downsampling_factor, network.latent_channels, "mode"
        )
        return record, [f"autoencoder {network.name}" + ("" if pixels else f", weights {str(sha256)[:12]}")]
    name = "unknown" if preset is None or preset.autoencoder == "any" else preset.autoencoder
    described = None if name == "unknown" else build(name)
    record = AutoencoderRecord(
        name=name,
        architecture={} if described is None else described.architecture,
        weights_sha256=UNKNOWN,
        downsampling_factor=1 if described is None else described.downsampling_factor,
        latent_channels=config.channels,
        store="mode",
    )
    fetch = f" ('lvae autoencoder fetch {name}' brings them)" if described is not None else ""
    return record, [
        f"warning: no autoencoder's weights are in the file or at hand{fetch}: samples stay latents until you import "
        "with --weights FILE, or give it to 'lvae decode'"
    ]


def _normalization(
    config: ModelConfig, preset: Preset | None, options: ImportOptions
) -> tuple[Normalization, list[str]]:
    """Shift and scale of the published trainer are one number each."""
    shift, scale = options.shift, options.scale
    if preset is not None and preset.scale is not None:
        shift = preset.shift if shift is None else shift
        scale = preset.scale if scale is None else scale
    if shift is None and scale is None:
        kept = Normalization("none", (0.0,) * config.channels, (1.0,) * config.channels)
        return kept, ["warning: shift and scale of its latents are unknown: taken as 0 and 1. Give --shift and --scale"]
    shift, scale = 0.0 if shift is None else shift, 1.0 if scale is None else scale
    if not (np.isfinite([shift, scale]).all() and scale > 0):
        raise LvaeError(f"--shift {shift:g} --scale {scale:g}", "must be finite, and the scale above 0")
    found = Normalization("scalar", (shift,) * config.channels, (scale,) * config.channels)
    return found, [f"latents = (raw - {shift:g}) / {scale:g}"]


def _empty_statistics(normalization: Normalization) -> Statistics:
    """No data is at hand: what the constants say latents are like."""
    shift, scale = np.array(normalization.shift), np.array(normalization.scale)
    low, high = (tuple(map(float, shift + side * CLIP * scale)) for side in (-1, 1))
    return Statistics(
        "no data: constants", 0, normalization.shift, normalization.scale, low, high, computed_from="constants"
    )


def write(run: Path, found: Imported) -> str:
    """Make the run; what it came to in a sentence. LvaeError where there is another one."""
    folder, there = Folder(run), read_run_if_there(run)
    if there is not None:
        if records.dumps(there) != records.dumps(found.config):
            raise LvaeError(run, "holds another run", "Name another folder.")
        if Checkpoints(run / CHECKPOINTS).latest() is not None:
            return f"{run}: is there already"
    elif run.exists() and (strange := sorted({path.name for path in run.iterdir()} - OURS)):
        raise LvaeError(run, f"holds something else than a run ({strange[0]})", "Name another folder.")
    name = found.config.dataset.autoencoder.weights_file
    if found.network is not None and name is not None:
        folder.write(name, save_safetensors(found.network))
    Checkpoints(run / CHECKPOINTS).save(found.step, found.groups, {"step": found.step, "position": 0})
    write_run(run, found.config)
    if (run / TEMPORARY).is_dir() and not any((run / TEMPORARY).iterdir()):
        (run / TEMPORARY).rmdir()
    return f"{run}: {found.config.preset}, ready for 'lvae sample {run} SAMPLES'"


def _check(run: Path, against: str | None, device: str) -> None:
    loaded = LoadedRun.open(run, device=choose_device(device))
    dataset = None if against is None else open_dataset(loaded, against)
    with Bar("sampling", SAMPLES, "samples") as bar:
        rates = None if dataset is None else measure(loaded, dataset, SAMPLES)
        findings = check_imported(loaded, dataset, rates, bar.advance)
    for finding in findings:
        click.echo(f"{finding.what}: {finding.found} (expected: {finding.expected}) {finding.verdict}")
    for line in explain_scoring(loaded.config.preset, str(run)):
        click.echo(line)
    if wrong := [finding for finding in findings if finding.verdict == "NOT as expected"]:
        raise LvaeError(run, f"{wrong[0].what} not as expected", "Is this the file that it claims to be?")
