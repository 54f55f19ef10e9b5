"""What happens between updates: writing down, looking, validating, saving, and noticing that a run is lost."""

import logging
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from lvae.manifests.dataset import Dataset
from lvae.manifests.errors import LvaeError
from lvae.train.data.batches import Batches, clip_latents
from lvae.train.data.sources import Placement, Source, open_source
from lvae.train.loop.agreement import check_weights
from lvae.train.loop.counts import MEASURED
from lvae.train.loop.training_loop import is_due
from lvae.train.loop.update import Updater
from lvae.train.loop.validation import validate
from lvae.train.runs.checkpoint_writer import CheckpointWriter
from lvae.train.runs.checkpoints import Checkpoints
from lvae.train.runs.metrics_log import Board, MetricsLog
from lvae.train.runs.run import BEST, Override

VALIDATION = "val"  # the split
USELESS_UPDATES = 100  # one after another without a finite loss and gradient: the run is lost
PREVIEWED = 16

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Execution:
    """How a run is executed; none of it changes what is learnt.

    placement: where latents are kept. The others: how often, in updates; 0: never (the end of a run is always written
    down and saved). patience: validations in a row without a lower loss after which the run ends; 0: none do.
    profile: updates to trace, at the start; 0: none. minutes: of training, after which the run is saved and left.
    latent_flop: what a latent costs in an update, in floating-point operations; 0 where nobody asks.
    """

    log: int = 100
    save: int = 2500
    validate: int = 2500
    preview: int = 2500
    keep_for_ever: int = 50_000
    keep_recent: int = 3
    placement: Placement = "auto"
    patience: int = 0
    profile: int = 0
    minutes: float | None = None
    latent_flop: int = 0


@dataclass(frozen=True)
class Watching:
    """Whom to tell: of every update, of every line of the log in words, and of samples.

    begin(updates, step): how many updates there will be, and how many there are. preview(step, latents) gets float32
    (n, C, h, w) from the averaged weights, normalized as the dataset is. boards(step): other viewers of the log, opened
    where a run goes on.
    """

    begin: Callable[[int, int], None] = lambda updates, step: None
    update: Callable[[int], None] = lambda step: None
    line: Callable[[int, str], None] = lambda step, text: None
    preview: Callable[[int, NDArray[np.float32]], None] | None = None
    boards: Callable[[int], Sequence[Board]] = lambda step: ()


@dataclass(frozen=True)
class Best:
    """The update with the lowest validation loss, and how many validations since then were no better."""

    step: int
    validation_loss_nats: float
    worse: int = 0


@dataclass(frozen=True)
class Start:
    """Where a run is taken up: after which update, at which sample, with what overridden, and the best one so far."""

    step: int
    position: int
    overrides: tuple[Override, ...] = ()
    best: Best | None = None


class Session:
    """What happens between updates."""

    def __init__(
        self,
        run: Path,
        start: Start,
        updater: Updater,
        batches: Batches,
        checkpoints: Checkpoints,
        execution: Execution,
        watching: Watching,
    ):
        self.updater, self.batches, self._device = updater, batches, updater.device
        self._run, self._checkpoints, self._execution, self._watching = run, checkpoints, execution, watching
        self._writer = CheckpointWriter(checkpoints)
        self._source, self._dataset = batches.source, batches.dataset
        self._validation: tuple[Source, Dataset] | None = None
        dataset = batches.dataset
        if execution.validate and VALIDATION in dataset.splits and len(dataset.split(VALIDATION)):
            held_out = dataset.split(VALIDATION)
            self._validation = open_source(held_out, self._device, updater.config.seed, "disk"), held_out
        self._start, self._best = start, start.best
        self._noted: dict[str, Any] = {}
        if start.overrides:
            self.note(overrides={one.name: [one.before, one.after] for one in start.overrides})
        self._log = self._device.together(self._open_log)  # a board may refuse: then no rank waits for the first one
        self._logged, self._waited, self._time = start.step, batches.waited, time.perf_counter()
        self._threshold = float(self._device.fetch(updater.counts["threshold"]))

    def _open_log(self) -> MetricsLog | None:
        if not self._device.is_main:
            return None
        return MetricsLog(self._run, self._start.step, self._watching.boards(self._start.step))

    @property
    def is_over(self) -> bool:
        """Whether validation has not improved for as long as one was ready to wait."""
        return bool(self._execution.patience and self._best and self._best.worse >= self._execution.patience)

    def after(self, step: int, end: bool, stopping: bool) -> bool:
        """Do whatever is due after an update; return whether the run ends here before its time."""
        self._watching.update(step)
        self._writer.check()
        validates = self._validation is not None and (end or is_due(step, self._execution.validate))
        if end or validates or is_due(step, self._execution.log):
            self._write_down(step, validates)
        end = end or self.is_over
        shows = self._watching.preview is not None and (end or is_due(step, self._execution.preview))
        improved = bool(self._execution.save) and self._best is not None and self._best.step == step
        saves = end or stopping or improved or is_due(step, self._execution.save)
        if shows or saves:
            self._device.synchronize()  # what is left to do of updates belongs to them
            begin = time.perf_counter()
            if shows:
                self._preview(step)
            if saves:
                self._save(step)
            self._time += time.perf_counter() - begin  # the speed is that of updates
        return self.is_over

    def note(self, **values: Any) -> None:
        """What the next line of the log says besides."""
        self._noted |= values

    def _write_down(self, step: int, validates: bool) -> None:
        line = self._measure(step)
        if validates and self._validation is not None:
            found = validate(self.updater, *self._validation, self.batches.numbers)
            line |= found._asdict()
            self._compare(step, found.validation_loss_nats)
        if self._log is not None:
            self._log.write(line)
        self._watching.line(step, summary(line))
        self._logged, self._waited, self._time = step, self.batches.waited, time.perf_counter()

    def _compare(self, step: int, loss: float) -> None:
        if math.isfinite(loss) and (self._best is None or loss < self._best.validation_loss_nats):
            self._best = Best(step, loss)
        elif self._best is not None:
            self._best = replace(self._best, worse=self._best.worse + 1)

    def _measure(self, step: int) -> dict[str, Any]:
        """The means since the last line, and what needs to be said. Waits for the device."""
        counts = self.updater.read_counts()
        seconds = time.perf_counter() - self._time
        images = (step - self._logged) * self.updater.config.update_size
        sums = counts["sums"] / counts["summed"] if counts["summed"] else counts["sums"] * float("nan")
        self.updater.clear_sums()
        self._warn(counts)
        noted, self._noted = self._noted, {}
        return {
            "step": step,
            "images": self._position(step),
            **dict(zip(MEASURED, sums.tolist(), strict=False)),
            "rate_per_group_nats": sums[len(MEASURED) :].tolist(),
            "skipped_updates": int(counts["skipped"]),
            "images_per_second": images / seconds,
            "data_wait_share": (self.batches.waited - self._waited) / seconds,
            **self._utilization(images / seconds),
            **noted,
        }

    def _utilization(self, speed: float) -> dict[str, float]:
        """How much of a device is used, as far as that is known: of its arithmetic (MFU), and its memory at most."""
        device, found = self._device, {}
        peak, flop, memory = device.peak_flops(), self._execution.latent_flop, device.peak_bytes()
        if peak is not None and flop:
            found["model_flops_utilization"] = speed * flop / (peak * device.world * device.parts)
        if memory is not None:
            found["peak_memory_bytes"] = memory
        return found

    def _position(self, step: int) -> int:
        """Samples seen after an update."""
        return self._start.position + (step - self._start.step) * self.updater.config.update_size

    def _warn(self, counts: dict[str, Tensor]) -> None:
        threshold = float(counts["threshold"])
        if threshold > self._threshold:
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
                self._run,
                f"no finite loss for {int(counts['useless'])} updates",
                f"{kept}. Begin a new run with a smaller learning_rate, or with --precision float32.",
            )

    @torch.no_grad()
    def _preview(self, step: int) -> None:
        """Samples with the same noise every time, by the averaged weights."""
        model, show = self.updater.model, self._watching.preview
        if show is None or (self._device.world > 1 and not self._device.is_main):
            return
        labels, low = None, None
        if model.config.classes:
            labels = self._device.put_whole(torch.arange(PREVIEWED) % model.config.classes)
        if model.config.low_resolution_factor is not None:
            indices = np.arange(PREVIEWED) % len(self._dataset)
            latents = self._source.finish(self._device.put_whole(self._source.read(indices, indices)))
            side = model.config.resolutions[-1]
            low = F.interpolate(
                clip_latents(latents, self.updater.config.clip), (side, side), mode="bilinear", antialias=True
            )
        with self.updater.using_average(), self._device.without_compiling(), self._device.autocast():
            samples = model.sample(PREVIEWED, labels, low_resolution=low)
            self._device.mark_step()
            found = self._device.fetch(samples.float()).numpy()
        if self._device.is_main:
            show(step, found)

    def _save(self, step: int) -> None:
        """By the main rank, behind; never with numbers that are none."""
        if int(self._device.fetch(self.updater.counts["useless"])):
            logger.warning("step %d is not saved: its loss is not finite", step)
            return
        check_weights(self._run, self.updater, step)
        if self._device.is_main:
            values: dict[str, Any] = {"step": step, "position": self._position(step)}
            if self._best is not None:
                values[BEST] = asdict(self._best)
            keep = () if self._best is None else (self._best.step,)
            self._writer.save(step, self.updater.snapshot(), values, keep)

    def close(self) -> None:
        """Wait until everything is written; all ranks must call."""
        try:
            self._writer.wait()
        finally:
            if self._log is not None:
                self._log.close()


def summary(line: dict[str, Any]) -> str:
    """A line of the log in a few words."""
    words = [f"loss {line['loss_nats']:.1f}", f"rate {line['rate_nats']:.1f} nats"]
    if "validation_loss_nats" in line:
        words.append(f"validation {line['validation_loss_nats']:.1f}")
    if line["skipped_updates"]:
        words.append(f"{line['skipped_updates']} skipped")
    words.append(f"{line['images_per_second']:.0f} images/s")
    if "model_flops_utilization" in line:
        words.append(f"MFU {100 * line['model_flops_utilization']:.0f} %")
    return ", ".join(words)
