"""The loop: read, update, do what is due; stop and go on anywhere."""

import math
import time
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from lvae.manifests.dataset import Dataset
from lvae.manifests.errors import LvaeError
from lvae.train.data.batches import Batches
from lvae.train.data.sources import open_source
from lvae.train.devices.device import Device
from lvae.train.loop.agreement import check_settings, check_state
from lvae.train.loop.profiling import Profiler
from lvae.train.loop.session import Best, Execution, Session, Start, Watching
from lvae.train.loop.signals import StopSignals
from lvae.train.loop.training_loop import run_updates
from lvae.train.loop.update import Updater
from lvae.train.model import HierarchicalVAE
from lvae.train.runs.checkpoints import Checkpoint, Checkpoints
from lvae.train.runs.classes import renumber_classes
from lvae.train.runs.run import BEST, CHECKPOINTS, RunConfig, difference, read_run_if_there, write_run

PROFILE = "profile"
ASKED_EVERY = 8  # updates, between the questions whether a rank was asked to stop


@dataclass(frozen=True)
class Result:
    """Where a run stands; finished, or stopped by a signal, or because its minutes were over."""

    step: int
    finished: bool
    out_of_time: bool = False


def fit(
    run: Path,
    config: RunConfig,
    dataset: Dataset,
    device: Device,
    execution: Execution,
    watching: Watching,
    init: dict[str, Tensor] | None = None,
) -> Result:
    """Train until the configured number of updates, from where the run stands. init: weights to begin a new run with.

    Every rank calls this. LvaeError where RUN holds a run of other settings, naming the difference.
    """
    training = config.executed()
    check_batch(training.batch, device)
    updater = Updater(HierarchicalVAE(config.model, training.seed, training.recompute_from), training, device)
    checkpoints = Checkpoints(run / CHECKPOINTS, execution.keep_recent, execution.keep_for_ever)
    with StopSignals() as stop:
        start = _begin(run, config, updater, checkpoints, device, init)
        device.together(lambda: watching.begin(training.updates, start.step))
        source = open_source(dataset, device, training.seed, execution.placement)
        numbers = renumber_classes(config, run, dataset)
        with Batches(source, dataset, training, device, config.model.classes, start.position, numbers) as batches:
            session = Session(run, start, updater, batches, checkpoints, execution, watching)

            made = [0]
            profiler = Profiler(run / PROFILE, execution.profile if device.is_main else 0, device)

            def update(step: int) -> None:
                profiler.before(made[0])
                updater(batches.next())
                made[0] += 1
                if (traced := profiler.after(made[0])) is not None:
                    watching.line(step + 1, f"where {execution.profile} updates went\n{traced.table}")
                    if traced.launches is not None:
                        session.note(launches_per_update=traced.launches)

            def stopping() -> bool:
                """Ranks ask one another now and then only."""
                asked = stop.asked or time.monotonic() >= end
                return (device.processes == 1 or made[0] % ASKED_EVERY == 0) and device.on_any_rank(asked)

            step = start.step
            end = math.inf if execution.minutes is None else time.monotonic() + 60 * execution.minutes
            try:
                if not session.is_over:
                    step = run_updates(step, training.updates, update, session.after, stopping)
            finally:
                profiler.finish()
                session.close()
            device.barrier()  # nobody leaves before the last checkpoint is written
            finished = step >= training.updates or session.is_over
            return Result(step, finished, not finished and not stop.asked and time.monotonic() >= end)


def check_batch(batch: int, device: Device) -> None:
    """LvaeError where ranks or devices could not take equal slices."""
    parts = device.world * device.parts
    if batch % parts:
        near = max(1, round(batch / parts)) * parts
        raise LvaeError(
            f"--batch {batch}", f"{parts} devices cannot take equal slices of it", f"Take {near}, for example."
        )


def _begin(
    run: Path,
    config: RunConfig,
    updater: Updater,
    checkpoints: Checkpoints,
    device: Device,
    init: dict[str, Tensor] | None,
) -> Start:
    """Where to go on from, with everything restored: the main process decides, and the others follow."""
    before = device.together(lambda: _settings_before(run, config))
    check_settings(run, config, device)
    step = device.from_main(device.together(lambda: _last_step(run, checkpoints, before) if device.is_main else -1))
    if step >= 0:
        checkpoint = device.together(lambda: _restore(run, checkpoints, step, updater))
        if any(override.name == "skip_threshold" for override in config.new_overrides()):
            updater.reset_threshold()
        check_state(run, updater, step)
        _write_settings(run, config, step, device)
        best = checkpoint.values.get(BEST)
        if best is not None and best["step"] <= config.with_overrides_at(step).dataset_since:
            best = None  # by the images that another dataset set aside
        return Start(
            step, int(checkpoint.values["position"]), config.new_overrides(), None if best is None else Best(**best)
        )
    if init is not None:
        updater.load(init, "--init")
    check_state(run, updater, 0)
    _write_settings(run, config, 0, device)
    return Start(0, 0, config.new_overrides())


def _settings_before(run: Path, config: RunConfig) -> RunConfig | None:
    """Those that the run has; LvaeError where they are others."""
    before = read_run_if_there(run)
    if before is not None and (other := difference(before, config)):
        advice = "Give the old settings, name another folder, or change a setting with --override KEY=VALUE."
        if before.preset != config.preset:
            advice = "Leave --preset out, or name another folder."
        elif before.dataset.id != config.dataset.id:
            advice = "Give that dataset, or go on with this one: --continue-on DATASET."
        raise LvaeError(run, f"holds a run of other settings: {other}", advice)
    return before


def _last_step(run: Path, checkpoints: Checkpoints, before: RunConfig | None) -> int:
    """Of the newest checkpoint that is whole; -1 where a run begins."""
    found = checkpoints.latest()
    if found is not None and before is None:
        raise LvaeError(run, "has checkpoints but no config.json", "Name another folder.")
    return -1 if found is None else found.step


def _restore(run: Path, checkpoints: Checkpoints, step: int, updater: Updater) -> Checkpoint:
    """Take over the checkpoint that the main process chose, and hashed."""
    if not updater.device.is_main and step not in checkpoints.steps():
        problem = f"has no checkpoint of update {step}, from which rank 0 goes on"
        raise LvaeError(run, problem, "All ranks must see the same RUN.")
    checkpoint = checkpoints.open(step, groups=())
    if "optimizer" not in checkpoint.groups:
        raise LvaeError(run, "was imported, without what an update needs", f"Begin a new run with --init {run}.")
    updater.restore({group: checkpoint.read(group) for group in checkpoint.groups})
    return checkpoint


def _write_settings(run: Path, config: RunConfig, step: int, device: Device) -> None:
    """Once nothing is left that could refuse them."""
    if device.is_main:
        write_run(run, config.with_overrides_at(step))
