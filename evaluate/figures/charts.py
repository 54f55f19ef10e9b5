"""Charts of a few measured points: curves with markers, the spread over seeds, and a level to compare with."""

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from lvae.evaluate.figures.drawing import (
    CAPTION,
    COLOURS,
    FAINT,
    INK,
    MARGIN,
    PAPER,
    RULE,
    SMALL,
    TITLE,
    font,
    measure_text,
    shorten,
    wrap,
    write_lines,
)

GAP = 14
SIZE = (420, 260)
LEFT, TOP, RIGHT, BOTTOM = 62, 34, 14, 58
MARK = 3


@dataclass(frozen=True)
class Line:
    """Points of one curve in the order of x: (x, mean, standard deviation over seeds)."""

    name: str
    points: tuple[tuple[float, float, float], ...]


@dataclass(frozen=True)
class Chart:
    """level: a value that a dashed line marks, and its name."""

    title: str
    x_label: str
    lines: tuple[Line, ...]
    level: tuple[str, float] | None = None

    @property
    def ticks(self) -> list[float]:
        """Every x that was measured."""
        return sorted({x for line in self.lines for x, _, _ in line.points})

    @property
    def range(self) -> tuple[float, float]:
        """Of y: everything that is drawn, with a margin."""
        values = [value + sign * spread for line in self.lines for _, value, spread in line.points for sign in (-1, 1)]
        values += [self.level[1]] if self.level is not None else []
        low, high = min(values), max(values)
        flat = high - low <= 1e-9 * max(abs(low), abs(high))
        margin = (abs(high) * 0.1 or 1.0) if flat else 0.08 * (high - low)
        return low - margin, high + margin

    @property
    def marks(self) -> list[float]:
        """Round values of y inside the range, a few of them."""
        return round_marks(*self.range)


def round_marks(low: float, high: float) -> list[float]:
    """Multiples of 1, 2 or 5 times a power of ten between two numbers: two to six of them."""
    if not high > low:
        return []
    step = _round_step((high - low) / 5)
    found = (number * step for number in range(int(-(-low // step)), int(high // step) + 1))
    return [mark for mark in found if low <= mark <= high]


def _round_step(step: float) -> float:
    """1, 2 or 5 times a power of ten, not below."""
    power = 10.0 ** int(f"{step:e}".split("e")[1])
    return min(factor for factor in (1, 2, 5, 10) if factor * power >= step * 0.9999) * power


def drawn(chart: Chart, size: tuple[int, int] = SIZE) -> Image.Image:
    """The chart as a picture."""
    width, height = size
    canvas = Image.new("RGB", size, PAPER)
    draw = ImageDraw.Draw(canvas)
    left, top, right, bottom = LEFT, TOP, width - RIGHT, height - BOTTOM
    (low, high), ticks = chart.range, chart.ticks
    span = ticks[-1] - ticks[0] or 1.0

    def x_of(x: float) -> float:
        return left + 12 + (x - ticks[0]) / span * (right - left - 24)

    def y_of(y: float) -> float:
        return bottom - (y - low) / (high - low) * (bottom - top)

    draw.text((12, 8), shorten(_plain(chart.title), width - 24, CAPTION), INK, font(CAPTION))
    for mark in chart.marks:
        draw.line((left, y_of(mark), right, y_of(mark)), fill=RULE)
        text = f"{mark:.4g}"
        draw.text((left - 6 - measure_text(text, SMALL)[0], y_of(mark) - 7), text, FAINT, font(SMALL))
    for tick in ticks:
        text = f"{tick:g}"
        draw.text((x_of(tick) - measure_text(text, SMALL)[0] / 2, bottom + 4), text, FAINT, font(SMALL))
    label = shorten(chart.x_label, right - left, SMALL)
    draw.text(((left + right - measure_text(label, SMALL)[0]) / 2, bottom + 19), label, FAINT, font(SMALL))
    if chart.level is not None:
        y = y_of(chart.level[1])
        for dash in range(left, right, 8):
            draw.line((dash, y, min(dash + 4, right), y), fill=FAINT)
    for number, line in enumerate(chart.lines):
        colour = COLOURS[number % len(COLOURS)]
        draw.line([(x_of(x), y_of(y)) for x, y, _ in line.points], fill=colour, width=2)
        for x, y, spread in line.points:
            if spread:
                draw.line((x_of(x), y_of(y - spread), x_of(x), y_of(y + spread)), fill=colour)
            draw.ellipse((x_of(x) - MARK, y_of(y) - MARK, x_of(x) + MARK, y_of(y) + MARK), fill=colour)
    _legend(draw, chart, left, height - 20, right)
    return canvas


def _plain(text: str) -> str:
    """Without accents, which the font of pictures does not have."""
    return "".join(
        character for character in unicodedata.normalize("NFKD", text) if not unicodedata.combining(character)
    )


def _legend(draw: ImageDraw.ImageDraw, chart: Chart, left: int, y: int, right: int) -> None:
    names = [(line.name, COLOURS[number % len(COLOURS)]) for number, line in enumerate(chart.lines) if line.name]
    names += [(f"- - {chart.level[0]}", FAINT)] if chart.level is not None else []
    x = left
    for name, colour in names:
        text = shorten(name, max(right - x, 20), SMALL)
        draw.text((x, y), text, colour, font(SMALL))
        x += measure_text(text, SMALL)[0] + 14


def without_empty(charts: Sequence[Chart]) -> list[Chart]:
    return [chart for chart in charts if any(line.points for line in chart.lines)]


@dataclass(frozen=True)
class Shares:
    """What each part of a whole has: names and values of the parts, in their order."""

    title: str
    names: Sequence[str]
    values: Sequence[float]


def shares_chart(panels: Sequence[Shares], title: str, note: str = "", width: int = 760) -> Image.Image:
    """Horizontal bars, a panel for each whole, every bar a share of its own whole: value and percentage beside it."""
    line = CAPTION + 10
    lines, notes = wrap(title, width - 2 * MARGIN, TITLE), wrap(note, width - 2 * MARGIN, CAPTION) if note else []
    names = max(measure_text(name, CAPTION)[0] for panel in panels for name in panel.names)
    top = MARGIN + len(lines) * (TITLE + 8) + len(notes) * (CAPTION + 6) + 8
    titles = [wrap(panel.title, width - 2 * MARGIN, CAPTION) for panel in panels]
    height = top + sum(
        len(heading) * (CAPTION + 6) + 4 + line * len(panel.names) + GAP
        for heading, panel in zip(titles, panels, strict=True)
    )
    canvas = Image.new("RGB", (width, height + MARGIN), PAPER)
    draw = ImageDraw.Draw(canvas)
    write_lines(draw, lines, (MARGIN, MARGIN), TITLE, INK, 8)
    write_lines(draw, notes, (MARGIN, MARGIN + len(lines) * (TITLE + 8)), CAPTION, FAINT, 6)
    left, room = MARGIN + names + 12, width - 2 * MARGIN - names - 12 - 150
    largest = max(value / max(sum(panel.values), 1e-30) for panel in panels for value in panel.values)
    y = top
    for number, (panel, heading) in enumerate(zip(panels, titles, strict=True)):
        write_lines(draw, heading, (MARGIN, y), CAPTION, INK, 6)
        y += len(heading) * (CAPTION + 6) + 4
        whole = max(sum(panel.values), 1e-30)
        for name, value in zip(panel.names, panel.values, strict=True):
            long = max(1, round(room * value / whole / max(largest, 1e-30)))
            draw.text((MARGIN + names - measure_text(name, CAPTION)[0], y), name, INK, font(CAPTION))
            draw.rectangle((left, y + 2, left + long, y + line - 6), fill=COLOURS[number % len(COLOURS)])
            draw.text((left + long + 8, y), f"{value:.1f} nats, {value / whole:.1%}", FAINT, font(SMALL + 1))
            y += line
        y += GAP
    return canvas


@dataclass(frozen=True)
class Series:
    """A filled curve over bin edges: counts (n,), edges (n + 1,)."""

    name: str
    counts: NDArray[np.float64]
    edges: NDArray[np.float64]


def density_chart(series: Series, reference: str, size: tuple[int, int], colour: tuple[int, int, int]) -> Image.Image:
    """A histogram as a density, with the standard normal as a line over it."""
    width, height = size
    canvas = Image.new("RGB", size, PAPER)
    draw = ImageDraw.Draw(canvas)
    left, top, right, bottom = 8, 24, width - 8, height - 20
    centres = (series.edges[1:] + series.edges[:-1]) / 2
    widths = np.diff(series.edges)
    density = series.counts / max(series.counts.sum(), 1) / widths
    normal = np.exp(-(centres**2) / 2) / np.sqrt(2 * np.pi)
    peak = max(float(density.max()), float(normal.max())) * 1.05

    def point(x: float, y: float) -> tuple[float, float]:
        along = (x - series.edges[0]) / (series.edges[-1] - series.edges[0])
        return left + along * (right - left), bottom - y / peak * (bottom - top)

    for edge, next_edge, value in zip(series.edges[:-1], series.edges[1:], density, strict=True):
        (x0, y0), (x1, _) = point(edge, value), point(next_edge, value)
        draw.rectangle((round(x0), round(y0), max(round(x1) - 1, round(x0)), bottom), fill=colour)
    draw.line([point(x, y) for x, y in zip(centres, normal, strict=True)], fill=INK, width=1)
    draw.line((left, bottom, right, bottom), fill=RULE)
    for tick in range(-4, 5, 2):
        x, _ = point(tick, 0)
        text = str(tick)
        draw.text((x - measure_text(text, SMALL)[0] / 2, bottom + 4), text, FAINT, font(SMALL))
    draw.text((left, 4), shorten(series.name, width - 16, CAPTION), INK, font(CAPTION))
    note = measure_text(reference, SMALL)[0]
    if note + measure_text(series.name, CAPTION)[0] + 30 < width:
        draw.text((right - note, 6), reference, FAINT, font(SMALL))
    return canvas


def bar_chart(title: str, names: Sequence[str], values: Sequence[int], width: int) -> Image.Image:
    """Horizontal bars with names and numbers."""
    line = CAPTION + 9
    label = min(max(measure_text(name, CAPTION)[0] for name in names), width // 3)
    number = max(measure_text(str(value), CAPTION)[0] for value in values)
    canvas = Image.new("RGB", (width, 28 + line * len(names)), PAPER)
    draw = ImageDraw.Draw(canvas)
    draw.text((8, 4), shorten(title, width - 16, CAPTION), INK, font(CAPTION))
    longest = max(1, *values)
    room = width - label - number - 40
    for index, (name, value) in enumerate(zip(names, values, strict=True)):
        y = 26 + index * line
        draw.text((8, y), shorten(name, label, CAPTION), INK, font(CAPTION))
        draw.rectangle((20 + label, y + 2, 20 + label + round(room * value / longest), y + line - 6), fill=COLOURS[0])
        draw.text((26 + label + round(room * value / longest), y), str(value), FAINT, font(CAPTION))
    return canvas
