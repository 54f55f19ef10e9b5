"""Colours of all figures, and text as Pillow draws it: wrapped or shortened, never clipped."""

import io
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from lvae.manifests.storage.places.marks import mark_png

INK, FAINT, PAPER, RULE = (32, 34, 38), (110, 114, 120), (255, 255, 255), (214, 217, 221)
COLOURS = ((38, 98, 168), (200, 84, 40), (56, 138, 84), (140, 80, 160), (190, 150, 30), (80, 150, 170))
MARGIN = 16
CAPTION, TITLE, SMALL = 13, 16, 11
JOINERS = "\u200d\ufe0e\ufe0f"  # zero-width joiner, variation selectors


Colour = tuple[int, int, int]
Extent = tuple[int, int, int, int]  # top, left, height, width


@dataclass(frozen=True)
class Captioned:
    """A picture, uint8 (H, W, 3), and what stands below it.

    original: framed. given: the part of it that was not generated, in its pixels; lines beside the picture show it.
    """

    pixels: NDArray[np.uint8]
    caption: str = ""
    original: bool = False
    given: Extent | None = None


@lru_cache(maxsize=8)
def font(size: int) -> Any:
    return ImageFont.load_default(size)


@lru_cache(maxsize=4096)
def measure_text(text: str, size: int) -> tuple[int, int]:
    left, top, right, bottom = font(size).getbbox(text or " ")
    return int(right - left) + 1, int(bottom - top) + 1


def shorten(text: str, width: int, size: int) -> str:
    """The text on one line, its end replaced by an ellipsis where it is wider than so many pixels."""
    text = "".join(character if character.isprintable() or character in JOINERS else " " for character in text)
    if measure_text(text, size)[0] <= width:
        return text
    for keep in range(len(text) - 1, 0, -1):
        short = f"{text[:keep].rstrip()}…"
        if not _within_a_glyph(text, keep) and measure_text(short, size)[0] <= width:
            return short
    return "…"


def _within_a_glyph(text: str, at: int) -> bool:
    """Whether a cut there would part a letter from its accents, or a joined sign from its other half."""
    return bool(unicodedata.combining(text[at])) or text[at] in JOINERS or text[at - 1] == JOINERS[0]


def wrap(text: str, width: int, size: int) -> list[str]:
    """Lines no wider than so many pixels; a line break in the text stays one."""
    return [line for paragraph in text.split("\n") for line in _wrap_paragraph(paragraph, width, size)]


def _wrap_paragraph(text: str, width: int, size: int) -> list[str]:
    lines, line = [], ""
    for word in text.split():
        wider = f"{line} {word}".strip()
        if line and measure_text(wider, size)[0] > width:
            lines.append(line)
            line = word
        else:
            line = wider
    return [shorten(entry, width, size) for entry in [*lines, line]]


def write_lines(
    draw: ImageDraw.ImageDraw, lines: Sequence[str], at: tuple[int, int], size: int, colour: Colour, spacing: int
) -> None:
    for number, line in enumerate(lines):
        draw.text((at[0], at[1] + number * (size + spacing)), line, colour, font(size))


def png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "png")
    return mark_png(buffer.getvalue())
