"""The loop: read, update, now and then write down, look, validate and save; stop and go on anywhere."""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from lvae.manifests.dataset import Dataset
from lvae.manifests.errors import LvaeError
from lvae.manifests.storage import Folder
from lvae.train.batches import Batches, Placement, Source, clipped, open_source
from lvae.train.checkpoints import Checkpoints
from lvae.train.devices import Device
from lvae.train.metrics import MetricsLog
from lvae.train.model import HierarchicalVAE
from lvae.train.runs import CHECKPOINTS, RunConfig, difference, load_weights, read_run_if_there, write_run
from lvae.train.stopping import StopSignals
from lvae.train.update import MEASURED, Updater
from lvae.train.validation import validate

VALIDATION = "val"  # the split
USELESS_UPDATES = 100  # one after another without a finite loss and gradient: the run is lost
PREVIEWED = 16

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Intervals:
    """How often, in updates; 0: never (the end of a run is always written down and saved)."""

    log: int = 100
    save: int = 2500
    validate: int = 2500
    preview: int = 2500
    keep_for_ever: int = 50_000
    keep_recent: int = 3


@dataclass(frozen=True)
class Watching:
    """Whom to tell. progress(step, text) after every line of the log; preview(step, latents) with float32 samples
    (n, C, h, w) of the model, normalized as those it learns from.
    """

    progress: Callable[[int, str], None] = lambda step, text: None
    preview: Callable[[int, NDArray[np.float32]], None] | None = None


@dataclass(frozen=True)
class Result:
    """Where a run stands; finished, or stopped by a signal."""

    step: int
    finished: bool


def fit(
    run: Path,
    config: RunConfig,
    dataset: Dataset,
    device: Device,
    intervals: Intervals,
    watching: Watching,
    placement: Placement = "auto",
    init: dict[str, Tensor] | None = None,
) -> Result:
    """Train until the configured number of updates, from where the run stands. init: weights to begin a new run with.

    Every rank calls this. LvaeError where RUN holds a run of other settings, naming the difference.
    """
    training = config.training
    check_batch(training.batch, device)
    updater = Updater(HierarchicalVAE(config.model, training.seed, training.recompute_from), training, device)
    checkpoints = Checkpoints(run / CHECKPOINTS, intervals.keep_recent, intervals.keep_for_ever)
    with StopSignals() as stop:
        start = _begin(run, config, updater, checkpoints, device, init)
        source = open_source(dataset, device, training.seed, placement)
        first = start * training.batch * training.accumulate
        with Batches(source, dataset, training, device, config.model.classes, first) as batches:
            session = _Session(run, start, updater, batches, checkpoints, intervals, watching, source, dataset)
            try:
                return _loop(start, training.updates, session, stop, device)
            finally:
                session.close()


def _loop(step: int, updates: int, session: "_Session", stop: StopSignals, device: Device) -> Result:
    stopping = False
    while step < updates and not stopping:
        session.updater(session.batches.next())
        device.mark_step()
        step += 1
        stopping = device.on_any_rank(stop.asked)
        session.after(step, end=step == updates, stopping=stopping)
    return Result(step, finished=step >= updates)


def check_batch(batch: int, device: Device) -> None:
    """LvaeError where ranks or devices could not take equal slices."""
    parts = device.world * device.parts
    if batch % parts:
        near = max(1, round(batch / parts)) * parts
        raise LvaeError(f"--batch {batch}: {parts} devices cannot take equal slices of it. Take {near}, for example.")


def _begin(
    run: Path,
    config: RunConfig,
    updater: Updater,
    checkpoints: Checkpoints,
    device: Device,
    init: dict[str, Tensor] | None,
) -> int:
    """The step to go on from, with everything restored."""
    before = read_run_if_there(run)
    if before is not None and (other := difference(before, config)):
        raise LvaeError(
            f"{run}: holds a run of other settings: {other}. Name another folder, or give the old settings."
        )
    step = -1
    if device.is_main:
        found = checkpoints.latest()
        if found is not None and before is None:
            raise LvaeError(f"{run}: has checkpoints but no config.json. Name another folder.")
        step = -1 if found is None else found.step
        write_run(run, config)
    step = device.from_main(step)
    if step >= 0:
        checkpoint = checkpoints.open(step)
        updater.restore({group: checkpoint.read(group) for group in checkpoint.groups})
        return step
    if init is not None:
        load_weights(updater.model, init, "--init")
        updater.start_average()
    return 0


class _Session:
    """What happens between updates."""

    def __init__(
        self,
        run: Path,
        step: int,
        updater: Updater,
        batches: Batches,
        checkpoints: Checkpoints,
        intervals: Intervals,
        watching: Watching,
        source: Source,
        dataset: Dataset,
    ):
        self.updater, self.batches, self._device = updater, batches, updater.device
        self._run, self._checkpoints, self._intervals, self._watching = run, checkpoints, intervals, watching
        self._source, self._dataset = source, dataset
        self._validation: tuple[Source, Dataset] | None = None
        if intervals.validate and VALIDATION in dataset.splits and len(dataset.split(VALIDATION)):
            held_out = dataset.split(VALIDATION)
            self._validation = open_source(held_out, self._device, updater.config.seed, "disk"), held_out
        self._log = MetricsLog(run, step) if self._device.is_main else None
        self._logged, self._waited, self._time = step, batches.waited, time.perf_counter()
        self._threshold = float(self._device.fetch(updater.counts["threshold"]))

    def after(self, step: int, end: bool, stopping: bool) -> None:
        """Whatever is due after an update."""
        validates = self._validation is not None and (end or _due(step, self._intervals.validate))
        if end or validates or _due(step, self._intervals.log):
            self._write_down(step, validates)
        if self._watching.preview is not None and (end or _due(step, self._intervals.preview)):
            self._preview(step)
        if end or stopping or _due(step, self._intervals.save):
            self._save(step)

    def _write_down(self, step: int, validates: bool) -> None:
        line = self._measured(step)
        if validates and self._validation is not None:
            line |= validate(self.updater, *self._validation)._asdict()
        if self._log is not None:
            self._log.write(line)
        self._watching.progress(step, summary(line))
        self._logged, self._waited, self._time = step, self.batches.waited, time.perf_counter()

    def _measured(self, step: int) -> dict[str, Any]:
        """The means since the last line, and what needs to be said. Waits for the device."""
        config, counts = self.updater.config, self.updater.read_counts()
        seconds = time.perf_counter() - self._time
        images = (step - self._logged) * config.batch * config.accumulate
        sums = counts["sums"] / counts["summed"] if counts["summed"] else counts["sums"] * float("nan")
        self.updater.clear_sums()
        self._warn(counts)
        return {
            "step": step,
            "images": step * config.batch * config.accumulate,
            **dict(zip(MEASURED, sums.tolist(), strict=False)),
            "rate_per_group_nats": sums[len(MEASURED) :].tolist(),
            "skipped_updates": int(counts["skipped"]),
            "images_per_second": images / seconds,
            "data_wait_share": (self.batches.waited - self._waited) / seconds,
        }

    def _warn(self, counts: dict[str, Tensor]) -> None:
        threshold = float(counts["threshold"])
        if threshold != self._threshold:
            logger.warning(
                "gradients stayed above the threshold of %.3g; it is %.3g now, so that the run goes on",
                self._threshold,
                threshold,
            )
            self._threshold = threshold
        if int(counts["useless"]) >= USELESS_UPDATES:
            steps = self._checkpoints.steps()
            kept = f"The checkpoint of step {steps[-1]} is kept" if steps else "There is no checkpoint"
            raise LvaeError(
                f"{self._run}: no finite loss for {int(counts['useless'])} updates. {kept}. "
                "Begin a new run with a smaller learning_rate, or with --precision float32."
            )

    @torch.no_grad()
    def _preview(self, step: int) -> None:
        """Samples with the same noise every time, by the averaged weights."""
        model, show = self.updater.model, self._watching.preview
        if not self._device.is_main or show is None:
            return
        labels, low = None, None
        if model.config.classes:
            labels = self._device.put_whole(torch.arange(PREVIEWED) % model.config.classes)
        if model.config.low_resolution_factor is not None:
            indices = np.arange(PREVIEWED) % len(self._dataset)
            latents = self._source.finish(self._device.put_whole(self._source.read(indices, indices)))
            side = model.config.resolutions[-1]
            low = F.interpolate(
                clipped(latents, self.updater.config.clip), (side, side), mode="bilinear", antialias=True
            )
        with self.updater.using_average(), self._device.autocast():
            samples = model.sample(PREVIEWED, labels, low_resolution=low)
            self._device.mark_step()
            found = self._device.fetch(samples.float()).numpy()
        show(step, found)

    def _save(self, step: int) -> None:
        """By the main rank; never with numbers that are none."""
        if int(self._device.fetch(self.updater.counts["useless"])):
            logger.warning("step %d is not saved: its loss is not finite", step)
            return
        if self._device.is_main:
            config = self.updater.config
            values = {"step": step, "position": step * config.batch * config.accumulate}
            self._checkpoints.save(step, self.updater.groups(), values)
        self._device.barrier()

    def close(self) -> None:
        if self._log is not None:
            self._log.close()


def copy_autoencoder(dataset: Dataset, run: Path) -> None:
    """RUN/weights/: what decoding needs, so that a run is complete without its dataset."""
    name = dataset.manifest.autoencoder.weights_file
    if name is not None and not Folder(run).exists(name):
        Folder(run).write(name, dataset.folder.read(name))


def summary(line: dict[str, Any]) -> str:
    """A line of the log in a few words."""
    words = [f"loss {line['loss_nats']:.1f}", f"rate {line['rate_nats']:.1f} nats"]
    if "validation_loss_nats" in line:
        words.append(f"validation {line['validation_loss_nats']:.1f}")
    if line["skipped_updates"]:
        words.append(f"{line['skipped_updates']} skipped")
    return ", ".join([*words, f"{line['images_per_second']:.0f} images/s"])


def _due(step: int, interval: int) -> bool:
    return bool(interval) and step % interval == 0
