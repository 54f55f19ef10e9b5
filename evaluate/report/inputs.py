"""What a report is about: an opened run, and the samples it looks at, drawn and scored."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from lvae.encode.networks.base import Autoencoder
from lvae.evaluate.analysis.sweep import (
    Sampling,
    Scoring,
    SweepRecord,
    SweepRequest,
    samples_path,
    sweep,
)
from lvae.evaluate.analysis.sweep_figures import describe_setting
from lvae.evaluate.analysis.sweep_scoring import LatentScoring
from lvae.evaluate.analysis.sweep_settings import Setting, combine_settings
from lvae.evaluate.figures.grids import name_class
from lvae.evaluate.pictures.decode import decode, load_decoder
from lvae.evaluate.report.cache import load_or_make
from lvae.evaluate.report.page import Thumbnail
from lvae.evaluate.samples.draw import Prepared, SampleOptions, prepare
from lvae.evaluate.scores.latent_scores import latent_scores
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
SCORES = 2  # how they are computed: another number computes them anew
LAYOUT = 4  # of pictures in the cache: another number makes them anew


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

    @property
    def seeds(self) -> range:
        return range(self.seed, self.seed + self.repeats)


@dataclass(frozen=True)
class ReportInputs:
    """A run and all that its report is made from, opened once.

    checkpoint: SHA-256 of its files. cache: RUN/report/step-00005000. samples: by setting and seed, of every setting
    those of the first seed, of the best one all.
    """

    run: Path
    config: RunConfig
    log: list[dict[str, Any]]
    prepared: Prepared
    checkpoint: dict[str, str]
    dataset: Dataset | None
    record: SweepRecord
    network: Autoencoder
    cache: Folder
    options: ReportOptions
    samples: Mapping[tuple[Setting, int], Dataset]

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
        return best_setting(self.config)

    @cached_property
    def scores(self) -> dict[str, Any] | None:
        """What 'lvae score --json' says of the samples of the best setting, all seeds; None without the dataset."""
        data, against = self.dataset, self.record.against
        if data is None or against is None:
            return None
        sets = [self.samples[self.best, seed] for seed in self.options.seeds]
        key = {"samples": [one.manifest.id for one in sets], "dataset": data.manifest.id, "seed": self.options.seed}

        def make() -> dict[str, Any]:
            return latent_scores(sets, data, None, self.options.seed, reference_num=against.count).as_dict()

        found: dict[str, Any] = load_or_make(self.cache, "scores", {**key, "layout": SCORES}, make)
        return found

    @property
    def dataset_name(self) -> str:
        return self.options.dataset or "DATASET"

    @property
    def sweep_folder(self) -> Path:
        return sweep_folder(self.cache, self.options)

    def samples_of(self, setting: Setting) -> Dataset:
        return self.samples[setting, self.options.seed]

    def samples_path(self, setting: Setting, seed: int | None = None) -> Path:
        return samples_path(self.sweep_folder, setting, self.options.seed if seed is None else seed)

    @property
    def rows_by_class(self) -> bool:
        """Whether there are so few classes that each has a row of pictures."""
        return self.classes is not None and len(self.classes) <= FEW_CLASSES


def open_inputs(
    run: Path, options: ReportOptions, device: Device, progress: Callable[[int], None] = lambda _: None
) -> ReportInputs:
    """Open a run; draw and score the samples that are not there yet. progress: of as many as `count_samples` says."""
    config = read_run(run)
    if config.model.low_resolution_factor is not None:
        raise LvaeError(run, "is an upsampler", "Make the report of the model that draws its low resolutions.")
    dataset = None if options.dataset is None else _open_dataset(run, config, options.dataset)
    prepared = prepare(run, SampleOptions(count=options.count, seed=options.seed), device.precision)
    cache = Folder(run / "report" / f"step-{prepared.plan.step:08d}")
    folder = sweep_folder(cache, options)
    scoring: Scoring | None = None if dataset is None else LatentScoring(dataset, options.count, None, options.seed)
    settings = list_settings(config)
    request = SweepRequest(settings, options.count, min(SWEEP_ROWS, options.count), options.repeats)
    sampling = Sampling(SampleOptions(seed=options.seed), device, options.batch)
    record = sweep(run, folder, request, sampling, scoring, progress)
    places = [(setting, options.seed) for setting in settings]
    places += [(best_setting(config), seed) for seed in options.seeds[1:]]
    samples = {(setting, seed): Dataset.open(samples_path(folder, setting, seed)) for setting, seed in places}
    carried = [run] if dataset is None else [run, dataset.folder.root]
    network = load_decoder(samples[UNGUIDED, options.seed], options.weights, *carried)
    return ReportInputs(
        run=run,
        config=config,
        log=read_metrics(run),
        prepared=prepared,
        checkpoint=latest_checkpoint(run).sha256,
        dataset=dataset,
        record=record,
        network=network,
        cache=cache,
        options=options,
        samples=samples,
    )


def _open_dataset(run: Path, config: RunConfig, path: str) -> Dataset:
    dataset = Dataset.open(path)
    if dataset.manifest.id != config.dataset.id:
        ids = f"id {dataset.manifest.id[:12]}, and the run says {config.dataset.id[:12]}"
        raise LvaeError(path, f"is not what {run} was trained on ({ids})", "Give that dataset.")
    return dataset


def count_samples(run: Path, options: ReportOptions) -> int:
    """How many samples a report looks at."""
    return len(list_settings(read_run(run))) * options.repeats * options.count


def guidable(config: RunConfig) -> bool:
    return bool(config.model.classes and config.model.hierarchical_prior)


def best_setting(config: RunConfig) -> Setting:
    return GUIDED if guidable(config) else UNGUIDED


def list_settings(config: RunConfig) -> tuple[Setting, ...]:
    """What is swept: the paper's weights, half of them, and what each does alone; two temperatures."""
    means, variances = (MEANS, VARIANCES) if guidable(config) else (None, None)
    return combine_settings(config.model, means, variances, TEMPERATURES)


def sweep_folder(cache: Folder, options: ReportOptions) -> Path:
    return cache.root / f"sweep-{options.count}x{options.repeats}-seed-{options.seed}"


def decode_samples(inputs: ReportInputs, setting: Setting, count: int) -> list[Thumbnail]:
    """The first samples of a setting as pictures; kept, for decoding takes long with large autoencoders."""
    samples = inputs.samples_of(setting)
    count = min(count, len(samples))
    words, names = describe_setting(setting), inputs.classes

    def make() -> list[Thumbnail]:
        stored, labels = samples.read(np.arange(count))
        found = []
        pictures = decode(inputs.network, samples.denormalize(stored))
        for number, (pixels, label) in enumerate(zip(pictures, labels.tolist(), strict=True)):
            name = f" {name_class(label, names)}" if label >= 0 else ""
            alt = f"sample {number}{' of class' if name else ''}{name}, {words}"
            found.append(Thumbnail.of(pixels, alt, f"#{number}{'' if inputs.rows_by_class else name}"))
        return found

    key = {"samples": samples.manifest.id, "count": count, "words": words, "layout": LAYOUT}
    kept = load_or_make(inputs.cache, f"pictures/{setting.name}-{count}", key, make)
    return [Thumbnail(**one) for one in kept]
