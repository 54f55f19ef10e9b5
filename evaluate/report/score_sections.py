"""The sections of a report that judge: neighbours, reconstructions, scores."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from lvae.encode.quality import efficientnet
from lvae.evaluate.analysis import neighbour_figures
from lvae.evaluate.analysis import neighbours as near
from lvae.evaluate.analysis.neighbours import Queries
from lvae.evaluate.analysis.sweep_figures import describe_setting, lower_is_better, metric_title
from lvae.evaluate.figures.grids import name_class
from lvae.evaluate.metrics import Spread
from lvae.evaluate.pictures.decode import decode
from lvae.evaluate.pictures.inspect import read_plan_classes
from lvae.evaluate.pictures.originals import reconstructions
from lvae.evaluate.report.cache import load_or_make
from lvae.evaluate.report.inputs import LAYOUT, UNGUIDED, ReportInputs
from lvae.evaluate.report.network_scores import show_network_scores
from lvae.evaluate.report.page import (
    Block,
    ColumnGroup,
    Facts,
    Missing,
    Numbers,
    Paragraph,
    PictureRow,
    PictureTable,
    Section,
    Subtitle,
    Thumbnail,
    WithCaption,
)
from lvae.evaluate.report.run_sections import describe_seeds
from lvae.evaluate.scores.real_level import REAL_IN_WORDS
from lvae.evaluate.scores.score_table import format_number, format_spread, group_verdicts
from lvae.manifests import records
from lvae.manifests.dataset import Dataset
from lvae.manifests.errors import LvaeError
from lvae.manifests.messages import counted

NEIGHBOUR_ROWS, NEIGHBOURS, RECONSTRUCTIONS = 8, 6, 8
JUDGED = 64  # samples among which copies are looked for


def find_copies(inputs: ReportInputs) -> dict[str, Any] | None:
    """The training images nearest to the first samples, and what they say of copies; None without the dataset."""
    data = inputs.dataset
    if data is None:
        return None
    samples = inputs.samples_of(inputs.best)
    positions = np.arange(min(JUDGED, len(samples)))

    def make() -> dict[str, Any]:
        queries = Queries.of_dataset(samples, positions)
        k = min(NEIGHBOURS, len(np.unique(data.rows)) - 2)
        found = near.find_neighbours(queries, data, near.Search(k), inputs.network)
        few = replace(found, found=found.found[:NEIGHBOUR_ROWS])
        shown, from_source = neighbour_figures.load_pictures(data, inputs.network, few)
        own = decode(inputs.network, queries.raw[:NEIGHBOUR_ROWS])
        rows = []
        for number, label, pixels, nearest, others in zip(
            queries.numbers, queries.labels.tolist(), own, few.found, shown, strict=False
        ):
            name = queries.name_class(label, data)
            pictures = [Thumbnail.of(pixels, f"sample {number}", f"#{number}")]
            for rank, (one, picture) in enumerate(zip(nearest, others, strict=True), 1):
                alt = f"training image nearest to sample {number}, number {rank}, at distance {one.distance:.3g}"
                caption = neighbour_figures.write_caption(one, name, data.classes)
                pictures.append(Thumbnail.of(picture, alt, caption))
            rows.append({"name": name or f"#{number}", "pictures": pictures})
        copies = {
            "count": len(neighbour_figures.find_suspects(queries.numbers, found)),
            "sentence": neighbour_figures.judge(queries.numbers, found),
        }
        explanation = neighbour_figures.explain(found)
        return {"rows": rows, "from_source": from_source, "explanation": explanation, "copies": copies}

    key = {"samples": samples.manifest.id, "dataset": data.manifest.id, "k": NEIGHBOURS, "count": len(positions)}
    kept: dict[str, Any] = load_or_make(inputs.cache, "neighbours", {**key, "layout": LAYOUT}, make)
    return kept


def show_neighbours(inputs: ReportInputs) -> Section:
    title, data = "Nearest training images", inputs.dataset
    kept = find_copies(inputs)
    if data is None or kept is None:
        return Section("neighbours", title, [_say_missing(inputs, "the training images nearest to samples")])
    rows = [PictureRow(row["name"], load_thumbnails(row["pictures"])) for row in kept["rows"]]
    kind = "read from their source" if kept["from_source"] else "reconstructions, for their originals are not here"
    k = len(rows[0].pictures) - 1
    caption = f"Samples with {describe_setting(inputs.best)}; training images are {kind}. {kept['explanation']}"
    nearest = f"nearest of {counted(len(data), 'training latent')}"
    groups = [ColumnGroup("sample", ("",)), ColumnGroup(nearest, ("",) * k)]
    place = inputs.samples_path(inputs.best)
    command = f"lvae neighbours {place} {inputs.dataset_name} neighbours.png -n {len(rows)} -k {k}"
    table = PictureTable("Samples and their nearest", groups, rows)
    return Section("neighbours", title, [Paragraph(kept["copies"]["sentence"]), WithCaption(table, caption, command)])


def load_thumbnails(kept: Sequence[dict[str, Any]]) -> tuple[Thumbnail, ...]:
    return tuple(Thumbnail(**one) for one in kept)


def _say_missing(inputs: ReportInputs, what: str) -> Missing:
    return Missing(f"Here stand {what}, where the dataset is given.", f"lvae report {inputs.run} --dataset DATASET")


def show_reconstructions(inputs: ReportInputs) -> Section:
    anchor, title, data = "reconstructions", "Reconstructions", inputs.dataset
    if data is None:
        return Section(anchor, title, [_say_missing(inputs, "originals beside their reconstructions")])

    def make() -> dict[str, Any]:
        try:
            found = reconstructions(data, RECONSTRUCTIONS)
        except LvaeError as error:
            return {"error": str(error)}
        if not found:
            return {"error": f"{data.folder} holds no raw latents of its images."}
        names = read_plan_classes(data)
        originals = [
            Thumbnail.of(one.original, f"original {one.key}", name_class(one.label, names) if one.label >= 0 else "")
            for one in found
        ]
        decoded = [Thumbnail.of(one.decoded, f"reconstruction of {one.key}", f"{one.psnr_db:.1f} dB") for one in found]
        mean = float(np.mean([min(one.psnr_db, 100.0) for one in found]))
        return {"originals": originals, "decoded": decoded, "mean_psnr_db": mean}

    command = f"lvae inspect {inputs.dataset_name} --preview reconstructions.png"
    key = {"dataset": data.manifest.id, "count": RECONSTRUCTIONS, "layout": LAYOUT}
    kept = load_or_make(inputs.cache, "reconstructions", key, make)
    if "error" in kept:
        return Section(anchor, title, [Missing(f"They cannot be shown: {kept['error']}", command)])
    rows = [
        PictureRow("original", load_thumbnails(kept["originals"])),
        PictureRow("decoded", load_thumbnails(kept["decoded"])),
    ]
    caption = (
        f"Training images through {data.manifest.autoencoder.name} and back: the best that samples decoded by it can "
        f"look like. {kept['mean_psnr_db']:.1f} dB on average over these."
    )
    groups = [ColumnGroup("", ("",) * len(rows[0].pictures))]
    table = PictureTable("Originals and reconstructions", groups, rows)
    return Section(anchor, title, [WithCaption(table, caption, command)])


def show_scores(inputs: ReportInputs) -> Section:
    data = inputs.dataset
    blocks: list[Block] = [
        _say_missing(inputs, "scores in latent space") if data is None else _show_latent_scores(inputs, data)
    ]
    if data is not None and efficientnet.is_installed():
        blocks += [Subtitle("By a network that knows photographs"), show_network_scores(inputs, data)]
    for path in inputs.options.scores:
        blocks += [Subtitle(path.name), *_show_scores_of(path)]
    return Section("scores", "Scores", blocks)


def _show_latent_scores(inputs: ReportInputs, data: Dataset) -> WithCaption:
    full, metrics = inputs.scores, inputs.record.metrics
    assert full is not None
    headings = [f"{metric_title(metric)}\u00a0{'↓' if lower_is_better(metric) else '↑'}" for metric in metrics]
    rows = [
        (describe_setting(setting), [_format(inputs.record.spread(setting, metric)) for metric in metrics], False)
        for setting in dict.fromkeys((UNGUIDED, inputs.best, *inputs.record.settings))
    ]
    rows.append((REAL_IN_WORDS, [_format(inputs.record.real_spread(metric)) for metric in metrics], True))
    rivals = (
        ("linear", "linear baseline: a Gaussian a class"),
        ("bottom", "noise of the channels' mean and deviation"),
    )
    for prefix, words in rivals:
        values = [(full.get(f"{prefix}_{metric}"), full.get(f"{prefix}_{metric}_std")) for metric in metrics]
        cells = ["not available" if mean is None else format_spread(mean, spread) for mean, spread in values]
        rows.append((words, cells, True))
    verdicts = "; ".join(group_verdicts({metric_title(name): text for name, text in full["verdicts"].items()}))
    against = inputs.record.against
    few = f"{inputs.record.warning}. " if inputs.record.warning else ""
    caption = (
        f"Between normalized latents, not images: none of these is FID. {inputs.record.count} samples a "
        f"setting{describe_seeds(inputs)}, against {against.count if against else 0} training latents of "
        f"{full['dimensions']} numbers. Precision and recall: k = 3. {few}'{REAL_IN_WORDS}': as many training latents "
        f"against the others. Samples with {describe_setting(inputs.best)} against the linear baseline, an ordering "
        f"only where the spreads part: {verdicts}."
    )
    places = [inputs.samples_path(inputs.best, seed) for seed in inputs.options.seeds]
    samples = " ".join(f"--samples {place}" for place in places)
    command = f"lvae score {samples} --reference {inputs.dataset_name}"
    return WithCaption(Numbers("Scores", headings, rows), caption, command)


def _format(spread: Spread | None) -> str:
    return "not available" if spread is None else format_spread(*spread)


def _show_scores_of(path: Path) -> list[Block]:
    """What 'lvae score --json' printed into a file."""
    try:
        found = records.loads(path.read_bytes(), str(path))
    except FileNotFoundError:
        raise LvaeError(path, "no such file", f"'lvae score ... --json > {path.name}' makes one.") from None
    if not isinstance(found, dict):
        raise LvaeError(path, "not what 'lvae score --json' prints")
    warnings = found.pop("warnings", [])
    rows = [(name.replace("_", " "), _format_value(value)) for name, value in found.items()]
    said = [Paragraph(str(warning), warning=True) for warning in warnings]
    return [Facts(f"Scores of {path.name}", rows), *said]


def _format_value(value: Any) -> str:
    if value is None:
        return "not available"
    if isinstance(value, dict):
        return "; ".join(f"{name.replace('_', ' ')}: {_format_value(entry)}" for name, entry in value.items())
    if isinstance(value, list):
        return ", ".join(map(_format_value, value))
    return format_number(value) if isinstance(value, float) else str(value)
