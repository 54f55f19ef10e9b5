"""The curves of a run: its metrics.jsonl as charts."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lvae.evaluate.figures.charts import Chart, Curve, chart_curves, chart_map
from lvae.evaluate.figures.render import render_png
from lvae.manifests.errors import LvaeError
from lvae.manifests.messages import counted
from lvae.train.runs.metrics_log import read_metrics
from lvae.train.runs.packaged import run_name
from lvae.train.runs.run import read_run

POINTS = 500  # a curve has no more: longer logs are averaged in groups
LOSSES = (("training", "loss_nats"), ("validation", "validation_loss_nats"))


def chart_log(lines: Sequence[dict[str, Any]]) -> list[Chart]:
    """Everything that the log of a run holds, over updates."""
    losses = [(name, key) for name, key in LOSSES if any(key in line for line in lines)]
    wanted: tuple[tuple[str, Sequence[tuple[str, str]]], ...] = (
        ("loss, nats an image", losses if len(losses) > 1 else [("", key) for _, key in losses]),
        ("reconstruction, nats an image", [("", "reconstruction_nats")]),
        ("rate, nats an image, by the weights of each update", [("", "rate_nats")]),
        ("gradient norm", [("", "gradient_norm")]),
        ("spectral penalty, nats", [("", "spectral")]),
        ("learning rate", [("", "learning_rate")]),
        ("skipped updates so far", [("", "skipped_updates")]),
        ("images a second", [("", "images_per_second")]),
        ("share of time waiting for data", [("", "data_wait_share")]),
    )
    charts = []
    for title, keys in wanted:
        curves = [read_curve(lines, name, key) for name, key in keys]
        if any(np.isfinite(curve.values).any() for curve in curves):
            positive = any((curve.values > 0).any() for curve in curves)
            whole = title.startswith("skipped")
            charts.append(chart_curves(title, curves, title == "gradient norm" and positive, whole))
    return [*charts[:3], *chart_group_rates(lines), *charts[3:]]


def chart_group_rates(lines: Sequence[dict[str, Any]]) -> list[Chart]:
    """The rate of every group over updates, a row a group; nothing where the log has none."""
    found = [line for line in lines if None not in (line.get("rate_per_group_nats") or [None])]
    if not found:
        return []
    some = [found[at] for at in np.linspace(0, len(found) - 1, min(len(found), POINTS)).round().astype(int)]
    rates = np.array([line["rate_per_group_nats"] for line in some], np.float64).T
    steps = np.array([line["step"] for line in some], np.float64)
    return [chart_map("rate of every group, nats, lowest resolution on top", steps, rates)]


def read_curve(lines: Sequence[dict[str, Any]], name: str, key: str) -> Curve:
    """One quantity of the log over updates."""
    found = [(line["step"], line[key]) for line in lines if line.get(key) is not None]
    array = np.array(found, np.float64).reshape(-1, 2)
    group = -(-len(array) // POINTS) or 1
    whole = array[: len(array) // group * group].reshape(-1, group, 2).mean(1)
    return Curve(name, whole[:, 0], whole[:, 1])


def describe_young(lines: Sequence[dict[str, Any]]) -> str:
    """What to do about a log that has too few entries for curves; else ""."""
    advice = " A curve needs two: let it train on, or log more often ('lvae train --log-every N')."
    return advice if len(lines) < 2 else ""


def write_curves(run: Path, out: Path) -> str:
    """Draw the log of a run to a PNG file; how much the log has, in words."""
    read_run(run)
    lines = read_metrics(run)
    if not lines:
        if run != Path(name := run_name(run)):
            raise LvaeError(name, "is part of the package, without the log of its training", "Plot a run of your own.")
        raise LvaeError(run, "has written nothing to its log yet", "Let it train for a while.")
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_bytes(render_png(chart_log(lines), 2))
    return f"{counted(len(lines), 'entry', 'entries')} of the log.{describe_young(lines)}"
