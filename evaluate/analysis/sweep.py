"""A sweep: samples from the same noise under many weights of guidance and temperatures, scored.

OUT/sweep.json holds every setting, count and score, and is written anew after each; OUT/samples/ the samples, as
'lvae sample' writes them. What is there is neither drawn nor scored again.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, Protocol

import numpy as np

from lvae.evaluate.metrics import Spread
from lvae.evaluate.samples.draw import Prepared, SampleOptions, prepare, sample_prepared
from lvae.evaluate.scores.score_table import Figures
from lvae.manifests import records
from lvae.manifests.dataset import Dataset
from lvae.manifests.errors import LvaeError
from lvae.manifests.manifest import WRITTEN_BY
from lvae.manifests.parts.plan import first_difference
from lvae.manifests.storage.folder import Folder
from lvae.train.config import ModelConfig
from lvae.train.devices.device import Device

SWEEP = "sweep.json"
MEANS, VARIANCES, TEMPERATURES = (0.0, 0.75, 1.5, 3.0), (0.0, 1.5, 3.0), (0.9, 0.8, 0.7)


@dataclass(frozen=True)
class Setting:
    """One place of a sweep. mean, variance: weights of guidance, 0 being off. Temperatures are swept without it.

    output: the share of the predicted deviation that is added to the mean.
    """

    mean: float
    variance: float
    temperature: float
    output: float = records.later(0.0)

    @property
    def name(self) -> str:
        if self.output:
            return f"output-{self.output:g}"
        if self.temperature != 1:
            return f"temperature-{self.temperature:g}"
        return f"mean-{self.mean:g}-variance-{self.variance:g}" if self.mean or self.variance else "unguided"


@dataclass(frozen=True)
class SweepRequest:
    """What is asked for. count: samples of a setting and seed. Seeds are seed, seed + 1, ... up to `repeats`.

    mean_at_1x1: whether means are guided at the resolution 1 too, which the paper does not, to avoid saturation.
    """

    settings: tuple[Setting, ...]
    count: int
    pictures: int
    repeats: int = 1
    mean_at_1x1: bool = False

    def __post_init__(self) -> None:
        if self.pictures > self.count:
            raise LvaeError(f"{self.pictures} pictures of {self.count} samples", f"give -n {self.pictures} or more")


@dataclass(frozen=True)
class Against:
    """What scores are computed against. space: "latent", or the mode of the Inception features."""

    space: str
    reference: str
    count: int | None
    weights_sha256: str | None


class Scoring(Protocol):
    """How samples are scored; nothing is read before it is needed. floor: empty where it is not known."""

    @property
    def against(self) -> Against: ...
    def score(self, samples: Dataset, seed: int) -> Figures: ...
    def floor(self) -> Figures: ...


@dataclass(frozen=True)
class Result:
    """One setting and seed. guidance_mean, guidance_variance: per resolution, lowest first, as they were applied."""

    setting: Setting
    seed: int
    guidance_mean: tuple[float, ...]
    guidance_variance: tuple[float, ...]
    temperature: tuple[float, ...]
    scores: dict[str, float | None] | None


@dataclass(frozen=True)
class SweepRecord:
    """OUT/sweep.json. floor: the scores of as many real latents against the others, the best that can be expected."""

    format: Literal["latent-vae-sweep"]
    version: Literal[1]
    written_by: str
    dataset: str
    model_sha256: str
    step: int
    weights: Literal["ema", "raw"]
    count: int
    labels: str
    mean_at_1x1: bool
    precision: str
    against: Against | None
    floor: dict[str, float | None]
    results: tuple[Result, ...]

    def of(self, setting: Setting) -> list[Result]:
        """All seeds of a setting."""
        return [result for result in self.results if result.setting == setting]

    def spread(self, setting: Setting, metric: str) -> Spread | None:
        """Mean and sample standard deviation over seeds, 0 of a single one; None where it was not scored."""
        scores = [result.scores[metric] for result in self.of(setting) if result.scores is not None]
        values = [value for value in scores if value is not None]
        if not values:
            return None
        return Spread(float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else 0.0)

    @property
    def settings(self) -> tuple[Setting, ...]:
        return tuple(dict.fromkeys(result.setting for result in self.results))

    @property
    def metrics(self) -> tuple[str, ...]:
        """Those that were computed, but the deviations of others."""
        scored = [result.scores for result in self.results if result.scores is not None]
        return tuple(name for name in (scored[0] if scored else ()) if "_std" not in name)


def combine_settings(
    config: ModelConfig,
    means: tuple[float, ...] | None,
    variances: tuple[float, ...] | None,
    temperatures: tuple[float, ...] | None,
    outputs: tuple[float, ...] = (),
) -> tuple[Setting, ...]:
    """No guidance first, then means x variances, then temperatures, of the draws and of the output; each once.

    None: the usual ones.
    """
    guidable = bool(config.classes and config.hierarchical_prior)
    if not guidable and (any(means or ()) or any(variances or ())):
        raise LvaeError(
            "",
            ("guidance needs a model with classes and a hierarchical prior, and this one has not both"),
            "Leave --means and --variances out; its temperature can be swept.",
        )
    for option, numbers in (("--temperatures", temperatures), ("--output-temperatures", outputs)):
        if min(numbers or (0.0,)) < 0:
            raise LvaeError(option, "must not be negative")
    means = means if means is not None else MEANS if guidable else (0.0,)
    variances = variances if variances is not None else VARIANCES if guidable else (0.0,)
    found = [Setting(0.0, 0.0, 1.0)]
    found += [Setting(mean, variance, 1.0) for mean in means for variance in variances]
    found += [
        Setting(0.0, 0.0, temperature) for temperature in (TEMPERATURES if temperatures is None else temperatures)
    ]
    found += [Setting(0.0, 0.0, 1.0, output) for output in outputs]
    return tuple(dict.fromkeys(found))


def parse_numbers(option: str, text: str | None) -> tuple[float, ...] | None:
    """Parse "0,1.5,3"; None where the option was not given."""
    if text is None:
        return None
    try:
        values = tuple(float(part) for part in text.split(",")) if text else ()
    except ValueError:
        raise LvaeError(f"{option} {text:.60}", "write numbers like 0,1.5,3") from None
    if not np.isfinite(values).all():
        raise LvaeError(f"{option} {text:.60}", "every number must be finite")
    return values


@dataclass(frozen=True)
class Sampling:
    """How samples are drawn. options: everything but guidance, temperature and count."""

    options: SampleOptions
    device: Device
    batch: int


def sweep(
    run: Path,
    out: Path,
    request: SweepRequest,
    sampling: Sampling,
    scoring: Scoring | None = None,
    progress: Callable[[int], None] = lambda _: None,
) -> SweepRecord:
    """Draw and score what is not there yet."""
    folder, device, first_seed = Folder(out), sampling.device, sampling.options.seed
    prepared = prepare(run, replace(sampling.options, count=request.count), device.precision)
    record = _load_or_begin(folder, prepared, request, scoring, device)
    device.place(prepared.model)
    for setting, seed in _list_pairs(request, first_seed):
        own = _change_setting(run, prepared, setting, seed, request, sampling)
        place = samples_path(out, setting, seed)
        plan = sample_prepared(own, run, place, device, sampling.batch, progress)
        done = next((one for one in record.of(setting) if one.seed == seed), None)
        if device.is_main and (done is None or (done.scores is None and scoring is not None)):
            scores = None if scoring is None else dict(scoring.score(Dataset.open(place), seed))
            result = Result(setting, seed, plan.guidance_mean, plan.guidance_variance, plan.temperature, scores)
            others = tuple(one for one in record.results if one is not done)
            record = replace(record, results=(*others, result))
            folder.write(SWEEP, records.dumps(record))
        device.barrier()
    order = {pair: number for number, pair in enumerate(_list_pairs(request, first_seed))}
    asked = [one for one in record.results if (one.setting, one.seed) in order]
    return replace(record, results=tuple(sorted(asked, key=lambda one: order[one.setting, one.seed])))


def samples_path(out: Path, setting: Setting, seed: int) -> Path:
    return out / "samples" / f"{setting.name}-seed-{seed}"


def read_sweep(out: Path) -> SweepRecord | None:
    data = Folder(out).read_if_there(SWEEP)
    return None if data is None else records.parse(SweepRecord, data, f"{out}/{SWEEP}")


def _list_pairs(request: SweepRequest, seed: int) -> Iterator[tuple[Setting, int]]:
    """Every seed of a setting before the next setting, so that an interrupted sweep has whole ones."""
    return ((setting, seed + number) for setting in request.settings for number in range(request.repeats))


def _change_setting(
    run: Path, prepared: Prepared, setting: Setting, seed: int, request: SweepRequest, sampling: Sampling
) -> Prepared:
    """The same model under other settings; its weights are not read again."""
    config = prepared.model.config
    lowest_first = tuple(reversed(config.resolutions))
    spared = {1} if not request.mean_at_1x1 and len(lowest_first) > 1 else set()
    plan = replace(
        prepared.plan,
        seed=seed,
        guidance_mean=tuple(0.0 if resolution in spared else setting.mean for resolution in lowest_first),
        guidance_variance=(setting.variance,) * len(lowest_first),
        temperature=(setting.temperature,) * len(lowest_first),
        output_temperature=setting.output,
    )
    options = sampling.options
    if options.labels != "random" or seed == options.seed:
        return replace(prepared, plan=plan)
    other = prepare(run, replace(options, count=request.count, seed=seed), sampling.device.precision)
    return replace(prepared, plan=replace(plan, labels_sha256=other.plan.labels_sha256), labels=other.labels)


def _load_or_begin(
    folder: Folder, prepared: Prepared, request: SweepRequest, scoring: Scoring | None, device: Device
) -> SweepRecord:
    """Return the record that is there, or an empty one. LvaeError where the folder holds something else."""
    plan = prepared.plan
    new = SweepRecord(
        format="latent-vae-sweep",
        version=1,
        written_by=WRITTEN_BY,
        dataset=plan.dataset,
        model_sha256=plan.model_sha256,
        step=plan.step,
        weights=plan.weights,
        count=plan.count,
        labels=plan.labels,
        mean_at_1x1=request.mean_at_1x1,
        precision=device.precision,
        against=None if scoring is None else scoring.against,
        floor={},
        results=(),
    )
    before = read_sweep(folder.root)
    if before is None:
        if folder.root.exists() and any(not name.startswith("samples/") for name in folder.names()):
            raise LvaeError(folder, "holds something else than a sweep", "Name another folder.")
        return new if scoring is None else replace(new, floor=dict(scoring.floor()))
    added = before.against is None or new.against is None  # scores may come later, and need not be asked for again
    asked = replace(new, against=before.against) if added else new
    difference = first_difference(replace(before, floor={}, results=()), asked)
    if difference:
        name, old, now = difference
        raise LvaeError(
            folder,
            f"holds a sweep of other settings: {name} was {old!r:.80} and is {now!r:.80} now",
            "Name another folder, or give the old settings.",
        )
    if scoring is None or before.against is not None:
        return before
    return replace(before, against=new.against, floor=dict(scoring.floor()))
