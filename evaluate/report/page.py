"""What a page is made of, and how it becomes HTML: laid out by `page.html` and `blocks.html`, styled by `page.css`.

Jinja escapes every text; every picture carries its bytes and says what it shows.
"""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from numpy.typing import NDArray
from PIL import Image

from lvae.evaluate.figures.charts import Chart
from lvae.evaluate.figures.render import render_svg

LARGEST = 192  # pixels of a side: larger pictures are reduced, or a page of them would weigh too much
LARGE = 96  # from here on they are shown larger


@dataclass(frozen=True)
class Thumbnail:
    """A picture of a page: base64 of a PNG, its size in pixels, what it shows, and what stands below it."""

    data: str
    width: int
    height: int
    alt: str
    caption: str = ""

    @classmethod
    def of(cls, pixels: NDArray[np.uint8], alt: str, caption: str = "") -> "Thumbnail":
        """uint8 (H, W, 3)."""
        picture = Image.fromarray(pixels)
        if picture.width > LARGEST:
            picture = picture.resize((LARGEST, LARGEST * picture.height // picture.width), Image.Resampling.LANCZOS)
        buffer = io.BytesIO()
        picture.save(buffer, "png", optimize=True)
        return cls(base64.b64encode(buffer.getvalue()).decode(), *picture.size, alt, caption)


@dataclass(frozen=True)
class ColumnGroup:
    """Columns of pictures that belong together: a title over all, a heading over each."""

    title: str
    headings: tuple[str, ...]


@dataclass(frozen=True)
class PictureRow:
    """A row of pictures; None leaves a place free."""

    name: str
    pictures: tuple[Thumbnail | None, ...]


@dataclass(frozen=True)
class Paragraph:
    kind: ClassVar = "paragraph"
    text: str
    warning: bool = False


@dataclass(frozen=True)
class Subtitle:
    kind: ClassVar = "subtitle"
    text: str


@dataclass(frozen=True)
class KeyFigures:
    """Tiles: a name, a value, and what it is to be read beside ("" for nothing)."""

    kind: ClassVar = "key_figures"
    tiles: Sequence[tuple[str, str, str]]


@dataclass(frozen=True)
class InWords:
    """A headline and the sentences that it rests on."""

    kind: ClassVar = "in_words"
    headline: str
    sentences: Sequence[str]


@dataclass(frozen=True)
class Facts:
    """A table of two columns. mono: for checksums."""

    kind: ClassVar = "facts"
    label: str
    pairs: Sequence[tuple[str, str]]
    mono: bool = False


@dataclass(frozen=True)
class Numbers:
    """A table of numbers. A row: its name, its cells, and whether it only gives a measure for the others."""

    kind: ClassVar = "numbers"
    label: str
    headings: Sequence[str]
    rows: Sequence[tuple[str, Sequence[str], bool]]


@dataclass(frozen=True)
class PictureTable:
    kind: ClassVar = "pictures"
    label: str
    groups: Sequence[ColumnGroup]
    rows: Sequence[PictureRow]

    @property
    def headings(self) -> list[str]:
        return [heading for group in self.groups for heading in group.headings]

    @property
    def starts(self) -> set[int]:
        """Columns before which there is a gap: the first of every group but the first."""
        return {sum(len(group.headings) for group in self.groups[:number]) for number in range(1, len(self.groups))}

    @property
    def large(self) -> bool:
        return any(one is not None and one.width >= LARGE for row in self.rows for one in row.pictures)


@dataclass(frozen=True)
class Charts:
    kind: ClassVar = "charts"
    charts: Sequence[Chart]


@dataclass(frozen=True)
class Folded:
    """Long text behind a line that opens it."""

    kind: ClassVar = "folded"
    title: str
    text: str


@dataclass(frozen=True)
class Missing:
    """What a section would show, and the command that makes it."""

    kind: ClassVar = "missing"
    text: str
    command: str


@dataclass(frozen=True)
class WithCaption:
    """Content, or nothing, over its caption and the command that makes it."""

    kind: ClassVar = "with_caption"
    content: "Block | None"
    caption: str
    command: str


Text = Paragraph | Subtitle | InWords | Folded | Missing
Block = Text | KeyFigures | Facts | Numbers | PictureTable | Charts | WithCaption


@dataclass(frozen=True)
class Section:
    """One part of the page: an anchor, a title and what it holds."""

    anchor: str
    title: str
    blocks: Sequence[Block]


@dataclass(frozen=True)
class Page:
    """eyebrow: above the title; lede: a sentence below it; top: before the sections."""

    title: str
    eyebrow: str
    lede: str
    top: Sequence[Block]
    sections: Sequence[Section]
    foot: str

    def render(self) -> str:
        """The whole document. It asks for nothing outside of itself, and forbids it."""
        folder = Path(__file__).parent
        jinja = Environment(
            loader=FileSystemLoader(folder),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        jinja.filters["svg"] = lambda chart: Markup(render_svg(chart))
        style = Markup((folder / "page.css").read_text())
        return jinja.get_template("page.html").render(page=self, style=style)
