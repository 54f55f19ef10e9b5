"""Charts: what is measured is where it belongs, in PNG and SVG alike, and equal charts are equal bytes."""

import io
import re
import subprocess
import sys
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from lvae.evaluate.figures.charts import (
    Chart,
    Curve,
    Series,
    chart_bars,
    chart_curves,
    chart_density,
    chart_map,
    chart_points,
    chart_shares,
    choose_range,
    format_tick,
)
from lvae.evaluate.figures.drawing import COLOURS
from lvae.evaluate.figures.render import render_png, render_svg

HOSTILE = '<b>"$x$ & 猫'
EDGES = np.linspace(-4.5, 4.5, 10)


def curve(values: "np.ndarray[tuple[int], np.dtype[np.float64]]", name: str = "") -> Curve:
    return Curve(name, np.arange(float(len(values))), values)


CHARTS = (
    chart_curves("curves", [curve(np.arange(5.0), "a"), curve(np.arange(5.0) * 2, HOSTILE)]),
    chart_curves("norms", [curve(np.exp(np.arange(9.0)))], logarithmic=True),
    chart_points("points", "x", [Series(HOSTILE, ((0, 1, 0.5), (1, 2, 0)))], ("level", 1.5)),
    chart_points("one point", "x", [Series("one", ((1.0, 2.0, 0.0),))]),
    chart_bars("bars", "groups", ["1", "4", "4"], [1.0, 0.0, 2.0]),
    chart_shares("shares", [HOSTILE, "32x32"], [0.0, 3.0], ["none", "all"]),
    chart_shares("nothing", ["1x1"], [0.0], ["0"]),
    chart_density("density", np.ones(9), EDGES, 0),
    chart_map("map", np.arange(3.0), np.arange(6.0).reshape(2, 3)),
)


def heights(chart: Chart) -> list[int]:
    """From left to right, the topmost pixel of the first colour in every column that has it."""
    pixels = np.asarray(Image.open(io.BytesIO(render_png([chart]))).convert("RGB"))
    return [int(column.argmax()) for column in (pixels == COLOURS[0]).all(axis=2).T if column.any()]


def test_a_falling_curve_falls() -> None:
    found = heights(chart_curves("loss", [curve(np.linspace(9, 3, 50))]))
    assert len(found) > 250
    assert sorted(found) == found
    assert found[-1] - found[0] > 100


def test_a_logarithmic_axis_makes_a_line_of_an_exponential() -> None:
    found = heights(chart_curves("norm", [curve(np.exp(-np.arange(50.0) / 5))], logarithmic=True))
    assert abs((found[0] + found[-1]) / 2 - found[len(found) // 2]) < 4


def test_a_first_spike_does_not_flatten_a_curve() -> None:
    values = np.linspace(9, 3, 400)
    spiked = values.copy()
    spiked[0] = 1e6
    plain, shown = (np.ptp(heights(chart_curves("loss", [curve(one)]))) for one in (values, spiked))
    assert abs(plain - shown) < 30


@given(st.lists(st.floats(-1e6, 1e6, allow_subnormal=False), min_size=1, max_size=6))
def test_an_axis_holds_all_values_and_does_not_go_below_zero_for_nothing(values: list[float]) -> None:
    low, high = choose_range(values)
    assert low < high and low <= min(values) and max(values) <= high
    assert low >= 0 or min(values) < 0


def test_zeros_stand_at_the_foot_of_their_chart() -> None:
    assert choose_range([0.0, 0.0]) == (0.0, 1.0)


def test_numbers_at_an_axis_can_be_read() -> None:
    assert [format_tick(value) for value in (20000, 0.30000000000000004, 1e-7, 0, -1500)] == [
        "20,000", "0.3", "1e-07", "0", "-1,500",
    ]  # fmt: skip


@pytest.mark.parametrize("chart", CHARTS, ids=lambda chart: chart.title)
def test_an_svg_is_a_well_formed_element_of_its_page(chart: Chart) -> None:
    found = render_svg(chart)
    root = ElementTree.fromstring(found)
    assert root.tag == "svg" and root.attrib["aria-label"] == chart.summary
    assert not root.findall(".//style") and not root.findall(".//metadata")
    ids = [one.attrib["id"] for one in root.iter() if "id" in one.attrib]
    assert len(ids) == len(set(ids))
    used = re.findall(r'(?:url\(#|href="#)([^")]+)', found)
    assert set(used) == set(ids)
    assert not re.search(r"#[0-9a-f]{6}\b", found.replace("url(#", ""))  # every colour is one of the page's
    assert "var(--" in found


def test_equal_charts_are_equal_bytes_and_unlike_ones_share_no_name() -> None:
    for chart in CHARTS[:3]:
        assert (render_svg(chart), render_png([chart])) == (render_svg(chart), render_png([chart]))
    found = [set(re.findall(r'id="([^"]+)"', render_svg(chart))) for chart in CHARTS]
    assert sum(map(len, found)) == len(set().union(*found))


def test_matplotlib_is_loaded_where_a_chart_is_drawn_and_keeps_its_settings() -> None:
    program = (
        "import sys, lvae.evaluate.pictures.inspect, lvae.evaluate.analysis.sweep_figures, lvae.evaluate.report.write\n"
        "from lvae.evaluate.figures import charts, render\n"
        "chart = charts.chart_bars('t', 'x', ['a'], [1.0])\n"
        "assert 'matplotlib' not in sys.modules\n"
        "import matplotlib\n"
        "before = matplotlib.rcParams.copy()\n"
        "render.render_svg(chart)\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n"
        "assert matplotlib.rcParams.copy() == before\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
