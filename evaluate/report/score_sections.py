"""The sections of a report that judge: neighbours, reconstructions, scores, speed, and where everything came from."""

from pathlib import Path
from typing import Any

import numpy as np

from lvae.evaluate.analysis import neighbours as near
from lvae.evaluate.analysis.neighbours import Queries
from lvae.evaluate.analysis.sweep import Setting
from lvae.evaluate.analysis.sweep_figures import lower_is_better, metric_title, setting_in_words
from lvae.evaluate.figures.grids import name_class
from lvae.evaluate.pictures.decode import decode
from lvae.evaluate.pictures.inspect import read_plan_classes
from lvae.evaluate.pictures.originals import reconstructions
from lvae.evaluate.report.cache import remembered
from lvae.evaluate.report.html import (
    Head,
    Line,
    Section,
    Shot,
    facts,
    figure,
    missing,
    numbers,
    paragraph,
    pictures,
    subtitle,
)
from lvae.evaluate.report.inputs import UNGUIDED, Subject
from lvae.evaluate.report.run_sections import seeds
from lvae.evaluate.scores.latent_scores import latent_scores
from lvae.manifests import records
from lvae.manifests.dataset import Dataset
from lvae.manifests.errors import LvaeError
from lvae.manifests.messages import counted

NEIGHBOUR_ROWS, NEIGHBOURS, RECONSTRUCTIONS = 8, 6, 8


def neighbours_section(subject: Subject) -> Section:
    title, data = "Nearest training images", subject.dataset
    if data is None:
        return Section("neighbours", title, missing(*_without(subject, "the training images nearest to samples")))
    place = subject.samples_of(subject.best)
    samples = Dataset.open(place)
    positions = np.arange(min(NEIGHBOUR_ROWS, len(samples)))

    def make() -> dict[str, Any]:
        queries = Queries.of_dataset(samples, positions)
        found = near.neighbours(queries, data, min(NEIGHBOURS, len(data) - 2), subject.network)
        shown, from_source = near.neighbour_pictures(data, subject.network, found)
        own = decode(subject.network, queries.raw)
        lines = []
        for number, label, pixels, nearest, others in zip(
            queries.numbers, queries.labels.tolist(), own, found.found, shown, strict=True
        ):
            name = name_class(label, data.classes) if label >= 0 else f"#{number}"
            shots = [Shot.of(pixels, f"sample {number}", f"#{number}")]
            for rank, (one, picture) in enumerate(zip(nearest, others, strict=True), 1):
                alt = f"training image nearest to sample {number}, number {rank}, at distance {one.distance:.3g}"
                shots.append(Shot.of(picture, alt, near.caption(one, label, data.classes)))
            lines.append({"name": name, "shots": shots})
        return {"lines": lines, "from_source": from_source, "explanation": near.explanation(found)}

    key = {"samples": samples.manifest.id, "dataset": data.manifest.id, "k": NEIGHBOURS, "count": len(positions)}
    kept = remembered(subject.kept, "neighbours", key, make)
    lines = [Line(line["name"], tuple(Shot(**shot) for shot in line["shots"])) for line in kept["lines"]]
    kind = "read from their source" if kept["from_source"] else "reconstructions, for their originals are not here"
    k = len(lines[0].shots) - 1
    caption = f"Samples with {setting_in_words(subject.best)}; training images are {kind}. {kept['explanation']}"
    heads = [Head("sample", ("",)), Head(f"nearest of {counted(len(data), 'training latent')}", ("",) * k)]
    made_by = f"lvae neighbours {place} {subject.dataset_name} neighbours.png -n {len(lines)} -k {k}"
    return Section("neighbours", title, figure(pictures("Samples and their nearest", heads, lines), caption, made_by))


def _without(subject: Subject, what: str) -> tuple[str, str]:
    return f"Here stand {what}, where the dataset is given.", f"lvae report {subject.run} --dataset DATASET"


def reconstructions_section(subject: Subject) -> Section:
    title, data = "Reconstructions", subject.dataset
    if data is None:
        return Section("reconstructions", title, missing(*_without(subject, "originals beside their reconstructions")))

    def make() -> dict[str, Any]:
        try:
            found = reconstructions(data, RECONSTRUCTIONS)
        except LvaeError as error:
            return {"error": str(error)}
        names = read_plan_classes(data)
        originals = [
            Shot.of(one.original, f"original {one.key}", name_class(one.label, names) if one.label >= 0 else "")
            for one in found
        ]
        decoded = [Shot.of(one.decoded, f"reconstruction of {one.key}", f"{one.psnr_db:.1f} dB") for one in found]
        mean = float(np.mean([min(one.psnr_db, 100.0) for one in found]))
        return {"originals": originals, "decoded": decoded, "mean_psnr_db": mean}

    made_by = f"lvae inspect {subject.dataset_name} --preview reconstructions.png"
    key = {"dataset": data.manifest.id, "count": RECONSTRUCTIONS}
    kept = remembered(subject.kept, "reconstructions", key, make)
    if "error" in kept:
        return Section("reconstructions", title, missing(f"They cannot be shown: {kept['error']}", made_by))
    lines = [
        Line(name, tuple(Shot(**shot) for shot in kept[row]))
        for name, row in (("original", "originals"), ("decoded", "decoded"))
    ]
    caption = (
        f"Training images through {data.manifest.autoencoder.name} and back: the best that samples decoded by it can "
        f"look like. {kept['mean_psnr_db']:.1f} dB on average over these."
    )
    table = pictures("Originals and reconstructions", [Head("", ("",) * len(lines[0].shots))], lines)
    return Section("reconstructions", title, figure(table, caption, made_by))


def scores_section(subject: Subject) -> Section:
    body = ""
    data = subject.dataset
    if data is None:
        body += missing(*_without(subject, "scores in latent space"))
    else:
        body += _latent_scores(subject, data)
    for path in subject.options.scores:
        body += subtitle(path.name) + _scores_of(path)
    return Section("scores", "Scores", body)


def _latent_scores(subject: Subject, data: Dataset) -> str:
    sets = [Dataset.open(place) for place in subject.all_samples_of(subject.best)]
    key = {"samples": [one.manifest.id for one in sets], "dataset": data.manifest.id, "seed": subject.options.seed}
    full = remembered(
        subject.kept, "scores", key, lambda: latent_scores(sets, data, None, subject.options.seed).as_dict()
    )
    metrics = subject.record.metrics
    heads = [f"{metric_title(metric)}\u00a0{'↓' if lower_is_better(metric) else '↑'}" for metric in metrics]
    rows = [
        (setting_in_words(setting), [_spread(subject, setting, metric) for metric in metrics], "")
        for setting in dict.fromkeys((UNGUIDED, subject.best, *subject.record.settings))
    ]
    floor = subject.record.floor
    rows.append(("real against real, as many", [_number(floor.get(metric)) for metric in metrics], "quiet"))
    rivals = (
        ("linear", "linear baseline: a Gaussian a class"),
        ("bottom", "noise of the channels' mean and deviation"),
    )
    for prefix, words in rivals:
        values = [(full.get(f"{prefix}_{metric}"), full.get(f"{prefix}_{metric}_std")) for metric in metrics]
        rows.append((words, [_number(mean) + (f" ± {std:.2g}" if std else "") for mean, std in values], "quiet"))
    verdicts = "; ".join(f"{metric_title(metric)} {verdict}" for metric, verdict in full["verdicts"].items())
    against = subject.record.against
    caption = (
        f"Between normalized latents, not images: none of these is FID. {subject.record.count} samples a "
        f"setting{seeds(subject)}, against {against.count if against else 0} training latents of {full['dimensions']} "
        f"numbers. Precision and recall: k = 3. {_bias(subject, full['dimensions'])} Samples with "
        f"{setting_in_words(subject.best)} against the linear baseline, an ordering only where the spreads part: "
        f"{verdicts}."
    )
    samples = " ".join(f"--samples {place}" for place in subject.all_samples_of(subject.best))
    made_by = f"lvae score {samples} --reference {subject.dataset_name}"
    return figure(numbers("Scores", heads, rows), caption, made_by)


def _bias(subject: Subject, dimensions: int) -> str:
    """What to think of a Fréchet distance of so many samples."""
    if subject.record.count > 10 * dimensions:
        return "Compare Fréchet distances at equal counts only: they are biased upwards."
    return (
        "Of so few samples the Fréchet distance is mostly bias, the larger the more varied they are, which is why real "
        "latents may score worse than samples of little variety: read it beside recall."
    )


def _spread(subject: Subject, setting: Setting, metric: str) -> str:
    spread = subject.record.spread(setting, metric)
    if spread is None:
        return "not available"
    return f"{spread.mean:.4g}" + (f" ± {spread.std:.2g}" if spread.std else "")


def _number(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, int | float) else "not available"


def _scores_of(path: Path) -> str:
    """What 'lvae score --json' printed into a file."""
    try:
        found = records.loads(path.read_bytes(), str(path))
    except FileNotFoundError:
        raise LvaeError(path, "no such file", f"'lvae score ... --json > {path.name}' makes one.") from None
    if not isinstance(found, dict):
        raise LvaeError(path, "not what 'lvae score --json' prints")
    warnings = found.pop("warnings", [])
    rows = [(name.replace("_", " "), _plain(value)) for name, value in found.items()]
    said = "".join(paragraph(str(warning), "warning") for warning in warnings)
    return facts(f"Scores of {path.name}", rows) + said


def _plain(value: Any) -> str:
    if value is None:
        return "not available"
    if isinstance(value, dict):
        return "; ".join(f"{name.replace('_', ' ')}: {_plain(entry)}" for name, entry in value.items())
    if isinstance(value, list):
        return ", ".join(map(_plain, value))
    return f"{value:.6g}" if isinstance(value, float) else str(value)
