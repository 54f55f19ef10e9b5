"""`lvae train`: from options to a loop that runs, and to what a person sees of it."""

import json
import logging
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import click

from lvae.manifests import records
from lvae.manifests.dataset import Dataset
from lvae.manifests.errors import LvaeError
from lvae.manifests.machine import keep_freed_memory
from lvae.manifests.storage.folder import Folder
from lvae.manifests.storage.locks import writing
from lvae.pipeline.progress.console import Bar, say
from lvae.train.data.batches import Placement
from lvae.train.data.checks import check_fits, check_shards, local_copy
from lvae.train.devices.device import Device
from lvae.train.devices.open import open_device
from lvae.train.fit import check_batch, fit
from lvae.train.loop.session import Execution, Watching
from lvae.train.presets import PRESETS
from lvae.train.runs.checkpoints import Checkpoint
from lvae.train.runs.estimates import estimate
from lvae.train.runs.resolve import resolve_config
from lvae.train.runs.run import RunConfig, copy_autoencoder, latest_checkpoint, read_run_if_there

SHORTHANDS = {
    "steps": "updates",
    "batch": "batch",
    "accumulate": "accumulate",
    "seed": "seed",
    "precision": "precision",
}


@dataclass(frozen=True)
class TrainOptions:
    """What a user asks for; None where nothing was said. settings: KEY=VALUE."""

    preset: str | None
    settings: tuple[str, ...]
    steps: int | None
    batch: int | None
    accumulate: int | None
    seed: int | None
    precision: str | None
    device: str
    compiled: bool
    threads: int | None
    placement: Placement
    cache: Path | None
    init: Path | None
    save_every: int
    keep_every: int
    log_every: int
    validate_every: int
    preview_every: int
    preview: Literal["latents", "decoded", "none"]
    dry_run: bool

    def given(self) -> dict[str, str]:
        """What stands behind --set, and the options that are shorter ways to say the same."""
        found = {}
        for text in self.settings:
            name, equals, value = text.partition("=")
            if not equals:
                raise LvaeError(f"--set {text}", "say --set KEY=VALUE")
            found[name] = value
        said = {name: getattr(self, option) for option, name in SHORTHANDS.items()}
        return found | {name: str(value) for name, value in said.items() if value is not None}

    def execution(self) -> Execution:
        return Execution(
            log=self.log_every,
            save=self.save_every,
            validate=self.validate_every,
            preview=self.preview_every,
            keep_for_ever=self.keep_every,
            placement=self.placement,
        )


def train(dataset: str, run: Path, options: TrainOptions) -> bool:
    """Whether the run is finished; otherwise a signal stopped it. Each rank calls this."""
    before = read_run_if_there(run)
    init = latest_checkpoint(options.init) if options.init is not None and before is None else None
    hash_of_init = None if init is None else init.sha256["ema.safetensors"]
    config = resolve_config(Dataset.open(dataset), before, options.preset, options.given(), hash_of_init)
    device = open_device(options.device, config.training.precision, options.compiled, options.threads)
    if not device.is_main:
        logging.disable(logging.ERROR)
    try:
        check_batch(config.training.batch, device)
        if options.dry_run:
            _show(config, device)
            return True
        return _train(dataset, run, config, device, options, init)
    finally:
        device.close()


def _show(config: RunConfig, device: Device) -> None:
    if device.is_main:
        found = estimate(config, device.world * device.parts)
        settings = {name: records.plain(getattr(config, name)) for name in ("preset", "model", "training")}
        made = PRESETS.get(config.preset)
        paper = made and made.hardware and {"hardware": made.hardware, "hours": made.hours}
        click.echo(json.dumps({**settings, "paper": paper, "estimate": asdict(found), "device": str(device)}, indent=1))
        lines = [f"device              {device}", *found.lines()]
        if made is not None and paper:
            lines.append(f"the paper's run     {made.hardware}, {made.hours:g} hours")
        click.echo("\n".join(lines), err=True)


def _train(
    dataset: str, run: Path, config: RunConfig, device: Device, options: TrainOptions, init: Checkpoint | None
) -> bool:
    if device.kind == "cpu":
        keep_freed_memory()
    if device.local_rank == 0:
        local_copy(dataset, options.cache, say)
    device.barrier()
    opened = Dataset.open(local_copy(dataset, options.cache))
    check_fits(opened, config.model)
    weights = None if init is None else init.read("ema")
    if not device.is_main:
        silent = Watching(preview=None if options.preview == "none" else lambda step, latents: None)
        return fit(run, config, opened, device, options.execution(), silent, weights).finished
    check_shards(opened, say if sum(split.shards for split in opened.manifest.splits.values()) > 20 else lambda _: None)
    with writing(Folder(run)), Bar("training", config.training.updates, "updates") as bar:
        say(f"{device}: {config.preset}, {run}")
        copy_autoencoder(opened, run)
        watching = Watching(
            bar.begin, bar.at, lambda step, text: say(f"update {step}: {text}"), _preview(run, opened, options)
        )
        result = fit(run, config, opened, device, options.execution(), watching, weights)
    if result.finished:
        click.echo(f"{run}: {result.step} updates are done")
    else:
        position = result.step * config.training.batch * config.training.accumulate
        say(f"stopped after update {result.step}, at sample {position}; the same command goes on from here")
    return result.finished


def _preview(run: Path, dataset: Dataset, options: TrainOptions) -> Any:
    if options.preview == "none":
        return None
    from lvae.evaluate.pictures.inspect import preview_writer

    return preview_writer(run, dataset, options.preview == "decoded")
