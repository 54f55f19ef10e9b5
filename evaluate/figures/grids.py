"""Pictures in named rows under headed columns, with captions: how every figure of samples is laid out."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from lvae.evaluate.figures.drawing import (
    CAPTION,
    FAINT,
    GAP,
    INK,
    MARGIN,
    PAPER,
    RULE,
    SMALL,
    TITLE,
    Captioned,
    font,
    shortened,
    text_size,
    wrapped,
)

LEAST, MOST = 64, 256  # pixels of a side as it is shown: smaller pictures are enlarged, larger ones reduced
NARROW, WIDE = 4, 20  # between pictures, and between blocks of columns
NAME_WIDTH = 140
LEAST_WIDTH = 480  # room for a title

Cell = Captioned | None


@dataclass(frozen=True)
class Row:
    """A row's name, drawn at its left ("" for none), and its pictures, all of one size; None leaves a place free."""

    name: str
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Block:
    """Columns that belong together, `width` of them, each with a heading of its own or none of them."""

    title: str
    width: int
    headings: tuple[str, ...] = ()


def grid(title: str, blocks: Sequence[Block], rows: Sequence[Row], note: str = "", least: int = LEAST) -> Image.Image:
    """Blocks side by side; a row's cells run through all of them. `note` stands small below the title.

    least: pixels of a side, below which pictures are enlarged.
    """
    side = _side(rows, least)
    names = min(NAME_WIDTH, max(text_size(row.name, CAPTION)[0] for row in rows)) + 12 if _named(rows) else 0
    lefts = _lefts(blocks, side, MARGIN + names)
    width = max(lefts[-1] + side + MARGIN, LEAST_WIDTH)
    titles = wrapped(title, width - 2 * MARGIN, TITLE) if title else []
    notes = wrapped(note, width - 2 * MARGIN, SMALL) if note else []
    heads = [wrapped(text, side + NARROW, SMALL) for block in blocks for text in block.headings]
    block_line = CAPTION + 8 if any(block.title for block in blocks) else 0
    head_lines = max((len(lines) for lines in heads), default=0)
    top = MARGIN + len(titles) * (TITLE + 8) + len(notes) * (SMALL + 5) + (8 if titles or notes else 0)
    first = top + block_line + head_lines * (SMALL + 4) + (4 if head_lines else 0)
    heights = [side + (SMALL + 8 if any(cell and cell.caption for cell in row.cells) else NARROW) for row in rows]
    canvas = Image.new("RGB", (width, first + sum(heights) + MARGIN - NARROW), PAPER)
    draw = ImageDraw.Draw(canvas)
    y = MARGIN
    for text in titles:
        draw.text((MARGIN, y), text, INK, font(TITLE))
        y += TITLE + 8
    for text in notes:
        draw.text((MARGIN, y), text, FAINT, font(SMALL))
        y += SMALL + 5
    _draw_heads(draw, blocks, lefts, side, top, first)
    y = first
    for row, height in zip(rows, heights, strict=True):
        if row.name:
            text = shortened(row.name, names - 12, CAPTION)
            draw.text((MARGIN, y + (side - CAPTION) // 2 - 2), text, INK, font(CAPTION))
        for left, cell in zip(lefts, row.cells, strict=True):
            if cell is not None:
                canvas.paste(_shown(cell.pixels, side), (left, y))
                draw.text((left, y + side + 2), shortened(cell.caption, side, SMALL), FAINT, font(SMALL))
        y += height
    return canvas


def sequence(pictures: Sequence[Captioned], columns: int) -> list[Row]:
    """Pictures one after the other, so many in a row; the last row may end early."""
    return [
        Row("", tuple(_filled(pictures[start : start + columns], columns)))
        for start in range(0, len(pictures), columns)
    ]


def by_class(
    pictures: Sequence[Captioned], labels: NDArray[np.int32], names: Sequence[str] | None, columns: int
) -> list[Row]:
    """Rows of one class each, in the order of the classes; what has no label comes last. A class may fill several."""
    rows = []
    found = sorted({int(label) for label in labels}, key=lambda label: (label < 0, label))
    for label in found:
        own = [picture for picture, its in zip(pictures, labels, strict=True) if its == label]
        for start in range(0, len(own), columns):
            name = class_name(label, names) if start == 0 else ""
            rows.append(Row(name, tuple(_filled(own[start : start + columns], columns))))
    return rows


def class_name(label: int, names: Sequence[str] | None) -> str:
    """What a class is called, "class 7" where nobody named it."""
    if label < 0:
        return "no label"
    return names[label] if names is not None and label < len(names) else f"class {label}"


def _filled(cells: Sequence[Cell], columns: int) -> list[Cell]:
    return [*cells, *[None] * (columns - len(cells))]


def _named(rows: Sequence[Row]) -> bool:
    return any(row.name for row in rows)


def _side(rows: Sequence[Row], least: int) -> int:
    """How large every picture is shown: by whole numbers larger or smaller than it is."""
    side: int = next(cell.pixels.shape[0] for row in rows for cell in row.cells if cell is not None)
    return side * -(-least // side) if side < least else side // -(-side // MOST)


def _shown(pixels: NDArray[np.uint8], side: int) -> Image.Image:
    enlarged = side >= pixels.shape[0]
    filter_ = Image.Resampling.NEAREST if enlarged else Image.Resampling.BOX
    return Image.fromarray(pixels).resize((side, side), filter_)


def _lefts(blocks: Sequence[Block], side: int, start: int) -> list[int]:
    lefts, x = [], start
    for block in blocks:
        for _ in range(block.width):
            lefts.append(x)
            x += side + NARROW
        x += WIDE - NARROW
    return lefts


def _draw_heads(
    draw: ImageDraw.ImageDraw, blocks: Sequence[Block], lefts: list[int], side: int, top: int, first: int
) -> None:
    column = 0
    for block in blocks:
        left, right = lefts[column], lefts[column + block.width - 1] + side
        if block.title:
            draw.text((left, top), shortened(block.title, right - left, CAPTION), INK, font(CAPTION))
            if len(blocks) > 1:
                draw.line((left, top + CAPTION + 5, right, top + CAPTION + 5), fill=RULE)
        for number, heading in enumerate(block.headings):
            lines = wrapped(heading, side + NARROW, SMALL)
            y = first - 4 - len(lines) * (SMALL + 4)
            for line in lines:
                draw.text((lefts[column + number], y), line, FAINT, font(SMALL))
                y += SMALL + 4
        column += block.width


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
