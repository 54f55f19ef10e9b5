"""RUN/report.html: one page on a run, which needs nothing beside itself.

What is shown is taken from the run, or made and kept in RUN/report/step-00005000/, so that the next report of the
same checkpoint is quick. Sections that need the dataset say so where it was not given.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

from lvae.evaluate.analysis.sweep_figures import describe_setting, metric_title
from lvae.evaluate.pictures.decode import write_whole
from lvae.evaluate.report.inputs import COLUMNS, ReportInputs, decode_samples
from lvae.evaluate.report.manipulation_sections import show_manipulations
from lvae.evaluate.report.page import Block, ColumnGroup, InWords, KeyFigures, Page, PictureRow, PictureTable
from lvae.evaluate.report.provenance_sections import show_provenance, show_throughput
from lvae.evaluate.report.run_sections import show_curves, show_guidance, show_samples, show_training
from lvae.evaluate.report.score_sections import find_copies, show_neighbours, show_reconstructions, show_scores
from lvae.evaluate.report.verdict import PRECISION_RECALL, Copies, judge_run
from lvae.evaluate.scores.real_level import REAL_IN_WORDS
from lvae.evaluate.scores.score_table import format_number
from lvae.manifests.manifest import VERSION
from lvae.manifests.messages import counted
from lvae.train.devices.device import Device
from lvae.train.runs.estimates import count_parameters


def write_report(inputs: ReportInputs, out: Path, device: Device) -> int:
    """Make what is not there yet, and write the page; its size in bytes."""
    page = Page(
        title=inputs.run.resolve().name,
        eyebrow="Latent VAE · report of a run",
        lede=_describe_run(inputs),
        top=_show_top(inputs),
        sections=(
            show_training(inputs),
            show_curves(inputs),
            show_samples(inputs),
            show_guidance(inputs),
            show_manipulations(inputs, device),
            show_neighbours(inputs),
            show_reconstructions(inputs),
            show_scores(inputs),
            show_throughput(inputs, device),
            show_provenance(inputs),
        ),
        foot=f"Written by 'lvae report {inputs.run}' of latent-vae {VERSION}. Everything it shows is in this one file.",
    )
    html = page.render().encode()
    write_whole(out, html)
    return len(html)


def _describe_run(inputs: ReportInputs) -> str:
    record, model = inputs.config.dataset, inputs.config.model
    what = "class-conditional hierarchical VAE" if model.classes else "unconditional hierarchical VAE"
    groups, shape = sum(model.groups), "×".join(map(str, record.shape))
    network = record.autoencoder
    through = "no autoencoder"
    if not network.pixels:
        through = f"the autoencoder {network.name} (f = {network.downsampling_factor})"
    return (
        f"A {what} of {counted(groups, 'stochastic group')}, after {inputs.step:,} updates on "
        f"{record.count:,} latents of {shape}: pictures of {record.image.size} px through {through}."
    )


def _show_top(inputs: ReportInputs) -> list[Block]:
    last: dict[str, Any] = {}
    for line in inputs.log:
        last |= {name: value for name, value in line.items() if value is not None}
    tiles = [("updates", f"{inputs.step:,}", ""), ("parameters", _shorten(count_parameters(inputs.config.model)), "")]
    for key, name in (("validation_loss_nats", "validation loss, nats"), ("loss_nats", "loss, nats")):
        if key in last:
            tiles.append((name, f"{last[key]:,.1f}", ""))
            break
    for metric in PRECISION_RECALL:
        spread, real = inputs.record.spread(inputs.best, metric), inputs.record.real_spread(metric)
        if spread is not None:
            beside = "" if real is None else f"{format_number(real.mean)} {REAL_IN_WORDS}"
            tiles.append((f"{metric_title(metric).split()[0]}, latent", format_number(spread.mean), beside))
    seeds = f"{inputs.options.repeats} seeds of {inputs.options.count:,}" if inputs.options.repeats > 1 else "one seed"
    tiles.append(("samples scored", f"{inputs.options.count * inputs.options.repeats:,}", seeds))
    copies = find_copies(inputs)
    verdict = judge_run(inputs, None if copies is None else Copies(**copies["copies"]))
    shown = tuple(replace(one, caption="") for one in decode_samples(inputs, inputs.best, COLUMNS))
    label = f"Samples, {describe_setting(inputs.best)}"
    return [
        *([InWords(verdict.headline, verdict.sentences)] if verdict is not None else []),
        KeyFigures(tiles),
        PictureTable(label, [ColumnGroup("", ("",) * len(shown))], [PictureRow("", shown)]),
    ]


def _shorten(count: int) -> str:
    for size, name in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if count >= size:
            return f"{count / size:.3g} {name}"
    return str(count)
