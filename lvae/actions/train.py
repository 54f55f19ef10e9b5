"""`lvae train`: from options to a loop that runs, and to what a person sees of it."""

import json
import logging
import sys
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import click

from lvae.manifests import records
from lvae.manifests.dataset import Dataset
from lvae.manifests.errors import LvaeError
from lvae.manifests.machine import keep_freed_memory
from lvae.manifests.messages import counted
from lvae.manifests.storage.folder import Folder
from lvae.manifests.storage.locks import writing
from lvae.pipeline.progress.console import Bar, say
from lvae.train.data.checks import check_fits, check_shards, local_copy
from lvae.train.data.sources import DataPlan, Placement, plan_data
from lvae.train.devices.device import Device, ReducePrecision
from lvae.train.devices.open import make_deterministic, open_device
from lvae.train.fit import check_batch, fit
from lvae.train.loop.parameters import exchanged_bytes
from lvae.train.loop.session import Execution, Watching
from lvae.train.presets import PRESETS
from lvae.train.runs.boards import check_wandb, open_boards
from lvae.train.runs.checkpoints import Checkpoint, Checkpoints
from lvae.train.runs.classes import count_labels, match_classes
from lvae.train.runs.config_file import ConfigFile, read_config_file, write_config_file
from lvae.train.runs.continuation import continue_on, describe_change
from lvae.train.runs.estimates import (
    Memory,
    choose_micro_batch,
    estimate,
    latent_flop,
    measure_memory,
    micro_batch_of,
    on_meta,
)
from lvae.train.runs.fine_tuning import weights_that_fit
from lvae.train.runs.metrics_log import read_metrics
from lvae.train.runs.resolve import resolve_config
from lvae.train.runs.run import (
    CHECKPOINTS,
    ExecutionRecord,
    RunConfig,
    copy_autoencoder,
    latest_checkpoint,
    read_run,
    read_run_if_there,
)
from lvae.train.runs.settings import SHORTHANDS, merge_settings, parse_pairs
from lvae.train.runs.trial import estimate_time


@dataclass(frozen=True)
class TrainOptions:
    """What a user asks for; None where nothing was said. settings: KEY=VALUE.

    meanings: of the options that a file of settings has, by their names in it: their names here, and their help.
    """

    preset: str | None
    config: Path | None
    settings: tuple[str, ...]
    overrides: tuple[str, ...]
    steps: int | None
    batch: int | None
    accumulate: int | None
    micro_batch: int | None
    minutes: float | None
    seed: int | None
    precision: str | None
    reduce_precision: ReducePrecision
    device: str
    compiled: bool | None
    deterministic: bool
    threads: int | None
    placement: Placement
    cache: Path | None
    init: Path | None
    continue_on: str | None
    save_every: int
    keep_every: int
    log_every: int
    validate_every: int
    patience: int
    preview_every: int
    preview: Literal["latents", "decoded", "none"]
    profile: int
    wandb: str | None
    dry_run: bool
    as_json: bool
    meanings: dict[str, tuple[str, str]]

    def given(self, file: ConfigFile | None) -> dict[str, str]:
        """What stands in a file, behind --set, and in options that are shorter ways to say the same: later ones win."""
        options = {option: getattr(self, option) for option in SHORTHANDS}
        return merge_settings({} if file is None else file.settings, self.settings, options)

    def by_name(self) -> dict[str, Any]:
        """The options that a file of settings has."""
        found = {name: getattr(self, field) for name, (field, _) in self.meanings.items()}
        return {name: str(value) if isinstance(value, Path) else value for name, value in found.items()}

    def read_file(self) -> ConfigFile | None:
        """LvaeError where it is not there, but for a dry run, which writes it."""
        if self.config is None or (self.dry_run and not self.config.exists()):
            return None
        return read_config_file(self.config)

    def execution(self, latent_flop: int) -> Execution:
        return Execution(
            latent_flop=latent_flop,
            minutes=self.minutes,
            log=self.log_every,
            save=self.save_every,
            validate=self.validate_every,
            preview=self.preview_every,
            keep_for_ever=self.keep_every,
            placement=self.placement,
            patience=self.patience,
            profile=self.profile,
        )


@dataclass(frozen=True)
class Trained:
    """finished: or its minutes are over; otherwise a signal stopped it. is_main: whether this process speaks."""

    finished: bool
    is_main: bool


def train(dataset: str, run: Path, options: TrainOptions) -> Trained:
    """Train a run, or show what would be done. Each rank calls this."""
    check_wandb(options.wandb)
    before, dataset = read_run_if_there(run), options.continue_on or dataset
    begun = before is not None and bool(Checkpoints(run / CHECKPOINTS).steps())
    init = latest_checkpoint(options.init, ("ema",)) if options.init is not None and not begun else None
    hash_of_init = None if init is None else init.sha256["ema.safetensors"]
    if before is not None and not begun and hash_of_init != before.init:
        problem = "was to begin with other weights, and has no checkpoint yet"
        raise LvaeError(run, problem, "Give the --init that it had, or name another folder.")
    overrides = parse_pairs("--override", options.overrides)
    file = options.read_file()
    name = options.preset or (None if file is None else file.preset)
    opened = Dataset.open(dataset)
    config = resolve_config(opened, before, name, options.given(file), hash_of_init, overrides)
    if options.continue_on is not None:
        config = _continue_on(config, before, run, opened)
    if options.deterministic:
        make_deterministic()
    reduced = options.reduce_precision
    device = open_device(
        options.device, config.training.precision, options.compiled, options.threads, reduce_precision=reduced
    )
    if not device.is_main:
        logging.disable(logging.ERROR)
    elif reduced != "float32" and device.world == 1:
        say("--reduce-precision: there is one process, and no rank to send gradients to; without effect here")
    try:
        check_batch(config.training.update_size, device)
        config, memory = _choose_execution(config, options, device)
        if options.dry_run:
            streamed = opened.folder.remote and options.cache is None
            data = plan_data(opened, device, config.training, config.model.classes, options.placement, streamed)
            _show(config, device, memory, data, [] if before is None else read_metrics(run), options.as_json)
            if options.config is not None and device.is_main and not options.config.exists():
                meanings = {name: meaning for name, (_, meaning) in options.meanings.items()}
                write_config_file(options.config, config, options.by_name(), meanings)
                say(f"{options.config}: written, with every setting; give it to --config")
            return Trained(True, device.is_main)
        return Trained(_train(dataset, run, config, device, options, init), device.is_main)
    finally:
        device.close()


def _continue_on(config: RunConfig, before: RunConfig | None, run: Path, dataset: Dataset) -> RunConfig:
    where = f"--continue-on {dataset.folder}"
    if before is None:
        advice = f"Begin it: 'lvae train {dataset.folder} {run}'."
        raise LvaeError(where, f"{run} is no run yet that could go on", advice)
    found = continue_on(config, before, run, dataset)
    done = max(Checkpoints(run / CHECKPOINTS).steps(), default=0)
    if found.new_overrides() and done >= config.training.updates:
        problem = f"all {counted(done, 'update')} of {run} are done"
        raise LvaeError(where, problem, f"Say --steps {2 * done}, for example, to go on.")
    return found


def _choose_execution(config: RunConfig, options: TrainOptions, device: Device) -> tuple[RunConfig, Memory]:
    """The run with its micro-batch: the one asked for, the one it had on equal hardware, or what fits the device."""
    devices = device.world * device.parts
    training = replace(config.training, precision=device.precision)
    each, before = training.update_size // devices, config.execution
    memory = measure_memory(config.model, training, device.kind)
    if options.micro_batch is not None:
        size = micro_batch_of(options.micro_batch, each)
    elif _goes_on_alike(before, options, device, each):
        assert before is not None
        size = before.micro_batch
    else:
        by_hand = device.kind == "cpu" or options.accumulate is not None
        most = max(1, training.batch // devices) if by_hand else each
        size = choose_micro_batch(each, most, memory, device.free_bytes())
    size = device.from_main(size)
    reduced = "float32" if device.world == 1 else device.reduce_precision
    return replace(config, execution=ExecutionRecord(device.kind, devices, device.precision, size, reduced)), memory


def _goes_on_alike(before: ExecutionRecord | None, options: TrainOptions, device: Device, each: int) -> bool:
    """Whether a run on CPUs keeps its micro-batch, so that it goes on bit for bit."""
    if before is None or options.accumulate is not None or each % before.micro_batch:
        return False
    return (before.device, before.devices) == ("cpu", device.world) and device.kind == "cpu"


def _show(
    config: RunConfig, device: Device, memory: Memory, data: DataPlan, log: list[dict[str, Any]], as_json: bool
) -> None:
    """In ten lines on stderr; every setting on stdout, but for somebody at a terminal who did not ask for it."""
    if not device.is_main:
        return
    found = estimate(config, device.world * device.parts, memory)
    needed = estimate_time(config, log, found.parameters, device)
    sent, reduced = exchanged_bytes(on_meta(config.model), device), device.reduce_precision
    made = PRESETS.get(config.preset)
    paper = made and made.hardware and {"hardware": made.hardware, "hours": made.hours}
    model = config.model
    kind = f"{counted(model.classes, 'class', 'classes')}" if model.classes else "unconditional"
    lines = [
        f"preset              {config.preset}: {counted(sum(model.groups), 'group')} of z, {kind}",
        f"training            {config.training.updates} updates of {config.training.update_size} latents",
        f"device              {device}",
        *found.lines(),
        *([f"gradients           {sent / (1 << 20):.1f} MiB a rank and update, in {reduced}"] if sent else []),
        f"latents             {data.line()}",
        needed.line() if needed is not None else "time                cannot be said before it runs",
    ]
    if made is not None and paper:
        lines.append(f"the paper's run     {made.hardware}, {made.hours:g} hours")
    if as_json or not sys.stdout.isatty():
        click.echo("\n".join(lines), err=True)
        settings = {name: records.plain(getattr(config, name)) for name in ("preset", "model", "training")}
        reckoned = {"estimate": asdict(found), "exchanged_bytes": sent, "data": asdict(data), "device": str(device)}
        needs = {"time": None if needed is None else asdict(needed)}
        click.echo(json.dumps({**settings, "paper": paper, **reckoned, **needs}, indent=1))
    else:
        lines.append("every setting       --dry-run --json prints them, --set KEY=VALUE changes one")
        click.echo("\n".join(lines), err=True)


def _train(
    dataset: str, run: Path, config: RunConfig, device: Device, options: TrainOptions, init: Checkpoint | None
) -> bool:
    if device.kind == "cpu":
        keep_freed_memory()
    device.together(lambda: local_copy(dataset, options.cache, say) if device.local_rank == 0 else None)
    opened = Dataset.open(local_copy(dataset, options.cache))
    check_fits(opened, config.model)
    device.together(lambda: _check_shards(opened) if device.is_main else None)
    config = count_labels(config, run, opened)
    weights = None
    if init is not None and options.init is not None:
        other = read_run(options.init)
        classes = match_classes(config, other)
        weights = weights_that_fit(config.model, other.model, init.read("ema"), config.training.seed, classes)
    execution = options.execution(0 if device.peak_flops() is None else latent_flop(config.model))
    if not device.is_main:
        device.together(lambda: None)  # the main process takes the folder
        silent = Watching(preview=None if options.preview == "none" else lambda step, latents: None)
        result = fit(run, config, opened, device, execution, silent, weights)
        return result.finished or result.out_of_time
    with ExitStack() as stack:
        device.together(lambda: stack.enter_context(writing(Folder(run))))
        bar = stack.enter_context(Bar("training", config.training.updates, "updates"))
        say(f"{device}: {config.preset}, {run}; {_portions(config)}")
        for change in config.new_overrides():
            say(describe_change(change))

        def begin(updates: int, done: int) -> None:
            copy_autoencoder(opened, run)
            bar.begin(updates, done)

        watching = Watching(
            begin,
            bar.at,
            lambda step, text: say(f"update {step}: {text}"),
            _preview(run, opened, options),
            lambda step: open_boards(run, step, options.wandb, config),
        )
        result = fit(run, config, opened, device, execution, watching, weights)
    if result.finished:
        early = ", for validation did not improve any more" if result.step < config.training.updates else ""
        click.echo(f"{run}: {result.step} updates are done{early}")
    elif result.out_of_time:
        updates = f"{result.step} of {config.training.updates} updates"
        click.echo(f"{run}: {options.minutes:g} min are over, {updates} are done; the same command goes on from here")
    else:
        say(f"stopped after update {result.step}; the same command goes on from here")
    return result.finished or result.out_of_time


def _check_shards(dataset: Dataset) -> None:
    many = sum(split.shards for split in dataset.manifest.splits.values()) > 20
    check_shards(dataset, say if many else lambda _: None)


def _portions(config: RunConfig) -> str:
    training, execution = config.executed(), config.execution
    assert execution is not None
    portions = f"{counted(training.accumulate, 'micro-batch', 'micro-batches')} of {execution.micro_batch}"
    return f"{training.update_size} latents an update, in {portions} a device"


def _preview(run: Path, dataset: Dataset, options: TrainOptions) -> Any:
    if options.preview == "none":
        return None
    from lvae.evaluate.pictures.inspect import preview_writer

    return preview_writer(run, dataset, options.preview == "decoded")
