"""The pieces of a page: every text is escaped here, every picture carries its bytes and says what it shows."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lvae.evaluate.figures.charts import Chart
from lvae.evaluate.figures.render import render_svg
from lvae.evaluate.report.style import STYLE

LARGEST = 192  # pixels of a side: larger pictures are reduced, or a page of them would weigh too much
LARGE = 96  # from here on they are shown larger


@dataclass(frozen=True)
class Shot:
    """A picture of a page: base64 of a PNG, its side in pixels, what it shows, and what stands below it."""

    data: str
    side: int
    alt: str
    caption: str = ""

    @classmethod
    def of(cls, pixels: NDArray[np.uint8], alt: str, caption: str = "") -> "Shot":
        """uint8 (H, W, 3)."""
        picture = Image.fromarray(pixels)
        if picture.width > LARGEST:
            picture = picture.resize((LARGEST, LARGEST * picture.height // picture.width), Image.Resampling.LANCZOS)
        buffer = io.BytesIO()
        picture.save(buffer, "png", optimize=True)
        return cls(base64.b64encode(buffer.getvalue()).decode(), picture.width, alt, caption)


@dataclass(frozen=True)
class Head:
    """Columns of pictures that belong together: a title over all, a heading over each."""

    title: str
    headings: tuple[str, ...]


@dataclass(frozen=True)
class Line:
    """A row of pictures; None leaves a place free."""

    name: str
    shots: tuple[Shot | None, ...]


@dataclass(frozen=True)
class Section:
    """One part of the page: an anchor, a title and what it holds."""

    anchor: str
    title: str
    body: str


def paragraph(text: str, kind: str = "") -> str:
    return f'<p class="{kind}">{escape(text)}</p>' if kind else f"<p>{escape(text)}</p>"


def subtitle(text: str) -> str:
    return f"<h3>{escape(text)}</h3>"


def command(text: str) -> str:
    return f'<code class="command" tabindex="0">{escape(text)}</code>'


def figure(content: str, caption: str, made_by: str) -> str:
    """Content over its caption and the command that makes it."""
    return f"<figure>{content}<figcaption>{paragraph(caption)}{command(made_by)}</figcaption></figure>"


def missing(text: str, how: str) -> str:
    """What a section would show, and the command that makes it."""
    return f'<div class="missing">{paragraph(text)}{command(how)}</div>'


def key_figures(pairs: Sequence[tuple[str, str]]) -> str:
    items = "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in pairs)
    return f'<dl class="figures">{items}</dl>'


def facts(label: str, pairs: Sequence[tuple[str, str]], mono: bool = False) -> str:
    """A table of two columns; `mono` for checksums."""

    def shown(value: str) -> str:
        return f"<code>{escape(value)}</code>" if mono else escape(value)

    rows = "".join(f'<tr><th scope="row">{escape(name)}</th><td>{shown(value)}</td></tr>' for name, value in pairs)
    kind = "data mono" if mono else "data"
    return scrolling(f'<table class="{kind}"><tbody>{rows}</tbody></table>', label)


def numbers(label: str, heads: Sequence[str], rows: Sequence[tuple[str, Sequence[str], str]]) -> str:
    """A table of numbers. A row: its name, its cells, and "quiet" for one that only gives a measure, else ""."""
    head = "".join(f'<th scope="col" class="number">{escape(text)}</th>' for text in heads)
    body = "".join(
        f'<tr class="{kind}"><th scope="row">{escape(name)}</th>'
        + "".join(f'<td class="number">{escape(cell)}</td>' for cell in cells)
        + "</tr>"
        for name, cells, kind in rows
    )
    table = f'<table class="data"><thead><tr><td></td>{head}</tr></thead><tbody>{body}</tbody></table>'
    return scrolling(table, label)


def scrolling(content: str, label: str) -> str:
    """Something wide, which scrolls by itself where the screen is narrow."""
    return f'<div class="scroll" role="region" tabindex="0" aria-label="{escape(label)}">{content}</div>'


def pictures(label: str, heads: Sequence[Head], lines: Sequence[Line]) -> str:
    """A table of pictures."""
    starts = {sum(len(head.headings) for head in heads[:number]) for number in range(1, len(heads))}
    rows = []
    if any(head.title for head in heads):
        cells = "".join(
            f'<th scope="colgroup" colspan="{len(head.headings)}"{_gap(number > 0)}>{escape(head.title)}</th>'
            for number, head in enumerate(heads)
        )
        rows.append(f'<tr class="blocks"><td></td>{cells}</tr>')
    headings = [heading for head in heads for heading in head.headings]
    if any(headings):
        cells = "".join(
            f'<th scope="col"{_gap(number in starts)}>{escape(heading)}</th>' for number, heading in enumerate(headings)
        )
        rows.append(f"<tr><td></td>{cells}</tr>")
    head_html = f"<thead>{''.join(rows)}</thead>" if rows else ""
    body = "".join(
        f'<tr><th scope="row">{escape(line.name)}</th>'
        + "".join(f"<td{_gap(n in starts)}>{_shown(shot)}</td>" for n, shot in enumerate(line.shots))
        + "</tr>"
        for line in lines
    )
    side = max((shot.side for line in lines for shot in line.shots if shot is not None), default=0)
    kind = "pictures large" if side >= LARGE else "pictures"
    return scrolling(f'<table class="{kind}">{head_html}<tbody>{body}</tbody></table>', label)


def _gap(between: bool) -> str:
    return ' class="gap"' if between else ""


def _shown(shot: Shot | None) -> str:
    if shot is None:
        return ""
    below = f"<small>{escape(shot.caption)}</small>" if shot.caption else ""
    size = f'width="{shot.side}" height="{shot.side}"'
    return f'<img src="data:image/png;base64,{shot.data}" {size} alt="{escape(shot.alt)}">{below}'


def charts(found: Sequence[Chart]) -> str:
    """As many beside one another as there is room for."""
    items = (
        f"<figure><h3>{escape(one.title[:1].upper() + one.title[1:])}</h3>{render_svg(one)}</figure>" for one in found
    )
    return f'<div class="charts">{"".join(items)}</div>'


def folded(title: str, text: str) -> str:
    """Long text behind a line that opens it."""
    return f"<details><summary>{escape(title)}</summary><pre><code>{escape(text)}</code></pre></details>"


def page(title: str, eyebrow: str, lede: str, top: str, sections: Sequence[Section], foot: str) -> str:
    """The whole document. It asks for nothing outside of itself, and forbids it."""
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    links = "".join(f'<li><a href="#{section.anchor}">{escape(section.title)}</a></li>' for section in sections)
    body = "".join(
        f'<section id="{section.anchor}"><h2>{escape(section.title)}</h2>{section.body}</section>'
        for section in sections
    )
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f'<link rel="icon" href="data:,">\n<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n'
        f'<header><p class="eyebrow">{escape(eyebrow)}</p><h1>{escape(title)}</h1>'
        f'<p class="lede">{escape(lede)}</p>{top}<nav aria-label="Sections"><ul>{links}</ul></nav></header>\n'
        f"<main>{body}</main>\n<footer>{paragraph(foot)}</footer>\n</body>\n</html>\n"
    )
