"""The sections of a report that show the run: what was trained, its curves, samples and guidance."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby

import numpy as np
from PIL import Image

from lvae.evaluate.analysis.sweep_figures import chart_scores, describe_setting
from lvae.evaluate.analysis.sweep_settings import Setting
from lvae.evaluate.figures.charts import Chart, chart_bars
from lvae.evaluate.figures.curves import chart_log, describe_young
from lvae.evaluate.figures.grids import name_class
from lvae.evaluate.report.inputs import (
    COLUMNS,
    FEW_CLASSES,
    IN_ORDER,
    MEANS,
    SWEEP_ROWS,
    TEMPERATURES,
    UNGUIDED,
    VARIANCES,
    ReportInputs,
    decode_samples,
)
from lvae.evaluate.report.page import (
    Block,
    Charts,
    ColumnGroup,
    Facts,
    Folded,
    Missing,
    PictureRow,
    PictureTable,
    Section,
    Subtitle,
    Thumbnail,
    WithCaption,
)
from lvae.manifests import records
from lvae.manifests.errors import LvaeError, one_line
from lvae.manifests.messages import counted
from lvae.train.runs.estimates import count_parameters
from lvae.train.runs.run import PREVIEWS

SHOWN_PREVIEWS = 6
MAX_PREVIEW_PIXELS = 1 << 25
REMOVE = "Remove it: a report can do without."


def show_training(inputs: ReportInputs) -> Section:
    record, model, training = inputs.config.dataset, inputs.config.model, inputs.config.training
    stage, image = record.autoencoder, record.image
    mirrored = ", each with its mirror image" if image.mirrored else ""
    levels = ", ".join(
        f"{count} at {side}×{side}" for side, count in zip(model.resolutions[::-1], model.groups[::-1], strict=True)
    )
    seen = inputs.step * training.batch * training.accumulate
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
        ("classes", _list_classes(inputs)),
        ("model", f"preset {inputs.config.preset}; groups: {levels}; z of {counted(model.z_channels, 'channel')}"),
        ("prior", "learned, given the groups above" if model.hierarchical_prior else "standard normal"),
        ("parameters", f"{count_parameters(inputs.config.model):,}"),
        (
            "training",
            f"{inputs.step:,} updates of {training.batch * training.accumulate} latents, "
            f"{seen / max(record.count, 1):,.1f} epochs; learning rate {training.learning_rate:g} "
            f"({training.learning_rate_schedule}), EMA {training.ema:g}, σq {training.sigma_q:g}, "
            f"{inputs.config.executed().precision}",
        ),
    ]
    settings = records.dumps({"model": model, "training": training}).decode()
    all_settings = Folded("All settings of model and training", settings.strip())
    return Section("trained", "What was trained on what", [Facts("Model and data", rows), all_settings])


def _list_classes(inputs: ReportInputs) -> str:
    names = inputs.classes
    if names is None:
        known = inputs.config.dataset.classes
        return "none" if known is None else f"{len(known)} in the data, not told to the model"
    shown = ", ".join(names[:FEW_CLASSES])
    return f"{len(names)}: {shown}" + (", …" if len(names) > FEW_CLASSES else "")


def show_curves(inputs: ReportInputs) -> Section:
    lines = inputs.log
    made_by = f"lvae plot {inputs.run} curves.png"
    if not lines:
        return Section("curves", "Curves", [Missing("The log of this run, metrics.jsonl, holds nothing.", made_by)])
    found = chart_log(lines)
    at = next((number for number, chart in enumerate(found) if chart.title.startswith("rate of every")), len(found))
    found[at + 1 : at + 1] = _chart_last_rates(inputs)
    skipped = lines[-1].get("skipped_updates") or 0
    caption = (
        f"{counted(len(lines), 'entry', 'entries')} of the log. Groups stand in the order they are drawn, their "
        f"resolution below. Rates are by the weights of each update, not averaged. "
        f"{counted(int(skipped), 'update')} skipped for a wild gradient."
        f"{describe_young(lines)}"
    )
    return Section("curves", "Curves", [WithCaption(Charts(found), caption, made_by)])


def _chart_last_rates(inputs: ReportInputs) -> list[Chart]:
    last = next((line for line in reversed(inputs.log) if None not in line.get("rate_per_group_nats", [None])), None)
    sides = inputs.config.model.group_resolutions
    if last is None or len(last["rate_per_group_nats"]) != len(sides):
        return []
    title = f"rate of every group at update {last['step']:,}, nats"
    names = [f"{side}×{side}" for side in sides]
    return [chart_bars(title, "groups, lowest resolution first", names, last["rate_per_group_nats"])]


def show_samples(inputs: ReportInputs) -> Section:
    blocks: list[Block] = []
    for setting in dict.fromkeys((inputs.best, UNGUIDED)):
        words = describe_setting(setting)
        rows = _arrange_samples(inputs, setting)
        shown = sum(one is not None for row in rows for one in row.pictures)
        caption = (
            f"The first {counted(shown, 'sample')} of seed {inputs.options.seed}, not chosen; averaged weights of "
            f"update {inputs.step:,}; the number of a sample below it."
        )
        command = f"lvae decode {inputs.samples_path(setting)} samples.png --limit {_count_shown(inputs)}"
        table = PictureTable(f"Samples, {words}", [ColumnGroup("", ("",) * COLUMNS)], rows)
        blocks.append(Subtitle("No guidance" if setting == UNGUIDED else f"With guidance: {words}"))
        blocks.append(WithCaption(table, caption, command))
    return Section("samples", "Samples", [*blocks, *_show_previews(inputs)])


def _show_previews(inputs: ReportInputs) -> list[Block]:
    """What training left in RUN/previews: some updates, from first to last."""
    found = []
    for path in sorted((inputs.run / PREVIEWS).glob("step-*.png")):
        number = path.stem.removeprefix("step-")
        if number.isdecimal() and 0 < int(number) <= inputs.step:
            found.append((int(number), path))
    if not found:
        return []
    last = len(found) - 1
    places = sorted({round(last * place / (SHOWN_PREVIEWS - 1)) for place in range(SHOWN_PREVIEWS)})
    shown = []
    for step, path in (found[place] for place in places):
        try:
            with Image.open(path, formats=["PNG"]) as picture:
                if picture.width * picture.height > MAX_PREVIEW_PIXELS:
                    raise LvaeError(path, f"has {picture.width} x {picture.height} pixels", REMOVE)
                pixels = np.asarray(picture.convert("RGB"))
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            raise LvaeError(path, f"is no picture that could be read ({one_line(str(error))})", REMOVE) from error
        shown.append(Thumbnail.of(pixels, f"samples after update {step:,}"))
    headings = tuple(f"update {found[place][0]:,}" for place in places)
    table = PictureTable("Samples while it was trained", [ColumnGroup("", headings)], [PictureRow("", tuple(shown))])
    caption = "The same noise every time, by the averaged weights of that update, as training showed them."
    command = f"lvae train {inputs.dataset_name} {inputs.run} --preview decoded"
    return [Subtitle("While it was trained"), WithCaption(table, caption, command)]


def _count_shown(inputs: ReportInputs) -> int:
    names = inputs.classes if inputs.rows_by_class else None
    return min(IN_ORDER if names is None else COLUMNS * len(names), inputs.options.count)


def _arrange_samples(inputs: ReportInputs, setting: Setting) -> list[PictureRow]:
    """A row a class where there are few, otherwise in order."""
    shown = decode_samples(inputs, setting, _count_shown(inputs))
    if not inputs.rows_by_class:
        return [_fill_row("", shown[start : start + COLUMNS]) for start in range(0, len(shown), COLUMNS)]
    labels = inputs.samples_of(setting).labels[: len(shown)].tolist()
    by_class = {label: [one for one, its in zip(shown, labels, strict=True) if its == label] for label in labels}
    return [_fill_row(name_class(label, inputs.classes), by_class[label]) for label in sorted(by_class)]


def _fill_row(name: str, shown: Sequence[Thumbnail]) -> PictureRow:
    return PictureRow(name, (*shown, *(None,) * (COLUMNS - len(shown))))


def show_guidance(inputs: ReportInputs) -> Section:
    settings = inputs.record.settings
    columns = {one: decode_samples(inputs, one, min(SWEEP_ROWS, inputs.options.count)) for one in settings}
    groups = []
    for (cold, mean), ones in groupby(settings, lambda one: (one.temperature != 1, one.mean)):
        some = list(ones)
        if cold:
            groups.append(ColumnGroup("temperature", tuple(f"{one.temperature:g}" for one in some)))
        else:
            headings = tuple("none" if one == UNGUIDED else f"variances {one.variance:g}" for one in some)
            groups.append(ColumnGroup(f"means {mean:g}", headings))
    labels = inputs.samples_of(UNGUIDED).labels
    rows = []
    for number in range(len(columns[UNGUIDED])):
        name = name_class(int(labels[number]), inputs.classes) if labels[number] >= 0 else f"#{number}"
        rows.append(PictureRow(name, tuple(replace(columns[one][number], caption="") for one in settings)))
    spared = "Means are not guided at 1×1, as in the paper. " if len(inputs.config.model.groups) > 1 else ""
    caption = (
        "The noise of a row is the same in every column. Weights of guidance as in the paper: 0 is none. "
        f"{spared if inputs.guidable else ''}Temperatures are without guidance; otherwise it is 1."
    )
    command = _write_sweep_command(inputs)
    blocks: list[Block] = [
        WithCaption(PictureTable("The same noise under every setting", groups, rows), caption, command)
    ]
    if inputs.record.metrics and (charts := chart_scores(inputs.record)):
        words = f"{inputs.options.count} samples a point" + describe_seeds(inputs)
        said = f"{words}; 'real against real' is the level of as many training latents against the others."
        blocks.append(Subtitle("Scores over the weights"))
        blocks.append(WithCaption(Charts(charts), said, command))
    return Section("guidance", "Guidance and temperature" if inputs.guidable else "Temperature", blocks)


def describe_seeds(inputs: ReportInputs) -> str:
    repeats = inputs.options.repeats
    return f", mean and standard deviation over {repeats} seeds" if repeats > 1 else ", one seed"


def _write_sweep_command(inputs: ReportInputs) -> str:
    options = inputs.options
    words = f"lvae sweep {inputs.run} {inputs.sweep_folder}"
    if inputs.guidable:
        words += f" --means {_join(MEANS)} --variances {_join(VARIANCES)}"
    words += (
        f" --temperatures {_join(TEMPERATURES)} -n {options.count} --repeats {options.repeats} --seed {options.seed}"
    )
    return words + (f" --reference {inputs.dataset_name}" if inputs.dataset is not None else "")


def _join(values: Sequence[float]) -> str:
    return ",".join(f"{value:g}" for value in values)
