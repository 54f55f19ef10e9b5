"""Rows of captioned pictures under a title, originals framed: what the manipulations are shown as."""

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
    TITLE,
    font,
    wrapped,
)

ACCENT = COLOURS[1]
SIDE, GAP, FRAME = 96, 14, 3
LEAST_WIDTH = 640  # a title needs some room
HEADING = 120  # of a row's name

Extent = tuple[int, int, int, int]  # top, left, height, width


@dataclass(frozen=True)
class Cell:
    """A picture, uint8 (H, W, 3), and what stands below it.

    original: framed. given: the part of it that was not generated, in its pixels; lines beside the picture show it.
    """

    pixels: NDArray[np.uint8]
    caption: str = ""
    original: bool = False
    given: Extent | None = None


def cell_grid(
    rows: Sequence[Sequence[Cell | None]],
    title: str,
    note: str = "",
    columns: Sequence[str] = (),
    names: Sequence[str] = (),
) -> Image.Image:
    """Pictures in rows and columns. columns: headings; names: of rows. Small pictures are enlarged by whole numbers.

    Columns are as wide as their widest picture; text that is wider is wrapped, never cut off.
    """
    times = max(1, -(-SIDE // min(min(cell.pixels.shape[:2]) for row in rows for cell in row if cell is not None)))
    count = max(map(len, rows))
    widths = [max(_width(row, column, times) for row in rows) for column in range(count)]
    left = MARGIN + (HEADING if names else 0)
    width = max(LEAST_WIDTH, left + sum(widths) + GAP * (count - 1) + MARGIN)
    headings = [wrapped(text, widths[number], CAPTION) for number, text in enumerate(columns[:count])]
    lines = wrapped(title, width - 2 * MARGIN, TITLE)
    notes = wrapped(note, width - 2 * MARGIN, CAPTION) if note else []
    top = MARGIN + len(lines) * (TITLE + 8) + len(notes) * (CAPTION + 6) + 10
    below = top + max(map(len, headings), default=0) * (CAPTION + 5) + (6 if headings else 0)
    heights = [_height(row, widths, times) for row in rows]
    canvas = Image.new("RGB", (width, below + sum(heights) + GAP * (len(rows) - 1) + MARGIN), PAPER)
    draw = ImageDraw.Draw(canvas)
    _text(draw, lines, MARGIN, MARGIN, TITLE, TITLE + 8, INK)
    _text(draw, notes, MARGIN, MARGIN + len(lines) * (TITLE + 8), CAPTION, CAPTION + 6, FAINT)
    places = [left + sum(widths[:number]) + GAP * number for number in range(count)]
    for place, heading in zip(places, headings, strict=False):
        _text(draw, heading, place, top, CAPTION, CAPTION + 5, INK)
    y = below
    for number, (row, height) in enumerate(zip(rows, heights, strict=True)):
        if number < len(names):
            _text(draw, wrapped(names[number], HEADING - GAP, CAPTION), MARGIN, y, CAPTION, CAPTION + 5, INK)
        for place, wide, cell in zip(places, widths, row, strict=False):
            if cell is not None:
                _place(canvas, draw, cell, place, y, wide, times)
        y += height + GAP
    return canvas


def _place(canvas: Image.Image, draw: ImageDraw.ImageDraw, cell: Cell, x: int, y: int, width: int, times: int) -> None:
    height, wide = (side * times for side in cell.pixels.shape[:2])
    canvas.paste(Image.fromarray(cell.pixels).resize((wide, height), Image.Resampling.NEAREST), (x, y))
    if cell.original:
        for line in range(1, FRAME + 1):
            draw.rectangle((x - line, y - line, x + wide + line - 1, y + height + line - 1), outline=ACCENT)
    if cell.given is not None:
        top, left, rows, columns = (side * times for side in cell.given)
        draw.rectangle((x - 6, y + top, x - 4, y + top + rows - 1), fill=ACCENT)
        draw.rectangle((x + left, y + height + 3, x + left + columns - 1, y + height + 5), fill=ACCENT)
    colour = ACCENT if cell.original else FAINT
    _text(draw, _caption(cell, width), x, y + height + 8, CAPTION, CAPTION + 5, colour)


def _caption(cell: Cell, width: int) -> list[str]:
    return wrapped(cell.caption, width, CAPTION) if cell.caption else []


def _width(row: Sequence[Cell | None], column: int, times: int) -> int:
    cell = row[column] if column < len(row) else None
    return 0 if cell is None else int(cell.pixels.shape[1]) * times


def _height(row: Sequence[Cell | None], widths: Sequence[int], times: int) -> int:
    """Of a row with its captions."""
    return max(
        int(cell.pixels.shape[0]) * times + 8 + len(_caption(cell, width)) * (CAPTION + 5)
        for cell, width in zip(row, widths, strict=False)
        if cell is not None
    )


def _text(
    draw: ImageDraw.ImageDraw,
    lines: Sequence[str],
    x: int,
    y: int,
    size: int,
    step: int,
    colour: tuple[int, int, int],
) -> None:
    for number, line in enumerate(lines):
        draw.text((x, y + number * step), line, colour, font(size))
