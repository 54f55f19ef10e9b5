"""How long an update takes: a few of them, timed."""

import tempfile
import time
from dataclasses import replace
from pathlib import Path

from lvae.actions.study.arms import Model
from lvae.encode.devices import choose_device
from lvae.encode.training.config import FitConfig
from lvae.encode.training.fit import FitOptions, Watcher
from lvae.encode.training.fit import fit as fit_autoencoder
from lvae.manifests.dataset import Dataset
from lvae.train.devices.open import open_device
from lvae.train.fit import fit
from lvae.train.loop.session import Execution, Watching
from lvae.train.runs.resolve import resolve_config

TRIAL = 6  # updates; the first two also build what they need


def time_model(dataset: Dataset, model: Model, scratch: Path, threads: int = 1, updates: int = TRIAL) -> float:
    """Seconds of one update. Of one thread the CPU's own on a CPU, so that other work on the machine does not count.

    threads: of a CPU; of several, seconds as they pass. updates: that are timed, at least 3.
    """
    settings = {**model.settings, "updates": str(updates)}
    preset = settings.pop("preset")
    config = resolve_config(dataset, None, preset, settings)
    device = open_device("auto", "auto", False, threads)
    clock = time.process_time if device.kind == "cpu" and threads == 1 else time.perf_counter
    ends = list[float]()
    execution = Execution(log=updates, save=0, validate=0, preview=0)
    try:
        with tempfile.TemporaryDirectory(dir=scratch) as run:
            fit(Path(run), config, dataset, device, execution, Watching(update=lambda _: ends.append(clock())))
    finally:
        device.close()
    return seconds_between(ends)


def time_autoencoder(images: str, config: FitConfig, scratch: Path) -> float:
    """Likewise of an autoencoder."""
    ends = list[float]()
    clock = time.process_time if choose_device("auto") == "cpu" else time.perf_counter

    def note(done: int, _: int) -> None:
        if done:
            ends.append(clock())

    watcher = Watcher(lambda *_: None, note, lambda _: None, lambda *_: b"")
    with tempfile.TemporaryDirectory(dir=scratch) as run:
        fit_autoencoder(images, Path(run), replace(config, steps=TRIAL), watcher, FitOptions(workers=0))
    return seconds_between(ends)


def seconds_between(ends: list[float]) -> float:
    """Of the times at which updates ended, without the first two."""
    return (ends[-1] - ends[1]) / (len(ends) - 2)
