"""RUN/report.html: one page on a run, which needs nothing beside itself.

What is shown is taken from the run, or made and kept in RUN/report/step-00005000/, so that the next report of the
same checkpoint is quick. Sections that need the dataset say so where it was not given.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

from lvae.evaluate.analysis.sweep_figures import metric_title, setting_in_words
from lvae.evaluate.pictures.decode import write_whole
from lvae.evaluate.report import run_sections as sections
from lvae.evaluate.report import score_sections as evidence
from lvae.evaluate.report.html import Head, Line, key_figures, page, pictures
from lvae.evaluate.report.inputs import COLUMNS, Subject, sample_shots
from lvae.evaluate.report.provenance_sections import provenance_section, throughput_section
from lvae.manifests.manifest import VERSION
from lvae.manifests.messages import counted
from lvae.train.devices.device import Device
from lvae.train.runs.estimates import estimate


def write_report(subject: Subject, out: Path, device: Device) -> int:
    """Make what is not there yet, and write the page; its size in bytes."""
    found = [
        sections.trained_on(subject),
        sections.curves(subject),
        sections.samples(subject),
        sections.guidance(subject),
        evidence.neighbours_section(subject),
        evidence.reconstructions_section(subject),
        evidence.scores_section(subject),
        throughput_section(subject, device),
        provenance_section(subject),
    ]
    foot = f"Written by 'lvae report {subject.run}' of latent-vae {VERSION}. Everything it shows is in this one file."
    name = subject.run.resolve().name
    html = page(name, "Latent VAE · report of a run", _lede(subject), _top(subject), found, foot).encode()
    write_whole(out, html)
    return len(html)


def _lede(subject: Subject) -> str:
    record, model = subject.config.dataset, subject.config.model
    what = "class-conditional hierarchical VAE" if model.classes else "unconditional hierarchical VAE"
    groups, shape = sum(model.groups), "×".join(map(str, record.shape))
    stage = record.autoencoder
    through = (
        f"the autoencoder {stage.name} (f = {stage.downsampling_factor})" if not stage.pixels else "no autoencoder"
    )
    return (
        f"A {what} of {counted(groups, 'stochastic group')}, after {subject.step:,} updates on "
        f"{record.count:,} latents of {shape}: pictures of {record.image.size} px through {through}."
    )


def _top(subject: Subject) -> str:
    last: dict[str, Any] = {}
    for line in subject.log:
        last |= {name: value for name, value in line.items() if value is not None}
    figures = [("updates", f"{subject.step:,}"), ("parameters", _short(estimate(subject.config, 1).parameters))]
    if "validation_loss_nats" in last:
        figures.append(("validation loss, nats", f"{last['validation_loss_nats']:,.1f}"))
    elif "loss_nats" in last:
        figures.append(("loss, nats", f"{last['loss_nats']:,.1f}"))
    for metric in ("latent_precision", "latent_recall"):
        spread = subject.record.spread(subject.best, metric) if metric in subject.record.metrics else None
        if spread is not None:
            figures.append((f"{metric_title(metric).split()[0]}, latent", f"{spread.mean:.2f}"))
    shots = [replace(shot, caption="") for shot in sample_shots(subject, subject.best, COLUMNS)]
    words = setting_in_words(subject.best)
    return key_figures(figures) + pictures(
        f"Samples, {words}", [Head("", ("",) * len(shots))], [Line("", tuple(shots))]
    )


def _short(count: int) -> str:
    for size, name in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if count >= size:
            return f"{count / size:.3g} {name}"
    return str(count)
