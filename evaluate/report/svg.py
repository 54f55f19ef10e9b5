"""Charts as SVG for a page: they take the page's colours, light or dark, and stay sharp in print."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

from lvae.evaluate.figures.charts import Chart, round_marks
from lvae.evaluate.figures.curves import Curve

WIDTH, HEIGHT = 420, 236
LEFT, TOP, RIGHT, BOTTOM = 54, 12, 408, 196
POINTS = 300  # of a curve: more cannot be seen at this width
SERIES = 6  # colours that the page has
EM = 7.5  # about the width of a digit


@dataclass(frozen=True)
class Frame:
    """Where numbers lie in the picture. With `logarithmic`, y is in powers of ten."""

    x: tuple[float, float]
    y: tuple[float, float]
    logarithmic: bool = False

    def at(self, x: float, y: float) -> str:
        across = (x - self.x[0]) / (self.x[1] - self.x[0] or 1.0)
        up = (y - self.y[0]) / (self.y[1] - self.y[0] or 1.0)
        return f"{LEFT + across * (RIGHT - LEFT):.1f},{BOTTOM - min(max(up, -0.02), 1.02) * (BOTTOM - TOP):.1f}"


def curve_chart(title: str, curves: Sequence[Curve], x_label: str = "updates", logarithmic: bool = False) -> str:
    """Long curves. The axis leaves out the highest hundredth of the values, so that a first spike does not flatten
    the rest."""
    thinned = [_thinned(curve, logarithmic) for curve in curves]
    values = np.concatenate([curve.values for curve in thinned] or [np.zeros(0)])
    if not len(values):
        return ""
    steps = np.concatenate([curve.steps for curve in thinned])
    low, high = float(values.min()), float(np.quantile(values, 0.99)) if len(values) > 100 else float(values.max())
    margin = 0.04 * (high - low) or abs(high) * 0.1 or 1.0
    frame = Frame((float(steps.min()), float(steps.max())), (low - margin, high + margin), logarithmic)
    ticks = round_marks(*frame.x)
    parts = [_axes(frame, ticks or list(frame.x), x_label)]
    for number, curve in enumerate(thinned):
        points = " ".join(frame.at(x, y) for x, y in zip(curve.steps.tolist(), curve.values.tolist(), strict=True))
        shape = (
            f'<polyline points="{points}"/>' if len(curve.steps) > 1 else _dot(frame, curve.steps[0], curve.values[0])
        )
        parts.append(f'<g class="s{number % SERIES}">{shape}</g>')
    said = [
        f"{curve.name or title}: {curve.values[0]:.4g} at first, {curve.values[-1]:.4g} at last"
        for curve in curves
        if len(curve.values)
    ]
    names = [(curve.name, f"s{number % SERIES}") for number, curve in enumerate(thinned) if curve.name]
    return _svg("; ".join(said), parts) + _legend(names)


def point_chart(chart: Chart) -> str:
    """A few measured points with their spread, and the level to compare with."""
    ticks = chart.ticks
    span = ticks[-1] - ticks[0] or 1.0
    frame = Frame((ticks[0] - 0.06 * span, ticks[-1] + 0.06 * span), chart.range)
    parts = [_axes(frame, ticks, chart.x_label)]
    if chart.level is not None:
        start, stop = frame.at(frame.x[0], chart.level[1]).split(","), frame.at(frame.x[1], chart.level[1]).split(",")
        parts.append(f'<line class="level" x1="{start[0]}" y1="{start[1]}" x2="{stop[0]}" y2="{stop[1]}"/>')
    for number, line in enumerate(chart.lines):
        shapes = [f'<polyline points="{" ".join(frame.at(x, y) for x, y, _ in line.points)}"/>']
        for x, y, spread in line.points:
            if spread:
                (across, top), (_, bottom) = frame.at(x, y + spread).split(","), frame.at(x, y - spread).split(",")
                shapes.append(f'<line x1="{across}" y1="{top}" x2="{across}" y2="{bottom}"/>')
            shapes.append(_dot(frame, x, y))
        parts.append(f'<g class="s{number % SERIES}">{"".join(shapes)}</g>')
    said = [
        f"{line.name or chart.title}: " + ", ".join(f"{y:.4g} at {x:g}" for x, y, _ in line.points)
        for line in chart.lines
    ]
    names = [(line.name, f"s{number % SERIES}") for number, line in enumerate(chart.lines) if line.name]
    if chart.level is not None:
        names.append((chart.level[0], "level"))
    return _svg("; ".join(said), parts) + _legend(names)


def bar_chart(names: Sequence[str], values: Sequence[float], x_label: str, said: str) -> str:
    """Upright bars, one a group; a name is drawn where it changes."""
    frame = Frame((0, len(values)), (0, max(*values, 1e-12) * 1.05))
    parts = [_axes(frame, [], x_label)]
    width = (RIGHT - LEFT) / len(values)
    last = ""
    for number, (name, value) in enumerate(zip(names, values, strict=True)):
        x, y = frame.at(number, value).split(",")
        bar = f'width="{max(width - (2 if width > 6 else 0.5), 0.5):.1f}" height="{max(BOTTOM - float(y), 0.5):.1f}"'
        parts.append(f'<rect class="s0" x="{x}" y="{y}" {bar}/>')
        if name != last:
            parts.append(f'<text x="{x}" y="{BOTTOM + 15}">{escape(name)}</text>')
            last = name
    return _svg(said, parts)


def _thinned(curve: Curve, logarithmic: bool) -> Curve:
    keep = curve.values > 0 if logarithmic else np.isfinite(curve.values)
    steps, values = curve.steps[keep], curve.values[keep]
    if len(steps) > POINTS:
        places = np.linspace(0, len(steps) - 1, POINTS).round().astype(int)
        steps, values = steps[places], values[places]
    return Curve(curve.name, steps, np.log10(values) if logarithmic else values)


def _axes(frame: Frame, ticks: Sequence[float], x_label: str) -> str:
    parts = []
    for mark in _powers(*frame.y) if frame.logarithmic else round_marks(*frame.y):
        x, y = frame.at(frame.x[0], mark).split(",")
        text = f"{10**mark if frame.logarithmic else mark:.4g}"
        parts.append(f'<line class="rule" x1="{LEFT}" y1="{y}" x2="{RIGHT}" y2="{y}"/>')
        parts.append(f'<text class="end" x="{LEFT - 7}" y="{float(y) + 4:.1f}">{text}</text>')
    for tick in ticks:
        x, _ = frame.at(tick, frame.y[0]).split(",")
        text = f"{tick:,.0f}" if abs(tick) >= 1000 else f"{tick:g}"
        # At the right edge a centred text would be cut off.
        place, anchor = (WIDTH - 1, "end") if float(x) + EM * len(text) / 2 > WIDTH else (x, "middle")
        parts.append(f'<text class="{anchor}" x="{place}" y="{BOTTOM + 16}">{text}</text>')
    parts.append(f'<text class="middle" x="{(LEFT + RIGHT) / 2}" y="{HEIGHT - 6}">{escape(x_label)}</text>')
    return "".join(parts)


def _powers(low: float, high: float) -> list[float]:
    """Logarithms of 1, 2 and 5 times powers of ten, or of the powers alone where these are many."""
    powers = range(int(np.floor(low)), int(np.ceil(high)) + 1)
    factors = (1, 2, 5) if high - low < 2 else (1,)
    found = (power + float(np.log10(factor)) for power in powers for factor in factors)
    return [mark for mark in found if low <= mark <= high]


def _dot(frame: Frame, x: float, y: float) -> str:
    across, down = frame.at(float(x), float(y)).split(",")
    return f'<circle cx="{across}" cy="{down}" r="3.2"/>'


def _svg(said: str, parts: Sequence[str]) -> str:
    inside = "".join(parts)
    return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(said)}">{inside}</svg>'


def _legend(names: Sequence[tuple[str, str]]) -> str:
    if not names:
        return ""
    items = "".join(f'<li class="{colour}">{escape(name)}</li>' for name, colour in names)
    return f'<ul class="legend">{items}</ul>'
