"""A sweep: samples from the same noise under many weights of guidance and temperatures, scored.

OUT/sweep.json holds every setting, count and score, and is written anew after each; OUT/samples/ the samples, as
'lvae sample' writes them. What is there is neither drawn nor scored again.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, Protocol

import numpy as np

from lvae.evaluate.analysis.sweep_settings import Setting
from lvae.evaluate.metrics import Spread
from lvae.evaluate.samples.draw import Prepared, SampleOptions, prepare, sample_prepared
from lvae.evaluate.samples.options import SEEDED
from lvae.evaluate.scores.score_table import FEW, Figures, Line, explain_few, shown_metrics
from lvae.manifests import records
from lvae.manifests.dataset import Dataset
from lvae.manifests.errors import LvaeError
from lvae.manifests.manifest import WRITTEN_BY
from lvae.manifests.parts.plan import first_difference
from lvae.manifests.storage.folder import Folder
from lvae.train.devices.device import Device

SWEEP = "sweep.json"


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
    """How samples are scored; nothing is read before it is needed. real: the level of real data, None if not known."""

    @property
    def against(self) -> Against: ...
    def score(self, samples: Dataset, seed: int) -> Figures: ...
    def real(self) -> Line | None: ...


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
    """OUT/sweep.json. real: the level of real data, what as many real latents score against the others, draw by draw.

    None where it is not known.
    """

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
    real: tuple[dict[str, float | None], ...] | None
    results: tuple[Result, ...]

    def of(self, setting: Setting) -> list[Result]:
        """All seeds of a setting."""
        return [result for result in self.results if result.setting == setting]

    def spread(self, setting: Setting, metric: str) -> Spread | None:
        """Mean and sample standard deviation over seeds, NaN of a single one; None where it was not scored."""
        return _spread_of([result.scores.get(metric) for result in self.of(setting) if result.scores is not None])

    def real_spread(self, metric: str) -> Spread | None:
        """The same of the level of real data."""
        return _spread_of([figures.get(metric) for figures in self.real or ()])

    @property
    def settings(self) -> tuple[Setting, ...]:
        return tuple(dict.fromkeys(result.setting for result in self.results))

    @property
    def metrics(self) -> tuple[str, ...]:
        """Those that a person may compare, see `shown_metrics`."""
        return shown_metrics(self._available, self._count < FEW)

    @property
    def warning(self) -> str | None:
        """What is to be said of so few samples."""
        return explain_few(self._available, [self._count]) if self._available else None

    @property
    def _available(self) -> dict[str, bool]:
        scored = [result.scores for result in self.results if result.scores is not None]
        return {name: any(one.get(name) is not None for one in scored) for name in (scored[0] if scored else ())}

    @property
    def _count(self) -> int:
        counts = (self.count, None if self.against is None else self.against.count)
        return min(count for count in counts if count is not None)


def _spread_of(scores: Sequence[float | None]) -> Spread | None:
    values = [value for value in scores if value is not None]
    if not values:
        return None
    return Spread(float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else float("nan"))


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
    data, where = Folder(out).read_if_there(SWEEP), f"{out}/{SWEEP}"
    if data is None:
        return None
    content = records.loads(data, where)
    if isinstance(content, dict) and content.pop("floor", None) is not None:
        content["real"] = None  # earlier, of a single draw: made anew with the next scores
    return records.from_plain(SweepRecord, content, where)


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
    if options.labels not in SEEDED or seed == options.seed:
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
        real=None,
        results=(),
    )
    before = read_sweep(folder.root)
    if before is None:
        if folder.root.exists() and any(not name.startswith("samples/") for name in folder.names()):
            raise LvaeError(folder, "holds something else than a sweep", "Name another folder.")
        return new if scoring is None else replace(new, real=_measure_real(scoring))
    added = before.against is None or new.against is None  # scores may come later, and need not be asked for again
    asked = replace(new, against=before.against) if added else new
    difference = first_difference(replace(before, real=None, results=()), asked)
    if difference:
        name, old, now = difference
        raise LvaeError(
            folder,
            f"holds a sweep of other settings: {name} was {old!r:.80} and is {now!r:.80} now",
            "Name another folder, or give the old settings.",
        )
    if scoring is None or before.real is not None:
        return before
    return replace(before, against=new.against, real=_measure_real(scoring))


def _measure_real(scoring: Scoring) -> tuple[dict[str, float | None], ...] | None:
    line = scoring.real()
    return None if line is None else tuple(map(dict, line.sets))
