"""Charts of a few measured points: curves with markers, the spread over seeds, and a level to compare with."""

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw

from lvae.evaluate.figures.drawing import CAPTION, COLOURS, FAINT, INK, PAPER, RULE, SMALL, font, shortened, text_size

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

    draw.text((12, 8), shortened(_plain(chart.title), width - 24, CAPTION), INK, font(CAPTION))
    for mark in chart.marks:
        draw.line((left, y_of(mark), right, y_of(mark)), fill=RULE)
        text = f"{mark:.4g}"
        draw.text((left - 6 - text_size(text, SMALL)[0], y_of(mark) - 7), text, FAINT, font(SMALL))
    for tick in ticks:
        text = f"{tick:g}"
        draw.text((x_of(tick) - text_size(text, SMALL)[0] / 2, bottom + 4), text, FAINT, font(SMALL))
    label = shortened(chart.x_label, right - left, SMALL)
    draw.text(((left + right - text_size(label, SMALL)[0]) / 2, bottom + 19), label, FAINT, font(SMALL))
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
        text = shortened(name, max(right - x, 20), SMALL)
        draw.text((x, y), text, colour, font(SMALL))
        x += text_size(text, SMALL)[0] + 14


def without_empty(charts: Sequence[Chart]) -> list[Chart]:
    return [chart for chart in charts if any(line.points for line in chart.lines)]
