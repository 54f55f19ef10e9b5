"""Several runs on one page: what each is, what its samples look like from the same noise, and how they score."""

from collections.abc import Sequence
from pathlib import Path

from lvae.evaluate.analysis.sweep_figures import describe_setting, lower_is_better, metric_title
from lvae.evaluate.figures.charts import chart_curves
from lvae.evaluate.figures.curves import read_curve
from lvae.evaluate.figures.grids import name_class
from lvae.evaluate.pictures.decode import write_whole
from lvae.evaluate.report.inputs import ReportInputs, decode_samples
from lvae.evaluate.report.page import (
    Block,
    Charts,
    ColumnGroup,
    InWords,
    Missing,
    Numbers,
    Page,
    PictureRow,
    PictureTable,
    Section,
    WithCaption,
)
from lvae.evaluate.report.score_sections import find_copies
from lvae.evaluate.report.verdict import Copies, judge_run
from lvae.evaluate.scores.real_level import REAL_IN_WORDS
from lvae.evaluate.scores.score_table import format_spread
from lvae.manifests.manifest import VERSION
from lvae.train.runs.estimates import count_parameters

SHOWN, PER_RUN = 8, 4  # samples of each run: rows, and columns


def write_comparison(runs: Sequence[ReportInputs], out: Path) -> int:
    """Write the page on runs whose samples were drawn with equal counts and seeds; its size in bytes."""
    names = name_runs(runs)
    page = Page(
        title=" and ".join(names) if len(names) == 2 else f"{len(names)} runs",
        eyebrow="Latent VAE · runs compared",
        lede=f"{', '.join(names)}: samples of equal seeds and counts, each with the setting that suits its model.",
        top=[],
        sections=(
            _show_verdicts(runs, names),
            _show_settings(runs, names),
            _show_samples(runs, names),
            _show_scores(runs, names),
            _show_curves(runs, names),
        ),
        foot=f"Written by 'lvae report {' '.join(str(one.run) for one in runs)}' of latent-vae {VERSION}.",
    )
    html = page.render().encode()
    write_whole(out, html)
    return len(html)


def name_runs(runs: Sequence[ReportInputs]) -> list[str]:
    """The names of their folders, or whole paths where two are called alike."""
    names = [one.run.resolve().name for one in runs]
    return names if len(set(names)) == len(names) else [str(one.run) for one in runs]


def _show_verdicts(runs: Sequence[ReportInputs], names: Sequence[str]) -> Section:
    blocks: list[Block] = []
    for inputs, name in zip(runs, names, strict=True):
        copies = find_copies(inputs)
        verdict = judge_run(inputs, None if copies is None else Copies(**copies["copies"]))
        if verdict is not None:
            blocks.append(InWords(f"{name}: {verdict.headline}", verdict.sentences))
    if not blocks:
        blocks = [_say_missing(runs, "verdicts in words")]
    return Section("words", "In words", blocks)


def _show_settings(runs: Sequence[ReportInputs], names: Sequence[str]) -> Section:
    rows = []
    for inputs, name in zip(runs, names, strict=True):
        model, training = inputs.config.model, inputs.config.training
        groups = ", ".join(
            f"{count} at {side}×{side}" for side, count in zip(model.resolutions[::-1], model.groups[::-1], strict=True)
        )
        seen = inputs.step * training.batch * training.accumulate / max(inputs.config.dataset.count, 1)
        cells = [
            inputs.config.preset,
            f"{inputs.step:,}",
            f"{seen:,.1f}",
            f"{count_parameters(inputs.config.model):,}",
            groups,
            str(model.classes or "none"),
            inputs.config.dataset.id[:12],
        ]
        rows.append((name, cells, False))
    headings = ("preset", "updates", "epochs", "parameters", "groups", "classes", "dataset")
    return Section("runs", "The runs", [Numbers("Runs", headings, rows)])


def _show_samples(runs: Sequence[ReportInputs], names: Sequence[str]) -> Section:
    count = min(SHOWN * PER_RUN, *(inputs.options.count for inputs in runs))
    groups, columns = [], []
    for inputs, name in zip(runs, names, strict=True):
        shown = decode_samples(inputs, inputs.best, count)
        groups.append(ColumnGroup(f"{name}: {describe_setting(inputs.best)}", ("",) * PER_RUN))
        columns.append(shown)
    rows = []
    step = min(SHOWN, count)
    labels = runs[0].samples_of(runs[0].best).labels
    for number in range(step):
        name = name_class(int(labels[number]), runs[0].classes) if labels[number] >= 0 else f"#{number}"
        cells = []
        for shown in columns:
            some = shown[number::step][:PER_RUN]
            cells += [*some, *[None] * (PER_RUN - len(some))]
        rows.append(PictureRow(name, tuple(cells)))
    table = PictureTable("Samples of every run", groups, rows)
    caption = f"The first {count} samples of seed {runs[0].options.seed} of each run, not chosen."
    return Section("samples", "Samples", [WithCaption(table, caption, _command(runs))])


def _show_scores(runs: Sequence[ReportInputs], names: Sequence[str]) -> Section:
    metrics = runs[0].record.metrics
    if not metrics:
        return Section("scores", "Scores", [_say_missing(runs, "scores in latent space")])
    headings = [f"{metric_title(metric)}\u00a0{'↓' if lower_is_better(metric) else '↑'}" for metric in metrics]
    rows: list[tuple[str, list[str], bool]] = []
    for inputs, name in zip(runs, names, strict=True):
        spreads = [inputs.record.spread(inputs.best, metric) for metric in metrics]
        cells = ["not available" if one is None else format_spread(*one) for one in spreads]
        rows.append((f"{name}, {describe_setting(inputs.best)}", cells, False))
    real = [runs[0].record.real_spread(metric) for metric in metrics]
    rows.append((REAL_IN_WORDS, ["not available" if one is None else format_spread(*one) for one in real], True))
    options = runs[0].options
    few = f" {runs[0].record.warning}." if runs[0].record.warning else ""
    caption = (
        f"Between normalized latents: none of these is FID. {options.count} samples of each of {options.repeats} "
        f"seeds; an ordering counts where two deviations on both sides leave no overlap.{few}"
    )
    return Section("scores", "Scores", [WithCaption(Numbers("Scores", headings, rows), caption, _command(runs))])


def _show_curves(runs: Sequence[ReportInputs], names: Sequence[str]) -> Section:
    charts = []
    for title, key in (
        ("loss, nats an image", "loss_nats"),
        ("validation loss, nats an image", "validation_loss_nats"),
        ("rate, nats an image", "rate_nats"),
    ):
        curves = [read_curve(inputs.log, name, key) for inputs, name in zip(runs, names, strict=True)]
        if any(len(curve.steps) for curve in curves):
            charts.append(chart_curves(title, curves))
    if not charts:
        return Section("curves", "Curves", [Missing("Their logs hold nothing.", f"lvae plot {runs[0].run}")])
    caption = "Losses of models of other latents, or with another σq, are not to be compared."
    return Section("curves", "Curves", [WithCaption(Charts(charts), caption, f"lvae plot {runs[0].run} curves.png")])


def _say_missing(runs: Sequence[ReportInputs], what: str) -> Missing:
    return Missing(f"Here stand {what}, where the dataset is given.", f"{_command(runs)} --dataset DATASET")


def _command(runs: Sequence[ReportInputs]) -> str:
    options = runs[0].options
    words = f"lvae report {' '.join(str(one.run) for one in runs)} comparison.html"
    words += f" -n {options.count} --repeats {options.repeats} --seed {options.seed}"
    return words + (f" --dataset {runs[0].dataset_name}" if runs[0].dataset is not None else "")
