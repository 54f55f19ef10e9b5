"""Pictures in named rows under headed columns, with captions: how every figure of pictures is laid out."""

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
    Captioned,
    font,
    measure_text,
    shorten,
    wrap,
    write_lines,
)

ACCENT = COLOURS[1]
LEAST, LARGE, MOST = 64, 96, 256  # pixels of the shorter side as it is shown
CLOSE, APART, WIDE = 4, 14, 20  # pixels between pictures, between marked or captioned ones, and between blocks
FRAME = 3  # pixels around an original
NAME_WIDTH = 140  # of a row's name
LEAST_WIDTH = 480  # room for a title

Cell = Captioned | None


@dataclass(frozen=True)
class Row:
    """A row's name, drawn at its left ("" for none), and its pictures; None leaves a place free."""

    name: str
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Block:
    """Columns that belong together, `width` of them, each with a heading of its own or none of them."""

    title: str
    width: int
    headings: tuple[str, ...] = ()


def draw_grid(
    title: str, blocks: Sequence[Block], rows: Sequence[Row], note: str = "", least: int = LEAST
) -> Image.Image:
    """Blocks side by side; a row's cells run through all of them. `note` stands small below the title.

    All pictures are enlarged or reduced by one whole number, so that the shortest side has `least` pixels or more.
    Columns are as wide as their widest picture. Text that is wider goes on in the next line and is never cut off.
    """
    columns = _place_columns(blocks, rows, _choose_scale(rows, least))
    width = columns[-1].right + MARGIN
    width = max(width, LEAST_WIDTH) if title else width
    headings = [text for block in blocks for text in block.headings or [""] * block.width]
    heads = [wrap(text, column.width, SMALL) for text, column in zip(headings, columns, strict=True)]
    head_height = max(map(len, heads)) * (SMALL + 4) + 6 if any(headings) else 0
    titles = wrap(title, width - 2 * MARGIN, TITLE) if title else []
    notes = wrap(note, width - 2 * MARGIN, CAPTION) if note else []
    top = MARGIN + len(titles) * (TITLE + 8) + len(notes) * (CAPTION + 6) + (10 if titles or notes else 0)
    first = top + (CAPTION + 12 if any(block.title for block in blocks) else 0) + head_height
    bands = _place_rows(rows, columns, first)
    canvas = Image.new("RGB", (width, bands[-1].bottom + MARGIN), PAPER)
    draw = ImageDraw.Draw(canvas)
    write_lines(draw, titles, (MARGIN, MARGIN), TITLE, INK, 8)
    write_lines(draw, notes, (MARGIN, MARGIN + len(titles) * (TITLE + 8)), CAPTION, FAINT, 6)
    _draw_block_titles(draw, blocks, columns, (top, width - MARGIN))
    for column, lines in zip(columns, heads, strict=True):
        write_lines(draw, lines, (column.left, first - 6 - len(lines) * (SMALL + 4)), SMALL, FAINT, 4)
    for row, band in zip(rows, bands, strict=True):
        lines = wrap(row.name, NAME_WIDTH, CAPTION) if row.name else []
        write_lines(draw, lines, (MARGIN, band.top + max(0, band.middle - 9 * len(lines))), CAPTION, INK, 5)
        for column, cell in zip(columns, row.cells, strict=False):
            if cell is not None:
                _draw_cell(canvas, draw, cell, column, band.top)
    return canvas


def fill_rows(pictures: Sequence[Captioned], columns: int) -> list[Row]:
    """Pictures one after the other, so many in a row; the last row may end early."""
    return [
        Row("", tuple(_fill(pictures[start : start + columns], columns))) for start in range(0, len(pictures), columns)
    ]


def fill_rows_by_class(
    pictures: Sequence[Captioned], labels: NDArray[np.int32], names: Sequence[str] | None, columns: int
) -> list[Row]:
    """Rows of one class each, in the order of the classes; what has no label comes last. A class may fill several."""
    rows = []
    found = sorted({int(label) for label in labels}, key=lambda label: (label < 0, label))
    for label in found:
        own = [picture for picture, its in zip(pictures, labels, strict=True) if its == label]
        for start in range(0, len(own), columns):
            name = name_class(label, names) if start == 0 else ""
            rows.append(Row(name, tuple(_fill(own[start : start + columns], columns))))
    return rows


def draw_pairs(title: str, pairs: Sequence[tuple[Captioned, Captioned]]) -> Image.Image:
    """Two pictures side by side, several such pairs in a row."""
    columns = min(2 if pairs[0][0].pixels.shape[0] > 128 else 4, len(pairs))
    rows = fill_rows([one for pair in pairs for one in pair], 2 * columns)
    return draw_grid(title, [Block("", 2)] * columns, rows, least=LARGE)


def name_class(label: int, names: Sequence[str] | None) -> str:
    """What a class is called, "class 7" where nobody named it."""
    if label < 0:
        return "no label"
    return names[label] if names is not None and label < len(names) else f"class {label}"


def _fill(cells: Sequence[Cell], columns: int) -> list[Cell]:
    return [*cells, *[None] * (columns - len(cells))]


@dataclass(frozen=True)
class _Column:
    """Where a column lies. scale: by what a picture's sides are multiplied."""

    left: int
    width: int
    scale: float

    @property
    def right(self) -> int:
        return self.left + self.width


@dataclass(frozen=True)
class _Band:
    """Where a row lies. middle: half the height of its tallest picture."""

    top: int
    middle: int
    bottom: int


def _choose_scale(rows: Sequence[Row], least: int) -> float:
    """A whole number by which pictures are enlarged, or one over it."""
    side: int = min(min(cell.pixels.shape[:2]) for row in rows for cell in row.cells if cell is not None)
    return -(-least // side) if side < least else 1 / -(-side // MOST)


def _place_columns(blocks: Sequence[Block], rows: Sequence[Row], scale: float) -> list[_Column]:
    cells = [cell for row in rows for cell in row.cells if cell is not None]
    gap = APART if any(cell.original or cell.given for cell in cells) else CLOSE
    names = max(measure_text(row.name, CAPTION)[0] for row in rows) if any(row.name for row in rows) else 0
    x = MARGIN + (min(NAME_WIDTH, names) + 12 if names else 0)
    columns: list[_Column] = []
    for block in blocks:
        for _ in range(block.width):
            at = len(columns)
            own = [row.cells[at] for row in rows if at < len(row.cells)]
            width = max((int(cell.pixels.shape[1] * scale) for cell in own if cell is not None), default=0)
            columns.append(_Column(x, width, scale))
            x += width + gap
        x += WIDE - gap
    return columns


def _place_rows(rows: Sequence[Row], columns: Sequence[_Column], first: int) -> list[_Band]:
    bands = []
    for row in rows:
        shown = [(cell, column) for cell, column in zip(row.cells, columns, strict=False) if cell is not None]
        picture = max(int(cell.pixels.shape[0] * column.scale) for cell, column in shown)
        below = max(_measure_below(cell, column) for cell, column in shown)
        name = len(wrap(row.name, NAME_WIDTH, CAPTION)) * (CAPTION + 5) if row.name else 0
        bands.append(_Band(first, picture // 2, first + max(picture + below, name)))
        first = bands[-1].bottom + (APART - 6 if below else CLOSE)
    return bands


def _wrap_caption(cell: Captioned, column: _Column) -> list[str]:
    return wrap(cell.caption, column.width, SMALL) if cell.caption else []


def _measure_below(cell: Captioned, column: _Column) -> int:
    """How much room a picture's frame, marks and caption need below it."""
    lines = len(_wrap_caption(cell, column))
    return _measure_caption_offset(cell) + lines * (SMALL + 4) if lines or cell.original or cell.given else 0


def _measure_caption_offset(cell: Captioned) -> int:
    """From a picture to its caption: below its frame or its marks."""
    return 8 if cell.original or cell.given else CLOSE


def _draw_block_titles(
    draw: ImageDraw.ImageDraw, blocks: Sequence[Block], columns: Sequence[_Column], place: tuple[int, int]
) -> None:
    """A title goes on over the gap behind its block. place: y, and where the last block's title must end."""
    y, end = place
    at = 0
    for block in blocks:
        left, right = columns[at].left, columns[at + block.width - 1].right
        at += block.width
        if block.title:
            room = (columns[at].left - CLOSE if at < len(columns) else end) - left
            draw.text((left, y), shorten(block.title, room, CAPTION), INK, font(CAPTION))
            if len(blocks) > 1:
                draw.line((left, y + CAPTION + 5, right, y + CAPTION + 5), fill=RULE)


def _draw_cell(canvas: Image.Image, draw: ImageDraw.ImageDraw, cell: Captioned, column: _Column, y: int) -> None:
    x, scale = column.left, column.scale
    height, width = (int(side * scale) for side in cell.pixels.shape[:2])
    filter_ = Image.Resampling.NEAREST if scale >= 1 else Image.Resampling.BOX
    canvas.paste(Image.fromarray(cell.pixels).resize((width, height), filter_), (x, y))
    if cell.original:
        for line in range(1, FRAME + 1):
            draw.rectangle((x - line, y - line, x + width + line - 1, y + height + line - 1), outline=ACCENT)
    if cell.given is not None:
        top, left, rows, across = (int(side * scale) for side in cell.given)
        draw.rectangle((x - 6, y + top, x - 4, y + top + rows - 1), fill=ACCENT)
        draw.rectangle((x + left, y + height + 3, x + left + across - 1, y + height + 5), fill=ACCENT)
    place = x, y + height + _measure_caption_offset(cell)
    write_lines(draw, _wrap_caption(cell, column), place, SMALL, ACCENT if cell.original else FAINT, 4)
