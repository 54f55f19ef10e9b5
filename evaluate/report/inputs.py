"""What a report is about: a run, opened, with the samples it looks at drawn and scored."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lvae.encode.networks.base import Autoencoder
from lvae.evaluate.analysis.sweep import Scoring, Setting, Sweep, SweepRecord, samples_at, settings_of, sweep
from lvae.evaluate.analysis.sweep_figures import setting_in_words
from lvae.evaluate.analysis.sweep_scoring import LatentScoring
from lvae.evaluate.figures.grids import name_class
from lvae.evaluate.pictures.decode import decode, load_decoder
from lvae.evaluate.report.cache import remembered
from lvae.evaluate.report.html import Shot
from lvae.evaluate.samples.draw import Prepared, SampleOptions, prepare
from lvae.manifests.dataset import Dataset
from lvae.manifests.errors import LvaeError
from lvae.manifests.storage.folder import Folder
from lvae.train.devices.device import Device
from lvae.train.runs.metrics_log import read_metrics
from lvae.train.runs.run import RunConfig, latest_checkpoint, read_run

MEANS, VARIANCES, TEMPERATURES = (0.0, 1.5), (0.0, 1.5, 3.0), (0.85, 0.7)
UNGUIDED = Setting(0.0, 0.0, 1.0)
GUIDED = Setting(1.5, 3.0, 1.0)  # the paper's
COLUMNS, FEW_CLASSES, IN_ORDER = 8, 12, 40  # of pictures: in a row; of classes with rows of their own; without such
SWEEP_ROWS = 8


@dataclass(frozen=True)
class ReportOptions:
    """count: samples of every setting, for each of `repeats` seeds from `seed` on.

    scores: files of what 'lvae score --json' printed. weights: of the autoencoder, where the run does not have them.
    """

    dataset: str | None = None
    count: int = 256
    repeats: int = 3
    seed: int = 0
    weights: str | None = None
    scores: tuple[Path, ...] = ()
    batch: int = 64


@dataclass(frozen=True)
class Subject:
    """A run and all that its report is made from. checkpoint: SHA-256 of its files. kept: RUN/report/step-00005000."""

    run: Path
    config: RunConfig
    log: list[dict[str, Any]]
    prepared: Prepared
    checkpoint: dict[str, str]
    dataset: Dataset | None
    record: SweepRecord
    network: Autoencoder
    kept: Folder
    options: ReportOptions

    @property
    def classes(self) -> tuple[str, ...] | None:
        return self.config.dataset.classes if self.config.model.classes else None

    @property
    def guidable(self) -> bool:
        return guidable(self.config)

    @property
    def step(self) -> int:
        return self.prepared.plan.step

    @property
    def best(self) -> Setting:
        """The setting whose samples are looked at closely."""
        return GUIDED if self.guidable else UNGUIDED

    @property
    def dataset_name(self) -> str:
        return self.options.dataset or "DATASET"

    @property
    def sweep_folder(self) -> Path:
        return sweep_folder(self.kept, self.options)

    def samples_of(self, setting: Setting) -> Path:
        return samples_at(self.sweep_folder, setting, self.options.seed)

    def all_samples_of(self, setting: Setting) -> list[Path]:
        """Of every seed."""
        seeds = range(self.options.seed, self.options.seed + self.options.repeats)
        return [samples_at(self.sweep_folder, setting, seed) for seed in seeds]

    @property
    def rows_by_class(self) -> bool:
        """Whether there are so few classes that each has a row of pictures."""
        return self.classes is not None and len(self.classes) <= FEW_CLASSES


def opened(
    run: Path, options: ReportOptions, device: Device, progress: Callable[[int], None] = lambda _: None
) -> Subject:
    """Open a run, and draw and score the samples that are not there yet. progress: of the samples of `sampled`."""
    config = read_run(run)
    if config.model.low_resolution_factor is not None:
        raise LvaeError(run, "is an upsampler", "Make the report of the model that draws its low resolutions.")
    dataset = Dataset.open(options.dataset) if options.dataset is not None else None
    if dataset is not None and dataset.manifest.id != config.dataset.id:
        raise LvaeError(
            options.dataset,
            (
                f"is not what {run} was trained on (id {dataset.manifest.id[:12]}, and the run says "
                f"{config.dataset.id[:12]})"
            ),
            "Give that dataset.",
        )
    prepared = prepare(run, SampleOptions(count=options.count, seed=options.seed), device.precision)
    kept = Folder(run / "report" / f"step-{prepared.plan.step:08d}")
    folder = sweep_folder(kept, options)
    scoring: Scoring | None = None if dataset is None else LatentScoring(dataset, options.count, None, options.seed)
    wanted = Sweep(settings(config), options.count, min(SWEEP_ROWS, options.count), options.repeats)
    sampling = SampleOptions(seed=options.seed)
    record = sweep(run, folder, wanted, sampling, device, options.batch, scoring, progress)
    samples = Dataset.open(samples_at(folder, UNGUIDED, options.seed))
    places = [run] if dataset is None else [run, dataset.folder.root]
    network = load_decoder(samples, options.weights, *places)
    checkpoint, log = latest_checkpoint(run).sha256, read_metrics(run)
    return Subject(run, config, log, prepared, checkpoint, dataset, record, network, kept, options)


def sampled(run: Path, options: ReportOptions) -> int:
    """How many samples a report looks at."""
    return len(settings(read_run(run))) * options.repeats * options.count


def guidable(config: RunConfig) -> bool:
    return bool(config.model.classes and config.model.hierarchical_prior)


def settings(config: RunConfig) -> tuple[Setting, ...]:
    """What is swept: the paper's weights, half of them, and what each does alone; two temperatures."""
    means, variances = (MEANS, VARIANCES) if guidable(config) else (None, None)
    return settings_of(config.model, means, variances, TEMPERATURES)


def sweep_folder(kept: Folder, options: ReportOptions) -> Path:
    return kept.root / f"sweep-{options.count}x{options.repeats}-seed-{options.seed}"


def sample_shots(subject: Subject, setting: Setting, count: int) -> list[Shot]:
    """The first samples of a setting, decoded; kept, for decoding takes long with large autoencoders."""
    samples = Dataset.open(subject.samples_of(setting))
    count = min(count, len(samples))
    words, names = setting_in_words(setting), subject.classes

    def make() -> list[Shot]:
        stored, labels = samples.read(np.arange(count))
        decoded, found = decode(subject.network, samples.denormalize(stored)), []
        for number, (pixels, label) in enumerate(zip(decoded, labels.tolist(), strict=True)):
            name = f" {name_class(label, names)}" if label >= 0 else ""
            alt = f"sample {number}{' of class' if name else ''}{name}, {words}"
            found.append(Shot.of(pixels, alt, f"#{number}{'' if subject.rows_by_class else name}"))
        return found

    key = {"samples": samples.manifest.id, "count": count, "words": words}
    kept = remembered(subject.kept, f"pictures/{setting.name}-{count}", key, make)
    return [Shot(**one) for one in kept]
