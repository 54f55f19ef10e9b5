"""Figures drawn with Pillow: grids of captioned pictures, and charts. No text is ever clipped."""

import io
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

INK, FAINT, PAPER, RULE = (32, 34, 38), (110, 114, 120), (255, 255, 255), (214, 217, 221)
COLOURS = ((38, 98, 168), (200, 84, 40), (56, 138, 84), (140, 80, 160), (190, 150, 30), (80, 150, 170))
GAP, MARGIN = 8, 16
CAPTION, TITLE, SMALL = 13, 16, 11
JOINERS = "\u200d\ufe0e\ufe0f"  # zero-width joiner, variation selectors


@dataclass(frozen=True)
class Captioned:
    """A picture, uint8 (H, W, 3), and what stands below it."""

    pixels: NDArray[np.uint8]
    caption: str


@lru_cache(maxsize=8)
def font(size: int) -> Any:
    return ImageFont.load_default(size)


def text_size(text: str, size: int) -> tuple[int, int]:
    left, top, right, bottom = font(size).getbbox(text or " ")
    return int(right - left) + 1, int(bottom - top) + 1


def shortened(text: str, width: int, size: int) -> str:
    """The text on one line, its end replaced by an ellipsis where it is wider than so many pixels."""
    text = "".join(character if character.isprintable() or character in JOINERS else " " for character in text)
    if text_size(text, size)[0] <= width:
        return text
    for keep in range(len(text) - 1, 0, -1):
        short = f"{text[:keep].rstrip()}…"
        if not _within_a_glyph(text, keep) and text_size(short, size)[0] <= width:
            return short
    return "…"


def _within_a_glyph(text: str, at: int) -> bool:
    """Whether a cut there would part a letter from its accents, or a joined sign from its other half."""
    return bool(unicodedata.combining(text[at])) or text[at] in JOINERS or text[at - 1] == JOINERS[0]


def pair_grid(pairs: Sequence[tuple[Captioned, Captioned]], title: str, columns: int) -> Image.Image:
    """Pairs side by side, several in a row, under a title. Pictures of one size; captions are cut to their width."""
    height, width = pairs[0][0].pixels.shape[:2]
    shown = max(1, -(-96 // width))  # small pictures are enlarged by whole numbers
    width, height = width * shown, height * shown
    columns = min(columns, len(pairs))
    cell = 2 * width + GAP // 2
    line = CAPTION + 8
    rows = -(-len(pairs) // columns)
    title_lines = wrapped(title, columns * (cell + 2 * GAP) - 2 * GAP, TITLE)
    top = MARGIN + len(title_lines) * (TITLE + 8) + 6
    canvas = Image.new(
        "RGB",
        (2 * MARGIN + columns * (cell + 2 * GAP) - 2 * GAP, top + rows * (height + line + GAP) + MARGIN - GAP),
        PAPER,
    )
    draw = ImageDraw.Draw(canvas)
    for number, text in enumerate(title_lines):
        draw.text((MARGIN, MARGIN + number * (TITLE + 8)), text, INK, font(TITLE))
    for number, pair in enumerate(pairs):
        x = MARGIN + (number % columns) * (cell + 2 * GAP)
        y = top + (number // columns) * (height + line + GAP)
        for side, captioned in enumerate(pair):
            left = x + side * (width + GAP // 2)
            picture = Image.fromarray(captioned.pixels).resize((width, height), Image.Resampling.NEAREST)
            canvas.paste(picture, (left, y))
            caption = shortened(captioned.caption, width, CAPTION)
            draw.text((left, y + height + 3), caption, INK if side == 0 else FAINT, font(CAPTION))
    return canvas


def wrapped(text: str, width: int, size: int) -> list[str]:
    """Lines no wider than so many pixels; a line break in the text stays one."""
    return [line for paragraph in text.split("\n") for line in _wrapped_paragraph(paragraph, width, size)]


def _wrapped_paragraph(text: str, width: int, size: int) -> list[str]:
    lines, line = [], ""
    for word in text.split():
        wider = f"{line} {word}".strip()
        if line and text_size(wider, size)[0] > width:
            lines.append(line)
            line = word
        else:
            line = wider
    return [shortened(entry, width, size) for entry in [*lines, line]]


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
        draw.text((x - text_size(text, SMALL)[0] / 2, bottom + 4), text, FAINT, font(SMALL))
    draw.text((left, 4), shortened(series.name, width - 16, CAPTION), INK, font(CAPTION))
    note = text_size(reference, SMALL)[0]
    if note + text_size(series.name, CAPTION)[0] + 30 < width:
        draw.text((right - note, 6), reference, FAINT, font(SMALL))
    return canvas


def bar_chart(title: str, names: Sequence[str], values: Sequence[int], width: int) -> Image.Image:
    """Horizontal bars with names and numbers."""
    line = CAPTION + 9
    label = min(max(text_size(name, CAPTION)[0] for name in names), width // 3)
    number = max(text_size(str(value), CAPTION)[0] for value in values)
    canvas = Image.new("RGB", (width, 28 + line * len(names)), PAPER)
    draw = ImageDraw.Draw(canvas)
    draw.text((8, 4), shortened(title, width - 16, CAPTION), INK, font(CAPTION))
    longest = max(1, *values)
    room = width - label - number - 40
    for index, (name, value) in enumerate(zip(names, values, strict=True)):
        y = 26 + index * line
        draw.text((8, y), shortened(name, label, CAPTION), INK, font(CAPTION))
        draw.rectangle((20 + label, y + 2, 20 + label + round(room * value / longest), y + line - 6), fill=COLOURS[0])
        draw.text((26 + label + round(room * value / longest), y), str(value), FAINT, font(CAPTION))
    return canvas


def stacked(pictures: Sequence[Image.Image], columns: int) -> Image.Image:
    """Pictures in a grid, each in its place by size of the largest in its row."""
    rows = [list(pictures[start : start + columns]) for start in range(0, len(pictures), columns)]
    width = max(sum(picture.width for picture in row) for row in rows)
    canvas = Image.new("RGB", (width, sum(max(picture.height for picture in row) for row in rows)), PAPER)
    y = 0
    for row in rows:
        x = 0
        for picture in row:
            canvas.paste(picture, (x, y))
            x += picture.width
        y += max(picture.height for picture in row)
    return canvas


def png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "png")
    return buffer.getvalue()
