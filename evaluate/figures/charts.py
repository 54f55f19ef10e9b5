"""Charts, one function each, as drawn on matplotlib's axes, and in words. `render.py` makes PNG and SVG of them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lvae.evaluate.figures.drawing import CAPTION, COLOURS, FAINT, INK, Colour, shorten

if TYPE_CHECKING:  # matplotlib is loaded where a chart is drawn
    from matplotlib.axes import Axes

NAME_WIDTH = 190  # of a bar's name, in pixels


@dataclass(frozen=True)
class Chart:
    """A chart that is not drawn yet. summary: what it shows, for those who cannot see it; height: in inches.

    wide: in a figure of several charts it has a row of its own.
    """

    title: str
    summary: str
    draw: "Callable[[Axes], None]"
    height: float = 3.0
    wide: bool = False


@dataclass(frozen=True)
class Curve:
    """Values over steps, (n,) each."""

    name: str
    steps: NDArray[np.float64]
    values: NDArray[np.float64]


@dataclass(frozen=True)
class Series:
    """A few measured points in the order of x: (x, mean, standard deviation over seeds)."""

    name: str
    points: tuple[tuple[float, float, float], ...]


def hex_of(colour: Colour) -> str:
    return "#{:02x}{:02x}{:02x}".format(*colour)


def format_tick(value: float, _: int | None = None) -> str:
    return f"{value:,.0f}" if 1000 <= abs(value) < 1e9 else f"{value:.4g}"


def choose_range(values: Sequence[float] | NDArray[np.float64]) -> tuple[float, float]:
    """A little more than these values take up; not below 0 where none of them is; never empty."""
    low, high = float(min(values)), float(max(values))
    if high - low <= 1e-9 * max(abs(low), abs(high)):
        return (low - 0.1 * abs(low), high + 0.1 * abs(high)) if high else (0.0, 1.0)
    margin = 0.06 * (high - low)
    return (max(0.0, low - margin) if low >= 0 else low - margin), high + margin


def chart_curves(title: str, curves: Sequence[Curve], logarithmic: bool = False, whole: bool = False) -> Chart:
    """Long curves over updates. The axis leaves out the highest hundredth: a first spike does not flatten the rest.

    whole: values are counts, and so are the axis' numbers.
    """
    curves = _drop_missing(curves, logarithmic)

    def draw(axes: "Axes") -> None:
        values = np.concatenate([curve.values for curve in curves])
        most = float(np.quantile(values, 0.99)) if len(values) > 100 else float(values.max())
        shown = values[values <= most]
        if logarithmic:
            from matplotlib.ticker import LogLocator, NullFormatter

            axes.set_yscale("log")
            low, high = np.log10(shown.min()), np.log10(shown.max())
            margin = 0.06 * (high - low) or 0.3
            axes.set_ylim(10 ** (low - margin), 10 ** (high + margin))
            axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high - low < 2 else (1,)))
            axes.yaxis.set_minor_formatter(NullFormatter())
        else:
            axes.set_ylim(*choose_range(shown))
            axes.locator_params(axis="y", nbins=6, steps=[1, 2, 5, 10], integer=whole)
        for number, curve in enumerate(curves):
            marker = "o" if len(curve.steps) == 1 else ""
            axes.plot(
                curve.steps, curve.values, marker=marker, label=curve.name, color=hex_of(COLOURS[number % len(COLOURS)])
            )
        axes.margins(x=0.01)
        axes.locator_params(axis="x", nbins=6, steps=[1, 2, 5, 10], integer=True)
        _finish(axes, "updates", [curve.name for curve in curves])

    said = [
        f"{curve.name or title}: {curve.values[0]:.4g} at first, {curve.values[-1]:.4g} at last" for curve in curves
    ]
    return Chart(title, "; ".join(said), draw)


def chart_points(title: str, x_label: str, series: Sequence[Series], level: tuple[str, float] | None = None) -> Chart:
    """A few measured points with their spread. level: the name of a value that a dashed line marks, and the value."""

    def draw(axes: "Axes") -> None:
        values = [value + sign * spread for one in series for _, value, spread in one.points for sign in (-1, 1)]
        axes.set_ylim(*choose_range([*values, *([level[1]] if level is not None else [])]))
        axes.locator_params(axis="y", nbins=6, steps=[1, 2, 5, 10])
        for number, one in enumerate(series):
            x, y, spread = zip(*one.points, strict=True)
            colour = hex_of(COLOURS[number % len(COLOURS)])
            axes.errorbar(x, y, spread if any(spread) else None, marker="o", color=colour, label=one.name)
        if level is not None:
            axes.axhline(level[1], color=hex_of(FAINT), linestyle=(0, (4, 4)), linewidth=1, label=level[0])
        axes.margins(x=0.06)
        ticks = sorted({x for one in series for x, _, _ in one.points})
        axes.set_xticks(ticks, [f"{x:g}" for x in ticks])
        _finish(axes, x_label, [*(one.name for one in series), level[0] if level is not None else ""])

    said = [f"{one.name or title}: " + ", ".join(f"{y:.4g} at {x:g}" for x, y, _ in one.points) for one in series]
    said += [f"{level[0]}: {level[1]:.4g}"] if level is not None else []
    return Chart(title, "; ".join(said), draw)


def chart_bars(title: str, x_label: str, names: Sequence[str], values: Sequence[float]) -> Chart:
    """Upright bars; neighbours of one name share it."""
    groups = [(name, list(ones)) for name, ones in groupby(enumerate(names), lambda one: one[1])]

    def draw(axes: "Axes") -> None:
        axes.bar(range(len(values)), values, width=0.86, color=hex_of(COLOURS[0]))
        axes.set_ylim(*choose_range([0.0, *values]))
        axes.locator_params(axis="y", nbins=6, steps=[1, 2, 5, 10])
        axes.set_xticks([sum(at for at, _ in ones) / len(ones) for _, ones in groups], [name for name, _ in groups])
        _finish(axes, x_label, [])

    sums = (f"{name}: {sum(values[at] for at, _ in ones):.4g}" for name, ones in groups)
    return Chart(title, "; ".join(sums), draw)


def chart_shares(
    title: str, names: Sequence[str], values: Sequence[float], labels: Sequence[str], number: int = 0
) -> Chart:
    """Horizontal bars, with words at the end of each. number: of the colour."""

    def draw(axes: "Axes") -> None:
        bars = axes.barh(range(len(values)), values, height=0.72, color=hex_of(COLOURS[number % len(COLOURS)]))
        axes.bar_label(bars, labels, padding=4, color=hex_of(FAINT), fontsize=9)
        axes.set_yticks(range(len(values)), [shorten(name, NAME_WIDTH, CAPTION) for name in names])
        axes.tick_params(axis="y", labelcolor=hex_of(INK))
        axes.set_ylim(len(values) - 0.4, -0.6)
        axes.set_xlim(0, 1.3 * (max(values) or 1.0))
        axes.set_xticks([])
        axes.grid(False)
        axes.spines["bottom"].set_visible(False)

    said = "; ".join(f"{name}: {label}" for name, label in zip(names, labels, strict=True))
    return Chart(title, said, draw, 0.5 + 0.25 * len(values), wide=True)


def chart_density(title: str, counts: NDArray[np.float64], edges: NDArray[np.float64], number: int) -> Chart:
    """A histogram, counts (n,) between edges (n + 1,), as a density, with the standard normal as a line over it."""

    def draw(axes: "Axes") -> None:
        density = counts / max(counts.sum(), 1) / np.diff(edges)
        axes.stairs(density, edges, fill=True, color=hex_of(COLOURS[number % len(COLOURS)]), alpha=0.75)
        normal = np.exp(-(edges**2) / 2) / np.sqrt(2 * np.pi)
        axes.plot(edges, normal, color=hex_of(INK), linewidth=1.2, label="N(0, 1)")
        axes.set_ylim(0, 1.05 * max(density.max(), normal.max()))
        axes.set_yticks([])
        axes.legend(loc="upper right")

    return Chart(title, title, draw, 2.0)


def chart_map(title: str, steps: NDArray[np.float64], values: NDArray[np.float64]) -> Chart:
    """Values (rows, steps) as the strength of a colour, row 1 on top; the highest hundredth is as strong as can be."""
    most = max(float(np.quantile(values, 0.99)), 1e-12)

    def draw(axes: "Axes") -> None:
        pixels = np.empty((*values.shape, 4))
        pixels[..., :3], pixels[..., 3] = np.array(COLOURS[0]) / 255, np.clip(values / most, 0, 1)
        last = float(max(steps[-1], steps[0] + 1))
        extent = (float(steps[0]), last, len(values) + 0.5, 0.5)
        axes.imshow(pixels, aspect="auto", extent=extent, interpolation="none")
        axes.set_yticks(sorted({1, len(values)}))
        axes.grid(False)
        axes.locator_params(axis="x", nbins=6, steps=[1, 2, 5, 10], integer=True)
        _finish(axes, "updates", [])

    said = f"{title}: 99 % of them below {most:.4g}, {values[:, -1].sum():.4g} of all at last"
    return Chart(f"{title}; full colour from {most:.3g}", said, draw)


def _drop_missing(curves: Sequence[Curve], logarithmic: bool) -> list[Curve]:
    """Without values that cannot be drawn, and without curves that have no other."""
    found = []
    for curve in curves:
        keep = np.isfinite(curve.values) & ((curve.values > 0) | (not logarithmic))
        if keep.any():
            found.append(Curve(curve.name, curve.steps[keep], curve.values[keep]))
    return found


def _finish(axes: "Axes", x_label: str, names: Sequence[str]) -> None:
    """The name of x, readable numbers, and below them the names of what is drawn."""
    axes.set_xlabel(x_label)
    axis: Any
    for axis in (axes.xaxis, axes.yaxis):
        if axis.get_major_locator().__class__.__name__ != "FixedLocator":
            axis.set_major_formatter(format_tick)
    if any(names):
        axes.legend(loc="upper left", bbox_to_anchor=(0, -0.2), ncols=4, borderaxespad=0, columnspacing=1.2)
