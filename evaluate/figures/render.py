"""Charts as files: PNG on white paper, and SVG for a page, whose colours it takes, light or dark.

Equal charts give equal bytes: no dates, and names inside of an SVG are made from what it shows.
"""

import io
import re
import textwrap
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from xml.etree import ElementTree

from lvae.evaluate.figures.charts import Chart, hex_of
from lvae.evaluate.figures.drawing import COLOURS, FAINT, INK, PAPER, RULE
from lvae.manifests.storage.places.marks import mark_png

WIDTH, DPI = 5.8, 100  # inches of a chart, pixels of an inch
ON_PAGE = 0.84  # size of a chart on a page: smaller, so that its letters can be read on a phone
TITLE_LETTERS, NOTE_LETTERS = 78, 80  # in a line over a chart, and below all

NOTHING = Chart("Nothing was measured.", "", lambda axes: axes.set_axis_off(), 0.6)

# What matplotlib writes, and the colours of the page that stand for it.
PAGE_COLOURS = {
    hex_of(INK): "var(--ink)",
    hex_of(FAINT): "var(--soft)",
    hex_of(RULE): "var(--rule)",
    **{hex_of(colour): f"var(--s{number})" for number, colour in enumerate(COLOURS)},
}

STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "text.color": hex_of(INK),
    "text.parse_math": False,  # names may hold dollar signs
    "axes.titlelocation": "left",
    "axes.titlesize": 10.5,
    "axes.labelcolor": hex_of(FAINT),
    "axes.labelsize": 9,
    "axes.edgecolor": hex_of(RULE),
    "axes.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "axes.formatter.use_mathtext": False,
    "grid.color": hex_of(RULE),
    "xtick.color": hex_of(FAINT),
    "ytick.color": hex_of(FAINT),
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "xtick.minor.size": 0,
    "ytick.minor.size": 0,
    "lines.linewidth": 1.7,
    "lines.markersize": 5,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "svg.fonttype": "none",
}


def render_png(charts: Sequence[Chart], columns: int = 1, title: str = "", note: str = "") -> bytes:
    """Charts under their titles, so many in a row, below a title and above a note."""
    from matplotlib.figure import Figure

    rows = _arrange(charts or [NOTHING], columns)
    heights = [max(chart.height for chart in row) for row in rows]
    notes = textwrap.wrap(note, NOTE_LETTERS * columns)
    size = WIDTH * columns, sum(heights) + 0.4 * bool(title) + 0.2 * len(notes)
    buffer = io.BytesIO()
    with _apply_style():
        figure = Figure(figsize=size, dpi=DPI, facecolor=hex_of(PAPER), layout="constrained")
        figure.get_layout_engine().set(w_pad=0.12, h_pad=0.1)  # type: ignore[call-arg, union-attr]
        places = figure.subfigures(len(rows), 1, height_ratios=heights, squeeze=False)[:, 0]
        for place, row in zip(places, rows, strict=True):
            place.set_facecolor("none")
            across = 1 if row[0].wide else columns
            for column, chart in enumerate(row):
                axes = place.add_subplot(1, across, column + 1)
                chart.draw(axes)
                axes.set_title("\n".join(textwrap.wrap(chart.title, TITLE_LETTERS * columns // across)))
        if title:
            figure.suptitle(title, x=0.01, horizontalalignment="left", fontsize=13)
        if notes:
            figure.supxlabel("\n".join(notes), x=0.01, horizontalalignment="left", fontsize=9, color=hex_of(FAINT))
        figure.savefig(buffer, format="png", metadata={"Software": None})
    return mark_png(buffer.getvalue())


def render_svg(chart: Chart) -> str:
    """An element of a page, without its title: text stays text, colours are the page's."""
    from matplotlib.figure import Figure

    buffer = io.StringIO()
    with _apply_style(salt=chart.title + chart.summary):
        figure = Figure(figsize=(ON_PAGE * WIDTH, ON_PAGE * chart.height), facecolor="none", layout="constrained")
        chart.draw(figure.add_subplot())
        figure.savefig(buffer, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    return _fit_into_page(buffer.getvalue(), chart.summary)


def _arrange(charts: Sequence[Chart], columns: int) -> list[list[Chart]]:
    """Rows of charts; a wide one stands alone."""
    rows: list[list[Chart]] = []
    for chart in charts:
        if chart.wide or not rows or len(rows[-1]) == columns or rows[-1][-1].wide:
            rows.append([])
        rows[-1].append(chart)
    return rows


@contextmanager
def _apply_style(salt: str = "") -> Iterator[None]:
    """Our style and nothing of the user's; afterwards matplotlib is as it was."""
    import matplotlib
    import matplotlib.style

    with (
        matplotlib.style.context(["default", STYLE]),
        matplotlib.rc_context({"svg.hashsalt": salt}),
        warnings.catch_warnings(),
    ):
        warnings.filterwarnings("ignore", "Glyph .* missing from")  # a class may have any name
        yield


def _fit_into_page(text: str, summary: str) -> str:
    """matplotlib's document as an element: no ids but those that are used, which no other chart has."""
    root = ElementTree.fromstring(text)
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
        element.attrib = {name.rpartition("}")[2]: value for name, value in element.attrib.items()}
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag in ("metadata", "style"):
                parent.remove(child)
    root.attrib = {"viewBox": root.attrib["viewBox"], "role": "img", "aria-label": summary}
    used = set(re.findall(r"#([\w-]+)", " ".join(value for one in root.iter() for value in one.attrib.values())))
    for element in root.iter():
        if element.attrib.get("id") not in used:
            element.attrib.pop("id", None)
    found = ElementTree.tostring(root, "unicode")
    for colour, variable in PAGE_COLOURS.items():
        found = found.replace(colour, variable)
    return found
