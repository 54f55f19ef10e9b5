"""A sweep seen: pictures of the same noise under every setting, and scores over the weights."""

from collections.abc import Callable, Sequence
from itertools import groupby
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lvae.evaluate.analysis.sweep import SweepRecord, samples_path
from lvae.evaluate.analysis.sweep_settings import Setting
from lvae.evaluate.figures.charts import Chart, Series, chart_points
from lvae.evaluate.figures.drawing import Captioned, png
from lvae.evaluate.figures.grids import Block, Row, draw_grid, name_class
from lvae.evaluate.figures.render import render_png
from lvae.evaluate.metrics import Spread
from lvae.evaluate.pictures.decode import decode, load_decoder, write_whole
from lvae.evaluate.samples import describe
from lvae.evaluate.scores.real_level import REAL_IN_WORDS
from lvae.evaluate.scores.score_table import CORRECTED, format_spread
from lvae.manifests.dataset import Dataset
from lvae.manifests.messages import counted

TITLES = {
    "latent_frechet_distance": "Fréchet distance between latents",
    "latent_kernel_distance": "kernel distance between latents",
    "latent_precision": "precision in latent space",
    "latent_recall": "recall in latent space",
    "network_frechet_distance": "Fréchet distance of features",
    "network_kernel_distance": "kernel distance of features",
    "network_precision": "precision of features",
    "network_recall": "recall of features",
    "network_class_agreement": "class agreement of logits",
    "class_agreement": "class agreement of logits",
    "fid": "FID",
    "sfid": "sFID",
    "kid": "KID",
    "inception_score": "inception score",
}


def metric_title(metric: str) -> str:
    plain = metric.removesuffix(CORRECTED)
    return TITLES.get(plain, plain.replace("_", " ")) + (", corrected" if plain != metric else "")


def lower_is_better(metric: str) -> bool:
    return any(word in metric for word in ("distance", "fid", "kid"))


def describe_setting(setting: Setting) -> str:
    if setting.output:
        return f"output temperature {setting.output:g}"
    if setting.temperature != 1:
        return f"temperature {setting.temperature:g}"
    if not (setting.mean or setting.variance):
        return "no guidance"
    return f"means {setting.mean:g}, variances {setting.variance:g}"


def write_pictures(run: Path, out: Path, record: SweepRecord, count: int, progress: Callable[[int], None]) -> None:
    """OUT/sweep.png: the first samples of every setting, of the same noise; OUT/scores.png where they were scored."""
    opened = [Dataset.open(samples_path(out, one, record.of(one)[0].seed)) for one in record.settings]
    network = load_decoder(opened[0], None, run)
    pictures = []
    for samples in opened:
        pictures.append(decode(network, samples.denormalize(samples.read(np.arange(count))[0])))
        progress(1)
    write_whole(out / "sweep.png", png(draw_pictures(record, opened[0], pictures)))
    if record.metrics and (charts := chart_scores(record)):
        write_whole(out / "scores.png", render_png(charts, columns=2))


def draw_pictures(record: SweepRecord, samples: Dataset, pictures: Sequence[NDArray[np.uint8]]) -> Image.Image:
    """A row a sample, a column a setting, guided beside unguided. samples: of the first setting."""
    settings, blocks = record.settings, list[Block]()
    for (output, temperature, mean), ones in groupby(
        settings, lambda one: (one.output != 0, one.temperature != 1, one.mean)
    ):
        some = list(ones)
        if output:
            blocks.append(Block("output", len(some), tuple(f"{one.output:g}" for one in some)))
        elif temperature:
            blocks.append(Block("temperature", len(some), tuple(f"{one.temperature:g}" for one in some)))
        else:
            heads = tuple("none" if not (one.mean or one.variance) else f"var. {one.variance:g}" for one in some)
            blocks.append(Block(f"means {mean:g}", len(some), heads))
    rows = []
    for number in range(len(pictures[0])):
        label = int(samples.labels[number])
        cells = tuple(Captioned(column[number]) for column in pictures)
        rows.append(Row(name_class(label, samples.classes) if label >= 0 else f"#{number}", cells))
    plan = describe.plan_of(samples.folder)
    assert plan is not None
    weights = "averaged" if plan.weights == "ema" else "last"
    unguided = " Means are not guided at 1x1." if not record.mean_at_1x1 and len(plan.guidance_mean) > 1 else ""
    note = (
        f"Update {record.step}, {weights} weights; seed {plan.seed}, labels {plan.labels}. The noise of a row is the "
        f"same in every column. Columns: weights of means and variances, then temperatures without guidance.{unguided}"
    )
    return draw_grid("Guidance and temperature", blocks, rows, note)


def chart_scores(record: SweepRecord) -> list[Chart]:
    """For every score: over the weight of variances, one curve a weight of means; then over either temperature."""
    charts = []
    seeds = len({result.seed for result in record.results})
    guided = [one for one in record.settings if one.temperature == 1 and not one.output]
    unguided = [one for one in record.settings if not (one.mean or one.variance or one.output)]
    outputs = [one for one in record.settings if one.output or one == Setting(0.0, 0.0, 1.0)]
    samples = counted(record.count, "sample")
    for metric in record.metrics:
        direction = "lower is closer" if lower_is_better(metric) else "higher is better"
        title = f"{metric_title(metric)}, {direction}"
        real = record.real_spread(metric)
        level = None if real is None else (REAL_IN_WORDS, real.mean)
        over_variances = [
            _series(record, metric, f"means {mean:g}", [one for one in guided if one.mean == mean], "variance")
            for mean in sorted({one.mean for one in guided})
        ]
        over_temperatures = [_series(record, metric, "no guidance", unguided, "temperature")]
        over_outputs = [_series(record, metric, "no guidance", outputs, "output")]
        drawn = f"{samples}, {counted(seeds, 'seed')}"
        for x_label, series in (
            (f"weight of variances; {drawn}", over_variances),
            (f"temperature; {drawn}", over_temperatures if len(unguided) > 1 else []),
            (f"output temperature; {drawn}", over_outputs if len(outputs) > 1 else []),
        ):
            scored = [one for one in series if one.points]
            if sum(len(one.points) for one in scored) > 1:  # one alone would be a dot; the table has it
                charts.append(chart_points(title, x_label, scored, level))
    return charts


def _series(record: SweepRecord, metric: str, name: str, settings: Sequence[Setting], along: str) -> Series:
    found = [(getattr(one, along), record.spread(one, metric)) for one in settings]
    points = ((x, spread.mean, float(np.nan_to_num(spread.std))) for x, spread in found if spread is not None)
    return Series(name, tuple(sorted(points)))


def format_table(record: SweepRecord) -> str:
    """Scores of every setting, mean and standard deviation over seeds, for a terminal."""
    metrics = record.metrics
    heads = ["", *(metric_title(metric) for metric in metrics)]
    lines = [heads]
    lines += [
        [describe_setting(one), *(_format_cell(record.spread(one, metric)) for metric in metrics)]
        for one in record.settings
    ]
    if record.real is not None:
        lines.append([REAL_IN_WORDS, *(_format_cell(record.real_spread(metric)) for metric in metrics)])
    widths = [max(len(line[column]) for line in lines) for column in range(len(heads))]
    return "\n".join(
        "  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def _format_cell(spread: Spread | None) -> str:
    return "not available" if spread is None else format_spread(*spread)
