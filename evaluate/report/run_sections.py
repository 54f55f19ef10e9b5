"""The sections of a report that show the run: what was trained, its curves, samples and guidance."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby

from lvae.evaluate.analysis.sweep import Setting
from lvae.evaluate.analysis.sweep_figures import chart_scores, setting_in_words
from lvae.evaluate.figures.charts import Chart, chart_bars
from lvae.evaluate.figures.curves import chart_log
from lvae.evaluate.figures.grids import name_class
from lvae.evaluate.report.html import Head, Line, Section, charts, facts, figure, folded, missing, pictures, subtitle
from lvae.evaluate.report.inputs import (
    COLUMNS,
    FEW_CLASSES,
    IN_ORDER,
    MEANS,
    SWEEP_ROWS,
    TEMPERATURES,
    UNGUIDED,
    VARIANCES,
    Subject,
    sample_shots,
)
from lvae.manifests import records
from lvae.manifests.dataset import Dataset
from lvae.manifests.messages import counted
from lvae.train.runs.estimates import estimate


def trained_on(subject: Subject) -> Section:
    record, model, training = subject.config.dataset, subject.config.model, subject.config.training
    stage, image = record.autoencoder, record.image
    mirrored = ", each with its mirror image" if image.mirrored else ""
    levels = ", ".join(
        f"{count} at {side}×{side}" for side, count in zip(model.resolutions[::-1], model.groups[::-1], strict=True)
    )
    seen = subject.step * training.batch * training.accumulate
    rows = [
        ("pictures", f"{image.size} px, crop {image.crop}{mirrored}"),
        (
            "latents",
            f"{record.count:,} of {'×'.join(map(str, record.shape))}, normalized by {record.normalization.kind}",
        ),
        (
            "autoencoder",
            f"{stage.name}, factor {stage.downsampling_factor}, {counted(stage.latent_channels, 'channel')}",
        ),
        ("classes", _class_list(subject)),
        ("model", f"preset {subject.config.preset}; groups: {levels}; z of {counted(model.z_channels, 'channel')}"),
        ("prior", "learned, given the groups above" if model.hierarchical_prior else "standard normal"),
        ("parameters", f"{estimate(subject.config, 1).parameters:,}"),
        (
            "training",
            f"{subject.step:,} updates of {training.batch * training.accumulate} latents, "
            f"{seen / max(record.count, 1):,.1f} epochs; learning rate {training.learning_rate:g} "
            f"({training.learning_rate_schedule}), EMA {training.ema:g}, σq {training.sigma_q:g}, {training.precision}",
        ),
    ]
    settings = records.dumps({"model": model, "training": training}).decode()
    return Section(
        "trained",
        "What was trained on what",
        facts("Model and data", rows) + folded("All settings of model and training", settings.strip()),
    )


def _class_list(subject: Subject) -> str:
    names = subject.classes
    if names is None:
        known = subject.config.dataset.classes
        return "none" if known is None else f"{len(known)} in the data, not told to the model"
    shown = ", ".join(names[:FEW_CLASSES])
    return f"{len(names)}: {shown}" + (", …" if len(names) > FEW_CLASSES else "")


def curves(subject: Subject) -> Section:
    lines = subject.log
    made_by = f"lvae plot {subject.run} curves.png"
    if not lines:
        return Section("curves", "Curves", missing("The log of this run, metrics.jsonl, holds nothing.", made_by))
    found = chart_log(lines)
    at = next((number for number, chart in enumerate(found) if chart.title.startswith("rate of every")), len(found))
    found[at + 1 : at + 1] = _chart_last_rates(subject)
    skipped = lines[-1].get("skipped_updates") or 0
    caption = (
        f"{counted(len(lines), 'entry', 'entries')} of the log. Groups stand in the order they are drawn, their "
        f"resolution below. {counted(int(skipped), 'update')} skipped for a wild gradient."
    )
    return Section("curves", "Curves", figure(charts(found), caption, made_by))


def _chart_last_rates(subject: Subject) -> list[Chart]:
    last = next((line for line in reversed(subject.log) if None not in line.get("rate_per_group_nats", [None])), None)
    sides = subject.config.model.group_resolutions
    if last is None or len(last["rate_per_group_nats"]) != len(sides):
        return []
    title = f"rate of every group at update {last['step']:,}, nats"
    names = [f"{side}×{side}" for side in sides]
    return [chart_bars(title, "groups, lowest resolution first", names, last["rate_per_group_nats"])]


def samples(subject: Subject) -> Section:
    body = ""
    for setting in dict.fromkeys((subject.best, UNGUIDED)):
        label = f"Samples, {setting_in_words(setting)}"
        place = subject.samples_of(setting)
        lines = _by_class(subject, setting)
        shown = sum(shot is not None for line in lines for shot in line.shots)
        caption = (
            f"The first {counted(shown, 'sample')} of seed {subject.options.seed}, not chosen; averaged weights of "
            f"update {subject.step:,}; the number of a sample below it."
        )
        made_by = f"lvae decode {place} samples.png --limit {_limit(subject)}"
        body += subtitle("No guidance" if setting == UNGUIDED else f"With guidance: {setting_in_words(setting)}")
        body += figure(pictures(label, [Head("", ("",) * COLUMNS)], lines), caption, made_by)
    return Section("samples", "Samples", body)


def _limit(subject: Subject) -> int:
    names = subject.classes if subject.rows_by_class else None
    return min(IN_ORDER if names is None else COLUMNS * len(names), subject.options.count)


def _by_class(subject: Subject, setting: Setting) -> list[Line]:
    shots = sample_shots(subject, setting, _limit(subject))
    labels = Dataset.open(subject.samples_of(setting)).labels[: len(shots)]
    lines = []
    if subject.rows_by_class:
        for label in sorted({int(label) for label in labels}):
            own = [shot for shot, its in zip(shots, labels, strict=True) if its == label]
            lines.append(Line(name_class(label, subject.classes), (*own, *(None,) * (COLUMNS - len(own)))))
        return lines
    for start in range(0, len(shots), COLUMNS):
        some = shots[start : start + COLUMNS]
        lines.append(Line("", (*some, *(None,) * (COLUMNS - len(some)))))
    return lines


def guidance(subject: Subject) -> Section:
    settings = subject.record.settings
    columns = {setting: sample_shots(subject, setting, min(SWEEP_ROWS, subject.options.count)) for setting in settings}
    heads = []
    for (cold, mean), ones in groupby(settings, lambda one: (one.temperature != 1, one.mean)):
        some = list(ones)
        if cold:
            heads.append(Head("temperature", tuple(f"{one.temperature:g}" for one in some)))
        else:
            headings = tuple("none" if one == UNGUIDED else f"variances {one.variance:g}" for one in some)
            heads.append(Head(f"means {mean:g}", headings))
    labels = Dataset.open(subject.samples_of(UNGUIDED)).labels
    lines = []
    for number in range(len(columns[UNGUIDED])):
        name = name_class(int(labels[number]), subject.classes) if labels[number] >= 0 else f"#{number}"
        lines.append(Line(name, tuple(replace(columns[one][number], caption="") for one in settings)))
    spared = "Means are not guided at 1×1, as in the paper. " if len(subject.config.model.groups) > 1 else ""
    caption = (
        "The noise of a row is the same in every column. Weights of guidance as in the paper: 0 is none. "
        f"{spared if subject.guidable else ''}Temperatures are without guidance; otherwise it is 1."
    )
    made_by = _sweep_command(subject)
    body = figure(pictures("The same noise under every setting", heads, lines), caption, made_by)
    if subject.record.metrics:
        words = f"{subject.options.count} samples a point" + seeds(subject)
        said = f"{words}; 'real against real' is the level of as many training latents against the others."
        body += subtitle("Scores over the weights") + figure(charts(chart_scores(subject.record)), said, made_by)
    return Section("guidance", "Guidance and temperature" if subject.guidable else "Temperature", body)


def seeds(subject: Subject) -> str:
    repeats = subject.options.repeats
    return f", mean and standard deviation over {repeats} seeds" if repeats > 1 else ", one seed"


def _sweep_command(subject: Subject) -> str:
    options = subject.options
    words = f"lvae sweep {subject.run} {subject.sweep_folder}"
    if subject.guidable:
        words += f" --means {_list(MEANS)} --variances {_list(VARIANCES)}"
    words += (
        f" --temperatures {_list(TEMPERATURES)} -n {options.count} --repeats {options.repeats} --seed {options.seed}"
    )
    return words + (f" --reference {subject.dataset_name}" if subject.dataset is not None else "")


def _list(values: Sequence[float]) -> str:
    return ",".join(f"{value:g}" for value in values)
