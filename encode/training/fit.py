"""Training an autoencoder: what an update is, what is written, and how it goes on.

    OUT/fit.json                 the settings; another command into the same folder is refused
    OUT/pictures.bin, .json      the pictures, reduced (data.py)
    OUT/metrics.jsonl            a line every so many updates
    OUT/checkpoints/             everything that decides what comes next, exactly
    OUT/previews/                validation pictures beside their reconstructions
    OUT/autoencoder.safetensors  the averaged weights, as of the last checkpoint; OUT/architecture.json
    OUT/tensorboard/             the lines of the log again, where TensorBoard is installed

Every draw is a function of (seed, position), so a run that was killed goes on to the same bits on the same CPU.
"""

import errno
import json
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from lvae.encode.crops import crop
from lvae.encode.devices import choose_device
from lvae.encode.networks.base import Autoencoder, save_safetensors
from lvae.encode.quality.fidelity import psnr, ssim
from lvae.encode.training.config import SETTINGS, FitConfig
from lvae.encode.training.data import PIXELS, PictureIndex, Pictures, prepare
from lvae.encode.training.objective import learning_rate
from lvae.encode.training.perceptual import Perceptual
from lvae.encode.training.trainer import Pair, Training
from lvae.manifests import records
from lvae.manifests.errors import LvaeError
from lvae.manifests.messages import counted
from lvae.manifests.storage.folder import Folder
from lvae.manifests.storage.locks import writing
from lvae.train.devices.open import open_device
from lvae.train.loop.signals import SIGNALS, StopSignals
from lvae.train.loop.training_loop import is_due, run_updates
from lvae.train.runs.boards import open_boards
from lvae.train.runs.checkpoints import Checkpoints
from lvae.train.runs.metrics_log import MetricsLog

CHECKPOINTS, PREVIEWS = "checkpoints", "previews"
WEIGHTS, ARCHITECTURE = "autoencoder.safetensors", "architecture.json"
VALIDATION_PICTURES = 64  # measured while training
PREVIEW_PICTURES = 8

T = TypeVar("T")


@dataclass(frozen=True)
class FitOptions:
    """How a run is executed. log, save, validate: every so many updates; none of these changes the result.

    workers: processes that cut crops. perceptual: VGG's and LPIPS' weights as "VGG,LPIPS", or the name of a network.
    start: weights to start from instead of random ones.
    """

    log: int = 50
    save: int = 500
    validate: int = 1000
    device: str = "auto"
    workers: int = 1
    perceptual: str | None = None
    start: str | None = None

    def __post_init__(self) -> None:
        if min(self.log, self.save, self.validate) < 1 or self.save % self.log:
            raise LvaeError(f"--save-every {self.save}", f"must be a multiple of --log-every {self.log}")


@dataclass(frozen=True)
class Watcher:
    """How a run is shown: preparing and training tell (done, total), `say` a line, `draw` makes a PNG of pairs."""

    preparing: Callable[[int, int], None]
    training: Callable[[int, int], None]
    say: Callable[[str], None]
    draw: Callable[[Sequence[Pair], str], bytes]


@dataclass(frozen=True)
class Fitted:
    """What came out: where the weights are, and how the averaged ones do on the pictures set aside."""

    weights: str
    fingerprint: str
    steps: int
    parameters: int
    train_pictures: int
    validation_pictures: int
    validation_size: int
    psnr_db: float | None
    ssim: float | None


def fit(
    source: str, out: Path, config: FitConfig, watcher: Watcher, options: FitOptions = FitOptions()
) -> Fitted | None:
    """Train an autoencoder on the pictures of a source, or go on where the same command was stopped.

    None where a signal stopped it; everything is saved then.
    """
    folder = Folder(out)
    try:
        with writing(folder):
            folder.sweep()
            _keep_settings(folder, config)
            index = prepare(folder, source, config, watcher.preparing)
            _tell(index, watcher)
            perceptual = None if options.perceptual is None else Perceptual.read(options.perceptual, config.size)
            device = open_device(choose_device(options.device).split(":")[0], config.precision)
            training = Training(config, device, perceptual, options.start)
            _check_size(config, training.network)
            return _Run(folder, config, options, watcher, index, training).go()
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        raise LvaeError(out, "no space is left", "Free some, then run the same command again.") from error


def _keep_settings(folder: Folder, config: FitConfig) -> None:
    there = folder.read_if_there(SETTINGS)
    if there is None:
        folder.write(SETTINGS, records.dumps(config))
        return
    old, new = records.plain(records.parse(FitConfig, there, str(folder.local(SETTINGS)))), records.plain(config)
    for name in {**new, **old}:
        if old.get(name) != new.get(name):
            raise LvaeError(
                folder,
                f"was begun with {name} {json.dumps(old.get(name))}, not {json.dumps(new.get(name))}",
                "Give the same settings to go on, or name another OUT.",
            )


def _check_size(config: FitConfig, network: Autoencoder) -> None:
    factor = network.downsampling_factor
    if config.size % factor:
        raise LvaeError(f"--size {config.size}", f"must be a multiple of the network's downsampling factor, {factor}")


def _tell(index: PictureIndex, watcher: Watcher) -> None:
    watcher.say(f"{counted(len(index.train), 'picture')} to train on, {len(index.validation)} set aside for validation")
    for reason, count in sorted(index.left_out.items()):
        watcher.say(f"left out: {count} ({reason})")
    if index.grey == len(index.train) + len(index.validation):
        watcher.say("every picture is grey: the autoencoder will not learn colours")


class _Positions(Dataset[Tensor]):
    """Crops by position, for loader processes."""

    def __init__(self, pictures: Pictures):
        self._pictures = pictures

    def __getitem__(self, position: int) -> Tensor:
        return torch.from_numpy(self._pictures.crop(position))


def _ignore_signals(worker: int) -> None:
    """Let a loader process go on where a terminal, or a batch system, signals a stop to all processes of a command."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def _thin(found: Sequence[T], most: int) -> Sequence[T]:
    """Every so many of them, so that no more than `most` are left: of all classes, where classes follow each other."""
    return found[:: max(1, -(-len(found) // most))]


class _Run:
    """What happens in an update and after it."""

    def __init__(
        self,
        folder: Folder,
        config: FitConfig,
        options: FitOptions,
        watcher: Watcher,
        index: PictureIndex,
        training: Training,
    ):
        self._folder, self._config, self._options, self._watcher = folder, config, options, watcher
        self._pictures = Pictures(folder.local(PIXELS), index, config)
        self._training = training
        self._checkpoints = Checkpoints(folder.local(CHECKPOINTS))
        factor = training.network.downsampling_factor
        self._validation_size = min(2 * config.size, config.shorter_side[1]) // factor * factor
        self._logged: dict[str, list[Tensor]] = {}
        self._wrong = torch.tensor(0)  # the first update whose loss is not finite
        self._scores: tuple[float, float] | None = None

    def go(self) -> Fitted | None:
        first, steps = self._resume(), self._config.steps
        self._watcher.training(first, steps)
        self._log = MetricsLog(self._folder.root, first, open_boards(self._folder.root, first))
        self._began, self._last = time.monotonic(), first
        batches = self._batches(first)

        def update(step: int) -> None:
            found = self._training.update(next(batches), step)
            for name, value in found.items():
                self._logged.setdefault(name, []).append(value)
            fine = found["loss"].isfinite() | (self._wrong > 0)
            self._wrong = torch.where(fine, self._wrong.to(found["loss"].device), step + 1)

        try:
            with StopSignals() as stop:
                done = run_updates(first, steps, update, self._after, lambda: stop.asked)
        finally:
            self._log.close()
        if done < steps:
            self._watcher.say(f"stopped after update {done}; the same command goes on from here")
            return None
        return self._summarize(self._scores or self._measure()[0])

    def _after(self, done: int, end: bool, stopped: bool) -> None:
        """Whatever is due after an update."""
        options = self._options
        if end or stopped or is_due(done, options.log):
            self._refuse_wrong(int(self._wrong))
            self._write_down(done)
        if end or is_due(done, options.validate):
            self._scores = self._validate(done)
        if end or stopped or is_due(done, options.save):
            self._save(done)
        self._watcher.training(done, self._config.steps)

    def _batches(self, first: int) -> Iterator[Tensor]:
        batch, workers = self._config.batch, self._options.workers
        loader = DataLoader(
            _Positions(self._pictures),
            batch_size=batch,
            sampler=range(first * batch, self._config.steps * batch),
            num_workers=workers if first < self._config.steps else 0,
            multiprocessing_context="spawn" if workers and first < self._config.steps else None,
            worker_init_fn=_ignore_signals,
            pin_memory=self._training.device.kind == "cuda",
        )
        return iter(loader)

    def _resume(self) -> int:
        """The number of updates already made."""
        found = self._checkpoints.latest()
        if found is None:
            self._folder.write(ARCHITECTURE, records.dumps(self._config.architecture))
            return 0
        self._training.restore(found)
        if found.step < self._config.steps:
            self._watcher.say(f"going on after {found.step} updates")
        return found.step

    def _refuse_wrong(self, step: int) -> None:
        if step:
            last = self._checkpoints.steps()
            kept = f"the checkpoint of update {last[-1]} is kept" if last else "there is no checkpoint yet"
            raise LvaeError(
                self._folder,
                f"the loss of update {step} is not finite; {kept}",
                "Begin anew elsewhere with a lower --learning-rate.",
            )

    def _write_down(self, step: int) -> None:
        """The means since the last line. Waits for the device."""
        values = {name: float(torch.stack(values).mean()) for name, values in self._logged.items()}
        seconds, updates = time.monotonic() - self._began, step - self._last
        rate = round(updates * self._config.batch / seconds, 1)
        now = {"learning_rate": learning_rate(self._config, step - 1), "images_per_second": rate}
        self._log.write({"step": step, **values, **now})
        self._logged, self._began, self._last = {}, time.monotonic(), step

    def _validate(self, step: int) -> tuple[float, float] | None:
        """Measure, and write down what was found; a preview of some pictures."""
        scores, pairs = self._measure()
        if scores is None:
            return None
        self._log.write({"step": step, "validation_psnr_db": scores[0], "validation_ssim": scores[1]})
        title = f"After {step} updates: {scores[0]:.2f} dB, SSIM {scores[1]:.3f} at {self._validation_size} px"
        drawn = self._watcher.draw(_thin(pairs, PREVIEW_PICTURES), title)
        self._folder.write(f"{PREVIEWS}/step-{step:08d}.png", drawn)
        return scores

    def _measure(self) -> tuple[tuple[float, float] | None, list[Pair]]:
        """Mean PSNR and SSIM of the averaged weights on pictures set aside, and the pairs."""
        chosen = _thin(self._pictures.index.validation, VALIDATION_PICTURES)
        if not chosen:
            return None, []
        shown = [Image.fromarray(self._pictures.read(one)) for one in chosen]
        pairs = self._training.reconstructions([np.asarray(crop(one, self._validation_size, "adm")) for one in shown])
        scores = float(np.mean([psnr(*pair) for pair in pairs])), float(np.mean([ssim(*pair) for pair in pairs]))
        return scores, pairs

    def _save(self, step: int) -> None:
        self._checkpoints.save(step, self._training.state(), {"step": step})
        self._folder.write(WEIGHTS, save_safetensors(self._training.average))

    def _summarize(self, scores: tuple[float, float] | None) -> Fitted:
        index, network = self._pictures.index, self._training.average
        return Fitted(
            weights=str(self._folder.local(WEIGHTS)),
            fingerprint=network.fingerprint,
            steps=self._config.steps,
            parameters=sum(parameter.numel() for parameter in network.parameters()),
            train_pictures=len(index.train),
            validation_pictures=len(_thin(index.validation, VALIDATION_PICTURES)),
            validation_size=self._validation_size,
            psnr_db=scores and scores[0],
            ssim=scores and scores[1],
        )
