"""The curves of a run, drawn from its metrics.jsonl."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from lvae.evaluate.figures.drawing import COLOURS, FAINT, INK, PAPER, RULE, font, measure_text, png, shorten, stacked
from lvae.manifests.errors import LvaeError
from lvae.train.runs.metrics_log import read_metrics
from lvae.train.runs.run import read_run

CHART = (560, 300)
POINTS = 1000  # a curve has no more: longer logs are averaged in groups
TITLE, SMALL = 13, 11


@dataclass(frozen=True)
class Curve:
    """Values over steps, (n,) each; NaN where there is none."""

    name: str
    steps: NDArray[np.float64]
    values: NDArray[np.float64]


def run_curves(lines: Sequence[dict[str, Any]]) -> Image.Image:
    """Everything in the log of a run: (loss, rate by group, gradients, learning rate, throughput) over updates."""
    loss = [curve_of(lines, name, key) for name, key in present(lines, LOSSES)]
    charts = [
        line_chart("loss, nats per image", loss, CHART),
        line_chart("reconstruction, nats per image", [curve_of(lines, "", "reconstruction_nats")], CHART),
        line_chart("rate, nats per image", [curve_of(lines, "", "rate_nats")], CHART),
        rate_map(lines, CHART),
        line_chart("gradient norm", [curve_of(lines, "", "gradient_norm")], CHART, logarithmic=True),
        line_chart("spectral penalty, nats", [curve_of(lines, "", "spectral")], CHART),
        line_chart("learning rate", [curve_of(lines, "", "learning_rate")], CHART),
        line_chart("skipped updates so far", [curve_of(lines, "", "skipped_updates")], CHART),
        line_chart("images per second", [curve_of(lines, "", "images_per_second")], CHART),
        line_chart("share of time waiting for data", [curve_of(lines, "", "data_wait_share")], CHART),
    ]
    return stacked(charts, 2)


def write_curves(run: Path, out: Path) -> int:
    """Draw the log of a run to a PNG file; how many lines the log has."""
    read_run(run)
    lines = read_metrics(run)
    if not lines:
        raise LvaeError(run, "has written nothing to its log yet", "Let it train for a while.")
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_bytes(png(run_curves(lines)))
    return len(lines)


LOSSES = (("training", "loss_nats"), ("validation", "validation_loss_nats"))


def present(lines: Sequence[dict[str, Any]], names: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """Those (name, key) that the log has."""
    return [(name, key) for name, key in names if any(key in line for line in lines)]


def curve_of(lines: Sequence[dict[str, Any]], name: str, key: str) -> Curve:
    """One quantity of the log over updates."""
    found = [(line["step"], line[key]) for line in lines if line.get(key) is not None]
    array = np.array(found, np.float64).reshape(-1, 2)
    group = -(-len(array) // POINTS) or 1
    whole = array[: len(array) // group * group].reshape(-1, group, 2).mean(1)
    return Curve(name, whole[:, 0], whole[:, 1])


def line_chart(title: str, curves: Sequence[Curve], size: tuple[int, int], logarithmic: bool = False) -> Image.Image:
    """Curves over a common range. The axis ignores the highest hundredth, so that a first spike does not flatten it."""
    canvas, draw, (left, top, right, bottom) = _frame(title, size)
    values = np.concatenate([curve.values for curve in curves] or [np.zeros(0)])
    steps = np.concatenate([curve.steps for curve in curves] or [np.zeros(0)])
    if logarithmic:
        values = values[values > 0]
    if not len(values):
        return canvas
    low, high = float(values.min()), float(np.quantile(values, 0.99)) if len(values) > 100 else float(values.max())
    if logarithmic:
        low, high = np.log10(low), np.log10(high)
    if high - low < 1e-9 * max(abs(low), abs(high)) or low == high:
        low, high = low - (abs(low) / 10 or 1), high + (abs(high) / 10 or 1)
    first, last = float(steps.min()), float(max(steps.max(), steps.min() + 1))

    for share in (0.0, 0.5, 1.0):
        y = bottom - share * (bottom - top)
        value = low + share * (high - low)
        draw.line((left, y, right, y), fill=RULE)
        text = f"{10**value if logarithmic else value:.4g}"
        draw.text((left - measure_text(text, SMALL)[0] - 6, y - 7), text, FAINT, font(SMALL))
        step = f"{first + share * (last - first):.0f}"
        x = left + share * (right - left) - share * measure_text(step, SMALL)[0]
        draw.text((x, bottom + 6), step, FAINT, font(SMALL))
    for number, curve in enumerate(curves):
        heights = np.log10(np.maximum(curve.values, 1e-300)) if logarithmic else curve.values
        xs = left + (curve.steps - first) / (last - first) * (right - left)
        ys = bottom - np.clip((heights - low) / (high - low), -0.02, 1.02) * (bottom - top)
        points = list(zip(xs.tolist(), ys.tolist(), strict=True))
        colour = COLOURS[number % len(COLOURS)]
        if len(points) == 1:
            draw.ellipse((points[0][0] - 2, points[0][1] - 2, points[0][0] + 2, points[0][1] + 2), fill=colour)
        draw.line(points, fill=colour, width=2)
        if curve.name:
            width = measure_text(curve.name, SMALL)[0]
            draw.text((right - width, 6 + number * 13), curve.name, colour, font(SMALL))
    return canvas


def rate_map(lines: Sequence[dict[str, Any]], size: tuple[int, int]) -> Image.Image:
    """Rate of every group over time, nats: a row a group, the lowest resolution on top; white is none."""
    canvas, draw, (left, top, right, bottom) = _frame(
        "rate of every group, nats per image, lowest resolution first", size
    )
    rows = [line["rate_per_group_nats"] for line in lines if None not in line["rate_per_group_nats"]]
    if not rows:
        return canvas
    rates = np.array(rows, np.float64).T
    places = np.linspace(0, rates.shape[1] - 1, min(rates.shape[1], right - left)).round().astype(int)
    high = max(float(np.quantile(rates, 0.99)), 1e-12)
    dark = np.clip(rates[:, places] / high, 0, 1)[..., None]
    pixels = np.rint(255 + dark * (np.array(COLOURS[0]) - 255)).astype(np.uint8)
    picture = Image.fromarray(pixels).resize((right - left, bottom - top), Image.Resampling.NEAREST)
    canvas.paste(picture, (left, top))
    for row, y in ((1, top), (len(rates), bottom - 14)):
        draw.text((left - measure_text(str(row), SMALL)[0] - 6, y), str(row), FAINT, font(SMALL))
    text = f"darkest: {high:.3g}"
    draw.text((right - measure_text(text, SMALL)[0], bottom + 6), text, FAINT, font(SMALL))
    return canvas


def _frame(title: str, size: tuple[int, int]) -> tuple[Image.Image, ImageDraw.ImageDraw, tuple[int, int, int, int]]:
    canvas = Image.new("RGB", size, PAPER)
    draw = ImageDraw.Draw(canvas)
    draw.text((12, 6), shorten(title, size[0] - 120, TITLE), INK, font(TITLE))
    return canvas, draw, (70, 34, size[0] - 16, size[1] - 34)
